//! The server-sent-events front.

use std::collections::VecDeque;

use tl_types::Seq;

use super::sse_parser::{SseParser, SseUnit};
use super::{Chunk, EndReason, Gap};
use crate::client::{Client, session_path};
use crate::error::{ClientError, Refusal};
use crate::event::Event;

pub(super) struct Sse {
    url: String,
    response: reqwest::Response,
    parser: SseParser,
    units: VecDeque<SseUnit>,
}

impl Sse {
    pub(super) async fn open(
        client: &Client,
        session: &str,
        cursor: Seq,
    ) -> Result<Sse, ClientError> {
        let mut path = session_path(session, "/tail")?;
        path.push_str(&format!("?cursor={cursor}"));
        let response = client.open_stream(&path, "text/event-stream").await?;
        Ok(Sse {
            url: client.url(&path),
            response,
            parser: SseParser::default(),
            units: VecDeque::new(),
        })
    }

    pub(super) async fn step(&mut self) -> Result<Chunk, ClientError> {
        loop {
            if let Some(chunk) = self.buffered()? {
                return Ok(chunk);
            }
            let read = self.response.chunk().await.map_err(|e| ClientError::Broken {
                url: self.url.clone(),
                source: Box::new(e.without_url()),
            })?;
            let Some(bytes) = read else {
                let source = "the server ended the stream".into();
                return Err(ClientError::Broken { url: self.url.clone(), source });
            };
            self.parser.push(&bytes, &mut self.units).map_err(|e| self.unexpected(e))?;
        }
    }

    /// What the units already parsed amount to: a run of events, or one other unit.
    fn buffered(&mut self) -> Result<Option<Chunk>, ClientError> {
        let mut events = Vec::new();
        while let Some(unit) = self.units.pop_front() {
            let (kind, data) = match unit {
                SseUnit::Comment if events.is_empty() => return Ok(Some(Chunk::Alive)),
                SseUnit::Comment => continue,
                SseUnit::Event { kind, data } => (kind, data),
            };
            if kind == "event" {
                events.push(Event::parse(data).map_err(|e| self.unexpected(e))?);
                continue;
            }
            if !events.is_empty() {
                self.units.push_front(SseUnit::Event { kind, data });
                break;
            }
            return match kind.as_str() {
                "gap" => {
                    let gap: Gap = serde_json::from_slice(&data).map_err(|e| self.unexpected(e))?;
                    Ok(Some(Chunk::Gap(gap)))
                }
                "end" => {
                    let words = String::from_utf8_lossy(&data);
                    Ok(Some(Chunk::End(EndReason::from_words(&words))))
                }
                "token_expired" => {
                    let body = br#"{"error":"token_expired","message":"The token has expired"}"#;
                    Err(Refusal::from_reply(401, None, body).into())
                }
                // A kind that this release does not know changes nothing for the cursor.
                _ => Ok(Some(Chunk::Alive)),
            };
        }
        Ok((!events.is_empty()).then_some(Chunk::Events(events)))
    }

    fn unexpected(&self, what: impl ToString) -> ClientError {
        ClientError::Unexpected { url: self.url.clone(), what: what.to_string() }
    }
}
