//! Raw fan-out: group commit of what one writer sends, then the same bytes to every reader.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::commit::Ring;
use crate::bench::fan::{READER, WRITER};
use crate::bench::protocol::raw::REPLY_BYTES;

/// What is served.
#[derive(Debug, Clone, Copy)]
pub struct Fanout {
    /// Bytes of one write.
    pub size: usize,
    /// Bytes of one delivery.
    pub deliver: usize,
    /// Readers that come before the writer is heard.
    pub readers: usize,
}

/// Serves one writer until it is gone. Every connection says first which side it is.
///
/// # Errors
/// What the disk or the network refused.
pub fn serve(dir: &Path, fanout: Fanout) -> io::Result<()> {
    let mut ring = Ring::create(dir)?;
    let listener = super::listen()?;
    let mut readers: Vec<TcpStream> = Vec::with_capacity(fanout.readers);
    let mut writer = None;
    while writer.is_none() || readers.len() < fanout.readers {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        match kind {
            [WRITER] => writer = Some(stream),
            [READER] => {
                stream.write_all(&kind)?;
                readers.push(stream);
            }
            [_] => return Err(io::Error::other("a connection that is neither side")),
        }
    }
    let Some(mut writer) = writer else { return Ok(()) };
    let (mut write, delivery) = (vec![0; fanout.size], vec![b'x'; fanout.deliver]);
    loop {
        match writer.read_exact(&mut write) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        ring.commit(&write)?;
        writer.write_all(&[1; REPLY_BYTES])?;
        for reader in &mut readers {
            reader.write_all(&delivery)?;
        }
    }
}
