//! P2 for writes without a producer position: a repeated request id is answered with the first
//! replies, to the letter, and does nothing.

use tl_core::Reply;

use super::{Checked, Violation};

/// Compares a repeat's replies with the first.
///
/// # Errors
/// They differ.
pub fn repeated(client: usize, first: &[Reply], again: &[Reply]) -> Checked {
    if first == again {
        return Ok(());
    }
    Err(Violation::new(
        "a repeated request gets its first reply",
        format!("client {client} was told {first:?}, then {again:?}"),
    ))
}
