//! A replica whose log has lost durable records, or may have, and what its leader does about it.
//!
//! ```text
//!   doubted replica                     every other voter              its leader
//!        Asked(number) ─────────────────────► ──────────────────────────► demands rows up to its
//!                      ◄──── Told(term, ..) ─── ◄── Told(term, last, ..)     last entry for it
//!                         ... rows travel, see [`super::rows`] ...
//!                      ◄══════════════════════════ "go on behind index"
//!   goes on if all that they said allows it
//! ```
//!
//! Until then it is as good as away: it says nothing of Raft's, so it gives no vote, acknowledges no
//! entry and confirms no lease. Who leads, and in which term, it hears.
//!
//! What was lost may be a vote for some candidate C in a term V, and entries that it acknowledged.
//! It goes on from rows that the leader L of term T gives, with members M, only if
//!
//!  - G1 every other voter of M (both majorities of a joint change) has answered this start of it,
//!    with a term that is not above T. So is the highest term that its own log still knows;
//!  - G2 they all have M, or a later change, on disk;
//!  - G3 L has answered it in T, and the rows hold the entry that was L's last then, at least.
//!
//! Then its vote in T is L's, unless it is known to have had another. All of this goes into one log job: the
//! rows, the members, and last of all term and vote. So a log that ends in the middle of it still says
//! that the replica is doubted: it starts from what rows are on record then, and asks anew. Why
//! nothing is lost that way:
//!
//!  - *A forgotten vote elects nobody.* C had V on its disk before it asked, so before this start. If
//!    C votes by M, it has answered V or more, so V <= T. If it does not, the last change made it go.
//!    Either C lacks that change: then a majority that C needs has it, and somebody in both voted for
//!    C first and took the change in a later term, which is not above T. (Had it taken the change
//!    first, it would not have voted for a log without it.) Or C has the change and does not know that it
//!    is committed: then C needs a majority of M's voters too, who by G2 take nothing from it any
//!    more, and who voted before they answered if they did; so V <= T again. In terms below T this
//!    replica does nothing, and in T only L can lead.
//!  - *Forgotten entries are in the rows.* What it acknowledged and is committed was proposed before
//!    this start, in a term up to T: a leader of a higher one is a C as above, with that term on its
//!    disk. What was committed in lower terms L had when it was elected, since this replica's part
//!    in it was played before this start by a sound replica, or not at all. What L itself proposed
//!    before this start stood in its log when it answered. G3 asks for all of that.
//!  - *A leader that still counts on it* (`matched` of entries that are gone) is right in the end: what
//!    it commits that way, it has, and nobody is elected without it before the doubt is over. A
//!    leader of a later term is asked anew.
//!  - *Its own forgotten candidature* elects it only after it stands again, with a log that by the
//!    above has all that it had then and that was committed.
//!  - *Of two doubted replicas* neither answers, so a term that only those two know is not passed over.
//!
//! If another voter is away for good, or is doubted as well, the group waits on this one; the others
//! go on if they are a majority. A member that has nothing yet answers: if it stood for election,
//! its disk says so. A member whose record of new members is on its way to the disk is silent until it is
//! there, or it could forget what it said about G2.
//!
//! An entry that is not committed and whose acknowledgement was lost with the log may be lost: as if
//! it had never been acknowledged, which a leader that lost it meanwhile could not have committed.

use std::collections::{BTreeMap, BTreeSet};

use raft::Ready;
use raft::eraftpb::{Message, MessageType};
use tl_types::{Index, Term};
use tl_wal::Record;

use super::Group;
use super::change::told_members;
use crate::deeds::PeerId;
use crate::doubt::{ASK_TICKS, DOUBTED, Note};
use crate::frame::NUMBER_MAX;
use crate::members::Members;

/// What a doubted replica has found out since its start.
#[derive(Debug)]
pub(super) struct Doubt {
    /// Names this start.
    number: u64,
    ticks: u32,
    /// The last answer of each whom it asks.
    told: BTreeMap<PeerId, Told>,
    /// The members that a leader told last with rows.
    named: Option<Members>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    term: Term,
    last: Index,
    members_at: Index,
}

/// What a leader demands of rows for a doubted follower.
#[derive(Debug)]
pub(super) struct Demand {
    /// The start of the follower, and the term of this leader.
    of: (u64, Term),
    /// The rows hold this entry: the last one here when it asked first.
    upto: Index,
    /// It has acknowledged that or more.
    is_over: bool,
}

impl Doubt {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Doubt {
        let number = rng.u64(1..NUMBER_MAX);
        Doubt { number, ticks: 0, told: BTreeMap::new(), named: None }
    }
}

