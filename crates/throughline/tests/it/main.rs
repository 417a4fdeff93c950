//! The real binary against real nodes, as a user types it.

#![allow(clippy::unwrap_used)]

mod bench;
mod cluster;
mod crash;
mod demo;
mod faults;
mod files;
mod fleet;
mod members;
mod offline;
mod ops;
mod places;
mod rotten_log;
mod rows;
mod session;
mod tl;
mod transfer;
mod wiped;
