//! Transfers that were cut off, and rows that need not travel.

use super::super::alike::fingerprint;
use super::damage::{NODES, Trio, append};
use super::refusal::{MISSED, behind};
use super::*;

/// What the giver says of a chunk with these rows.
fn print(chunk: u64, rows: &[Row], of: Option<&[Row]>) -> What {
    let upto = rows.last().unwrap().0.clone();
    let sum = |of: &[Row]| Sum { rows: of.len() as u64, crc: crc32fast::hash(&encoded(of)) };
    What::Fingerprint { chunk, print: fingerprint(upto, &encoded(rows)), last: of.map(sum) }
}

fn chunk(chunk: u64, rows: &[Row]) -> What {
    What::Chunk { chunk, rows: encoded(rows), last: None }
}

fn flush(taker: &Taker) {
    assert!(taker.node.store().rotate());
    while taker.node.store().flush_one().unwrap() {}
}

fn compact(taker: &Taker) {
    while taker.node.store().compact_step().unwrap() {}
}

fn has(taker: &Taker, generation: u32, rows: &[Row]) -> bool {
    has_of(taker, GROUP, generation, rows)
}

fn has_of(taker: &Taker, group: GroupId, generation: u32, rows: &[Row]) -> bool {
    let store = taker.node.store();
    let value = |key: &RowKey| store.get(group, Generation(generation), key).unwrap();
    rows.iter().all(|(key, of)| value(key).as_ref() == Some(of))
}

/// A taker that has taken rows 0 to 3 and 4 to 6 as two chunks, durably.
fn cut_off() -> (Taker, Vec<Row>) {
    let (mut taker, rows) = (Taker::new(1), rows());
    taker.hear(GIVER, GROUP, 7, OFFER);
    taker.hear(GIVER, GROUP, 7, chunk(0, &rows[..4]));
    assert_eq!(taker.hear(GIVER, GROUP, 7, chunk(1, &rows[4..7])), [What::Ask { chunk: 2 }]);
    flush(&taker);
    (taker, rows)
}

#[test]
fn a_transfer_goes_on_over_a_restart_of_its_taker_and_with_another_leader() {
    let (mut taker, mut rows) = cut_off();
    taker.restart();
    compact(&taker);
    // Of a later moment: one row is another one, and there is one more.
    rows[5].1 = Bytes::from(vec![8; 100]);
    rows.push((RowKey::event(ResourceNumber(1), Seq(10)), Bytes::from_static(b"new")));
    let offer = What::Offer { index: Index(50), term: Term(4), chunk: 0 };
    assert_eq!(taker.hear(OTHER, GROUP, 7, offer), [What::AskFingerprint { chunk: 0 }]);
    let said = taker.hear(OTHER, GROUP, 7, print(0, &rows[..4], None));
    assert_eq!(said, [What::AskFingerprint { chunk: 1 }], "it is copied");
    let said = taker.hear(OTHER, GROUP, 7, print(1, &rows[4..7], None));
    assert_eq!(said, [What::Ask { chunk: 1 }], "it is another");
    let said = taker.hear(OTHER, GROUP, 7, chunk(1, &rows[4..7]));
    assert_eq!(said, [What::Ask { chunk: 2 }], "the former load came no further");
    assert_eq!(taker.hear(OTHER, GROUP, 7, last(2, &rows[7..], &rows)), []);
    taker.node.store().flush_one().unwrap();
    assert_eq!(taker.later(10), [What::Ready]);
    assert!(has(&taker, 2, &rows));
    let counts = taker.node.catch_up_counts();
    assert_eq!(counts.bytes_resumed, encoded(&rows[..4]).len() as u64);
    assert_eq!((counts.bytes_alike, counts.rows_taken), (0, rows.len() as u64));
}

