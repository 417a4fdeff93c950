//! Five engines, of which three have each group, and a router that has none.

use std::collections::{BTreeMap, BTreeSet};

use tl_engine::Tail;
use tl_engine::api::ServiceError;
use tl_engine::cluster::placement::{COPIES, Placement};
use tl_engine::ops::NodeState;
use tl_engine::service::Awaited;
use tl_types::GroupId;

use super::*;

const GROUPS: u16 = 16;
const ROUTER: usize = 5;

async fn five_and_a_router() -> Cluster {
    Cluster::of(&FIVE, &["router-1"], GROUPS).await
}

fn placement() -> Placement {
    Placement::new(FIVE, Some(COPIES), GROUPS)
}

/// A session of each group, by group.
fn sessions() -> Vec<String> {
    let mut of_group: BTreeMap<u16, String> = BTreeMap::new();
    for number in 0.. {
        let name = format!("s-{number:04}");
        let group = caller().session(&id(&name)).group(GROUPS);
        of_group.entry(group.0).or_insert(name);
        if of_group.len() == usize::from(GROUPS) {
            break;
        }
    }
    of_group.into_values().collect()
}

async fn open_tail(service: &Service, session: &str, after: u64) -> Tail {
    let from = TailFrom::After(Seq(after));
    service.open_tail(&caller(), &id(session), from, Freshness::default()).await.unwrap()
}

/// Takes events until `last`, which must come in order and without holes.
async fn follow_to(tail: &mut Tail, last: u64) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Vec::new();
    while tail.cursor() < Seq(last) {
        match tail.next(100).await.unwrap() {
            TailItem::Events(lines) => {
                seen.extend(lines.into_iter().map(|line| (line.seq.0, line.json.to_vec())));
            }
            other => panic!("{other:?}"),
        }
    }
    seen
}

