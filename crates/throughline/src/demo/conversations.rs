//! What is replayed: conversations that come with the binary, or a data set.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, ensure};
use tl_client::NewEvent;

use crate::transfer::lines::{Line, LineReader, SessionLine};

/// Conversations of agents with tools that fail and are tried again.
const BUILT_IN: &str = include_str!("../../demo/agents.jsonl");
/// Where `cargo xtask` puts a fetched data set.
const FETCHED: &str = "target/dataset/chitchat.jsonl";
/// Conversations of a data set when no number is given.
const DATASET_DEFAULT: u32 = 40;

/// One session to be replayed.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub session: SessionLine,
    pub events: Vec<NewEvent>,
}

/// What the demo plays.
#[derive(Debug)]
pub struct Script {
    pub conversations: Vec<Conversation>,
    pub is_dataset: bool,
}

/// Loads the file named, else the fetched data set when it is there, else the built-in ones.
pub fn load(dataset: Option<&Path>, most: Option<u32>) -> anyhow::Result<Script> {
    let fetched = Path::new(FETCHED);
    let path = dataset.or_else(|| fetched.is_file().then_some(fetched));
    let Some(path) = path else {
        let conversations = read(BUILT_IN.as_bytes(), most.unwrap_or(u32::MAX))?;
        return Ok(Script { conversations, is_dataset: false });
    };
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let conversations = read(BufReader::new(file), most.unwrap_or(DATASET_DEFAULT))
        .with_context(|| format!("reading {}", path.display()))?;
    // Without a number it is as short as the built-in ones and must end as soon.
    Ok(Script { conversations, is_dataset: most.is_some() })
}

fn read(source: impl BufRead, most: u32) -> anyhow::Result<Vec<Conversation>> {
    let mut lines = LineReader::new(source);
    let mut conversations: Vec<Conversation> = Vec::new();
    while let Some((line, _)) = lines.next()? {
        match line {
            Line::Session(_) if conversations.len() >= most as usize => break,
            Line::Session(session) => {
                conversations.push(Conversation { session, events: Vec::new() });
            }
            Line::Event(event) => {
                let number = lines.number();
                let current = conversations
                    .last_mut()
                    .with_context(|| format!("line {number} is an event before any session"))?;
                let ordinal = current.events.len() as u64 + 1;
                let positioned = event.position(&current.session.id, ordinal)?;
                current.events.push(positioned.event);
            }
        }
    }
    ensure!(
        conversations.iter().any(|one| !one.events.is_empty()),
        "there is no conversation with events in it"
    );
    Ok(conversations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_conversations_are_there_with_tool_calls_and_failures() {
        let conversations = read(BUILT_IN.as_bytes(), u32::MAX).expect("conversations");
        assert!(conversations.len() >= 3);
        let count = |kind: &str| {
            let events = conversations.iter().flat_map(|one| &one.events);
            events.filter(|event| event.event_type == kind).count()
        };
        assert!(count("tool_call") > 10 && count("tool_error") > 3);
    }

    #[test]
    fn a_number_bounds_the_conversations() {
        assert_eq!(read(BUILT_IN.as_bytes(), 2).expect("conversations").len(), 2);
        assert!(read(&b""[..], 2).is_err());
    }
}
