//! What the front knows of one connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use tl_engine::front::Ticket;
use tl_types::GroupId;

use crate::append::Form;
use crate::metrics::Open;
use crate::shared::{Place, Turn};

/// One connection.
pub struct Connection {
    stream: TcpStream,
    pub place: Place,
    /// Bytes of a request that is not whole, or that waits behind the one under way.
    pub input: Vec<u8>,
    /// The input has not been looked at since it grew.
    pub fresh: bool,
    /// The socket may hold more.
    pub readable: bool,
    /// It stands in the list of those to be looked at.
    pub queued: bool,
    /// The request under way.
    pub under_way: Option<UnderWay>,
    /// Written, and not yet taken by the socket.
    output: Vec<u8>,
    /// It ends with the reply to the request under way.
    pub closing: bool,
    /// When anything last came or went.
    pub since: Instant,
}

/// A request that was read and is not answered.
pub struct UnderWay {
    /// Its name towards the driver.
    pub ticket: Ticket,
    pub group: GroupId,
    pub form: Form,
    pub started: Instant,
    /// When its client stops waiting.
    pub deadline: Instant,
    /// Its place among the requests that are worked on.
    pub _turn: Turn,
    /// Counts it in the metrics.
    pub _open: Open,
}

/// What a read gave.
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end.
    End,
}

impl Connection {
    pub fn new(stream: TcpStream, place: Place, now: Instant) -> Connection {
        Connection {
            stream,
            place,
            input: Vec::new(),
            fresh: false,
            readable: true,
            queued: false,
            under_way: None,
            output: Vec::new(),
            closing: false,
            since: now,
        }
    }

    /// Whether the next request may be looked at.
    pub fn is_free(&self) -> bool {
        self.under_way.is_none() && self.output.is_empty()
    }

    /// Whether there may be something to look at.
    pub fn has_more(&self) -> bool {
        self.fresh || self.readable
    }

    /// Whether a reply waits for the socket.
    pub fn is_writing(&self) -> bool {
        !self.output.is_empty()
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes it apart to be served elsewhere.
    pub fn into_parts(self) -> (TcpStream, Place, Vec<u8>) {
        (self.stream, self.place, self.input)
    }

    /// Reads what is there into `into`.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Got> {
        match self.stream.read(into) {
            Ok(0) => Ok(Got::End),
            Ok(bytes) => {
                // Less than was asked for means that the socket is empty; the next byte is told.
                self.readable = bytes == into.len();
                Ok(Got::Bytes(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(Got::Nothing)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Got::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Writes `bytes`, or as much as the socket takes; the rest is kept.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.output.is_empty() {
            self.output.extend_from_slice(bytes);
            return Ok(());
        }
        let written = write_some(&mut self.stream, bytes)?;
        self.output.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes on.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = write_some(&mut self.stream, &self.output)?;
        self.output.drain(..written);
        if self.output.is_empty() {
            // A reply that had to wait is rare; its memory is not kept.
            self.output = Vec::new();
        }
        Ok(())
    }
}

/// Writes until the socket is full; how far that went.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
