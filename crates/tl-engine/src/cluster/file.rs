//! `members.json` in a member's data directory: the newest list of members that it has seen.
//!
//! It is what a node calls the others by when it starts, before it has applied anything. The list
//! in the rows is the one that counts; who was away is told a newer one by the others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::list::MemberList;
use crate::durable;
use crate::identity::IdentityError;

const FILE: &str = "members.json";

/// See the module.
#[derive(Debug, Clone)]
pub struct MembersFile {
    dir: PathBuf,
}

impl MembersFile {
    /// The file of a data directory, whether it is there or not.
    #[must_use]
    pub fn in_dir(dir: &Path) -> MembersFile {
        MembersFile { dir: dir.to_owned() }
    }

    /// What the file says; `None` when there is none.
    ///
    /// # Errors
    /// [`IdentityError`]; it cannot be read, or is no list.
    pub fn read(&self) -> Result<Option<MemberList>, IdentityError> {
        let path = self.dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match MemberList::decode(&bytes) {
                Ok(list) => Ok(Some(list)),
                Err(error) => Err(IdentityError::Foreign { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::Io { what: "read", path, source }),
        }
    }

    /// Puts a list in the place of what the file says, for good.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; the file says then what it said before.
    pub fn write(&self, list: &MemberList) -> Result<(), IdentityError> {
        let path = self.dir.join(FILE);
        durable::put(&self.dir, FILE, &list.encode()).map_err(|source| IdentityError::Io {
            what: "write",
            path,
            source,
        })
    }
}
