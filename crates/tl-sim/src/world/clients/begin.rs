//! Which operation a client begins next.

use tl_core::entry::{
    AckArchived, Append, Close, CreateSession, SetListing, Tombstone, Trim, UpdateHeader,
};
use tl_core::{Command, Entry, Listing, Metadata};
use tl_types::{GroupId, Incarnation, RequestId, Seq};
use xxhash_rust::xxh3::xxh3_128;

use super::World;
use crate::invariants::origins::Origin;
use crate::invariants::{SessionNo, Violation};
use crate::workload::{Intent, Kind, Operation, Part};

/// Most events in one batch.
const BATCH_MAX: usize = 8;
/// Chance in a million that an operation begins on a machine of any kind instead of the last one.
const WANDER_PPM: u32 = 100_000;

impl World {
    /// Begins an operation; `None` when it was done at once.
    pub(super) fn begin(&mut self, client: usize) -> Result<Option<Operation>, Violation> {
        if self.by_chance(WANDER_PPM) {
            self.workload.clients[client].machine = self.rng.usize(0..self.plan.machines);
        }
        let session = self.rng.usize(0..self.workload.sessions.len());
        let known = self.known(session);
        if !known.exists {
            return Ok(Some(self.create(client, session)));
        }
        let dice = self.rng.u32(0..100);
        let operation = match dice {
            0..44 => self.append(client, session, 1, None),
            44..56 => {
                let events = self.rng.usize(2..=BATCH_MAX);
                self.append(client, session, events, None)
            }
            56..63 => {
                // Mostly what was last known, which may be stale by the time it arrives.
                let expected = Seq(known.last_seq.0.saturating_sub(u64::from(dice == 56)));
                self.append(client, session, 1, Some(expected))
            }
            63..70 => self.repeat(client).unwrap_or_else(|| self.read_op(session)),
            70..72 => self.conflict(client, session),
            72 => self.gap(client, session),
            73..80 => self.commit(client, session),
            80..88 => self.read_op(session),
            88..91 => {
                self.read_locally(client, session)?;
                return Ok(None);
            }
            91..93 => self.update(client, session),
            93 => self.list(client, session),
            94..96 => self.archive(session),
            96..98 => self.again(client).unwrap_or_else(|| self.update(client, session)),
            98 => self.create(client, session),
            _ => self.end(session),
        };
        Ok(Some(operation))
    }

    fn operation(&self, kind: Kind, group: GroupId, entry: &Entry) -> Operation {
        let entry = entry.encode();
        Operation::new(self.now_us, kind, group, entry)
    }

    /// An operation of one command on one session.
    fn on(&self, session: SessionNo, kind: Kind, entry: &Entry) -> Operation {
        self.operation(kind, self.workload.sessions[session].group, entry)
    }

    pub(super) fn probe(&self, group: GroupId) -> Operation {
        self.operation(Kind::Probe, group, &Entry::new([Command::Tick]))
    }

    /// An entry with a request id of its own.
    fn with_request(&mut self, client: usize, command: Command) -> Entry {
        let mut entry = Entry::new([command]);
        entry.request = Some(RequestId(self.rng.u128(..).to_be_bytes()));
        entry.principal = xxh3_128(&client.to_le_bytes()).to_be_bytes();
        entry
    }

    fn create(&mut self, client: usize, session: SessionNo) -> Operation {
        let incarnation = Incarnation(self.rng.u128(..).to_be_bytes());
        let command = Command::CreateSession(CreateSession {
            path: self.workload.sessions[session].path.clone(),
            incarnation,
            title: Some(format!("session {session}").into()),
            metadata: Metadata::new(&[]),
            creator: "user:sim".into(),
        });
        let entry = self.with_request(client, command);
        self.checks.linearizable.asks_create(session);
        let known = self.known(session);
        self.on(session, Kind::Create { session, known, incarnation }, &entry)
    }

    /// The events of an append, from the producer position `first` on.
    fn events(
        &mut self,
        client: usize,
        session: SessionNo,
        first: u64,
        count: usize,
        commit: Option<u64>,
        expected: Option<Seq>,
    ) -> (Command, Part) {
        let generation = self.workload.clients[client].producer(session).generation;
        let mut events = Vec::with_capacity(count);
        let mut contents = Vec::with_capacity(count);
        for producer_seq in (first..).take(count) {
            let filler = self.rng.usize(0..self.plan.payload_bytes_max);
            let (event, content) = self.workload.event(client, generation, producer_seq, filler);
            let producer = (client, generation);
            let origin = Origin { session, producer, producer_seq, commit, refused: false };
            self.checks.origins.asked(content, origin);
            events.push(event);
            contents.push(content);
        }
        let path = self.workload.sessions[session].path.clone();
        let command =
            Command::Append(Append { path, expected_seq: expected, events: events.into() });
        let known = self.known(session);
        (command, Part { session, contents, known, expected })
    }

    fn append_of(&self, commands: Vec<Command>, parts: Vec<Part>, intent: Intent) -> Operation {
        let session = parts[0].session;
        self.on(session, Kind::Append { parts, intent }, &Entry::new(commands))
    }

    fn next_of(&mut self, client: usize, session: SessionNo) -> u64 {
        self.workload.clients[client].producer(session).done + 1
    }

    fn append(
        &mut self,
        client: usize,
        session: SessionNo,
        count: usize,
        expected: Option<Seq>,
    ) -> Operation {
        let first = self.next_of(client, session);
        let (command, part) = self.events(client, session, first, count, None, expected);
        self.append_of(vec![command], vec![part], Intent::New)
    }

