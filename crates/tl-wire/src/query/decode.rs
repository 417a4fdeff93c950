//! Taking a query string apart.

use std::borrow::Cow;

/// A decoded value, or `None` when it does not decode.
pub(super) type Value = Option<String>;

/// One parameter.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) value: Value,
}

/// The parameters in order. One whose name does not decode is unknown, so it is left out.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = Pair> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some(Pair {
            name: percent_decode(name.as_bytes(), true)?.into_owned(),
            value: percent_decode(value.as_bytes(), true).map(Cow::into_owned),
        })
    })
}

/// Replaces `%XX` (and `+`, if it means a space here); `None` for a broken escape or bytes that
/// are not UTF-8.
pub(super) fn percent_decode(text: &[u8], plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.iter().any(|&byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return std::str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            b'%' => {
                let (high, low) = (hex(*behind.first()?)?, hex(*behind.get(1)?)?);
                out.push(high << 4 | low);
                rest = &behind[2..];
            }
            b'+' if plus_is_space => out.push(b' '),
            plain => out.push(*plain),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
