#![allow(clippy::unwrap_used)]
//! Features of a group as scripts, and a model that it must agree with.

mod against_model;
mod append;
mod batch;
mod damage;
mod lifecycle;
mod model;
mod reads;
mod requests;
pub(crate) mod script;

pub(crate) use self::script::{Bench, check, path};
