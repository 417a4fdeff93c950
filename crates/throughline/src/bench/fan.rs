//! One writer, one session, many readers: from a write to its last delivery, one write at a
//! time.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::cells::{Plan, Side, Slice, Title, measure, settle};
use super::child::Server;
use super::load::SILENCE_MAX;
use super::net::{Conn, Poll, ReadBuffer};
use super::protocol::Protocol;
use super::protocol::append::Appends;
use super::protocol::raw::Raw;
use super::protocol::writers::Writers;
use super::scratch::Scratch;
use super::{FanArgs, TailArgs, http, print, ws};
use crate::output::Out;

/// What the session of a cell is called, before its number.
const PREFIX: &str = "fan-";
/// Bytes of an event, when not given.
const SIZE: u32 = 256;
/// First byte of a writer's connection to the raw server.
pub const WRITER: u8 = b'W';
/// First byte of a reader's; it is sent back when the reader is known.
pub const READER: u8 = b'R';

/// `tl bench fanout`.
pub fn fanout(args: &FanArgs, out: &Out) -> anyhow::Result<()> {
    let size = args.size.unwrap_or(SIZE);
    let cells = Cells {
        workload: "fanout",
        size,
        plan: args.slices.plan(),
        with_ceiling: args.against.is_some(),
    };
    cells.run(args.dir.as_deref(), &args.readers, out)
}

/// `tl bench tail`.
pub fn tail(args: &TailArgs, out: &Out) -> anyhow::Result<()> {
    let size = args.size.unwrap_or(SIZE);
    let cells = Cells { workload: "tail", size, plan: args.slices.plan(), with_ceiling: false };
    cells.run(args.dir.as_deref(), &[1], out)
}

/// `tl bench ceiling --fanout`: the raw side alone, delivering frames as long as events.
pub fn ceiling(args: &super::CeilingArgs, readers: u16, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.cells.dir.as_deref())?;
    let size = args.cells.size(SIZE);
    let server = raw_server(&dir, size, size as usize, readers)?;
    print::head(out)?;
    let mut fan = Fan::raw(server.address, readers, size as usize, size as usize)?;
    settle(&mut fan)?;
    let title =
        Title { workload: "ceiling", unit: "deliveries", conns: readers.into(), size_bytes: size };
    print::cell(out, &measure(title, args.cells.slices.plan(), &mut fan, None)?)
}

struct Cells {
    workload: &'static str,
    size: u32,
    plan: Plan,
    with_ceiling: bool,
}

impl Cells {
    fn run(&self, dir: Option<&std::path::Path>, readers: &[u16], out: &Out) -> anyhow::Result<()> {
        let dir = Scratch::new(dir)?;
        let node = Server::node(&dir.path().join("node"), &[])?;
        http::create_sessions(node.address, PREFIX, readers.len() as u32)?;
        print::head(out)?;
        for (number, &readers) in (0..).zip(readers) {
            let size = self.size as usize;
            let mut fan = Fan::node(node.address, number, readers, size)?;
            settle(&mut fan)?;
            let before = http::metric(node.address, "log_syncs_total")?;
            let title = Title {
                workload: self.workload,
                unit: "deliveries",
                conns: readers.into(),
                size_bytes: self.size,
            };
            let mut cell = if self.with_ceiling {
                let server = raw_server(&dir, self.size, fan.delivered_bytes, readers)?;
                let mut raw = Fan::raw(server.address, readers, size, fan.delivered_bytes)?;
                settle(&mut raw)?;
                measure(title, self.plan, &mut fan, Some(("ceiling", &mut raw)))?
            } else {
                measure(title, self.plan, &mut fan, None)?
            };
            cell.syncs = Some(http::metric(node.address, "log_syncs_total")? - before);
            print::cell(out, &cell)?;
        }
        Ok(())
    }
}

fn raw_server(
    dir: &Scratch<'_>,
    size: u32,
    deliver: usize,
    readers: u16,
) -> anyhow::Result<Server> {
    let (size, deliver, readers) = (size.to_string(), deliver.to_string(), readers.to_string());
    let words = ["fanout", "--size", &size, "--deliver", &deliver, "--readers", &readers];
    Server::raw(&words, dir.path())
}

/// A writer and its readers, on one thread.
#[derive(Debug)]
struct Fan {
    protocol: Box<dyn Protocol>,
    writer: Conn,
    readers: Vec<Conn>,
    delivery: Delivery,
    /// Bytes of the latest delivery.
    delivered_bytes: usize,
    poll: Poll,
    buffer: ReadBuffer,
}

/// How an event reaches a reader.
#[derive(Debug, Clone, Copy)]
enum Delivery {
    /// As so many bytes.
    Raw(usize),
    /// As a text frame of a WebSocket.
    Frame,
}

