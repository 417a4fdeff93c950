//! The file, cut into sessions and batches on a thread of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use tl_types::limits::BATCH_EVENTS_MAX;
use tokio::sync::mpsc;

use crate::transfer::lines::{Line, LineReader, Positioned, SessionLine};

/// Most bytes of lines in one batch; what is sent is a little longer.
const BATCH_LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pieces read ahead.
const PIECES_AHEAD: usize = 8;
/// Most sessions in one file: their ids are kept to find one that stands twice.
const SESSIONS_MAX: usize = 5_000_000;
const READ_BYTES: usize = 1 << 20;

/// A part of the file.
pub enum Piece {
    Session(SessionLine),
    /// Events of the session named last; `file_bytes` of the file have been read.
    Events {
        events: Vec<Positioned>,
        file_bytes: u64,
    },
}

/// An open file.
pub struct Source {
    reader: Box<dyn BufRead + Send>,
    /// Bytes in all, when known.
    pub length: Option<u64>,
}

/// Opens a file, or stdin for `-`.
pub fn open(path: &Path) -> anyhow::Result<Source> {
    if path.as_os_str() == "-" {
        let reader = Box::new(BufReader::with_capacity(READ_BYTES, std::io::stdin()));
        return Ok(Source { reader, length: None });
    }
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let length = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    Ok(Source { reader: Box::new(BufReader::with_capacity(READ_BYTES, file)), length })
}

/// Reads the source on a thread; the last piece is an error when it cannot be read to its end.
pub fn read(source: Source) -> mpsc::Receiver<anyhow::Result<Piece>> {
    let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        // A receiver that is gone has stopped the import; there is nobody to tell.
        let deliver = |piece| pieces.blocking_send(Ok(piece)).is_ok();
        if let Err(error) = cut(LineReader::new(source.reader), deliver) {
            let _ = pieces.blocking_send(Err(error));
        }
    });
    receiver
}

/// Cuts lines into pieces until the end, or until `deliver` says that nobody listens.
fn cut<R: BufRead>(
    mut lines: LineReader<R>,
    mut deliver: impl FnMut(Piece) -> bool,
) -> anyhow::Result<()> {
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut session: Option<String> = None;
    let mut ordinal = 0;
    let (mut batch, mut batch_bytes, mut file_bytes) = (Vec::new(), 0, 0);
    while let Some((line, bytes)) = lines.next()? {
        file_bytes += bytes as u64;
        let number = lines.number();
        let full = batch.len() >= BATCH_EVENTS_MAX || batch_bytes + bytes > BATCH_LINE_BYTES_MAX;
        let ends_batch = full || matches!(line, Line::Session(_));
        if ends_batch && !batch.is_empty() {
            batch_bytes = 0;
            let events = std::mem::take(&mut batch);
            if !deliver(Piece::Events { events, file_bytes }) {
                return Ok(());
            }
        }
        match line {
            Line::Session(line) => {
                if let Some(first) = seen.insert(line.id.clone(), number) {
                    bail!(
                        "session {:?} stands in line {first} and again in line {number}; \
                         the events of a session stand together",
                        line.id
                    );
                }
                ensure!(seen.len() <= SESSIONS_MAX, "more than {SESSIONS_MAX} sessions in a file");
                session = Some(line.id.clone());
                ordinal = 0;
                if !deliver(Piece::Session(line)) {
                    return Ok(());
                }
            }
            Line::Event(line) => {
                let Some(session) = &session else {
                    bail!("line {number} is an event before the first session line");
                };
                ordinal += 1;
                let event =
                    line.position(session, ordinal).with_context(|| format!("line {number}"))?;
                batch_bytes += bytes;
                batch.push(event);
            }
        }
    }
    if !batch.is_empty() {
        deliver(Piece::Events { events: batch, file_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+id` for a session, `n:first..last` for a batch of `n` events with these positions.
    fn pieces(text: &str) -> anyhow::Result<String> {
        let mut seen = Vec::new();
        cut(LineReader::new(text.as_bytes()), |piece| {
            seen.push(match piece {
                Piece::Session(line) => format!("+{}", line.id),
                Piece::Events { events, .. } => {
                    let positions: Vec<u64> = events.iter().map(|e| e.producer_seq).collect();
                    format!("{}:{}..{}", events.len(), positions[0], positions[events.len() - 1])
                }
            });
            true
        })?;
        Ok(seen.join(" "))
    }

    #[test]
    fn imports_over_the_corpus() {
        let seeds = [
            ("full", [session("a"), events(3), session("b")].concat().into_bytes()),
            (
                "rich",
                concat!(
                    r#"{"session":{"id":"s","title":null,"metadata":{"a":1},"archived":true,"state":"closed"}}"#,
                    "\n\n",
                    r#"{"event":{"seq":9,"type":"m","payload":{"t":"x"},"actor":"user:u","refs":{},"producer_id":"p","producer_seq":4}}"#,
                )
                .into(),
            ),
        ];
        tl_fuzz::check("import", &seeds, |bytes| {
            let (mut sessions, mut seen, mut bytes_before) = (0, 0, 0);
            let outcome = cut(LineReader::new(bytes), |piece| {
                match piece {
                    Piece::Session(_) => sessions += 1,
                    Piece::Events { events, file_bytes } => {
                        assert!(sessions > 0, "events belong to a session");
                        assert!((1..=BATCH_EVENTS_MAX).contains(&events.len()));
                        assert!(bytes_before < file_bytes && file_bytes <= bytes.len() as u64);
                        bytes_before = file_bytes;
                        seen += events.len();
                    }
                }
                true
            });
            let lines = bytes.split(|byte| *byte == b'\n').count();
            assert!(sessions + seen <= lines, "a line is one thing");
            if let Err(error) = outcome {
                assert!(!format!("{error:#}").is_empty());
            }
        });
    }

    fn session(id: &str) -> String {
        format!("{{\"session\":{{\"id\":\"{id}\"}}}}\n")
    }

    fn events(count: usize) -> String {
        "{\"event\":{\"type\":\"m\",\"payload\":{}}}\n".repeat(count)
    }

    #[test]
    fn ordinals_run_on_over_batches_and_start_anew_with_a_session() {
        let text = [session("a"), events(2_001), session("b"), session("c"), events(1)].concat();
        assert_eq!(
            pieces(&text).expect("pieces"),
            "+a 1000:1..1000 1000:1001..2000 1:2001..2001 +b +c 1:1..1"
        );
    }

    #[test]
    fn batches_are_bounded_in_bytes() {
        let long = format!(
            "{{\"event\":{{\"type\":\"m\",\"payload\":{{\"t\":\"{}\"}}}}}}\n",
            "x".repeat(1_000_000)
        );
        let text = [session("a"), long.repeat(9)].concat();
        assert_eq!(pieces(&text).expect("pieces"), "+a 4:1..4 4:5..8 1:9..9");
    }

    #[test]
    fn a_session_stands_once_and_before_its_events() {
        let twice = [session("a"), session("b"), session("a")].concat();
        let error = pieces(&twice).expect_err("twice").to_string();
        assert!(error.contains("line 1") && error.contains("line 3"), "{error}");
        assert!(pieces(&events(1)).is_err());
    }
}
