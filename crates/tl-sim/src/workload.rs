//! Who uses the nodes: sessions, clients with their open operations, tails.
//!
//! A client has one operation open at a time and repeats it, byte for byte and on any machine,
//! until it gets an answer. A producer whose write was refused while an earlier attempt may
//! still take effect is given up for a new one, as the shipped client does.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;
use tl_core::{ContentHash, NewEvent, Reply};
use tl_types::{Envelope, GroupId, Incarnation, Namespace, ResourcePath, Seq, SessionId, Tenant};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::invariants::SessionNo;
use crate::invariants::linearizable::Known;
use crate::invariants::tails::Cursor;
use crate::options::{GROUPS_FULL, Plan};
use crate::queue::MachineNo;

/// Sessions that share a tag and so a group.
const SESSIONS_PER_TAG: usize = 3;
/// Acknowledged writes of a client that it may send again: fewer than a producer's writes that
/// are remembered, so that each must be recognised.
const WRITES_KEPT: usize = 5;

/// A session that clients use.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: ResourcePath,
    pub(crate) group: GroupId,
    /// It may be closed and deleted.
    pub(crate) mortal: bool,
    /// How far anybody has asked to trim it.
    pub(crate) trim_asked: Seq,
}

/// A reader that follows one session.
#[derive(Debug)]
pub(crate) struct TailReader {
    pub(crate) cursor: Cursor,
    pub(crate) machine: MachineNo,
}

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) operation: Option<Operation>,
    pub(crate) producers: BTreeMap<SessionNo, Producer>,
    /// The last acknowledged writes, oldest first.
    pub(crate) writes: VecDeque<Write>,
    /// The last acknowledged request that carried an id.
    pub(crate) request: Option<(SessionNo, Vec<u8>, Vec<Reply>)>,
    /// The machine it asks first.
    pub(crate) machine: MachineNo,
}

/// A client's writer in one session.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Producer {
    pub(crate) generation: u64,
    /// Events acknowledged so far.
    pub(crate) done: u64,
}

/// An acknowledged write, to be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) entry: Vec<u8>,
    pub(crate) parts: Vec<Part>,
    pub(crate) first_seqs: Vec<Seq>,
}

/// What an append writes to one session.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) session: SessionNo,
    /// Content hash of each event.
    pub(crate) contents: Vec<u64>,
    pub(crate) known: Known,
    pub(crate) expected: Option<Seq>,
}

/// An operation on its way.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) group: GroupId,
    /// The entry; empty for a read.
    pub(crate) entry: Vec<u8>,
    /// When it began.
    pub(crate) from_us: u64,
    /// The newest attempt; names it among all attempts of the run.
    pub(crate) attempt: u64,
    /// All attempts of the operation; late answers count too.
    pub(crate) attempts: Vec<u64>,
    /// Attempts that may take effect and have not been answered.
    pub(crate) unresolved: u32,
}

impl Operation {
    pub(crate) fn new(from_us: u64, kind: Kind, group: GroupId, entry: Vec<u8>) -> Operation {
        let (attempt, attempts, unresolved) = (0, Vec::new(), 0);
        Operation { kind, group, entry, from_us, attempt, attempts, unresolved }
    }
}

/// What an operation is for.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Create {
        session: SessionNo,
        known: Known,
        incarnation: Incarnation,
    },
    Append {
        parts: Vec<Part>,
        intent: Intent,
    },
    /// A write to the header that is answered with the row.
    Header {
        session: SessionNo,
        known: Known,
        /// It makes a new version.
        updates: bool,
    },
    /// The same request id again.
    Again {
        first: Vec<Reply>,
    },
    Close {
        session: SessionNo,
        known: Known,
    },
    Tombstone {
        session: SessionNo,
        known: Known,
    },
    Archive {
        session: SessionNo,
        known: Known,
    },
    Read {
        session: SessionNo,
        known: Known,
    },
    /// A write that shows that the group takes writes.
    Probe,
}

