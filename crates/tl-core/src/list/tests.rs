#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::tests::Bench;
use crate::tests::script::entry;

fn bench(lines: &[&str]) -> Bench {
    let mut bench = Bench::default();
    for line in lines {
        bench.apply(&entry(line));
    }
    bench
}

fn query(limit: usize) -> ListQuery {
    let path = crate::tests::path("x");
    ListQuery {
        tenant: path.tenant,
        namespace: path.namespace,
        after: None,
        limit,
        listing: ListingFilter::Active,
        metadata: vec![],
    }
}

/// Ids of a page, and where to go on.
fn ids(page: &ListPage) -> (Vec<&str>, Option<&str>) {
    let ids = page.sessions.iter().map(|row| row.path.name.as_str()).collect();
    (ids, page.resume_after.as_ref().map(SessionId::as_str))
}

#[test]
fn sessions_come_by_id_in_byte_order_without_deleted_ones() {
    let bench = bench(&[
        "create b",
        "create a",
        "create é",
        "create Z",
        "create d",
        "delete d",
        "close b",
        "hide a",
    ]);
    let mut query = query(10);
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()), (vec!["Z", "b", "é"], None));
    query.listing = ListingFilter::Archived;
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()), (vec!["a"], None));
    query.listing = ListingFilter::All;
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()), (vec!["Z", "a", "b", "é"], None));
}

#[test]
fn pages_go_on_behind_the_cursor() {
    let bench = bench(&["create a", "create a0", "create b", "create c"]);
    let mut query = query(2);
    let first = page(&bench.rows, &query).unwrap();
    assert_eq!(ids(&first), (vec!["a", "a0"], Some("a0")));
    query.after = first.resume_after;
    let second = page(&bench.rows, &query).unwrap();
    assert_eq!(ids(&second).0, ["b", "c"]);
    query.after = SessionId::new("a");
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()).0, ["a0", "b"]);
    query.after = SessionId::new("c");
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()), (vec![], None));
}

#[test]
fn other_tenants_and_namespaces_are_absent() {
    let bench = bench(&["create a"]);
    let mut query = query(10);
    query.tenant = Tenant::new("acm").unwrap();
    assert_eq!(page(&bench.rows, &query).unwrap(), ListPage::default());
    query.tenant = Tenant::new("acme").unwrap();
    query.namespace = Namespace::new("defaul").unwrap();
    assert_eq!(page(&bench.rows, &query).unwrap(), ListPage::default());
}

#[test]
fn metadata_filters_match_exactly_and_all_of_them() {
    let bench = bench(&[
        r#"create a meta=k="v";n=1"#,
        r#"create b meta=k="v""#,
        r#"create c meta=k="w";n=1"#,
        "create d",
    ]);
    let member = |name: &'static str, value: &'static str| (name.into(), value.into());
    let mut query = query(10);
    query.metadata = vec![member(r#""k""#, r#""v""#)];
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()).0, ["a", "b"]);
    query.metadata.push(member(r#""n""#, "1"));
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()).0, ["a"]);
    query.metadata = vec![member(r#""n""#, r#""1""#)];
    assert_eq!(ids(&page(&bench.rows, &query).unwrap()), (vec![], None));
}

#[test]
fn a_selective_filter_gives_a_short_page_with_a_place_to_go_on_from() {
    let bench = bench(&["create a", "create b", "create c", "hide c", "create d", "create e"]);
    let mut query = query(10);
    query.listing = ListingFilter::Archived;
    let first = page_examining(&bench.rows, &query, 2).unwrap();
    assert_eq!(ids(&first), (vec![], Some("b")));
    query.after = first.resume_after;
    let second = page_examining(&bench.rows, &query, 2).unwrap();
    assert_eq!(ids(&second), (vec!["c"], Some("d")));
    query.after = second.resume_after;
    assert_eq!(ids(&page_examining(&bench.rows, &query, 2).unwrap()), (vec![], None));
}

proptest! {
    #[test]
    fn paging_through_gives_every_session_once(
        count in 0usize..40, hidden in proptest::collection::btree_set(0usize..40, 0..20),
        limit in 1usize..9, examined in 1usize..9,
    ) {
        let mut bench = Bench::default();
        let mut expected = Vec::new();
        for n in 0..count {
            bench.apply(&entry(&format!("create s{n:02}")));
            if hidden.contains(&n) {
                bench.apply(&entry(&format!("hide s{n:02}")));
            } else {
                expected.push(format!("s{n:02}"));
            }
        }
        let mut query = query(limit);
        let mut seen = Vec::new();
        loop {
            let page = page_examining(&bench.rows, &query, examined).unwrap();
            prop_assert!(page.sessions.len() <= limit.min(examined));
            seen.extend(page.sessions.iter().map(|row| row.path.name.as_str().to_owned()));
            match page.resume_after {
                None => break,
                Some(id) => query.after = Some(id),
            }
        }
        prop_assert_eq!(seen, expected);
    }
}
