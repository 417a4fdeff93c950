//! Where the workspace lies and which files belong to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::command::Call;

/// The workspace's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the manifest lies one below the root")
}

/// The build folder, as cargo itself would choose it.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where the release binary `tl` is built.
pub fn tl() -> PathBuf {
    target().join("release/tl")
}

/// The release binary, which must have been built.
pub fn built_tl() -> Result<PathBuf> {
    let tl = tl();
    ensure!(tl.is_file(), "{} is missing: cargo build --release first", tl.display());
    Ok(tl)
}

/// Every file of the repository, tracked or about to be, relative to the root and sorted;
/// ignored files and deleted ones are left out.
pub fn files() -> Result<Vec<PathBuf>> {
    let listing = Call::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .dir(root())
        .output()?;
    let mut files: Vec<PathBuf> = listing
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of one file, named relative to the root; `None` when it is not UTF-8.
pub fn text(path: &Path) -> Result<Option<String>> {
    let bytes = std::fs::read(root().join(path))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8(bytes).ok())
}
