//! `births.json` in a member's data directory: by which directory it knows each other life.
//!
//! A founding's directory that was copied before its first start is an empty voter under the number
//! of a member. If it is put in the place of a disk that was lost, it votes again where that one has
//! voted, and what was acknowledged may be lost. So a directory draws its *birth* when its log is
//! made, says it with every connection, and the others remember the first one of each life: a later
//! one is refused. A copy made after that has the same birth and is not told apart.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tl_raft::transport::{Birth, Births, Seat};

use crate::durable;
use crate::identity::{IdentityError, hex, hex_bytes};

const FILE: &str = "births.json";
/// Lives remembered. One more: that with the smallest number is forgotten, which is the oldest.
const LIVES_MAX: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct BirthsFile {
    dir: PathBuf,
    /// By the number of the life.
    known: Mutex<BTreeMap<u64, Birth>>,
}

impl BirthsFile {
    /// What a data directory remembers.
    ///
    /// # Errors
    /// [`IdentityError`]; the file cannot be read, or is none.
    pub(crate) fn open(dir: &Path) -> Result<BirthsFile, IdentityError> {
        let path = dir.join(FILE);
        let known = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|reason| IdentityError::Foreign { path, reason })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(IdentityError::Io { what: "read", path, source }),
        };
        Ok(BirthsFile { dir: dir.to_owned(), known: Mutex::new(known) })
    }

    fn write(&self, known: &BTreeMap<u64, Birth>) -> io::Result<()> {
        let known: BTreeMap<u64, String> =
            known.iter().map(|(peer, birth)| (*peer, hex(*birth))).collect();
        let mut bytes = serde_json::to_vec_pretty(&known)?;
        bytes.push(b'\n');
        durable::put(&self.dir, FILE, &bytes)
    }
}

impl Births for BirthsFile {
    fn admits(&self, seat: Seat, birth: Birth) -> bool {
        let mut known = self.known.lock();
        if let Some(first) = known.get(&seat.peer.0) {
            if *first != birth {
                tracing::error!(peer = %seat.peer,
                    "a member calls from another directory than before: it may have lost its disk, \
                     and is refused; give it a new life with `tl ops replace`");
            }
            return *first == birth;
        }
        let mut more = known.clone();
        more.insert(seat.peer.0, birth);
        while more.len() > LIVES_MAX {
            more.pop_first();
        }
        if let Err(error) = self.write(&more) {
            tracing::error!(%error, peer = %seat.peer,
                "by which directory a member is known cannot be written: it is refused for now");
            return false;
        }
        *known = more;
        true
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<u64, Birth>, String> {
    let known: BTreeMap<u64, String> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let pairs = known.into_iter().map(|(peer, text)| {
        let birth =
            hex_bytes(&text).ok_or_else(|| format!("the birth of {peer} is not 32 hex digits"))?;
        Ok((peer, birth))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use tl_raft::PeerId;
    use tl_types::NodeId;

    use super::*;

    fn seat(peer: u64) -> Seat {
        Seat { node: NodeId([1; 16]), peer: PeerId(peer) }
    }

    #[test]
    fn the_first_directory_of_a_life_is_remembered_for_good_and_no_other_passes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let births = BirthsFile::open(dir.path()).expect("opened");
        assert!(births.admits(seat(2), [1; 16]) && births.admits(seat(2), [1; 16]));
        assert!(!births.admits(seat(2), [2; 16]));
        assert!(births.admits(seat(3), [2; 16]), "another life, another directory");
        let again = BirthsFile::open(dir.path()).expect("opened");
        assert!(!again.admits(seat(2), [2; 16]) && again.admits(seat(2), [1; 16]));
    }

    #[test]
    fn what_cannot_be_remembered_is_not_admitted_and_foreign_files_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let births = BirthsFile::open(&dir.path().join("gone")).expect("nothing is there");
        assert!(!births.admits(seat(2), [1; 16]), "there is no directory to write to");
        for text in ["[]", r#"{"2":"x"}"#, r#"{"a":"00000000000000000000000000000000"}"#] {
            fs::write(dir.path().join(FILE), text).expect("written");
            let error = BirthsFile::open(dir.path());
            assert!(matches!(error, Err(IdentityError::Foreign { .. })), "{text}: {error:?}");
        }
    }

    #[test]
    fn as_many_lives_as_the_limit_are_remembered_and_then_the_oldest_is_forgotten() {
        let dir = tempfile::tempdir().expect("temp dir");
        let births = BirthsFile::open(dir.path()).expect("opened");
        *births.known.lock() = (1..LIVES_MAX as u64).map(|peer| (peer, [9; 16])).collect();
        assert!(births.admits(seat(LIVES_MAX as u64), [1; 16]));
        assert_eq!(births.known.lock().len(), LIVES_MAX);
        assert!(!births.admits(seat(1), [1; 16]), "at the limit all are there");
        assert!(births.admits(seat(LIVES_MAX as u64 + 1), [1; 16]));
        assert_eq!(births.known.lock().len(), LIVES_MAX);
        assert!(births.admits(seat(LIVES_MAX as u64 + 1), [1; 16]));
        assert!(!births.known.lock().contains_key(&1), "the oldest made room");
    }
}