async fn listed(service: &Service, query: &str) -> Vec<String> {
    let mut cursor = None;
    let mut all = Vec::new();
    loop {
        let query = ListSessions { cursor: cursor.take(), ..ListSessions::parse(query).unwrap() };
        let page = service.list_sessions(&caller(), query).await.unwrap();
        all.extend(page.sessions.iter().map(|session| session.0.path.name.to_string()));
        match page.next_cursor {
            Some(next) => cursor = Some(id(&next)),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_group_is_on_three_of_five_and_every_node_serves_all_of_them() {
    let cluster = five_and_a_router().await;
    let (sessions, placement) = (sessions(), placement());
    let mut by_id = sessions.clone();
    by_id.sort_unstable();
    for (at, session) in sessions.iter().enumerate() {
        // Made through one node, and read at once through another: either may have no copy.
        create(&cluster.service(at % 6), session).await;
        let row = cluster.service((at + 3) % 6);
        let row = row.get_session(&caller(), &id(session), Freshness::default()).await.unwrap();
        assert_eq!(row.value.0.path.name.as_str(), session);
    }
    for node in 0..6 {
        let status = cluster.service(node).ops_status().await;
        let has = placement.groups_of(node).count();
        assert_eq!(status.local_groups, has, "{}", status.node);
        assert_eq!(status.local_mode, if node == ROUTER { "router_node" } else { "write_node" });
        assert_eq!((status.write_nodes.len(), status.write_replication_factor), (5, 3));
        assert_eq!(status.nodes.len(), 6, "the router is among the nodes");
        let (awaited, wait) = (Awaited::Ready, Duration::from_secs(60));
        cluster.service(node).ops_wait(None, awaited, wait).await.unwrap();
    }
    let mut tails = Vec::new();
    for session in &sessions {
        for node in 0..6 {
            tails.push((session.as_str(), open_tail(&cluster.service(node), session, 0).await));
        }
    }
    for (at, session) in sessions.iter().enumerate() {
        for seq in 1..=6 {
            append_through(&cluster.service((at + seq as usize) % 6), session, seq).await;
        }
    }
    let mut shown = BTreeMap::new();
    for session in &sessions {
        let first = seqs(&cluster.service(0), session).await;
        assert_eq!(first.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        for node in 1..6 {
            assert_eq!(seqs(&cluster.service(node), session).await, first, "node {node}");
        }
        shown.insert(session.as_str(), first);
    }
    for (session, tail) in &mut tails {
        assert_eq!(follow_to(tail, 6).await, shown[session], "{session}");
    }
    drop(tails);
    for node in 0..6 {
        let service = cluster.service(node);
        assert_eq!(listed(&service, "consistent=true&limit=5").await, by_id, "node {node}");
        // Absence is told, and refusals come back in the leader's words, wherever the group is.
        let mut refused = BTreeSet::new();
        for number in 0..GROUPS {
            let gone = id(&format!("none-{number}"));
            let read = service.get_session(&caller(), &gone, Freshness::default()).await;
            refused.insert(read.unwrap_err().code);
            let appended = append(&service, gone.as_str(), vec![event("p", 1, "x")]).await;
            refused.insert(appended.unwrap_err().code);
        }
        assert_eq!(refused, [ErrorCode::SessionNotFound].into());
        for session in &sessions {
            let again = append(&service, session, vec![event("p", 6, "another text")]).await;
            assert_eq!(again.unwrap_err().code, ErrorCode::ProducerReplayConflict);
        }
        let metrics = service.metrics_text();
        assert!(metrics.contains("throughline_sessions_followed 0\n"), "node {node}");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_has_last_and_how_it_ends_is_told_by_nodes_without_a_copy() {
    let cluster = five_and_a_router().await;
    let router = cluster.service(ROUTER);
    for session in ["one", "two", "three"] {
        create(&router, session).await;
        append_through(&router, session, 1).await;
        // A wait for the next event ends with it.
        let page = ReadEvents { cursor: Seq(1), limit: 10, wait: Duration::from_secs(30) };
        let (session_id, caller, writer) = (id(session), caller(), cluster.service(0));
        let waits = router.read_events(&caller, &session_id, page, Freshness::default());
        let writes = append_through(&writer, session, 2);
        let (read, ()) = tokio::join!(waits, writes);
        let read = read.unwrap().value;
        assert_eq!(read.events.iter().map(|line| line.seq.0).collect::<Vec<_>>(), [2]);
        // A cursor ahead of the end is one that nobody was given.
        let mut ahead = open_tail(&router, session, 9).await;
        ahead.report_gaps(true);
        match ahead.next(10).await.unwrap() {
            TailItem::Gap(gap) => assert_eq!(gap.next_cursor, Seq(2)),
            other => panic!("{other:?}"),
        }
        let latest = router
            .open_tail(&caller, &session_id, TailFrom::Latest, Freshness::default())
            .await
            .unwrap();
        assert_eq!(latest.cursor(), Seq(2));
        let mut tail = open_tail(&router, session, 1).await;
        assert_eq!(follow_to(&mut tail, 2).await.len(), 1);
        cluster.service(1).close_session(&caller, &session_id).await.unwrap();
        assert!(matches!(tail.next(10).await.unwrap(), TailItem::End(TailEnd::Closed)));
        assert!(matches!(ahead.next(10).await.unwrap(), TailItem::End(TailEnd::Closed)));
        cluster.service(2).delete_session(&caller, &session_id).await.unwrap();
        let gone = router.get_session(&caller, &session_id, Freshness::default()).await;
        assert_eq!(gone.unwrap_err().code, ErrorCode::SessionTombstoned);
    }
    cluster.stop_all().await;
}

fn soon(within: u64) -> Caller {
    Caller { deadline: Instant::now() + Duration::from_secs(within), ..caller() }
}

fn is_not_now(error: &ServiceError) -> bool {
    [ErrorCode::RaftUnavailable, ErrorCode::RaftTimeout].contains(&error.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_of_five_away_groups_with_a_majority_go_on_and_no_absence_is_claimed() {
    let mut cluster = five_and_a_router().await;
    let (sessions, placement) = (sessions(), placement());
    for session in &sessions {
        create(&cluster.service(ROUTER), session).await;
        append_through(&cluster.service(ROUTER), session, 1).await;
        for node in 0..5 {
            assert_eq!(seqs(&cluster.service(node), session).await.len(), 1, "everywhere");
        }
    }
    let mut tails = Vec::new();
    for session in &sessions {
        tails.push(open_tail(&cluster.service(ROUTER), session, 0).await);
    }
    for gone in [1, 3] {
        cluster.stop(gone).await;
    }
    let (mut went_on, mut stood_still) = (0, 0);
    for (at, session) in sessions.iter().enumerate() {
        let places = placement.places(GroupId(at as u16));
        let present = places.iter().filter(|place| ![1, 3].contains(*place)).count();
        assert!(present > 0, "of three, one at least is there");
        let nodes = [0, 2, 4, ROUTER];
        if present * 2 > places.len() {
            went_on += 1;
            for (seq, node) in (2..).zip(nodes) {
                append_through(&cluster.service(node), session, seq).await;
            }
            let first = seqs(&cluster.service(0), session).await;
            assert_eq!(first.len(), 5);
            for node in nodes {
                assert_eq!(seqs(&cluster.service(node), session).await, first);
            }
            assert_eq!(follow_to(&mut tails[at], 5).await, first);
            continue;
        }
        stood_still += 1;
        if stood_still > 1 {
            continue; // Each takes some seconds, and they are all alike.
        }
        let with_a_copy = nodes.into_iter().find(|node| placement.has(GroupId(at as u16), *node));
        for node in [with_a_copy.unwrap(), ROUTER] {
            let service = cluster.service(node);
            let all = ReadEvents { cursor: Seq(0), limit: 10, wait: Duration::ZERO };
            let (session, fresh) = (id(session), Freshness::default());
            let read = service.read_events(&soon(10), &session, all, fresh).await.unwrap().value;
            assert_eq!((read.events.len(), read.up_to_date), (1, false), "what is there is shown");
            let stale = Freshness { stale: true, ..Freshness::default() };
            let row = service.get_session(&soon(10), &session, stale).await.unwrap();
            assert_eq!(row.value.0.header.last_seq, Seq(1));
            // The same as is written below: what became of it may not be known.
            let events = vec![event("p", 2, "hello")];
            let request = tl_engine::api::Append { events, expected_seq: None };
            let refused = service.append(&soon(2), &session, request).await.unwrap_err();
            assert!(is_not_now(&refused), "node {node}: {refused}");
            let end = ReadEvents { cursor: Seq(1), ..all };
            let refused = service.read_events(&soon(4), &session, end, fresh).await.unwrap_err();
            assert!(is_not_now(&refused), "an end is an absence, node {node}: {refused}");
        }
        let page = cluster.service(ROUTER).ops_group(GroupId(at as u16)).await.unwrap();
        assert_eq!((page.role, page.replicas.len()), ("none", 3));
    }
    assert!(went_on > 4 && stood_still > 0, "{went_on} and {stood_still}");
    for gone in [1, 3] {
        cluster.open(gone);
    }
    // Whoever waited goes on where it stood.
    for (at, session) in sessions.iter().enumerate() {
        let present = placement.places(GroupId(at as u16));
        let seq = seqs_when_back(&cluster.service(ROUTER), session).await + 1;
        append_through(&cluster.service(1), session, seq).await;
        let came = follow_to(&mut tails[at], seq).await;
        assert_eq!(came.last().map(|(last, _)| *last), Some(seq), "{present:?}");
    }
    drop(tails);
    cluster.stop_all().await;
}

/// How many events a session has, once its group has a majority again.
async fn seqs_when_back(service: &Service, session: &str) -> u64 {
    loop {
        let fresh = Freshness::default();
        match service.get_session(&soon(30), &id(session), fresh).await {
            Ok(row) => return row.value.0.header.last_seq.0,
            Err(error) => assert!(is_not_now(&error), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_through_a_node_without_a_copy_outlives_every_member_that_has_one() {
    let mut cluster = five_and_a_router().await;
    let session = "chat";
    let group = caller().session(&id(session)).group(GROUPS);
    create(&cluster.service(ROUTER), session).await;
    let mut tail = open_tail(&cluster.service(ROUTER), session, 0).await;
    let mut all = Vec::new();
    let mut seq = 0;
    let places: Vec<usize> = placement().places(group).iter().map(|at| usize::from(*at)).collect();
    for gone in places {
        cluster.stop(gone).await;
        for _ in 0..5 {
            seq += 1;
            append_through(&cluster.service(ROUTER), session, seq).await;
        }
        all.extend(follow_to(&mut tail, seq).await);
        cluster.open(gone);
        cluster.engines[gone].as_ref().unwrap().wait_ready().await.expect("ready again");
    }
    assert_eq!(all, seqs(&cluster.service(0), session).await, "each once, in order");
    let metrics = cluster.service(ROUTER).metrics_text();
    assert!(metrics.contains("throughline_sessions_followed 1\n"));
    drop(tail);
    let metrics = cluster.service(ROUTER).metrics_text();
    assert!(metrics.contains("throughline_sessions_followed 0\n"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_that_wait_for_members_hear_of_a_drain_and_wait_for_nobody() {
    /// Each would wait some seconds for members, one behind the other.
    const TAILS: usize = 60;
    let mut cluster = five_and_a_router().await;
    let session = "chat";
    let group = caller().session(&id(session)).group(GROUPS);
    create(&cluster.service(ROUTER), session).await;
    append_through(&cluster.service(ROUTER), session, 1).await;
    let router = cluster.service(ROUTER);
    let mut tails = Vec::new();
    for _ in 0..TAILS {
        tails.push(open_tail(&router, session, 0).await);
    }
    for place in placement().places(group) {
        cluster.stop(usize::from(*place)).await;
    }
    let mut waiting = tokio::task::JoinSet::new();
    let (waits, mut begun) = tokio::sync::mpsc::channel(TAILS);
    for mut tail in tails {
        let waits = waits.clone();
        waiting.spawn(async move {
            let mut next = std::pin::pin!(tail.next(10));
            tokio::select! {
                biased;
                came = &mut next => panic!("nobody has the event: {came:?}"),
                () = std::future::ready(()) => waits.send(()).await.unwrap(),
            }
            assert!(matches!(next.await.unwrap(), TailItem::End(TailEnd::Shutdown)));
        });
    }
    for _ in 0..TAILS {
        begun.recv().await.unwrap();
    }
    cluster.engines[ROUTER].as_ref().unwrap().begin_drain();
    let all = async {
        while let Some(ended) = waiting.join_next().await {
            ended.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), all).await.is_ok(), "they still wait");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_five_is_replaced_in_its_groups_and_the_others_are_left_alone() {
    let mut cluster = five_and_a_router().await;
    let (sessions, placement) = (sessions(), placement());
    for session in &sessions {
        create(&cluster.service(ROUTER), session).await;
        append_through(&cluster.service(ROUTER), session, 1).await;
    }
    cluster.stop(1).await;
    let refused = cluster.service(ROUTER).ops_replace("node-2", true).await.unwrap_err();
    assert!(refused.message.contains("ask a member"), "{refused}");
    let refused = cluster.service(0).ops_replace("router-1", true).await.unwrap_err();
    assert!(refused.message.contains("is a router"), "{refused}");
    let life = cluster.service(0).ops_replace("node-2", true).await.unwrap();
    assert_eq!((life.copies, life.routers.len()), (Some(3), 1));
    let dir = member_dir(cluster.dir.path(), "node-2");
    std::fs::remove_dir_all(&dir).unwrap();
    life.make_directory(&dir).unwrap();
    cluster.open(1);
    let wait = Duration::from_secs(60);
    let page = cluster.service(0).ops_wait(Some("node-2"), Awaited::Ready, wait).await.unwrap();
    assert_eq!(page.state, NodeState::Ready);
    let status = cluster.service(1).ops_status().await;
    assert_eq!(status.local_groups, placement.groups_of(1).count());
    for group in (0..GROUPS).map(GroupId) {
        let has: Vec<&str> = placement.pick(group, &FIVE).copied().collect();
        // Its leader knows first; the new life hears of the last step a moment later.
        let settled = async {
            loop {
                let page = cluster.service(1).ops_group(group).await.unwrap();
                let names: Vec<&str> = page.replicas.iter().map(|r| r.node.as_str()).collect();
                if names == has && page.replicas.iter().all(|replica| replica.role == "voter") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let within = tokio::time::timeout(wait, settled).await;
        assert!(within.is_ok(), "group {group} is not with {has:?} alone");
    }
    // The new life counts: with another one away, its groups take writes by its vote.
    cluster.stop(0).await;
    for session in &sessions {
        append_through(&cluster.service(1), session, 2).await;
        assert_eq!(seqs(&cluster.service(ROUTER), session).await.len(), 2);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_of_an_earlier_founding_have_all_groups_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = FIVE.map(|name| (name.to_owned(), member_dir(dir.path(), name)));
    let ids = std::cell::Cell::new(0);
    let fresh = || {
        ids.set(ids.get() + 1);
        [ids.get(); 16]
    };
    tl_engine::cluster::found(&dirs, GROUPS, UnixMs(1), fresh).unwrap();
    let path = dirs[0].1.join("node.json");
    let mut file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&file["format"], &file["copies"]), (&2.into(), &3.into()));
    // As a release wrote it that knew no places.
    file.as_object_mut().unwrap().remove("copies");
    file["format"] = 1.into();
    std::fs::write(&path, file.to_string()).unwrap();
    let identity = tl_engine::identity::Identity::open(&dirs[0].1).unwrap().unwrap();
    let listed = (1..).zip(FIVE).map(|(port, name)| format!("{name}=127.0.0.1:{port}"));
    let settings = ClusterSettings { members: listed.collect(), ..Default::default() };
    let member = tl_engine::cluster::Membership::of(&dirs[0].1, &identity, &settings, "node-1");
    let member = member.unwrap().unwrap();
    for group in (0..GROUPS).map(GroupId) {
        assert_eq!(member.voters_of(group).map(|voters| voters.len()), Some(5));
    }
}
