//! A JSON text read in one pass: checked, made compact and hashed, without a tree.
//!
//! ```text
//! input   { "b" : 1,  "a" : [ true ] }
//! out     {"b":1,"a":[true]}            number spelling, escapes and member order kept
//! hash    128 bits, the same for {"a":[true],"b":1}
//! ```
//!
//! Rules:
//!  - RFC 8259 to the letter; text around a string must be ASCII by grammar, strings must be UTF-8.
//!  - Refused on purpose although the grammar allows them: two members of one object with the
//!    same name (names compared after unescaping), lone surrogates, nesting past
//!    [`JSON_DEPTH_MAX`](tl_types::limits::JSON_DEPTH_MAX).
//!  - Memory: the compact copy, never longer than the input, and one key hash per open member.
//!
//! Absent on purpose: numbers as values. A number is text here; whoever interprets one says how.

mod hash;
mod member;
mod scan;
mod text;
pub mod write;

#[cfg(test)]
mod tests;

pub use hash::{HashSum, key_hash, member_hash, number_hash, object_hash, string_hash};
pub use member::{Key, Object};
pub use scan::{JsonError, Kind, Node, Problem, Scanner, compact};
pub use text::unescape;
