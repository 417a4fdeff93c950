//! The front itself: connections, and what is done with each.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use slab::Slab;
use tl_engine::api::{Appended, Caller, Indexed, ServiceError};
use tl_engine::front::{Front, Later, Offer, Prepared, Ticket, Told, Waker};
use tl_types::limits::REQUEST_MS_DEFAULT;
use tl_types::{ErrorCode, GroupId, Namespace, Principal};
use tokio::runtime::Handle;

use super::connection::{Connection, Got, UnderWay};
use super::head::{self, AppendHead, Head};
use super::inbox::{Inbox, Mail};
use super::poll::{Event, Poll};
use super::reply::Writer;
use crate::append::{self, REPLY_BYTES};
use crate::connection;
use crate::cors::Origins;
use crate::settings::{
    HOT_CROWDED_READ_BYTES, HOT_HANDOVER_MS, HOT_INPUT_BYTES_MAX, HOT_READ_BYTES_MAX,
    HOT_REQUEST_BYTES_MAX,
};
use crate::shared::{Phase, Place, Shared};

/// Bytes read from a socket at a time; a plain request fits.
const READ_BYTES: usize = HOT_REQUEST_BYTES_MAX;
/// How often connections are looked at for time-outs.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Appends whose rows one thread loads, one after another.
const LOADS_PER_THREAD: usize = 4;
/// Bits of a ticket that name the connection; the rest count requests.
const KEY_BITS: u32 = 24;
/// The route as metrics name it.
const ROUTE: &str = "/v1/sessions/{id}/append";

/// Serves plain appends on the driver's thread.
pub struct HotFront {
    shared: Arc<Shared>,
    router: Router,
    runtime: Handle,
    inbox: Arc<Inbox>,
    poll: Poll,
    connections: Slab<Connection>,
    /// Connections to be looked at.
    queue: VecDeque<usize>,
    /// Appends whose rows are to be loaded.
    cold: Vec<(Ticket, Box<Later>)>,
    /// Bytes of requests that are not whole, over all connections.
    input_bytes: usize,
    requests: u64,
    now: Instant,
    swept: Instant,
    phase: Phase,
    principal: Principal,
    namespace: Namespace,
    writer: Writer,
    events: Vec<Event>,
    scratch: Vec<u8>,
    reply: Vec<u8>,
}

/// What becomes of a connection's bytes.
enum Step {
    /// So many were a request, which is under way or answered.
    Taken(usize),
    /// They are the beginning of a request.
    Partial,
    /// They are for the general way.
    Elsewhere,
}

