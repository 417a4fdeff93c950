//! Many Raft groups on one node: one synchronous driver; commands are bytes.
//!
//! [`Driver::turn`] takes what happened and gives back what is to be done; the thread around it
//! writes the log, sends the frames and applies the entries. [`Recovery`] turns the log's records
//! into what the driver starts with. [`transport`] carries the frames from node to node.
//!
//! Raft itself is the `raft` crate, which nothing outside this crate sees. Its own encoding
//! touches neither network nor disk.
// Its messages are generated structs with private parts: filled in field by field.
#![allow(clippy::field_reassign_with_default)]

pub mod config;
mod deeds;
mod doubt;
mod driver;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod group;
mod group_log;
mod members;
mod reads;
mod recovery;
mod terms;
mod tokens;
pub mod transport;

pub use config::DriverConfig;
pub use deeds::{
    ApplyBatch, Committed, Deeds, Fetch, FollowerStatus, GroupStatus, Inbound, Installed, JobId,
    Lacking, LogJob, Now, Outcome, PeerId, ReadReady, Rejected, Role, RoleChange, Staged, Token,
};
pub use doubt::DOUBTED;
pub use driver::{Driver, FeedCounts};
pub use members::{
    CAUGHT_UP_ENTRIES, CHANGE_VOTERS_MIN, ChangeRefused, LEARNERS_MAX, MemberChange, Members,
};
pub use recovery::{GroupStart, LogDamage, RecoverError, RecoveredGroup, Recovery};
