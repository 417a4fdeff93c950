//! Whether the table of contents of a file is whole, before the library reads it.
//!
//! The library sets memory aside for as many entries as the table says it has, and compares its
//! checksum afterwards: four damaged bytes would ask for gigabytes and end the process, and
//! nobody would learn which file is to blame. So the checksum is compared here first.
//!
//! ```text
//!   sections ‖ contents: "TOC!" … ‖ trailer: "SFA!" 1 u8, 0 u8, xxh3-128 of the contents u128,
//!                                            where they begin u64, their length u64  (little-endian)
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Buf;
use xxhash_rust::xxh3::xxh3_128;

const TRAILER_BYTES: usize = 38;
const TRAILER_START: [u8; 6] = [b'S', b'F', b'A', b'!', 1, 0];
/// Longest table of contents; those of our files name a dozen sections.
const CONTENTS_BYTES_MAX: u64 = 64 * 1024;

/// Why a file is not an archive, in a few fixed words.
pub(super) type Broken = &'static str;

/// Checks an archive in memory.
pub(super) fn check_bytes(archive: &[u8]) -> Result<(), Broken> {
    let len = archive.len() as u64;
    let (contents, trailer) = split(archive).ok_or("it ends early")?;
    let (start, checksum) = place(trailer, len)?;
    match contents.get(start as usize..) {
        Some(contents) if xxh3_128(contents) == checksum => Ok(()),
        Some(_) | None => Err("its table of contents is damaged"),
    }
}

/// Checks an archive on disk.
///
/// # Errors
/// When the file cannot be read; the inner result says whether it is whole.
pub(super) fn check_file(path: &Path) -> io::Result<Result<(), Broken>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let Some(trailer_at) = len.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(Err("it ends early"));
    };
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, trailer_at)?;
    let (start, checksum) = match place(&trailer, len) {
        Ok(place) => place,
        Err(broken) => return Ok(Err(broken)),
    };
    let mut contents = vec![0; (trailer_at - start) as usize];
    file.read_exact_at(&mut contents, start)?;
    let whole = xxh3_128(&contents) == checksum;
    Ok(if whole { Ok(()) } else { Err("its table of contents is damaged") })
}

fn split(archive: &[u8]) -> Option<(&[u8], &[u8])> {
    archive.split_at_checked(archive.len().checked_sub(TRAILER_BYTES)?)
}

/// Where the contents of a file of `len` bytes begin, and their checksum. They end where the
/// trailer begins.
fn place(trailer: &[u8], len: u64) -> Result<(u64, u128), Broken> {
    let Some(mut rest) = trailer.strip_prefix(&TRAILER_START) else {
        return Err("its trailer is damaged");
    };
    let checksum = rest.get_u128_le();
    let (start, bytes) = (rest.get_u64_le(), rest.get_u64_le());
    let fits = start.checked_add(bytes) == len.checked_sub(TRAILER_BYTES as u64);
    if !fits || bytes > CONTENTS_BYTES_MAX {
        return Err("its trailer is damaged");
    }
    Ok((start, checksum))
}
