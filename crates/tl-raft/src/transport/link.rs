//! One peer: the ways out to it, what came from it, and whether it is still wanted.

use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::hello::{Lane, Refusal, Seat};
use super::outlet::Outlet;
use super::settings::TransportConfig;
use super::status::{PeerStatus, ReceiveStatus};

/// What the tasks that call a peer look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) address: String,
    pub(super) stopped: bool,
}

/// One peer.
pub(super) struct Link {
    pub(super) seat: Seat,
    control: watch::Sender<Control>,
    main: Outlet,
    bulk: Outlet,
    from_main: Mutex<Inlet>,
    from_bulk: Mutex<Inlet>,
}

/// What came from the peer on one lane.
#[derive(Default)]
struct Inlet {
    status: ReceiveStatus,
    /// The connection that is open, so that the end of an older one is not taken for its end.
    open: Option<u64>,
}

impl Link {
    pub(super) fn new(seat: Seat, address: String, config: &TransportConfig) -> Link {
        Link {
            seat,
            control: watch::Sender::new(Control { address, stopped: false }),
            main: Outlet::new(Lane::Main, config.queue),
            bulk: Outlet::new(Lane::Bulk, config.bulk_queue),
            from_main: Mutex::default(),
            from_bulk: Mutex::default(),
        }
    }

    pub(super) fn outlet(&self, lane: Lane) -> &Outlet {
        match lane {
            Lane::Main => &self.main,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(super) fn control(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    /// Calls elsewhere from now on, and at once, if that is a change.
    pub(super) fn move_to(&self, address: &str) {
        self.control.send_if_modified(|control| {
            let moved = control.address != address;
            if moved {
                address.clone_into(&mut control.address);
            }
            moved
        });
    }

    pub(super) fn stop(&self) {
        self.control.send_modify(|control| control.stopped = true);
    }

    fn from(&self, lane: Lane) -> &Mutex<Inlet> {
        match lane {
            Lane::Main => &self.from_main,
            Lane::Bulk => &self.from_bulk,
        }
    }

    /// The peer has opened a connection: it is there, so it is worth calling too.
    pub(super) fn heard_of(&self, lane: Lane, connection: u64) {
        let mut from = self.from(lane).lock();
        from.open = Some(connection);
        from.status.connections += 1;
        from.status.connected_since = Some(Instant::now());
        drop(from);
        self.main.kick();
        self.bulk.kick();
    }

    pub(super) fn received(&self, lane: Lane, payload_bytes: usize) {
        let status = &mut self.from(lane).lock().status;
        status.frames += 1;
        status.bytes += payload_bytes as u64;
    }

    pub(super) fn damaged(&self, lane: Lane) {
        self.from(lane).lock().status.damaged += 1;
    }

    /// Nothing comes any more on this connection.
    pub(super) fn silent(&self, lane: Lane, connection: u64) {
        let mut from = self.from(lane).lock();
        if from.open == Some(connection) {
            from.open = None;
            from.status.connected_since = None;
        }
    }

    /// It was turned away or sent away; true when the reason is not the one before.
    pub(super) fn refused(&self, lane: Lane, refusal: Refusal) -> bool {
        self.from(lane).lock().status.last_refusal.replace(refusal) != Some(refusal)
    }

    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            seat: self.seat,
            address: self.control.borrow().address.clone(),
            to_main: self.main.status(),
            to_bulk: self.bulk.status(),
            from_main: self.from_main.lock().status.clone(),
            from_bulk: self.from_bulk.lock().status.clone(),
        }
    }
}
