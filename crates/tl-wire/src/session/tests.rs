#![allow(clippy::unwrap_used)]

use super::*;

fn members(members: &Members) -> String {
    let texts = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    members.0.iter().map(|(k, v)| texts(k) + ":" + &texts(v)).collect::<Vec<_>>().join(",")
}

fn create(body: &str) -> CreateRequest {
    CreateRequest::parse(body.as_bytes()).unwrap()
}

fn create_refused(body: &str) -> &'static str {
    CreateRequest::parse(body.as_bytes()).unwrap_err().code.word()
}

fn patch(body: &str) -> PatchRequest {
    PatchRequest::parse(body.as_bytes()).unwrap()
}

fn patch_refused(body: &str) -> &'static str {
    PatchRequest::parse(body.as_bytes()).unwrap_err().code.word()
}

#[test]
fn nothing_said_means_defaults() {
    for body in ["", "{}", r#"{"id":null,"title":null,"metadata":null}"#] {
        assert_eq!(create(body), CreateRequest::default(), "{body}");
    }
}

#[test]
fn a_session_is_created_as_told() {
    let request = create(
        r#"{"id":"ses/1","title":"","metadata":{ "b":{"x" : 1}, "\u0061":"\u00e9\/", "c":null },
            "creator_principal":{"id":"someone"},"tenant_id":"other"}"#,
    );
    assert_eq!(request.id.unwrap().as_str(), "ses/1");
    assert_eq!(request.title.as_deref(), Some(""));
    assert_eq!(members(&request.metadata), r#""b":{"x":1},"a":"é/","c":null"#);
    assert_eq!(request.metadata.object_bytes(), r#"{"b":{"x":1},"a":"é/","c":null}"#.len());
    assert_eq!(Members::default().object_bytes(), 2);
}

#[test]
fn each_field_of_create_has_its_refusal() {
    let long_id = format!(r#"{{"id":"{}"}}"#, "x".repeat(256));
    let long_title = format!(r#"{{"title":"{}"}}"#, "x".repeat(1_025));
    for (body, code) in [
        (r#"{"id":""}"#, "invalid_event"),
        (r#"{"id":5}"#, "invalid_event"),
        (r#"{"id":{}}"#, "invalid_event"),
        (r#"{"id":"a\u0000"}"#, "invalid_session_id"),
        (r#"{"id":"a\n"}"#, "invalid_session_id"),
        (&long_id, "invalid_session_id"),
        (r#"{"title":5}"#, "invalid_event"),
        (&long_title, "invalid_session"),
        (r#"{"metadata":[]}"#, "invalid_metadata"),
        (r#"{"metadata":"x"}"#, "invalid_metadata"),
        ("[]", "invalid_session"),
        ("null", "invalid_session"),
        ("{", "invalid_json"),
        (" ", "invalid_json"),
        ("{} {}", "invalid_json"),
        (r#"{"metadata":{"a":1,"\u0061":2}}"#, "invalid_json"),
    ] {
        assert_eq!(create_refused(body), code, "{body}");
    }
    let deep = format!(r#"{{"metadata":{}1{}}}"#, "{\"a\":".repeat(32), "}".repeat(32));
    assert_eq!(create_refused(&deep), "too_deep");
}

#[test]
fn lengths_at_their_limits_are_taken() {
    let id = "x".repeat(255);
    let title = "x".repeat(1_024);
    let request = create(&format!(r#"{{"id":"{id}","title":"{title}"}}"#));
    assert_eq!((request.id.unwrap().as_str(), request.title.unwrap()), (&*id, title));

    let metadata =
        |bytes: usize| format!(r#"{{"metadata": {{"a":1, "k": "{}"}}}}"#, "x".repeat(bytes - 14));
    let request = create(&metadata(METADATA_BYTES_MAX));
    assert_eq!(request.metadata.object_bytes(), METADATA_BYTES_MAX);
    let error = CreateRequest::parse(metadata(METADATA_BYTES_MAX + 1).as_bytes()).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    let many: Vec<_> = (0..100_000).map(|name| format!("\"{name}\":0")).collect();
    let many = format!(r#"{{"metadata":{{{}}}}}"#, many.join(","));
    assert_eq!(create_refused(&many), "payload_too_large");
    let body = vec![b' '; BODY_BYTES_MAX + 1];
    let error = CreateRequest::parse(&body).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
}

#[test]
fn a_patch_changes_title_or_metadata() {
    assert_eq!(patch(r#"{"title":null}"#).title, Some(None));
    let request = patch(r#"{"title":"t","metadata":{},"expected_version":"3"}"#);
    assert_eq!(request.title, Some(Some("t".into())));
    assert_eq!((request.metadata, request.expected_version), (Some(Members::default()), Some(3)));
    let request = patch(r#"{"metadata":{"a":null},"expected_version":null}"#);
    assert_eq!((request.title, request.expected_version), (None, None));
    assert_eq!(members(&request.metadata.unwrap()), r#""a":null"#);
}

#[test]
fn each_field_of_patch_has_its_refusal() {
    for (body, code) in [
        ("", "invalid_session"),
        ("{}", "invalid_session"),
        ("[]", "invalid_session"),
        (r#"{"metadata":{}}"#, "invalid_session"),
        (r#"{"expected_version":1}"#, "invalid_session"),
        (r#"{"title":7}"#, "invalid_session"),
        (r#"{"title":"t","expected_version":0}"#, "invalid_session"),
        (r#"{"title":"t","expected_version":"x"}"#, "invalid_session"),
        (r#"{"title":"t","expected_version":1.5}"#, "invalid_session"),
        (r#"{"metadata":null}"#, "invalid_metadata"),
        (r#"{"metadata":[1]}"#, "invalid_metadata"),
        ("{]", "invalid_json"),
    ] {
        assert_eq!(patch_refused(body), code, "{body}");
    }
}

proptest::proptest! {
    #[test]
    fn no_body_makes_reading_panic(bytes: Vec<u8>, text in "[{}\":,a-z0-9\\[\\]]{0,40}") {
        for body in [&*bytes, text.as_bytes()] {
            let _ = CreateRequest::parse(body);
            let _ = PatchRequest::parse(body);
        }
    }
}
