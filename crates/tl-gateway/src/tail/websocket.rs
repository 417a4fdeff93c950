//! The raw WebSocket tail: text frames with events, nothing else.
//!
//! One task owns the socket and the tail and waits for whichever moves first. Events are taken
//! from the tail only when the socket has taken the last ones, so a slow reader costs one take
//! of memory; a reader that takes no byte for the stall limit is closed with 1013 and resumes
//! from its cursor. There is no gap frame: when events after the cursor are gone, the socket
//! closes with the code of `event_gap_detected` rather than go on behind a hole. A cursor ahead
//! of the session's end is silent until the session gets there.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tl_engine::api::{EventLine, TailEnd, TailItem};
use tl_engine::service::Tail;
use tl_types::ErrorCode;
use tl_types::limits::TAIL_BUFFER_BYTES_MAX;
use tl_wire::query::TailQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::frames::{self, Asked, Incoming, Violation};
use super::handshake;
use crate::call::Call;
use crate::metrics::Front;
use crate::problem::Problem;
use crate::settings::{CLOSE_LINGER_MS, GOODBYE_MS, TAIL_TAKE_MAX};
use crate::shared::{Phase, Shared};
use crate::socket::Socket;

const CLOSE_SHUTDOWN: u16 = 1001;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_BIG: u16 = 1009;
const CLOSE_DRAIN: u16 = 1012;
const CLOSE_SLOW_READER: u16 = 1013;
const CLOSE_ENDED: u16 = 4410;

/// Most pieces given to one vectored write.
const PIECES_PER_WRITE: usize = 64;
/// Room for a client's frames; they are answered or skipped as they come.
const INPUT_BYTES: usize = 512;

/// Opens the tail and answers the handshake; frames flow once the reply is written.
pub async fn open(call: &mut Call) -> Result<Response<Body>, Problem> {
    if !call.shared.origins.admits(&call.parts.headers) {
        return Err(Problem::of(ErrorCode::ForbiddenOrigin));
    }
    let accept = handshake::accept_key(&call.parts.headers)?;
    let query = TailQuery::parse(call.query())?;
    let batch = query.batch_size;
    let id = call.session_id()?;
    let upgrade = call
        .parts
        .extensions
        .remove::<OnUpgrade>()
        .ok_or_else(|| Problem::of(ErrorCode::InvalidWebsocketUpgrade))?;
    let caller = call.caller()?;
    let place = call.shared.tail(Front::WebSocket)?;
    let service = &call.shared.service;
    let tail = service.open_tail(&caller, &id, query.start, query.freshness).await?;
    let (shared, link) = (Arc::clone(&call.shared), call.link.clone());
    tokio::spawn(async move {
        let mut phase = shared.phase.subscribe();
        tokio::select! {
            () = serve(upgrade, tail, batch, &shared) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
        }
        // The tail and its connection count as open until here.
        drop((place, link));
    });
    Ok(handshake::switching(accept))
}

async fn serve(upgrade: OnUpgrade, tail: Tail, batch: usize, shared: &Shared) {
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<Socket>>() else {
        tracing::error!("an upgraded connection is not one of ours");
        return;
    };
    let mut wire = Wire {
        socket: parts.io.into_inner(),
        input: BytesMut::from(&parts.read_buf[..]),
        incoming: Incoming::default(),
        unsent: VecDeque::new(),
    };
    let goodbye = match follow(&mut wire, tail, batch, shared).await {
        End::Gone => return,
        End::Client(code) => echo(code),
        End::Close(code, reason) => frames::close(code, &reason),
    };
    wire.part(goodbye).await;
}

/// How a tail's socket ends.
enum End {
    /// The peer left without a word, or the connection broke.
    Gone,
    /// The client closed.
    Client(Option<u16>),
    /// We close, with code and reason.
    Close(u16, Cow<'static, str>),
}

impl From<Violation> for End {
    fn from(violation: Violation) -> End {
        match violation {
            Violation::Flood => End::Close(CLOSE_POLICY, "too_many_frames".into()),
            Violation::TooBig => {
                End::Close(CLOSE_TOO_BIG, ErrorCode::PayloadTooLarge.word().into())
            }
            Violation::Protocol(why) => End::Close(CLOSE_PROTOCOL, why.into()),
        }
    }
}

async fn follow(wire: &mut Wire, mut tail: Tail, batch: usize, shared: &Shared) -> End {
    let mut phase = shared.phase.subscribe();
    let wait = Duration::from_millis(shared.settings.ping_ms);
    let mut ping = interval_at(Instant::now() + wait, wait);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let take = if batch == 1 { TAIL_TAKE_MAX } else { batch };
    loop {
        if *phase.borrow_and_update() >= Phase::Draining {
            return End::Close(CLOSE_SHUTDOWN, "shutdown".into());
        }
        let sent = tokio::select! {
            _ = phase.changed() => continue,
            asked = wire.read() => match asked {
                Ok(Some(Asked::Pong(payload))) => wire.send(frames::pong(&payload)).await,
                Ok(Some(Asked::Close(code))) => return End::Client(code),
                Ok(None) => return End::Gone,
                Err(violation) => return violation.into(),
            },
            item = tail.next(take) => match item {
                Ok(TailItem::Events(lines)) => wire.send_events(&lines, batch).await,
                Ok(TailItem::Gap(gap)) => {
                    let code = ErrorCode::EventGapDetected;
                    let first = gap.earliest_available_cursor;
                    let reason = format!("{}: first readable cursor {first}", code.word());
                    return End::Close(code.close_code(), reason.into());
                }
                Ok(TailItem::End(end)) => return ended(end, *phase.borrow()),
                Err(error) => return End::Close(error.code.close_code(), error.code.word().into()),
            },
            _ = ping.tick() => {
                wire.incoming.pause_over();
                wire.send(Bytes::from_static(frames::PING_FRAME)).await
            }
        };
        if let Err(error) = sent {
            if error.kind() != io::ErrorKind::TimedOut {
                return End::Gone;
            }
            shared.metrics.slow_reader();
            return End::Close(CLOSE_SLOW_READER, "slow_reader".into());
        }
    }
}

fn ended(end: TailEnd, phase: Phase) -> End {
    match end {
        TailEnd::Closed => End::Close(CLOSE_ENDED, ErrorCode::SessionClosed.word().into()),
        TailEnd::Tombstoned => End::Close(CLOSE_ENDED, ErrorCode::SessionTombstoned.word().into()),
        TailEnd::Shutdown if phase == Phase::Running => End::Close(CLOSE_DRAIN, "drain".into()),
        TailEnd::Shutdown => End::Close(CLOSE_SHUTDOWN, "shutdown".into()),
    }
}

/// The client's own close comes back to it, unless its code may not stand on the wire.
fn echo(code: Option<u16>) -> Bytes {
    match code {
        None => Bytes::from_static(frames::CLOSE_FRAME),
        Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)) => frames::close(code, ""),
        Some(_) => frames::close(CLOSE_PROTOCOL, "bad close code"),
    }
}