impl Group {
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether a doubted replica lacks an answer, so that no rows would help it yet.
    ///
    /// The members that it knows may be older than the group's, and have a voter that is gone for good.
    /// A leader tells newer ones with rows that are here alone, so once anybody has them, rows are worth
    /// taking. What ends the doubt asks for as much as ever: all voters that the leader tells.
    pub(crate) fn lacks_answers(&self) -> bool {
        let Some(doubt) = &self.doubt else { return false };
        let known = self.members();
        let known = doubt.named.as_ref().filter(|named| named.at > known.at).unwrap_or(known);
        if doubt.told.values().any(|told| told.members_at > known.at) {
            return false;
        }
        let leader = self.leader().filter(|leader| *leader != self.peer);
        other_voters(known, self.peer).chain(leader).any(|peer| !doubt.told.contains_key(&peer))
    }

    /// What is to be said beside Raft.
    pub(crate) fn take_notes(&mut self) -> Vec<(PeerId, Note)> {
        std::mem::take(&mut self.notes)
    }

    /// Takes what a peer says beside Raft.
    pub(crate) fn hear(&mut self, from: PeerId, note: Note) -> Result<(), &'static str> {
        if from == self.peer {
            return Err("sender is no other member of the group");
        }
        match note {
            Note::Asked { .. } if self.members().is_gone(from) => {
                return Err("sender is no other member of the group");
            }
            Note::Asked { number } => self.answer(from, number),
            Note::Told { number, term, last, members_at } => {
                let is_asked = self.in_question().contains(&from);
                if let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.number == number)
                    && is_asked
                {
                    doubt.told.insert(from, Told { term, last, members_at });
                }
            }
        }
        Ok(())
    }

    /// A doubted replica asks, now and then, for as long as it is one.
    pub(super) fn ask_in_doubt(&mut self) {
        let asked = self.in_question();
        let Some(doubt) = &mut self.doubt else { return };
        let number = doubt.number;
        let is_due = doubt.ticks.is_multiple_of(ASK_TICKS);
        doubt.ticks = doubt.ticks.wrapping_add(1);
        if is_due {
            self.notes.extend(asked.into_iter().map(|peer| (peer, Note::Asked { number })));
        }
    }

    /// Who votes, as far as is known here and as a leader said, and who leads.
    fn in_question(&self) -> BTreeSet<PeerId> {
        let Some(doubt) = &self.doubt else { return BTreeSet::new() };
        let mut asked: BTreeSet<PeerId> = other_voters(self.members(), self.peer).collect();
        asked.extend(doubt.named.iter().flat_map(|members| other_voters(members, self.peer)));
        asked.extend(self.leader().filter(|leader| *leader != self.peer));
        asked
    }

    /// A doubted replica hears who leads, and goes on from rows if it may. All else is as if lost.
    pub(super) fn step_in_doubt(
        &mut self,
        from: PeerId,
        mut message: Message,
    ) -> Result<(), &'static str> {
        match message.get_msg_type() {
            MessageType::MsgHeartbeat | MessageType::MsgAppend => {
                let mut heard = Message::default();
                heard.set_msg_type(MessageType::MsgHeartbeat);
                (heard.from, heard.to, heard.term) = (from.0, self.peer.0, message.term);
                self.raw.step(heard).map_err(|_| "refused by raft")?;
                self.stepped();
                Ok(())
            }
            MessageType::MsgSnapshot => {
                self.check_snapshot(&mut message)?;
                if !self.may_go_on(from, &message) {
                    return Ok(());
                }
                (message.from, message.to) = (from.0, self.peer.0);
                // Else Raft would pass over rows up to an entry that it has.
                self.raw.raft.pending_request_snapshot =
                    message.get_snapshot().get_metadata().index;
                let stepped = self.raw.step(message).map_err(|_| "refused by raft");
                self.raw.raft.pending_request_snapshot = raft::INVALID_INDEX;
                if self.raw.snap().is_some() && self.raw.raft.vote == raft::INVALID_ID {
                    self.raw.raft.vote = from.0;
                }
                self.stepped();
                stepped
            }
            _ => Ok(()),
        }
    }

    /// G1 to G3. The rows are here, as was looked at before.
    fn may_go_on(&mut self, from: PeerId, message: &Message) -> bool {
        let told = told_members(message.get_snapshot());
        let members = told.unwrap_or_else(|| self.members().clone());
        let (term, here) = (Term(message.term), self.members().at);
        // A leader that was told of no change has none: who knows of one waits for a later leader.
        let is_behind = members.at < here || message.get_snapshot().data.is_empty() && here.0 > 0;
        if term < self.term() || is_behind {
            return false;
        }
        let peer = self.peer;
        let Some(doubt) = &mut self.doubt else { return false };
        let told = |peer: PeerId| doubt.told.get(&peer);
        let is_sound = |voter: PeerId| {
            told(voter).is_some_and(|told| told.term <= term && told.members_at >= members.at)
        };
        let index = Index(message.get_snapshot().get_metadata().index);
        let goes_on = other_voters(&members, peer).all(is_sound)
            && told(from).is_some_and(|told| told.term == term && told.last <= index);
        doubt.named = Some(members);
        goes_on
    }

    /// Tells a doubted replica where this one stands; as a leader, demands rows for it.
    fn answer(&mut self, from: PeerId, number: u64) {
        let is_settling =
            self.installing.is_some() || self.held_for.is_some() || self.unrecorded.is_some();
        if self.doubt.is_some() || is_settling {
            return;
        }
        let mut last = Index(self.raw.raft.raft_log.last_index());
        if self.leads() && self.members().contains(from) {
            last = self.demand_rows(from, number, last);
        }
        let (term, members_at) = (self.term(), self.members().at);
        self.notes.push((from, Note::Told { number, term, last, members_at }));
    }

    /// Raft would pass over a request from one that had confirmed more, and would not send to one that
    /// does not answer.
    fn demand_rows(&mut self, from: PeerId, number: u64, last: Index) -> Index {
        let of = (number, self.term());
        let demand = self.demands.entry(from).or_insert(Demand { of, upto: last, is_over: false });
        if demand.of != of {
            *demand = Demand { of, upto: last, is_over: false };
        }
        demand.is_over = false;
        let upto = demand.upto;
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(from.0) {
            let was_active = std::mem::replace(&mut progress.recent_active, true);
            progress.become_probe();
            progress.pending_request_snapshot = upto.0;
            self.raw.raft.send_append(from.0);
            // Whoever is doubted says nothing that counts: with it alone a leader would lead on and
            // commit nothing, and keep others from electing one that can.
            if let Some(progress) = self.raw.raft.mut_prs().get_mut(from.0) {
                progress.recent_active = was_active;
            }
            self.stepped();
        }
        upto
    }

    /// A follower that was doubted acknowledges entries again. What it said before its start may come
    /// late and say the same; then it asks again.
    pub(super) fn note_answer(&mut self, from: PeerId, message: &Message) {
        let is_answer = message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject;
        if !is_answer || !self.leads() || message.term != self.raw.raft.term {
            return;
        }
        let term = self.term();
        let demand = self.demands.get_mut(&from);
        if let Some(demand) = demand.filter(|it| it.of.1 == term && it.upto.0 <= message.index)
            && !demand.is_over
        {
            demand.is_over = true;
            self.forget_request(from);
            // Raft hears no news in it, since it counts on as much or more already.
            self.resume(from);
        }
    }

    /// Whether a follower has said to this leader that it is doubted, and nothing since.
    pub(super) fn is_in_doubt(&self, peer: PeerId) -> bool {
        let demand = self.demands.get(&peer).filter(|demand| demand.of.1 == self.term());
        demand.is_some_and(|demand| !demand.is_over)
    }

    /// Whether a record of the doubt is to be written: at each start, so that what is damaged before
    /// it is known to be behind it, and with each term.
    pub(super) fn lacks_doubt_on_record(&self) -> bool {
        self.doubt.is_some()
            && self.installing.is_none()
            && self.recorded != (self.raw.raft.term, DOUBTED)
    }

    /// Term and vote that a `Ready` is to put on record.
    pub(super) fn promise(&self, ready: &Ready, ends_doubt: bool) -> Option<(u64, u64)> {
        let raft = &self.raw.raft;
        if self.doubt.is_none() {
            return ready.hs().map(|hard| (hard.term, hard.vote));
        }
        let is_over = ends_doubt || self.installing.is_some();
        Some((raft.term, if is_over { raft.vote } else { DOUBTED }))
    }

    pub(super) fn record_promise(
        &mut self,
        promise: Option<(u64, u64)>,
        records: &mut Vec<Record>,
    ) {
        if let Some((term, vote)) = promise {
            self.recorded = (term, vote);
            records.push(Record::HardState { group: self.id, term: Term(term), vote });
        }
    }

    /// What a replica whose doubt ends tells its leader, once that is on disk.
    pub(super) fn is_answer_to_rows(&self, message: &Message) -> bool {
        message.get_msg_type() == MessageType::MsgAppendResponse
            && !message.reject
            && self.installing.is_some_and(|(_, rows)| rows.index.0 == message.index)
    }
}

fn other_voters(members: &Members, peer: PeerId) -> impl Iterator<Item = PeerId> + '_ {
    let all = members.voters.iter().chain(&members.voters_outgoing);
    all.copied().filter(move |voter| *voter != peer)
}
