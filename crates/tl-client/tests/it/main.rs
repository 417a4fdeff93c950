//! The client against a peer that breaks connections on purpose.

#![allow(clippy::unwrap_used)]

mod appends;
mod peer;
mod tails;
mod writes;