#[test]
fn rows_that_the_group_has_already_do_not_travel_unless_they_are_damaged() {
    let own = |rotten: bool| {
        let (mut taker, rows) = (Taker::new(1), rows());
        let own = rows.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        taker.node.store().load(GROUP, Generation(0), own.collect());
        flush(&taker);
        if rotten {
            taker.node.store().rot(GROUP, Generation(0), 3, |_| true).unwrap();
        }
        assert_eq!(taker.hear(GIVER, GROUP, 7, OFFER), [What::AskFingerprint { chunk: 0 }]);
        let said = taker.hear(GIVER, GROUP, 7, print(0, &rows, Some(&rows)));
        (taker, rows, said)
    };
    let (mut taker, rows, said) = own(false);
    assert_eq!(said, []);
    taker.node.store().flush_one().unwrap();
    assert_eq!(taker.later(10), [What::Ready], "all of it is here");
    assert!(has(&taker, 1, &rows));
    assert_eq!(taker.node.catch_up_counts().bytes_alike, encoded(&rows).len() as u64);
    let (taker, _, said) = own(true);
    assert_eq!(said, [What::Ask { chunk: 0 }]);
    assert_eq!(taker.node.catch_up_counts().bytes_alike, 0);
}

#[test]
fn what_is_here_and_not_there_is_not_copied() {
    let (mut taker, rows) = cut_off();
    taker.hear(GIVER, GROUP, 7, What::Gone);
    taker.hear(GIVER, GROUP, 8, OFFER);
    // The giver has rows 0, 2 and 3 alone in its first chunk: row 1 was deleted.
    let fewer = [rows[0].clone(), rows[2].clone(), rows[3].clone()];
    let said = taker.hear(GIVER, GROUP, 8, print(0, &fewer, None));
    assert_eq!(said, [What::Ask { chunk: 0 }]);
    // The same rows, and the chunk ends elsewhere.
    taker.hear(GIVER, GROUP, 8, chunk(0, &fewer));
    let said = taker.hear(GIVER, GROUP, 8, print(1, &rows[4..6], None));
    assert_eq!(said, [What::AskFingerprint { chunk: 2 }]);
    assert!(!has(&taker, 2, &rows[1..2]) && has(&taker, 2, &rows[4..6]));
    assert!(!has(&taker, 2, &rows[6..7]));
}

#[test]
fn a_giver_that_does_not_say_what_is_in_a_chunk_is_asked_for_its_rows() {
    let (mut taker, rows) = cut_off();
    taker.hear(GIVER, GROUP, 7, What::Gone);
    assert_eq!(taker.hear(GIVER, GROUP, 8, OFFER), [What::AskFingerprint { chunk: 0 }]);
    for n in 0..3 {
        assert_eq!(taker.later(AGAIN_MS), [What::Ask { chunk: n }], "the question may be lost");
        assert_eq!(taker.later(AGAIN_MS), [What::Ask { chunk: n }]);
        let said = taker.hear(GIVER, GROUP, 8, chunk(n, &rows[n as usize..=n as usize]));
        let next = n + 1;
        let expected = match next {
            3 => What::Ask { chunk: next },
            _ => What::AskFingerprint { chunk: next },
        };
        assert_eq!(said, [expected], "it may not know the question");
    }
}

#[test]
fn words_about_a_chunk_that_are_late_or_doubled_change_nothing() {
    let (mut taker, rows) = cut_off();
    taker.hear(GIVER, GROUP, 7, What::Gone);
    taker.hear(GIVER, GROUP, 8, OFFER);
    assert_eq!(taker.hear(GIVER, GROUP, 8, print(1, &rows[4..7], None)), [], "too early");
    let both = [print(0, &rows[..4], None), print(0, &rows[..4], None), chunk(0, &rows[..4])];
    let bytes = both.map(|what| Message { group: GROUP, transfer: 8, what }.encode());
    taker.inbox.extend(bytes.map(|bytes| Input::Bulk { from: GIVER, bytes }));
    let said: Vec<What> = taker.later(0);
    assert_eq!(
        said,
        [What::AskFingerprint { chunk: 1 }],
        "the rows came while they were looked for"
    );
    assert_eq!(taker.node.catch_up_counts().bytes_resumed, 0);
    assert_eq!(taker.hear(GIVER, GROUP, 8, print(0, &rows[..4], None)), [], "late");
    let said = taker.hear(GIVER, GROUP, 8, print(1, &rows[4..7], None));
    assert_eq!(said, [What::Ask { chunk: 2 }]);
    assert_eq!(taker.hear(GIVER, GROUP, 9, print(0, &rows[..4], None)), [What::Gone]);
}

