//! Each check is shown what it must not let pass. That the nodes' bugs reach the checks is for
//! the planted bugs to prove.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use tl_core::reply::Appended;
use tl_core::{Reason, Reply, SessionHeader, SessionState};
use tl_raft::{Members, PeerId};
use tl_types::{GroupId, Incarnation, Index, Seq, Term, UnixMs};

use super::acknowledged::Acknowledged;
use super::applied_alike::AppliedAlike;
use super::commits::Commits;
use super::digests::Digests;
use super::elections::{Elections, votes};
use super::leader_completeness::LeaderCompleteness;
use super::linearizable::{Known, Linearizable};
use super::log_matching::LogMatching;
use super::origins::{Origin, Origins};
use super::positions::Positions;
use super::producers::Producers;
use super::stamps::Stamps;
use super::tails::Cursor;
use super::{
    archived, damaged, members as in_force, minority, one_life, presence, requests, synced_quorum,
};

const GROUP: GroupId = GroupId(3);

#[test]
fn two_leaders_of_a_term_are_noticed() {
    let mut elections = Elections::default();
    elections.led(GROUP, Term(2), 0, 1).unwrap();
    elections.led(GROUP, Term(2), 0, 1).unwrap();
    elections.led(GROUP, Term(3), 1, 1).unwrap();
    elections.led(GROUP, Term(2), 1, 1).unwrap_err();
}

#[test]
fn a_second_vote_in_a_term_and_a_falling_term_are_noticed() {
    votes(0, GROUP, (Term(2), 1), (Term(2), 1)).unwrap();
    votes(0, GROUP, (Term(2), 0), (Term(2), 3)).unwrap();
    votes(0, GROUP, (Term(2), 1), (Term(3), 2)).unwrap();
    votes(0, GROUP, (Term(2), 1), (Term(2), 2)).unwrap_err();
    votes(0, GROUP, (Term(2), 1), (Term(2), 0)).unwrap_err();
    votes(0, GROUP, (Term(2), 0), (Term(1), 1)).unwrap_err();
}

#[test]
fn one_place_in_two_logs_with_two_contents_is_noticed() {
    let mut logs = LogMatching::default();
    logs.wrote(GROUP, Index(1), Term(1), 7).unwrap();
    logs.wrote(GROUP, Index(1), Term(2), 8).unwrap();
    logs.wrote(GROUP, Index(1), Term(1), 8).unwrap_err();
}

#[test]
fn another_entry_applied_at_an_index_is_noticed() {
    let mut applied = AppliedAlike::default();
    assert!(applied.applied(0, GROUP, Index(4), (Term(1), 7)).unwrap());
    assert!(!applied.applied(1, GROUP, Index(4), (Term(1), 7)).unwrap());
    applied.applied(2, GROUP, Index(4), (Term(2), 7)).unwrap_err();
}

#[test]
fn one_disk_of_three_is_no_majority() {
    let founding = [Members::founding(&[1, 2, 3].map(PeerId))];
    let check = |confirmed: &[u64]| {
        let has = |peer: PeerId| confirmed.contains(&peer.0);
        synced_quorum::check(GROUP, Index(1), Term(1), &founding, has)
    };
    check(&[1, 3]).unwrap();
    check(&[1]).unwrap_err();
    check(&[1, 4]).unwrap_err();
    synced_quorum::applied(0, GROUP, Index(4), Index(4)).unwrap();
    synced_quorum::applied(0, GROUP, Index(5), Index(4)).unwrap_err();
}

fn members(at: u64, voters: &[u64], outgoing: &[u64]) -> Members {
    let peers = |numbers: &[u64]| numbers.iter().copied().map(PeerId).collect::<Vec<_>>();
    let (voters, voters_outgoing, highest) = (peers(voters), peers(outgoing), PeerId(9));
    Members { at: Index(at), voters, voters_outgoing, learners: Vec::new(), highest }
}

