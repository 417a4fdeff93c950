//! The crowd: raw sockets, so that each does exactly what a careless or evil client would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tl_client::{Client, CreateSession};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::tree;

/// Tails that read nothing.
const STALLED_TAILS: usize = 200;
/// How long each is held before it comes again: longer than a node waits for a reader.
const STALL: Duration = Duration::from_secs(12);
/// Bytes that the kernel holds for a tail that is not read.
const STALLED_BUFFER_BYTES: u32 = 4 * 1024;
/// Connections whose bodies come slowly.
const SLOW_BODIES: usize = 2_000;
const BODY_BYTES: usize = 1_000_000;
/// A body comes in so many pieces, with such a pause before each.
const PIECES: usize = 60;
const PIECE_PAUSE: Duration = Duration::from_millis(250);
/// Pause of a refused client before it comes again.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Sessions that the bodies go to.
const SESSIONS: usize = 64;
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for an answer once all is sent.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How requests with slow bodies ended, by status and code.
#[derive(Debug, Default)]
pub struct Crowd {
    ended: BTreeMap<String, u64>,
    refused: u64,
    unclear: u64,
    all: u64,
}

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    /// Taken.
    Taken,
    /// Refused with a code that has a page.
    Refused(String),
    /// Anything else: no answer, or one that says nothing.
    Unclear(String),
}

/// Raises the limit of open files of this process as far as it goes.
pub fn raise_file_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot open that many files")
}

/// Makes the sessions.
pub async fn prepare(client: &Client) -> Result<()> {
    for number in 0..SESSIONS {
        client.create(&CreateSession::with_id(&format!("slow-{number}"))).await?;
    }
    Ok(())
}

impl Crowd {
    /// Presses for so long; the tails are of these sessions.
    pub async fn press(url: &str, sessions: &[Arc<str>], length: Duration) -> Result<Crowd> {
        let address = url.strip_prefix("http://").context("not an address of ours")?;
        let address: SocketAddr = address.parse().context("not an address")?;
        let until = Instant::now() + length;
        let mut tails = JoinSet::new();
        for number in 0..STALLED_TAILS {
            let session = sessions[number % sessions.len()].clone();
            tails.spawn(async move {
                loop {
                    // One that is refused comes again like the others.
                    let _ = stall(address, &session).await;
                }
            });
        }
        let mut bodies = JoinSet::new();
        for number in 0..SLOW_BODIES {
            bodies.spawn(slow_bodies(address, number, until));
        }
        let mut crowd = Crowd::default();
        while let Some(ended) = bodies.join_next().await {
            ended.context("a client panicked")?.into_iter().for_each(|ended| crowd.count(ended));
        }
        tails.shutdown().await;
        Ok(crowd)
    }

