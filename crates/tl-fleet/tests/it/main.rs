//! The public face of the crate, and what every store must hold.
#![allow(clippy::unwrap_used)]

mod conformance;
mod faulty;
mod pod;
mod postgres;
mod sqlite;
