//! The profile of the processor: taken from a node at work, read back, one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::http::soon;
use crate::server::Server;

/// The fields of a message: number, and number or bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Result<u64, &[u8]>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        fields.push(match key & 7 {
            0 => (key >> 3, Ok(varint(&mut bytes))),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                (key >> 3, Err(value))
            }
            other => panic!("wire type {other}"),
        });
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (number, rest) = bytes.split_at(end + 1);
    *bytes = rest;
    number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

fn numbers(message: &[u8]) -> BTreeMap<u64, u64> {
    fields(message).into_iter().filter_map(|(field, value)| Some((field, value.ok()?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_a_busy_node_reads_back_and_is_taken_alone() {
    let server = Server::start().await;
    let busy = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&busy);
    let thread = std::thread::spawn(move || {
        let mut sum = 0_u64;
        while still.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31) ^ 7);
        }
    });
    let (reply, refused) = soon(async {
        loop {
            let mut profile = server.connect().await;
            profile.request("GET", "/debug/pprof/profile?seconds=2&frequency=500", &[], None).await;
            let second = server.get("/debug/pprof/profile?seconds=1").await;
            let first = profile.reply("GET").await;
            // Whichever comes second is refused: try until it is the one asked for.
            if (first.status, second.status) == (200, 429) {
                return (first, second);
            }
        }
    })
    .await;
    busy.store(false, Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!(refused.error(), "event_store_backpressure");
    assert_eq!(server.get("/debug/pprof/profile?seconds=61").await.error(), "invalid_limit");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));

    let parts = fields(&reply.body);
    let all = |wanted: u64| {
        parts.iter().filter(move |(field, _)| *field == wanted).map(|(_, value)| value.unwrap_err())
    };
    let strings: Vec<_> = all(6).map(|text| std::str::from_utf8(text).unwrap()).collect();
    assert_eq!(strings[0], "");
    let kinds: Vec<_> = all(1).map(|kind| strings[numbers(kind)[&1] as usize]).collect();
    assert_eq!(kinds, ["samples", "cpu"]);
    let functions: BTreeSet<_> = all(5).map(|function| numbers(function)[&1]).collect();
    let locations: BTreeSet<_> = all(4)
        .map(|location| {
            let lines = fields(location).into_iter().find(|(field, _)| *field == 4);
            assert!(functions.contains(&numbers(lines.unwrap().1.unwrap_err())[&1]));
            numbers(location)[&1]
        })
        .collect();
    let mut stacks = 0;
    for sample in all(2) {
        for (field, value) in fields(sample) {
            let mut rest = value.unwrap_err();
            match field {
                1 => {
                    while !rest.is_empty() {
                        assert!(locations.contains(&varint(&mut rest)));
                    }
                }
                2 => {
                    let count = varint(&mut rest);
                    assert_eq!(varint(&mut rest), count * 2_000_000, "500 per second");
                    stacks += count;
                }
                _ => {}
            }
        }
    }
    assert!(stacks > 0, "a thread was busy all the while");
    let here = "a_profile_of_a_busy_node_reads_back_and_is_taken_alone";
    assert!(strings.iter().any(|text| text.contains(here)), "the busy function has its name");
    // And another may be taken now.
    // Another test of this process may be taking one.
    let status = soon(async {
        loop {
            let reply = server.get("/debug/pprof/profile?seconds=1&frequency=1").await;
            if reply.status != 429 {
                return reply.status;
            }
        }
    });
    assert_eq!(status.await, 200);
}
