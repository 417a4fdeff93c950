#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use proptest::prelude::*;
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{Entry, EntryType, MessageType};
use tl_types::{GroupId, Index, Term};

use super::build::LATE_ANSWERS_MAX;
use super::*;
use crate::group::Beat;
use crate::members::Members;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..200u64, 0..NUMBER_MAX]
}

fn context() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=CONTEXT_BYTES_MAX)
}

/// Any message that Raft sends between nodes, with the fields that its kind uses.
fn message() -> impl Strategy<Value = Message> {
    let entries = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5);
    let parts = (
        0..12usize,
        1..NUMBER_MAX,
        number(),
        number(),
        number(),
        any::<bool>(),
        context(),
        entries,
    );
    parts.prop_map(|(kind, term, a, b, c, flag, context, datas)| {
        let mut message = Message::default();
        message.term = term;
        let one_entry = |data: Vec<u8>| {
            let mut entry = Entry::default();
            entry.data = data.into();
            vec![entry].into()
        };
        let kinds = [
            MessageType::MsgAppend,
            MessageType::MsgAppendResponse,
            MessageType::MsgRequestVote,
            MessageType::MsgRequestPreVote,
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgRequestPreVoteResponse,
            MessageType::MsgHeartbeat,
            MessageType::MsgHeartbeatResponse,
            MessageType::MsgTimeoutNow,
            MessageType::MsgReadIndex,
            MessageType::MsgReadIndexResp,
            MessageType::MsgSnapshot,
        ];
        message.set_msg_type(kinds[kind]);
        match kinds[kind] {
            MessageType::MsgAppend => {
                message.index = a;
                message.log_term = b.min(term);
                message.commit = c;
                let entries = datas.into_iter().zip(1..).map(|(data, offset)| {
                    let mut entry = Entry::default();
                    entry.index = a + offset;
                    entry.term = term;
                    entry.data = data.into();
                    entry
                });
                message.set_entries(entries.collect::<Vec<_>>().into());
            }
            MessageType::MsgAppendResponse => {
                (message.index, message.log_term, message.commit) = (a, b, c);
                (message.reject, message.reject_hint) = (flag, a / 2);
            }
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                (message.index, message.log_term, message.commit, message.commit_term) =
                    (a, b, c, b);
                if flag {
                    message.context = Bytes::from_static(CAMPAIGN_TRANSFER);
                }
            }
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
                (message.reject, message.commit, message.commit_term) = (flag, a, b);
            }
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => {
                message.commit = a;
                message.context = context.into();
            }
            MessageType::MsgReadIndex => {
                message.term = 0;
                message.set_entries(one_entry(context));
            }
            MessageType::MsgSnapshot => {
                let metadata = message.mut_snapshot().mut_metadata();
                (metadata.index, metadata.term) = (a.max(1), b.clamp(1, term));
            }
            MessageType::MsgReadIndexResp => {
                message.index = a;
                message.set_entries(one_entry(context));
            }
            _ => {}
        }
        message
    })
}

fn decoded(frame: &Bytes) -> Result<Vec<(GroupId, Message)>, FrameError> {
    let mut found = Vec::new();
    decode(frame, |group, message| found.push((group, message)))?;
    Ok(found)
}

/// Order within a frame is by part, so compare as sorted by what is printed.
fn sorted(messages: &[(GroupId, Message)]) -> Vec<String> {
    let mut shown: Vec<_> =
        messages.iter().map(|(group, message)| format!("{group} {message:?}")).collect();
    shown.sort();
    shown
}

proptest! {
    #[test]
    fn what_goes_into_a_frame_comes_out(sent in prop::collection::vec((any::<u16>().prop_map(GroupId), message()), 1..20)) {
        let mut builder = FrameBuilder::default();
        for (group, message) in &sent {
            prop_assert!(builder.push(*group, message));
        }
        let mut came = Vec::new();
        for frame in builder.finish() {
            came.extend(decoded(&frame).unwrap());
        }
        prop_assert_eq!(sorted(&came), sorted(&sent));
        prop_assert_eq!(builder.finish().next(), None, "the builder is empty again");
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decoded(&Bytes::from(bytes.clone()));
        let mut versioned = vec![VERSION];
        versioned.extend(bytes);
        let _ = decoded(&Bytes::from(versioned));
    }

    #[test]
    fn a_damaged_frame_is_a_frame_or_an_error(
        sent in prop::collection::vec(message(), 1..5),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut builder = FrameBuilder::default();
        for message in &sent {
            builder.push(GroupId(7), message);
        }
        let mut bytes = builder.finish().last().unwrap().to_vec();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let _ = decoded(&Bytes::from(bytes));
    }
}

