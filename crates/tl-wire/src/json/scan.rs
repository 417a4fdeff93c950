//! The scanner: values, strings and numbers.

use std::borrow::Cow;
use std::fmt;

use tl_types::ErrorCode;
use tl_types::limits::JSON_DEPTH_MAX;

use super::hash::{self, array_step, number_hash, string_hash};
use super::text::{escape, plain_run, unescape, unescape_into};
use crate::error::WireError;

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The text ends inside a value.
    End,
    /// Something else than what the grammar wants here.
    Expected(&'static str),
    /// A number that the grammar does not allow.
    Number,
    /// A backslash with an unknown letter or bad hexadecimal digits.
    Escape,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// A control character that is not escaped.
    Control,
    /// Bytes that are not UTF-8.
    Utf8,
    /// A member name that the object has already.
    DuplicateKey,
    /// Nesting past the limit.
    TooDeep,
    /// Bytes behind the value.
    Trailing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Problem::End => "the text ends too early",
            Problem::Expected(what) => return write!(f, "expected {what}"),
            Problem::Number => "malformed number",
            Problem::Escape => "malformed escape in a string",
            Problem::LoneSurrogate => "half of a surrogate pair",
            Problem::Control => "control character in a string, which must be escaped",
            Problem::Utf8 => "bytes that are not UTF-8",
            Problem::DuplicateKey => "the object has a member of this name already",
            Problem::TooDeep => "objects and arrays nest deeper than 32 levels",
            Problem::Trailing => "something follows the value",
        };
        f.write_str(text)
    }
}

/// Where a text stops being what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct JsonError {
    /// Byte offset in the input, from 0.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

impl From<JsonError> for WireError {
    fn from(error: JsonError) -> WireError {
        let code = match error.problem {
            Problem::TooDeep => ErrorCode::TooDeep,
            _ => ErrorCode::InvalidJson,
        };
        WireError::new(code, format!("The body cannot be read: {error}"))
            .with("offset", error.offset)
    }
}

/// Kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number
    Number,
    /// A string
    String,
    /// An array
    Array,
    /// An object
    Object,
}

/// A scanned value: its kind, its place in the compact output and its content hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Kind.
    pub kind: Kind,
    /// True for a string that holds escapes.
    pub escaped: bool,
    /// Start in the output.
    pub start: usize,
    /// End in the output.
    pub end: usize,
    /// Content hash.
    pub hash: u128,
}