/// The socket of one tail.
struct Wire {
    socket: Socket,
    input: BytesMut,
    incoming: Incoming,
    /// What the socket has not taken yet. After a failed write: the exact rest.
    unsent: VecDeque<Bytes>,
}

impl Wire {
    /// Waits for a client's frame that asks for something; `None` when the peer has left. May be
    /// dropped while waiting without losing a byte.
    async fn read(&mut self) -> Result<Option<Asked>, Violation> {
        loop {
            if let Some(asked) = self.incoming.next(&mut self.input)? {
                return Ok(Some(asked));
            }
            self.input.reserve(INPUT_BYTES);
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    async fn send(&mut self, frame: Bytes) -> io::Result<()> {
        self.unsent.push_back(frame);
        self.flush().await
    }

    /// Sends events as frames, never more than the tail buffer at a time.
    async fn send_events(&mut self, lines: &[EventLine], batch: usize) -> io::Result<()> {
        for part in parts(lines, batch) {
            if batch == 1 {
                frames::singles(&mut self.unsent, part);
            } else {
                frames::array(&mut self.unsent, part);
            }
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.unsent) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let mut written = self.socket.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(piece) = self.unsent.front_mut() {
                if written < piece.len() {
                    piece.advance(written);
                    break;
                }
                written -= piece.len();
                self.unsent.pop_front();
            }
        }
        Ok(())
    }

    /// Sends the last frame behind what is still unsent, then waits briefly for the peer to
    /// close its side, so that unread bytes of the peer do not reset the connection before it
    /// has read the last frame.
    async fn part(mut self, goodbye: Bytes) {
        self.unsent.push_back(goodbye);
        let sent = timeout(Duration::from_millis(GOODBYE_MS), self.flush()).await;
        if !matches!(sent, Ok(Ok(()))) || self.socket.shutdown().await.is_err() {
            return;
        }
        let linger = Duration::from_millis(CLOSE_LINGER_MS);
        let _left = timeout(linger, async {
            let mut sink = [0; INPUT_BYTES];
            while self.socket.read(&mut sink).await.is_ok_and(|bytes| bytes > 0) {}
        })
        .await;
    }
}

/// Cuts events into parts of at most `batch` events (any number when single frames are sent)
/// and at most the tail buffer's bytes, at least one event each.
fn parts(lines: &[EventLine], batch: usize) -> impl Iterator<Item = &[EventLine]> {
    let events_max = if batch == 1 { TAIL_TAKE_MAX } else { batch };
    let mut rest = lines;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |line: &&EventLine| {
            bytes += line.json.len() + frames::HEADER_BYTES_MAX;
            bytes <= TAIL_BUFFER_BYTES_MAX
        };
        let count = rest.iter().take(events_max).take_while(fits).count();
        let (part, behind) = rest.split_at(count.max(1).min(rest.len()));
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tl_types::Seq;

    fn line(seq: u64, bytes: usize) -> EventLine {
        EventLine { seq: Seq(seq), json: Bytes::from(vec![b' '; bytes]) }
    }

    #[test]
    fn parts_keep_order_and_both_limits() {
        let lines: Vec<_> = (1..=5).map(|seq| line(seq, 10)).collect();
        let cut = |batch| parts(&lines, batch).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(cut(1), [5]);
        assert_eq!(cut(2), [2, 2, 1]);
        let large: Vec<_> = (1..=3).map(|seq| line(seq, TAIL_BUFFER_BYTES_MAX)).collect();
        assert_eq!(parts(&large, 1_000).map(|part| part[0].seq.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(parts(&[], 7).count(), 0);
    }

    #[test]
    fn a_close_comes_back_unless_its_code_is_reserved() {
        assert_eq!(echo(None)[..], [0x88, 0]);
        assert_eq!(echo(Some(1000))[2..], [0x03, 0xe8]);
        assert_eq!(echo(Some(4000))[2..], [0x0f, 0xa0]);
        assert_eq!(echo(Some(1005))[2..4], [0x03, 0xea]);
    }
}