#[test]
fn a_majority_of_the_wrong_members_is_noticed() {
    let founding = members(0, &[1, 2, 3], &[]);
    let joint = members(10, &[1, 2, 4], &[1, 2, 3]);
    let left = members(20, &[1, 2, 4], &[]);
    let check = |by: &[&Members], confirmed: &[u64]| {
        let has = |peer: PeerId| confirmed.contains(&peer.0);
        synced_quorum::check(GROUP, Index(9), Term(1), by.iter().copied(), has)
    };
    check(&[&founding], &[1, 4]).unwrap_err();
    check(&[&founding], &[1, 3]).unwrap();
    check(&[&joint], &[1, 3]).unwrap_err();
    check(&[&joint], &[1, 4]).unwrap_err();
    check(&[&joint], &[1, 2]).unwrap();
    check(&[&left], &[1, 4]).unwrap();
    check(&[&left], &[1, 3]).unwrap_err();
    // The change is taken up in the same turn.
    check(&[&joint, &left], &[1, 4]).unwrap();
    check(&[&joint, &left], &[1, 3]).unwrap_err();
}

#[test]
fn a_leader_that_goes_by_old_members_is_noticed() {
    let all = [
        members(0, &[1, 2, 3], &[]),
        members(10, &[1, 2, 4], &[1, 2, 3]),
        members(20, &[1, 2, 4], &[]),
    ];
    let leads = |by: usize, applied: u64, committed: usize| {
        let all_before = &all[..committed];
        in_force::in_force(0, GROUP, &all[by], Index(applied), all_before)
    };
    leads(0, 9, 1).unwrap();
    leads(0, 9, 2).unwrap();
    leads(0, 10, 2).unwrap_err();
    leads(1, 19, 3).unwrap();
    leads(0, 9, 3).unwrap_err();
    leads(1, 20, 3).unwrap_err();
    leads(2, 20, 3).unwrap();
}

#[test]
fn a_damaged_replica_that_leads_or_applies_is_noticed() {
    damaged::led(0, GROUP, Term(2), false).unwrap();
    damaged::led(0, GROUP, Term(2), true).unwrap_err();
    damaged::applied(0, GROUP, Index(9), None).unwrap();
    damaged::applied(0, GROUP, Index(3), Some(Index(2))).unwrap();
    damaged::applied(0, GROUP, Index(4), Some(Index(2))).unwrap_err();
}

#[test]
fn an_archived_position_that_falls_or_passes_the_end_is_noticed() {
    archived::told(0, Seq(2), Seq(2), Seq(5)).unwrap();
    archived::told(0, Seq(2), Seq(5), Seq(5)).unwrap();
    archived::told(0, Seq(2), Seq(1), Seq(5)).unwrap_err();
    archived::told(0, Seq(2), Seq(6), Seq(5)).unwrap_err();
}

#[test]
fn what_was_made_and_is_said_to_be_absent_is_noticed() {
    presence::absent(0, &Known::default()).unwrap();
    presence::absent(0, &Known { exists: true, ..Known::default() }).unwrap_err();
}

#[test]
fn two_numbers_of_a_machine_that_both_count_are_noticed() {
    // Number 4 is the machine of 3 with another disk.
    let machine_of = |peer: PeerId| if peer.0 == 4 { 2 } else { peer.0 as usize - 1 };
    let count = |members: Members| one_life::counts_once(GROUP, &members, machine_of);
    count(members(10, &[1, 2, 4], &[1, 2, 3])).unwrap();
    count(members(10, &[1, 3, 4], &[])).unwrap_err();
    count(members(10, &[1, 2, 4], &[1, 3, 4])).unwrap_err();
    let all = [members(0, &[1, 2, 3], &[]), members(10, &[1, 2, 4], &[1, 2, 3])];
    one_life::stands(GROUP, PeerId(3), all[1..].iter()).unwrap();
    one_life::stands(GROUP, PeerId(4), all.iter()).unwrap();
    one_life::stands(GROUP, PeerId(4), all[..1].iter()).unwrap_err();
}

#[test]
fn a_leader_that_lacks_a_committed_entry_is_noticed() {
    let mut leaders = LeaderCompleteness::default();
    leaders.committed(GROUP, Index(1), (Term(1), 7), Term(1));
    leaders.committed(GROUP, Index(2), (Term(2), 8), Term(4));
    let led = |term, log: &[(u64, u64)]| {
        let has =
            |index: Index| log.get(index.0 as usize - 1).map(|(term, hash)| (Term(*term), *hash));
        leaders.led(0, (GROUP, Term(term)), Index(1), has)
    };
    led(5, &[(1, 7), (2, 8)]).unwrap();
    led(5, &[(1, 7)]).unwrap_err();
    led(5, &[(1, 7), (3, 8)]).unwrap_err();
    led(5, &[(1, 9), (2, 8)]).unwrap_err();
    // A candidate of an older term may hear late that it won.
    led(3, &[(1, 7)]).unwrap();
    led(3, &[]).unwrap_err();
}

