//! The engine through its Service, on a real directory.

#![allow(clippy::unwrap_used)]

mod restart;
mod support;
mod tails;
mod writes;
