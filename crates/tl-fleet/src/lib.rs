//! Shared work where only a SQL database may be used.
//!
//! Pods that cannot reach each other share *steps* through a database alone: each takes what
//! it can run, holds it under a lease with a random token, and reports under that token. A
//! step that a dead or frozen pod held is taken back when its lease runs out; what the late
//! one reports then is refused.
//!
//! ```text
//!   submit ──> steps ──claim──> pod ──finish──> result, or retry, or dead letter
//!                ^                 │ renew
//!                └────recover──────┘ (lease ran out)
//! ```
//!
//! Delivery is at least once; what is reported counts at most once. The rules that need no
//! database are in `tl_core::fleet`.

mod checks;
pub mod claim;
pub mod effects;
pub mod error;
pub mod ids;
pub mod json;
pub mod limits;
pub mod list;
pub mod pod;
pub mod pods;
pub mod postgres;
pub mod recover;
pub mod run;
pub mod service;
pub mod sqlite;
pub mod step;
pub mod store;
pub mod time;

pub use claim::{
    Claim, ClaimKey, ClaimRequest, Claimant, Finish, Finished, Outcome, Renewal, Renewed,
};
pub use effects::{EffectNoted, NewEffect};
pub use error::{InvalidInput, StoreError};
pub use ids::{Attempt, ClaimToken, Epoch, Incarnation, PodId, PodLife, StepId};
pub use json::JsonText;
pub use list::{Counts, KindCount, Page, PageRequest, PageToken, StepFilter};
pub use pod::{
    Counted, Cycle, Guard, PodError, PodHandle, PodSettings, PodStatus, RecoveryAsked, RunningPod,
    Stage,
};
pub use pods::{
    Beat, DrainAsked, Heartbeat, Leader, LeaderWrite, Leadership, Pod, PodInfo, PodState,
    ReapedPod, Registered,
};
pub use recover::{
    Cancelled, DeadLetter, DeadReason, Forgotten, RecoverRequest, Recovered, Redriven, Retention,
};
pub use run::{Exec, Handler, HandlerError, Handlers, Run, Stop};
pub use service::{FleetService, Overview};
pub use step::{
    AttemptEnd, AttemptRecord, Kind, NewStep, RunAt, Step, StepState, Submitted, Unique,
    UniqueUntil,
};
pub use store::{Answer, Capabilities, Opening, Store};
pub use time::{StoreTime, Timed};
