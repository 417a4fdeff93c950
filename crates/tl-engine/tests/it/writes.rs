use tl_engine::api::{CreateSession, Freshness, ListSessions, ReadEvents, UpdateSession};
use tl_types::{ErrorCode, RequestId, Seq};

use crate::support::{append, append_at, caller, create, event, id, start, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_get_contiguous_positions_and_repeats_get_the_first_ones() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;

    let one = append(&service, "chat", vec![event("p", 1, "a")]).await.unwrap();
    let batch = vec![event("p", 2, "b"), event("p", 3, "c")];
    let two = append(&service, "chat", batch.clone()).await.unwrap();
    assert_eq!((one.first_seq, two.first_seq, two.last_seq), (Seq(1), Seq(2), Seq(3)));
    let again = append(&service, "chat", batch).await.unwrap();
    assert_eq!((again.first_seq, again.last_seq, again.deduped), (Seq(2), Seq(3), true));

    let stale = append_at(&service, "chat", vec![event("q", 1, "x")], Some(Seq(1))).await;
    assert_eq!(stale.unwrap_err().code, ErrorCode::ExpectedSeqConflict);
    let other = append(&service, "chat", vec![event("p", 3, "other")]).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::ProducerSeqConflict);
    let missing = append(&service, "nowhere", vec![event("p", 1, "x")]).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::SessionNotFound);

    let request = ReadEvents { cursor: Seq(1), limit: 10, wait: std::time::Duration::ZERO };
    let page = service
        .read_events(&caller(), &id("chat"), request, Freshness::default())
        .await
        .unwrap()
        .value;
    let seqs: Vec<u64> = page.events.iter().map(|line| line.seq.0).collect();
    assert_eq!((seqs, page.last_seq, page.up_to_date), (vec![2, 3], Seq(3), true));
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_id_gets_the_first_reply() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    let mut caller = caller();
    caller.request_id = Some(RequestId([9; 16]));
    let request = || CreateSession { id: Some(id("once")), ..CreateSession::default() };
    let first = service.create_session(&caller, request()).await.unwrap();
    let again = service.create_session(&caller, request()).await.unwrap();
    assert_eq!(first.value, again.value);
    caller.request_id = None;
    let error = service.create_session(&caller, request()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionExists);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_create_without_an_id_makes_one_session() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    let mut one = caller();
    for key in 0..8 {
        one.request_id = Some(RequestId([key; 16]));
        let first = service.create_session(&one, CreateSession::default()).await.unwrap();
        let again = service.create_session(&one, CreateSession::default()).await.unwrap();
        assert_eq!(first.value, again.value);
    }
    let listed = service.list_sessions(&caller(), ListSessions::parse("").unwrap()).await.unwrap();
    assert_eq!(listed.sessions.len(), 8);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_changed_hidden_closed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "s").await;
    let update = UpdateSession { title: Some(Some("T".into())), ..UpdateSession::default() };
    let row = service.update_session(&caller(), &id("s"), update.clone()).await.unwrap().value;
    assert_eq!(row.0.header.version, 2);
    let stale = UpdateSession { expected_version: Some(1), ..update };
    let error = service.update_session(&caller(), &id("s"), stale).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExpectedVersionConflict);

    let listed = |query: &str| {
        let (service, request) = (service.clone(), ListSessions::parse(query).unwrap());
        async move { service.list_sessions(&caller(), request).await.unwrap().sessions.len() }
    };
    assert_eq!(listed("").await, 1);
    service.set_archived(&caller(), &id("s"), true).await.unwrap();
    assert_eq!((listed("").await, listed("archived=true").await), (0, 1));

    service.close_session(&caller(), &id("s")).await.unwrap();
    let closed = append(&service, "s", vec![event("p", 1, "x")]).await.unwrap_err();
    assert_eq!(closed.code, ErrorCode::SessionClosed);
    service.delete_session(&caller(), &id("s")).await.unwrap();
    service.delete_session(&caller(), &id("s")).await.unwrap();
    let gone = service.get_session(&caller(), &id("s"), Freshness::default()).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::SessionTombstoned);
    stop(engine).await;
}
