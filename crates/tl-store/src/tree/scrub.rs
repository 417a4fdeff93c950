//! The scrubber: reads every table and blob file whole and compares it with the checksum that
//! the list of files holds for it.
//!
//! A read checks the blocks that it touches; what nobody reads may rot for years. The list of
//! files carries one checksum over all bytes of each file, so a scrub finds every flipped bit,
//! those in filters, indexes and trailers included. It reads past the block cache.
//!
//! The same comparison finds the file to blame when a read has failed, since the crate's errors
//! name none.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lsm_tree::{AbstractTree, AnyTree};
use xxhash_rust::xxh3::Xxh3Default;

use super::manifest::{self, Listed};
use crate::error::StoreError;
use crate::store::{ScrubProgress, ScrubReport};

/// Bytes read between two calls of the pacing hook.
const STEP_BYTES: usize = 256 * 1024;
/// Most bytes read to find the file to blame for a failed read.
const BLAME_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Reads all files of the tree's current version. It is held meanwhile, so files that a
/// compaction replaces stay until the scrub is done. The version file itself is compared too.
pub(super) fn scrub(
    dir: &Path,
    tree: &AnyTree,
    pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
) -> Result<ScrubReport, StoreError> {
    let (_held, files) = files_of(tree);
    let mut report = ScrubReport::default();
    // The lists on disk may move on at any moment; only damage that stays is damage.
    if let Err(error) = manifest::read(dir).or_else(|_| manifest::read(dir)) {
        match error {
            StoreError::Damaged { .. } => report.damage.push(error),
            StoreError::Io { .. } | StoreError::NoRoom { .. } => return Err(error),
        }
    }
    let mut progress = ScrubProgress { files_total: files.len(), ..ScrubProgress::default() };
    for file in files {
        progress.file.clone_from(&file.path);
        let mut bytes_done = progress.bytes_done;
        let found = checksum(&file.path, &mut bytes_done, &mut |bytes_done| {
            progress.bytes_done = bytes_done;
            pace(&progress)
        });
        progress.bytes_done = bytes_done;
        report.bytes = progress.bytes_done;
        match found {
            Ok(ControlFlow::Break(())) => return Ok(report),
            Ok(ControlFlow::Continue(found)) if found == file.checksum => {}
            Ok(ControlFlow::Continue(found)) => {
                let written = file.checksum;
                let detail = format!("checksum is {found:032x}, {written:032x} was written");
                report.damage.push(damaged(file.path, detail));
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                report.damage.push(damaged(file.path, "the file is missing".into()));
            }
            Err(source) => {
                let doing = "scrubbing".into();
                return Err(StoreError::Io { file: file.path, doing, source });
            }
        }
        progress.files_done += 1;
        report.files = progress.files_done;
    }
    report.complete = true;
    Ok(report)
}

/// All files of the current version, tables first, with what keeps them from being deleted.
pub(super) fn files_of(tree: &AnyTree) -> (impl Sized + use<>, Vec<Listed>) {
    let version = tree.current_version();
    let tables = version.iter_tables().map(|table| Listed {
        path: PathBuf::clone(&table.path),
        checksum: table.checksum().into_u128(),
    });
    let blobs = version.blob_files.iter().map(|file| Listed {
        path: file.path().to_path_buf(),
        checksum: file.checksum().into_u128(),
    });
    let files = tables.chain(blobs).collect();
    (version, files)
}

/// The first of these files whose bytes are not what was written.
pub(super) fn blame(files: &[Listed]) -> Option<PathBuf> {
    let mut read = 0;
    for file in files {
        let found = checksum(&file.path, &mut read, &mut |read| match read {
            0..BLAME_BYTES_MAX => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        match found {
            Ok(ControlFlow::Break(())) => return None,
            Ok(ControlFlow::Continue(found)) if found == file.checksum => {}
            Ok(ControlFlow::Continue(_)) | Err(_) => return Some(file.path.clone()),
        }
    }
    None
}

fn damaged(file: PathBuf, detail: String) -> StoreError {
    StoreError::Damaged { file, doing: "scrubbing".into(), detail }
}

/// The xxh3-128 of a file, with a call between steps that may end it.
fn checksum(
    path: &Path,
    read: &mut u64,
    step: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> io::Result<ControlFlow<(), u128>> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        if step(*read).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let bytes = match file.read(&mut buffer) {
            Ok(0) => return Ok(ControlFlow::Continue(hasher.digest128())),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..bytes]);
        *read += bytes as u64;
    }
}
