//! The WebSocket front: one event object or an array of events per text frame.

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tl_types::Seq;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{Chunk, EndReason, FRAME_BYTES_MAX, Gap, TailOptions};
use crate::client::{Client, origin, session_path};
use crate::error::{ClientError, Refusal};
use crate::event::Event;

/// The close code of a session that has ended.
const CLOSE_ENDED: u16 = 4410;
/// The close code of an expired token.
const CLOSE_TOKEN_EXPIRED: u16 = 4001;

pub(super) struct Socket {
    url: String,
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    pub(super) async fn open(
        client: &Client,
        session: &str,
        cursor: Seq,
        options: &TailOptions,
    ) -> Result<Socket, ClientError> {
        let mut path = session_path(session, "/tail")?;
        // Frames of one event are objects; asking for two or more makes every frame an array.
        path.push_str(&format!("?cursor={cursor}&batch_size={}", options.batch_size));
        let url = client.url(&path);
        let ws_url = url.replacen("http://", "ws://", 1);
        let mut request = ws_url
            .into_client_request()
            .map_err(|e| ClientError::BadArgument(format!("{url} is not an address: {e}")))?;
        if let Some(namespace) = &client.options().namespace {
            let value = HeaderValue::from_str(namespace)
                .map_err(|e| ClientError::BadArgument(format!("not a namespace: {e}")))?;
            request.headers_mut().insert("x-throughline-namespace", value);
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        match tokio::time::timeout(client.options().request_timeout, connecting).await {
            Ok(Ok((stream, _))) => Ok(Socket { url, stream }),
            Ok(Err(error)) => Err(connect_error(url, error)),
            Err(late) => Err(ClientError::Broken { url, source: late.into() }),
        }
    }

    pub(super) async fn step(&mut self) -> Result<Chunk, ClientError> {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => {
                let bytes: Bytes = text.into();
                frame(&bytes).map_err(|e| ClientError::Unexpected {
                    url: self.url.clone(),
                    what: e.to_string(),
                })
            }
            Some(Ok(Message::Close(close))) => self.closed(close),
            Some(Ok(
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_),
            )) => Ok(Chunk::Alive),
            Some(Err(error)) => {
                Err(ClientError::Broken { url: self.url.clone(), source: Box::new(error) })
            }
            None => Err(self.broken("the server hung up")),
        }
    }

    fn closed(&self, close: Option<CloseFrame>) -> Result<Chunk, ClientError> {
        let Some(close) = close else { return Err(self.broken("closed without a code")) };
        match u16::from(close.code) {
            CLOSE_ENDED => Ok(Chunk::End(EndReason::from_words(&close.reason))),
            CLOSE_TOKEN_EXPIRED => {
                let body = br#"{"error":"token_expired","message":"The token has expired"}"#;
                Err(Refusal::from_reply(401, None, body).into())
            }
            code => Err(self.broken(&format!("closed with {code} {}", close.reason))),
        }
    }

    fn broken(&self, why: &str) -> ClientError {
        ClientError::Broken { url: self.url.clone(), source: why.into() }
    }
}

#[derive(Deserialize)]
struct Kind {
    seq: Option<u64>,
}

/// One event, an array of events, or a gap.
fn frame(bytes: &Bytes) -> Result<Chunk, serde_json::Error> {
    if bytes.first() == Some(&b'[') {
        return Event::parse_array(bytes).map(Chunk::Events);
    }
    let kind: Kind = serde_json::from_slice(bytes)?;
    match kind.seq {
        Some(_) => Event::parse(bytes.clone()).map(|event| Chunk::Events(vec![event])),
        None => serde_json::from_slice::<Gap>(bytes).map(Chunk::Gap),
    }
}

fn connect_error(url: String, error: WsError) -> ClientError {
    match error {
        WsError::Http(response) => {
            let retry_after = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(std::time::Duration::from_secs);
            let body = response.body().as_deref().unwrap_or_default();
            Refusal::from_reply(response.status().as_u16(), retry_after, body).into()
        }
        WsError::Io(source) => {
            ClientError::Unreachable { url: origin(&url), source: Box::new(source) }
        }
        WsError::Url(bad) => {
            ClientError::BadArgument(format!("{url} is not an address for a WebSocket: {bad}"))
        }
        other => ClientError::Broken { url, source: Box::new(other) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_events_arrays_or_gaps() {
        let event = r#"{"seq":1,"type":"gap","payload":{},"producer_id":"p","producer_seq":1}"#;
        assert!(matches!(frame(&event.into()), Ok(Chunk::Events(list)) if list.len() == 1));
        let array = format!("[{event},{event}]");
        assert!(matches!(frame(&array.into()), Ok(Chunk::Events(list)) if list.len() == 2));
        let gap = r#"{"type":"gap","reason":"cursor_expired","from_cursor":1,"next_cursor":5}"#;
        assert!(matches!(frame(&gap.into()), Ok(Chunk::Gap(gap)) if gap.next_cursor == 5));
        for bad in ["", "{", "[1]", "{\"type\":\"x\"}", "\"\""] {
            assert!(frame(&Bytes::from(bad)).is_err(), "{bad}");
        }
    }
}
