//! Nanoseconds to read and seal an append of about 1 KiB, and to print its event.
//!
//! `cargo run --release -p tl-wire --example append_speed`
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use tl_types::{Principal, Seq, StoredEvent, UnixMs};
use tl_wire::{AppendBody, json, reply};

const ROUNDS: u32 = 200_000;

fn main() {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(17);
    let plain = body(&text);
    let structured = body_of(&(0..24).fold(String::from("{\"items\":["), |mut out, item| {
        let comma = if item > 0 { "," } else { "" };
        out += &format!(r#"{comma}{{"id":{item},"name":"item {item}","ok":true}}"#);
        out
    }));
    for (name, body) in [("one text", plain), ("24 objects", structured + "]}}")] {
        let body = body.as_bytes();
        println!("{name}, {} bytes", body.len());
        time("  check, compact, hash", || json::compact(black_box(body)).expect("valid").1);
        let principal = Principal::open_access();
        time("  parse and seal", || seal(black_box(body), &principal).hash);
        let sealed = seal(body, &principal);
        let event = StoredEvent {
            seq: Seq(1),
            at: UnixMs(1_770_562_801_123),
            envelope: sealed.envelope.encode().into(),
        };
        let mut out = Vec::with_capacity(4096);
        time("  event to JSON", || {
            out.clear();
            reply::event_json(&mut out, black_box(&event), &principal.tenant).expect("readable");
            out.len() as u128
        });
    }
}

fn body(text: &str) -> String {
    body_of(&format!(r#"{{"text":"{text}"}}"#)) + "}"
}

fn body_of(payload: &str) -> String {
    format!(
        r#"{{"type":"message","producer_id":"0b8c1a52-worker","producer_seq":42,"source":"agent","metadata":{{"trace":"4bf92f3577b34da6"}},"refs":{{"to_seq":41}},"payload":{payload}"#
    )
}

fn seal(body: &[u8], principal: &Principal) -> tl_wire::SealedEvent {
    match AppendBody::parse(body).expect("a valid append") {
        AppendBody::Single(request) => request.event.seal(principal).expect("a valid actor"),
        AppendBody::Batch(_) => unreachable!("the body has no events member"),
    }
}

fn time(name: &str, mut work: impl FnMut() -> u128) {
    for _ in 0..ROUNDS / 10 {
        black_box(work());
    }
    let from = Instant::now();
    for _ in 0..ROUNDS {
        black_box(work());
    }
    println!("{name}: {} ns", from.elapsed().as_nanos() / u128::from(ROUNDS));
}