/// Reads JSON from `input` and writes it compact to an output of its own.
///
/// A caller that wants the members of an object walks it with [`Scanner::begin_object`] and
/// [`Scanner::next_key`]; everything else goes through [`Scanner::value`].
#[derive(Debug)]
pub struct Scanner<'a> {
    pub(super) input: &'a [u8],
    pub(super) at: usize,
    pub(super) out: Vec<u8>,
    /// Compact bytes that were read but are not in the output.
    pub(super) cut_bytes: usize,
    depth: usize,
    depth_max: usize,
    /// Key hashes of the objects that are open, innermost last.
    pub(super) keys: Vec<u128>,
    scratch: Vec<u8>,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Scanner {
            input,
            at: 0,
            out: Vec::with_capacity(input.len()),
            cut_bytes: 0,
            depth: 0,
            depth_max: JSON_DEPTH_MAX,
            keys: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Counts nesting from here on, until [`Scanner::count_depth_from_start`], so that what may
    /// be sent alone may be sent inside something else as well.
    pub(crate) fn count_depth_from_here(&mut self) {
        self.depth_max = self.depth + JSON_DEPTH_MAX;
    }

    /// Counts nesting from the start of the input again.
    pub(crate) fn count_depth_from_start(&mut self) {
        self.depth_max = JSON_DEPTH_MAX;
    }

    /// The next value, whatever it is.
    ///
    /// # Errors
    /// [`JsonError`] where the text breaks a rule.
    pub fn value(&mut self) -> Result<Node, JsonError> {
        match self.peek_kind()? {
            Kind::String => self.string_value(),
            Kind::Number => self.number(),
            Kind::Object => {
                let mut object = self.begin_object()?;
                while let Some(key) = self.next_key(&mut object)? {
                    let value = self.value()?;
                    self.end_member(&mut object, &key, value.hash);
                }
                Ok(self.end_object(object))
            }
            Kind::Array => {
                let mut array = self.begin_array()?;
                while self.next_item(&mut array)? {
                    let item = self.value()?;
                    array.hash = array_step(array.hash, item.hash);
                }
                Ok(self.end_array(array))
            }
            Kind::Null => self.literal(b"null", Kind::Null, hash::NULL),
            Kind::Bool if self.input[self.at] == b't' => {
                self.literal(b"true", Kind::Bool, hash::TRUE)
            }
            Kind::Bool => self.literal(b"false", Kind::Bool, hash::FALSE),
        }
    }

    /// Kind of the value that starts here, by its first byte.
    ///
    /// # Errors
    /// [`JsonError`] when no value starts here.
    pub fn peek_kind(&mut self) -> Result<Kind, JsonError> {
        self.skip_whitespace();
        match self.input.get(self.at) {
            Some(b'"') => Ok(Kind::String),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => Err(self.error(Problem::Expected("a value"))),
            None => Err(self.error(Problem::End)),
        }
    }

    /// Enters an array, which must start here.
    pub(crate) fn begin_array(&mut self) -> Result<Array, JsonError> {
        self.enter(b'[')?;
        Ok(Array { start: self.out.len() - 1, hash: hash::EMPTY_ARRAY, first: true })
    }

    /// Moves to the next item; false behind the last one.
    pub(crate) fn next_item(&mut self, array: &mut Array) -> Result<bool, JsonError> {
        self.skip_whitespace();
        match self.input.get(self.at) {
            Some(b']') => {
                self.leave(b']');
                return Ok(false);
            }
            Some(_) if array.first => {}
            Some(b',') => {
                self.at += 1;
                self.out.push(b',');
            }
            Some(_) => return Err(self.error(Problem::Expected("`,` or `]`"))),
            None => return Err(self.error(Problem::End)),
        }
        array.first = false;
        Ok(true)
    }

    /// The array as a value, once [`Scanner::next_item`] has said false.
    pub(crate) fn end_array(&self, array: Array) -> Node {
        self.node(Kind::Array, array.start, array.hash)
    }

    /// Checks that only whitespace is left.
    ///
    /// # Errors
    /// [`JsonError`] when something else is.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        self.skip_whitespace();
        if self.at < self.input.len() { Err(self.error(Problem::Trailing)) } else { Ok(()) }
    }

    /// The compact bytes written so far.
    #[must_use]
    pub fn out(&self) -> &[u8] {
        &self.out
    }

    /// Gives up the compact bytes.
    #[must_use]
    pub fn into_out(self) -> Vec<u8> {
        self.out
    }

    /// Takes back what was written behind `len`, to leave a value out or to write another.
    pub(crate) fn cut_to(&mut self, len: usize) {
        self.cut_bytes += self.out.len() - len;
        self.out.truncate(len);
    }

    /// Compact bytes read so far, those that were cut included.
    pub(crate) fn compact_bytes(&self) -> usize {
        self.out.len() + self.cut_bytes
    }

    /// Writes a whole number in the place of the longer value that was just cut.
    pub(crate) fn put_number(&mut self, value: u64) -> Node {
        let start = self.out.len();
        super::write::number(&mut self.out, value);
        self.cut_bytes -= self.out.len() - start;
        self.node(Kind::Number, start, number_hash(&self.out[start..]))
    }

    /// The raw output of a value.
    #[must_use]
    pub fn raw(&self, node: &Node) -> &[u8] {
        &self.out[node.start..node.end]
    }

    /// The content of a string value, unescaped.
    #[must_use]
    pub fn text(&self, node: &Node) -> Cow<'_, [u8]> {
        let inner = &self.out[node.start + 1..node.end - 1];
        if node.escaped { unescape(inner) } else { Cow::Borrowed(inner) }
    }

    pub(super) fn node(&self, kind: Kind, start: usize, hash: u128) -> Node {
        Node { kind, escaped: false, start, end: self.out.len(), hash }
    }

    fn string_value(&mut self) -> Result<Node, JsonError> {
        let start = self.out.len();
        let escaped = self.string()?;
        let hash = self.hash_string(start, escaped, string_hash);
        Ok(Node { escaped, ..self.node(Kind::String, start, hash) })
    }

    /// Hashes the content of the string just written at `start`.
    pub(super) fn hash_string(
        &mut self,
        start: usize,
        escaped: bool,
        hash: fn(&[u8]) -> u128,
    ) -> u128 {
        let inner = &self.out[start + 1..self.out.len() - 1];
        if !escaped {
            return hash(inner);
        }
        self.scratch.clear();
        unescape_into(inner, &mut self.scratch);
        hash(&self.scratch)
    }

    /// Copies the string that starts here, quotes included; true when it holds escapes.
    pub(super) fn string(&mut self) -> Result<bool, JsonError> {
        let open = self.at;
        let mut at = open + 1;
        let mut not_ascii = false;
        let mut escaped = false;
        loop {
            let (plain, high) = plain_run(&self.input[at..]);
            at += plain;
            not_ascii |= high;
            match self.input.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    let (_, len) = escape(&self.input[at..]).map_err(|(behind, problem)| {
                        JsonError { offset: (at + behind).min(self.input.len()), problem }
                    })?;
                    escaped = true;
                    at += len;
                }
                Some(_) => return Err(JsonError { offset: at, problem: Problem::Control }),
                None => return Err(JsonError { offset: at, problem: Problem::End }),
            }
        }
        if not_ascii && let Err(error) = std::str::from_utf8(&self.input[open..at]) {
            let offset = open + error.valid_up_to();
            return Err(JsonError { offset, problem: Problem::Utf8 });
        }
        self.out.extend_from_slice(&self.input[open..=at]);
        self.at = at + 1;
        Ok(escaped)
    }

    fn number(&mut self) -> Result<Node, JsonError> {
        let from = self.at;
        self.at += usize::from(self.input[self.at] == b'-');
        if self.input.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.input.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.input.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.input.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        if let Some(b'0'..=b'9') = self.input.get(self.at) {
            return Err(self.error(Problem::Number));
        }
        let start = self.out.len();
        self.out.extend_from_slice(&self.input[from..self.at]);
        Ok(self.node(Kind::Number, start, number_hash(&self.input[from..self.at])))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let rest = &self.input[self.at..];
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if len == 0 {
            return Err(self.error(if rest.is_empty() { Problem::End } else { Problem::Number }));
        }
        self.at += len;
        Ok(())
    }

    fn literal(&mut self, word: &[u8], kind: Kind, hash: u128) -> Result<Node, JsonError> {
        let rest = &self.input[self.at..];
        if !rest.starts_with(word) {
            let problem = if word.starts_with(rest) {
                Problem::End
            } else {
                Problem::Expected("`true`, `false` or `null`")
            };
            return Err(self.error(problem));
        }
        let start = self.out.len();
        self.out.extend_from_slice(word);
        self.at += word.len();
        Ok(self.node(kind, start, hash))
    }

    /// Steps over the opening bracket that stands here.
    pub(super) fn enter(&mut self, bracket: u8) -> Result<(), JsonError> {
        debug_assert_eq!(self.input.get(self.at), Some(&bracket), "the caller has peeked");
        if self.depth == self.depth_max {
            return Err(self.error(Problem::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        self.out.push(bracket);
        Ok(())
    }

    pub(super) fn leave(&mut self, bracket: u8) {
        self.depth -= 1;
        self.at += 1;
        self.out.push(bracket);
    }

    pub(super) fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.input.get(self.at) {
            self.at += 1;
        }
    }

    pub(super) fn error(&self, problem: Problem) -> JsonError {
        JsonError { offset: self.at, problem }
    }
}

/// An array that is being walked.
#[derive(Debug)]
pub(crate) struct Array {
    start: usize,
    hash: u128,
    first: bool,
}

/// Checks a whole text: its compact bytes and content hash.
///
/// # Errors
/// [`JsonError`] where the text breaks a rule.
pub fn compact(input: &[u8]) -> Result<(Vec<u8>, u128), JsonError> {
    let mut scanner = Scanner::new(input);
    let node = scanner.value()?;
    scanner.finish()?;
    Ok((scanner.into_out(), node.hash))
}