#[test]
fn an_offer_while_rows_are_looked_for_is_answered_and_a_double_changes_nothing() {
    let (mut taker, rows) = cut_off();
    taker.hear(GIVER, GROUP, 7, What::Gone);
    taker.hear(GIVER, GROUP, 8, OFFER);
    let bytes = Message { group: GROUP, transfer: 8, what: print(0, &rows[..4], None) }.encode();
    taker.inbox.push(Input::Bulk { from: GIVER, bytes });
    let now = Now { boot_ms: taker.now_ms, wall_ms: 1 };
    let waiting = taker.node.turn(now, &mut taker.inbox).asides;
    assert_eq!(waiting.len(), 1);
    assert_eq!(taker.hear(GIVER, GROUP, 8, OFFER), [What::AskFingerprint { chunk: 0 }]);
    assert_eq!(taker.hear(GIVER, GROUP, 8, print(0, &rows[..4], None)), [], "it is looked for");
    let store = Arc::clone(taker.node.store());
    taker.inbox.extend(waiting.into_iter().map(|it| Input::AsideDone(it.run(&*store))));
    assert_eq!(taker.later(0), [What::AskFingerprint { chunk: 1 }]);
    assert_eq!(taker.hear(GIVER, GROUP, 8, print(0, &rows[..4], None)), [], "late");
    assert_eq!(taker.node.catch_up_counts().bytes_resumed, encoded(&rows[..4]).len() as u64);
    let other = [rows[9].clone()];
    let said = taker.hear(GIVER, GROUP, 8, print(1, &other, None));
    assert_eq!(said, [What::Ask { chunk: 1 }], "it is another");
    let said = taker.hear(GIVER, GROUP, 8, print(1, &other, None));
    assert_eq!(said, [], "the rows are on their way");
}

#[test]
fn the_load_that_came_furthest_is_kept_whatever_is_cut_off_behind_it() {
    let (mut taker, rows) = cut_off();
    for transfer in 8..12 {
        // Much is on its way to the disk, for a moment.
        while !taker.node.store().is_full() {
            let row = (rows[0].0.clone(), Some(rows[0].1.clone()));
            taker.node.store().load(GROUP, Generation(1), vec![row]);
            taker.node.store().rotate();
        }
        taker.later(0);
        taker.later(NO_ROOM_MS - 1);
        taker.hear(GIVER, GROUP, transfer - 1, What::Gone);
        while taker.node.store().flush_one().unwrap() {}
        taker.hear(GIVER, GROUP, transfer, OFFER);
        let said = taker.hear(GIVER, GROUP, transfer, print(0, &rows[..4], None));
        assert_eq!(said, [What::AskFingerprint { chunk: 1 }]);
        flush(&taker);
        compact(&taker);
    }
    assert!(has(&taker, 1, &rows[..7]), "the first");
    assert!(has(&taker, 5, &rows[..4]), "the one that is loaded");
    for other in 2..5 {
        assert!(!has(&taker, other, &rows[1..2]), "{other}");
    }
    // Over a restart too.
    taker.restart();
    taker.hear(GIVER, GROUP, 20, OFFER);
    taker.hear(GIVER, GROUP, 20, print(0, &rows[..4], None));
    let said = taker.hear(GIVER, GROUP, 20, print(1, &rows[4..7], None));
    assert_eq!(said, [What::Ask { chunk: 2 }]);
    flush(&taker);
    compact(&taker);
    assert!(has(&taker, 1, &rows[..7]) && has(&taker, 6, &rows[..7]));
    assert!(!has(&taker, 5, &rows[1..2]));
}

#[test]
fn what_was_cut_off_goes_in_time_and_at_once_where_there_is_no_room() {
    let kept = |taker: &Taker, rows: &[Row]| {
        compact(taker);
        // No row that a flush leaves in the cache.
        has(taker, 1, &rows[1..2])
    };
    let (mut taker, rows) = cut_off();
    taker.restart();
    taker.later(CUT_OFF_STAYS_MS - 1);
    assert!(kept(&taker, &rows), "of an earlier process");
    taker.later(1);
    assert!(!kept(&taker, &rows));
    let (mut taker, rows) = cut_off();
    // Nothing can be written out.
    while !taker.node.store().is_full() {
        let row = (rows[9].0.clone(), Some(rows[9].1.clone()));
        taker.node.store().load(GROUP, Generation(1), vec![row]);
        taker.node.store().rotate();
    }
    taker.later(0);
    taker.later(NO_ROOM_MS);
    taker.hear(GIVER, GROUP, 7, What::Gone);
    assert!(!kept(&taker, &rows));
    while taker.node.store().flush_one().unwrap() {}
    assert_eq!(taker.hear(GIVER, GROUP, 8, OFFER), [What::Ask { chunk: 0 }]);
}

