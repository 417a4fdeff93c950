//! Recognising a plain append by its first bytes.
//!
//! The grammar of a request's head is `httparse`'s, the parser under hyper, so both ways agree on
//! what is HTTP. On top of it this module only decides whether a head is plain: every header that
//! could change how the request is to be answered must have a value known here.

use httparse::{Header, Status};
use tl_types::limits::URI_BYTES_MAX;

use crate::headers::{BodyKind, accepted_by, kind_of};

/// Most headers of a plain append.
const HEADERS_MAX: usize = 32;
/// Most bytes of a plain append's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How every plain append begins.
const START: &[u8] = b"POST /v1/sessions/";
const END: &str = "/append";

/// What the first bytes of a request are.
#[derive(Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// It may become a plain append.
    Partial,
    /// Not for here.
    Other,
    /// A plain append.
    Append(AppendHead<'a>),
}

/// The head of a plain append.
#[derive(Debug, PartialEq, Eq)]
pub struct AppendHead<'a> {
    /// The session id as sent.
    pub id: &'a str,
    /// What stands behind the question mark.
    pub query: &'a str,
    /// `x-throughline-namespace`.
    pub namespace: Option<&'a str>,
    /// What the body is written in.
    pub kind: BodyKind,
    /// Where the body begins.
    pub head_bytes: usize,
    /// How long it is.
    pub body_bytes: usize,
}

/// Reads the head at the beginning of `bytes`.
pub fn read(bytes: &[u8]) -> Head<'_> {
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Head::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(head_bytes)) if head_bytes <= HEAD_BYTES_MAX => {
            plain(&request, head_bytes).map_or(Head::Other, Head::Append)
        }
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Head::Partial,
        Ok(_) | Err(_) => Head::Other,
    }
}

fn plain<'a>(request: &httparse::Request<'_, 'a>, head_bytes: usize) -> Option<AppendHead<'a>> {
    let target = request.path.filter(|target| target.len() <= URI_BYTES_MAX)?;
    if request.version != Some(1) {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let id = path.get("/v1/sessions/".len()..)?.strip_suffix(END)?;
    if !id.bytes().all(is_plain) || !query.bytes().all(|b| is_plain(b) || b"=&".contains(&b)) {
        return None;
    }
    let mut found = Found::default();
    for header in request.headers.iter() {
        found.take(header)?;
    }
    Some(AppendHead {
        id,
        query,
        namespace: found.namespace,
        kind: found.kind?,
        head_bytes,
        body_bytes: found.length?,
    })
}

/// Letters of ids and queries about which all parsers agree.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:@%".contains(&byte)
}

#[derive(Default)]
struct Found<'a> {
    length: Option<usize>,
    kind: Option<BodyKind>,
    namespace: Option<&'a str>,
}

impl<'a> Found<'a> {
    /// Takes note of a header; `None` when with it the request is not plain.
    fn take(&mut self, header: &Header<'a>) -> Option<()> {
        /// Headers that change how a request is read, judged or answered. Not for here.
        const ODD: [&str; 8] = [
            "transfer-encoding",
            "content-encoding",
            "expect",
            "upgrade",
            "origin",
            "te",
            "trailer",
            "http2-settings",
        ];
        let name = header.name;
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Most names are told apart by their length.
        match name.len() {
            14 if is("content-length") => {
                let length = digits(header.value).filter(|_| self.length.is_none())?;
                self.length = Some(length);
            }
            12 if is("content-type") => {
                let text = std::str::from_utf8(header.value).ok()?;
                self.kind = Some(kind_of(text).filter(|_| self.kind.is_none())?);
            }
            23 if is("x-throughline-namespace") => {
                let text = std::str::from_utf8(header.value).ok()?;
                if self.namespace.replace(text).is_some() {
                    return None;
                }
            }
            6 if is("accept") => {
                let text = std::str::from_utf8(header.value).ok()?;
                accepted_by(text.split(','), "application", "json").then_some(())?;
            }
            10 if is("connection") => {
                header.value.eq_ignore_ascii_case(b"keep-alive").then_some(())?;
            }
            _ if ODD.iter().any(|odd| is(odd)) => return None,
            _ => {}
        }
        Some(())
    }
}

/// One to nine digits.
fn digits(text: &[u8]) -> Option<usize> {
    if !(1..=9).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