#[test]
fn the_heartbeats_of_all_groups_take_a_few_bytes_each() {
    let mut builder = FrameBuilder::default();
    let mut beat = Message::default();
    beat.set_msg_type(MessageType::MsgHeartbeat);
    beat.term = 9;
    beat.commit = 1_000_000;
    for group in 0..256 {
        builder.push(GroupId(group), &beat);
    }
    let frame = builder.finish().next().unwrap();
    assert!(frame.len() < 256 * 8, "{} bytes", frame.len());
    assert_eq!(decoded(&frame).unwrap().len(), 256);
}

/// The bytes of version 1, as they must stay.
#[test]
fn the_encoding_does_not_change() {
    let mut append = Message::default();
    append.set_msg_type(MessageType::MsgAppend);
    (append.term, append.index, append.log_term, append.commit) = (5, 300, 4, 299);
    let mut entry = Entry::default();
    (entry.index, entry.term, entry.data) = (301, 5, Bytes::from_static(b"hi"));
    append.set_entries(vec![entry].into());
    let mut beat = Message::default();
    beat.set_msg_type(MessageType::MsgHeartbeat);
    (beat.term, beat.commit) = (5, 299);

    let mut builder = FrameBuilder::default();
    builder.push(GroupId(3), &append);
    builder.push(GroupId(2), &beat);
    let beats = [
        1, // version
        1, 1, 2, 5, 0xab, 2, // one heartbeat: group 2, term 5, commit 299
    ];
    let rest = [
        1, // version
        3, 1, 3, 5, 0xac, 2, 4, 0xab, 2, 1, 5, 2, b'h', b'i', // append to group 3
    ];
    assert_eq!(builder.finish().collect::<Vec<_>>(), [&beats[..], &rest[..]]);
    let both = [&beats[..], &rest[1..]].concat();
    assert_eq!(decoded(&both.into()).unwrap().len(), 2, "one frame may carry both kinds");
}

#[test]
fn answers_that_may_wait_go_with_the_next_beat_or_when_there_are_many() {
    let beat = |term| Beat { term: tl_types::Term(term), committed: Index(299) };
    let mut builder = FrameBuilder::default();
    builder.answer(GroupId(2), beat(5));
    assert_eq!(builder.finish().next(), None);
    builder.beat(GroupId(3), beat(6));
    let frame = [
        1, // version
        1, 1, 3, 6, 0xab, 2, // one heartbeat: group 3, term 6, commit 299
        2, 1, 2, 5, 0xab, 2, // one answer: group 2, term 5, commit 299
    ];
    assert_eq!(builder.finish().collect::<Vec<_>>(), [&frame[..]]);

    builder.answer(GroupId(2), beat(5));
    builder.beats_now();
    assert_eq!(builder.finish().collect::<Vec<_>>(), [&[1, 2, 1, 2, 5, 0xab, 2][..]]);

    for _ in 1..LATE_ANSWERS_MAX {
        builder.answer(GroupId(2), beat(5));
    }
    assert_eq!(builder.finish().next(), None, "one less than the most");
    builder.answer(GroupId(2), beat(5));
    assert_eq!(builder.finish().count(), 1);
}

#[test]
fn messages_that_stay_on_the_node_are_not_encoded() {
    for kind in [MessageType::MsgPropose, MessageType::MsgSnapStatus, MessageType::MsgHup] {
        let mut message = Message::default();
        message.set_msg_type(kind);
        let mut builder = FrameBuilder::default();
        assert!(!builder.push(GroupId(1), &message));
        assert_eq!(builder.finish().next(), None);
    }
}

#[test]
fn a_snapshot_of_nothing_or_of_a_later_term_is_refused() {
    let encoded = |index, of_term, term| {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        message.term = term;
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (index, of_term);
        let mut builder = FrameBuilder::default();
        assert!(builder.push(GroupId(3), &message));
        builder.finish().next().unwrap()
    };
    assert_eq!(encoded(300, 4, 5), [1, 3, 12, 3, 5, 0xac, 2, 4].as_slice());
    assert_eq!(decoded(&encoded(300, 5, 5)).unwrap().len(), 1);
    for refused in [encoded(0, 4, 5), encoded(300, 6, 5), encoded(300, 0, 5)] {
        assert!(decoded(&refused).is_err());
    }
}

