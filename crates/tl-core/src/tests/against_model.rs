//! The machine against the naive model: random entries with retries, batches, several
//! producers, repeats and deletions; then a second replica against the first.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tl_types::{Seq, UnixMs};

use super::Bench;
use super::model::{Deed, Model};
use super::script::{entry, path};
use crate::list::{self, ListQuery, ListingFilter};
use crate::memory::MemoryRows;
use crate::{EventQuery, Listing, Outcome, Reply, SessionRow, SessionState, apply, group, session};

/// The deed as a line of script.
fn line(deed: &Deed) -> String {
    match deed {
        Deed::Create(id) => format!("create {id}"),
        Deed::Append { to, expected, events } => {
            let mut line = format!("a {to}");
            for (producer, position, content) in events {
                line.push_str(&format!(" p{producer}:{position}={content}"));
            }
            if let Some(expected) = expected {
                line.push_str(&format!(" expect={expected}"));
            }
            line
        }
        Deed::Patch { to, version, title, members } => {
            let mut line = format!("patch {to}");
            match title {
                None => {}
                Some(None) => line.push_str(" notitle"),
                Some(Some(title)) => line.push_str(&format!(" title={title}")),
            }
            let members: Vec<String> =
                members.iter().map(|(n, v)| format!("{}={v}", char::from(*n))).collect();
            line.push_str(&format!(" meta={}", members.join(";")));
            if let Some(version) = version {
                line.push_str(&format!(" version={version}"));
            }
            line
        }
        Deed::List { to, hidden } => format!("{} {to}", if *hidden { "hide" } else { "show" }),
        Deed::Close(id) => format!("close {id}"),
        Deed::Delete(id) => format!("delete {id}"),
        Deed::Ack(id, upto) => format!("ack {id} {upto}"),
        Deed::Trim(id, upto) => format!("trim {id} {upto}"),
        Deed::Tick => "tick".into(),
    }
}

/// What the machine said, in the model's words.
fn said(outcome: &Outcome) -> Vec<String> {
    let say = |reply: &Reply| match reply {
        Reply::Session(row) => row_of(row),
        Reply::Appended(a) => format!(
            "{}..{} head {} archived {} again {}",
            a.first_seq, a.last_seq, a.head_seq, a.archived_seq, a.deduped
        ),
        Reply::Done => "done".into(),
        Reply::Ticked { more_due } => format!("ticked {more_due}"),
        Reply::Refused(refusal) => {
            let mut said = refusal.code().word().to_owned();
            if let Some(event) = refusal.event {
                said.push_str(&format!(" event {event}"));
            }
            for (name, value) in refusal.reason.facts() {
                said.push_str(&format!(" {name}={value}"));
            }
            format!("{said} command {}", refusal.command)
        }
    };
    outcome.replies.iter().map(say).collect()
}

fn row_of(row: &SessionRow) -> String {
    let header = &row.header;
    format!(
        "{} v{} {} {} {:?} {} {}/{}/{} {}..{}",
        row.path.name,
        header.version,
        header.state.word(),
        header.listing == Listing::Archived,
        header.title.as_ref().map(|title| title.as_str()),
        String::from_utf8(header.metadata.to_json()).unwrap(),
        header.floor_seq,
        header.archived_seq,
        header.last_seq,
        header.created_at.0,
        header.updated_at.0,
    )
}

/// What can be read of the group is what the model holds.
fn compare(model: &Model, rows: &MemoryRows) {
    let mut listed = Vec::new();
    for id in 0..3 {
        let found = session::find(rows, &path(&id.to_string())).unwrap();
        let expected = model.sessions.get(&id);
        assert_eq!(found.as_ref().map(row_of), expected.map(|session| session.say(id)));
        let (Some(row), Some(session)) = (found, expected) else { continue };
        if row.header.state != SessionState::Tombstoned {
            listed.push(row.clone());
        }
        let query = EventQuery::page(Seq(session.floor), 1_000);
        let page = session::read_events(rows, row.number, query).unwrap();
        assert_eq!(page.events.len() as u64, session.head() - session.floor);
        for event in page.events {
            let expected = &session.events[event.seq.0 as usize - 1];
            assert_eq!(
                (event.at.0, event.envelope),
                (expected.at, expected.content.to_string().into())
            );
        }
    }
    let query = ListQuery {
        tenant: path("0").tenant,
        namespace: path("0").namespace,
        after: None,
        limit: 10,
        listing: ListingFilter::All,
        metadata: vec![],
    };
    assert_eq!(list::page(rows, &query).unwrap().sessions, listed);
}

/// What to do next, relative to what the model holds when its turn comes.
#[derive(Debug, Clone)]
enum Step {
    Entry {
        deeds: Vec<Wish>,
        request: Option<(u8, u8)>,
    },
    /// An earlier entry once more, counted from the newest.
    Again(usize),
    Time(i64),
}

/// An entry that was applied: its deeds and its request id.
type Done = (Vec<Deed>, Option<(u8, u8)>);

