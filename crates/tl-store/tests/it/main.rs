//! The public face of the store, on disk and in memory.

#![allow(clippy::unwrap_used)]

mod child;
mod damage;
mod full_disk;
mod kill;
mod loads;
mod model;
mod readers;
mod syncs;
mod workload;
