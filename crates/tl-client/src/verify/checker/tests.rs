use super::*;
use crate::content::NewEvent;

const SESSION: &str = "s";

fn content(text: &str) -> NewEvent {
    NewEvent::new("t", &serde_json::json!({ "x": text })).expect("event")
}

/// `ledger`: one write per word, `<producer><first position>[..<last position>][@<first seq>]`.
/// `seen`: `<seq>=<producer><position>[!]`, where `!` is other content.
/// Answers the finding words with their counts, or `clean`.
fn check(ledger: &str, seen: &str) -> String {
    let mut built = Ledger::default();
    let session: Arc<str> = SESSION.into();
    for word in ledger.split_whitespace() {
        let (write, seq) = word.split_once('@').map_or((word, None), |(w, s)| (w, Some(s)));
        let producer: Arc<str> = write[..1].into();
        let (first, last) = write[1..].split_once("..").unwrap_or((&write[1..], &write[1..]));
        let (first, last): (u64, u64) = (first.parse().expect("n"), last.parse().expect("n"));
        let events: Vec<NewEvent> =
            (first..=last).map(|at| content(&format!("{producer}{at}"))).collect();
        let number = built.attempt(&session, &producer, first, &events);
        if let Some(seq) = seq {
            built.acked(number, Seq(seq.parse().expect("seq")));
        }
    }
    let mut reading = Reading::new(session);
    for word in seen.split_whitespace() {
        let (seq, event) = word.split_once('=').expect("seq=event");
        let (event, other) = event.strip_suffix('!').map_or((event, ""), |event| (event, "!"));
        reading.sightings.push(Sighting {
            seq: Seq(seq.parse().expect("seq")),
            producer_id: event[..1].into(),
            producer_seq: event[1..].parse().expect("position"),
            hash: ContentHash::of_sent(&content(&format!("{event}{other}"))),
        });
    }
    let mut checker = Checker::new(&built);
    checker.complete(&reading);
    words(&checker.report())
}

fn words(report: &Report) -> String {
    if report.is_clean() {
        return format!("clean, {} unacknowledged", report.unacknowledged_present);
    }
    let words: Vec<String> =
        report.counts.iter().map(|(kind, count)| format!("{count} {}", kind.word())).collect();
    words.join(", ")
}

#[test]
fn everything_acknowledged_is_there_once() {
    assert_eq!(check("a1@1 b1@2 a2..4@3", "1=a1 2=b1 3=a2 4=a3 5=a4"), "clean, 0 unacknowledged");
}

#[test]
fn an_unacknowledged_write_may_be_there_once_or_not_at_all() {
    assert_eq!(check("a1@1 a2", "1=a1 2=a2"), "clean, 1 unacknowledged");
    assert_eq!(check("a1@1 a2", "1=a1"), "clean, 0 unacknowledged");
    assert_eq!(check("a1@1 a2", "1=a1 2=a2 3=a2"), "1 doubled");
}

#[test]
fn an_acknowledged_write_that_is_missing_is_lost() {
    assert_eq!(check("a1@1 a2@2", "1=a1"), "1 lost");
    assert_eq!(check("a1@1 a2@2 b1@3", "1=a1 3=b1"), "1 lost, 1 gap");
}

#[test]
fn doubles_and_disorder_are_told_apart() {
    assert_eq!(check("a1@1 a2@2", "1=a1 2=a2 2=a2"), "1 doubled");
    assert_eq!(check("a1@1 a2@2", "2=a2 1=a1"), "1 reordered, 1 gap");
    assert_eq!(check("a1 a2", "1=a2 2=a1"), "1 reordered");
}

#[test]
fn content_and_position_must_be_those_acknowledged() {
    assert_eq!(check("a1@1", "1=a1!"), "1 different content");
    assert_eq!(check("a1@1 b1@2", "1=b1 2=a1"), "2 moved");
    assert_eq!(check("a1@1", "1=a1 2=x1"), "1 never sent");
}

#[test]
fn a_batch_is_whole_or_absent() {
    assert_eq!(check("a1..3", ""), "clean, 0 unacknowledged");
    assert_eq!(check("a1..3", "1=a1 2=a2"), "1 torn batch");
    assert_eq!(check("a1..2 b1@2", "1=a1 2=b1 3=a2"), "1 torn batch");
}

#[test]
fn two_readers_must_see_the_same_event_at_a_position() {
    let session: Arc<str> = SESSION.into();
    let mut ledger = Ledger::default();
    for producer in ["a", "b"] {
        ledger.attempt(&session, &producer.into(), 1, &[content(&format!("{producer}1"))]);
    }
    let sighting = |producer: &str, seq| Sighting {
        seq: Seq(seq),
        producer_id: producer.into(),
        producer_seq: 1,
        hash: ContentHash::of_sent(&content(&format!("{producer}1"))),
    };
    let mut checker = Checker::new(&ledger);
    let mut early = Reading::new(session.clone());
    early.sightings.push(sighting("a", 1));
    checker.partial(&early);
    let mut late = Reading::new(session);
    late.sightings.extend([sighting("b", 1), sighting("a", 2)]);
    checker.complete(&late);
    assert_eq!(words(&checker.report()), "1 different content");
}
