//! What a flush or a compaction leaves behind on a disk without room, and whether it may be
//! tried again.
//!
//! Both write files of their own and then move the pointer. As long as the pointer stands where
//! it stood, what was written counts for nothing: it is removed, and the next attempt writes other
//! files. That also holds when it was a sync that found no room, because nothing that this sync
//! was to make durable is used again. Once the pointer has moved, an error means that nobody knows
//! which pointer a crash would leave, and the node must stop.
//!
//! The crate gives every file a number above all earlier ones, and keeps files that no list names
//! any more for readers that began before. So what an attempt made is told by its number alone.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::BLOBS_DIR;
use super::manifest::{CURRENT_FILE, TABLES_DIR};

/// Begins the name of a list of files; the version's number follows.
const VERSION_START: &str = "v";

/// The highest numbers in use before an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    table: Option<u64>,
    blob_file: Option<u64>,
    version: u64,
}

impl Before {
    /// To be called while nobody else writes new files; `version` is the one in force.
    pub(super) fn an_attempt(dir: &Path, version: u64) -> io::Result<Before> {
        let highest = |name: &str| highest_number(&dir.join(name));
        Ok(Before { table: highest(TABLES_DIR)?, blob_file: highest(BLOBS_DIR)?, version })
    }

    /// Removes what the failed attempt wrote.
    ///
    /// # Errors
    /// When the pointer has moved, or what the file system says: then there is no second attempt.
    pub(super) fn restore(self, dir: &Path) -> io::Result<()> {
        if pointer(dir)? != self.version {
            return Err(io::Error::other("the pointer has moved already"));
        }
        remove_above(&dir.join(TABLES_DIR), "", self.table)?;
        remove_above(&dir.join(BLOBS_DIR), "", self.blob_file)?;
        remove_above(dir, VERSION_START, Some(self.version))
    }
}

/// The version that `current` names.
fn pointer(dir: &Path) -> io::Result<u64> {
    let current = fs::read(dir.join(CURRENT_FILE))?;
    let id = current.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u64::from_le_bytes(*id))
}

/// The highest number that is the name of a file: new ones are made in that order.
pub(super) fn highest_number(dir: &Path) -> io::Result<Option<u64>> {
    Ok(numbers(dir, "")?.max())
}

/// Numbers of the files whose names are `start` and a number.
fn numbers(dir: &Path, start: &str) -> io::Result<impl Iterator<Item = u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(start));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers.into_iter())
}

fn remove_above(dir: &Path, start: &str, highest: Option<u64>) -> io::Result<()> {
    for number in numbers(dir, start)?.filter(|number| Some(*number) > highest) {
        let path = dir.join(format!("{start}{number}"));
        // The crate may hold the file open: emptied, it gives its room back at once.
        OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        fs::remove_file(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for folder in [dir.to_owned(), dir.join(TABLES_DIR), dir.join(BLOBS_DIR)] {
            for entry in fs::read_dir(folder).expect("there") {
                names.push(entry.expect("entry").path().display().to_string());
            }
        }
        names.sort();
        names
    }

    #[test]
    fn what_an_attempt_wrote_goes_and_nothing_else() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = temp.path();
        let write = |names: &[&str]| {
            names.iter().for_each(|name| fs::write(dir.join(name), b"bytes").expect("written"));
        };
        let point = |id: u64| fs::write(dir.join(CURRENT_FILE), id.to_le_bytes()).expect("written");
        fs::create_dir(dir.join(TABLES_DIR)).expect("made");
        fs::create_dir(dir.join(BLOBS_DIR)).expect("made");
        point(3);
        write(&["v3", "v2", "tables/7", "tables/9", "version", "vx"]);
        let (before, there) = (Before::an_attempt(dir, 3).expect("looked"), names(dir));
        write(&["v4", "tables/10", "tables/11", "blobs/0"]);
        before.restore(dir).expect("restored");
        assert_eq!(names(dir), there);

        write(&["v4", "tables/10"]);
        point(4);
        let there = names(dir);
        assert!(before.restore(dir).is_err(), "what the pointer names may be in use");
        assert_eq!(names(dir), there);
    }
}
