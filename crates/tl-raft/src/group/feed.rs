//! Entries that memory has let go, sent to a follower from the log on disk.
//!
//! Raft asks its storage for a snapshot as soon as it lacks an entry. Before rows are given, the log
//! is asked: what it has is sent as the append that Raft would have sent, by this leader and in its
//! term, and the follower's answer moves Raft on as always. Raft's own storage stays as it is, so
//! nothing in it depends on what can be read back: it says "gone", and what is sent comes beside it.
//! (Telling Raft that entries come later would need its first index to lie before them, and a
//! follower that is asked for the term of such an entry stops the process.)
//!
//! What is sent is what was committed: a record counts only with the term that the entry had when it
//! left memory, see [`Terms`](crate::terms::Terms).

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use tl_types::{Index, Term};
use tl_wal::Want;

use super::Group;
use crate::config::FETCH_BYTES_MAX;
use crate::deeds::{Fetch, PeerId};
use crate::group_log::LogEntry;

impl Group {
    /// The log on disk has the group's entries from this one on, those that were overwritten among
    /// them; or none but those that are on their way there, which are in memory still.
    pub(crate) fn log_begins(&mut self, at: Option<Index>) {
        self.log_begins = at.unwrap_or(self.first_kept());
    }

    /// Whether a follower can be sent this entry next, from memory or from the log.
    pub(crate) fn can_send(&self, index: Index) -> bool {
        index >= self.first_kept() || self.can_fetch(index)
    }

    fn can_fetch(&self, index: Index) -> bool {
        let before = Index(index.0.saturating_sub(1));
        index >= self.log_begins && index.0 > 0 && self.log().terms().term(before).is_some()
    }

    /// What this leader has of a follower: what is confirmed, and what is sent next.
    pub(crate) fn follower(&self, peer: PeerId) -> Option<(Index, Index)> {
        let progress = self.leads().then(|| self.raw.raft.prs().get(peer.0)).flatten()?;
        Some((Index(progress.matched), Index(progress.next_idx)))
    }

    /// What is to be read from the log for a follower, if that is what it needs.
    pub(crate) fn fetch(&self, to: PeerId) -> Option<Fetch> {
        let (_, from) = self.follower(to)?;
        if from >= self.first_kept() || !self.can_fetch(from) {
            return None;
        }
        let terms = self.log().terms();
        let (group, upto, bytes_max) = (self.id, terms.end(), FETCH_BYTES_MAX);
        Some(Fetch {
            to,
            want: Want { group, from, upto, terms: terms.runs_from(from), bytes_max },
        })
    }

    /// The log does not have this entry, or it cannot be read.
    pub(crate) fn cannot_fetch(&mut self, index: Index) {
        self.log_begins = self.log_begins.max(Index(index.0 + 1));
    }

    /// The append with entries that were read for a follower, if it still needs these, and the last
    /// of them.
    pub(crate) fn fed(
        &self,
        to: PeerId,
        from: Index,
        entries: Vec<(Term, Bytes)>,
    ) -> Option<(Message, Index)> {
        let (_, next) = self.follower(to)?;
        let before = Index(from.0.checked_sub(1)?);
        let terms = self.log().terms();
        let before_term = terms.term(before)?;
        let read = (from.0..).map(Index).zip(entries);
        let sent: Vec<_> = read
            .take_while(|(index, (term, _))| terms.term(*index) == Some(*term))
            .map(|(index, (term, data))| LogEntry { term, data }.to_entry(index))
            .collect();
        if next != from || sent.is_empty() {
            return None;
        }
        let last = Index(before.0 + sent.len() as u64);
        let raft = &self.raw.raft;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term) = (self.peer.0, to.0, raft.term);
        (message.index, message.log_term) = (before.0, before_term.0);
        message.commit = raft.raft_log.committed;
        message.set_entries(sent.into());
        Some((message, last))
    }

    /// A follower says where its log ends and of which term that is. Raft looks for the last entry
    /// here that can be the same, but not where it knows no terms.
    pub(super) fn hint_by_terms(&self, message: &mut Message) {
        let hint = Index(message.reject_hint);
        if message.get_msg_type() == MessageType::MsgAppendResponse
            && message.reject
            && self.leads()
            && hint < self.log().terms().end()
            && let Some(last) = self.log().terms().last_not_above(hint, Term(message.log_term))
        {
            message.reject_hint = last.0;
        }
    }
}
