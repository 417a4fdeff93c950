use super::*;
use crate::path::{Namespace, SessionId, Tenant};
use proptest::prelude::*;

fn path(id: &str) -> ResourcePath {
    ResourcePath::session(
        Tenant::new("acme").expect("tenant"),
        Namespace::default_namespace(),
        SessionId::new(id).expect("id"),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn key_bytes_are_a_promise_golden() {
    let n = ResourceNumber(0x0102);
    let id = RequestId([7; 16]);
    let rows = [
        ("group", RowKey::group(GroupField::Last)),
        ("directory", RowKey::directory(&path("ses_1"))),
        ("session", RowKey::session(n)),
        ("event", RowKey::event(n, Seq(258))),
        ("producer", RowKey::producer(n, "w1")),
        ("producer_age", RowKey::producer_age(n, Seq(9), "w1")),
        ("request", RowKey::request(id)),
        ("request_age", RowKey::request_age(1_000, id)),
    ];
    let mut seen = String::new();
    for (name, row) in rows {
        let key = FullKey::new(GroupId(300), Generation(2), &row);
        seen.push_str(&format!("{name} {}\n", hex(key.as_bytes())));
    }
    seen.push_str(&format!("applied {}\n", hex(FullKey::applied(GroupId(300)).as_bytes())));
    assert_eq!(seen, include_str!("../../golden/keys.txt"));
}

#[test]
fn table_numbers_count_up_without_holes() {
    for (at, table) in Table::ALL.into_iter().enumerate() {
        assert_eq!(table as usize, at);
    }
    assert_eq!(Table::from_number(9), None);
}

#[test]
fn a_prefix_end_stands_behind_every_key_with_the_prefix() {
    let start = RowKey::table_start(Table::Event, ResourceNumber(u64::MAX));
    let end = RowKey::table_end(Table::Event, ResourceNumber(u64::MAX));
    let last = RowKey::event(ResourceNumber(u64::MAX), Seq(u64::MAX));
    assert!(start < last && last < end);
    assert!(end <= RowKey::session(ResourceNumber(0)) || end.as_bytes()[0] == 5);
}

proptest! {
    #[test]
    fn events_of_a_session_sort_by_seq(a: u64, b: u64, n: u64) {
        let (x, y) = (RowKey::event(ResourceNumber(n), Seq(a)), RowKey::event(ResourceNumber(n), Seq(b)));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(x.event_seq(), Some(Seq(a)));
    }

    #[test]
    fn directory_rows_sort_by_name(a in "[a-z{}~/é]{1,8}", b in "[a-z{}~/é]{1,8}") {
        let (x, y) = (RowKey::directory(&path(&a)), RowKey::directory(&path(&b)));
        prop_assert_eq!(x.cmp(&y), a.as_bytes().cmp(b.as_bytes()));
    }

    #[test]
    fn full_keys_come_apart_as_they_were_put_together(g: u16, gen_: u32, n: u64, s: u64) {
        let row = RowKey::event(ResourceNumber(n), Seq(s));
        let key = FullKey::new(GroupId(g), Generation(gen_), &row);
        let back = FullKey::from_bytes(key.as_bytes()).expect("a full key");
        prop_assert_eq!(back.parts(), (GroupId(g), Generation(gen_), row));
    }

    #[test]
    fn no_bytes_make_key_reading_panic(bytes: Vec<u8>) {
        if let Some(key) = FullKey::from_bytes(&bytes) {
            let (_, _, row) = key.parts();
            let _ = (row.table(), row.number(), row.event_seq());
        }
    }
}
