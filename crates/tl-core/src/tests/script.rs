//! The one place that turns script lines into entries and outcomes into words.
//!
//! ```text
//! create s [title=T] [meta=a=1;b=2]       a s p:1[=content] p:2 … [expect=N]
//! patch s [title=T|notitle] [meta=a=1] [version=N]
//! hide|show|close|delete s              ack|trim s N            tick
//! events s AFTER [LIMIT]                row s                    at MS
//! ```
//!
//! `x & y` puts two commands into one entry, `#id[/who] x` gives the entry a request id and a
//! principal. Each line gives one line of transcript; `p:1..9` stands for nine events.

use bytes::Bytes;
use tl_types::{
    Incarnation, Index, Namespace, RequestId, ResourcePath, Seq, SessionId, Tenant, UnixMs,
};

use crate::entry::{
    AckArchived, Append, Close, Command, CreateSession, Entry, SetListing, Tombstone, Trim,
    UpdateHeader,
};
use crate::invariants;
use crate::memory::MemoryRows;
use crate::metadata::Metadata;
use crate::{
    ContentHash, Effect, EventQuery, Listing, NewEvent, Outcome, Reply, SessionRow, Text, apply,
    session,
};

/// Runs a script on an empty group and compares what was seen.
#[track_caller]
pub(crate) fn check(script: &str, transcript: &str) {
    let mut bench = Bench::default();
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    let seen: Vec<String> = lines(script).iter().map(|line| bench.line(line)).collect();
    assert_eq!(seen.join("\n"), lines(transcript).join("\n"));
}

/// A group in memory to which entries are applied, with every invariant checked after each.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) rows: MemoryRows,
    pub(crate) index: Index,
    pub(crate) at: UnixMs,
}

impl Default for Bench {
    fn default() -> Self {
        Bench { rows: MemoryRows::default(), index: Index(0), at: UnixMs(1_000) }
    }
}

impl Bench {
    pub(crate) fn apply(&mut self, entry: &Entry) -> Outcome {
        let bytes: Bytes = Entry { stamp: self.at, ..entry.clone() }.encode().into();
        self.index.0 += 1;
        let outcome = apply(&self.rows, self.index, bytes.clone()).unwrap();
        assert_eq!(apply(&self.rows, self.index, bytes), Ok(outcome.clone()), "deterministic");
        assert_eq!(outcome.poison, None);
        if let [Reply::Refused(_)] = outcome.replies[..] {
            assert!(outcome.writes.is_empty() && outcome.effects.is_empty(), "no trace");
        } else if entry.request.is_none() {
            assert_eq!(outcome.replies.len(), entry.commands.len());
        }
        self.rows.write(outcome.writes.clone());
        if let Err(broken) = invariants::check(&self.rows) {
            panic!("after {entry:?}: {broken}");
        }
        outcome
    }

