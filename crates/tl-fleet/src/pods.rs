//! Pods as the store knows them, and the one among them that leads.

use tl_types::UnixMs;

use crate::error::InvalidInput;
use crate::ids::{Epoch, Incarnation, PodId, PodLife};
use crate::json::JsonText;
use crate::limits::{KINDS_MAX, POD_META_BYTES_MAX};
use crate::step::{Kind, words};
use crate::time::StoreTime;

/// What a pod says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInfo {
    /// Its name.
    pub pod: PodId,
    /// Steps that it may hold at once.
    pub capacity: u32,
    /// What it can run.
    pub kinds: Vec<Kind>,
    /// What else it says of itself: a JSON object.
    pub meta: JsonText,
}

impl PodInfo {
    /// Holds every limit of a registration.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the first field that is past its limit. A pod without kinds is
    /// fine: it only takes submissions and looks after others.
    pub fn check(&self) -> Result<(), InvalidInput> {
        if self.kinds.len() > KINDS_MAX {
            return Err(InvalidInput::new("kinds", format!("must name at most {KINDS_MAX}")));
        }
        if self.meta.len_bytes() > POD_META_BYTES_MAX || !self.meta.as_str().starts_with('{') {
            return Err(InvalidInput::new(
                "meta",
                format!("must be a JSON object of at most {POD_META_BYTES_MAX} bytes"),
            ));
        }
        Ok(())
    }
}

/// A life has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Its number, larger than every earlier one.
    pub incarnation: Incarnation,
    /// When it began; the eldest is preferred as leader.
    pub birth: StoreTime,
    /// Until when it counts as alive without a heartbeat.
    pub lease_until: StoreTime,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub life: PodLife,
    /// How long it counts as alive from now on.
    pub lease_ms: u64,
    /// Steps that run.
    pub running: u32,
    /// Steps held ready beside them.
    pub prefetched: u32,
    /// Whether it takes no more work.
    pub draining: bool,
    /// What else it says of itself, when that has changed.
    pub meta: Option<JsonText>,
}

/// What a sign of life was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// It lives until then.
    Alive {
        /// The new deadline.
        lease_until: StoreTime,
        /// Whether somebody asked that it go down in good order.
        drain_asked: bool,
    },
    /// This life has ended: its lease ran out before this heartbeat came, or it was reaped,
    /// or the name was registered again. Drop the work and register anew.
    Reaped,
}

/// What became of a wish that a pod go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainAsked {
    /// It is told with its next heartbeat.
    Asked,
    /// No living pod bears the name.
    NotUp,
}

words!(
    /// Whether a pod counts.
    PodState {
        /// It lives.
        Up = 0 "up",
        /// It has left, was reaped, or another life bears its name.
        Down = 1 "down",
    }
);

/// A pod's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Who, in which life.
    pub life: PodLife,
    /// When this life began, by the store's clock.
    pub birth: StoreTime,
    /// The same for showing.
    pub birth_wall: UnixMs,
    /// When it was last heard of, for showing.
    pub heartbeat_wall: UnixMs,
    /// Until when it counts as alive.
    pub lease_until: StoreTime,
    /// Whether it counts. A pod that is up with its lease behind it is dead and not yet
    /// reaped.
    pub state: PodState,
    /// Whether it takes no more work.
    pub draining: bool,
    /// Steps that it may hold at once.
    pub capacity: u32,
    /// Steps that run.
    pub running: u32,
    /// Steps held ready beside them.
    pub prefetched: u32,
    /// What it can run.
    pub kinds: Vec<Kind>,
    /// What else it says of itself.
    pub meta: JsonText,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The holder.
    pub life: PodLife,
    /// The fencing number of its leadership.
    pub epoch: Epoch,
    /// Until when it leads unless renewed. A leader whose lease is behind it leads no more.
    pub lease_until: StoreTime,
}

/// What became of a wish to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// The asker leads.
    Led {
        /// With this fencing number: a new one when it did not lead before.
        epoch: Epoch,
        /// Until then, unless renewed.
        lease_until: StoreTime,
    },
    /// Somebody else leads.
    Other(Leader),
}

/// The answer to a write that only the leader may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderWrite<T> {
    /// Done, under the epoch given.
    Done(T),
    /// The epoch is not the current one or its lease has run out; nothing was written.
    Deposed,
}

/// A life that was ended because its lease had run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReapedPod {
    /// Who.
    pub life: PodLife,
    /// Since when it was dead.
    pub lease_until: StoreTime,
}