    fn commit(&mut self, client: usize, session: SessionNo) -> Operation {
        let other = self.workload.sibling(session);
        let commit = Some(self.rng.u64(..));
        let (mut commands, mut parts) = (Vec::new(), Vec::new());
        // Either half may be the one that is refused.
        let halves = if self.rng.bool() { [session, other] } else { [other, session] };
        for session in halves {
            let first = self.next_of(client, session);
            let (command, part) = self.events(client, session, first, 1, commit, None);
            commands.push(command);
            parts.push(part);
        }
        self.append_of(commands, parts, Intent::New)
    }

    /// An acknowledged write once more.
    fn repeat(&mut self, client: usize) -> Option<Operation> {
        let writes = &self.workload.clients[client].writes;
        let chosen = self.rng.usize(0..writes.len().max(1));
        let mut write = writes.get(chosen)?.clone();
        for part in &mut write.parts {
            part.known = self.known(part.session);
        }
        let group = self.workload.sessions[write.parts[0].session].group;
        let kind = Kind::Append { parts: write.parts, intent: Intent::Repeat(write.first_seqs) };
        Some(Operation::new(self.now_us, kind, group, write.entry))
    }

    /// Other content under the position used last, if any was.
    fn conflict(&mut self, client: usize, session: SessionNo) -> Operation {
        let next = self.next_of(client, session);
        if next == 1 {
            return self.append(client, session, 1, None);
        }
        let (command, part) = self.events(client, session, next - 1, 1, None, None);
        self.append_of(vec![command], vec![part], Intent::Conflict)
    }

    fn gap(&mut self, client: usize, session: SessionNo) -> Operation {
        let next = self.next_of(client, session);
        let (command, part) = self.events(client, session, next + 1, 1, None, None);
        self.append_of(vec![command], vec![part], Intent::Gap)
    }

    fn read_op(&self, session: SessionNo) -> Operation {
        let known = self.known(session);
        let group = self.workload.sessions[session].group;
        let kind = Kind::Read { session, known };
        Operation::new(self.now_us, kind, group, Vec::new())
    }

    /// What a machine has applied, perhaps long ago: nothing in it may be wrong.
    fn read_locally(&mut self, client: usize, session: SessionNo) -> Result<(), Violation> {
        let machine = self.workload.clients[client].machine;
        self.coverage.operations += 1;
        if self.machines[machine].process.is_none() {
            return Ok(());
        }
        let Some(row) = self.find_sound(machine, session)? else { return Ok(()) };
        let floor = row.header.floor_seq;
        let after = Seq(self.rng.u64(floor.0..=row.header.last_seq.0));
        if let Some(Ok(page)) = self.read_sound(machine, session, &row, after, 20)? {
            for event in &page.events {
                self.shown(session, event)?;
            }
        }
        Ok(())
    }

    fn update(&mut self, client: usize, session: SessionNo) -> Operation {
        let known = self.known(session);
        let expected_version = self.rng.bool().then_some(known.version.max(1));
        let title = format!("title {}", self.rng.u32(..));
        let command = Command::UpdateHeader(UpdateHeader {
            path: self.workload.sessions[session].path.clone(),
            expected_version,
            title: Some(Some(title.into())),
            metadata: None,
        });
        let entry = self.with_request(client, command);
        self.on(session, Kind::Header { session, known, updates: true }, &entry)
    }

    fn list(&mut self, client: usize, session: SessionNo) -> Operation {
        let known = self.known(session);
        let listing = if self.rng.bool() { Listing::Active } else { Listing::Archived };
        let path = self.workload.sessions[session].path.clone();
        let entry = self.with_request(client, Command::SetListing(SetListing { path, listing }));
        self.on(session, Kind::Header { session, known, updates: false }, &entry)
    }

    /// The last request that carried an id, once more.
    fn again(&mut self, client: usize) -> Option<Operation> {
        let (session, entry, first) = self.workload.clients[client].request.clone()?;
        let group = self.workload.sessions[session].group;
        let kind = Kind::Again { first };
        Some(Operation::new(self.now_us, kind, group, entry))
    }

    /// The archive has the first half of what is known, and it may go.
    fn archive(&mut self, session: SessionNo) -> Operation {
        let known = self.known(session);
        let upto = Seq(known.last_seq.0 / 2);
        let place = &mut self.workload.sessions[session];
        place.trim_asked = place.trim_asked.max(upto);
        let path = place.path.clone();
        let commands = [
            Command::AckArchived(AckArchived { path: path.clone(), upto }),
            // A trim beyond what is archived must stop there.
            Command::Trim(Trim { path, upto: Seq(known.last_seq.0) }),
        ];
        self.on(session, Kind::Archive { session, known }, &Entry::new(commands))
    }

    /// Closes or deletes a session, if it is one that may end.
    fn end(&mut self, session: SessionNo) -> Operation {
        if !self.workload.sessions[session].mortal {
            return self.read_op(session);
        }
        let known = self.known(session);
        let path = self.workload.sessions[session].path.clone();
        if self.rng.u8(0..4) > 0 {
            self.checks.linearizable.asks_close(session);
            let entry = Entry::new([Command::Close(Close { path })]);
            return self.on(session, Kind::Close { session, known }, &entry);
        }
        self.checks.linearizable.asks_tombstone(session);
        let entry = Entry::new([Command::Tombstone(Tombstone { path })]);
        self.on(session, Kind::Tombstone { session, known }, &entry)
    }
}
