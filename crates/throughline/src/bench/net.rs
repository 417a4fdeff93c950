//! Sockets of the load: non-blocking, many to one thread, ready ones told by epoll.
//!
//! Everything that is measured against something else goes through here, so that both sides
//! pay the same for their client.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, bail};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

/// Bytes taken from a socket at a time.
const READ_BYTES: usize = 64 * 1024;
/// Ready sockets taken from the kernel at a time.
const EVENTS_MAX: usize = 512;

/// The sockets of one load, by place.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new() -> anyhow::Result<Poll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Poll { epoll })
    }

    /// Waits up to a second and puts the ready places into `ready`, each with whether it may be
    /// written.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn wait(&self, ready: &mut Vec<(usize, bool)>) -> anyhow::Result<()> {
        ready.clear();
        let wait = Timespec { tv_sec: 1, tv_nsec: 0 };
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut space, Some(&wait)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        for event in events {
            // The kernel's event is packed: fields are copied out, never borrowed.
            let (flags, data) = (event.flags, event.data);
            ready.push((data.u64() as usize, flags.contains(epoll::EventFlags::OUT)));
        }
        Ok(())
    }
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    place: usize,
    /// Bytes to be written; the first `written` of them are out.
    out: Vec<u8>,
    written: usize,
    waits: bool,
    /// Bytes of a reply that is not whole yet.
    input: Vec<u8>,
}

impl Conn {
    /// Connects, speaks `greet` while the socket still blocks, and has it watched as `place`.
    /// What `greet` read too much it returns.
    ///
    /// # Errors
    /// When the server takes no connection, or what `greet` met.
    pub fn connect(
        poll: &Poll,
        place: usize,
        address: SocketAddr,
        greet: impl FnOnce(&mut TcpStream) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Conn> {
        let mut stream = TcpStream::connect(address)
            .with_context(|| format!("connection {place} to {address}"))?;
        stream.set_nodelay(true)?;
        let input = greet(&mut stream)?;
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(place as u64);
        epoll::add(&poll.epoll, &stream, data, epoll::EventFlags::IN)?;
        Ok(Conn { stream, place, out: Vec::new(), written: 0, waits: false, input })
    }

    /// Where the next request is put; call [`Conn::write`] behind it.
    pub fn out(&mut self) -> &mut Vec<u8> {
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        &mut self.out
    }

    /// Writes what the kernel takes; the rest follows when the place is ready for it.
    ///
    /// # Errors
    /// A broken connection.
    pub fn write(&mut self, poll: &Poll) -> anyhow::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the server closed connection {}", self.place),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("writing a request"),
            }
        }
        let waits = self.written < self.out.len();
        if waits != self.waits {
            self.waits = waits;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, waits);
            let data = epoll::EventData::new_u64(self.place as u64);
            epoll::modify(&poll.epoll, &self.stream, data, flags)?;
        }
        Ok(())
    }

    /// Reads what is there and hands the bytes so far to `take`, which says how many of them it
    /// has used up; 0 means that what is there is not whole.
    ///
    /// # Errors
    /// A broken connection, or what `take` met.
    pub fn read(
        &mut self,
        buffer: &mut ReadBuffer,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<usize>,
    ) -> anyhow::Result<()> {
        loop {
            let fresh = match self.stream.read(&mut buffer.0) {
                Ok(0) => bail!("the server closed connection {}", self.place),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading a reply"),
            };
            if self.input.is_empty() {
                let used = take_all(&buffer.0[..fresh], &mut take)?;
                self.input.extend_from_slice(&buffer.0[used..fresh]);
            } else {
                self.input.extend_from_slice(&buffer.0[..fresh]);
                let used = take_all(&self.input, &mut take)?;
                self.input.drain(..used);
            }
            if fresh < buffer.0.len() {
                return Ok(());
            }
        }
    }
}

fn take_all(
    bytes: &[u8],
    take: &mut impl FnMut(&[u8]) -> anyhow::Result<usize>,
) -> anyhow::Result<usize> {
    let mut used = 0;
    while used < bytes.len() {
        match take(&bytes[used..])? {
            0 => break,
            whole => used += whole,
        }
    }
    Ok(used)
}

/// Memory that reads of all connections share.
#[derive(Debug)]
pub struct ReadBuffer(Box<[u8]>);

impl Default for ReadBuffer {
    fn default() -> Self {
        ReadBuffer(vec![0; READ_BYTES].into_boxed_slice())
    }
}
