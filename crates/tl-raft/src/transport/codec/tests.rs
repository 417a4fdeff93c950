#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn kinds_of(lane: Lane) -> Vec<FrameKind> {
    let all = [FrameKind::Raft, FrameKind::Request, FrameKind::Reply, FrameKind::Bulk];
    all.into_iter().filter(|kind| kind.lane() == lane).collect()
}

fn frames() -> impl Strategy<Value = (Lane, Vec<(FrameKind, Bytes)>)> {
    let payload = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), READ_BYTES - 20..READ_BYTES + 20),
        1 => prop::collection::vec(any::<u8>(), 3 * READ_BYTES..3 * READ_BYTES + 9),
    ];
    let lane = prop_oneof![Just(Lane::Main), Just(Lane::Bulk)];
    lane.prop_flat_map(move |lane| {
        let kind = prop::sample::select(kinds_of(lane));
        let frame = (kind, payload.clone().prop_map(Bytes::from));
        (Just(lane), prop::collection::vec(frame, 0..6))
    })
}

fn encoded(frames: &[(FrameKind, Bytes)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, payload) in frames {
        bytes.extend_from_slice(&head(*kind, payload));
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// What a decoder makes of the bytes, given so many at a time.
fn decoded(
    lane: Lane,
    mut bytes: &[u8],
    step: usize,
) -> (Vec<(FrameKind, Bytes)>, Result<bool, Damage>) {
    let mut decoder = Decoder::new(lane);
    let mut frames = Vec::new();
    loop {
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(damage) => return (frames, Err(damage)),
            }
        }
        if bytes.is_empty() {
            return (frames, Ok(decoder.is_between_frames()));
        }
        let mut room = decoder.room();
        let count = step.min(bytes.len()).min(room.remaining_mut());
        assert!(count > 0, "a decoder that has no frame takes more");
        room.put_slice(&bytes[..count]);
        bytes = &bytes[count..];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_come_back_in_order_however_they_are_cut(
        (lane, frames) in frames(),
        step in prop_oneof![1_usize..50, 1_000_usize..200_000],
    ) {
        let (again, end) = decoded(lane, &encoded(&frames), step);
        prop_assert_eq!(again, frames);
        prop_assert_eq!(end, Ok(true));
    }

    #[test]
    fn a_frame_cut_short_is_not_handed_on((lane, frames) in frames(), cut: prop::sample::Index) {
        let bytes = encoded(&frames);
        let cut = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
        let (again, end) = decoded(lane, &bytes[..cut], 1_000);
        prop_assert!(end.is_ok());
        prop_assert!(frames.starts_with(&again));
        prop_assert_eq!(end == Ok(true), encoded(&again).len() == cut);
    }

    #[test]
    fn a_changed_bit_never_becomes_another_frame(
        (lane, frames) in frames(),
        at: prop::sample::Index,
        bit in 0_u8..8,
    ) {
        let mut bytes = encoded(&frames);
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let (again, _) = decoded(lane, &bytes, 1_000);
        prop_assert!(frames.starts_with(&again));
        let harmed = encoded(&again).len();
        prop_assert!(harmed <= at, "the frame with byte {} was handed on", at);
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(bytes: Vec<u8>, step in 1_usize..64) {
        let whole = decoded(Lane::Main, &bytes, usize::MAX);
        prop_assert_eq!(decoded(Lane::Main, &bytes, step), whole);
    }
}

#[test]
fn a_frame_at_its_limit_is_taken_and_one_past_it_is_refused() {
    for kind in [FrameKind::Raft, FrameKind::Request, FrameKind::Reply, FrameKind::Bulk] {
        let most = Bytes::from(vec![7; kind.payload_bytes_max()]);
        let frames = vec![(kind, most)];
        let (again, end) = decoded(kind.lane(), &encoded(&frames), usize::MAX);
        assert_eq!((again == frames, end), (true, Ok(true)), "{kind:?}");

        let past = u32::try_from(kind.payload_bytes_max() + 1).unwrap();
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&past.to_le_bytes());
        head[8] = kind as u8;
        let mut decoder = Decoder::new(kind.lane());
        decoder.room().put_slice(&head);
        assert_eq!(decoder.frame(), Err("frame too long"), "{kind:?}");
        assert!(decoder.partial.is_none(), "nothing was set aside for it");
    }
}

#[test]
fn kinds_keep_to_their_connection() {
    let frame = |kind| encoded(&[(kind, Bytes::from_static(b"x"))]);
    let wrong = Err("kind of frame that belongs to the other connection");
    assert_eq!(decoded(Lane::Bulk, &frame(FrameKind::Raft), 99).1, wrong);
    assert_eq!(decoded(Lane::Main, &frame(FrameKind::Bulk), 99).1, wrong);
    let mut unknown = frame(FrameKind::Raft);
    unknown[8] = 5;
    assert_eq!(decoded(Lane::Main, &unknown, 99).1, Err("unknown kind of frame"));
}

#[test]
fn the_format_is_as_it_was_promised() {
    let golden = [3, 0, 0, 0, 0xd1, 0x88, 0xc1, 0x8b, 2, b'a', b'b', b'c'];
    assert_eq!(encoded(&[(FrameKind::Request, Bytes::from_static(b"abc"))]), golden);
}
