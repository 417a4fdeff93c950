//! Single calls to a node, and the preparation of its sessions.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, ensure};

use super::cells::Slice;
use super::load::{Load, Shape};
use super::protocol::{Protocol, http_reply};

/// Connections over which sessions are created.
const CREATE_CONNS: usize = 64;

/// Creates the sessions `prefix` with the numbers `0..sessions`.
///
/// # Errors
/// What the node answered instead.
pub fn create_sessions(address: SocketAddr, prefix: &str, sessions: u32) -> anyhow::Result<Slice> {
    let creates = Creates { host: address.to_string(), prefix: prefix.to_owned(), next: 0 };
    let shape = Shape::conns(CREATE_CONNS.min(sessions as usize));
    Load::connect(address, shape, Box::new(creates))?
        .requests(sessions.into())
        .context("creating sessions")
}

#[derive(Debug)]
struct Creates {
    host: String,
    prefix: String,
    next: u32,
}

impl Protocol for Creates {
    fn request(&mut self, _place: usize, out: &mut Vec<u8>) {
        let body = format!(r#"{{"id":"{}{}"}}"#, self.prefix, self.next);
        self.next += 1;
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            "POST /v1/sessions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
    }

    fn reply(&mut self, _place: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        http_reply("201", bytes)
    }
}

/// The value of one of the node's metrics.
///
/// # Errors
/// When there is none of this name.
pub fn metric(address: SocketAddr, name: &str) -> anyhow::Result<u64> {
    let text = get(address, "/metrics")?;
    let prefix = format!("throughline_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    let value = value.with_context(|| format!("the node's metrics lack {name}"))?;
    value.trim().parse().with_context(|| format!("{name} is {value}"))
}

/// The body of a successful GET.
///
/// # Errors
/// Another answer.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    ensure!(reply.starts_with("HTTP/1.1 200"), "GET {path}: {reply}");
    let (_, body) = reply.split_once("\r\n\r\n").context("a reply without an end of headers")?;
    Ok(body.to_owned())
}
