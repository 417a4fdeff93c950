#![allow(clippy::unwrap_used)]

use bytes::Buf;
use proptest::prelude::*;

use super::*;
use crate::transport::batch::{BATCH_BYTES_MAX, BATCH_FRAMES_MAX};
use crate::transport::codec::Decoder;
use crate::transport::hello::Lane;

/// Heartbeats of one group, as the driver writes them.
const BEATS: &[u8] = &[1, 1, 1, 7, 7, 5];

fn queue(bytes_max: usize, frames_max: usize) -> Queue {
    Queue::new(QueueLimits { bytes_max, frames_max })
}

fn beats(group: u8) -> Bytes {
    let mut frame = BEATS.to_vec();
    frame[3] = group;
    frame.into()
}

/// A frame of the driver that holds more than heartbeats; its content does not matter here.
fn append(number: u8, payload_bytes: usize) -> Bytes {
    let mut frame = vec![number; payload_bytes.max(3)];
    frame[..2].copy_from_slice(&[1, 3]);
    frame.into()
}

fn frames(batch: &mut Batch) -> Vec<(FrameKind, Bytes)> {
    let mut decoder = Decoder::new(Lane::Main);
    let mut frames = Vec::new();
    while batch.has_remaining() {
        let count = {
            let mut room = decoder.room();
            let count = batch.chunk().len().min(bytes::BufMut::remaining_mut(&room));
            bytes::BufMut::put_slice(&mut room, &batch.chunk()[..count]);
            count
        };
        batch.advance(count);
        while let Some(frame) = decoder.frame().unwrap() {
            frames.push(frame);
        }
    }
    assert!(decoder.is_between_frames());
    frames
}

#[test]
fn at_the_limit_a_frame_is_taken_and_one_past_it_refused() {
    let mut by_bytes = queue(100, 9);
    assert_eq!(by_bytes.push(FrameKind::Raft, append(5, 60)), Ok(()));
    assert_eq!(by_bytes.push(FrameKind::Raft, append(5, 41)), Err(Full));
    assert_eq!(by_bytes.push(FrameKind::Raft, append(5, 40)), Ok(()));
    assert_eq!(by_bytes.push(FrameKind::Raft, append(5, 3)), Err(Full));
    assert_eq!((by_bytes.bytes(), by_bytes.frames()), (100, 2));
    // Requests have room of their own, and so have heartbeats.
    assert!(by_bytes.has_room(100) && !by_bytes.has_room(101));
    assert_eq!(by_bytes.push(FrameKind::Request, append(5, 100)), Ok(()));
    assert_eq!(by_bytes.push(FrameKind::Reply, append(5, 3)), Err(Full));
    assert_eq!(by_bytes.push(FrameKind::Raft, beats(7)), Ok(()));

    let mut by_frames = queue(1_000, 2);
    assert_eq!(by_frames.push(FrameKind::Bulk, Bytes::new()), Ok(()));
    assert_eq!(by_frames.push(FrameKind::Bulk, Bytes::new()), Ok(()));
    assert_eq!(by_frames.push(FrameKind::Bulk, Bytes::new()), Err(Full));
    by_frames.next_batch();
    assert_eq!(by_frames.push(FrameKind::Bulk, Bytes::new()), Ok(()));

    let mut urgent = queue(1_000, 2);
    for _ in 0..URGENT_FRAMES_MAX {
        assert_eq!(urgent.push(FrameKind::Raft, beats(7)), Ok(()));
    }
    assert_eq!(urgent.push(FrameKind::Raft, beats(7)), Err(Full));
}

#[test]
fn heartbeats_wait_for_no_more_than_what_is_being_written() {
    let mut queue = queue(64 << 20, 99);
    let large = append(9, 10 << 20);
    queue.push(FrameKind::Raft, large.clone()).unwrap();
    queue.push(FrameKind::Raft, large.clone()).unwrap();
    queue.push(FrameKind::Request, large.clone()).unwrap();
    let mut first = queue.next_batch();
    queue.push(FrameKind::Raft, beats(1)).unwrap();
    queue.push(FrameKind::Raft, beats(2)).unwrap();
    let mut second = queue.next_batch();
    assert_eq!(frames(&mut first), [(FrameKind::Raft, large)]);
    assert_eq!(frames(&mut second), [(FrameKind::Raft, beats(1)), (FrameKind::Raft, beats(2))]);
}

