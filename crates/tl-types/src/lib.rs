//! Values with rules, shared by every floor: ids, positions, resource paths, the key space,
//! limits, error codes and the event envelope.
//!
//! Absent on purpose: I/O, clocks, randomness, and anything that decides. A type here knows
//! how to be valid and how to be written down, and nothing else.

pub mod bytes_codec;
pub mod error;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod path;
pub mod principal;
pub mod time;

pub use error::{ErrorCode, Retry};
pub use event::{Envelope, StoredEvent};
pub use ids::{
    Generation, GroupId, Incarnation, Index, NodeId, RequestId, ResourceNumber, Seq, Term,
};
pub use keys::{FullKey, RowKey, Table};
pub use path::{Affinity, Kind, Namespace, ResourcePath, SessionId, Tenant};
pub use principal::{Actor, ActorKind, Principal};
pub use time::UnixMs;