impl HotFront {
    /// A front over a gateway. What is not for it goes to `router` on the current runtime.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn new(shared: Arc<Shared>, router: Router) -> io::Result<HotFront> {
        let poll = Poll::new()?;
        let now = Instant::now();
        Ok(HotFront {
            writer: Writer::new(matches!(shared.origins, Origins::Only(_)), now),
            shared,
            router,
            runtime: Handle::current(),
            inbox: Arc::new(Inbox::new(poll.bell())),
            poll,
            connections: Slab::new(),
            queue: VecDeque::new(),
            cold: Vec::new(),
            input_bytes: 0,
            requests: 0,
            now,
            swept: now,
            phase: Phase::Running,
            principal: Principal::open_access(),
            namespace: Namespace::default_namespace(),
            events: Vec::new(),
            scratch: vec![0; READ_BYTES],
            reply: Vec::with_capacity(4 * REPLY_BYTES),
        })
    }

    /// Where its mail goes.
    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    fn take_mail(&mut self, offers: &mut Vec<Offer>) {
        for mail in self.inbox.take() {
            match mail {
                Mail::Open(stream, place) => self.open(stream, place),
                Mail::Rows(loaded) => {
                    for (ticket, loaded) in loaded {
                        let service = &self.shared.service;
                        let again = || loaded.and_then(|later| service.prepare_again(later));
                        let prepared = unpanicked(again);
                        self.go_on(ticket, prepared, offers);
                    }
                }
                Mail::Done(ticket, said) => self.conclude(ticket, |_, _| said),
                Mail::Phase(phase) => self.enter(phase),
            }
        }
    }

    fn open(&mut self, stream: TcpStream, place: Place) {
        let connection = Connection::new(stream, place, self.now);
        let key = self.connections.insert(connection);
        let known = key < 1 << KEY_BITS && self.phase == Phase::Running;
        if !known || self.poll.add(self.connections[key].stream(), key).is_err() {
            return self.hand_over(key, Vec::new());
        }
        self.enqueue(key);
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        for key in self.keys() {
            let connection = &mut self.connections[key];
            if phase == Phase::Cut || (connection.is_free() && connection.input.is_empty()) {
                self.close(key);
            } else if connection.is_free() {
                self.hand_over_input(key);
            } else {
                connection.closing = true;
            }
        }
    }

    fn keys(&self) -> Vec<usize> {
        self.connections.iter().map(|(key, _)| key).collect()
    }

    fn enqueue(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if !connection.queued {
            connection.queued = true;
            self.queue.push_back(key);
        }
    }

    fn changed(&mut self, event: Event) {
        let Some(connection) = self.connections.get_mut(event.key) else { return };
        connection.readable |= event.readable;
        if event.writable && connection.is_writing() {
            self.write_on(event.key);
        } else if event.readable && connection.is_free() {
            self.enqueue(event.key);
        }
    }

    /// Looks at what a connection has sent, until it has a request under way or nothing more.
    fn look(&mut self, key: usize, offers: &mut Vec<Offer>, budget: &mut usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.queued = false;
        let mut scratch = std::mem::take(&mut self.scratch);
        // What is sent ahead of its turn should rather wait in the sockets when much waits here.
        let is_crowded = self.input_bytes >= HOT_INPUT_BYTES_MAX;
        let room = if is_crowded { HOT_CROWDED_READ_BYTES } else { READ_BYTES };
        while let Some(connection) = self.connections.get_mut(key)
            && connection.is_free()
            && connection.has_more()
        {
            if *budget == 0 {
                self.enqueue(key);
                break;
            }
            if !connection.fresh {
                match connection.read(&mut scratch[..room]) {
                    Ok(Got::Bytes(bytes)) => {
                        // A request that comes in crumbs is as old as its first one.
                        if connection.input.is_empty() {
                            connection.since = self.now;
                        }
                        *budget = budget.saturating_sub(bytes);
                        if connection.input.is_empty() {
                            self.step(key, &scratch[..bytes], offers);
                            continue;
                        }
                        connection.input.extend_from_slice(&scratch[..bytes]);
                        self.input_bytes += bytes;
                    }
                    Ok(Got::Nothing) => continue,
                    Ok(Got::End) | Err(_) => {
                        self.close(key);
                        continue;
                    }
                }
            }
            connection.fresh = false;
            let input = std::mem::take(&mut connection.input);
            self.input_bytes -= input.len();
            self.step(key, &input, offers);
        }
        self.scratch = scratch;
    }

    /// Does one thing with the bytes of a connection whose input was taken out.
    fn step(&mut self, key: usize, bytes: &[u8], offers: &mut Vec<Offer>) {
        // A bug in one request must not take the driver with it; hyper's way answers it.
        let step = catch_unwind(AssertUnwindSafe(|| self.request(key, bytes, offers)));
        let kept = match step {
            Ok(Step::Taken(taken)) => &bytes[taken..],
            Ok(Step::Partial) if self.input_bytes + bytes.len() <= HOT_INPUT_BYTES_MAX => bytes,
            Ok(Step::Partial | Step::Elsewhere) | Err(_) => {
                return self.hand_over(key, bytes.to_vec());
            }
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if kept.is_empty() {
            return;
        }
        connection.fresh = kept.len() < bytes.len();
        connection.input = kept.to_vec();
        self.input_bytes += kept.len();
    }

    fn request(&mut self, key: usize, bytes: &[u8], offers: &mut Vec<Offer>) -> Step {
        let head = match head::read(bytes) {
            Head::Append(head) => head,
            Head::Partial => return Step::Partial,
            Head::Other => return Step::Elsewhere,
        };
        let whole = head.head_bytes + head.body_bytes;
        if whole > HOT_REQUEST_BYTES_MAX {
            return Step::Elsewhere;
        }
        let Some(body) = bytes.get(head.head_bytes..whole) else { return Step::Partial };
        match self.append(key, &head, body, offers) {
            Some(()) => Step::Taken(whole),
            None => Step::Elsewhere,
        }
    }

    /// Begins an append; `None` when there is something wrong with it that is told elsewhere.
    fn append(
        &mut self,
        key: usize,
        head: &AppendHead<'_>,
        body: &[u8],
        offers: &mut Vec<Offer>,
    ) -> Option<()> {
        let id = tl_wire::query::session_id(head.id).ok()?;
        let namespace = match head.namespace {
            None => self.namespace.clone(),
            Some(name) => Namespace::new(name)?,
        };
        let kind = Some(head.kind);
        let (request, form) = append::parse(body, kind, head.query, &self.principal).ok()?;
        let deadline = self.now + Duration::from_millis(REQUEST_MS_DEFAULT);
        let caller =
            Caller { principal: self.principal.clone(), namespace, deadline, request_id: None };

        self.requests += 1;
        let ticket = Ticket((self.requests << KEY_BITS) | key as u64);
        let turn = self.shared.turn().ok()?;
        let prepared = self.shared.service.prepare_append(&caller, &id, request);
        self.connections[key].under_way = Some(UnderWay {
            ticket,
            // What is answered without a proposal names none.
            group: GroupId(0),
            form,
            started: self.now,
            deadline,
            _turn: turn,
            _open: self.shared.metrics.request(),
        });
        self.go_on(ticket, prepared, offers);
        Some(())
    }

    /// Offers a prepared append, or has done what it waits for; nothing if its client has left.
    fn go_on(
        &mut self,
        ticket: Ticket,
        prepared: Result<Prepared, ServiceError>,
        offers: &mut Vec<Offer>,
    ) {
        let under_way = self.connections.get_mut(key_of(ticket)).and_then(|connection| {
            connection.under_way.as_mut().filter(|under_way| under_way.ticket == ticket)
        });
        let Some(under_way) = under_way else { return };
        match prepared {
            Ok(Prepared::Now(proposal)) => {
                under_way.group = proposal.group();
                offers.push(Offer { ticket, proposal });
            }
            Ok(Prepared::Later(later)) if later.wants_rows() => self.cold.push((ticket, later)),
            Ok(Prepared::Later(later)) => {
                let service = self.shared.service.clone();
                self.finish(ticket, async move { service.finish_append(*later).await });
            }
            Err(error) => self.conclude(ticket, |_, _| Err(error)),
        }
    }

    /// Has an append finished on the runtime.
    fn finish(
        &self,
        ticket: Ticket,
        work: impl Future<Output = Result<Indexed<Appended>, ServiceError>> + Send + 'static,
    ) {
        let inbox = Arc::clone(&self.inbox);
        self.runtime.spawn(async move {
            let said = work.await;
            // Without a front there is no connection that could be told.
            drop(inbox.send(Mail::Done(ticket, said)));
        });
    }

    /// Has the rows loaded that appends wait for, a few appends a thread: waking one costs as much
    /// as loading what the page cache has.
    fn load_rows(&mut self) {
        while !self.cold.is_empty() {
            let rest = self.cold.split_off(self.cold.len().min(LOADS_PER_THREAD));
            let some = std::mem::replace(&mut self.cold, rest);
            let (service, inbox) = (self.shared.service.clone(), Arc::clone(&self.inbox));
            self.runtime.spawn_blocking(move || {
                let load = |(ticket, later): (Ticket, Box<Later>)| {
                    (ticket, unpanicked(|| service.load_rows(&later)).map(|()| later))
                };
                // Without a front there is no connection that could be told.
                drop(inbox.send(Mail::Rows(some.into_iter().map(load).collect())));
            });
        }
    }

    /// Answers the request of a ticket, if its client still waits.
    fn conclude(
        &mut self,
        ticket: Ticket,
        said: impl FnOnce(&Shared, GroupId) -> Result<Indexed<Appended>, ServiceError>,
    ) {
        let key = key_of(ticket);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(under_way) = connection.under_way.take_if(|open| open.ticket == ticket) else {
            return;
        };
        let UnderWay { group, form, started, .. } = under_way;
        let (closing, mut out) = (connection.closing, std::mem::take(&mut self.reply));
        out.clear();
        let said = said(&self.shared, group);
        let (status, guard) = match said {
            Ok(done) => {
                self.writer.done(&mut out, &done, form, closing, self.now);
                (201, done.value.reply_written)
            }
            Err(error) => {
                let status = error.code.status();
                self.shared.metrics.refused(error.code);
                self.writer.refused(&mut out, append::refused(error, form), closing, self.now);
                (status, None)
            }
        };
        let written = connection.write(&out);
        drop(guard);
        self.reply = out;
        let took = self.now.duration_since(started);
        self.shared.metrics.answered("POST", ROUTE, status, took);
        self.shared.metrics.hot_appends.inc();
        self.wrote(key, written);
    }

    fn write_on(&mut self, key: usize) {
        let written = self.connections[key].flush();
        self.wrote(key, written);
    }

    /// Goes on after a write.
    fn wrote(&mut self, key: usize, written: io::Result<()>) {
        let connection = &mut self.connections[key];
        connection.since = self.now;
        if written.is_err() || (connection.closing && connection.is_free()) {
            return self.close(key);
        }
        if connection.is_free() && connection.has_more() {
            self.enqueue(key);
        }
    }

    /// Acts on what takes too long.
    fn sweep(&mut self) {
        self.swept = self.now;
        let settings = &self.shared.settings;
        let (idle, stall) = (settings.head_read_ms, settings.write_stall_ms);
        for key in self.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            let rested = self.now.duration_since(connection.since);
            let over = |ms: u64| rested >= Duration::from_millis(ms);
            if let Some(under_way) = &connection.under_way {
                if self.now >= under_way.deadline {
                    let unknown = ServiceError::of(ErrorCode::RaftTimeout);
                    let ticket = under_way.ticket;
                    self.conclude(ticket, |_, _| Err(unknown));
                }
            } else if connection.is_writing() {
                if over(stall) {
                    self.shared.metrics.slow_reader();
                    self.close(key);
                }
            } else if !connection.input.is_empty() {
                if over(HOT_HANDOVER_MS.min(idle)) {
                    self.hand_over_input(key);
                }
            } else if over(idle) {
                self.close(key);
            }
        }
    }

    fn close(&mut self, key: usize) {
        let connection = self.connections.remove(key);
        self.input_bytes -= connection.input.len();
        self.poll.remove(connection.stream());
    }

    fn hand_over_input(&mut self, key: usize) {
        let input = std::mem::take(&mut self.connections[key].input);
        self.input_bytes -= input.len();
        self.hand_over(key, input);
    }

    /// Moves a connection to the general way for good. `begun` was read from it.
    fn hand_over(&mut self, key: usize, begun: Vec<u8>) {
        let connection = self.connections.remove(key);
        self.poll.remove(connection.stream());
        let (stream, place, input) = connection.into_parts();
        debug_assert!(input.is_empty(), "the input was taken out");
        self.serve_elsewhere(stream, place, begun);
    }

    fn serve_elsewhere(&self, stream: TcpStream, place: Place, begun: Vec<u8>) {
        let (shared, router) = (Arc::clone(&self.shared), self.router.clone());
        self.runtime.spawn(async move {
            match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => connection::run(stream, begun.into(), place, shared, router).await,
                Err(error) => tracing::warn!(%error, "a connection could not be moved"),
            }
        });
    }
}

