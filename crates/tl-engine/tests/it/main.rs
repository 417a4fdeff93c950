//! The engine through its Service, on a real directory.

#![allow(clippy::unwrap_used)]

mod cluster;
mod full_disk;
mod restart;
mod support;
mod tails;
mod writes;
