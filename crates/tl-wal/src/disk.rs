//! The log's view of a file system: one flat directory of files written at offsets.
//!
//! Two implementations: [`StdDisk`](crate::StdDisk) on a real directory and
//! [`MemDisk`](crate::memdisk::MemDisk), which forgets, tears and fails on demand.

use std::any::Any;
use std::fmt;
use std::io;

/// A held lock; dropping it lets the next owner in.
pub type LockGuard = Box<dyn Any + Send + Sync>;

/// One directory that holds a log.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Where this is, for messages.
    fn place(&self) -> String;

    /// Takes the directory for one owner.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody else has it.
    fn lock(&self) -> io::Result<LockGuard>;

    /// Names and lengths of all files, in any order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self) -> io::Result<Vec<FileInfo>>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// What the file system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a file that does not exist yet. It is sure to stay only after
    /// [`sync_dir`](Disk::sync_dir).
    ///
    /// # Errors
    /// What the file system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Removes a file; for good only after [`sync_dir`](Disk::sync_dir).
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// What the file system says; nothing may be assumed about the directory then.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Name and length of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Name within the directory.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// One open file. Writes become durable with [`sync`](DiskFile::sync), in no order before it.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads at an offset; fewer bytes than asked for means the end of the file is near.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset and says how many bytes were taken.
    ///
    /// # Errors
    /// What the file system says; part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// What the file system says; unsynced bytes must be taken for lost.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all of `bytes`, going on after short writes and interruptions.
pub(crate) fn write_all_at(
    file: &dyn DiskFile,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads at most `bytes` from the start of the file; fewer when it ends early.
pub(crate) fn read_up_to(file: &dyn DiskFile, bytes: usize) -> io::Result<Vec<u8>> {
    let bytes = bytes.min(usize::try_from(file.bytes()?).unwrap_or(usize::MAX));
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}