#[test]
fn what_is_only_kept_to_be_copied_from_makes_room_for_what_is_taken() {
    let (mut taker, rows) = (Taker::new(3), rows());
    let cut_off = |taker: &mut Taker, group: GroupId| {
        taker.hear(GIVER, group, 7, OFFER);
        taker.hear(GIVER, group, 7, chunk(0, &rows[..4]));
        flush(taker);
        taker.hear(GIVER, group, 7, What::Gone);
    };
    let kept = |taker: &Taker| {
        compact(taker);
        // No row that a flush leaves in the cache.
        [0, 1, 2].map(|group| has_of(taker, GroupId(group), 1, &rows[1..2]))
    };
    let (former, other) = (GroupId(2), GroupId(1));
    cut_off(&mut taker, former);
    taker.restart();
    cut_off(&mut taker, other);
    cut_off(&mut taker, GROUP);
    assert_eq!(taker.hear(GIVER, GROUP, 8, OFFER), [What::AskFingerprint { chunk: 0 }]);
    // Nothing can be written out.
    while !taker.node.store().is_full() {
        let row = (rows[9].0.clone(), Some(rows[9].1.clone()));
        taker.node.store().load(GROUP, Generation(2), vec![row]);
        taker.node.store().rotate();
    }
    taker.later(0);
    taker.later(NO_ROOM_MS - 1);
    assert_eq!(kept(&taker), [true; 3]);
    taker.later(1);
    assert_eq!(kept(&taker), [false; 3]);
    // It goes on once there is room.
    while taker.node.store().flush_one().unwrap() {}
    taker.later(0);
    assert_eq!(taker.hear(GIVER, GROUP, 8, chunk(0, &rows[..2])), [What::Ask { chunk: 1 }]);
    assert_eq!(taker.hear(GIVER, GROUP, 8, last(1, &rows[2..], &rows)), []);
    while taker.node.store().flush_one().unwrap() {}
    assert_eq!(taker.later(10), [What::Ready]);
    assert!(has(&taker, 2, &rows));
}

#[test]
fn a_full_store_takes_no_further_chunk_however_often_it_is_offered() {
    let (mut taker, rows) = cut_off();
    while !taker.node.store().is_full() {
        let row = (rows[9].0.clone(), Some(rows[9].1.clone()));
        taker.node.store().load(GROUP, Generation(1), vec![row]);
        taker.node.store().rotate();
    }
    for _ in 0..3 {
        taker.later(AGAIN_MS);
        let said = taker.hear(GIVER, GROUP, 7, OFFER);
        assert_eq!(said, [What::Ask { chunk: 1 }], "what it has taken already");
        assert_eq!(taker.hear(GIVER, GROUP, 7, chunk(1, &rows[4..7])), []);
    }
    assert!(taker.node.store().flush_one().unwrap());
    assert_eq!(taker.later(0), [What::Ask { chunk: 2 }]);
}

