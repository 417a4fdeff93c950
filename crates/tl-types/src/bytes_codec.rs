//! The one small binary codec that entries, rows and envelopes share: big-endian integers,
//! LEB128 lengths, and tagged optional fields that a reader may skip.

use bytes::{Buf, Bytes};

/// Why bytes could not be read back. The caller decides whether that is damage or bad input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("bytes end early")]
    Short,
    /// A length, number or text is not one this version writes.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A version or kind that this release does not know.
    #[error("unknown {what} {value}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The value found.
        value: u32,
    },
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut impl Extend<u8>, mut value: u64) {
    while value >= 0x80 {
        out.extend([(value as u8) | 0x80]);
        value >>= 7;
    }
    out.extend([value as u8]);
}

/// Appends a length-prefixed byte string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends one tagged field: tag, length, bytes.
pub fn put_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_bytes(out, bytes);
}

/// Reads values off the front of shared bytes; byte strings come back as slices, not copies.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// A reader over all of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Reader { rest: bytes }
    }

    /// True when nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left, as a shared slice.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left.
    pub fn take(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        if self.rest.len() < n {
            return Err(DecodeError::Short);
        }
        Ok(self.rest.split_to(n))
    }

    /// A fixed-size array.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer bytes are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, _) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        let head = *head;
        self.rest.advance(N);
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A big-endian `u16`.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A big-endian `u32`.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A big-endian `u64`.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A LEB128 number of at most ten bytes.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes end early or the number does not fit 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut scan = Scan::new(&self.rest);
        let value = scan.varint()?;
        let left = scan.rest().len();
        self.rest.advance(self.rest.len() - left);
        Ok(value)
    }

    /// A length-prefixed byte string.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when the length passes the end.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = usize::try_from(self.varint()?).map_err(|_| DecodeError::Short)?;
        self.take(len)
    }

    /// A length-prefixed UTF-8 string.
    ///
    /// # Errors
    /// [`DecodeError`] when it ends early or is not UTF-8.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| DecodeError::Malformed("text"))
    }

    /// The next tagged field, or `None` at the end.
    ///
    /// # Errors
    /// [`DecodeError`] when the field ends early.
    pub fn field(&mut self) -> Result<Option<(u8, Bytes)>, DecodeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.u8()?;
        Ok(Some((tag, self.bytes()?)))
    }
}

/// Reads like [`Reader`], but lends parts instead of sharing them: for rows and entries of which
/// only little is kept. What is kept is made a shared slice by [`Scan::shared`].
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    all: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    /// A scan over all of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a Bytes) -> Self {
        Scan { all: bytes, rest: bytes }
    }

    /// A scan over a part that this one lent.
    #[must_use]
    pub fn within(&self, part: &'a [u8]) -> Self {
        Scan { all: self.all, rest: part }
    }

    /// A part that this scan lent, as a shared slice.
    #[must_use]
    pub fn shared(&self, part: &'a [u8]) -> Bytes {
        self.all.slice_ref(part)
    }

    /// True when nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (part, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(part)
    }

    /// A fixed-size array.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer bytes are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (part, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*part)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A big-endian `u16`.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A big-endian `u64`.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A LEB128 number of at most ten bytes.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes end early or the number does not fit 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Malformed("varint"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("varint"))
    }

    /// A length-prefixed byte string.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when the length passes the end.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.varint()?).map_err(|_| DecodeError::Short)?;
        self.take(len)
    }

    /// The next tagged field, or `None` at the end.
    ///
    /// # Errors
    /// [`DecodeError`] when the field ends early.
    pub fn field(&mut self) -> Result<Option<(u8, &'a [u8])>, DecodeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.u8()?;
        Ok(Some((tag, self.bytes()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(bytes.into());
            while let Ok(Some(_)) = reader.field() {}
            let _ = reader.varint();
        }

        #[test]
        fn a_scan_reads_what_a_reader_reads(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let (mut reader, mut scan) = (Reader::new(bytes.clone()), Scan::new(&bytes));
            loop {
                let (read, scanned) = (reader.field(), scan.field());
                match scanned {
                    Ok(Some((tag, part))) => {
                        prop_assert_eq!(read, Ok(Some((tag, scan.shared(part)))));
                    }
                    ended => {
                        prop_assert_eq!(read, ended.map(|_| None));
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn a_varint_past_64_bits_is_refused() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff; 10]));
        assert_eq!(reader.varint(), Err(DecodeError::Malformed("varint")));
    }
}
