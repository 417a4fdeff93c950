//! The closed loop: many connections, each with a fixed number of requests on its way, one
//! thread.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::cells::{Side, Slice};
use super::net::{Conn, Poll, ReadBuffer};
use super::protocol::Protocol;

/// A server that answers nothing for this long is taken for dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How a load keeps its server busy.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Connections.
    pub conns: usize,
    /// Requests on their way per connection.
    pub depth: usize,
    /// What one request counts as, in the unit of the cell.
    pub units: u64,
}

impl Shape {
    /// One request on its way on each of so many connections.
    pub fn conns(conns: impl Into<usize>) -> Shape {
        Shape { conns: conns.into(), depth: 1, units: 1 }
    }
}

/// Open connections to one server.
#[derive(Debug)]
pub struct Load {
    shape: Shape,
    protocol: Box<dyn Protocol>,
    conns: Vec<Caller>,
    poll: Poll,
    buffer: ReadBuffer,
}

#[derive(Debug)]
struct Caller {
    conn: Conn,
    /// When each request that is on its way was sent, oldest first.
    sent: VecDeque<Instant>,
}

impl Load {
    /// Connects.
    ///
    /// # Errors
    /// When the server takes no connection.
    pub fn connect(
        address: SocketAddr,
        shape: Shape,
        protocol: Box<dyn Protocol>,
    ) -> anyhow::Result<Load> {
        Load::connect_to(&[address], shape, protocol)
    }

    /// Connects to several servers in turn.
    ///
    /// # Errors
    /// When one of them takes no connection.
    ///
    /// # Panics
    /// Without servers.
    pub fn connect_to(
        addresses: &[SocketAddr],
        shape: Shape,
        mut protocol: Box<dyn Protocol>,
    ) -> anyhow::Result<Load> {
        let poll = Poll::new()?;
        let mut conns = Vec::with_capacity(shape.conns);
        for place in 0..shape.conns {
            let address = addresses[place % addresses.len()];
            let conn = Conn::connect(&poll, place, address, |stream| {
                protocol.greet(stream)?;
                Ok(Vec::new())
            })?;
            conns.push(Caller { conn, sent: VecDeque::with_capacity(shape.depth) });
        }
        Ok(Load { shape, protocol, conns, poll, buffer: ReadBuffer::default() })
    }

    /// Sends `requests` in all and waits for their replies.
    ///
    /// # Errors
    /// As [`Side::slice`].
    pub fn requests(&mut self, requests: u64) -> anyhow::Result<Slice> {
        let mut left = requests;
        self.drive(|_| {
            let more = left > 0;
            left = left.saturating_sub(1);
            more
        })
    }

    /// Sends while `more` says so, given the time since the start.
    fn drive(&mut self, mut more: impl FnMut(Duration) -> bool) -> anyhow::Result<Slice> {
        let started = Instant::now();
        let mut slice = Slice::new()?;
        let mut open = 0;
        for place in 0..self.conns.len() {
            for _ in 0..self.shape.depth {
                if more(Duration::ZERO) {
                    self.put(place, Instant::now());
                    open += 1;
                }
            }
            self.conns[place].conn.write(&self.poll)?;
        }
        let mut last_answer = started;
        let mut ready = Vec::new();
        while open > 0 {
            self.poll.wait(&mut ready)?;
            if ready.is_empty() && last_answer.elapsed() > SILENCE_MAX {
                bail!("the server has answered nothing for {} s", SILENCE_MAX.as_secs());
            }
            for &(place, writable) in &ready {
                if writable {
                    self.conns[place].conn.write(&self.poll)?;
                }
                let answered = self.read(place, started, &mut slice)?;
                if answered == 0 {
                    continue;
                }
                last_answer = Instant::now();
                for _ in 0..answered {
                    if more(last_answer - started) {
                        self.put(place, last_answer);
                    } else {
                        open -= 1;
                    }
                }
                self.conns[place].conn.write(&self.poll)?;
            }
        }
        slice.took = started.elapsed();
        Ok(slice)
    }

    fn put(&mut self, place: usize, now: Instant) {
        let caller = &mut self.conns[place];
        self.protocol.request(place, caller.conn.out());
        caller.sent.push_back(now);
    }

    /// Reads what is there; the number of replies that have become whole.
    fn read(&mut self, place: usize, started: Instant, slice: &mut Slice) -> anyhow::Result<usize> {
        let Caller { conn, sent } = &mut self.conns[place];
        let (protocol, units) = (&mut self.protocol, self.shape.units);
        let mut answered = 0;
        conn.read(&mut self.buffer, |bytes| {
            let used = match protocol.reply(place, bytes) {
                Ok(Some(used)) => used,
                Ok(None) => return Ok(0),
                Err(reply) => bail!("the server refused a request: {reply}"),
            };
            let Some(sent) = sent.pop_front() else {
                bail!("the server sent a reply to no request");
            };
            let now = Instant::now();
            slice.record(now - started, now - sent, units);
            answered += 1;
            Ok(used)
        })?;
        Ok(answered)
    }
}

impl Side for Load {
    /// Keeps the connections busy for `length`, then waits for the last replies; those count
    /// too.
    fn slice(&mut self, length: Duration) -> anyhow::Result<Slice> {
        self.drive(|since| since < length)
    }
}
