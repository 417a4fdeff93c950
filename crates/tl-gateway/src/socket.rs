//! A connection's bytes: the TCP stream with a limit on how long a reader may take nothing, and
//! the place where held replies are let go (see `held`).
//!
//! Both limits exist only while a write waits, so a connection that flows costs no timer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::held::Held;
use crate::settings::REPLY_HOLD_MS;

/// One accepted connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Read before, and to be given out first.
    begun: Bytes,
    held: Arc<Held>,
    stall: Duration,
    waiting: Option<Waiting>,
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
    pub fn new(stream: TcpStream, begun: Bytes, held: Arc<Held>, stall: Duration) -> Socket {
        Socket { stream, begun, held, stall, waiting: None }
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
