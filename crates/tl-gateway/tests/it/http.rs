//! A small HTTP client that sends exactly the bytes it is given.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Longer than anything should take; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Fails the test instead of hanging.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it happens within the patience of a test")
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }
}

pub struct Wire {
    pub stream: TcpStream,
    pub input: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Wire {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, input: Vec::new() }
    }

    /// A reader whose system holds little for it.
    pub async fn connect_small(address: SocketAddr) -> Wire {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = soon(socket.connect(address)).await.unwrap();
        Wire { stream, input: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        self.send(&bytes).await;
    }

    /// Reads more; false at the end.
    pub async fn more(&mut self) -> bool {
        soon(self.stream.read_buf(&mut self.input)).await.unwrap_or(0) > 0
    }

    /// Takes bytes up to and with `end`.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|part| part == end) {
                return self.input.drain(..at + end.len()).collect();
            }
            let text = String::from_utf8_lossy(&self.input).into_owned();
            assert!(self.more().await, "the connection ended at {text:?}");
        }
    }

    pub async fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.input.len() < bytes {
            assert!(self.more().await, "the connection ended early");
        }
        self.input.drain(..bytes).collect()
    }

    /// The head of a reply.
    pub async fn head(&mut self) -> Reply {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Reply { status, headers, body: Vec::new() }
    }

    /// A whole reply to a request of `method`.
    pub async fn reply(&mut self, method: &str) -> Reply {
        let mut reply = self.head().await;
        let bodiless = method == "HEAD" || matches!(reply.status, 101 | 204);
        if let (false, Some(length)) = (bodiless, reply.header("content-length")) {
            let length = length.parse().unwrap();
            reply.body = self.take(length).await;
        }
        reply
    }

    /// One chunk of a chunked body; empty at its end.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = self.until(b"\r\n").await;
        let size = std::str::from_utf8(&size).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap();
        let mut chunk = self.take(size + 2).await;
        chunk.truncate(size);
        chunk
    }

    /// Waits until the server closes.
    pub async fn closed(&mut self) {
        while self.more().await {}
    }
}