    fn line(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["at", ms] => {
                self.at = UnixMs(ms.parse().unwrap());
                format!("at {ms}")
            }
            ["events", id, after] => self.events(id, after, "1000"),
            ["events", id, after, limit] => self.events(id, after, limit),
            ["row", id] => match session::find(&self.rows, &path(id)).unwrap() {
                None => "none".into(),
                Some(row) => say_row(&row),
            },
            _ => say(&self.apply(&entry(line))),
        }
    }

    fn events(&self, id: &str, after: &str, limit: &str) -> String {
        let number = session::find(&self.rows, &path(id)).unwrap().unwrap().number;
        let after = Seq(after.parse().unwrap());
        let query = EventQuery::page(after, limit.parse().unwrap());
        match session::read_events(&self.rows, number, query) {
            Err(error) => error.to_string(),
            Ok(page) if page.events.is_empty() => "nothing".into(),
            Ok(page) => {
                let say = |event: &tl_types::StoredEvent| {
                    let content = String::from_utf8(event.envelope.to_vec()).unwrap();
                    format!("{} {content} @{}", event.seq, event.at.0)
                };
                page.events.iter().map(say).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

pub(crate) fn path(id: &str) -> ResourcePath {
    ResourcePath::session(
        Tenant::new("acme").unwrap(),
        Namespace::default_namespace(),
        SessionId::new(id).unwrap(),
    )
}

pub(crate) fn hash_of(content: &str) -> ContentHash {
    ContentHash { algorithm: 1, value: xxhash_rust::xxh3::xxh3_128(content.as_bytes()) }
}

fn id_of(text: &str) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(text.as_bytes()).to_be_bytes()
}

pub(crate) fn entry(line: &str) -> Entry {
    let (request, rest) = match line.strip_prefix('#') {
        None => (None, line),
        Some(line) => {
            let (id, rest) = line.split_once(' ').unwrap();
            (Some(id), rest)
        }
    };
    let mut entry = Entry::new(rest.split(" & ").map(command));
    if let Some(request) = request {
        let (id, who) = request.split_once('/').unwrap_or((request, "ann"));
        entry.request = Some(RequestId(id_of(id)));
        entry.principal = id_of(who);
    }
    entry
}

fn command(text: &str) -> Command {
    let words: Vec<&str> = text.split_whitespace().collect();
    let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let number = |name: &str| option(name).map(|text| text.parse::<u64>().unwrap());
    if words[0] == "tick" {
        return Command::Tick;
    }
    let path = path(words[1]);
    let upto = || Seq(words[2].parse().unwrap());
    match words[0] {
        "create" => Command::CreateSession(CreateSession {
            incarnation: Incarnation(id_of(words[1])),
            path,
            title: option("title=").map(Text::from),
            metadata: metadata(option("meta=").unwrap_or_default()),
            creator: "user:ann".into(),
        }),
        "a" => Command::Append(Append {
            path,
            expected_seq: number("expect=").map(Seq),
            events: words[2..]
                .iter()
                .filter(|word| !word.starts_with("expect="))
                .flat_map(|word| events(word))
                .collect(),
        }),
        "patch" => Command::UpdateHeader(UpdateHeader {
            path,
            expected_version: number("version="),
            title: if words.contains(&"notitle") {
                Some(None)
            } else {
                option("title=").map(|title| Some(title.into()))
            },
            metadata: option("meta=").map(metadata),
        }),
        "hide" => Command::SetListing(SetListing { path, listing: Listing::Archived }),
        "show" => Command::SetListing(SetListing { path, listing: Listing::Active }),
        "close" => Command::Close(Close { path }),
        "delete" => Command::Tombstone(Tombstone { path }),
        "ack" => Command::AckArchived(AckArchived { path, upto: upto() }),
        "trim" => Command::Trim(Trim { path, upto: upto() }),
        other => panic!("unknown command {other}"),
    }
}

/// `a=1;b="x"`.
pub(crate) fn metadata(text: &str) -> Metadata {
    let members: Vec<_> = text
        .split(';')
        .filter(|member| !member.is_empty())
        .map(|member| {
            let (name, value) = member.split_once('=').unwrap();
            (Bytes::from(format!("{name:?}")), Bytes::copy_from_slice(value.as_bytes()))
        })
        .collect();
    Metadata::new(&members)
}

/// `p:3`, `p:3=content`, `p:3..5`.
fn events(word: &str) -> Vec<NewEvent> {
    let (position, content) = match word.split_once('=') {
        Some((position, content)) => (position, Some(content)),
        None => (word, None),
    };
    let (producer, seqs) = position.split_once(':').unwrap();
    let (first, last) = seqs.split_once("..").unwrap_or((seqs, seqs));
    let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
    (first..=last)
        .map(|seq| {
            let content = content.map_or_else(|| format!("{producer}:{seq}"), str::to_owned);
            NewEvent {
                producer_id: producer.into(),
                producer_seq: seq,
                hash: hash_of(&content),
                envelope: content.into(),
            }
        })
        .collect()
}

pub(crate) fn say(outcome: &Outcome) -> String {
    let replies = outcome.replies.iter().map(say_reply);
    let effects = outcome.effects.iter().map(|effect| match effect {
        Effect::Publish { path, first_seq, last_seq, .. } => {
            format!("!publish {} {}", path.name, span(*first_seq, *last_seq))
        }
        Effect::SessionChanged { change, row } => format!("!{} {}", change.word(), row.path.name),
        Effect::DueAt(at) => format!("!due {at}", at = at.0),
    });
    replies.chain(effects).collect::<Vec<_>>().join(" ")
}

fn say_reply(reply: &Reply) -> String {
    match reply {
        Reply::Session(row) => say_row(row),
        Reply::Appended(appended) => {
            let mut said = span(appended.first_seq, appended.last_seq);
            if appended.deduped {
                said.push_str(&format!(" again of {}", appended.head_seq));
            }
            if appended.archived_seq > Seq(0) {
                said.push_str(&format!(" archived {}", appended.archived_seq));
            }
            said
        }
        Reply::Done => "done".into(),
        Reply::Ticked { more_due } => if *more_due { "ticked, more due" } else { "ticked" }.into(),
        Reply::Refused(refusal) => {
            let mut said = refusal.to_string();
            for (name, value) in refusal.reason.facts() {
                said.push_str(&format!(" {name}={value}"));
            }
            if let Some(event) = refusal.event {
                said.push_str(&format!(" event={event}"));
            }
            if refusal.command > 0 {
                said.push_str(&format!(" command={}", refusal.command));
            }
            said
        }
    }
}

fn say_row(row: &SessionRow) -> String {
    let header = &row.header;
    let mut said = format!("{} v{} {}", row.path.name, header.version, header.state.word());
    if header.listing == Listing::Archived {
        said.push_str(" hidden");
    }
    if let Some(title) = &header.title {
        said.push_str(&format!(" {title:?}"));
    }
    if header.metadata != Metadata::default() {
        said.push_str(&format!(" {}", String::from_utf8(header.metadata.to_json()).unwrap()));
    }
    said.push_str(&format!(
        " {}/{}/{} {}..{}",
        header.floor_seq,
        header.archived_seq,
        header.last_seq,
        header.created_at.0,
        header.updated_at.0
    ));
    said
}

fn span(first: Seq, last: Seq) -> String {
    if first == last { first.to_string() } else { format!("{first}..{last}") }
}
