//! The node's lasting identity: one small file in the data directory.
//!
//! ```text
//! data directory
//!   node.json   this file: format, node id, cluster id, number of groups, whether it has a log
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

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;
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
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { what, path, source }
        };
        fs::create_dir_all(dir).map_err(io("create the data directory", dir))?;
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => return Identity::parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io("read", &path)(source)),
        }
        let holds_data = ["log", "store"].iter().any(|name| dir.join(name).exists());
        if holds_data {
            return Err(IdentityError::Missing { path: dir.to_owned() });
        }
        let hex = |id: [u8; 16]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let identity = Identity {
            format: FORMAT,
            node_id: hex(fresh_id()),
            cluster_id: hex(fresh_id()),
            groups,
            has_log: false,
        };
        identity.write(dir, &path).map_err(io("write", &path))?;
        Ok(identity)
    }

    /// Remembers for good that the log was made; does nothing when that is known.
    ///
    /// # Errors
    /// [`IdentityError::Io`]; the file says then what it said before.
    pub fn remember_log(&mut self, dir: &Path) -> Result<(), IdentityError> {
        if self.has_log {
            return Ok(());
        }
        self.has_log = true;
        let path = dir.join(FILE);
        self.write(dir, &path).map_err(|source| IdentityError::Io { what: "write", path, source })
    }

    /// The node id's bytes; zeros should the file hold no hex, which reading it has refused.
    #[must_use]
    pub fn node_id_bytes(&self) -> [u8; 16] {
        hex_bytes(&self.node_id).unwrap_or_default()
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Identity, IdentityError> {
        let foreign = |reason: String| IdentityError::Foreign { path: path.to_owned(), reason };
        let identity: Identity =
            serde_json::from_slice(bytes).map_err(|error| foreign(error.to_string()))?;
        if identity.format != FORMAT {
            return Err(foreign(format!("format {} (known: {FORMAT})", identity.format)));
        }
        if hex_bytes(&identity.node_id).is_none() || hex_bytes(&identity.cluster_id).is_none() {
            return Err(foreign("its ids are not 32 hex digits".to_owned()));
        }
        if !(1..=4096).contains(&identity.groups) {
            return Err(foreign(format!("{} groups", identity.groups)));
        }
        Ok(identity)
    }

    /// Temporary file, sync, rename, directory sync: after a crash there is the whole file or none.
    fn write(&self, dir: &Path, path: &Path) -> io::Result<()> {
        let temporary = dir.join("node.json.new");
        let mut file = File::create(&temporary)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    }
}

fn hex_bytes(text: &str) -> Option<[u8; 16]> {
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
        identity.remember_log(dir.path()).expect("remembered");
        assert!(open().has_log);
        assert_eq!(open(), identity);
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
