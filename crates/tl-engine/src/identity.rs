//! The node's lasting identity: one small file in the data directory.
//!
//! ```text
//! data directory
//!   node.json   this file: format, node id, cluster id, number of groups, whether it has a log
//!   members.json  the newest list of members that a member has seen
//!   births.json   by which directory it knows each other member
//!   node.lock   locked by the process that runs the node
//!   log/        the write-ahead log
//!   store/      sorted runs
//! ```
//!
//! The number of groups decides where every resource lives, so it is fixed here at birth and a
//! different setting later changes nothing.
//!
//! The file is written twice: before anything else, and once more when the log's first segment is
//! durable, before the first request. From then on a directory without a log has lost it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tl_types::UnixMs;

use crate::durable;

const FORMAT: u32 = 1;
/// Of a cluster whose groups are on some members only, or that has routers: a release that does not
/// know these would start groups where they do not belong.
const FORMAT_PLACED: u32 = 2;
const FILE: &str = "node.json";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the data directory; a later release refuses or converts older ones.
    pub format: u32,
    /// 16 bytes as hex, unique to this life of the directory.
    pub node_id: String,
    /// 16 bytes as hex; a single node is a cluster of its own that others may join.
    pub cluster_id: String,
    /// Groups of the cluster.
    pub groups: u16,
    /// The log was made once, so its absence is a loss. A file without this member is from before
    /// the first start was complete, or from an older release.
    #[serde(default)]
    pub has_log: bool,
    /// 16 bytes as hex, drawn when the log was made: tells this directory from a copy of it that was
    /// made before. A file without it is of an older release, and gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<String>,
    /// All members of the cluster when this life of the directory was made, this node among them;
    /// none for a node that is a cluster of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// When the cluster was founded; 0 for a node that is a cluster of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub founded_at_ms: u64,
    /// This life took the place of one that was lost: it was no member of any group when it
    /// began, and has no vote in one before that group has made it a member.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_new_life: bool,
    /// Copies of each group; without a number every member has all groups. For the cluster's whole
    /// life, like its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u8>,
    /// Routers of the cluster: they have no groups and no votes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<Member>,
}

/// What all directories of a cluster say alike.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// All members.
    pub members: Vec<Member>,
    /// All routers.
    pub routers: Vec<Member>,
    /// Groups of the cluster.
    pub groups: u16,
    /// Copies of each group; `None` for one on every member.
    pub copies: Option<u8>,
    /// When the cluster was founded.
    pub founded_at: UnixMs,
}

/// One member of a cluster as it was founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name in the settings.
    pub name: String,
    /// 16 bytes as hex: the life of its directory.
    pub node_id: String,
    /// What Raft knows this life by; from 1.
    pub peer: u64,
}

impl Member {
    /// A member with the life `node_id`.
    #[must_use]
    pub fn new(name: String, node_id: [u8; 16], peer: u64) -> Member {
        Member { name, node_id: hex(node_id), peer }
    }

    /// The node id's bytes; zeros should the file hold no hex, which reading it has refused.
    #[must_use]
    pub fn node_id_bytes(&self) -> [u8; 16] {
        hex_bytes(&self.node_id).unwrap_or_default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Why the identity could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// The deed.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not one this release can read.
    #[error("{} is not a node file this release can read: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The directory belongs to a node already.
    #[error("{} has the identity of a node already", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A new life needs a directory in which nothing is.
    #[error("{} is not empty: a new life begins with a new or empty directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// There is data but no identity: somebody removed the file, or this is not a data directory.
    #[error(
        "{} holds files but no {FILE}: not a data directory, or its identity was removed",
        path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
}

impl Identity {
    /// Reads the identity of a data directory, or gives a new or empty one its own.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing is changed then.
    pub fn open_or_create(
        dir: &Path,
        groups: u16,
        fresh_id: impl Fn() -> [u8; 16],
    ) -> Result<Identity, IdentityError> {
        if let Some(identity) = Identity::open(dir)? {
            return Ok(identity);
        }
        let node_id = fresh_id();
        let identity = Identity {
            format: FORMAT,
            node_id: hex(node_id),
            cluster_id: hex(fresh_id()),
            groups,
            has_log: false,
            birth: None,
            members: Vec::new(),
            founded_at_ms: 0,
            is_new_life: false,
            copies: None,
            routers: Vec::new(),
        };
        identity.begin(dir)
    }

