//! Reading request headers: what may be sent back, what was sent, which upgrade is wanted.

use http::{HeaderMap, HeaderName, header};

/// What a body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`: one JSON object per line.
    Lines,
}

/// The body's kind; `None` when it is missing, unknown, in another charset or encoded.
pub fn body_kind(headers: &HeaderMap) -> Option<BodyKind> {
    if is_encoded(headers) {
        return None;
    }
    kind_of(headers.get(header::CONTENT_TYPE)?.to_str().ok()?)
}

/// The kind that a content type names; `None` when it is unknown or in another charset.
pub fn kind_of(text: &str) -> Option<BodyKind> {
    let mut parts = text.split(';').map(str::trim);
    let kind = match parts.next()? {
        essence if essence.eq_ignore_ascii_case("application/json") => BodyKind::Json,
        essence if essence.eq_ignore_ascii_case("application/x-ndjson") => BodyKind::Lines,
        _ => return None,
    };
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    utf8.then_some(kind)
}

/// Whether the body is compressed or otherwise wrapped.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether `Accept` admits `kind/sub`. A missing header admits everything; the most specific
/// range that matches decides, and a weight of zero rules out.
pub fn accepts(headers: &HeaderMap, kind: &str, sub: &str) -> bool {
    if !headers.contains_key(header::ACCEPT) {
        return true;
    }
    best_weight(headers, kind, sub).is_some_and(|(_, admitted)| admitted)
}

/// The same for the ranges of an `Accept` header.
pub fn accepted_by<'a>(ranges: impl Iterator<Item = &'a str>, kind: &str, sub: &str) -> bool {
    weigh(ranges.map(str::trim), kind, sub).is_some_and(|(_, admitted)| admitted)
}

/// Whether `Accept` names `kind/sub` itself, not only by a wildcard.
pub fn asks_for(headers: &HeaderMap, kind: &str, sub: &str) -> bool {
    best_weight(headers, kind, sub) == Some((EXACT, true))
}

const EXACT: u8 = 2;

/// How exact the best matching range is, and whether it admits.
fn best_weight(headers: &HeaderMap, kind: &str, sub: &str) -> Option<(u8, bool)> {
    weigh(tokens(headers, header::ACCEPT), kind, sub)
}

fn weigh<'a>(ranges: impl Iterator<Item = &'a str>, kind: &str, sub: &str) -> Option<(u8, bool)> {
    let mut best: Option<(u8, bool)> = None;
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_kind, range_sub)) = parts.next().and_then(|r| r.split_once('/')) else {
            continue;
        };
        let exactness = match (range_kind, range_sub) {
            ("*", "*") => 0,
            (k, "*") if k.eq_ignore_ascii_case(kind) => 1,
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(sub) => EXACT,
            _ => continue,
        };
        let admitted = !parts.any(is_zero_weight);
        if best.is_none_or(|(seen, _)| exactness >= seen) {
            best = Some((exactness, admitted));
        }
    }
    best
}

fn is_zero_weight(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>() == Ok(0.0)
    })
}

/// Whether a list header holds `token`, in any case.
pub fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|part| part.eq_ignore_ascii_case(token))
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(name, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn bodies_are_json_or_lines_in_utf_8() {
        let cases = [
            ("application/json", Some(BodyKind::Json)),
            ("Application/JSON; charset=\"UTF-8\"", Some(BodyKind::Json)),
            ("application/json; charset=latin1", None),
            ("application/x-ndjson", Some(BodyKind::Lines)),
            ("application/x-www-form-urlencoded", None),
            ("multipart/form-data; boundary=x", None),
            ("text/plain", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(body_kind(&with(header::CONTENT_TYPE, value)), expected, "{value}");
        }
        assert_eq!(body_kind(&HeaderMap::new()), None);
        let mut packed = with(header::CONTENT_TYPE, "application/json");
        packed.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(body_kind(&packed), None);
    }

    #[test]
    fn the_most_specific_range_of_accept_decides() {
        let cases = [
            ("*/*", true),
            ("application/*", true),
            ("text/html, application/json;q=0.1", true),
            ("application/json;q=0, */*", false),
            ("*/*;q=0", false),
            ("text/html", false),
            ("application/*;q=0.0, application/json", true),
            ("nonsense", false),
        ];
        for (value, expected) in cases {
            let headers = with(header::ACCEPT, value);
            assert_eq!(accepts(&headers, "application", "json"), expected, "{value}");
        }
        assert!(accepts(&HeaderMap::new(), "application", "json"));
        assert!(!asks_for(&with(header::ACCEPT, "*/*"), "text", "event-stream"));
        assert!(asks_for(&with(header::ACCEPT, "text/event-stream, */*"), "text", "event-stream"));
    }

    #[test]
    fn list_headers_are_read_across_lines_and_cases() {
        let mut headers = with(header::CONNECTION, "keep-alive");
        headers.append(header::CONNECTION, HeaderValue::from_static("x, UPGRADE"));
        assert!(has_token(&headers, header::CONNECTION, "upgrade"));
        assert!(!has_token(&headers, header::UPGRADE, "websocket"));
    }
}
