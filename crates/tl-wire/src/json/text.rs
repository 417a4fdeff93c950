//! Strings: finding their end, checking them, and taking their escapes away.

use std::borrow::Cow;

use super::scan::Problem;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks (with the high bit of each byte) the quotes, backslashes and control characters among
/// eight bytes. Bytes behind the first mark may be marked wrongly; the first never is.
fn special_marks(word: u64) -> u64 {
    let zero_in = |x: u64| x.wrapping_sub(ONES) & !x;
    let quote = zero_in(word ^ (ONES * u64::from(b'"')));
    let backslash = zero_in(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGHS
}

/// How many bytes from the front are neither a quote, a backslash nor a control character, and
/// whether one of them is not ASCII.
pub(super) fn plain_run(bytes: &[u8]) -> (usize, bool) {
    let mut at = 0;
    let mut highs = 0u64;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let marks = special_marks(word);
        if marks != 0 {
            let plain = (marks.trailing_zeros() / 8) as usize;
            let kept = word & ((1u64 << (plain * 8)) - 1);
            return (at + plain, (highs | kept) & HIGHS != 0);
        }
        highs |= word;
        at += 8;
    }
    let mut not_ascii = highs & HIGHS != 0;
    for &byte in &bytes[at..] {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        not_ascii |= byte >= 0x80;
        at += 1;
    }
    (at, not_ascii)
}

/// Checks one escape at the front of `bytes` (which starts with a backslash): its character and
/// its length.
pub(super) fn escape(bytes: &[u8]) -> Result<(char, usize), (usize, Problem)> {
    let plain = match bytes.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(bytes),
        Some(_) => return Err((1, Problem::Escape)),
        None => return Err((1, Problem::End)),
    };
    Ok((plain, 2))
}

fn unicode_escape(bytes: &[u8]) -> Result<(char, usize), (usize, Problem)> {
    let first = hex4(bytes, 2)?;
    if let Some(plain) = char::from_u32(first) {
        return Ok((plain, 6));
    }
    if first >= 0xdc00 || bytes.get(6) != Some(&b'\\') || bytes.get(7) != Some(&b'u') {
        return Err((0, Problem::LoneSurrogate));
    }
    let second = hex4(bytes, 8)?;
    if !(0xdc00..=0xdfff).contains(&second) {
        return Err((0, Problem::LoneSurrogate));
    }
    let both = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    let plain = char::from_u32(both).expect("two surrogates always make a character");
    Ok((plain, 12))
}

fn hex4(bytes: &[u8], from: usize) -> Result<u32, (usize, Problem)> {
    let mut value = 0;
    for at in from..from + 4 {
        let byte = *bytes.get(at).ok_or((at, Problem::End))?;
        let digit = char::from(byte).to_digit(16).ok_or((at, Problem::Escape))?;
        value = value << 4 | digit;
    }
    Ok(value)
}

/// The content of a checked string (without its quotes), with escapes replaced.
#[must_use]
pub fn unescape(inner: &[u8]) -> Cow<'_, [u8]> {
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    unescape_into(inner, &mut out);
    Cow::Owned(out)
}

/// Appends the content of a checked string to `out`.
pub(super) fn unescape_into(mut inner: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = inner.iter().position(|&b| b == b'\\') {
        out.extend_from_slice(&inner[..at]);
        inner = &inner[at..];
        // Only checked strings come here; an unsound escape would be kept as it stands.
        let Ok((plain, len)) = escape(inner) else { break };
        out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
        inner = &inner[len..];
    }
    out.extend_from_slice(inner);
}