#[test]
fn a_yes_from_a_side_without_a_majority_is_noticed() {
    minority::answers(0, 5, None).unwrap();
    minority::answers(0, 5, Some(6)).unwrap();
    minority::answers(0, 6, Some(6)).unwrap_err();
}

#[test]
fn digests_that_differ_are_noticed() {
    let mut digests = Digests::default();
    assert!(!digests.stands(0, GROUP, Index(9), 1).unwrap());
    assert!(digests.stands(1, GROUP, Index(9), 1).unwrap());
    digests.stands(2, GROUP, Index(9), 2).unwrap_err();
}

#[test]
fn a_position_that_names_another_event_is_noticed() {
    let mut positions = Positions::default();
    assert!(positions.show(0, Seq(2), 7).unwrap());
    assert!(!positions.show(0, Seq(2), 7).unwrap());
    positions.show(0, Seq(2), 8).unwrap_err();
    positions.lives(0, Incarnation([1; 16])).unwrap();
    positions.lives(0, Incarnation([2; 16])).unwrap_err();
}

fn origin() -> Origin {
    Origin { session: 1, producer: (0, 0), producer_seq: 1, commit: None, refused: false }
}

#[test]
fn events_from_nowhere_misplaced_or_refused_are_noticed() {
    let mut origins = Origins::default();
    origins.asked(7, origin());
    assert_eq!(origins.of(1, 1, 7), Ok(origin()));
    origins.of(1, 1, 8).unwrap_err();
    origins.of(2, 1, 7).unwrap_err();
    origins.refused(7);
    origins.of(1, 1, 7).unwrap_err();
}

#[test]
fn a_producer_position_at_two_seqs_is_noticed() {
    let mut producers = Producers::default();
    producers.landed(&origin(), Seq(1)).unwrap();
    producers.landed(&origin(), Seq(1)).unwrap();
    producers.landed(&origin(), Seq(2)).unwrap_err();
}

#[test]
fn acknowledged_events_that_are_gone_or_changed_are_noticed() {
    let mut acknowledged = Acknowledged::default();
    acknowledged.told(0, Seq(1), 7).unwrap();
    acknowledged.told(0, Seq(2), 8).unwrap();
    acknowledged.told(0, Seq(2), 9).unwrap_err();
    let mut acknowledged = Acknowledged::default();
    acknowledged.told(0, Seq(1), 7).unwrap();
    acknowledged.told(0, Seq(2), 8).unwrap();
    acknowledged.told(1, Seq(1), 9).unwrap();
    let held = |pairs: &[(u64, u64)]| -> BTreeMap<Seq, u64> {
        pairs.iter().map(|(seq, content)| (Seq(*seq), *content)).collect()
    };
    acknowledged.hold(0, 0, Seq(0), &held(&[(1, 7), (2, 8), (3, 1)])).unwrap();
    acknowledged.hold(0, 0, Seq(1), &held(&[(2, 8)])).unwrap();
    acknowledged.hold(0, 0, Seq(0), &held(&[(1, 7)])).unwrap_err();
    acknowledged.hold(0, 0, Seq(0), &held(&[(1, 7), (2, 9)])).unwrap_err();
}

#[test]
fn half_a_commit_is_noticed() {
    let mut commits = Commits::default();
    commits.landed(5, 0, Seq(4));
    commits.halves(0, 5).unwrap_err();
    commits.landed(5, 1, Seq(9));
    assert_eq!(*commits.halves(0, 5).unwrap(), BTreeMap::from([(0, Seq(4)), (1, Seq(9))]));
}

#[test]
fn another_reply_to_the_same_request_is_noticed() {
    requests::repeated(0, &[Reply::Done], &[Reply::Done]).unwrap();
    requests::repeated(0, &[Reply::Done], &[]).unwrap_err();
}

