#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn code<T: std::fmt::Debug>(result: Result<T, WireError>) -> &'static str {
    result.unwrap_err().code.word()
}

#[test]
fn an_empty_query_asks_for_defaults() {
    let list = ListQuery::parse("").unwrap();
    assert_eq!((list.limit, list.cursor, list.archived), (100, None, Listing::Active));
    assert_eq!((list.metadata, list.freshness), (vec![], Freshness::default()));
    let tail = TailQuery::parse("").unwrap();
    assert_eq!((tail.start, tail.batch_size), (TailStart::After(Seq(0)), 1));
    let events = EventsQuery::parse("").unwrap();
    assert_eq!((events.cursor, events.limit, events.wait_ms), (Seq(0), 100, 0));
    assert_eq!(append_expected_seq(""), Ok(None));
}

#[test]
fn lists_take_limit_cursor_and_archived() {
    let list = ListQuery::parse("limit=1000&cursor=ses%2F1+a&archived=all&x=%zz&%ff=1").unwrap();
    assert_eq!(list.limit, 1000);
    assert_eq!(list.cursor.unwrap().as_str(), "ses/1 a");
    assert_eq!(list.archived, Listing::All);
    assert_eq!(ListQuery::parse("archived=true").unwrap().archived, Listing::Archived);
    assert_eq!(ListQuery::parse("archived=all&archived=false").unwrap().archived, Listing::Active);
    for (query, wanted) in [
        ("limit=0", "invalid_limit"),
        ("limit=1001", "invalid_limit"),
        ("limit=ten", "invalid_limit"),
        ("limit=", "invalid_limit"),
        ("limit=%ff", "invalid_limit"),
        ("cursor=", "invalid_cursor"),
        ("cursor=%00", "invalid_cursor"),
        ("archived=yes", "invalid_list_query"),
        ("archived", "invalid_list_query"),
        ("archived=%f", "invalid_list_query"),
        ("consistent=1", "invalid_list_query"),
        ("stale=maybe", "invalid_list_query"),
        ("min_index=-1", "invalid_list_query"),
    ] {
        assert_eq!(code(ListQuery::parse(query)), wanted, "{query}");
    }
}

#[test]
fn metadata_filters_come_dotted_or_nested() {
    let filters = |query: &str| {
        let list = ListQuery::parse(query).unwrap();
        let pairs: Vec<_> = list.metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(" ")
    };
    assert_eq!(filters("metadata.b=2&metadata%5Ba%5D=1"), "a=1 b=2");
    assert_eq!(filters("metadata.a=dot&metadata[a]=nest"), "a=dot", "dotted wins");
    assert_eq!(filters("metadata[a]=1&metadata[a]=2"), "a=2", "last wins");
    assert_eq!(filters("metadata.a=1&metadata.a=2"), "a=2", "last wins");
    assert_eq!(filters("metadata.a.b=1&metadata.c%20d=x%2By"), "a.b=1 c d=x+y");
    assert_eq!(filters("metadata.=1&metadata.k=%ff&metadatax=1&meta[a]=1"), "", "dropped");
    for query in
        ["metadata[a][b]=1", "metadata[]=1", "metadata=1", "metadata[a=1", "metadata[a]=%ff"]
    {
        assert_eq!(code(ListQuery::parse(query)), "invalid_metadata", "{query}");
    }
}

