//! The other nodes of the cluster, as this node's threads see them: frames out and in, who leads
//! which group, questions under way, clocks.
//!
//! ```text
//!   driver ── frames ──► sender ═══► peer          peer ═══► heard ── frames ──► driver's mailbox
//!   service ── question ─► open ═══► peer          peer ═══► heard ── answer ──► open ─► service
//! ```
//!
//! Invariants:
//!  - L1 a question ends once: with an answer of the node that was asked, as not sent, or as
//!    unknown; it is sent once;
//!  - L2 "not sent" only when no byte of it has left;
//!  - L3 frames that wait for the driver are bounded; one past is dropped, which Raft repairs;
//!  - L4 no two questions of a node have the same number, also not those of two of its processes: an
//!    answer that comes late, to a process that is gone, is nobody's.
//!
//! What is heard is taken on the transport's own threads: nothing here waits for anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tl_raft::PeerId;
use tl_raft::transport::{FrameKind, TransportSender};
use tl_types::GroupId;
use tokio::sync::Notify;

use self::answers::Turns;
use self::clocks::Clock;
use self::leaders::Reign;
use self::names::Names;
pub(crate) use self::questions::NoAnswer;
use self::questions::Open;
use crate::cluster::{Membership, Placement};
use crate::identity::Member;
use crate::metrics::Metrics;

mod answers;
mod clocks;
mod leaders;
mod names;
mod questions;

/// Frames of peers that wait for the driver, bytes. One past: dropped, which Raft repairs.
pub(crate) const INBOUND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Links {
    me: PeerId,
    names: RwLock<Arc<Names>>,
    placement: Arc<Placement>,
    routers: Vec<Member>,
    /// By group: whether this node has a copy of it.
    local: Vec<bool>,
    sender: RwLock<Option<TransportSender>>,
    /// For whom something of the driver's waits until [`Links::release`].
    held: Mutex<Vec<PeerId>>,
    inbound_bytes: AtomicUsize,
    /// By group: who leads it as far as this node knows; 0 for nobody. Of groups that are elsewhere,
    /// whoever took a write last.
    leaders: Vec<AtomicU64>,
    /// By group: how often this node came to lead it.
    reigns: Vec<Reign>,
    changed: Notify,
    open: Mutex<Open>,
    clocks: Mutex<BTreeMap<PeerId, Clock>>,
    turns: Turns,
    metrics: Arc<Metrics>,
}

impl Links {
    /// `run` is random, and another one in each process: its questions are numbered from there on.
    pub(crate) fn new(member: &Membership, groups: u16, run: u64, metrics: Arc<Metrics>) -> Links {
        let groups = || (0..groups).map(GroupId);
        let has = |group| member.place.is_some_and(|place| member.placement.has(group, place));
        Links {
            me: member.seat.peer,
            names: RwLock::new(Arc::new(Names::of(&member.list, &member.routers))),
            placement: Arc::clone(&member.placement),
            routers: member.routers.clone(),
            local: groups().map(has).collect(),
            sender: RwLock::new(None),
            inbound_bytes: AtomicUsize::new(0),
            leaders: groups().map(|_| AtomicU64::new(0)).collect(),
            reigns: groups().map(|_| Reign::default()).collect(),
            changed: Notify::new(),
            held: Mutex::default(),
            open: Mutex::new(Open::behind(run)),
            clocks: Mutex::default(),
            turns: Mutex::default(),
            metrics,
        }
    }

    /// From now on frames leave.
    pub(crate) fn open(&self, sender: TransportSender) {
        *self.sender.write() = Some(sender);
    }

    /// Nothing leaves any more, and nobody will be answered.
    pub(crate) fn close(&self) {
        *self.sender.write() = None;
        self.end_unknown(.., |_| true);
    }

    pub(crate) fn me(&self) -> PeerId {
        self.me
    }

    /// Gives the driver's frames to the transport. What it does not take is lost, and counted
    /// there.
    pub(crate) fn send(&self, frames: Vec<(PeerId, Bytes)>) {
        for (to, frame) in frames {
            self.hold(to, FrameKind::Raft, frame);
        }
        self.release();
    }

    /// Gives a frame to the transport that may wait until [`Links::release`]; whether it took it.
    fn hold(&self, to: PeerId, kind: FrameKind, payload: Bytes) -> bool {
        let taken = match &*self.sender.read() {
            Some(sender) => sender.hold(to, kind, payload).is_ok(),
            None => false,
        };
        let mut held = self.held.lock();
        if taken && !held.contains(&to) {
            held.push(to);
        }
        taken
    }

    /// Sends what was held back, on this thread if the sockets take it: the driver's own, at the
    /// end of what it does for one turn.
    pub(crate) fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        if let Some(sender) = &*self.sender.read() {
            held.into_iter().for_each(|peer| sender.release(peer));
        }
    }

    /// Gives pieces of what is large to the transport, on connections of their own. Whoever lacks
    /// one that was not taken asks for it again.
    pub(crate) fn send_bulk(&self, pieces: Vec<(PeerId, Bytes)>) {
        if pieces.is_empty() {
            return;
        }
        if let Some(sender) = &*self.sender.read() {
            for (to, piece) in pieces {
                let _ = sender.send(to, FrameKind::Bulk, piece);
            }
        }
    }

    /// Room for a frame on its way to the driver; false when it must be dropped.
    pub(crate) fn take_in(&self, bytes: usize) -> bool {
        let before = self.inbound_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= INBOUND_BYTES_MAX {
            return true;
        }
        self.inbound_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.peer_frames_dropped.inc();
        false
    }

    /// The driver has taken a frame.
    pub(crate) fn taken(&self, bytes: usize) {
        self.inbound_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
