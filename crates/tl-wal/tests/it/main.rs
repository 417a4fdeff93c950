//! The log seen from outside: what was confirmed comes back, whatever the disk does.
#![allow(clippy::unwrap_used)]

mod absence;
mod common;
mod faults;
mod flips;
mod go_on;
mod inspect;
mod model;
mod real_disk;
mod replaced;
mod round_trip;