#[test]
fn commit_times_that_run_or_go_back_are_noticed() {
    let mut stamps = Stamps::default();
    stamps.shown(GROUP, 0, Seq(1), UnixMs(1_000), 1_000).unwrap();
    stamps.shown(GROUP, 0, Seq(2), UnixMs(2_100), 2_000).unwrap();
    stamps.shown(GROUP, 0, Seq(3), UnixMs(2_099), 2_000).unwrap_err();
    stamps.shown(GROUP, 1, Seq(1), UnixMs(2_200), 2_000).unwrap_err();
    stamps.agreed(9_000, 2_000);
    stamps.shown(GROUP, 0, Seq(4), UnixMs(9_000), 2_000).unwrap();
    stamps.shown(GROUP, 1, Seq(1), UnixMs(10_200), 3_000).unwrap_err();
}

#[test]
fn a_tail_notices_what_is_left_out_doubled_or_an_unasked_gap() {
    let mut cursor = Cursor { session: 0, at: Seq(4) };
    cursor.given(Seq(5)).unwrap();
    cursor.given(Seq(5)).unwrap_err();
    cursor.given(Seq(7)).unwrap_err();
    cursor.gap(Seq(9), Seq(7)).unwrap_err();
    cursor.gap(Seq(9), Seq(8)).unwrap();
    assert_eq!(cursor.at, Seq(8));
    cursor.ended(Seq(8)).unwrap();
    cursor.ended(Seq(9)).unwrap_err();
}

#[test]
fn reads_behind_what_was_known_are_noticed() {
    let mut reads = Linearizable::new(1);
    reads.asks_create(0);
    let header = |last_seq, version| SessionHeader {
        last_seq: Seq(last_seq),
        version,
        ..SessionHeader::default()
    };
    reads.row(0, &Known::default(), Some(&header(3, 2))).unwrap();
    let known = reads.known(0);
    assert_eq!((known.exists, known.last_seq, known.version), (true, Seq(3), 2));
    reads.row(0, &known, None).unwrap_err();
    reads.row(0, &known, Some(&header(2, 2))).unwrap_err();
    reads.row(0, &known, Some(&header(3, 1))).unwrap_err();
    let closed = SessionHeader { state: SessionState::Closed, ..header(3, 2) };
    reads.row(0, &known, Some(&closed)).unwrap_err();
    reads.asks_close(0);
    reads.row(0, &known, Some(&closed)).unwrap();
    reads.row(0, &reads.known(0), Some(&header(3, 2))).unwrap_err();
}

#[test]
fn writes_that_land_behind_what_was_known_are_noticed() {
    let mut writes = Linearizable::new(1);
    let known = Known { exists: true, last_seq: Seq(5), ..Known::default() };
    let told = |first, head, deduped| Appended {
        first_seq: Seq(first),
        last_seq: Seq(first),
        head_seq: Seq(head),
        archived_seq: Seq(0),
        deduped,
    };
    writes.appended(0, &known, &told(6, 6, false), Some(Seq(5))).unwrap();
    writes.appended(0, &known, &told(2, 6, true), None).unwrap();
    writes.appended(0, &known, &told(5, 6, false), None).unwrap_err();
    writes.appended(0, &known, &told(2, 4, true), None).unwrap_err();
    writes.appended(0, &known, &told(7, 7, false), Some(Seq(5))).unwrap_err();
    let ended = Known { closed: true, ..known };
    writes.appended(0, &ended, &told(6, 6, false), None).unwrap_err();
}

#[test]
fn refusals_that_were_never_true_are_noticed() {
    let mut writes = Linearizable::new(1);
    let known = Known { exists: true, last_seq: Seq(5), version: 2, ..Known::default() };
    let stale =
        |expected, current| Reason::ExpectedSeq { expected: Seq(expected), current: Seq(current) };
    writes.refused(0, &known, &Reason::SessionNotFound).unwrap_err();
    writes.refused(0, &known, &Reason::SessionClosed).unwrap_err();
    writes.refused(0, &known, &Reason::SessionTombstoned).unwrap_err();
    writes.refused(0, &known, &stale(4, 4)).unwrap_err();
    writes.refused(0, &known, &stale(6, 4)).unwrap_err();
    writes.refused(0, &known, &stale(4, 5)).unwrap();
    writes.refused(0, &Known::default(), &Reason::SessionNotFound).unwrap();
}
