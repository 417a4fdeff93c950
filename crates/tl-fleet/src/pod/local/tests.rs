use super::*;
use crate::ids::{Attempt, PodId};
use crate::recover::DeadReason;

fn report(outcome: Outcome) -> Finish {
    let key = ClaimKey { id: StepId::fresh(), token: ClaimToken::fresh() };
    Finish { key, outcome }
}

fn all_kinds() -> Vec<Finish> {
    let json = JsonText::value("result", r#"{"a": 1}"#).unwrap();
    vec![
        report(Outcome::Completed { result: json }),
        report(Outcome::Failed { error: "e'".to_owned(), retry_in_ms: 7 }),
        report(Outcome::Fatal { error: String::new() }),
        report(Outcome::Cancelled),
        report(Outcome::Released),
    ]
}

#[test]
fn reports_come_back_in_order_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let reports = all_kinds();
    let local = Local::open(folder.path()).unwrap();
    assert_eq!(local.journal(&reports).unwrap(), []);
    drop(local);
    let local = Local::open(folder.path()).unwrap();
    let (upto, found) = local.oldest().unwrap().unwrap();
    assert_eq!(found, reports);
    local.delivered(upto).unwrap();
    assert_eq!(local.oldest().unwrap(), None);
}

#[test]
fn a_report_that_comes_twice_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path()).unwrap();
    let reports = all_kinds();
    local.journal(&reports).unwrap();
    local.journal(&reports).unwrap();
    assert_eq!(local.journal_len().unwrap(), 5);
}

#[test]
fn the_journal_is_full_at_its_limits_and_says_how_many_found_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path()).unwrap();
    let many: Vec<_> = (0..JOURNAL_REPORTS_MAX - 1).map(|_| report(Outcome::Cancelled)).collect();
    assert_eq!(local.journal(&many).unwrap(), []);
    let kinds = all_kinds();
    let dropped: Vec<_> = kinds[1..].iter().map(|report| report.key).collect();
    assert_eq!(local.journal(&kinds).unwrap(), dropped, "one found room");
    assert_eq!(local.journal_len().unwrap(), JOURNAL_REPORTS_MAX.unsigned_abs());

    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path()).unwrap();
    let megabyte = JsonText::value("result", &format!("\"{}\"", "x".repeat(1 << 20))).unwrap();
    let large = |_| report(Outcome::Completed { result: megabyte.clone() });
    let many: Vec<_> = (0..64).map(large).collect();
    assert_eq!(local.journal(&many).unwrap().len(), 1, "a little more than a megabyte each");
    assert_eq!(local.journal(&all_kinds()).unwrap(), [], "small ones find the room that is left");
    let rest = JsonText::value("result", &format!("\"{}\"", "é".repeat(400 << 10))).unwrap();
    let rest = [
        report(Outcome::Completed { result: rest.clone() }),
        report(Outcome::Completed { result: rest }),
    ];
    assert_eq!(local.journal(&rest).unwrap().len(), 1, "bytes count and not letters");
}

#[test]
fn one_pod_at_a_time_uses_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path()).unwrap();
    assert!(matches!(Local::open(folder.path()), Err(LocalError::InUse)));
    drop(local);
    Local::open(folder.path()).unwrap();
}

#[test]
fn the_ledger_names_what_a_cycle_did_and_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path()).unwrap();
    let one = |state, reason| Recovered {
        id: StepId::fresh(),
        claimed_by: PodId::new("gone").unwrap(),
        attempt: Attempt(2),
        charged: 2,
        attempts_max: 4,
        claimed_at: tl_types::UnixMs(1),
        state,
        reason,
    };
    let recovered = [
        one(StepState::Pending, None),
        one(StepState::Failed, Some(DeadReason::Poison)),
        one(StepState::Cancelled, None),
    ];
    local.ledger("cycle-1", 5, &recovered).unwrap();
    let rows = local.ledger_rows(10).unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.reason.as_str(), row.action.as_str())).collect();
    let expected = [("cancelled", "terminal"), ("poison", "terminal"), ("dead_pod", "requeue")];
    assert_eq!(seen, expected);
    assert_eq!((rows[0].retry_count, rows[0].max_retries), (1, 3));
    assert_eq!(local.ledger_rows(1).unwrap().len(), 1);
}
