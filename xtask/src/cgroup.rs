//! A control group that limits the memory of what runs in it: version 1 or 2, whichever this
//! computer has. Only root may make one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const MOUNT: &str = "/sys/fs/cgroup";

/// A control group; removed when dropped, once nothing runs in it any more.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The file that takes the limit.
    fn limit(self) -> &'static str {
        match self {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        }
    }

    /// The file that tells the most memory so far.
    fn peak(self) -> &'static str {
        match self {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        }
    }

    /// The file that counts what was killed for want of memory.
    fn kills(self) -> &'static str {
        match self {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        }
    }
}

impl Cgroup {
    /// Makes a group whose processes may have so much memory together.
    pub fn new(name: &str, limit_bytes: u64) -> Result<Cgroup> {
        let name = format!("throughline-{name}-{}", std::process::id());
        let one = Path::new(MOUNT).join("memory");
        let two = Path::new(MOUNT);
        let (path, version) = if one.join(Version::One.limit()).exists() {
            (one.join(name), Version::One)
        } else if two.join("cgroup.controllers").exists() {
            (two.join(name), Version::Two)
        } else {
            bail!("no memory controller below {MOUNT}");
        };
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let group = Cgroup { path, version };
        std::fs::write(group.path.join(version.limit()), limit_bytes.to_string())
            .context("cannot limit the memory of a control group")?;
        Ok(group)
    }

    /// The words that start a program inside: put them before the program and its own words.
    pub fn prefix(&self) -> Vec<String> {
        let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        ["sh", "-c", script, &self.path.to_string_lossy()].map(String::from).to_vec()
    }

    /// The most memory that the group has had, page cache included, bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        let text = self.read(self.version.peak())?;
        text.trim().parse().with_context(|| format!("the peak is {text}"))
    }

    /// How many processes were killed for want of memory.
    pub fn kills(&self) -> Result<u64> {
        kills(&self.read(self.version.kills())?)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

fn kills(text: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|number| number.trim().parse().ok()).context("no kills are counted")
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that still runs in it keeps it; there is nobody to tell.
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_both_versions() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n").unwrap(), 2);
        assert_eq!(kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0").unwrap(), 1);
        assert!(kills("low 0\n").is_err());
    }
}
