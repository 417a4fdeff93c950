//! A naive group that keeps everything, written apart from the machine.

use std::collections::BTreeMap;

/// What is done, in the model's own words.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    Create(u8),
    Append { to: u8, expected: Option<u64>, events: Vec<(u8, u64, u8)> },
    Patch { to: u8, version: Option<u64>, title: Option<Option<u8>>, members: Vec<(u8, u8)> },
    List { to: u8, hidden: bool },
    Close(u8),
    Delete(u8),
    Ack(u8, u64),
    Trim(u8, u64),
    Tick,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Event {
    pub(super) producer: u8,
    pub(super) position: u64,
    pub(super) content: u8,
    pub(super) at: u64,
}

/// One accepted append: who wrote what where.
pub(super) type Write = Vec<(u8, u64, u8, u64)>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Session {
    title: Option<u8>,
    members: Vec<(u8, u8)>,
    pub(super) version: u64,
    hidden: bool,
    state: u8,
    created: u64,
    updated: u64,
    archived: u64,
    pub(super) floor: u64,
    pub(super) events: Vec<Event>,
    writes: Vec<Write>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    clock: u64,
    pub(super) sessions: BTreeMap<u8, Session>,
    requests: BTreeMap<(u8, u8), (u64, Vec<String>)>,
}

impl Session {
    pub(super) fn head(&self) -> u64 {
        self.events.len() as u64
    }

    pub(super) fn next_of(&self, producer: u8) -> u64 {
        1 + self.events.iter().filter(|event| event.producer == producer).count() as u64
    }

    /// The last eight appends that hold events of a producer, each cut down to those.
    fn remembered(&self, producer: u8) -> Vec<Write> {
        let own = |write: &Write| -> Write {
            write.iter().filter(|event| event.0 == producer).copied().collect()
        };
        let all: Vec<Write> =
            self.writes.iter().map(own).filter(|write| !write.is_empty()).collect();
        all[all.len().saturating_sub(8)..].to_vec()
    }

    /// Where an append landed before, if all of it did, right there.
    fn landed(&self, events: &[(u8, u64, u8)]) -> Option<u64> {
        (1..=self.head()).find(|start| {
            let placed: Write =
                (*start..).zip(events).map(|(seq, (p, n, c))| (*p, *n, *c, seq)).collect();
            events.iter().all(|(producer, ..)| {
                let own: Write =
                    placed.iter().filter(|event| event.0 == *producer).copied().collect();
                self.remembered(*producer).contains(&own)
            })
        })
    }

    /// The first event that may not follow, and why.
    fn objection(&self, events: &[(u8, u64, u8)]) -> Option<String> {
        let before = |index: usize, producer: u8| {
            events[..index].iter().rev().find(|(p, ..)| *p == producer).map(|(_, n, _)| *n)
        };
        let broken = (0..events.len())
            .any(|i| before(i, events[i].0).is_some_and(|last| events[i].1 != last + 1));
        for (index, (producer, position, _)) in events.iter().enumerate() {
            let last = before(index, *producer);
            let expected = last.map_or(self.next_of(*producer), |last| last + 1);
            if *position == expected {
                continue;
            }
            let own: Vec<_> = events.iter().filter(|(p, ..)| p == producer).collect();
            let range = |write: &Write| {
                write[0].1 == own[0].1 && write[write.len() - 1].1 == own[own.len() - 1].1
            };
            let same = |write: &Write| {
                let places = events.iter().enumerate().filter(|(_, (p, ..))| p == producer);
                write.iter().zip(places).all(|(written, (place, (_, _, content)))| {
                    written.2 == *content && written.3 - write[0].3 == (place - index) as u64
                })
            };
            let remembered = self.remembered(*producer);
            let replay = remembered.iter().find(|write| range(write)).is_some_and(|w| !same(w));
            return Some(if last.is_none() && replay && !broken {
                format!("producer_replay_conflict event {index}")
            } else {
                format!("producer_seq_conflict event {index} expected_producer_seq={expected}")
            });
        }
        None
    }

    pub(super) fn say(&self, id: u8) -> String {
        let state = ["active", "closed", "tombstoned"][usize::from(self.state)];
        let members: Vec<String> =
            self.members.iter().map(|(n, v)| format!("\"{}\":{v}", char::from(*n))).collect();
        format!(
            "{id} v{} {state} {} {:?} {{{}}} {}/{}/{} {}..{}",
            self.version,
            self.hidden,
            self.title.map(|title| title.to_string()),
            members.join(","),
            self.floor,
            self.archived,
            self.head(),
            self.created,
            self.updated,
        )
    }
}