impl Delivery {
    /// Bytes of the delivery or other frame at the front, once it is whole, and whether it
    /// carries an event.
    fn whole(self, bytes: &[u8]) -> anyhow::Result<Option<(usize, bool)>> {
        let (length, is_event) = match self {
            Delivery::Raw(length) => (length, true),
            Delivery::Frame => match ws::frame(bytes) {
                Some(frame) if frame.is_close => bail!("the server closed a tail"),
                Some(frame) => (frame.bytes, frame.is_text),
                None => return Ok(None),
            },
        };
        Ok((bytes.len() >= length).then_some((length, is_event)))
    }
}

impl Fan {
    fn node(address: SocketAddr, session: u32, readers: u16, size: usize) -> anyhow::Result<Fan> {
        let writers = Writers::new(PREFIX, session, 1, "r".to_owned(), 1);
        let appends = Appends::single(&address.to_string(), writers, size);
        let path = format!("/v1/sessions/{PREFIX}{session}/tail?cursor=0");
        Fan::connect(address, Box::new(appends), readers, Delivery::Frame, &[], |stream| {
            ws::open(stream, &path)
        })
    }

    fn raw(address: SocketAddr, readers: u16, size: usize, deliver: usize) -> anyhow::Result<Fan> {
        let delivery = Delivery::Raw(deliver);
        Fan::connect(address, Box::new(Raw { size }), readers, delivery, &[WRITER], |stream| {
            stream.write_all(&[READER])?;
            let mut known = [0];
            stream.read_exact(&mut known)?;
            ensure!(known == [READER], "the raw server does not know its reader");
            Ok(Vec::new())
        })
    }

    fn connect(
        address: SocketAddr,
        protocol: Box<dyn Protocol>,
        readers: u16,
        delivery: Delivery,
        writer_says: &[u8],
        mut greet: impl FnMut(&mut std::net::TcpStream) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Fan> {
        let poll = Poll::new()?;
        let writer = Conn::connect(&poll, 0, address, |stream| {
            stream.write_all(writer_says)?;
            Ok(Vec::new())
        })?;
        let readers = (1..=usize::from(readers))
            .map(|place| Conn::connect(&poll, place, address, &mut greet))
            .collect::<anyhow::Result<_>>()?;
        let buffer = ReadBuffer::default();
        Ok(Fan { protocol, writer, readers, delivery, delivered_bytes: 0, poll, buffer })
    }

    /// One write until its answer and last delivery are there: how long the latter took since
    /// the write was sent and since its answer.
    fn round(&mut self) -> anyhow::Result<(Duration, Duration)> {
        self.protocol.request(0, self.writer.out());
        let sent = Instant::now();
        self.writer.write(&self.poll)?;
        let (mut answered, mut last) = (None, sent);
        let mut missing = self.readers.len();
        let mut ready = Vec::new();
        while answered.is_none() || missing > 0 {
            self.poll.wait(&mut ready)?;
            if ready.is_empty() && sent.elapsed() > SILENCE_MAX {
                bail!("{missing} deliveries are missing after {} s", SILENCE_MAX.as_secs());
            }
            for &(place, writable) in &ready {
                if place == 0 {
                    if writable {
                        self.writer.write(&self.poll)?;
                    }
                    let protocol = &mut self.protocol;
                    self.writer.read(&mut self.buffer, |bytes| match protocol.reply(0, bytes) {
                        Ok(used) => {
                            Ok(used.inspect(|_| answered = Some(Instant::now())).unwrap_or(0))
                        }
                        Err(reply) => bail!("the server refused a write: {reply}"),
                    })?;
                    continue;
                }
                let (delivery, delivered) = (self.delivery, &mut self.delivered_bytes);
                self.readers[place - 1].read(&mut self.buffer, |bytes| {
                    let Some((used, is_event)) = delivery.whole(bytes)? else { return Ok(0) };
                    if is_event {
                        ensure!(missing > 0, "an event was delivered twice");
                        missing -= 1;
                        *delivered = used;
                        last = Instant::now();
                    }
                    Ok(used)
                })?;
            }
        }
        let answered = answered.unwrap_or(last);
        Ok((last - sent, last.saturating_duration_since(answered)))
    }
}

impl Side for Fan {
    fn slice(&mut self, length: Duration) -> anyhow::Result<Slice> {
        let mut slice = Slice::new()?;
        let started = Instant::now();
        while started.elapsed() < length {
            let (since_sent, since_answered) = self.round()?;
            slice.record(started.elapsed(), since_sent, self.readers.len() as u64);
            let since_answered_us = (since_answered.as_micros() as u64).max(1);
            slice.other_latency_us.saturating_record(since_answered_us);
        }
        slice.took = started.elapsed();
        Ok(slice)
    }
}
