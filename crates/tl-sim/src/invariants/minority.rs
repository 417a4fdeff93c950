//! A side of a split network without a majority refuses: what is asked there while it is cut off
//! is neither taken nor answered as fresh, since the other side may have moved on (P1, P10).

use super::{Checked, Violation};

/// A machine gives a good answer to a write or a fresh read that came to it at `asked_at_us`;
/// `alone_since_us` says since when it cannot talk with a majority, if it cannot.
///
/// # Errors
/// It was cut off all the time in between, so nobody can have agreed.
pub fn answers(machine: usize, asked_at_us: u64, alone_since_us: Option<u64>) -> Checked {
    match alone_since_us {
        Some(since_us) if since_us <= asked_at_us => Err(Violation::new(
            "a minority refuses",
            format!(
                "machine {machine} is cut off since {:.3} s, was asked at {:.3} s and agreed",
                since_us as f64 / 1e6,
                asked_at_us as f64 / 1e6
            ),
        )),
        Some(_) | None => Ok(()),
    }
}
