//! A report as pprof's `profile.proto`, of which these parts are written:
//!
//! ```text
//!  Profile   1 sample types, 2 samples, 4 locations, 5 functions, 6 strings, 9 time, 10 duration,
//!            11 period type, 12 period
//!  Sample    1 locations, leaf first   2 values: stacks, nanoseconds   3 label: thread
//!  Location  1 id   4 lines: function, line          Function  1 id   2 name   3 raw name   4 file
//! ```
//!
//! # Source
//! `proto/profile.proto` of google/pprof, for the numbers of the fields.

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use pprof::{Frames, Report, Symbol};
use tl_types::bytes_codec::put_varint;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The report's bytes.
pub fn encode(report: &Report, frequency: u64) -> Vec<u8> {
    let period = NANOS_PER_SECOND / frequency.max(1);
    let mut profile = Profile::default();
    // The empty string has the number 0.
    profile.text("");
    let (samples, count) = (profile.text("samples"), profile.text("count"));
    let (cpu, nanoseconds) = (profile.text("cpu"), profile.text("nanoseconds"));
    for (kind, unit) in [(samples, count), (cpu, nanoseconds)] {
        put_message(&mut profile.out, 1, &value_type(kind, unit));
    }
    let thread = profile.text("thread");
    for (frames, stacks) in &report.data {
        profile.sample(frames, u64::try_from(*stacks).unwrap_or(0), period, thread);
    }
    let start = report.timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = profile.finish();
    put_number(&mut out, 9, nanos(start));
    put_number(&mut out, 10, nanos(report.timing.duration));
    put_message(&mut out, 11, &value_type(cpu, nanoseconds));
    put_number(&mut out, 12, period);
    out
}

fn nanos(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// What is gathered while samples are written.
#[derive(Default)]
struct Profile {
    out: Vec<u8>,
    texts: HashMap<String, u64>,
    strings: Vec<String>,
    /// A function per name and file, a location per function and line; ids count from 1.
    functions: HashMap<(u64, u64), u64>,
    locations: HashMap<(u64, u64), u64>,
}

impl Profile {
    fn text(&mut self, text: &str) -> u64 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = self.strings.len() as u64;
        self.texts.insert(text.to_owned(), number);
        self.strings.push(text.to_owned());
        number
    }

    fn sample(&mut self, frames: &Frames, stacks: u64, period: u64, thread: u64) {
        let mut places = Vec::new();
        for symbol in frames.frames.iter().flatten() {
            let location = self.location(symbol);
            put_varint(&mut places, location);
        }
        let (mut values, mut label, mut sample) = (Vec::new(), Vec::new(), Vec::new());
        put_varint(&mut values, stacks);
        put_varint(&mut values, stacks.saturating_mul(period));
        put_number(&mut label, 1, thread);
        put_number(&mut label, 2, self.text(&frames.thread_name));
        put_message(&mut sample, 1, &places);
        put_message(&mut sample, 2, &values);
        put_message(&mut sample, 3, &label);
        put_message(&mut self.out, 2, &sample);
    }

    fn location(&mut self, symbol: &Symbol) -> u64 {
        let name = self.text(&symbol.name());
        let file = self.text(&symbol.filename());
        let next = self.functions.len() as u64 + 1;
        let function = *self.functions.entry((name, file)).or_insert(next);
        if function == next {
            let mut out = Vec::new();
            put_number(&mut out, 1, function);
            put_number(&mut out, 2, name);
            put_number(&mut out, 3, self.text(&symbol.sys_name()));
            put_number(&mut out, 4, file);
            put_message(&mut self.out, 5, &out);
        }
        let line = u64::from(symbol.lineno());
        let next = self.locations.len() as u64 + 1;
        let location = *self.locations.entry((function, line)).or_insert(next);
        if location == next {
            let (mut out, mut lines) = (Vec::new(), Vec::new());
            put_number(&mut lines, 1, function);
            put_number(&mut lines, 2, line);
            put_number(&mut out, 1, location);
            put_message(&mut out, 4, &lines);
            put_message(&mut self.out, 4, &out);
        }
        location
    }

    fn finish(mut self) -> Vec<u8> {
        for text in &self.strings {
            put_message(&mut self.out, 6, text.as_bytes());
        }
        self.out
    }
}

fn value_type(kind: u64, unit: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, kind);
    put_number(&mut out, 2, unit);
    out
}

/// A field that is a number.
fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

/// A field that is bytes: a message, a text, or numbers in a row.
fn put_message(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