#[test]
fn a_load_that_a_slow_disk_takes_bit_by_bit_is_kept() {
    // All of it is loaded, in so many memtables; a flush takes a bit less than is no room.
    let waiting = |flushes: u64| {
        let (mut taker, rows) = cut_off();
        for _ in 1..flushes {
            let row = (rows[0].0.clone(), Some(rows[0].1.clone()));
            taker.node.store().load(GROUP, Generation(1), vec![row]);
            taker.node.store().rotate();
        }
        assert_eq!(taker.hear(GIVER, GROUP, 7, last(2, &rows[7..], &rows)), []);
        for _ in 1..flushes {
            taker.later(NO_ROOM_MS - 1);
            assert!(taker.node.store().flush_one().unwrap());
            assert_eq!(taker.hear(GIVER, GROUP, 7, OFFER), [What::Ask { chunk: 3 }], "not yet");
        }
        (taker, rows)
    };
    let (mut taker, rows) = waiting(4);
    taker.later(NO_ROOM_MS - 1);
    taker.hear(GIVER, GROUP, 7, What::Gone);
    while taker.node.store().flush_one().unwrap() {}
    taker.hear(GIVER, GROUP, 8, OFFER);
    assert_eq!(taker.hear(GIVER, GROUP, 8, print(0, &rows, Some(&rows))), [], "all is here");
    let resumed = taker.node.catch_up_counts().bytes_resumed;
    assert_eq!(resumed, encoded(&rows).len() as u64);
    // Nothing at all could be flushed for so long: there is no room.
    let (mut taker, _) = waiting(4);
    taker.later(NO_ROOM_MS);
    taker.hear(GIVER, GROUP, 7, What::Gone);
    while taker.node.store().flush_one().unwrap() {}
    assert_eq!(taker.hear(GIVER, GROUP, 8, OFFER), [What::Ask { chunk: 0 }]);
}

fn small_chunks(trio: &mut Trio) {
    let limits = CatchUpLimits { chunk_bytes: 512, ..CatchUpLimits::default() };
    trio.nodes.iter_mut().for_each(|node| node.limit_catch_up(limits));
}

/// A taker that was killed when it had half of the rows; also how many entries there are.
fn killed_half_way() -> (Trio, usize, u64) {
    let (mut trio, taker, written) = behind(0);
    small_chunks(&mut trio);
    trio.away = None;
    trio.until("half of it is there", |trio| {
        trio.nodes[taker].catch_up_counts().rows_taken >= MISSED / 2
    });
    assert!(trio.nodes[taker].store().rotate());
    while trio.nodes[taker].store().flush_one().unwrap() {}
    trio.disks[taker].kill();
    trio.restart(taker);
    small_chunks(&mut trio);
    (trio, taker, written)
}

#[test]
fn a_giver_waits_for_a_taker_that_gets_late_to_comparing() {
    let (mut trio, taker, _) = killed_half_way();
    trio.busy = Some(taker);
    trio.until("it would compare", |trio| !trio.waiting.is_empty());
    let giver = trio.leader().unwrap();
    let lost = |trio: &Trio| {
        let counts = |no: usize| trio.nodes[no].catch_up_counts();
        (counts(giver).given_up, counts(taker).let_go)
    };
    let (before, begun_ms) = (lost(&trio), trio.now_ms);
    trio.until("for long", |trio| trio.now_ms >= begun_ms + 3 * PATIENCE_MS);
    assert_eq!((trio.waiting.len(), lost(&trio)), (1, before));
    trio.get_to_it();
    trio.until("it has all", |trio| trio.nodes[taker].catch_up_counts().taken == 1);
    let last = trio.nodes[giver].driver().status(GROUP).unwrap().last;
    trio.until("all are even", |trio| trio.are_even(last));
    assert_eq!((trio.rows(taker), lost(&trio)), (trio.rows(giver), before));
}

#[test]
fn over_restarts_of_the_taker_and_a_change_of_leader_rows_travel_once() {
    let (mut trio, taker, written) = killed_half_way();
    let giver = trio.leader().unwrap();
    let all = encoded(&trio.rows(giver)).len() as u64;
    // Whoever gave leads no more, and the next leader's rows are of another moment.
    let next = (0..NODES).find(|no| *no != taker && *no != giver).unwrap();
    trio.inboxes[giver].push(Input::Transfer { group: GROUP, to: PeerId(next as u64 + 1) });
    trio.until("another one leads", |trio| trio.leader() == Some(next));
    trio.propose(append(written + 1));
    trio.until("it has all", |trio| trio.nodes[taker].catch_up_counts().taken == 1);
    let last = trio.nodes[next].driver().status(GROUP).unwrap().last;
    trio.until("all are even", |trio| trio.are_even(last));
    assert_eq!(trio.rows(taker), trio.rows(next));
    let resumed = trio.nodes[taker].catch_up_counts().bytes_resumed;
    assert!(resumed > all / 4, "{resumed} of {all} bytes were copied");
    let given = trio.nodes[next].catch_up_counts().bytes_given;
    assert!(given < all * 3 / 4, "{given} of {all} bytes were sent again");
    assert_eq!(trio.troubles, []);
}
