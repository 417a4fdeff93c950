//! A peer that answers by script, one connection after another, and tells what it was asked.
//! It stands in for the network's faults, not for the server.

use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// What one connection gets.
pub enum Answer {
    /// A whole reply.
    Reply(u16, &'static str, String),
    /// The request is read, then the connection closed.
    HangUp,
    /// The request is read and never answered.
    Silence,
    /// The start of an event stream, cut off behind these bytes.
    Stream(String),
    /// A WebSocket with these text frames and this close code.
    Socket(Vec<String>, u16),
}

/// A request as the peer saw it.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub target: String,
    pub body: String,
    /// Its `Idempotency-Key`.
    pub key: Option<String>,
}

pub struct Peer {
    pub url: String,
    asked: mpsc::Receiver<Asked>,
}

impl Peer {
    pub async fn with(script: Vec<Answer>) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for answer in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                match answer {
                    Answer::Socket(frames, code) => socket(stream, frames, code, &tell).await,
                    Answer::HangUp => tell.send(read(&mut stream).await).await.unwrap(),
                    Answer::Silence => {
                        tell.send(read(&mut stream).await).await.unwrap();
                        kept.push(stream);
                    }
                    Answer::Reply(status, headers, body) => {
                        tell.send(read(&mut stream).await).await.unwrap();
                        let length = body.len();
                        let head = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
                        );
                        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                    }
                    Answer::Stream(body) => {
                        tell.send(read(&mut stream).await).await.unwrap();
                        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                    }
                }
            }
            // The script is over: whoever still asks is refused at the door.
            drop(listener);
        });
        Peer { url, asked }
    }

    /// The next request, in the order in which they came.
    pub async fn asked(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }
}

async fn read(stream: &mut TcpStream) -> Asked {
    let mut bytes = Vec::new();
    let head_end = loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the request ended early");
        bytes.extend_from_slice(&chunk[..n]);
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap().to_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = header("content-length: ").map_or(0, |n| n.trim().parse().unwrap());
    let key = header("idempotency-key: ").map(|key| key.trim().to_owned());
    while bytes.len() < head_end + length {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the body ended early");
        bytes.extend_from_slice(&chunk[..n]);
    }
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let body = String::from_utf8(bytes[head_end..].to_vec()).unwrap();
    Asked { target, body, key }
}

#[allow(clippy::result_large_err)]
async fn socket(stream: TcpStream, frames: Vec<String>, code: u16, tell: &mpsc::Sender<Asked>) {
    let mut target = String::new();
    let note = |request: &Request, response: Response| {
        target = request.uri().to_string();
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, note).await.unwrap();
    tell.send(Asked { target, body: String::new(), key: None }).await.unwrap();
    for frame in frames {
        socket.send(Message::text(frame)).await.unwrap();
    }
    let close = CloseFrame { code: code.into(), reason: "".into() };
    let _ = socket.close(Some(close)).await;
    // Until the other side has closed too, so that no frame is cut off by a reset.
    while let Some(Ok(_)) = futures_util::StreamExt::next(&mut socket).await {}
}
