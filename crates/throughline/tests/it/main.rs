//! The real binary against real nodes, as a user types it.

#![allow(clippy::unwrap_used)]

mod bench;
mod cluster;
mod crash;
mod demo;
mod files;
mod fleet;
mod offline;
mod session;
mod tl;
mod transfer;
