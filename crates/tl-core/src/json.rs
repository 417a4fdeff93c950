//! The little that rules need of JSON: taking a compact object apart into members, and putting
//! members together. No tree: values stay as they were sent.
//!
//! The edge has validated what gets here and removed insignificant whitespace; anything else is
//! answered with `None`, never with a panic.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

/// A member of an object: the key with its quotes and the value, both as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// The key, quotes and escapes included.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// The members of a compact JSON object, in order; `None` when it is not one.
#[must_use]
pub fn members(object: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut rest = object.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let mut members = Vec::new();
    if rest.is_empty() {
        return Some(members);
    }
    loop {
        let (key, behind) = rest.split_at(string_len(rest)?);
        let behind = behind.strip_prefix(b":")?;
        let (value, behind) = behind.split_at(value_len(behind)?);
        members.push(Member { key, value });
        match behind {
            [] => return Some(members),
            [b',', more @ ..] => rest = more,
            _ => return None,
        }
    }
}

/// `base` with the members of `patch` set: a member that was there keeps its place and takes
/// the new value, others follow in the patch's order. `None` when either is no object.
#[must_use]
pub fn merge(base: &[u8], patch: &[u8]) -> Option<Bytes> {
    let mut merged = members(base)?;
    let mut places = BTreeMap::new();
    for (place, member) in merged.iter().enumerate() {
        places.insert(unescape(member.key)?, place);
    }
    for member in members(patch)? {
        match places.get(&unescape(member.key)?) {
            Some(place) => merged[*place].value = member.value,
            None => {
                places.insert(unescape(member.key)?, merged.len());
                merged.push(member);
            }
        }
    }
    Some(object(&merged))
}

/// Whether an object has every one of these members with exactly this string as its value.
#[must_use]
pub fn has_strings(object: &[u8], wanted: &[(String, String)]) -> bool {
    let Some(members) = members(object) else { return false };
    wanted.iter().all(|(key, value)| {
        members.iter().any(|member| {
            unescape(member.key).is_some_and(|k| k == *key)
                && unescape(member.value).is_some_and(|v| v == *value)
        })
    })
}

/// The text of a JSON string, quotes included in `raw`; `None` when it is not a string.
#[must_use]
pub fn unescape(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.len() < 2 || string_len(raw)? != raw.len() {
        return None;
    }
    let inner = std::str::from_utf8(&raw[1..raw.len() - 1]).ok()?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => code_point(&mut chars)?,
            c @ ('"' | '\\' | '/') => c,
            _ => return None,
        });
    }
    Some(Cow::Owned(text))
}

/// What follows `\u`: four digits, or eight and another `\u` for a surrogate pair.
fn code_point(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let high = four_digits(chars)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high);
    }
    if chars.next()? != '\\' || chars.next()? != 'u' {
        return None;
    }
    let low = four_digits(chars)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)
}

fn four_digits(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    let mut value = 0;
    for _ in 0..4 {
        value = value * 16 + chars.next()?.to_digit(16)?;
    }
    Some(value)
}

fn object(members: &[Member<'_>]) -> Bytes {
    let len: usize = members.iter().map(|m| m.key.len() + m.value.len() + 2).sum();
    let mut out = Vec::with_capacity(len + 2);
    out.push(b'{');
    for (place, member) in members.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member.key);
        out.push(b':');
        out.extend_from_slice(member.value);
    }
    out.push(b'}');
    out.into()
}

/// Length of the string at the front, quotes included.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    if bytes.first() != Some(&b'"') {
        return None;
    }
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Length of the value at the front. Brackets are only counted: the edge has parsed the whole.
fn value_len(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string_len(bytes),
        b'{' | b'[' => {
            let (mut at, mut depth) = (0, 0_usize);
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at += string_len(&bytes[at..])?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
            let len = bytes.iter().take_while(|b| is_plain(b)).count();
            (len > 0).then_some(len)
        }
    }
}

#[cfg(test)]
mod tests;
