#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Value;

use super::text::plain_run;
use super::*;
use crate::testing::Choices;

fn check(text: &str) -> Result<String, String> {
    check_bytes(text.as_bytes())
}

fn check_bytes(text: &[u8]) -> Result<String, String> {
    match compact(text) {
        Ok((out, _)) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

fn hash(text: &str) -> u128 {
    compact(text.as_bytes()).unwrap().1
}

#[test]
fn whitespace_goes_and_everything_else_stays() {
    for (sent, kept) in [
        (" { \"b\" : 1.50e+2 , \"a\\u0041\" :\t[ ] }\r\n", "{\"b\":1.50e+2,\"a\\u0041\":[]}"),
        ("[ 1 , -0 , 0.0 , true , false , null ]", "[1,-0,0.0,true,false,null]"),
        ("\"a b\\n\\ud83d\\ude00ü\"", "\"a b\\n\\ud83d\\ude00ü\""),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("{}", "{}"),
    ] {
        assert_eq!(check(sent).as_deref(), Ok(kept));
    }
}

#[test]
fn a_refusal_says_what_and_where() {
    for (sent, error) in [
        ("", "the text ends too early at byte 0"),
        ("  ", "the text ends too early at byte 2"),
        ("{", "the text ends too early at byte 1"),
        ("{\"a\"", "the text ends too early at byte 4"),
        ("{\"a\":", "the text ends too early at byte 5"),
        ("{\"a\":1", "the text ends too early at byte 6"),
        ("{\"a\":1,", "the text ends too early at byte 7"),
        ("[1", "the text ends too early at byte 2"),
        ("[1,", "the text ends too early at byte 3"),
        ("\"abc", "the text ends too early at byte 4"),
        ("\"ab\\", "the text ends too early at byte 4"),
        ("\"\\u12", "the text ends too early at byte 5"),
        ("tru", "the text ends too early at byte 0"),
        ("1.", "the text ends too early at byte 2"),
        ("-", "the text ends too early at byte 1"),
        ("truth", "expected `true`, `false` or `null` at byte 0"),
        ("?", "expected a value at byte 0"),
        ("[1 2]", "expected `,` or `]` at byte 3"),
        ("[1,]", "expected a value at byte 3"),
        ("{\"a\":1 \"b\":2}", "expected `,` or `}` at byte 7"),
        ("{\"a\":1,}", "expected a member name in quotes at byte 7"),
        ("{1:2}", "expected a member name in quotes at byte 1"),
        ("{\"a\" 1}", "expected `:` at byte 5"),
        ("01", "malformed number at byte 1"),
        ("-a", "malformed number at byte 1"),
        ("1.e3", "malformed number at byte 2"),
        ("1e+x", "malformed number at byte 3"),
        ("1 2", "something follows the value at byte 2"),
        ("\"\\x\"", "malformed escape in a string at byte 2"),
        ("\"\\u12g4\"", "malformed escape in a string at byte 5"),
        ("\"a\\ud800\"", "half of a surrogate pair at byte 2"),
        ("\"\\ud800\\n\"", "half of a surrogate pair at byte 1"),
        ("\"\\ud800\\ud800\"", "half of a surrogate pair at byte 1"),
        ("\"\\udc00\\ud800\"", "half of a surrogate pair at byte 1"),
        ("\"a\nb\"", "control character in a string, which must be escaped at byte 2"),
        ("{\"a\":1,\"a\":2}", "the object has a member of this name already at byte 7"),
        ("{\"a\":1,\"\\u0061\":2}", "the object has a member of this name already at byte 7"),
    ] {
        assert_eq!(check(sent), Err(error.to_owned()), "{sent}");
    }
    let not_utf8 = b"[\"abcdefgh\xff\"]";
    assert_eq!(check_bytes(not_utf8), Err("bytes that are not UTF-8 at byte 10".into()));
    let half = b"\"\xf0\x9f\x98\"";
    assert_eq!(check_bytes(half), Err("bytes that are not UTF-8 at byte 1".into()));
    assert_eq!(check_bytes(b"\xef\xbb\xbf1"), Err("expected a value at byte 0".into()));
}

#[test]
fn depth_at_the_limit_and_one_past() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(check(&nested(32)).is_ok());
    let error = compact(nested(33).as_bytes()).unwrap_err();
    assert_eq!(error, JsonError { offset: 32, problem: Problem::TooDeep });
    let error = crate::WireError::from(error);
    assert_eq!(error.code, tl_types::ErrorCode::TooDeep);
    assert!(compact("{\"a\":".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn a_repeated_name_is_found_in_objects_of_any_size() {
    for len in [2, 31, 32, 33, 34, 500] {
        let members = |last: usize| {
            let names: Vec<_> = (0..len - 1)
                .chain([last])
                .map(|name| format!("\"k{name}\":{{\"k0\":0}}"))
                .collect();
            format!("{{{}}}", names.join(","))
        };
        assert!(check(&members(len)).is_ok(), "{len}");
        let error = check(&members(0)).unwrap_err();
        assert!(error.contains("already"), "{len}: {error}");
    }
}

#[test]
fn names_may_repeat_in_different_objects() {
    assert!(check(r#"{"a":{"a":[{"a":1},{"a":2}]},"b":{"a":3}}"#).is_ok());
}

#[test]
fn the_hash_looks_at_content_and_not_at_spelling() {
    assert_eq!(hash(r#"{"a":1,"b":[{"c":"é","d":null}]}"#), {
        hash("{\"b\" : [ {\"d\":null, \"\\u0063\":\"\\u00e9\"} ],\n\"a\":1}")
    });
    let different = [
        "1",
        "1.0",
        "\"1\"",
        "[1]",
        "[[1]]",
        "{\"1\":1}",
        "null",
        "\"null\"",
        "true",
        "false",
        "[]",
        "{}",
        "\"\"",
        "[1,2]",
        "[2,1]",
        "[[1],2]",
        "[1,[2]]",
        "{\"a\":\"b\"}",
        "{\"b\":\"a\"}",
        "{\"a\":1,\"b\":2}",
        "{\"a\":2,\"b\":1}",
        "{\"a\":{\"b\":2}}",
        "[[],[]]",
        "[[]]",
    ];
    for (index, one) in different.iter().enumerate() {
        for other in &different[index + 1..] {
            assert_ne!(hash(one), hash(other), "{one} {other}");
        }
    }
}

#[test]
fn hashes_never_move_golden() {
    let texts = ["null", "\"a\"", "1.50", "[1,\"2\"]", r#"{"a":1,"b":{"c":[true,false]}}"#];
    let seen: Vec<_> = texts.iter().map(|text| format!("{:032x} {text}", hash(text))).collect();
    crate::testing::golden("hashes.txt", seen.join("\n").as_bytes());
    assert_eq!(
        key_hash(b"starcite_principal"),
        super::hash::scanned_key_hash(b"starcite_principal")
    );
}

#[test]
fn written_strings_have_one_spelling() {
    let mut out = Vec::new();
    write::string(&mut out, "a\"\\/\u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f}ü😀");
    let wanted = "\"a\\\"\\\\/\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}ü😀\"";
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
    for value in [0, 9, 10, u64::MAX] {
        let mut out = Vec::new();
        write::number(&mut out, value);
        assert_eq!(out, value.to_string().as_bytes());
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000i32..1_000_000).prop_map(|n| Value::from(f64::from(n) / 64.0 + 0.5)),
        "\\PC{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,6}|[a-c\"\\\\\u{1}]{1,3}", inner, 0..40)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Spells a value with whitespace, escapes and an order of members as the choices fall.
fn spell(value: &Value, choices: &mut Choices, out: &mut String) {
    space(choices, out);
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                spell(item, choices, out);
            }
            space(choices, out);
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let mut members: Vec<_> = members.iter().collect();
            for index in (1..members.len()).rev() {
                members.swap(index, choices.below(index + 1));
            }
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                space(choices, out);
                spell_string(name, choices, out);
                space(choices, out);
                out.push(':');
                spell(member, choices, out);
            }
            space(choices, out);
            out.push('}');
        }
        Value::String(text) => spell_string(text, choices, out),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
    space(choices, out);
}

fn space(choices: &mut Choices, out: &mut String) {
    while choices.below(4) == 0 {
        out.push([' ', '\t', '\n', '\r'][choices.below(4)]);
    }
}

fn spell_string(text: &str, choices: &mut Choices, out: &mut String) {
    out.push('"');
    for plain in text.chars() {
        if choices.below(5) == 0 {
            for unit in plain.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            let quoted = Value::from(plain.to_string()).to_string();
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
    out.push('"');
}

fn spelled(value: &Value, seed: u64) -> String {
    let mut out = String::new();
    spell(value, &mut Choices(seed), &mut out);
    out
}

/// Both readers agree, but for what is refused on purpose and for numbers that the other one
/// cannot hold.
fn agree(text: &[u8]) -> Result<(), TestCaseError> {
    let theirs = serde_json::from_slice::<Value>(text);
    match (compact(text), theirs) {
        (Ok((out, _)), Ok(value)) => {
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), value);
        }
        (Ok(_), Err(error)) => {
            prop_assert!(error.to_string().contains("number out of range"), "{}", error);
        }
        (Err(error), Ok(_)) => prop_assert!(
            matches!(error.problem, Problem::DuplicateKey | Problem::TooDeep),
            "{}",
            error
        ),
        (Err(error), Err(_)) => prop_assert!(error.offset <= text.len()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_spelling_of_a_value_reads_back_and_hashes_alike(
        value in values(), one: u64, other: u64,
    ) {
        let (first, second) = (spelled(&value, one), spelled(&value, other));
        let (out, hash) = compact(first.as_bytes()).unwrap();
        prop_assert!(out.len() <= first.len());
        prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), value);
        prop_assert_eq!(hash, compact(second.as_bytes()).unwrap().1);
        let again = compact(&out).unwrap();
        prop_assert_eq!((out, hash), again, "compact is stable");
    }

    #[test]
    fn different_values_hash_differently(one in values(), other in values()) {
        prop_assume!(one != other);
        prop_assert_ne!(hash(&one.to_string()), hash(&other.to_string()));
    }

    #[test]
    fn damaged_texts_are_judged_as_another_reader_judges_them(
        value in values(), seed: u64, at: prop::sample::Index, byte in prop_oneof![
            prop::sample::select(&b"{}[]\",:\\ 019-+.eEtfnu\x00\x1f\x7f\x80\xc3\xff"[..]), any::<u8>(),
        ], how in 0..4,
    ) {
        let mut text = spelled(&value, seed).into_bytes();
        let at = at.index(text.len());
        match how {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            2 => drop(text.remove(at)),
            _ => text.truncate(at),
        }
        agree(&text)?;
    }

    #[test]
    fn no_bytes_make_the_scanner_panic(bytes: Vec<u8>) {
        agree(&bytes)?;
    }

    #[test]
    fn no_json_like_bytes_make_the_scanner_panic(
        text in "[\\[\\]{}\",:\\\\u0-9a-f eE.+\\-]{0,40}",
    ) {
        agree(text.as_bytes())?;
    }

    #[test]
    fn a_plain_run_ends_at_the_first_special_byte(bytes: Vec<u8>, pad in 0usize..20) {
        let mut all = vec![b'x'; pad];
        all.extend_from_slice(&bytes);
        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        let len = all.iter().position(special).unwrap_or(all.len());
        let not_ascii = !all[..len].is_ascii();
        prop_assert_eq!(plain_run(&all), (len, not_ascii));
    }

    #[test]
    fn written_strings_read_back(text: String) {
        let out = write::quoted(&text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
        prop_assert_eq!(&*unescape(&out[1..out.len() - 1]), text.as_bytes());
    }
}
