//! Waiting for sockets and for a bell at once.

use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read, write};

/// Sockets that are told of at a time.
const EVENTS_MAX: usize = 512;
/// Names the bell among the sockets.
const BELL: u64 = u64::MAX;

/// Ends a wait from any thread.
#[derive(Debug, Clone)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        // It fails only when it rang 2^64 − 2 times unheard, which wakes just as well.
        let _ = write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// What happened to a socket.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The socket's key.
    pub key: usize,
    /// There is something to read, an end or an error among it.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
}

/// An epoll instance with a bell. Sockets are told of once per change.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    bell: Bell,
}

impl Poll {
    /// Nothing but the bell.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn new() -> std::io::Result<Poll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), flags)?;
        let bell = Bell(Arc::new(bell));
        Ok(Poll { epoll, bell })
    }

    /// What ends a wait.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Tells of this socket from now on; what it holds already counts as a change.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, stream: &TcpStream, key: usize) -> std::io::Result<()> {
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        Ok(epoll::add(&self.epoll, stream, epoll::EventData::new_u64(key as u64), flags)?)
    }

    /// Tells of this socket no more.
    pub fn remove(&self, stream: &TcpStream) {
        // It fails only for a socket that is not here, and then nothing is to be done.
        let _ = epoll::delete(&self.epoll, stream);
    }

    /// Waits at most `patience` for changes and puts them into `into`.
    pub fn wait(&self, patience: Duration, into: &mut Vec<Event>) {
        let timeout = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let mut room = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut room, Some(&timeout)) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return,
            Err(error) => return tracing::error!(%error, "waiting for sockets failed"),
        };
        for event in events {
            if event.data.u64() == BELL {
                let mut count = [0; 8];
                let _ = read(&*self.bell.0, &mut count);
                continue;
            }
            use epoll::EventFlags as Flags;
            let flags = event.flags;
            into.push(Event {
                key: event.data.u64() as usize,
                readable: flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR),
                writable: flags.contains(Flags::OUT),
            });
        }
    }
}