impl Model {
    pub(super) fn apply(
        &mut self,
        deeds: &[Deed],
        request: Option<(u8, u8)>,
        stamp: u64,
    ) -> Vec<String> {
        if let Some(replies) = request.and_then(|id| self.requests.get(&id)) {
            return replies.1.clone();
        }
        let before = self.clone();
        let now = stamp.max(self.clock);
        let mut replies = Vec::new();
        for (place, deed) in deeds.iter().enumerate() {
            match self.one(deed, now) {
                Ok(reply) => replies.push(reply),
                Err(no) => {
                    *self = before;
                    return vec![format!("{no} command {place}")];
                }
            }
        }
        if let Some(id) = request {
            self.requests.insert(id, (now, replies.clone()));
        }
        if *self != before {
            self.clock = now;
        }
        replies
    }

    fn one(&mut self, deed: &Deed, now: u64) -> Result<String, String> {
        let alive = |model: &mut Model, id: &u8| match model.sessions.get(id) {
            None => Err("session_not_found".to_owned()),
            Some(session) if session.state == 2 => Err("session_tombstoned".to_owned()),
            Some(session) => Ok(session.clone()),
        };
        let (id, mut session) = match deed {
            Deed::Create(id) => match self.sessions.get(id) {
                Some(_) => return Err("session_exists".into()),
                None => {
                    (id, Session { version: 1, created: now, updated: now, ..Session::default() })
                }
            },
            Deed::Append { to, .. }
            | Deed::Patch { to, .. }
            | Deed::List { to, .. }
            | Deed::Close(to) => (to, alive(self, to)?),
            Deed::Delete(id) | Deed::Ack(id, _) | Deed::Trim(id, _) => {
                (id, self.sessions.get(id).cloned().ok_or("session_not_found")?)
            }
            Deed::Tick => {
                self.requests.retain(|_, (at, _)| *at + 600_000 > now);
                return Ok("ticked false".into());
            }
        };
        let reply = session.change(*id, deed, now)?;
        self.sessions.insert(*id, session);
        Ok(reply)
    }
}

impl Session {
    fn change(&mut self, id: u8, deed: &Deed, now: u64) -> Result<String, String> {
        match deed {
            Deed::Create(_) | Deed::Tick => {}
            Deed::Append { expected, events, .. } => return self.append(*expected, events, now),
            Deed::Patch { version, title, members, .. } => {
                if version.is_some_and(|version| version != self.version) {
                    return Err(format!(
                        "expected_version_conflict expected_version={} current_version={}",
                        version.unwrap(),
                        self.version
                    ));
                }
                self.title = title.unwrap_or(self.title);
                for (name, value) in members {
                    match self.members.iter_mut().find(|(n, _)| n == name) {
                        Some(member) => member.1 = *value,
                        None => self.members.push((*name, *value)),
                    }
                }
                self.version += 1;
                self.updated = now;
            }
            Deed::List { hidden, .. } => {
                if self.hidden != *hidden {
                    (self.hidden, self.updated) = (*hidden, now);
                }
            }
            Deed::Close(_) => {
                if self.state == 0 {
                    (self.state, self.updated) = (1, now);
                }
            }
            Deed::Delete(_) => {
                if self.state != 2 {
                    (self.state, self.updated) = (2, now);
                }
                return Ok("done".into());
            }
            Deed::Ack(_, upto) => {
                self.archived = self.archived.max(*upto.min(&self.head()));
                return Ok("done".into());
            }
            Deed::Trim(_, upto) => {
                self.floor = self.floor.max(*upto.min(&self.archived));
                return Ok("done".into());
            }
        }
        Ok(self.say(id))
    }

    fn append(
        &mut self,
        expected: Option<u64>,
        events: &[(u8, u64, u8)],
        now: u64,
    ) -> Result<String, String> {
        let head = self.head();
        let count = events.len() as u64;
        let said = |first: u64, head: u64, again: bool, archived: u64| {
            format!("{first}..{} head {head} archived {archived} again {again}", first + count - 1)
        };
        if let Some(first) = self.landed(events) {
            return Ok(said(first, head, true, self.archived));
        }
        if self.state == 1 {
            return Err("session_closed".into());
        }
        if expected.is_some_and(|expected| expected != head) {
            let expected = expected.unwrap();
            return Err(format!(
                "expected_seq_conflict expected_seq={expected} current_seq={head}"
            ));
        }
        if let Some(objection) = self.objection(events) {
            return Err(objection);
        }
        let placed = (head + 1..).zip(events).map(|(seq, (p, n, c))| (*p, *n, *c, seq));
        self.writes.push(placed.collect());
        self.events.extend(events.iter().map(|(producer, position, content)| Event {
            producer: *producer,
            position: *position,
            content: *content,
            at: now,
        }));
        Ok(said(head + 1, head + count, false, self.archived))
    }
}
