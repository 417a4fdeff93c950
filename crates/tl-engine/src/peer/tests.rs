use bytes::Bytes;
use tl_core::reply::Appended;
use tl_core::{Reason, Reply};
use tl_raft::PeerId;
use tl_types::limits::{ENTRY_BYTES_MAX, MEMBER_LIST_BYTES_MAX};
use tl_types::{ErrorCode, GroupId, Index, Seq};

use super::refusal::{FACT_NAMES, MESSAGE_BYTES_MAX};
use super::{Answer, Question};
use crate::api::ServiceError;
use crate::ops::{Lag, Report, Standing};

fn report() -> Report {
    Report {
        standing: Standing::Draining,
        is_disk_full: true,
        groups_led: 85,
        tails_open: 70_000,
        stopped: vec![GroupId(3), GroupId(255)],
        asker: Some(Lag { groups: 2, worst: GroupId(9), entries: 20_000, is_cut_off: true }),
        reason: "draining".to_owned(),
        level_spoken: 1,
    }
}

fn answers() -> Vec<Answer> {
    let appended = Appended {
        first_seq: Seq(7),
        last_seq: Seq(8),
        head_seq: Seq(9),
        archived_seq: Seq(1),
        deduped: true,
    };
    let refused = ServiceError::of(ErrorCode::ExpectedSeqConflict)
        .with("expected_seq", 3u64)
        .with("unit", "events");
    vec![
        Answer::Taken { index: Index(44), replies: vec![Reply::Appended(appended), Reply::Done] },
        Answer::Refused(refused),
        Answer::NotTaken { leader: Some(PeerId(3)) },
        Answer::NotTaken { leader: None },
        Answer::Unknown,
        Answer::Clock { wall_ms: 1_700_000_000_000, may_lead: true },
        Answer::Clock { wall_ms: 0, may_lead: false },
        Answer::Report(report()),
        Answer::Report(Report {
            standing: Standing::Ready,
            stopped: Vec::new(),
            asker: None,
            reason: String::new(),
            ..report()
        }),
        Answer::Report(Report { level_spoken: 0x0203, ..report() }),
        Answer::Members(Bytes::new()),
        Answer::Members(Bytes::from_static(b"list")),
    ]
}

fn questions() -> Vec<Question> {
    let entry = Bytes::from_static(b"entry");
    vec![
        Question::Propose { group: GroupId(9), wait_ms: 5_000, entry },
        Question::Clock,
        Question::Report,
        Question::Drain { on: true },
        Question::Drain { on: false },
        Question::Transfer { group: GroupId(7), to: PeerId(3) },
        Question::Members { number: 3 },
        Question::Repair { group: GroupId(258) },
    ]
}

#[test]
fn what_is_asked_and_answered_comes_back() {
    for question in questions() {
        assert_eq!(Question::decode(question.encode(8)), Ok((8, question)));
    }
    for answer in answers() {
        assert_eq!(Answer::decode(answer.encode(u64::MAX)), Ok((u64::MAX, answer)));
    }
}

#[test]
fn the_encoding_of_version_1_does_not_change() {
    let propose = questions().remove(0).encode(0x0102);
    assert_eq!(propose.as_ref(), b"\x01\x01\0\0\0\0\0\0\x01\x02\0\x09\0\0\x13\x88entry".as_slice());
    let repair = Question::Repair { group: GroupId(258) }.encode(2);
    assert_eq!(repair.as_ref(), b"\x01\x07\0\0\0\0\0\0\0\x02\x01\x02".as_slice());
    let not_taken = Answer::NotTaken { leader: Some(PeerId(3)) }.encode(2);
    assert_eq!(not_taken.as_ref(), b"\x01\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03".as_slice());
    let report = Answer::Report(report()).encode(1);
    let expected = b"\x01\x06\0\0\0\0\0\0\0\x01\x02\x01\0\x55\0\x01\x11\x70\0\x02\0\x03\0\xff\
        \0\x02\0\x09\0\0\0\0\0\0\x4e\x20\x01\x08draining";
    assert_eq!(report.as_ref(), expected.as_slice());
}

#[test]
fn a_report_without_a_level_is_of_the_first_one_and_later_fields_are_skipped() {
    let of = |level_spoken| Answer::Report(Report { level_spoken, ..report() });
    let (before, second) = (of(1).encode(1), of(2).encode(1));
    assert_eq!(second.as_ref(), [before.as_ref(), b"\x01\x02\0\x02"].concat());
    let later = |more: &[u8]| Answer::decode([second.as_ref(), more].concat().into());
    assert_eq!(later(b"\x07\x03new"), Ok((1, of(2))));
    for none in [&b"\x01\x02\0\0"[..], b"\x01\x01\x02", b"\x01\x03\0\0\x02", b"\x07\x04new"] {
        assert!(later(none).is_err(), "{none:?}");
    }
}

#[test]
fn every_cut_and_every_changed_byte_is_a_message_or_an_error() {
    let whole = questions().into_iter().map(|question| question.encode(1));
    for bytes in whole.chain(answers().into_iter().map(|answer| answer.encode(1))) {
        for at in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] = byte;
                let damaged = Bytes::from(damaged);
                let (_, _) = (Question::decode(damaged.clone()), Answer::decode(damaged));
            }
            let (_, _) = (Question::decode(bytes.slice(..at)), Answer::decode(bytes.slice(..at)));
        }
    }
    let long = Question::Propose {
        group: GroupId(0),
        wait_ms: 0,
        entry: vec![0; ENTRY_BYTES_MAX + 1].into(),
    };
    assert!(Question::decode(long.encode(1)).is_err(), "one past the largest entry");
    let longest = |more| Answer::Members(vec![0; MEMBER_LIST_BYTES_MAX + more].into());
    assert!(Answer::decode(longest(0).encode(1)).is_ok());
    assert!(Answer::decode(longest(1).encode(1)).is_err(), "one past the largest list");
}

#[test]
fn facts_of_every_refusal_by_a_rule_are_sent_on() {
    for reason in [
        Reason::ExpectedSeq { expected: Seq(1), current: Seq(2) },
        Reason::ExpectedVersion { expected: 1, current: 2 },
        Reason::TooLarge { limit: "metadata", max: 3, got: 4 },
    ] {
        for (name, _) in reason.facts() {
            assert!(FACT_NAMES.contains(&name), "{name}");
        }
    }
    let long = ServiceError::new(ErrorCode::InternalError, "ä".repeat(MESSAGE_BYTES_MAX));
    let (_, answer) = Answer::decode(Answer::Refused(long).encode(1)).expect("cut to fit");
    let Answer::Refused(error) = answer else { panic!("{answer:?}") };
    assert_eq!(error.message.len(), MESSAGE_BYTES_MAX);
}
