//! The way out to one peer on one lane: its queue, its state and its counters, behind one small
//! lock that the driver's thread and the connection's task take in turns; and the connection's
//! writing end, behind another one.
//!
//! Usually the task writes, and is woken for it. A thread that is about to wait anyway may write by
//! itself what the socket takes at once ([`Outlet::release`]): one wake less on the way of each
//! frame. Whoever writes goes on where the one before has stopped.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, WriteHalf};
use tokio::sync::Notify;

use super::SendError;
use super::batch::Batch;
use super::codec::FrameKind;
use super::hello::Lane;
use super::queue::{Queue, QueueLimits};
use super::status::{LaneState, SendStatus, Trouble};
use super::wire::Wire;

/// Slices of one write.
const SLICES_MAX: usize = 64;
/// Writes of a thread that does not wait; what is left is the task's.
const WRITES_AT_ONCE: usize = 8;

/// What is to be sent to one peer on one lane.
pub(super) struct Outlet {
    lane: Lane,
    inner: Mutex<Inner>,
    /// The open connection.
    out: Mutex<Option<Out>>,
    /// There is something to send.
    work: Notify,
    /// Something was taken out, or the state has changed.
    room: Notify,
    /// The peer was heard of: it is worth trying at once.
    kick: Notify,
}

/// The writing end of a connection.
struct Out {
    write: WriteHalf<Wire>,
    /// What is being written.
    batch: Batch,
    /// Nothing is kept back that was written.
    is_flushed: bool,
    /// Met by whoever does not end the connection.
    trouble: Option<io::Error>,
    /// Wakes the task, which waits for the socket to take more. A socket knows one waker, the last:
    /// whoever else writes brings this one along.
    waiting: Option<Waker>,
}

impl Out {
    /// Writes some of the batch.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = self.batch.chunks_vectored(&mut slices);
        let write = Pin::new(&mut self.write);
        let count = ready!(write.poll_write_vectored(cx, &slices[..filled]))?;
        if count == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::WriteZero, "nothing taken")));
        }
        self.batch.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Ends the writing when it is dropped.
pub(super) struct Opened<'a>(&'a Outlet);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.out.lock().take();
    }
}

struct Inner {
    queue: Queue,
    state: LaneState,
    connected_since: Option<Instant>,
    connections: u64,
    frames: u64,
    bytes: u64,
    dropped_frames: u64,
    dropped_bytes: u64,
    refused_frames: u64,
    last_trouble: Option<Trouble>,
}

/// What the end of a connection, or of an attempt, leaves behind.
pub(super) struct Remains {
    /// It had been open.
    pub(super) was_connected: bool,
    /// Requests of which no byte was sent.
    pub(super) unsent: Vec<Bytes>,
    /// The trouble is not the one before.
    pub(super) news: bool,
}

impl Inner {
    fn resting(&self, lane: Lane) -> LaneState {
        debug_assert_eq!(self.queue.frames(), 0, "what waits wants a connection");
        match lane {
            Lane::Main => LaneState::Connecting,
            Lane::Bulk => LaneState::Idle,
        }
    }

    fn not_sent(&mut self, kind: FrameKind, payload_bytes: usize) {
        match kind {
            FrameKind::Raft => {
                self.dropped_frames += 1;
                self.dropped_bytes += payload_bytes as u64;
            }
            FrameKind::Request | FrameKind::Reply | FrameKind::Bulk => self.refused_frames += 1,
        }
    }

    /// Empties the queue; gives back the requests.
    fn give_up(&mut self, state: LaneState) -> Vec<Bytes> {
        self.state = state;
        self.connected_since = None;
        let mut unsent = Vec::new();
        for (kind, payload) in self.queue.clear() {
            self.not_sent(kind, payload.len());
            if kind == FrameKind::Request {
                unsent.push(payload);
            }
        }
        unsent
    }
}

impl Outlet {
    pub(super) fn new(lane: Lane, limits: QueueLimits) -> Outlet {
        let mut inner = Inner {
            queue: Queue::new(limits),
            state: LaneState::Closed,
            connected_since: None,
            connections: 0,
            frames: 0,
            bytes: 0,
            dropped_frames: 0,
            dropped_bytes: 0,
            refused_frames: 0,
            last_trouble: None,
        };
        inner.state = inner.resting(lane);
        Outlet {
            lane,
            inner: Mutex::new(inner),
            out: Mutex::new(None),
            work: Notify::new(),
            room: Notify::new(),
            kick: Notify::new(),
        }
    }

    /// Takes a frame and has it sent.
    pub(super) fn push(&self, kind: FrameKind, payload: Bytes) -> Result<(), SendError> {
        self.hold(kind, payload)?;
        self.work.notify_one();
        Ok(())
    }

    /// Takes a frame that may wait until [`Outlet::release`].
    pub(super) fn hold(&self, kind: FrameKind, payload: Bytes) -> Result<(), SendError> {
        let payload_bytes = payload.len();
        let mut inner = self.inner.lock();
        let pushed = match inner.state {
            LaneState::Idle | LaneState::Connecting | LaneState::Connected => {
                inner.queue.push(kind, payload).map_err(|_| SendError::Full)
            }
            LaneState::Waiting => Err(SendError::NotConnected),
            LaneState::Closed => Err(SendError::UnknownPeer),
        };
        if pushed.is_err() {
            inner.not_sent(kind, payload_bytes);
        }
        pushed
    }

    /// Writes what the connection takes at once; the task writes the rest. Does not wait.
    pub(super) fn release(&self) {
        if self.inner.lock().queue.frames() == 0 {
            return;
        }
        let mut out = self.out.try_lock();
        let is_all = match out.as_deref_mut() {
            Some(Some(out)) => self.write_at_once(out),
            // Nobody has it, or it is being written to: the task looks again.
            Some(None) | None => false,
        };
        drop(out);
        if !is_all {
            self.work.notify_one();
        }
    }