    fn count(&mut self, ended: Ended) {
        self.all += 1;
        let what = match ended {
            Ended::Taken => "taken".to_owned(),
            Ended::Refused(code) => {
                self.refused += 1;
                code
            }
            Ended::Unclear(what) => {
                self.unclear += 1;
                what
            }
        };
        *self.ended.entry(what).or_default() += 1;
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How many of a hundred ended without a clear answer.
    pub fn unclear_percent(&self) -> f64 {
        self.unclear as f64 * 100.0 / self.all.max(1) as f64
    }

    /// How the requests ended, in words.
    pub fn said(&self) -> String {
        let ended: Vec<String> =
            self.ended.iter().map(|(what, count)| format!("{count} {what}")).collect();
        ended.join(", ")
    }
}

/// Opens a tail from the start and reads nothing.
async fn stall(address: SocketAddr, session: &str) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(STALLED_BUFFER_BYTES)?;
    let outcome = async {
        let mut stream = socket.connect(address).await?;
        let request = format!(
            "GET /v1/sessions/{session}/tail?cursor=0 HTTP/1.1\r\nhost: {address}\r\n\
             upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhyb3VnaGxpbmViZW5jaA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    };
    let outcome: Result<TcpStream> = outcome.await;
    tokio::time::sleep(if outcome.is_ok() { STALL } else { REFUSED_PAUSE }).await;
    outcome.map(drop)
}

/// Sends bodies one after another until it is time to stop; a last one under way is finished.
async fn slow_bodies(address: SocketAddr, number: usize, until: Instant) -> Vec<Ended> {
    let mut all = Vec::new();
    let mut position = 1;
    while Instant::now() < until {
        let ended = match slow_body(address, number, position).await {
            Ok(answer) => judge(&answer, has_page),
            Err(error) => Ended::Unclear(format!("broken: {}", error.root_cause())),
        };
        match ended {
            Ended::Taken => position += 1,
            _ => tokio::time::sleep(REFUSED_PAUSE).await,
        }
        all.push(ended);
    }
    all
}

/// Sends one body piece by piece, until it is all sent or an answer has come; the answer.
async fn slow_body(address: SocketAddr, number: usize, position: u64) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let (mut reader, mut writer) = stream.split();
    let start = format!(
        r#"{{"type":"m","producer_id":"slow-{number}","producer_seq":{position},"payload":{{"text":""#
    );
    let mut body = start.into_bytes();
    body.resize(BODY_BYTES - 3, b'x');
    body.extend_from_slice(br#""}}"#);
    let head = format!(
        "POST /v1/sessions/slow-{}/append HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {BODY_BYTES}\r\n\r\n",
        number % SESSIONS
    );
    let send = async {
        writer.write_all(head.as_bytes()).await?;
        for piece in body.chunks(BODY_BYTES.div_ceil(PIECES)) {
            tokio::time::sleep(PIECE_PAUSE).await;
            writer.write_all(piece).await?;
        }
        std::io::Result::Ok(())
    };
    let mut receive = std::pin::pin!(receive(&mut reader));
    tokio::select! {
        answer = &mut receive => Ok(answer?),
        // A node that does not want the rest may close its side: the answer is there then.
        _ = send => Ok(tokio::time::timeout(ANSWER_MAX, receive).await.context("no answer")??),
    }
}

/// Reads until the answer is whole or the server has closed.
async fn receive(reader: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 4096]);
    while answer.len() < ANSWER_BYTES_MAX && !is_whole(&answer) {
        let bytes = reader.read(&mut buffer).await?;
        if bytes == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..bytes]);
    }
    Ok(answer)
}

/// Whether the answer's JSON object has come to its end behind the headers.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    serde_json::from_slice::<serde_json::Value>(&answer[end + 4..]).is_ok()
}

/// Whether a code is explained.
fn has_page(code: &str) -> bool {
    let page = Path::new("docs/reference/errors").join(code).with_extension("md");
    tree::root().join(page).is_file()
}

/// What an answer says.
fn judge(answer: &[u8], has_page: impl Fn(&str) -> bool) -> Ended {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ended::Unclear("no answer".to_owned());
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "201" {
        return Ended::Taken;
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match body["error"].as_str() {
        Some(code) if ["408", "429", "503"].contains(&status) && has_page(code) => {
            Ended::Refused(format!("{status} {code}"))
        }
        _ => Ended::Unclear(format!("answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(answer: &str) -> Ended {
        judge(answer.as_bytes(), |code| code == "event_store_backpressure")
    }

    #[test]
    fn only_a_refusal_with_a_known_code_is_clear() {
        assert_eq!(judged("HTTP/1.1 201 Created\r\n\r\n{}"), Ended::Taken);
        let refusal = "HTTP/1.1 429 Too Many\r\n\r\n{\"error\":\"event_store_backpressure\"}";
        assert_eq!(judged(refusal), Ended::Refused("429 event_store_backpressure".into()));
        for unclear in [
            "",
            "HTTP/1.1 429 Too Many\r\n\r\n",
            "HTTP/1.1 429 Too Many\r\n\r\n{\"error\":\"other\"}",
            "HTTP/1.1 500 No\r\n\r\n{\"error\":\"event_store_backpressure\"}",
        ] {
            assert!(matches!(judged(unclear), Ended::Unclear(_)), "{unclear}");
        }
    }

    #[test]
    fn an_answer_is_whole_with_the_end_of_its_object() {
        assert!(is_whole(b"HTTP/1.1 201 Created\r\n\r\n{\"seq\":1}"));
        assert!(!is_whole(b"HTTP/1.1 201 Created\r\n\r\n{\"seq\":"));
        assert!(!is_whole(b"HTTP/1.1 201 Created\r\n"));
    }
}
