//! Entries of leaders that there is no room for.

use raft::eraftpb::MessageType::MsgAppendResponse;

use super::*;

/// Two entries of one byte each count for as much.
const TWO_ENTRIES: usize = 2 * 65;

fn with_room(followed_bytes_max: usize) -> Driver {
    let config = DriverConfig { followed_bytes_max, ..DriverConfig::new(ME, 7) };
    Driver::new(config, vec![RecoveredGroup::new(GROUP, voters(3))])
}

fn entry(index: u64) -> Inbound {
    let term_before = u64::from(index > 1);
    Inbound::Frame { from: PeerId(2), bytes: frame(append(1, index - 1, term_before, 0, &["x"])) }
}

fn answers(deeds: &Deeds) -> Vec<(raft::eraftpb::MessageType, u64)> {
    let mut found = Vec::new();
    for (_, bytes) in &deeds.frames {
        frame::decode(bytes, |_, message| found.push((message.get_msg_type(), message.index)))
            .unwrap();
    }
    found
}

#[test]
fn what_waits_for_the_disk_is_taken_up_to_the_limit_and_one_past_it_is_as_good_as_lost() {
    for (room, taken) in [(TWO_ENTRIES - 1, 2), (TWO_ENTRIES, 2), (TWO_ENTRIES + 1, 3)] {
        // In one turn, and in turn after turn.
        let mut driver = with_room(room);
        let at_once = driver.turn(at(0), [1, 2, 3].map(entry));
        assert_eq!(at_once.appends_passed_over, 3 - taken, "{room}");
        let mut driver = with_room(room);
        let deeds: Vec<Deeds> = [1, 2, 3].map(|index| driver.turn(at(0), [entry(index)])).into();
        let passed_over: u64 = deeds.iter().map(|deeds| deeds.appends_passed_over).sum();
        assert_eq!(passed_over, 3 - taken, "{room}");

        // There is room again once all of it is on disk, and the leader sends it again.
        for job in deeds.into_iter().filter_map(|deeds| deeds.log) {
            driver.turn(at(0), [Inbound::LogDone { job: job.id }]);
        }
        let again = driver.turn(at(0), [entry(taken + 1)]);
        assert_eq!(again.appends_passed_over, 0);
        let confirmed = driver.turn(at(0), [log_done(&again)]);
        assert_eq!(answers(&confirmed), [(MsgAppendResponse, taken + 1)]);
    }
}

#[test]
fn a_node_without_a_place_for_entries_follows_and_says_so() {
    let mut driver = with_room(TWO_ENTRIES);
    let first = driver.turn(at(0), [entry(1)]);
    driver.turn(at(0), [log_done(&first)]);
    for (waiting_bytes, has_no_place, passed_over) in
        [(0, true, 1), (TWO_ENTRIES, false, 1), (TWO_ENTRIES - 1, false, 0)]
    {
        driver.set_waiting(waiting_bytes, has_no_place);
        // An append without entries says where the leader is, and takes no room.
        let empty = Inbound::Frame { from: PeerId(2), bytes: frame(append(1, 1, 1, 1, &[])) };
        let deeds = driver.turn(at(0), [entry(2), empty]);
        assert_eq!(deeds.appends_passed_over, passed_over);
        assert_eq!(driver.status(GROUP).unwrap().leader, Some(PeerId(2)));
        assert_eq!(deeds.log.is_some(), passed_over == 0);
        if passed_over == 1 {
            assert_eq!(answers(&deeds), [(MsgAppendResponse, 1)]);
        }
    }
}

#[test]
fn only_what_came_from_a_leader_counts_among_what_waits_to_be_applied() {
    let data = Bytes::from_static(b"x");
    let entry = |token| Committed { index: Index(1), term: Term(1), data: data.clone(), token };
    assert_eq!(entry(None).followed_bytes(), TWO_ENTRIES / 2);
    assert_eq!(entry(Some(Token(1))).followed_bytes(), 0);
}