#[test]
fn tails_start_where_they_are_told() {
    let start = |query: &str| TailQuery::parse(query).unwrap().start;
    assert_eq!(start("cursor=7"), TailStart::After(Seq(7)));
    assert_eq!(start("cursor=9007199254740991"), TailStart::After(Seq((1 << 53) - 1)));
    assert_eq!(start("from=earliest"), TailStart::After(Seq(0)));
    assert_eq!(start("from=latest"), TailStart::Latest);
    assert_eq!(start("from=-25"), TailStart::Last(25));
    assert_eq!(start("live_only=true&access_token=x"), TailStart::After(Seq(0)));
    for query in [
        "cursor=9007199254740992",
        "cursor=-1",
        "cursor=1.0",
        "cursor=",
        "cursor=+1",
        "from=",
        "from=25",
        "from=now",
        "from=-",
        "from=-x",
        "from=%ff",
        "cursor=1&from=latest",
        "cursor=x&batch_size=0",
        "min_index=x",
    ] {
        assert_eq!(code(TailQuery::parse(query)), "invalid_cursor", "{query}");
    }
    assert_eq!(TailQuery::parse("batch_size=1000").unwrap().batch_size, 1000);
    for query in ["batch_size=0", "batch_size=1001", "batch_size=", "batch_size=a"] {
        assert_eq!(code(TailQuery::parse(query)), "invalid_tail_batch_size", "{query}");
    }
}

#[test]
fn the_last_event_id_wins() {
    let tail = TailQuery::parse("from=latest").unwrap();
    assert_eq!(tail.resume_after("12").unwrap().start, TailStart::After(Seq(12)));
    assert_eq!(code(tail.resume_after("twelve")), "invalid_cursor");
}

#[test]
fn pages_of_events_have_cursor_limit_and_wait() {
    let query =
        EventsQuery::parse("cursor=3&limit=1&wait_ms=30000&min_index=9&stale=true").unwrap();
    assert_eq!((query.cursor, query.limit, query.wait_ms), (Seq(3), 1, 30_000));
    assert_eq!(query.freshness.min_index, Some(Index(9)));
    assert!(query.freshness.stale && !query.freshness.consistent);
    for (query, wanted) in [
        ("cursor=a", "invalid_cursor"),
        ("limit=0", "invalid_limit"),
        ("limit=1001", "invalid_limit"),
        ("wait_ms=30001", "invalid_wait_ms"),
        ("wait_ms=-1", "invalid_wait_ms"),
        ("stale=2", "invalid_cursor"),
    ] {
        assert_eq!(code(EventsQuery::parse(query)), wanted, "{query}");
    }
}

#[test]
fn other_requests_have_expected_seq_and_freshness() {
    assert_eq!(append_expected_seq("expected_seq=1&expected_seq=0"), Ok(Some(Seq(0))));
    assert_eq!(code(append_expected_seq("expected_seq=x")), "invalid_event");
    let freshness = Freshness::parse("consistent=true&stale=false&min_index=4&x=y").unwrap();
    let wanted = Freshness { consistent: true, stale: false, min_index: Some(Index(4)) };
    assert_eq!(freshness, wanted);
    assert_eq!(code(Freshness::parse("consistent=")), "invalid_list_query");
}

#[test]
fn a_slash_may_be_part_of_an_id() {
    assert_eq!(session_id("a%2Fb%20c+d").unwrap().as_str(), "a/b c+d");
    assert_eq!(session_id("%C3%BC").unwrap().as_str(), "ü");
    assert_eq!(session_id(&"x".repeat(255)).unwrap().as_str().len(), 255);
    for segment in ["", "%", "%2", "%zz", "%ff", "%0a", "a%00", &"x".repeat(256)] {
        assert_eq!(code(session_id(segment)), "invalid_session_id", "{segment}");
    }
}

proptest! {
    #[test]
    fn no_query_makes_reading_panic(query in "[a-z=&%+\\[\\].0-9ü]{0,60}|\\PC{0,40}") {
        let _ = ListQuery::parse(&query);
        let _ = TailQuery::parse(&query);
        let _ = EventsQuery::parse(&query);
        let _ = append_expected_seq(&query);
        let _ = Freshness::parse(&query);
        let _ = session_id(&query);
    }

    #[test]
    fn encoded_ids_come_back(id in "\\PC{1,40}") {
        prop_assume!(SessionId::new(&id).is_some());
        let segment: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let decoded = session_id(&segment).unwrap();
        prop_assert_eq!(decoded.as_str(), id);
    }
}
