//! Whole sessions read from disk, one after another: a tail from the start over a WebSocket, an
//! event per frame, beside files of the same length sent raw.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::cells::{Side, Slice, Title, measure, settle};
use super::child::Server;
use super::load::{Load, SILENCE_MAX, Shape};
use super::protocol::append::Appends;
use super::protocol::writers::Writers;
use super::scratch::Scratch;
use super::{CeilingArgs, ReplayArgs, http, print, ws};
use crate::output::Out;

const PREFIX: &str = "replay-";
/// Bytes of an event, when not given.
const SIZE: u32 = 1024;
/// Events per request of the load that writes the sessions.
const BATCH_EVENTS: u32 = 64;
/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// `tl bench replay`.
pub fn replay(args: &ReplayArgs, out: &Out) -> anyhow::Result<()> {
    let size = args.size.unwrap_or(SIZE);
    let dir = Scratch::new(args.dir.as_deref())?;
    let data = dir.path().join("node");
    let batches = args.events.div_ceil(BATCH_EVENTS);
    fill(&data, args.sessions, batches, size)?;
    // A fresh process has nothing of it in its own memory but what recovery brings.
    let node = Server::node(&data, &[])?;
    let events = u64::from(batches * BATCH_EVENTS);
    let mut ours = Replays::new(args.sessions, Source::Node { address: node.address, events });
    let session_bytes = ours.one()?;
    let title = Title { workload: "replay", unit: "bytes", conns: 1, size_bytes: size };
    let plan = args.slices.plan();
    print::head(out)?;
    let cell = if args.against.is_some() {
        let server = raw_server(&dir, args.sessions, session_bytes)?;
        let mut raw = Replays::new(args.sessions, Source::Raw(server.address));
        settle(&mut raw)?;
        measure(title, plan, &mut ours, Some(("ceiling", &mut raw)))?
    } else {
        measure(title, plan, &mut ours, None)?
    };
    print::cell(out, &cell)
}

/// `tl bench ceiling --replay`: the raw side alone.
pub fn ceiling(args: &CeilingArgs, sessions: u32, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.cells.dir.as_deref())?;
    let size = args.cells.size(SIZE);
    let server = raw_server(&dir, sessions, u64::from(size) * u64::from(super::REPLAY_EVENTS))?;
    let mut raw = Replays::new(sessions, Source::Raw(server.address));
    settle(&mut raw)?;
    print::head(out)?;
    let title = Title { workload: "ceiling", unit: "bytes", conns: 1, size_bytes: size };
    print::cell(out, &measure(title, args.cells.slices.plan(), &mut raw, None)?)
}

fn raw_server(dir: &Scratch<'_>, files: u32, bytes: u64) -> anyhow::Result<Server> {
    let (files, bytes) = (files.to_string(), bytes.to_string());
    Server::raw(&["replay", "--files", &files, "--bytes", &bytes], dir.path())
}

/// Writes the sessions, in batches, and ends the node as an operator would.
fn fill(data: &std::path::Path, sessions: u32, batches: u32, size: u32) -> anyhow::Result<()> {
    let node = Server::node(data, &[])?;
    http::create_sessions(node.address, PREFIX, sessions)?;
    // One connection that takes the sessions in turns fills them equally.
    let writers = Writers::new(PREFIX, 0, sessions, "r".to_owned(), 1);
    let host = node.address.to_string();
    let appends = Appends::batch(&host, writers, size as usize, BATCH_EVENTS.into());
    let mut load = Load::connect(node.address, Shape::conns(1_usize), Box::new(appends))?;
    load.requests(u64::from(sessions) * u64::from(batches))?;
    node.stop()
}

/// Reads sessions whole, in turns.
#[derive(Debug)]
struct Replays {
    source: Source,
    sessions: u32,
    next: u32,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// A node, and how many events each session has.
    Node { address: SocketAddr, events: u64 },
    /// The raw server.
    Raw(SocketAddr),
}

impl Replays {
    fn new(sessions: u32, source: Source) -> Replays {
        Replays { source, sessions, next: 0, buffer: vec![0; READ_BYTES] }
    }

    /// Reads the next session; how many bytes came.
    fn one(&mut self) -> anyhow::Result<u64> {
        let session = self.next;
        self.next = (self.next + 1) % self.sessions;
        match self.source {
            Source::Node { address, events } => self.tail(address, session, events),
            Source::Raw(address) => self.raw(address, session),
        }
    }

    fn tail(&mut self, address: SocketAddr, session: u32, events: u64) -> anyhow::Result<u64> {
        let mut stream = connect(address)?;
        let path = format!("/v1/sessions/{PREFIX}{session}/tail?cursor=0");
        let first = ws::open(&mut stream, &path)?;
        let mut counter = ws::Counter::default();
        counter.feed(&first);
        while counter.texts < events {
            let bytes = stream.read(&mut self.buffer)?;
            counter.feed(&self.buffer[..bytes]);
            if bytes == 0 || counter.closed {
                bail!("the tail of session {session} ended after {} events", counter.texts);
            }
        }
        ensure!(counter.texts == events, "session {session} has more than {events} events");
        Ok(counter.bytes)
    }

    fn raw(&mut self, address: SocketAddr, session: u32) -> anyhow::Result<u64> {
        let mut stream = connect(address)?;
        stream.write_all(&u64::from(session).to_le_bytes())?;
        let mut total = 0;
        loop {
            match stream.read(&mut self.buffer)? {
                0 => return Ok(total),
                bytes => total += bytes as u64,
            }
        }
    }
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

impl Side for Replays {
    fn slice(&mut self, length: Duration) -> anyhow::Result<Slice> {
        let mut slice = Slice::new()?;
        let started = Instant::now();
        while started.elapsed() < length {
            let began = Instant::now();
            let bytes = self.one()?;
            slice.record(started.elapsed(), began.elapsed(), bytes);
        }
        slice.took = started.elapsed();
        Ok(slice)
    }
}
