//! What comes in: frames, requests and ends of jobs, and the backlog of them.
use bytes::Bytes;
use tl_types::{GroupId, Index, Term};

use super::Driver;
use crate::config::FRAME_BACKLOG_BYTES_MAX;
use crate::deeds::{Deeds, Inbound, JobId, Outcome, PeerId, Rejected};
use crate::frame::{self, Said};
use crate::group::{Group, Heard};
use crate::members::ChangeRefused;

impl Driver {
    /// Confirmations and applied indexes are taken at once, whatever is queued before them: they
    /// free memory and make room for the proposals of this turn.
    pub(super) fn take_in(&mut self, inbox: impl IntoIterator<Item = Inbound>, deeds: &mut Deeds) {
        for inbound in inbox {
            match inbound {
                Inbound::LogDone { job } => self.log_done(job, deeds),
                Inbound::Applied { group, index } => {
                    if self.lives_here(group) {
                        self.reckoned(group, |group| group.applied(index));
                        self.shrink(group);
                    }
                }
                Inbound::Frame { from, ref bytes } => {
                    if self.backlog_frame_bytes + bytes.len() > FRAME_BACKLOG_BYTES_MAX {
                        deeds.rejected.push(Rejected {
                            from,
                            group: None,
                            reason: "too many frames wait",
                        });
                    } else {
                        self.backlog_frame_bytes += bytes.len();
                        self.backlog.push_back(inbound);
                    }
                }
                Inbound::Propose { .. }
                | Inbound::ReadIndex { .. }
                | Inbound::Campaign { .. }
                | Inbound::Transfer { .. }
                | Inbound::ChangeMembers { .. }
                | Inbound::Unreachable { .. } => self.backlog.push_back(inbound),
                Inbound::Giving { group, to, rows } => {
                    self.with_group(group, |group| group.give(to, rows));
                }
                Inbound::Given { group, to } => self.with_group(group, |group| group.given(to)),
                Inbound::Staged { group, rows } => {
                    self.with_group(group, |group| group.stage(Some(rows)));
                }
                Inbound::Unstaged { group } => self.with_group(group, |group| group.stage(None)),
                Inbound::Damaged { group } => self.with_group(group, Group::damaged),
                Inbound::Fetched { group, to, from, entries } => {
                    self.fetched((group, to), from, entries, deeds);
                }
            }
        }
    }

    /// Entries were read from the log for a follower, or none.
    fn fetched(
        &mut self,
        (id, to): (GroupId, PeerId),
        from: Index,
        entries: Vec<(Term, Bytes)>,
        deeds: &mut Deeds,
    ) {
        if !self.feeds.awaits(id, to, from) {
            return;
        }
        let counts = &mut self.feeds.counts;
        let group = self.groups[usize::from(id.0)].as_deref_mut().expect("a feed is of a group");
        if entries.is_empty() {
            counts.missed += 1;
            group.cannot_fetch(from);
        }
        match group.fed(to, from, entries) {
            Some((message, upto)) => {
                counts.entries += upto.0 + 1 - from.0;
                counts.bytes += message.entries.iter().map(|it| it.data.len() as u64).sum::<u64>();
                self.feeds.sent(id, to, upto);
                self.send(id, &mut vec![message], deeds);
            }
            // It needs others by now, and says so again.
            None => self.feeds.end(id, to),
        }
    }

    fn log_done(&mut self, job: JobId, deeds: &mut Deeds) {
        let done = self.jobs.pop_front().expect("only a job that was handed out is confirmed");
        assert_eq!(job, done.id, "log jobs are confirmed in order");
        self.followed.confirmed(done.followed_bytes);
        let mut messages = Vec::new();
        for group in done.groups {
            self.group_mut(group).confirm(job, &mut messages, &mut deeds.installed);
            self.send(group, &mut messages, deeds);
            self.dirty.mark(group);
        }
    }

