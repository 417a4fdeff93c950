//! A Postgres for one line, as it comes: `fsync` and `synchronous_commit` are on.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Result;

use crate::compare::{Other, postgres_programs};

/// A running server; ended when dropped, gone with its files.
#[derive(Debug)]
pub struct Postgres {
    server: Other,
    programs: PathBuf,
    _folder: tempfile::TempDir,
}

impl Postgres {
    /// Starts an empty one.
    pub fn start() -> Result<Postgres> {
        let folder = tempfile::tempdir()?;
        // Postgres, which runs as another user, must get through to its own folder.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let server = Other::postgres(&folder.path().join("postgres"))?;
        Ok(Postgres { server, programs: postgres_programs()?, _folder: folder })
    }

    /// Its address for a client.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.server.address)
    }

    /// The port of its address.
    pub fn port(&self) -> u16 {
        self.server.address.port()
    }

    /// Where psql and pgbench of the same version are.
    pub fn programs(&self) -> &std::path::Path {
        &self.programs
    }

    /// Its first process and those that it has started.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let first = self.server.pid();
        let mut all = vec![first];
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // One that ends meanwhile is nobody's child.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            let parent = fields.split_whitespace().nth(1).and_then(|it| it.parse::<u32>().ok());
            if parent == Some(first) {
                all.push(pid);
            }
        }
        Ok(all)
    }

    /// Ends it.
    pub fn stop(self) -> Result<()> {
        self.server.stop()
    }
}
