//! The transport through its public face, on real sockets.

#![allow(clippy::unwrap_used)]

mod certificates;
mod faults;
mod frames;
mod limits;
mod refusals;
mod support;
