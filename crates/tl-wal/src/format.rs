//! Bytes of segments and records.

/// Bytes before the first record of a segment.
pub(crate) const HEAD_BYTES: usize = 4096;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 56;
