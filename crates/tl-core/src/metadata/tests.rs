#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn metadata(members: &[(&str, &str)]) -> Metadata {
    let own = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let members: Vec<Member> = members.iter().map(|(n, v)| (own(n), own(v))).collect();
    Metadata::new(&members)
}

#[test]
fn members_print_as_a_compact_object() {
    for (members, json) in [
        (&[][..], "{}"),
        (&[(r#""a""#, "1")][..], r#"{"a":1}"#),
        (&[(r#""a""#, "1"), (r#""b""#, "[]")][..], r#"{"a":1,"b":[]}"#),
    ] {
        let metadata = metadata(members);
        assert_eq!(String::from_utf8(metadata.to_json()).unwrap(), json);
        assert_eq!(metadata.json_bytes(), json.len());
    }
}

#[test]
fn a_filter_matches_exact_bytes() {
    let metadata = metadata(&[(r#""a""#, r#""x""#), (r#""b""#, "1")]);
    assert!(metadata.has(br#""a""#, br#""x""#));
    assert!(!metadata.has(br#""a""#, br#""y""#));
    assert!(!metadata.has(br#""b""#, br#""1""#));
    assert!(!metadata.has(br#""c""#, b"1"));
}

type Texts = Vec<(String, String)>;

fn of(members: &Texts) -> Metadata {
    let members: Vec<_> = members.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    metadata(&members)
}

#[test]
fn lengths_padded_by_another_writer_read_alike() {
    let padded = Bytes::from_static(&[0x81, 0x80, 0x00, b'n', 0x81, 0x00, b'v']);
    let metadata = Metadata::from_encoded(padded).unwrap();
    assert_eq!(metadata.members(), [("n".into(), "v".into())]);
}

proptest! {
    #[test]
    fn members_come_back(members in vec(("[a-z]{0,3}", "[a-z]{0,300}"), 0..20)) {
        let metadata = of(&members);
        let back = Metadata::from_encoded(metadata.encoded().clone()).unwrap();
        let seen: Texts = back.members().iter()
            .map(|(n, v)| (String::from_utf8(n.to_vec()).unwrap(), String::from_utf8(v.to_vec()).unwrap()))
            .collect();
        prop_assert_eq!(seen, members);
    }

    #[test]
    fn merging_sets_members_as_a_map_does(
        base in proptest::collection::btree_map("[a-d]", "[a-z]", 0..5),
        patch in vec(("[a-f]", "[a-z]"), 0..8),
    ) {
        let mut model: BTreeMap<String, String> = base.clone();
        model.extend(patch.iter().cloned());
        let base: Texts = base.into_iter().collect();
        let merged = of(&base).merged(&of(&patch));
        let names: Vec<String> = merged.members().iter()
            .map(|(n, _)| String::from_utf8(n.to_vec()).unwrap()).collect();
        prop_assert!(names.iter().zip(&base).all(|(name, (old, _))| name == old), "places are kept");
        prop_assert_eq!(names.len(), model.len());
        for (name, value) in model {
            prop_assert!(merged.has(name.as_bytes(), value.as_bytes()));
        }
    }

    #[test]
    fn no_bytes_make_metadata_panic(bytes in vec(0u8..6, 0..40)) {
        if let Ok(metadata) = Metadata::from_encoded(bytes.into()) {
            let json = metadata.to_json();
            prop_assert_eq!(json.len(), metadata.json_bytes());
        }
    }
}
