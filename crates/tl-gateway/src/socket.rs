//! A connection's bytes: the TCP stream with a limit on how long a reader may take nothing, and
//! the place where held replies are let go (see `held`). A connection that ends while its client
//! still sends drops what comes for a moment, so that the client can read its answer.
//!
//! Limits of time exist only while something waits, so a connection that flows costs no timer.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::held::Held;
use crate::settings::{LINGER_BYTES_MAX, LINGER_MS, REPLY_HOLD_MS};

/// Bytes dropped at a time.
const DROPPED_BYTES: usize = 16 * 1024;

/// One accepted connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Read before, and to be given out first.
    begun: Bytes,
    held: Arc<Held>,
    unread: Arc<Unread>,
    stall: Duration,
    waiting: Option<Waiting>,
    lingering: Option<Lingering>,
}

/// Whether a body was left unread: its client may be sending still.
#[derive(Debug, Default)]
pub struct Unread(AtomicBool);

impl Unread {
    /// A body is left.
    pub fn leave(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A closed connection whose client still sends.
#[derive(Debug)]
struct Lingering {
    until: Pin<Box<Sleep>>,
    left_bytes: usize,
}

/// What runs out while a write waits.
#[derive(Debug)]
struct Waiting {
    stall: Pin<Box<Sleep>>,
    hold: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Wraps `stream`, of which `begun` was read already; a write that makes no progress for
    /// `stall` fails as timed out.
    pub fn new(
        stream: TcpStream,
        begun: Bytes,
        held: Arc<Held>,
        unread: Arc<Unread>,
        stall: Duration,
    ) -> Socket {
        Socket { stream, begun, held, unread, stall, waiting: None, lingering: None }
    }

    /// Drops what still comes, until the client closes or a limit is reached.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            until: Box::pin(sleep(Duration::from_millis(LINGER_MS))),
            left_bytes: LINGER_BYTES_MAX,
        });
        let mut scratch = [MaybeUninit::uninit(); DROPPED_BYTES];
        loop {
            let mut dropped = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut dropped) {
                Poll::Ready(Ok(())) if dropped.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    let bytes = dropped.filled().len();
                    lingering.left_bytes = lingering.left_bytes.saturating_sub(bytes);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Pending => return lingering.until.as_mut().poll(cx).map(Ok),
            }
            if lingering.left_bytes == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// A write could not go on: starts or checks the limits.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stall = self.stall;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Waiting { stall: Box::pin(sleep(stall)), hold: None });
        if !self.held.is_empty() {
            let hold = waiting
                .hold
                .get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(REPLY_HOLD_MS))));
            if hold.as_mut().poll(cx).is_ready() {
                self.held.let_go();
                waiting.hold = None;
            }
        }
        if waiting.stall.as_mut().poll(cx).is_ready() {
            // Whoever writes on, to say goodbye, gets a limit of its own.
            self.waiting = None;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(result) => {
                self.waiting = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(cx),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.held.let_go();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let bytes = self.begun.len().min(buf.remaining());
            buf.put_slice(&self.begun.split_to(bytes));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.held.let_go();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.unread.0.load(Ordering::Acquire) { self.linger(cx) } else { Poll::Ready(Ok(())) }
    }
}

#[cfg(test)]
mod tests;