/// What an append is meant to be.
#[derive(Debug, Clone)]
pub(crate) enum Intent {
    /// The next of its producers.
    New,
    /// A write acknowledged before, with its first positions.
    Repeat(Vec<Seq>),
    /// Other content under a position that was used.
    Conflict,
    /// A position was left out.
    Gap,
}

/// All that uses the nodes.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) sessions: Vec<Place>,
    by_path: HashMap<ResourcePath, SessionNo>,
    /// Clients; behind them, while a run heals, one prober for each group.
    pub(crate) clients: Vec<Client>,
    pub(crate) tails: Vec<TailReader>,
    /// Attempts without an answer, with their clients.
    pub(crate) open: HashMap<u64, usize>,
    pub(crate) attempts_made: u64,
    pub(crate) contents_made: u64,
    pub(crate) operations_open: usize,
    pub(crate) probes_open: usize,
}

impl Workload {
    pub(crate) fn new(plan: &Plan, rng: &mut Rng) -> Workload {
        let tags = if plan.groups == GROUPS_FULL { 64 } else { usize::from(plan.groups) + 2 };
        let mut sessions = Vec::new();
        for tag in 0..tags {
            for number in 0..SESSIONS_PER_TAG {
                let id = format!("s{number}-{{t{tag}}}");
                let path = ResourcePath::session(
                    Tenant::new("sim").expect("a plain word"),
                    Namespace::default_namespace(),
                    SessionId::new(&id).expect("a plain word"),
                );
                let group = path.group(plan.groups);
                let mortal = number == SESSIONS_PER_TAG - 1;
                sessions.push(Place { path, group, mortal, trim_asked: Seq(0) });
            }
        }
        let clients = (0..plan.clients)
            .map(|_| Client { machine: rng.usize(0..plan.machines), ..Client::default() })
            .collect();
        let tails = (0..plan.tails)
            .map(|_| TailReader {
                cursor: Cursor { session: rng.usize(0..sessions.len()), at: Seq(0) },
                machine: rng.usize(0..plan.machines),
            })
            .collect();
        let by_path =
            sessions.iter().enumerate().map(|(no, place)| (place.path.clone(), no)).collect();
        Workload {
            sessions,
            by_path,
            clients,
            tails,
            open: HashMap::new(),
            attempts_made: 0,
            contents_made: 0,
            operations_open: 0,
            probes_open: 0,
        }
    }

    pub(crate) fn session_of(&self, path: &ResourcePath) -> Option<SessionNo> {
        self.by_path.get(path).copied()
    }

    /// Another session of the same group.
    pub(crate) fn sibling(&self, session: SessionNo) -> SessionNo {
        let first = session / SESSIONS_PER_TAG * SESSIONS_PER_TAG;
        first + usize::from(session == first)
    }

    /// A new event of a producer, unlike any other.
    pub(crate) fn event(
        &mut self,
        client: usize,
        generation: u64,
        producer_seq: u64,
        filler: usize,
    ) -> (NewEvent, u64) {
        self.contents_made += 1;
        let producer_id = format!("c{client}.{generation}");
        let payload = format!("{{\"n\":{},\"filler\":\"{:.<filler$}\"}}", self.contents_made, "");
        let envelope: Bytes = Envelope {
            event_type: Bytes::from_static(b"content"),
            payload: payload.into(),
            actor: Bytes::from_static(b"user:sim"),
            metadata: Bytes::from_static(b"{}"),
            producer_id: producer_id.clone().into(),
            producer_seq,
            ..Envelope::default()
        }
        .encode()
        .into();
        let content = xxh3_64(&envelope);
        let hash = ContentHash { algorithm: 1, value: xxh3_128(&envelope) };
        let event = NewEvent { producer_id: producer_id.into(), producer_seq, hash, envelope };
        (event, content)
    }
}

impl Client {
    pub(crate) fn producer(&mut self, session: SessionNo) -> &mut Producer {
        self.producers.entry(session).or_default()
    }

    pub(crate) fn keep(&mut self, write: Write) {
        if self.writes.len() == WRITES_KEPT {
            self.writes.pop_front();
        }
        self.writes.push_back(write);
    }
}
