//! What a directory must hold, read from `current` and the version file that it points to.
//!
//! The crate trusts both files: it does not compare the version file with the checksum kept in
//! `current`, takes a missing `current` for a new store, and names no file when one is missing.
//! So this is read first, and nothing is opened (which deletes files that no list names) before
//! both are known to be whole and every file they name is there with a whole table of contents.
//!
//! ```text
//!   current  version id u64 ‖ xxh3-128 of the version file u128 ‖ 0 u8        (little-endian)
//!   vN       an archive of sections, of which these are read:
//!            tables      levels u8 (runs u8 (tables u32 (id u64, 0 u8, xxh3-128, seqno u64)))
//!            blob_files  files u32 (id u64, 0 u8, xxh3-128)
//! ```

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3::xxh3_128;

use super::{BLOBS_DIR, archive};
use crate::error::StoreError;

/// The crate's name for the pointer to the version in force.
pub(super) const CURRENT_FILE: &str = "current";
/// The crate's name for the directory of tables.
pub(super) const TABLES_DIR: &str = "tables";
/// Bytes of `current`.
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// A file and the xxh3-128 of all its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) path: PathBuf,
    pub(super) checksum: u128,
}

/// Reads which files the store in `dir` consists of; none when it is new.
pub(super) fn read(dir: &Path) -> Result<Vec<Listed>, StoreError> {
    let current_path = dir.join(CURRENT_FILE);
    let current = match fs::read(&current_path) {
        Ok(current) => current,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match is_used(dir)? {
                true => Err(damaged(&current_path, "it is missing, but there are tables")),
                false => Ok(Vec::new()),
            };
        }
        Err(source) => return Err(unreadable(&current_path, source)),
    };
    if current.len() != CURRENT_BYTES || current[CURRENT_BYTES - 1] != 0 {
        return Err(damaged(&current_path, "it does not have the form of a pointer"));
    }
    let mut current = Bytes::from(current);
    let version_path = dir.join(format!("v{}", current.get_u64_le()));
    let version = match fs::read(&version_path) {
        Ok(version) => version,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(&version_path, "`current` names it, but it is missing"));
        }
        Err(source) => return Err(unreadable(&version_path, source)),
    };
    if xxh3_128(&version) != current.get_u128_le() {
        return Err(damaged(&version_path, "its checksum is not the one in `current`"));
    }
    let files = listed(dir, Bytes::from(version))
        .ok_or_else(|| damaged(&version_path, "it is not a list of files"))?;
    for file in &files {
        if !file.path.is_file() {
            return Err(damaged(&file.path, "the list of files names it, but it is missing"));
        }
        match archive::check_file(&file.path) {
            Ok(Ok(())) => {}
            Ok(Err(broken)) => return Err(damaged(&file.path, broken)),
            Err(source) => return Err(unreadable(&file.path, source)),
        }
    }
    Ok(files)
}

/// Whether a directory holds what a new store cannot have.
fn is_used(dir: &Path) -> Result<bool, StoreError> {
    for name in [TABLES_DIR, BLOBS_DIR] {
        let path = dir.join(name);
        match fs::read_dir(&path).map(|mut files| files.next().is_some()) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(unreadable(&path, source)),
        }
    }
    Ok(false)
}

/// Takes the list apart; `None` when it is none.
fn listed(dir: &Path, version: Bytes) -> Option<Vec<Listed>> {
    archive::check_bytes(&version).ok()?;
    let archive = sfa::Reader::from_reader(&mut Cursor::new(&version)).ok()?;
    let section = |name: &[u8]| {
        let entry = archive.toc().section(name)?;
        let start = usize::try_from(entry.pos()).ok()?;
        let end = start.checked_add(usize::try_from(entry.len()).ok()?)?;
        (end <= version.len()).then(|| version.slice(start..end))
    };
    let mut files = Vec::new();
    let mut tables = section(b"tables")?;
    for _level in 0..tables.try_get_u8().ok()? {
        for _run in 0..tables.try_get_u8().ok()? {
            for _table in 0..tables.try_get_u32_le().ok()? {
                files.push(one_listed(&dir.join(TABLES_DIR), &mut tables)?);
                tables.try_get_u64_le().ok()?;
            }
        }
    }
    let mut blobs = section(b"blob_files")?;
    for _file in 0..blobs.try_get_u32_le().ok()? {
        files.push(one_listed(&dir.join(BLOBS_DIR), &mut blobs)?);
    }
    Some(files)
}

/// How many files a list of any bytes names, if it is one.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn listed_files(version: Bytes) -> Option<usize> {
    listed(Path::new(""), version).map(|files| files.len())
}

fn one_listed(dir: &Path, bytes: &mut Bytes) -> Option<Listed> {
    let id = bytes.try_get_u64_le().ok()?;
    if bytes.try_get_u8().ok()? != 0 {
        return None;
    }
    let checksum = bytes.try_get_u128_le().ok()?;
    Some(Listed { path: dir.join(id.to_string()), checksum })
}

fn damaged(file: &Path, detail: &str) -> StoreError {
    StoreError::Damaged {
        file: file.to_path_buf(),
        doing: "opening the store".into(),
        detail: detail.into(),
    }
}

fn unreadable(file: &Path, source: io::Error) -> StoreError {
    StoreError::Io { file: file.to_path_buf(), doing: "opening the store".into(), source }
}
