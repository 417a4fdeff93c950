//! `births.json` in a member's data directory: by which directory it knows each other life.
//!
//! A founding's directory that was copied before its first start is an empty voter under the number
//! of a member. If it is put in the place of a disk that was lost, it votes again where that one has
//! voted, and what was acknowledged may be lost. So a directory draws its *birth* when its log is
//! made, says it with every connection, and the others remember the first one of each life: a later
//! one is refused. A copy made after that has the same birth and is not told apart.
//!
//! Births are learnt by being called, and not passed on. Routers promise nothing and need none.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tl_raft::transport::{Admission, Birth, Births, Seat};

use super::is_router;
use crate::durable;
use crate::identity::{IdentityError, hex, hex_bytes};

const FILE: &str = "births.json";
const FORMAT: u32 = 1;
/// Lives remembered. One more: of the others that with the smallest number is forgotten, which is
/// the oldest.
const LIVES_MAX: usize = 1_024;

/// The file: births in hexadecimal digits, by the number of the life.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: u32,
    births: BTreeMap<u64, String>,
}

/// The one field of all formats.
#[derive(Deserialize)]
struct AnyForm {
    format: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BirthsFile {
    dir: PathBuf,
    /// What the file says, by the number of the life. Not held while the disk is waited for.
    lives: RwLock<BTreeMap<u64, Birth>>,
    /// Held from before the file is written until `lives` says the same.
    writing: Mutex<()>,
}

impl BirthsFile {
    /// What a data directory remembers.
    ///
    /// # Errors
    /// [`IdentityError`]; the file cannot be read, or is none.
    pub(crate) fn open(dir: &Path) -> Result<BirthsFile, IdentityError> {
        let path = dir.join(FILE);
        let lives = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|reason| IdentityError::Foreign { path, reason })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(IdentityError::Io { what: "read", path, source }),
        };
        let (lives, writing) = (RwLock::new(lives), Mutex::new(()));
        Ok(BirthsFile { dir: dir.to_owned(), lives, writing })
    }

    fn write(&self, lives: &BTreeMap<u64, Birth>) -> io::Result<()> {
        let births = lives.iter().map(|(peer, birth)| (*peer, hex(*birth))).collect();
        let mut bytes = serde_json::to_vec_pretty(&Form { format: FORMAT, births })?;
        bytes.push(b'\n');
        durable::put(&self.dir, FILE, &bytes)
    }
}

impl Births for BirthsFile {
    fn known(&self, seat: Seat, birth: Birth) -> Option<Admission> {
        if is_router(seat.peer) {
            return Some(Admission::Admitted);
        }
        let first = *self.lives.read().get(&seat.peer.0)?;
        if first == birth {
            return Some(Admission::Admitted);
        }
        tracing::error!(peer = %seat.peer,
            "a member calls from another directory than before and is refused: if it lost its disk, \
             give it a new life with `tl ops replace`; if this is its own directory after all, stop \
             this node, take the line of that number out of {FILE}, and start it");
        Some(Admission::Another)
    }

