//! Walking an object member by member.

use std::borrow::Cow;

use super::hash::{HashSum, member_hash, object_hash, scanned_key_hash};
use super::scan::{JsonError, Kind, Node, Problem, Scanner};
use super::text::unescape;

/// Objects with more members than this look for a repeated name once, at their end, in a sorted
/// list; smaller ones look at each name.
const LINEAR_MEMBERS_MAX: usize = 32;

/// An object that is being walked.
#[derive(Debug)]
pub struct Object {
    start: usize,
    keys_from: usize,
    members: HashSum,
    first: bool,
}

impl Object {
    /// The members taken in so far.
    #[must_use]
    pub fn members(&self) -> HashSum {
        self.members
    }
}

/// A member's name.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Where the member starts in the output, its comma included.
    pub member_start: usize,
    start: usize,
    end: usize,
    escaped: bool,
    /// Hash of the unescaped name.
    pub hash: u128,
}

impl Scanner<'_> {
    /// Enters an object.
    ///
    /// # Errors
    /// [`JsonError`] when no object starts here or it would nest too deep.
    pub fn begin_object(&mut self) -> Result<Object, JsonError> {
        if self.peek_kind()? != Kind::Object {
            return Err(self.error(Problem::Expected("an object")));
        }
        self.enter(b'{')?;
        Ok(Object {
            start: self.out.len() - 1,
            keys_from: self.keys.len(),
            members: HashSum::default(),
            first: true,
        })
    }

    /// The name of the next member, its value coming next; `None` behind the last one.
    ///
    /// # Errors
    /// [`JsonError`] where the text breaks a rule.
    pub fn next_key(&mut self, object: &mut Object) -> Result<Option<Key>, JsonError> {
        self.skip_whitespace();
        let member_start = self.out.len();
        let mut comma = false;
        match self.input.get(self.at) {
            Some(b'}') => {
                self.check_many_keys(object)?;
                self.keys.truncate(object.keys_from);
                self.leave(b'}');
                return Ok(None);
            }
            Some(_) if object.first => {}
            Some(b',') => {
                comma = true;
                self.at += 1;
                self.skip_whitespace();
            }
            Some(_) => return Err(self.error(Problem::Expected("`,` or `}`"))),
            None => return Err(self.error(Problem::End)),
        }
        // The comma follows what stands in the output: an earlier member may have been cut.
        if self.out.len() > object.start + 1 {
            self.out.push(b',');
        } else {
            self.cut_bytes += usize::from(comma);
        }
        object.first = false;
        let key = self.key(member_start, object)?;
        self.skip_whitespace();
        match self.input.get(self.at) {
            Some(b':') => self.at += 1,
            Some(_) => return Err(self.error(Problem::Expected("`:`"))),
            None => return Err(self.error(Problem::End)),
        }
        self.out.push(b':');
        Ok(Some(key))
    }

    fn key(&mut self, member_start: usize, object: &Object) -> Result<Key, JsonError> {
        match self.input.get(self.at) {
            Some(b'"') => {}
            Some(_) => return Err(self.error(Problem::Expected("a member name in quotes"))),
            None => return Err(self.error(Problem::End)),
        }
        let offset = self.at;
        let start = self.out.len();
        let escaped = self.string()?;
        let hash = self.hash_string(start, escaped, scanned_key_hash);
        let earlier = &self.keys[object.keys_from..];
        if earlier.len() < LINEAR_MEMBERS_MAX && earlier.contains(&hash) {
            return Err(JsonError { offset, problem: Problem::DuplicateKey });
        }
        self.keys.push(hash);
        Ok(Key { member_start, start, end: self.out.len(), escaped, hash })
    }

    /// The late look for repeated names in a large object; the offset is the object's end.
    fn check_many_keys(&mut self, object: &Object) -> Result<(), JsonError> {
        let keys = &mut self.keys[object.keys_from..];
        if keys.len() <= LINEAR_MEMBERS_MAX {
            return Ok(());
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.error(Problem::DuplicateKey));
        }
        Ok(())
    }

    /// Takes a member with this value hash into the object's hash.
    pub fn end_member(&mut self, object: &mut Object, key: &Key, value: u128) {
        object.members.add(member_hash(key.hash, value));
    }

    /// The object as a value, once [`Scanner::next_key`] has said `None`.
    #[must_use]
    pub fn end_object(&self, object: Object) -> Node {
        self.node(Kind::Object, object.start, object_hash(object.members))
    }

    /// A member's name, unescaped.
    #[must_use]
    pub fn name(&self, key: &Key) -> Cow<'_, [u8]> {
        let inner = &self.out[key.start + 1..key.end - 1];
        if key.escaped { unescape(inner) } else { Cow::Borrowed(inner) }
    }
}
