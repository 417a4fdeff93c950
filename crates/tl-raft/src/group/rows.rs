//! Rows in the place of entries: who lacks them, when they are gone on from, and what a group does
//! whose rows are damaged. Which rows, and how they travel, is the caller's.

use std::collections::BTreeMap;

use raft::eraftpb::{Message, SnapshotMetadata};
use raft::{ProgressState, SnapshotStatus, StateRole};
use tl_types::{Index, Term};
use tl_wal::Record;

use super::change::told_members;
use super::{Group, Yield};
use crate::deeds::{Outcome, PeerId, Staged};
use crate::members::Members;

impl Group {
    /// Only rows that are here can be gone on from, and only those that the leader means. Of a
    /// position that is committed here Raft takes note and answers how far this replica is; but at
    /// the last committed one it would start anew if the terms differ, which no sound peer says.
    pub(super) fn check_snapshot(&self, message: &mut Message) -> Result<(), &'static str> {
        if self.contradicts(message.get_snapshot().get_metadata()) {
            return Err("snapshot of another term than what is committed here");
        }
        if self.leads() && message.term <= self.raw.raft.term {
            return Err("snapshot for a leader");
        }
        if self.installing.is_some() {
            return Err("snapshot while another is put in place");
        }
        let metadata = message.mut_snapshot().mut_metadata();
        let is_news = metadata.index > self.raw.raft.raft_log.committed || self.is_damaged;
        if is_news && !self.is_staged(metadata) {
            return Err("snapshot whose rows are not here");
        }
        let told = told_members(message.get_snapshot());
        let members = told.filter(|told| told.at > self.members().at);
        let members = members.as_ref().unwrap_or(self.members());
        if !members.contains(self.peer) {
            return Err("snapshot for one that is no member");
        }
        let state = members.to_conf_state();
        message.mut_snapshot().mut_metadata().set_conf_state(state);
        Ok(())
    }

    /// Whether another term is committed at this position. What is let go is not compared: Raft
    /// never starts anew from a position before the last committed one.
    fn contradicts(&self, metadata: &SnapshotMetadata) -> bool {
        let log = &self.raw.raft.raft_log;
        let (index, term) = (metadata.index, metadata.term);
        let is_known = index <= log.committed && index + 1 >= self.first_kept().0;
        is_known && !log.match_term(index, term)
    }

    pub(super) fn is_staged(&self, metadata: &SnapshotMetadata) -> bool {
        self.staged
            .is_some_and(|rows| rows.index.0 == metadata.index && rows.term.0 == metadata.term)
    }

    /// Rows that a leader may say to go on from, or none.
    pub(crate) fn stage(&mut self, rows: Option<Staged>) {
        assert!(
            self.installing.is_none(),
            "rows are changed before or after they are put in place"
        );
        self.staged = rows;
    }

    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// A follower is being given rows; see [`Inbound::Giving`](crate::Inbound::Giving).
    pub(crate) fn give(&mut self, to: PeerId, rows: Option<(Index, Term)>) {
        if !self.members().contains(to) {
            return;
        }
        self.giving.insert(to);
        self.raw.mut_store().offer(to.0, rows);
        if rows.is_none() {
            self.forget_request(to);
        }
        self.resume(to);
    }

    pub(crate) fn given(&mut self, to: PeerId) {
        self.giving.remove(&to);
        self.raw.mut_store().offer(to.0, None);
        self.forget_request(to);
        self.resume(to);
    }

    /// Raft remembers that a follower asked for rows, also when it has got them. One that still
    /// needs them asks again.
    pub(super) fn forget_request(&mut self, to: PeerId) {
        if self.leads()
            && let Some(progress) = self.raw.raft.mut_prs().get_mut(to.0)
        {
            progress.pending_request_snapshot = raft::INVALID_INDEX;
        }
    }

    /// Raft says once that there is a snapshot and then waits for the follower for ever.
    pub(super) fn resume(&mut self, to: PeerId) {
        let waits = |progress: &raft::Progress| progress.state == ProgressState::Snapshot;
        if self.leads() && self.raw.raft.prs().get(to.0).is_some_and(waits) {
            self.raw.report_snapshot(to.0, SnapshotStatus::Failure);
            self.stepped();
        }
    }

    /// Followers that need rows, and the least entry in them.
    pub(crate) fn take_lacking(&mut self) -> BTreeMap<u64, u64> {
        self.raw.mut_store().take_lacking()
    }

    /// Rows here are not to be trusted.
    pub(crate) fn damaged(&mut self) {
        if self.several() {
            self.is_damaged = true;
            // Votes that are on their way shall not make it lead.
            if matches!(self.raw.raft.state, StateRole::Candidate | StateRole::PreCandidate) {
                self.raw.raft.become_follower(self.raw.raft.term, raft::INVALID_ID);
                self.stepped();
            }
            self.hand_over();
        }
    }

    /// Raft asks once for each leader and refuses while that has not been heard of; until the rows
    /// are in place it answers appends with the same request.
    pub(super) fn ask_for_rows(&mut self) {
        let raft = &self.raw.raft;
        if raft.leader_id != 0 && raft.pending_request_snapshot == raft::INVALID_INDEX {
            let _ = self.raw.request_snapshot();
            self.stepped();
        }
    }

    /// The record decides at a start which rows are the group's; it comes before the entries that
    /// follow them.
    pub(super) fn install(
        &mut self,
        number: u64,
        rows: Staged,
        members: Option<Members>,
        out: &mut Yield<'_>,
    ) {
        let Staged { index, term, generation } = rows;
        assert!(index >= self.handed_out, "a group never goes back behind what it has applied");
        out.records.push(Record::Installed { group: self.id, index, term, generation });
        self.raw.mut_store().restart_behind((index, term));
        // Raft was given these members with the rows.
        let news = members.filter(|members| members.at > self.members().at);
        // The end of a doubt says all anew: what was said before it may be damaged.
        if news.is_some() || self.unrecorded.is_some() || self.doubt.is_some() {
            if let Some(members) = news {
                self.raw.mut_store().set_members(members);
            }
            self.record_members(out.records);
        }
        // What was held is in the rows.
        self.held.clear();
        self.held_for = None;
        self.handed_out = index;
        self.cut_by = number;
        self.installing = Some((number, rows));
        let outcomes = &mut out.deeds.outcomes;
        self.tokens.skipped(index, |token| outcomes.push(Outcome::Unknown { token }));
    }
}