    /// Gives a new or empty directory the identity of a member or router.
    ///
    /// # Errors
    /// [`IdentityError`]; the directory has an identity or holds files.
    pub fn found(dir: &Path, own: &Member, founding: &Founding) -> Result<Identity, IdentityError> {
        if Identity::open(dir)?.is_some() {
            return Err(IdentityError::InUse { path: dir.to_owned() });
        }
        Identity::of_member(own, founding).begin(dir)
    }

    /// Gives a directory the identity of a life that takes the place of a lost one. The founding's
    /// members are here those of the list under which it begins.
    ///
    /// # Errors
    /// [`IdentityError`]; without an identity the directory starts nowhere.
    pub fn begin_new_life(
        dir: &Path,
        own: &Member,
        founding: &Founding,
    ) -> Result<Identity, IdentityError> {
        Identity { is_new_life: true, ..Identity::of_member(own, founding) }.begin(dir)
    }

    fn of_member(own: &Member, founding: &Founding) -> Identity {
        let is_plain = founding.copies.is_none() && founding.routers.is_empty();
        Identity {
            format: if is_plain { FORMAT } else { FORMAT_PLACED },
            node_id: own.node_id.clone(),
            cluster_id: hex(founding.cluster_id),
            groups: founding.groups,
            has_log: false,
            birth: None,
            members: founding.members.clone(),
            founded_at_ms: founding.founded_at.0,
            is_new_life: false,
            copies: founding.copies,
            routers: founding.routers.clone(),
        }
    }

    /// The router that this directory is of, if it is one's.
    #[must_use]
    pub fn router(&self) -> Option<&Member> {
        self.routers.iter().find(|router| router.node_id == self.node_id)
    }

    /// Refuses a directory in which something is; one that is not there is made.
    ///
    /// # Errors
    /// [`IdentityError::NotEmpty`], or that it cannot be made or read.
    pub fn check_empty(dir: &Path) -> Result<(), IdentityError> {
        let io = |what| {
            let path = dir.to_owned();
            move |source| IdentityError::Io { what, path, source }
        };
        fs::create_dir_all(dir).map_err(io("create the data directory"))?;
        let mut found = fs::read_dir(dir).map_err(io("read"))?;
        match found.next() {
            None => Ok(()),
            Some(_) => Err(IdentityError::NotEmpty { path: dir.to_owned() }),
        }
    }

