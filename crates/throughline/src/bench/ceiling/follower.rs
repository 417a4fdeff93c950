//! What a cluster's log is held against: each batch goes to followers, is synced here, and counts
//! as committed once one follower has synced it as well.
//!
//! A batch on the wire is its length (`u32`, big endian) and its bytes; a follower answers each
//! with one byte. No terms, no checks, no groups.

use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};

use super::commit::Ring;

/// Most bytes of one batch that a follower takes.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Takes the batches of one leader until it goes away; prints the address first.
///
/// # Errors
/// What the disk or the network refused.
pub fn serve(dir: &Path) -> io::Result<()> {
    let mut ring = Ring::create(dir)?;
    let listener = super::listen()?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut batch = Vec::new();
    loop {
        let mut length = [0; 4];
        match stream.read_exact(&mut length) {
            Ok(()) => {}
            // The leader has ended.
            Err(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset) => return Ok(()),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > BATCH_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        batch.resize(length, 0);
        stream.read_exact(&mut batch)?;
        ring.commit(&batch)?;
        stream.write_all(&[1])?;
    }
}

/// The leader's connections.
#[derive(Debug)]
pub struct Followers {
    all: Vec<Follower>,
    /// Batches sent to each.
    sent: u64,
}

#[derive(Debug)]
struct Follower {
    stream: TcpStream,
    /// Batches that it has answered.
    synced: u64,
}

impl Followers {
    /// Connects to each.
    ///
    /// # Errors
    /// When one takes no connection.
    pub fn connect(addresses: &[SocketAddr]) -> io::Result<Followers> {
        let mut all = Vec::with_capacity(addresses.len());
        for address in addresses {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            all.push(Follower { stream, synced: 0 });
        }
        Ok(Followers { all, sent: 0 })
    }

    /// Sends a batch to each.
    ///
    /// # Errors
    /// When one went away.
    pub fn send(&mut self, batch: &[u8]) -> io::Result<()> {
        if batch.len() > BATCH_BYTES_MAX || self.all.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut frame = Vec::with_capacity(4 + batch.len());
        frame.extend_from_slice(&(batch.len() as u32).to_be_bytes());
        frame.extend_from_slice(batch);
        for follower in &mut self.all {
            follower.stream.write_all(&frame)?;
        }
        self.sent += 1;
        Ok(())
    }

    /// Waits until one of them has synced everything that was sent.
    ///
    /// # Errors
    /// When one went away.
    pub fn one_has_all(&mut self) -> io::Result<()> {
        while self.all.iter().all(|follower| follower.synced < self.sent) {
            let mut waits: Vec<_> =
                self.all.iter().map(|each| PollFd::new(&each.stream, PollFlags::IN)).collect();
            match poll(&mut waits, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = waits.iter().map(|wait| !wait.revents().is_empty()).collect();
            for (follower, _) in self.all.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                let mut answers = [0; 256];
                match follower.stream.read(&mut answers)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => follower.synced += count as u64,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_batch_counts_once_one_follower_has_answered_it() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let addresses = listeners.each_ref().map(|each| each.local_addr().expect("bound"));
        let mut followers = Followers::connect(&addresses).expect("they listen");
        let [_silent, mut answers] = listeners.map(|each| each.accept().expect("a leader").0);
        for length in [3_u32, 70_000] {
            let batch = vec![7; length as usize];
            followers.send(&batch).expect("both are there");
            let mut received = vec![0; 4 + batch.len()];
            answers.read_exact(&mut received).expect("the batch");
            assert_eq!((&received[..4], &received[4..]), (&length.to_be_bytes()[..], &batch[..]));
            answers.write_all(&[1]).expect("the leader is there");
            followers.one_has_all().expect("an answer");
        }
        followers.send(b"x").expect("both are there");
        drop(answers);
        assert!(followers.one_has_all().is_err(), "a lost follower is no acknowledgement");
    }
}