    /// Writes what the connection takes at once; says whether that was all.
    fn write_at_once(&self, out: &mut Out) -> bool {
        let waker = out.waiting.clone();
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        let mut is_all = false;
        for done in 0..WRITES_AT_ONCE {
            match self.poll_some(out, &mut cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    is_all = true;
                    break;
                }
                Poll::Ready(Err(trouble)) => {
                    out.trouble = Some(trouble);
                    break;
                }
                // The socket wakes the task, as it would have without this.
                Poll::Pending if done == 0 => return false,
                Poll::Pending => break,
            }
        }
        // What the task waits for has come, and may not come again.
        if let Some(waker) = out.waiting.take() {
            waker.wake();
        }
        is_all
    }

    /// The connection is open, until what comes back is dropped.
    pub(super) fn open(&self, write: WriteHalf<Wire>) -> Opened<'_> {
        let batch = Batch::default();
        let out = Out { write, batch, is_flushed: true, trouble: None, waiting: None };
        *self.out.lock() = Some(out);
        Opened(self)
    }

    /// Writes some of what waits; false when nothing is left. For the connection's task.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut out = self.out.lock();
        let Some(out) = &mut *out else { return Poll::Ready(Ok(false)) };
        let sent = self.poll_some(out, cx);
        out.waiting = sent.is_pending().then(|| cx.waker().clone());
        sent
    }

    fn poll_some(&self, out: &mut Out, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(trouble) = out.trouble.take() {
            return Poll::Ready(Err(trouble));
        }
        if !out.batch.has_remaining() {
            out.batch = self.take_batch();
            if out.batch.has_remaining() {
                self.room.notify_waiters();
                out.is_flushed = false;
            } else if out.is_flushed {
                return Poll::Ready(Ok(false));
            } else {
                // TLS keeps what it has sealed until it is told to.
                ready!(Pin::new(&mut out.write).poll_flush(cx))?;
                out.is_flushed = true;
                return Poll::Ready(Ok(true));
            }
        }
        out.poll_write(cx).map_ok(|()| true)
    }

    /// Waits until a frame of this kind and size would be taken.
    pub(super) async fn wait_for_room(&self, payload_bytes: usize) -> Result<(), SendError> {
        loop {
            let changed = self.room.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let inner = self.inner.lock();
                match inner.state {
                    LaneState::Waiting => return Err(SendError::NotConnected),
                    LaneState::Closed => return Err(SendError::UnknownPeer),
                    LaneState::Idle | LaneState::Connecting | LaneState::Connected => {}
                }
                if inner.queue.has_room(payload_bytes) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Waits until the task is asked to send.
    pub(super) async fn asked(&self) {
        self.work.notified().await;
    }

    fn take_batch(&self) -> Batch {
        let mut inner = self.inner.lock();
        let batch = inner.queue.next_batch();
        inner.frames += batch.frames() as u64;
        inner.bytes += batch.payload_bytes() as u64;
        batch
    }

    /// Waits until there is something to send.
    pub(super) async fn work(&self) {
        while self.inner.lock().queue.frames() == 0 {
            self.work.notified().await;
        }
    }

    /// Waits for a sign of life of the peer.
    pub(super) async fn kicked(&self) {
        self.kick.notified().await;
    }

    /// The peer was heard of; a wait that is under way ends.
    pub(super) fn kick(&self) {
        self.kick.notify_waiters();
    }

    /// A wait is over: what is sent from now on waits for the next attempt.
    pub(super) fn ready(&self) {
        let mut inner = self.inner.lock();
        if inner.state == LaneState::Waiting {
            inner.state = inner.resting(self.lane);
        }
    }

    pub(super) fn connecting(&self) {
        self.inner.lock().state = LaneState::Connecting;
    }

    pub(super) fn connected(&self) {
        let mut inner = self.inner.lock();
        inner.state = LaneState::Connected;
        inner.connected_since = Some(Instant::now());
        inner.connections += 1;
    }

    /// Lets an open connection go that nobody needs; false if there is something to send after
    /// all.
    pub(super) fn rest(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.queue.frames() > 0 {
            return false;
        }
        inner.state = inner.resting(self.lane);
        inner.connected_since = None;
        true
    }

    /// The connection, or the attempt, is over. What waits is stale by the time of the next.
    pub(super) fn ended(&self, trouble: Option<Trouble>) -> Remains {
        let mut inner = self.inner.lock();
        let was_connected = inner.state == LaneState::Connected;
        let unsent = inner.give_up(LaneState::Waiting);
        let news = trouble.is_some() && (was_connected || trouble != inner.last_trouble);
        if trouble.is_some() {
            inner.last_trouble = trouble;
        }
        drop(inner);
        self.room.notify_waiters();
        Remains { was_connected, unsent, news }
    }

    /// The peer is no longer spoken to.
    pub(super) fn close(&self) -> Vec<Bytes> {
        let unsent = self.inner.lock().give_up(LaneState::Closed);
        self.room.notify_waiters();
        unsent
    }

    pub(super) fn status(&self) -> SendStatus {
        let inner = self.inner.lock();
        SendStatus {
            state: inner.state,
            connected_since: inner.connected_since,
            connections: inner.connections,
            frames: inner.frames,
            bytes: inner.bytes,
            dropped_frames: inner.dropped_frames,
            dropped_bytes: inner.dropped_bytes,
            refused_frames: inner.refused_frames,
            queued_frames: inner.queue.frames(),
            queued_bytes: inner.queue.bytes(),
            last_trouble: inner.last_trouble.clone(),
        }
    }
}
