#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn hash(value: u128) -> ContentHash {
    ContentHash { algorithm: 1, value }
}

fn write(first: u64, last: u64, first_seq: u64, value: u128) -> Write {
    Write { first, last, first_seq: Seq(first_seq), hash: hash(value) }
}

fn sample() -> ProducerRow {
    let writes = [write(1, 1, 10, 0xa), write(2, 300, 11, 0xb), write(301, 301, 400, 0xc)];
    ProducerRow::decode(&encoded(&writes)).unwrap()
}

fn encoded(writes: &[Write]) -> Bytes {
    let mut row: Option<ProducerRow> = None;
    for write in writes {
        let bytes = ProducerRow::encode_with(row.as_ref(), Seq(400), *write);
        row = Some(ProducerRow::decode(&bytes).unwrap());
    }
    let mut bytes = vec![VERSION];
    let row = row.unwrap();
    bytes.extend_from_slice(&row.age_seq.0.to_be_bytes());
    bytes.push(row.count);
    bytes.extend_from_slice(&row.writes);
    bytes.into()
}

#[test]
fn producer_bytes_are_a_promise_golden() {
    let writes: Vec<Write> = sample().writes().collect();
    let hex: String = encoded(&writes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("../../../golden/producer.txt").trim());
    assert_eq!(writes[1], write(2, 300, 11, 0xb));
    assert_eq!(ProducerRow::decode(&encoded(&writes)), Ok(sample()));
}

#[test]
fn the_oldest_write_goes_when_there_are_too_many() {
    let kept = PRODUCER_WRITES_KEPT as u64;
    let all: Vec<Write> = (1..=kept + 1).map(|n| write(n, n, n, n.into())).collect();
    let row = ProducerRow::decode(&encoded(&all)).unwrap();
    assert_eq!(row.writes().collect::<Vec<_>>(), all[1..]);
}

#[test]
fn writes_are_judged_by_range_and_content() {
    let row = sample();
    let judge = |first, last, value| ProducerRow::judge(Some(&row), first, last, hash(value));
    assert_eq!(judge(302, 302, 0xd), Verdict::New);
    assert_eq!(judge(302, 400, 0xd), Verdict::New);
    assert_eq!(judge(2, 300, 0xb), Verdict::Duplicate(Seq(11)));
    assert_eq!(judge(2, 300, 0xd), Verdict::Replay);
    assert_eq!(judge(2, 299, 0xb), Verdict::OutOfLine);
    assert_eq!(judge(1, 300, 0xb), Verdict::OutOfLine);
    assert_eq!(judge(303, 303, 0xd), Verdict::OutOfLine);
    assert_eq!(ProducerRow::judge(None, 1, 5, hash(1)), Verdict::New);
    assert_eq!(ProducerRow::judge(None, 2, 5, hash(1)), Verdict::OutOfLine);
}

#[test]
fn hashes_of_different_algorithms_are_never_equal() {
    let other = ContentHash { algorithm: 2, value: 0xa };
    assert_eq!(ProducerRow::judge(Some(&sample()), 1, 1, other), Verdict::Replay);
}

proptest! {
    #[test]
    fn no_bytes_make_producer_reading_panic(mut bytes: Vec<u8>, at in 0usize..60, byte: u8) {
        let _ = ProducerRow::decode(&bytes.clone().into());
        bytes = encoded(&sample().writes().collect::<Vec<_>>()).to_vec();
        bytes[at] = byte;
        if let Ok(row) = ProducerRow::decode(&bytes.into()) {
            let _ = ProducerRow::judge(Some(&row), 1, u64::MAX, hash(0));
        }
    }
}
