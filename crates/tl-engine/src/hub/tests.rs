use bytes::Bytes;

use super::*;

const KEY: TopicKey = TopicKey { group: GroupId(3), number: ResourceNumber(9) };

fn line(seq: u64, bytes: usize) -> EventLine {
    EventLine { seq: Seq(seq), json: Bytes::from(vec![b'x'; bytes]) }
}

fn seqs(lines: &[EventLine]) -> Vec<u64> {
    lines.iter().map(|line| line.seq.0).collect()
}

#[test]
fn events_stay_invisible_until_every_earlier_reply_is_written() {
    let hub = Hub::new();
    let member = hub.join(KEY);
    let first = hub.applied(KEY, Seq(1), Seq(1), true).expect("held");
    let second = hub.applied(KEY, Seq(2), Seq(4), true).expect("held");
    assert_eq!(member.topic().sight().visible, Seq(0));
    second.written();
    assert_eq!(member.topic().sight().visible, Seq(0));
    first.written();
    assert_eq!(member.topic().sight().visible, Seq(4));
}

#[test]
fn a_tail_that_joins_late_sees_what_is_held() {
    let hub = Hub::new();
    let guard = hub.applied(KEY, Seq(5), Seq(5), true).expect("held");
    let member = hub.join(KEY);
    member.topic().saw_head(Seq(5), None);
    assert_eq!(member.topic().sight().visible, Seq(4));
    drop(guard);
    assert_eq!(member.topic().sight().visible, Seq(5));
}

#[test]
fn the_recent_window_is_contiguous_and_bounded() {
    let hub = Hub::new();
    let member = hub.join(KEY);
    let topic = member.topic();
    topic.share(&[line(1, 10), line(2, 10), line(2, 10), line(3, 10)]);
    assert_eq!(seqs(&topic.recent_after(Seq(1), Seq(9), (10, 1 << 30))), [2, 3]);
    assert_eq!(seqs(&topic.recent_after(Seq(1), Seq(2), (10, 1 << 30))), [2]);
    assert_eq!(seqs(&topic.recent_after(Seq(0), Seq(9), (10, 11))), [1, 2]);
    topic.share(&[line(7, 10)]);
    assert_eq!(seqs(&topic.recent_after(Seq(6), Seq(9), (10, 1 << 30))), [7]);
    assert!(topic.recent_after(Seq(2), Seq(9), (10, 1 << 30)).is_empty());
    topic.share(&[line(8, RECENT_BYTES_MAX), line(9, RECENT_BYTES_MAX)]);
    assert_eq!(seqs(&topic.recent_after(Seq(8), Seq(9), (10, 1 << 30))), [9]);
    for seq in 10..10 + 2 * RECENT_EVENTS_MAX as u64 {
        topic.share(&[line(seq, 1)]);
    }
    assert_eq!(topic.state.lock().recent.len(), RECENT_EVENTS_MAX);
}

#[test]
fn nothing_is_left_when_the_last_tail_leaves() {
    let hub = Hub::new();
    let (one, two) = (hub.join(KEY), hub.join(KEY));
    drop(one);
    assert_eq!(hub.topics(), 1);
    drop(two);
    assert_eq!(hub.topics(), 0);
    drop(hub.applied(KEY, Seq(1), Seq(1), true));
    assert!(hub.shards.iter().all(|shard| shard.lock().held.is_empty()));
}

#[tokio::test]
async fn whoever_reads_rows_during_a_turn_waits_for_its_end() {
    let hub = Hub::new();
    let member = hub.join(KEY);
    hub.settled().await;
    let turn = hub.turn();
    // The row with seq 1 is written; the hold is not set yet.
    let read = tokio::spawn({
        let (hub, topic) = (Arc::clone(&hub), Arc::clone(member.topic()));
        async move {
            hub.settled().await;
            topic.saw_head(Seq(1), None);
            topic.sight().visible
        }
    });
    tokio::task::yield_now().await;
    assert_eq!(member.topic().sight().head, Seq(0));
    let guard = hub.applied(KEY, Seq(1), Seq(1), true).expect("held");
    drop(turn);
    assert_eq!(read.await.expect("ran"), Seq(0), "its reply is not written");
    guard.written();
    assert_eq!(member.topic().sight().visible, Seq(1));
}

#[test]
fn all_windows_together_are_bounded_and_given_back() {
    let hub = Hub::new();
    let members: Vec<_> = (0..80)
        .map(|number| hub.join(TopicKey { number: ResourceNumber(number), ..KEY }))
        .collect();
    for member in &members {
        member.topic().share(&[line(1, RECENT_BYTES_MAX)]);
    }
    assert_eq!(hub.recent_bytes(), RECENT_TOTAL_BYTES_MAX);
    assert!(members[79].topic().recent_after(Seq(0), Seq(1), (1, 1)).is_empty());
    members[0].topic().forget_recent();
    members[79].topic().share(&[line(1, RECENT_BYTES_MAX)]);
    assert_eq!(members[79].topic().recent_after(Seq(0), Seq(1), (1, 1)).len(), 1);
    drop(members);
    assert_eq!(hub.recent_bytes(), 0);
}

#[tokio::test]
async fn a_wake_between_look_and_wait_is_not_lost() {
    let hub = Hub::new();
    let member = hub.join(KEY);
    let wake = member.topic().wake();
    tokio::pin!(wake);
    wake.as_mut().enable();
    assert_eq!(member.topic().sight().visible, Seq(0));
    let _ = hub.applied(KEY, Seq(1), Seq(1), false);
    wake.await;
    assert_eq!(member.topic().sight().visible, Seq(1));
}
