//! Every protocol on a socket, over one `Service` face.
//!
//! ```text
//!  TcpListener ─► connection ─► edge (target length, CORS) ─► router ─► endpoint ─► Service
//!                   │  hyper http/1 over `Socket`                          │
//!                   └── stall limit, reply before push ◄── reply body ◄────┘
//! ```
//!
//! A front translates and decides nothing: what may be done is the Service's answer, how it is
//! said is one match per protocol. Where to look:
//!
//! | Module | Answers |
//! |---|---|
//! | [`settings`] | what an operator may choose, and the fixed ceilings of the HTTP face |
//! | [`server`] | accept, drain, stop |
//! | `connection`, `socket`, `held` | one connection; bytes to the socket; reply before push |
//! | [`routes`], `call` | which endpoint a request reaches, and what every endpoint needs |
//! | `shared`, `room` | what all requests share, and how much of it each may take |
//! | `reply`, `problem` | what goes back: JSON, or an error in the one error body |
//! | `sessions`, `append`, `events`, `tail`, `health` | the endpoints |
//! | [`openapi`] | the published description of all of it |

mod append;
mod body;
mod call;
mod connection;
mod cors;
mod edge;
mod events;
mod exposition;
pub mod fleet;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod headers;
mod health;
mod held;
#[cfg(target_os = "linux")]
mod hot;
mod metrics;
pub mod openapi;
mod ops;
mod pages;
mod problem;
mod profile;
mod reply;
mod room;
pub mod routes;
pub mod server;
mod sessions;
pub mod settings;
mod shared;
mod socket;
mod tail;

pub use server::{Drained, Gateway, GatewayError};
pub use settings::GatewaySettings;