    /// Steps what is queued, up to the budget; returns the groups with queued proposals.
    pub(super) fn work_off_backlog(&mut self, deeds: &mut Deeds) -> Vec<GroupId> {
        let mut proposing = Vec::new();
        let mut items = 0;
        let mut bytes = 0;
        while items < self.config.turn_items_max && bytes < self.config.turn_bytes_max {
            let Some(inbound) = self.backlog.pop_front() else { break };
            items += 1;
            match inbound {
                Inbound::Propose { group, token, data } => {
                    bytes += data.len();
                    if !self.lives_here(group) {
                        deeds.outcomes.push(Outcome::NotLeader { token, leader: None });
                    } else if self.group_mut(group).queue_proposal(token, data) {
                        proposing.push(group);
                    }
                }
                Inbound::Frame { from, bytes: frame } => {
                    bytes += frame.len();
                    self.backlog_frame_bytes -= frame.len();
                    self.step_frame(from, &frame, deeds);
                }
                Inbound::ReadIndex { group, token } => self.queue_read(group, token, deeds),
                Inbound::Campaign { group } => self.with_group(group, Group::campaign),
                Inbound::Transfer { group, to } => {
                    self.with_group(group, |group| group.transfer(to))
                }
                Inbound::ChangeMembers { group, change, token } => {
                    if self.lives_here(group) {
                        let outcomes = &mut deeds.outcomes;
                        self.with_group(group, |group| {
                            group.change_members(change, token, outcomes);
                        });
                    } else {
                        let reason = ChangeRefused::NotLeader { leader: None };
                        deeds.outcomes.push(Outcome::ChangeRefused { token, reason });
                    }
                }
                Inbound::Unreachable { peer } => {
                    for slot in 0..self.groups.len() {
                        let id = GroupId(u16::try_from(slot).expect("slots are group ids"));
                        self.with_group(id, |group| group.unreachable(peer));
                    }
                }
                Inbound::LogDone { .. }
                | Inbound::Applied { .. }
                | Inbound::Giving { .. }
                | Inbound::Given { .. }
                | Inbound::Staged { .. }
                | Inbound::Unstaged { .. }
                | Inbound::Fetched { .. }
                | Inbound::Damaged { .. } => unreachable!("these are never queued"),
            }
        }
        proposing
    }

    fn with_group(&mut self, group: GroupId, change: impl FnOnce(&mut Group)) {
        if self.lives_here(group) {
            change(self.group_mut(group));
            self.dirty.mark(group);
        }
    }

    fn queue_read(&mut self, group: GroupId, token: crate::deeds::Token, deeds: &mut Deeds) {
        if !self.lives_here(group) {
            deeds.outcomes.push(Outcome::ReadFailed { token, leader: None });
            return;
        }
        // A group whose reads were answered in the last turn still stands in the list; standing
        // there twice would age its reads twice per tick.
        if !self.reading.contains(&group) {
            self.reading.push(group);
        }
        self.group_mut(group).queue_read(token);
    }

    fn step_frame(&mut self, from: PeerId, frame: &Bytes, deeds: &mut Deeds) {
        let decoded = frame::decode_said(frame, |group, said| {
            let slot =
                self.groups.get_mut(usize::from(group.0)).and_then(|slot| slot.as_deref_mut());
            let stepped = match (slot, said) {
                (Some(slot), Said::Raft(message)) => match slot.heard(from, &message) {
                    Heard::Beat(answer) => {
                        self.outgoing.entry(from).or_default().answer(group, answer);
                        return;
                    }
                    Heard::Answer => return,
                    Heard::News
                        if !self.followed.takes(&message, self.config.followed_bytes_max) =>
                    {
                        return;
                    }
                    Heard::News => slot.step(from, message),
                },
                (Some(slot), Said::Doubt(note)) => slot.hear(from, note),
                (None, _) => Err("group does not live here"),
            };
            if stepped.is_ok() {
                self.dirty.mark(group);
            }
            if let Err(reason) = stepped {
                deeds.rejected.push(Rejected { from, group: Some(group), reason });
            }
        });
        if let Err(reason) = decoded {
            deeds.rejected.push(Rejected { from, group: None, reason });
        }
    }
}