/// A bug in one request must not take others with it.
fn unpanicked<T>(work: impl FnOnce() -> Result<T, ServiceError>) -> Result<T, ServiceError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("an append panicked");
        Err(ServiceError::of(ErrorCode::InternalError))
    })
}

/// The connection that a ticket is for.
fn key_of(ticket: Ticket) -> usize {
    (ticket.0 & ((1 << KEY_BITS) - 1)) as usize
}

impl Front for HotFront {
    fn waker(&self) -> Waker {
        let bell = self.poll.bell();
        Arc::new(move || bell.ring())
    }

    fn poll(&mut self, patience: Duration, offers: &mut Vec<Offer>) {
        let patience = if self.queue.is_empty() { patience } else { Duration::ZERO };
        let mut events = std::mem::take(&mut self.events);
        self.poll.wait(patience, &mut events);
        self.now = Instant::now();
        for event in events.drain(..) {
            self.changed(event);
        }
        self.events = events;
        self.take_mail(offers);
        let mut budget = HOT_READ_BYTES_MAX;
        // Those that come back because the budget is used up wait for the next call.
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else { break };
            self.look(key, offers, &mut budget);
        }
        self.load_rows();
        if self.now.duration_since(self.swept) >= SWEEP_EVERY {
            self.sweep();
        }
    }

    fn answer(&mut self, ticket: Ticket, told: Told) {
        match told {
            Told::Answer(answer) => {
                self.conclude(ticket, |shared, group| shared.service.conclude_append(group, answer))
            }
            Told::Refused(error) => self.conclude(ticket, |_, _| Err(error)),
            Told::Again(again) => {
                let service = self.shared.service.clone();
                self.finish(ticket, async move { service.append_again(*again).await });
            }
        }
    }
}

impl Drop for HotFront {
    /// The node ends: what is under way has an unknown outcome, new connections go elsewhere.
    fn drop(&mut self) {
        for mail in self.inbox.close() {
            if let Mail::Open(stream, place) = mail {
                self.serve_elsewhere(stream, place, Vec::new());
            }
        }
        for key in self.keys() {
            let connection = &mut self.connections[key];
            connection.closing = true;
            match connection.under_way.as_ref().map(|open| open.ticket) {
                Some(ticket) => {
                    let unknown = ServiceError::of(ErrorCode::RaftTimeout);
                    self.conclude(ticket, |_, _| Err(unknown));
                }
                None if connection.is_writing() => self.close(key),
                None => self.hand_over_input(key),
            }
        }
    }
}
