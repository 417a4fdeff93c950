//! The directory of a run: one given, or a temporary one that goes afterwards.

use std::path::Path;

use anyhow::Context;

/// Where the servers keep their data.
#[derive(Debug)]
pub enum Scratch<'a> {
    /// Stays.
    Given(&'a Path),
    /// Goes with the value.
    Temporary(tempfile::TempDir),
}

impl<'a> Scratch<'a> {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(given: Option<&'a Path>) -> anyhow::Result<Scratch<'a>> {
        match given {
            Some(path) => {
                std::fs::create_dir_all(path)
                    .with_context(|| format!("creating {}", path.display()))?;
                Ok(Scratch::Given(path))
            }
            None => Ok(Scratch::Temporary(tempfile::tempdir()?)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Scratch::Given(path) => path,
            Scratch::Temporary(dir) => dir.path(),
        }
    }
}
