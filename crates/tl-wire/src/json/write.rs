//! Writing JSON strings and numbers: one spelling for each value, so that equal values have
//! equal bytes.

use bytes::Bytes;

/// Appends `text` as a JSON string. Quotes, backslashes and control characters are escaped,
/// the short escape first; everything else stands as UTF-8.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    string_inner(out, text.as_bytes());
    out.push(b'"');
}

/// Appends bytes that are known to be UTF-8 as a JSON string.
pub(crate) fn utf8(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    string_inner(out, text);
    out.push(b'"');
}

fn string_inner(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let (plain, _) = super::text::plain_run(text);
        out.extend_from_slice(&text[..plain]);
        let Some(&byte) = text.get(plain) else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        text = &text[plain + 1..];
    }
}

/// Appends a number in decimal.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `true` or `false`.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// `text` as a JSON string with its quotes, in the one spelling of [`string`].
#[must_use]
pub fn quoted(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 2);
    string(&mut out, text);
    out.into()
}