#[derive(Debug, Clone)]
enum Wish {
    Plain(Deed),
    /// Positions relative to what each producer should use next; a last number jumps within.
    Append {
        to: u8,
        expected: Option<i64>,
        events: Vec<(u8, i64, u8)>,
    },
    Patch {
        to: u8,
        version: Option<i64>,
        title: Option<Option<u8>>,
        members: Vec<(u8, u8)>,
    },
}

impl Wish {
    fn deed(&self, model: &Model) -> Deed {
        let shift = |from: u64, by: i64| from.saturating_add_signed(by);
        match self {
            Wish::Plain(deed) => deed.clone(),
            Wish::Append { to, expected, events } => {
                let session = model.sessions.get(to).cloned().unwrap_or_default();
                let mut next: BTreeMap<u8, u64> = BTreeMap::new();
                let events = events.iter().map(|(producer, by, content)| {
                    let position = match next.get(producer) {
                        None => shift(session.next_of(*producer), *by),
                        // Within a batch, mostly on; a step back only now and then.
                        Some(next) => shift(*next, i64::from(*by < -2)),
                    };
                    next.insert(*producer, position + 1);
                    (*producer, position, *content)
                });
                let events = events.collect();
                let expected = expected.map(|by| shift(session.head(), by));
                Deed::Append { to: *to, expected, events }
            }
            Wish::Patch { to, version, title, members } => {
                let current = model.sessions.get(to).map_or(1, |session| session.version);
                let version = version.map(|by| shift(current, by));
                Deed::Patch { to: *to, version, title: *title, members: members.clone() }
            }
        }
    }
}

fn wishes() -> impl Strategy<Value = Wish> {
    let id = || 0u8..3;
    let by = || prop_oneof![8 => Just(0i64), 1 => -3i64..3];
    let events = vec((0u8..3, by(), 0u8..2), 1..6);
    let members = vec((b'a'..b'd', 0u8..4), 0..3);
    prop_oneof![
        4 => id().prop_map(|id| Wish::Plain(Deed::Create(id))),
        30 => (id(), option::weighted(0.2, by()), events)
            .prop_map(|(to, expected, events)| Wish::Append { to, expected, events }),
        4 => (id(), option::weighted(0.3, by()), option::of(option::of(0u8..9)), members)
            .prop_map(|(to, version, title, members)| Wish::Patch { to, version, title, members }),
        3 => (id(), any::<bool>()).prop_map(|(to, hidden)| Wish::Plain(Deed::List { to, hidden })),
        1 => id().prop_map(|id| Wish::Plain(Deed::Close(id))),
        1 => id().prop_map(|id| Wish::Plain(Deed::Delete(id))),
        3 => (id(), 0u64..30).prop_map(|(id, upto)| Wish::Plain(Deed::Ack(id, upto))),
        2 => (id(), 0u64..30).prop_map(|(id, upto)| Wish::Plain(Deed::Trim(id, upto))),
        2 => Just(Wish::Plain(Deed::Tick)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let request = option::weighted(0.2, (0u8..6, 0u8..2));
    let deeds = prop_oneof![6 => vec(wishes(), 1..2), 1 => vec(wishes(), 2..4)];
    let step = prop_oneof![
        8 => (deeds, request).prop_map(|(deeds, request)| Step::Entry { deeds, request }),
        3 => (0usize..12).prop_map(Step::Again),
        1 => (-5_000i64..300_000).prop_map(Step::Time),
    ];
    vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_machine_agrees_with_the_model_and_replicas_with_one_another(steps in steps()) {
        let mut model = Model::default();
        let mut bench = Bench::default();
        let mut done: Vec<Done> = Vec::new();
        let mut log = Vec::new();
        for step in steps {
            let (deeds, request) = match step {
                Step::Time(by) => {
                    bench.at = UnixMs(bench.at.0.saturating_add_signed(by));
                    continue;
                }
                Step::Again(back) => match done.len().checked_sub(back + 1) {
                    Some(at) => done[at].clone(),
                    None => continue,
                },
                Step::Entry { deeds, request } => {
                    (deeds.iter().map(|wish| wish.deed(&model)).collect(), request)
                }
            };
            let text = deeds.iter().map(line).collect::<Vec<_>>().join(" & ");
            let text = match request {
                Some((id, who)) => format!("#r{id}/w{who} {text}"),
                None => text,
            };
            let expected = model.apply(&deeds, request, bench.at.0);
            let outcome = bench.apply(&entry(&text));
            prop_assert_eq!(said(&outcome), expected, "{}", text);
            compare(&model, &bench.rows);
            log.push(crate::Entry { stamp: bench.at, ..entry(&text) }.encode());
            done.push((deeds, request));
        }
        let mut replica = MemoryRows::default();
        for (index, bytes) in (1..).zip(log) {
            let outcome = apply(&replica, tl_types::Index(index), bytes.into()).unwrap();
            replica.write(outcome.writes);
        }
        prop_assert_eq!(group::digest(&replica), group::digest(&bench.rows));
        prop_assert_eq!(replica, bench.rows);
    }
}
