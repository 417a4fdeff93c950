//! `GET /debug/pprof/profile`: what the node's threads do with the processor, as the tools of
//! pprof read it.
//!
//! The kernel interrupts whichever thread runs, so many times per second of processor time, and
//! its stack is kept. An idle node gives an empty profile. One is taken at a time; it ends early
//! when its client leaves.

mod proto;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use tl_types::ErrorCode;

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::typed;

/// How long a profile may take, seconds.
pub const SECONDS: RangeInclusive<u64> = 1..=60;
/// How long it takes when nobody says.
pub const SECONDS_DEFAULT: u64 = 10;
/// Stacks per second of processor time.
pub const FREQUENCY: RangeInclusive<u64> = 1..=999;
/// The same when nobody says; no divisor of what runs every so many milliseconds.
pub const FREQUENCY_DEFAULT: u64 = 99;
/// Libraries that may be walking the stacks themselves when they are interrupted.
const NOT_WALKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const DISPOSITION: HeaderName = HeaderName::from_static("content-disposition");
const FILE: HeaderValue = HeaderValue::from_static("attachment; filename=\"profile.pb\"");

/// Takes a profile for as long as was asked.
pub async fn take(call: &mut Call) -> Result<Response<Body>, Problem> {
    let asked = Asked::parse(call.query())?;
    let Ok(_only) = Arc::clone(&call.shared.profile).try_acquire_owned() else {
        return Err(taken());
    };
    let guard = ProfilerGuardBuilder::default()
        .frequency(i32::try_from(asked.frequency).unwrap_or(i32::MAX))
        .blocklist(&NOT_WALKED)
        .build()
        .map_err(|error| failed(&error))?;
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(asked.seconds)) => {}
        () = call.shared.draining() => {}
    }
    // Names are looked up in the program's file, which takes a while.
    let read = tokio::task::spawn_blocking(move || read(&guard, asked.frequency)).await;
    let bytes = read.map_err(|_| Problem::of(ErrorCode::InternalError))??;
    let mut response = typed(StatusCode::OK, OCTETS, Body::from(bytes));
    response.headers_mut().insert(DISPOSITION, FILE);
    Ok(response)
}

fn read(guard: &ProfilerGuard<'_>, frequency: u64) -> Result<Vec<u8>, Problem> {
    let report = guard.report().build().map_err(|error| failed(&error))?;
    Ok(proto::encode(&report, frequency))
}

fn taken() -> Problem {
    Problem::new(
        ErrorCode::EventStoreBackpressure,
        "A profile is being taken; there is one at a time",
    )
}

fn failed(error: &pprof::Error) -> Problem {
    // Another face of this process is at it.
    if matches!(error, pprof::Error::Running) {
        return taken();
    }
    tracing::error!(%error, "a profile could not be taken");
    Problem::of(ErrorCode::InternalError)
}

#[derive(Debug, PartialEq)]
struct Asked {
    seconds: u64,
    frequency: u64,
}

impl Asked {
    fn parse(query: &str) -> Result<Asked, Problem> {
        let mut asked = Asked { seconds: SECONDS_DEFAULT, frequency: FREQUENCY_DEFAULT };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let (place, range) = match name {
                "seconds" => (&mut asked.seconds, SECONDS),
                "frequency" => (&mut asked.frequency, FREQUENCY),
                _ => continue,
            };
            *place = value.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
                let (low, high) = (range.start(), range.end());
                let message = format!("{name} must be a whole number from {low} to {high}");
                Problem::new(ErrorCode::InvalidLimit, message).fact("limit", *range.end())
            })?;
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_frequencies_hold_at_the_limit_and_not_one_past_it() {
        let asked = |seconds, frequency| Ok(Asked { seconds, frequency });
        assert_eq!(Asked::parse(""), asked(10, 99));
        assert_eq!(Asked::parse("seconds=60&frequency=999&debug=1"), asked(60, 999));
        assert_eq!(Asked::parse("frequency=1&seconds=1"), asked(1, 1));
        for bad in ["seconds=0", "seconds=61", "seconds=", "frequency=1000", "frequency=-1"] {
            let code = Asked::parse(bad).map_err(|problem| problem.code());
            assert_eq!(code, Err(ErrorCode::InvalidLimit), "{bad}");
        }
    }
}
