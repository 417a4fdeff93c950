//! Reply before push: an append's events stay hidden from the tails of this node until the
//! reply's bytes were given to the socket.
//!
//! ```text
//!  Appended.reply_written ─► HeldBody ──(hyper takes the bytes)──► Held ──(socket flushed)──► drop
//! ```
//!
//! hyper takes a body's bytes and writes them in the same task, and flushes the socket only
//! when its own buffer is empty. So a guard that arrives in [`Held`] with its bytes is let go by
//! the next finished flush, after `write(2)` returned. A connection that ends, or a client that
//! does not read, lets go as well: holding back is a courtesy of order, never a condition.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tl_engine::api::ReplyGuard;

use crate::settings::REPLIES_HELD_MAX;

/// Guards whose replies are in the connection's write buffer.
#[derive(Debug, Default)]
pub struct Held(Mutex<VecDeque<ReplyGuard>>);

impl Held {
    /// Takes a guard whose reply's bytes go to the write buffer now.
    pub fn hold(&self, guard: ReplyGuard) {
        let oldest = {
            let mut held = self.0.lock();
            held.push_back(guard);
            if held.len() > REPLIES_HELD_MAX { held.pop_front() } else { None }
        };
        // Dropped outside the lock: letting go wakes tails.
        drop(oldest);
    }

    /// Whether any reply waits for its bytes to be written.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Lets all events behind held replies be seen.
    pub fn let_go(&self) {
        let held = std::mem::take(&mut *self.0.lock());
        for guard in held {
            guard.written();
        }
    }
}

/// A reply's body that hands its guard over together with its bytes.
#[derive(Debug)]
pub struct HeldBody {
    bytes: Option<Bytes>,
    guard: Option<ReplyGuard>,
    held: Arc<Held>,
}

impl HeldBody {
    /// A body of `bytes`; `guard` goes to the connection when the bytes do.
    pub fn new(bytes: Bytes, guard: ReplyGuard, held: Arc<Held>) -> HeldBody {
        HeldBody { bytes: Some(bytes), guard: Some(guard), held }
    }
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(guard) = self.guard.take() {
            self.held.hold(guard);
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