    /// Reads the identity of a data directory; `None` when it has none.
    ///
    /// # Errors
    /// [`IdentityError`]; it cannot be read or used.
    pub fn open(dir: &Path) -> Result<Option<Identity>, IdentityError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Identity::parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::Io { what: "read", path, source }),
        }
    }

    /// Writes the first file of a directory.
    fn begin(self, dir: &Path) -> Result<Identity, IdentityError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { what, path, source }
        };
        fs::create_dir_all(dir).map_err(io("create the data directory", dir))?;
        let path = dir.join(FILE);
        let holds_data = ["log", "store"].iter().any(|name| dir.join(name).exists());
        if holds_data {
            return Err(IdentityError::Missing { path: dir.to_owned() });
        }
        self.write(dir).map_err(io("write", &path))?;
        Ok(self)
    }

    /// Remembers for good that the log was made, and gives the directory its birth; does nothing
    /// when both are known.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; the file says then what it said before.
    pub fn remember_log(
        &mut self,
        dir: &Path,
        fresh_id: impl FnOnce() -> [u8; 16],
    ) -> Result<(), IdentityError> {
        if self.has_log && self.birth.is_some() {
            return Ok(());
        }
        self.has_log = true;
        self.birth.get_or_insert_with(|| hex(fresh_id()));
        let path = dir.join(FILE);
        self.write(dir).map_err(|source| IdentityError::Io { what: "write", path, source })
    }

    /// The node id's bytes; zeros should the file hold no hex, which reading it has refused.
    #[must_use]
    pub fn node_id_bytes(&self) -> [u8; 16] {
        hex_bytes(&self.node_id).unwrap_or_default()
    }

    /// The birth's bytes, once there is one.
    #[must_use]
    pub fn birth_bytes(&self) -> Option<[u8; 16]> {
        self.birth.as_deref().and_then(hex_bytes)
    }

    /// The cluster id's bytes; zeros should the file hold no hex, which reading it has refused.
    #[must_use]
    pub fn cluster_id_bytes(&self) -> [u8; 16] {
        hex_bytes(&self.cluster_id).unwrap_or_default()
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Identity, IdentityError> {
        let foreign = |reason: String| IdentityError::Foreign { path: path.to_owned(), reason };
        let identity: Identity =
            serde_json::from_slice(bytes).map_err(|error| foreign(error.to_string()))?;
        if ![FORMAT, FORMAT_PLACED].contains(&identity.format) {
            let known = format!("{FORMAT} and {FORMAT_PLACED}");
            return Err(foreign(format!("format {} (known: {known})", identity.format)));
        }
        let all = || identity.members.iter().chain(&identity.routers);
        let own = [&identity.node_id, &identity.cluster_id];
        let ids = || own.into_iter().chain(all().map(|member| &member.node_id));
        let births = identity.birth.iter();
        if !ids().chain(births).all(|id| hex_bytes(id).is_some()) {
            return Err(foreign("its ids are not 32 hex digits".to_owned()));
        }
        let peers: BTreeSet<u64> = all().map(|member| member.peer).collect();
        if peers.len() != all().count() || peers.contains(&0) {
            return Err(foreign("its members' numbers are not different ones from 1".to_owned()));
        }
        if identity.copies == Some(0) {
            return Err(foreign("no copies of its groups".to_owned()));
        }
        if !(1..=4096).contains(&identity.groups) {
            return Err(foreign(format!("{} groups", identity.groups)));
        }
        Ok(identity)
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        durable::put(dir, FILE, &bytes)
    }
}

pub(crate) fn hex(id: [u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn hex_bytes(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_given_once_and_kept() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = Identity::open_or_create(dir.path(), 256, || [7; 16]).expect("created");
        let again = Identity::open_or_create(dir.path(), 8, || [9; 16]).expect("read");
        assert_eq!(first, again);
        assert_eq!(again.groups, 256, "the number of groups is fixed at birth");
    }

    #[test]
    fn that_there_is_a_log_is_remembered_also_by_a_file_that_did_not_know() {
        let dir = tempfile::tempdir().expect("temp dir");
        let open = || Identity::open_or_create(dir.path(), 256, || [7; 16]).expect("opened");
        let mut identity = open();
        assert!(!identity.has_log);
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).expect("read");
        let without = text.replace(",\n  \"has_log\": false", "");
        assert_ne!(text, without);
        fs::write(&path, without).expect("write");
        assert_eq!(open(), identity);
        identity.remember_log(dir.path(), || [3; 16]).expect("remembered");
        assert!(open().has_log);
        assert_eq!(open(), identity);
        assert_eq!(identity.birth_bytes(), Some([3; 16]));
        identity.remember_log(dir.path(), || [4; 16]).expect("it is known");
        assert_eq!(open().birth_bytes(), Some([3; 16]), "a directory is born once");
        // Of a release before there were births.
        let text = fs::read_to_string(&path).expect("read");
        let line = format!(",\n  \"birth\": \"{}\"", hex([3; 16]));
        let without = text.replace(&line, "");
        assert_ne!(text, without);
        fs::write(&path, without).expect("write");
        let mut before = open();
        assert_eq!((before.has_log, before.birth_bytes()), (true, None));
        before.remember_log(dir.path(), || [5; 16]).expect("remembered");
        assert_eq!(open().birth_bytes(), Some([5; 16]));
    }

    #[test]
    fn foreign_files_and_lost_identities_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join(FILE), b"{}").expect("write");
        let open = || Identity::open_or_create(dir.path(), 256, || [7; 16]);
        assert!(matches!(open(), Err(IdentityError::Foreign { .. })));
        fs::remove_file(dir.path().join(FILE)).expect("remove");
        fs::create_dir(dir.path().join("log")).expect("dir");
        assert!(matches!(open(), Err(IdentityError::Missing { .. })));
    }
}