#[test]
fn a_snapshot_with_members_is_of_the_second_version() {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    message.term = 5;
    let snapshot = message.mut_snapshot();
    (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (300, 4);
    let mut members = Members::founding(&[1, 2, 3].map(crate::PeerId));
    members.at = Index(9);
    snapshot.data = members.encode();
    let mut builder = FrameBuilder::default();
    assert!(builder.push(GroupId(3), &message));
    let frame = builder.finish().next().unwrap();
    assert_eq!(frame[..9], [2, 3, 14, 3, 5, 0xac, 2, 4, members.encode().len() as u8]);
    assert_eq!(frame[9..], members.encode());
    assert_eq!(decoded(&frame).unwrap(), [(GroupId(3), message)]);
    // The first version knows no such kind, and the next frame is of the first version again.
    let older = [&[1], &frame[1..]].concat();
    assert!(decoded(&older.into()).is_err());
    let mut append = Message::default();
    append.set_msg_type(MessageType::MsgTimeoutNow);
    append.term = 5;
    builder.push(GroupId(3), &append);
    assert_eq!(builder.finish().next().unwrap()[0], VERSION);
    for at in 10..frame.len() {
        assert!(decoded(&frame.slice(..at)).is_err(), "cut at {at}");
    }
}

#[test]
fn an_entry_of_members_is_known_for_one() {
    let mut members = Members::founding(&[1, 2, 3].map(crate::PeerId));
    members.at = Index(301);
    let mut entry = Entry::default();
    (entry.index, entry.term, entry.data) = (301, 5, members.encode_entry());
    let mut append = Message::default();
    append.set_msg_type(MessageType::MsgAppend);
    (append.term, append.index, append.log_term, append.commit) = (5, 300, 4, 299);
    append.set_entries(vec![entry].into());
    let mut builder = FrameBuilder::default();
    builder.push(GroupId(3), &append);
    let frame = builder.finish().next().unwrap();
    assert_eq!(frame[0], VERSION, "an entry is an entry");
    let messages = decoded(&frame).unwrap();
    let entry = &messages[0].1.entries[0];
    assert_eq!(entry.get_entry_type(), EntryType::EntryConfChangeV2);
    assert_eq!(entry.data, members.encode_entry());
}

#[test]
fn heartbeats_leave_in_a_frame_of_their_own() {
    let mut builder = FrameBuilder::default();
    for kind in [
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgAppendResponse,
        MessageType::MsgTimeoutNow,
    ] {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message.term = 3;
        builder.push(GroupId(1), &message);
    }
    let frames: Vec<Bytes> = builder.finish().collect();
    assert_eq!(frames.iter().map(|frame| only_beats(frame)).collect::<Vec<_>>(), [true, false]);
    assert_eq!(decoded(&frames[0]).unwrap().len(), 2);
    assert_eq!(decoded(&frames[1]).unwrap().len(), 2);
}

fn notes() -> impl Strategy<Value = Note> {
    let told = (number(), number(), number(), number());
    prop_oneof![
        number().prop_map(|number| Note::Asked { number }),
        told.prop_map(|(number, term, last, at)| {
            let (term, last, members_at) = (Term(term), Index(last), Index(at));
            Note::Told { number, term, last, members_at }
        }),
    ]
}

proptest! {
    #[test]
    fn notes_of_doubted_replicas_come_out_of_a_frame_of_their_own(
        sent in prop::collection::vec((any::<u16>().prop_map(GroupId), notes()), 1..20),
        message in message(),
    ) {
        let mut builder = FrameBuilder::default();
        builder.push(GroupId(1), &message);
        sent.iter().for_each(|(group, note)| builder.push_note(*group, note));
        let frames: Vec<Bytes> = builder.finish().collect();
        prop_assert_eq!(frames.len(), 2);
        let mut came = Vec::new();
        decode_said(&frames[1], |group, said| came.push((group, said))).unwrap();
        let sent: Vec<_> = sent.into_iter().map(|(to, note)| (to, Said::Doubt(note))).collect();
        prop_assert_eq!(came, sent);
        prop_assert_eq!(builder.finish().next(), None, "the builder is empty again");
    }
}

/// The bytes of version 3, as they must stay.
#[test]
fn notes_are_of_the_third_version() {
    let mut builder = FrameBuilder::default();
    builder.push_note(GroupId(2), &Note::Asked { number: 300 });
    let (term, last, members_at) = (Term(5), Index(299), Index(7));
    builder.push_note(GroupId(2), &Note::Told { number: 300, term, last, members_at });
    let frame = builder.finish().next().unwrap();
    let bytes = [
        3, // version
        4, 1, 2, 0xac, 2, // group 2 asks under number 300
        4, 2, 2, 0xac, 2, 5, 0xab, 2, 7, // told: term 5, last entry 299, members of entry 7
    ];
    assert_eq!(frame, bytes.as_slice());
    assert!(!only_beats(&frame));
    let older = [&[2], &frame[1..]].concat();
    assert!(decoded(&older.into()).is_err(), "the second version knows no such part");
    for at in [2, 3, 4, 5, 7, 12] {
        assert!(decode_said(&frame.slice(..at), |_, _| ()).is_err(), "cut at {at}");
    }
    let unknown = Bytes::from_static(&[3, 4, 3, 2, 1]);
    assert!(decode_said(&unknown, |_, _| ()).is_err());
}
