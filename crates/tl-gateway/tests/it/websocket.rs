//! A WebSocket client by hand, so that anything can be sent.

use std::net::SocketAddr;

use serde_json::Value;

use crate::http::{Reply, Wire};

pub const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Text(String),
    Ping,
    Pong(Vec<u8>),
    /// Code and reason.
    Close(Option<u16>, String),
}

pub struct Socket(pub Wire);

impl Socket {
    pub async fn open(address: SocketAddr, target: &str) -> Socket {
        Socket::over(Wire::connect(address).await, target).await
    }

    pub async fn over(mut wire: Wire, target: &str) -> Socket {
        let reply = Socket::shake(&mut wire, target).await;
        assert_eq!(reply.status, 101, "{reply:?}");
        assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Socket(wire)
    }

    pub async fn shake(wire: &mut Wire, target: &str) -> Reply {
        wire.request("GET", target, &UPGRADE, None).await;
        wire.reply("GET").await
    }

    pub async fn frame(&mut self) -> Frame {
        let start = self.0.take(2).await;
        assert_eq!(start[1] & 0x80, 0, "a server does not mask");
        let length = match start[1] {
            126 => self.0.take(2).await.iter().fold(0, |sum, &b| sum << 8 | usize::from(b)),
            127 => self.0.take(8).await.iter().fold(0, |sum, &b| sum << 8 | usize::from(b)),
            short => usize::from(short),
        };
        let payload = self.0.take(length).await;
        match start[0] {
            0x81 => Frame::Text(String::from_utf8(payload).unwrap()),
            0x89 => Frame::Ping,
            0x8A => Frame::Pong(payload),
            0x88 => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = payload.get(2..).unwrap_or_default();
                Frame::Close(code, String::from_utf8(reason.to_vec()).unwrap())
            }
            other => panic!("unexpected frame {other:#x}"),
        }
    }

    /// The next text frame as JSON, pings skipped.
    pub async fn json(&mut self) -> Value {
        loop {
            match self.frame().await {
                Frame::Text(text) => return serde_json::from_str(&text).unwrap(),
                Frame::Ping => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The close frame, everything before it skipped.
    pub async fn close(&mut self) -> (Option<u16>, String) {
        loop {
            if let Frame::Close(code, reason) = self.frame().await {
                return (code, reason);
            }
        }
    }

    /// Sends a masked frame.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        assert!(payload.len() < 126, "short frames only");
        let mut bytes = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        self.0.send(&bytes).await;
    }
}
