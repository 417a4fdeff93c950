//! Many Raft groups on one node: one synchronous driver; commands are bytes.
#![allow(dead_code)]
pub mod config;
mod deeds;
mod group_log;
mod recovery;

pub use config::DriverConfig;
pub use deeds::{
    ApplyBatch, Committed, Deeds, GroupStatus, Inbound, JobId, LogJob, Now, Outcome, PeerId,
    ReadReady, Rejected, Role, RoleChange, Token,
};
pub use recovery::{GroupStart, RecoverError, RecoveredGroup, Recovery};
