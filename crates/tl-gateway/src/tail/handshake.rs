//! The opening handshake of WebSocket (RFC 6455 §4.2), server side. No subprotocol and no
//! extension is ever agreed on.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use sha1::{Digest, Sha1};
use tl_types::ErrorCode;

use crate::headers::has_token;
use crate::problem::Problem;
use crate::reply;

/// The fixed text of the RFC that a server appends to the client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: HeaderValue = HeaderValue::from_static("13");
const KEY_BYTES: usize = 16;

/// Whether the request asks for a WebSocket.
pub fn wanted(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE, "websocket")
}

/// The value for `Sec-WebSocket-Accept`.
///
/// # Errors
/// `invalid_websocket_upgrade`, naming the header that is missing or wrong.
pub fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let refused = |header: &HeaderName| {
        Problem::new(
            ErrorCode::InvalidWebsocketUpgrade,
            format!("The WebSocket upgrade lacks a valid {header} header"),
        )
        .header(header::SEC_WEBSOCKET_VERSION, VERSION)
    };
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(refused(&header::CONNECTION));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(refused(&header::SEC_WEBSOCKET_VERSION));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    match key {
        Some(key) if STANDARD.decode(key).is_ok_and(|raw| raw.len() == KEY_BYTES) => {
            Ok(answer(key))
        }
        _ => Err(refused(&header::SEC_WEBSOCKET_KEY)),
    }
}

fn answer(key: &[u8]) -> HeaderValue {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(KEY_SUFFIX);
    let text = STANDARD.encode(hash.finalize());
    HeaderValue::from_str(&text).expect("base64 is printable ASCII")
}

/// 101 Switching Protocols.
pub fn switching(accept: HeaderValue) -> Response<Body> {
    let mut response = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_one_of_the_rfc() {
        let accept = answer(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_handshake_needs_connection_version_and_a_key_of_16_bytes() {
        let whole = [
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let with = |skip: usize, instead: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for (at, (name, value)) in whole.iter().enumerate() {
                if at != skip {
                    headers.insert(name, HeaderValue::from_static(value));
                } else if let Some(value) = instead {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            accept_key(&headers).map_err(|problem| problem.code())
        };
        assert!(with(9, None).is_ok());
        for (at, wrong) in [(0, "close"), (1, "8"), (2, "c2hvcnQ=")] {
            assert_eq!(with(at, None), Err(ErrorCode::InvalidWebsocketUpgrade));
            assert_eq!(with(at, Some(wrong)), Err(ErrorCode::InvalidWebsocketUpgrade));
        }
    }
}