    fn admit(&self, seat: Seat, birth: Birth) -> Admission {
        let _writing = self.writing.lock();
        // Somebody else may have been quicker.
        if let Some(known) = self.known(seat, birth) {
            return known;
        }
        let mut lives = self.lives.read().clone();
        while lives.len() >= LIVES_MAX {
            lives.pop_first();
        }
        lives.insert(seat.peer.0, birth);
        if let Err(error) = self.write(&lives) {
            tracing::error!(%error, peer = %seat.peer,
                "by which directory a member is known cannot be written: it is let in when it can; \
                 look at the rights of the data directory and the free space");
            return Admission::NotNow;
        }
        *self.lives.write() = lives;
        Admission::Admitted
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<u64, Birth>, String> {
    let foreign = |error: serde_json::Error| error.to_string();
    let AnyForm { format } = serde_json::from_slice(bytes).map_err(foreign)?;
    if format != FORMAT {
        return Err(format!("its format is {format}, and this release reads {FORMAT}"));
    }
    let Form { births, .. } = serde_json::from_slice(bytes).map_err(foreign)?;
    let pairs = births.into_iter().map(|(peer, text)| {
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

    use super::super::ROUTER_PEER_MIN;
    use super::*;

    fn seat(peer: u64) -> Seat {
        Seat { node: NodeId([1; 16]), peer: PeerId(peer) }
    }

    /// As a connection does it.
    fn asked(births: &BirthsFile, peer: u64, birth: Birth) -> Admission {
        births.known(seat(peer), birth).unwrap_or_else(|| births.admit(seat(peer), birth))
    }

    #[test]
    fn the_first_directory_of_a_life_is_remembered_for_good_and_no_other_passes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let births = BirthsFile::open(dir.path()).expect("opened");
        assert_eq!(births.known(seat(2), [1; 16]), None);
        assert_eq!(asked(&births, 2, [1; 16]), Admission::Admitted);
        // Nobody who is known waits for one who is being written down.
        let writing = births.writing.lock();
        assert_eq!(births.known(seat(2), [1; 16]), Some(Admission::Admitted));
        assert_eq!(births.known(seat(2), [2; 16]), Some(Admission::Another));
        drop(writing);
        assert_eq!(births.admit(seat(2), [2; 16]), Admission::Another, "another was quicker");
        assert_eq!(asked(&births, 3, [2; 16]), Admission::Admitted, "another life");
        let again = BirthsFile::open(dir.path()).expect("opened");
        assert_eq!(asked(&again, 2, [2; 16]), Admission::Another);
        assert_eq!(again.known(seat(2), [1; 16]), Some(Admission::Admitted));
        let text = fs::read_to_string(dir.path().join(FILE)).expect("read");
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        let lines = format!("{{\n    \"2\": \"{one}\",\n    \"3\": \"{two}\"\n  }}");
        assert_eq!(text, format!("{{\n  \"format\": 1,\n  \"births\": {lines}\n}}\n"));
    }

    #[test]
    fn what_cannot_be_written_is_not_admitted_now_and_is_when_it_can() {
        let dir = tempfile::tempdir().expect("temp dir");
        let gone = dir.path().join("gone");
        let births = BirthsFile::open(&gone).expect("nothing is there");
        for birth in [[1; 16], [2; 16]] {
            assert_eq!(asked(&births, 2, birth), Admission::NotNow, "there is no directory");
        }
        assert_eq!(births.known(seat(2), [1; 16]), None, "nothing is held against anybody");
        fs::create_dir(&gone).expect("made");
        assert_eq!(asked(&births, 2, [2; 16]), Admission::Admitted);
        assert_eq!(asked(&births, 2, [1; 16]), Admission::Another);
    }

    #[test]
    fn routers_come_from_any_directory_and_are_not_remembered() {
        let dir = tempfile::tempdir().expect("temp dir");
        let births = BirthsFile::open(dir.path()).expect("opened");
        let earlier = BTreeMap::from([(ROUTER_PEER_MIN, [1; 16])]);
        *births.lives.write() = earlier.clone();
        for peer in [ROUTER_PEER_MIN, ROUTER_PEER_MIN + 1] {
            assert_eq!(births.known(seat(peer), [2; 16]), Some(Admission::Admitted));
            assert_eq!(births.admit(seat(peer), [3; 16]), Admission::Admitted);
        }
        assert_eq!(*births.lives.read(), earlier);
        let last = ROUTER_PEER_MIN - 1;
        assert_eq!(asked(&births, last, [1; 16]), Admission::Admitted);
        assert_eq!(asked(&births, last, [2; 16]), Admission::Another, "a member");
    }

    #[test]
    fn foreign_files_are_refused_and_say_why() {
        let dir = tempfile::tempdir().expect("temp dir");
        let hex = "00".repeat(16);
        for (text, why) in [
            ("[]", "invalid"),
            ("{}", "missing field `format`"),
            (&format!(r#"{{"2":"{hex}"}}"#), "missing field `format`"),
            (r#"{"format":2,"what":"nobody knows"}"#, "its format is 2, and this release reads 1"),
            (r#"{"format":0,"births":{}}"#, "its format is 0"),
            (r#"{"format":1}"#, "missing field `births`"),
            (r#"{"format":1,"births":{"2":"x"}}"#, "the birth of 2 is not 32 hex digits"),
            (&format!(r#"{{"format":1,"births":{{"a":"{hex}"}}}}"#), "invalid"),
        ] {
            fs::write(dir.path().join(FILE), text).expect("written");
            let error = BirthsFile::open(dir.path()).expect_err("foreign");
            assert!(matches!(error, IdentityError::Foreign { .. }), "{text}: {error:?}");
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn as_many_lives_as_the_limit_are_remembered_and_then_the_oldest_is_forgotten() {
        let dir = tempfile::tempdir().expect("temp dir");
        let births = BirthsFile::open(dir.path()).expect("opened");
        let most = LIVES_MAX as u64;
        *births.lives.write() = (2..=most).map(|peer| (peer, [9; 16])).collect();
        assert_eq!(asked(&births, most + 1, [1; 16]), Admission::Admitted);
        assert_eq!(births.lives.read().len(), LIVES_MAX);
        assert_eq!(asked(&births, 2, [1; 16]), Admission::Another, "at the limit all are there");
        // One more makes the oldest go, and stays also if it is older than all others.
        for (newcomer, forgotten) in [(most + 2, 2), (1, 3)] {
            assert_eq!(asked(&births, newcomer, [1; 16]), Admission::Admitted);
            assert_eq!(births.lives.read().len(), LIVES_MAX);
            assert_eq!(births.known(seat(newcomer), [1; 16]), Some(Admission::Admitted));
            assert_eq!(births.known(seat(forgotten), [9; 16]), None);
        }
    }
}
