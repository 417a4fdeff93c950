//! A log on a real directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, FileInfo, LockGuard};

/// Name of the file that the owner of a log keeps locked.
const LOCK_NAME: &str = "lock";

/// A directory of the operating system.
#[derive(Debug, Clone)]
pub struct StdDisk {
    dir: PathBuf,
    writable: bool,
}

impl StdDisk {
    /// The log in `dir`, which is created, durably, when it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(dir: impl AsRef<Path>) -> io::Result<StdDisk> {
        let dir = dir.as_ref().to_owned();
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(StdDisk { dir, writable: true })
    }

    /// The log in an existing `dir`, to look at only: nothing is created, locked or written.
    #[must_use]
    pub fn read_only(dir: impl AsRef<Path>) -> StdDisk {
        StdDisk { dir: dir.as_ref().to_owned(), writable: false }
    }
}

impl Disk for StdDisk {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn lock(&self) -> io::Result<LockGuard> {
        let path = self.dir.join(LOCK_NAME);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            // The lock lasts as long as the file is open, also when the process is killed.
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(source)) => Err(source),
        }
    }

    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            // The log's own names are plain ASCII; any other is not ours.
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push(FileInfo { name, bytes: meta.len() });
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.dir.join(name);
        Ok(Box::new(OpenOptions::new().read(true).write(self.writable).open(path)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.dir.join(name);
        Ok(Box::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
