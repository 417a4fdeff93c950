//! The load: many connections, one request each on its way, one thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

use super::protocol::Protocol;

/// Longest latency that is told apart, microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// A server that answers nothing for this long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What one slice measured.
#[derive(Debug)]
pub struct Slice {
    /// Requests answered.
    pub answered: u64,
    /// How long it really took.
    pub took: Duration,
    /// Latencies in microseconds.
    pub latency_us: Histogram<u64>,
}

impl Slice {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// Open connections to one server.
#[derive(Debug)]
pub struct Load {
    protocol: Protocol,
    conns: Vec<Conn>,
    epoll: rustix::fd::OwnedFd,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    /// Bytes still to be written.
    out: Vec<u8>,
    written: usize,
    /// Bytes of a reply that is not whole yet.
    input: Vec<u8>,
    sent_at: Instant,
    waits: bool,
}

impl Load {
    /// Connects `count` times.
    ///
    /// # Errors
    /// When the server takes no connection.
    pub fn connect(address: SocketAddr, count: usize, protocol: Protocol) -> anyhow::Result<Load> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut conns = Vec::with_capacity(count);
        for place in 0..count {
            let stream = TcpStream::connect(address)
                .with_context(|| format!("connection {place} of {count} to {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(place as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            conns.push(Conn {
                stream,
                out: Vec::new(),
                written: 0,
                input: Vec::new(),
                sent_at: Instant::now(),
                waits: false,
            });
        }
        Ok(Load { protocol, conns, epoll })
    }

    /// Keeps one request on its way on every connection for `length`, then waits for the last
    /// replies; those count too.
    ///
    /// # Errors
    /// A reply that is no success, a closed connection, or a silent server.
    pub fn slice(&mut self, length: Duration) -> anyhow::Result<Slice> {
        let mut latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?;
        let (started, mut answered) = (Instant::now(), 0);
        let mut open = self.conns.len();
        for place in 0..self.conns.len() {
            self.send(place)?;
        }
        let mut last_answer = started;
        let mut events = Vec::with_capacity(1024);
        while open > 0 {
            events.clear();
            let wait = Timespec { tv_sec: 1, tv_nsec: 0 };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait))
            {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if last_answer.elapsed() > SILENCE_MAX {
                bail!("the server has answered nothing for {} s", SILENCE_MAX.as_secs());
            }
            for event in &events {
                let place = event.data.u64() as usize;
                // The kernel's event is packed: fields are copied out, never borrowed.
                let flags = event.flags;
                if flags.contains(epoll::EventFlags::OUT) {
                    self.write(place)?;
                }
                if !self.read(place)? {
                    continue;
                }
                let now = Instant::now();
                let took = now - self.conns[place].sent_at;
                latency_us.saturating_record((took.as_micros() as u64).max(1));
                answered += 1;
                last_answer = now;
                if started.elapsed() < length {
                    self.send(place)?;
                } else {
                    open -= 1;
                }
            }
        }
        Ok(Slice { answered, took: started.elapsed(), latency_us })
    }

    fn send(&mut self, place: usize) -> anyhow::Result<()> {
        let conn = &mut self.conns[place];
        conn.out.clear();
        conn.written = 0;
        self.protocol.request(place, &mut conn.out);
        conn.sent_at = Instant::now();
        self.write(place)
    }

    fn write(&mut self, place: usize) -> anyhow::Result<()> {
        let conn = &mut self.conns[place];
        while conn.written < conn.out.len() {
            match conn.stream.write(&conn.out[conn.written..]) {
                Ok(0) => bail!("the server closed connection {place}"),
                Ok(bytes) => conn.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("writing a request"),
            }
        }
        let waits = conn.written < conn.out.len();
        if waits != conn.waits {
            conn.waits = waits;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, waits);
            let data = epoll::EventData::new_u64(place as u64);
            epoll::modify(&self.epoll, &conn.stream, data, flags)?;
        }
        Ok(())
    }

    /// Reads what is there; true when a reply is whole.
    fn read(&mut self, place: usize) -> anyhow::Result<bool> {
        let conn = &mut self.conns[place];
        let mut buffer = [0; 4096];
        loop {
            match conn.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed connection {place}"),
                Ok(bytes) => {
                    conn.input.extend_from_slice(&buffer[..bytes]);
                    if bytes < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading a reply"),
            }
        }
        match self.protocol.reply(&conn.input) {
            Ok(Some(bytes)) if bytes == conn.input.len() => {
                conn.input.clear();
                Ok(true)
            }
            Ok(Some(_)) => bail!("the server sent more than one reply to one request"),
            Ok(None) => Ok(false),
            Err(reply) => bail!("the server refused a request: {reply}"),
        }
    }
}
