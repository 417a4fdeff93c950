//! A `Ready` and what becomes of it: records, messages that wait for them, entries to be applied.
use bytes::Bytes;
use raft::eraftpb::Message;
use tl_types::{Index, Term};
use tl_wal::Record;

use super::change::told_members;
use super::{Group, role};
use crate::deeds::{
    ApplyBatch, Committed, Deeds, Installed, JobId, Outcome, ReadReady, RoleChange,
};
use crate::members::is_change;

/// A `Ready` whose records, or those before it, are not known to be on disk.
pub(super) struct Unconfirmed {
    number: u64,
    job: JobId,
    messages: Vec<Message>,
}

/// Where a group's `Ready` puts what it yields.
pub(crate) struct Yield<'a> {
    /// The log job that this turn's records go into.
    pub(crate) job: JobId,
    pub(crate) records: &'a mut Vec<Record>,
    /// Messages that may leave at once.
    pub(crate) messages: &'a mut Vec<Message>,
    pub(crate) deeds: &'a mut Deeds,
}

impl Group {
    /// Takes one `Ready`. Returns whether this turn's log job has to be confirmed to this group.
    pub(crate) fn take_ready(&mut self, out: &mut Yield<'_>) -> bool {
        let mut ready = self.raw.ready();
        let number = ready.number();
        let records_before = out.records.len();
        let snapshot = ready.snapshot().get_metadata();
        let ends_doubt = self.doubt.is_some() && snapshot.index != 0;
        let promise = self.promise(&ready, ends_doubt);
        if !ends_doubt {
            self.record_promise(promise.filter(|it| *it != self.recorded), out.records);
        }
        if snapshot.index != 0 {
            assert!(self.is_staged(snapshot), "a snapshot is stepped only with its rows");
            let rows = self.staged.take().expect("just seen");
            self.install(number, rows, told_members(ready.snapshot()), out);
        }
        if ends_doubt {
            // Behind all else that ends it: of a job a crash may leave a first part, and that is still in
            // doubt.
            self.record_promise(promise, out.records);
        }
        let entries = ready.take_entries();
        if self.raw.mut_store().append(&entries) {
            self.cut_by = number;
        }
        out.records.extend(entries.into_iter().map(|entry| Record::Entry {
            group: self.id,
            term: Term(entry.term),
            index: Index(entry.index),
            data: entry.data,
        }));
        let mut messages = ready.take_messages();
        let mut promises = ready.take_persisted_messages();
        if self.doubt.is_some() {
            messages.clear();
            promises.retain(|message| ends_doubt && self.is_answer_to_rows(message));
        }
        out.messages.append(&mut messages);
        self.held.extend(ready.take_committed_entries());
        for state in ready.take_read_states() {
            let (group, index) = (self.id, Index(state.index));
            let tokens = self.reads.finish_round(&state.request_ctx);
            out.deeds.reads.extend(tokens.map(|token| ReadReady { group, token, index }));
        }
        self.raw.advance_append_async(ready);
        self.hand_out(out);
        let has_records = out.records.len() > records_before;

        let waits_for = if has_records {
            Some(out.job)
        } else {
            self.unconfirmed.back().map(|ready| ready.job)
        };
        match waits_for {
            Some(job) => {
                self.unconfirmed.push_back(Unconfirmed { number, job, messages: promises })
            }
            None => {
                self.raw.on_persist_ready(number);
                out.messages.extend(promises);
            }
        }
        self.report_role(out.deeds);
        has_records
    }

    /// Hands out what is committed, up to a change of members that has no record yet.
    fn hand_out(&mut self, out: &mut Yield<'_>) {
        if self.unrecorded.is_some_and(|at| at <= self.handed_out) {
            self.record_members(out.records);
        }
        let mut entries = Vec::with_capacity(self.held.len());
        while self.held_for.is_none()
            && let Some(entry) = self.held.pop_front()
        {
            let (index, term) = (Index(entry.index), Term(entry.term));
            if let Some(members) = self.news_of(&entry) {
                self.take_up(members, out.records);
                self.held_for = Some(out.job);
                self.held.push_front(entry);
                break;
            }
            if self.unrecorded == Some(index) {
                self.record_members(out.records);
                self.held_for = Some(out.job);
                self.held.push_front(entry);
                break;
            }
            assert_eq!(index.0, self.handed_out.0 + 1, "committed entries come without a hole");
            self.handed_out = index;
            let outcomes = &mut out.deeds.outcomes;
            let token =
                self.tokens.committed(index, term, |token| outcomes.push(Outcome::Lost { token }));
            // Who belongs to the group is no command for the rules.
            let data = if is_change(&entry.data) { Bytes::new() } else { entry.data };
            entries.push(Committed { index, term, data, token });
        }
        if !entries.is_empty() {
            out.deeds.apply.push(ApplyBatch { group: self.id, entries });
        }
    }

    fn report_role(&mut self, deeds: &mut Deeds) {
        let now = RoleChange {
            group: self.id,
            role: role(self.raw.raft.state),
            term: Term(self.raw.raft.term),
            leader: self.leader(),
        };
        if now != self.reported {
            self.reported = now;
            deeds.roles.push(now);
        }
    }

    /// The records of `job` are on disk: tells Raft, and lets go what waited for them.
    ///
    /// While a `Ready` that cuts entries off is on its way to disk, Raft is not told of those
    /// before it. Raft recognises what became durable by index and term alone; if a third leader
    /// brings the cut entries back, it would take the first copy's confirmation for theirs,
    /// although the log on disk may still end at the cut after a crash.
    /// A snapshot cuts off everything.
    pub(crate) fn confirm(
        &mut self,
        job: JobId,
        messages: &mut Vec<Message>,
        installed: &mut Vec<Installed>,
    ) {
        let mut number = None;
        while self.unconfirmed.front().is_some_and(|ready| ready.job <= job) {
            let ready = self.unconfirmed.pop_front().expect("just seen");
            assert_eq!(ready.job, job, "jobs are confirmed one by one");
            number = Some(ready.number);
            messages.extend(ready.messages);
        }
        self.held_for.take_if(|held_for| *held_for <= job);
        let number = number.expect("the group had records in this job");
        if number >= self.cut_by {
            self.raw.on_persist_ready(number);
            if let Some((_, rows)) = self.installing.take_if(|(by, _)| *by <= number) {
                self.raw.advance_apply_to(rows.index.0);
                self.is_damaged = false;
                self.doubt = None;
                installed.push(Installed { group: self.id, rows });
            }
            self.stepped();
        }
    }

    /// Notes that the caller has applied entries. What is below or equal to what is known already
    /// says nothing new.
    pub(crate) fn applied(&mut self, index: Index) {
        assert!(
            index <= self.handed_out,
            "group {}: {index} was never handed out to be applied",
            self.id
        );
        if index.0 > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index.0);
            // Rows that are being put in place are ahead of it.
            if index > self.log().applied() {
                self.raw.mut_store().set_applied(index);
            }
            self.stepped();
        }
    }
}
