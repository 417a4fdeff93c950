//! Group commit: append and fdatasync behind a bare TCP socket, one thread.
//!
//! Each round: read what every ready connection has sent, write all whole requests behind one
//! another into a zero-filled ring of segments, sync once, answer each. The files are of the
//! same kind as the node's log. With followers, a round's requests are sent to them before they
//! are written here, and answered once one follower has them too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::event::epoll;

use super::follower::Followers;
use crate::bench::protocol::raw::REPLY_BYTES;

/// Size of a segment file.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// Segments in the ring; all zero-filled before the first request.
const SEGMENTS: usize = 4;
/// The listener's place among the connections' numbers.
const LISTENER: u64 = u64::MAX;

/// Zero-filled files, written one behind the other and then again.
#[derive(Debug)]
pub struct Ring {
    segments: Vec<File>,
    current: usize,
    offset: u64,
}

impl Ring {
    /// Creates and fills the files.
    ///
    /// # Errors
    /// What the disk refused.
    pub fn create(dir: &Path) -> io::Result<Ring> {
        let zeros = vec![0; 1024 * 1024];
        let mut segments = Vec::with_capacity(SEGMENTS);
        for number in 0..SEGMENTS {
            let path = dir.join(format!("ceiling-{number}"));
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
            for offset in (0..SEGMENT_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, offset)?;
            }
            file.sync_all()?;
            segments.push(file);
        }
        File::open(dir)?.sync_all()?;
        Ok(Ring { segments, current: 0, offset: 0 })
    }

    /// Appends and syncs.
    ///
    /// # Errors
    /// What the disk refused.
    pub fn commit(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.offset + batch.len() as u64 > SEGMENT_BYTES {
            self.current = (self.current + 1) % SEGMENTS;
            self.offset = 0;
        }
        let file = &self.segments[self.current];
        file.write_all_at(batch, self.offset)?;
        self.offset += batch.len() as u64;
        file.sync_data()
    }
}

/// Serves until the process is killed; prints the address first.
///
/// # Errors
/// What the disk or the network refused.
pub fn serve(dir: &Path, size: usize, followers: &[SocketAddr]) -> io::Result<()> {
    let mut ring = Ring::create(dir)?;
    let mut followers = match followers {
        [] => None,
        addresses => Some(Followers::connect(addresses)?),
    };
    let listener = super::listen()?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut conns: Vec<Option<(TcpStream, Vec<u8>)>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let (mut batch, mut answer, mut replies) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let place = event.data.u64();
            if place == LISTENER {
                accept(&listener, &epoll, &mut conns)?;
                continue;
            }
            let place = place as usize;
            match read(&mut conns[place], size, &mut batch) {
                Ok(0) => {}
                Ok(requests) => answer.push((place, requests)),
                Err(_) => conns[place] = None,
            }
        }
        if !batch.is_empty() {
            if let Some(followers) = &mut followers {
                followers.send(&batch)?;
            }
            ring.commit(&batch)?;
            if let Some(followers) = &mut followers {
                followers.one_has_all()?;
            }
            batch.clear();
        }
        for (place, requests) in answer.drain(..) {
            replies.resize(requests * REPLY_BYTES, 1);
            let done = match &mut conns[place] {
                Some((stream, _)) => stream.write_all(&replies),
                None => continue,
            };
            if done.is_err() {
                conns[place] = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    epoll: &rustix::fd::OwnedFd,
    conns: &mut Vec<Option<(TcpStream, Vec<u8>)>>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(conns.len() as u64);
        epoll::add(epoll, &stream, data, epoll::EventFlags::IN)?;
        conns.push(Some((stream, Vec::new())));
    }
}

/// Reads what is there and puts whole requests into the batch; how many there were.
fn read(
    conn: &mut Option<(TcpStream, Vec<u8>)>,
    size: usize,
    batch: &mut Vec<u8>,
) -> io::Result<usize> {
    let Some((stream, input)) = conn else { return Ok(0) };
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                input.extend_from_slice(&buffer[..bytes]);
                if bytes < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    let requests = input.len() / size;
    batch.extend_from_slice(&input[..requests * size]);
    input.drain(..requests * size);
    Ok(requests)
}
