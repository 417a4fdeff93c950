//! Limits that every store holds before anything is written, alike.

use crate::claim::Finish;
use crate::error::InvalidInput;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MAX, LOOKUP_MAX, SWEEP_MAX};
use crate::step::NewStep;

pub(crate) fn check_batch(field: &'static str, items: usize) -> Result<(), InvalidInput> {
    if items > BATCH_MAX {
        return Err(InvalidInput::new(field, format!("must have at most {BATCH_MAX} items")));
    }
    Ok(())
}

pub(crate) fn check_submit(steps: &[NewStep]) -> Result<(), InvalidInput> {
    check_batch("steps", steps.len())?;
    steps.iter().try_for_each(NewStep::check)?;
    check_bytes("steps", steps.iter().map(NewStep::payload_bytes).sum())
}

fn check_bytes(field: &'static str, bytes: usize) -> Result<(), InvalidInput> {
    if bytes > BATCH_BYTES_MAX {
        return Err(InvalidInput::new(
            field,
            format!("have {bytes} bytes together, more than {BATCH_BYTES_MAX}"),
        ));
    }
    Ok(())
}

pub(crate) fn check_finishes(finishes: &[Finish]) -> Result<(), InvalidInput> {
    check_batch("finishes", finishes.len())?;
    finishes.iter().try_for_each(Finish::check)?;
    check_bytes("results", result_bytes(finishes))
}

pub(crate) fn result_bytes(finishes: &[Finish]) -> usize {
    finishes.iter().map(|finish| finish.outcome.result_bytes()).sum()
}

pub(crate) fn check_lookup(ids: usize) -> Result<(), InvalidInput> {
    if ids > LOOKUP_MAX {
        return Err(InvalidInput::new("ids", format!("must be at most {LOOKUP_MAX}")));
    }
    Ok(())
}

pub(crate) fn check_sweep(field: &'static str, items: usize) -> Result<(), InvalidInput> {
    if items == 0 || items > SWEEP_MAX {
        return Err(InvalidInput::new(field, format!("must be from 1 to {SWEEP_MAX}")));
    }
    Ok(())
}

/// A page token is the place after the last row looked at.
pub(crate) fn check_token(is_token: bool) -> Result<(), InvalidInput> {
    if is_token {
        Ok(())
    } else {
        Err(InvalidInput::new("page", "must be a token that a page before ended with"))
    }
}