#[test]
fn raft_and_requests_take_turns() {
    let mut queue = queue(1_000, 99);
    for number in [4, 5, 6] {
        queue.push(FrameKind::Request, append(number, 3)).unwrap();
    }
    for number in [7, 8, 9] {
        queue.push(FrameKind::Raft, append(number, 3)).unwrap();
    }
    let order: Vec<u8> = frames(&mut queue.next_batch()).iter().map(|(_, f)| f[2]).collect();
    assert_eq!(order, [7, 4, 8, 5, 9, 6]);
}

#[test]
fn only_heartbeats_and_their_answers_are_urgent() {
    for (frame, urgent) in [
        (BEATS.to_vec(), true),
        (vec![1, 2, 1, 7, 7, 5], true),
        (vec![1, 1, 1, 7, 7, 5, 2, 2, 7, 7, 5, 8, 7, 0x85, 1], true),
        (vec![1, 1, 1, 7, 7, 5, 3, 9, 1, 1], false),
        (vec![1, 3, 9, 1, 1], false),
        (vec![1, 1, 2, 7, 7, 5], false),
        (vec![2, 1, 1, 7, 7, 5], false),
        (vec![1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], false),
        (vec![], false),
    ] {
        assert_eq!(only_beats(&frame), urgent, "{frame:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(FrameKind, usize, bool),
    Take,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(FrameKind::Raft), Just(FrameKind::Request), Just(FrameKind::Reply)];
    let size = prop_oneof![3_usize..50, Just(BATCH_BYTES_MAX / 2), Just(BATCH_BYTES_MAX + 1)];
    prop_oneof![
        12 => (kind, size, any::<bool>()).prop_map(|(kind, size, beats)| Step::Push(kind, size, beats)),
        3 => Just(Step::Take),
        1 => Just(Step::Clear),
    ]
}

fn class(kind: FrameKind, payload: &[u8]) -> usize {
    match kind {
        FrameKind::Raft => usize::from(!only_beats(payload)),
        FrameKind::Request | FrameKind::Reply | FrameKind::Bulk => 2,
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_reordered_within_its_class_and_limits_hold(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let limits = QueueLimits { bytes_max: 2 * BATCH_BYTES_MAX, frames_max: 40 };
        let mut queue = Queue::new(limits);
        // What waits, by class, in the order in which it was taken in.
        let mut waiting: [VecDeque<(FrameKind, Bytes)>; 3] = Default::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(kind, size, as_beats) => {
                    let number = u8::try_from(number % 100).unwrap();
                    let payload = match as_beats && kind == FrameKind::Raft {
                        true => beats(number),
                        false => append(number, size),
                    };
                    if queue.push(kind, payload.clone()).is_ok() {
                        waiting[class(kind, &payload)].push_back((kind, payload));
                    } else {
                        let class = &waiting[class(kind, &payload)];
                        let bytes: usize = class.iter().map(|(_, payload)| payload.len()).sum();
                        prop_assert!(
                            class.len() >= limits.frames_max
                                || bytes + payload.len() > limits.bytes_max
                        );
                    }
                }
                Step::Take => {
                    let mut batch = queue.next_batch();
                    prop_assert!(batch.frames() <= BATCH_FRAMES_MAX);
                    prop_assert!(batch.frames() < 2 || batch.remaining() <= BATCH_BYTES_MAX);
                    prop_assert!(batch.frames() > 0 || queue.frames() == 0);
                    let urgent_waited = !waiting[0].is_empty();
                    let frames = frames(&mut batch);
                    if let Some((kind, payload)) = frames.first() && urgent_waited {
                        prop_assert_eq!(class(*kind, payload), 0);
                    }
                    for (kind, payload) in frames {
                        let expected = waiting[class(kind, &payload)].pop_front();
                        prop_assert_eq!(expected, Some((kind, payload)));
                    }
                }
                Step::Clear => {
                    let all: Vec<_> = queue.clear().collect();
                    let expected: Vec<_> =
                        waiting.iter_mut().flat_map(std::mem::take).collect();
                    prop_assert_eq!(all, expected);
                }
            }
            let frames: usize = waiting.iter().map(VecDeque::len).sum();
            let bytes: usize = waiting.iter().flatten().map(|(_, payload)| payload.len()).sum();
            prop_assert_eq!((queue.frames(), queue.bytes()), (frames, bytes));
        }
    }
}
