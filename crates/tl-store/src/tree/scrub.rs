//! The scrubber: reads every table and blob file whole and compares it with the checksum that
//! the list of files holds for it.
//!
//! A read checks the blocks that it touches; what nobody reads may rot for years. The list of
//! files carries one checksum over all bytes of each file, so a scrub finds every flipped bit,
//! those in filters, indexes and trailers included. It reads past the block cache.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lsm_tree::{AbstractTree, AnyTree};
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::StoreError;
use crate::store::{ScrubProgress, ScrubReport};

/// Bytes read between two calls of the pacing hook.
const STEP_BYTES: usize = 256 * 1024;

/// Reads all files of the tree's current version. It is held meanwhile, so files that a
/// compaction replaces stay until the scrub is done.
pub(super) fn scrub(
    dir: &Path,
    tree: &AnyTree,
    pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
) -> Result<ScrubReport, StoreError> {
    let _ = dir;
    let version = tree.current_version();
    let tables = version
        .iter_tables()
        .map(|table| (PathBuf::clone(&table.path), table.checksum().into_u128()));
    let blobs = version
        .blob_files
        .iter()
        .map(|file| (file.path().to_path_buf(), file.checksum().into_u128()));
    let files: Vec<(PathBuf, u128)> = tables.chain(blobs).collect();

    let mut report = ScrubReport::default();
    let mut progress = ScrubProgress { files_total: files.len(), ..ScrubProgress::default() };
    for (path, expected) in files {
        progress.file.clone_from(&path);
        match checksum(&path, &mut progress, pace) {
            Ok(ControlFlow::Break(())) => {
                report.bytes = progress.bytes_done;
                return Ok(report);
            }
            Ok(ControlFlow::Continue(found)) if found == expected => {}
            Ok(ControlFlow::Continue(found)) => report.damage.push(damaged(
                path,
                format!("checksum is {found:032x}, {expected:032x} was written"),
            )),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                report.damage.push(damaged(path, "the file is missing".into()));
            }
            Err(source) => {
                return Err(StoreError::Io { file: path, doing: "scrubbing".into(), source });
            }
        }
        progress.files_done += 1;
        report.files = progress.files_done;
        report.bytes = progress.bytes_done;
    }
    report.complete = true;
    Ok(report)
}

fn damaged(file: PathBuf, detail: String) -> StoreError {
    StoreError::Damaged { file, doing: "scrubbing".into(), detail }
}

fn checksum(
    path: &Path,
    progress: &mut ScrubProgress,
    pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
) -> io::Result<ControlFlow<(), u128>> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        if pace(progress).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(ControlFlow::Continue(hasher.digest128())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        progress.bytes_done += read as u64;
    }
}
