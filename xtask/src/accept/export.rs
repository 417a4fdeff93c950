//! Compares what a node exports with what was imported.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Fields of an event that the import file has and the node must give back unchanged.
const KEPT: [&str; 3] = ["type", "payload", "actor"];

/// Events by session, in order; sessions by id, which is the order of the import file.
#[derive(Debug, Default, PartialEq)]
pub struct Contents {
    /// The events of each session.
    pub sessions: BTreeMap<String, Vec<Value>>,
}

impl Contents {
    /// Reads an import or export file. Of each event only the fields of an import count, and
    /// positions must run from 1 without a hole where they are given.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        Self::read_lines(BufReader::new(file))
    }

    fn read_lines(lines: impl BufRead) -> Result<Self> {
        let mut contents = Contents::default();
        let mut current: Option<String> = None;
        for (number, line) in lines.lines().enumerate() {
            let line: Value = serde_json::from_str(&line?)
                .with_context(|| format!("line {} is not JSON", number + 1))?;
            if let Some(id) = line["session"]["id"].as_str() {
                ensure!(!contents.sessions.contains_key(id), "session {id} comes twice");
                contents.sessions.insert(id.to_owned(), Vec::new());
                current = Some(id.to_owned());
            } else if let (Some(event), Some(id)) = (line.get("event"), &current) {
                let events = contents.sessions.entry(id.clone()).or_default();
                let position = events.len() as u64 + 1;
                if let Some(seq) = event["seq"].as_u64() {
                    ensure!(seq == position, "session {id}: seq {seq} at position {position}");
                }
                events.push(essence(event)?);
            } else {
                bail!("line {} is neither session nor event", number + 1);
            }
        }
        Ok(contents)
    }

    /// Number of events.
    pub fn events(&self) -> usize {
        self.sessions.values().map(Vec::len).sum()
    }

    /// An error that names the first difference.
    pub fn same_as(&self, other: &Contents) -> Result<()> {
        ensure!(
            self.sessions.len() == other.sessions.len(),
            "{} sessions against {}",
            self.sessions.len(),
            other.sessions.len()
        );
        for (id, events) in &self.sessions {
            let others = other.sessions.get(id).with_context(|| format!("session {id} is gone"))?;
            ensure!(
                events.len() == others.len(),
                "{id}: {} events against {}",
                events.len(),
                others.len()
            );
            for (position, (one, two)) in events.iter().zip(others).enumerate() {
                ensure!(one == two, "{id}, seq {}: {one} against {two}", position + 1);
            }
        }
        Ok(())
    }
}

/// The fields of an event that an import has.
pub fn essence(event: &Value) -> Result<Value> {
    let mut kept: serde_json::Map<String, Value> =
        KEPT.iter().map(|name| ((*name).to_owned(), event[*name].clone())).collect();
    if let Some(time) = event["event_time"].as_str() {
        // Exports always write three digits of a second.
        let (seconds, _) = time.split_once(['.', 'Z']).context("event_time is not in UTC")?;
        kept.insert("event_time".into(), seconds.into());
    }
    Ok(Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Contents> {
        Contents::read_lines(text.as_bytes())
    }

    const IMPORT: &str = r#"{"session":{"id":"a"}}
{"event":{"type":"m","payload":{"t":1},"actor":"user:x","event_time":"2018-05-02T00:00:01Z"}}"#;

    #[test]
    fn an_export_with_more_fields_is_the_same() {
        let export = IMPORT.replace("\"type\"", "\"seq\":1,\"type\"").replace("01Z", "01.000Z");
        read(IMPORT).unwrap().same_as(&read(&export).unwrap()).unwrap();
    }

    #[test]
    fn another_text_a_missing_event_and_a_hole_are_found() {
        let import = read(IMPORT).unwrap();
        assert!(import.same_as(&read(&IMPORT.replace(":1}", ":2}")).unwrap()).is_err());
        let missing = IMPORT.lines().next().unwrap();
        assert!(import.same_as(&read(missing).unwrap()).is_err());
        assert!(read(&IMPORT.replace("\"type\"", "\"seq\":2,\"type\"")).is_err());
    }
}
