//! A disk in memory that keeps what was synced and is free to lose the rest.
//!
//! A clone is another handle to the same disk. Every random choice comes from a seed given by
//! the caller, so a run can be repeated. What a crash may do, no more and no less:
//!  - each 512-byte sector keeps any of the contents it had since its file was last synced;
//!  - a file that grew since its last sync may have either length;
//!  - of the creations and removals since the directory was last synced any first part stays.
//!
//! Absent on purpose: reordering of synced writes, and sectors that tear within themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, FileInfo, LockGuard};

/// What a device writes in one piece.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

/// What happened on a disk so far, so that a test can show that it tested something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCounts {
    /// Power cuts.
    pub crashes: u64,
    /// Process kills, which lose nothing.
    pub kills: u64,
    /// Unsynced bytes that a crash took back, counted in whole sectors.
    pub lost_bytes: u64,
    /// Crashes after which some unsynced sectors were new and some old.
    pub torn_writes: u64,
    /// Creations and removals that a crash took back.
    pub lost_names: u64,
    /// Files synced.
    pub syncs: u64,
    /// Injected sync errors.
    pub sync_errors: u64,
    /// Writes and creations refused for want of room.
    pub full_errors: u64,
    /// Writes that took only part of the bytes.
    pub short_writes: u64,
    /// Bits turned over at rest.
    pub flips: u64,
    /// Bytes replaced by noise at rest.
    pub rotten_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, FileState>,
    name_changes: Vec<NameChange>,
    next_file: u64,
    /// Handles and locks of an earlier life of the process are dead.
    life: u64,
    locked: bool,
    free_bytes: Option<u64>,
    syncs_until_error: Option<u64>,
    short_writes: bool,
    counts: DiskCounts,
}

#[derive(Debug)]
enum NameChange {
    Created(String),
    Removed(String, u64),
}

#[derive(Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    synced_len: usize,
    /// Earlier contents of sectors written since the last sync, oldest first.
    before: BTreeMap<usize, Vec<[u8; SECTOR_BYTES]>>,
}

impl MemDisk {
    /// An empty disk without limits.
    #[must_use]
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// Cuts the power: unsynced writes are kept, lost or torn as `seed` decides, and every open
    /// handle and lock is dead.
    pub fn crash(&self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let state = &mut *self.state();
        state.counts.crashes += 1;
        state.end_process();
        let kept = rng.usize(..=state.name_changes.len());
        for change in state.name_changes.drain(kept..).rev() {
            state.counts.lost_names += 1;
            match change {
                NameChange::Created(name) => drop(state.names.remove(&name)),
                NameChange::Removed(name, file) => drop(state.names.insert(name, file)),
            }
        }
        state.name_changes.clear();
        for file in state.files.values_mut() {
            file.crash(&mut rng, &mut state.counts);
        }
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|file, _| named.contains(file));
    }

    /// Kills the process: handles and the lock are dead, what was written stays, synced or not.
    pub fn kill(&self) {
        let mut state = self.state();
        state.counts.kills += 1;
        state.end_process();
    }

    /// Lets files grow by so many bytes more; `None` = without limit.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.state().free_bytes = bytes;
    }

    /// Lets `after` more syncs succeed, then one fail.
    pub fn fail_sync(&self, after: u64) {
        self.state().syncs_until_error = Some(after);
    }

    /// Makes every write longer than one sector take only half of its bytes.
    pub fn set_short_writes(&self, short: bool) {
        self.state().short_writes = short;
    }

    /// Turns one bit over at rest; false when the file has no such byte.
    pub fn flip(&self, name: &str, byte: usize, bit: u8) -> bool {
        let state = &mut *self.state();
        let file = state.names.get(name).and_then(|file| state.files.get_mut(file));
        let Some(byte) = file.and_then(|file| file.bytes.get_mut(byte)) else { return false };
        *byte ^= 1 << (bit % 8);
        state.counts.flips += 1;
        true
    }

    /// Puts noise in the place of bytes at rest, durable ones included; says how many of them are
    /// no longer what they were.
    pub fn rot(&self, name: &str, bytes: Range<usize>, seed: u64) -> usize {
        let state = &mut *self.state();
        let file = state.names.get(name).and_then(|file| state.files.get_mut(file));
        let Some(file) = file else { return 0 };
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut differ = 0;
        for at in bytes.start..bytes.end.min(file.bytes.len()) {
            let noise = rng.u8(..);
            differ += usize::from(file.bytes[at] != noise);
            file.bytes[at] = noise;
            // A crash does not bring it back.
            for before in file.before.get_mut(&(at / SECTOR_BYTES)).into_iter().flatten() {
                before[at % SECTOR_BYTES] = noise;
            }
        }
        state.counts.rotten_bytes += differ as u64;
        differ
    }

    /// Takes a file away, durably, as an operator's mistake would.
    pub fn lose_file(&self, name: &str) -> bool {
        self.state().names.remove(name).is_some()
    }

    /// All bytes of a file as they stand.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).and_then(|file| state.files.get(file)).map(|f| f.bytes.clone())
    }

    /// Replaces a file's bytes, durably; creates it when it is not there.
    pub fn set_contents(&self, name: &str, bytes: Vec<u8>) {
        let state = &mut *self.state();
        let next = state.next_file;
        let file = *state.names.entry(name.to_owned()).or_insert(next);
        state.next_file += u64::from(file == next);
        let synced_len = bytes.len();
        state.files.insert(file, FileState { bytes, synced_len, before: BTreeMap::new() });
    }

    /// A second disk with the same files, all synced, and no faults set.
    #[must_use]
    pub fn copy(&self) -> MemDisk {
        let copy = MemDisk::new();
        let state = self.state();
        for (name, file) in &state.names {
            copy.set_contents(name, state.files[file].bytes.clone());
        }
        copy
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_process(&mut self) {
        self.life += 1;
        self.locked = false;
        self.free_bytes = None;
        self.syncs_until_error = None;
    }

    /// Takes up to `bytes` from the room that is left.
    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(free) = &mut self.free_bytes {
            let Some(left) = free.checked_sub(bytes as u64) else {
                self.counts.full_errors += 1;
                return Err(io::ErrorKind::StorageFull.into());
            };
            *free = left;
        }
        Ok(())
    }

    fn fail_if_due(&mut self) -> io::Result<()> {
        match self.syncs_until_error {
            Some(0) => {
                self.syncs_until_error = None;
                self.counts.sync_errors += 1;
                Err(io::Error::other("injected sync error"))
            }
            Some(left) => {
                self.syncs_until_error = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl FileState {
    fn sector(&self, number: usize) -> [u8; SECTOR_BYTES] {
        let start = (number * SECTOR_BYTES).min(self.bytes.len());
        let end = (start + SECTOR_BYTES).min(self.bytes.len());
        let mut sector = [0; SECTOR_BYTES];
        sector[..end - start].copy_from_slice(&self.bytes[start..end]);
        sector
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        for number in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let sector = self.sector(number);
            self.before.entry(number).or_default().push(sector);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    fn crash(&mut self, rng: &mut fastrand::Rng, counts: &mut DiskCounts) {
        // All kept, all lost, or each sector for itself.
        let manner = rng.u8(..4);
        let (mut kept, mut lost) = (0, 0);
        for (number, versions) in std::mem::take(&mut self.before) {
            let choice = match manner {
                0 => versions.len(),
                1 => 0,
                _ => rng.usize(..=versions.len()),
            };
            let Some(old) = versions.get(choice) else {
                kept += 1;
                continue;
            };
            lost += 1;
            let start = number * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.bytes.len());
            self.bytes[start..end].copy_from_slice(&old[..end - start]);
        }
        counts.lost_bytes += lost * SECTOR_BYTES as u64;
        counts.torn_writes += u64::from(kept > 0 && lost > 0);
        if rng.bool() {
            self.bytes.truncate(self.synced_len);
        }
        self.synced_len = self.bytes.len();
    }
}

impl Disk for MemDisk {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> io::Result<LockGuard> {
        let mut state = self.state();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Box::new(MemLock { disk: self.clone(), life: state.life }))
    }

    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let state = self.state();
        let info = |(name, file): (&String, &u64)| FileInfo {
            name: name.clone(),
            bytes: state.files[file].bytes.len() as u64,
        };
        Ok(state.names.iter().map(info).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile { disk: self.clone(), file, life: state.life }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.grow(1)?;
        let file = state.next_file;
        state.next_file += 1;
        state.names.insert(name.to_owned(), file);
        state.files.insert(file, FileState::default());
        state.name_changes.push(NameChange::Created(name.to_owned()));
        Ok(Box::new(MemFile { disk: self.clone(), file, life: state.life }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.name_changes.push(NameChange::Removed(name.to_owned(), file));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.fail_if_due()?;
        state.name_changes.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct MemLock {
    disk: MemDisk,
    life: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    file: u64,
    life: u64,
}

impl MemFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life || !state.files.contains_key(&self.file) {
            return Err(io::Error::other("handle of a process that is gone"));
        }
        act(&mut state, self.file)
    }
}

impl DiskFile for MemFile {
    fn bytes(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files[&file].bytes.len() as u64))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, file| {
            let bytes = &state.files[&file].bytes;
            let start = (offset as usize).min(bytes.len());
            let taken = into.len().min(bytes.len() - start);
            into[..taken].copy_from_slice(&bytes[start..start + taken]);
            Ok(taken)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|state, file| {
            let short = state.short_writes && bytes.len() > SECTOR_BYTES;
            let bytes = if short { &bytes[..bytes.len() / 2] } else { bytes };
            state.counts.short_writes += u64::from(short);
            let end = offset as usize + bytes.len();
            state.grow(end.saturating_sub(state.files[&file].bytes.len()))?;
            let file = state.files.get_mut(&file).expect("looked up above");
            file.write(bytes, offset as usize);
            Ok(bytes.len())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            state.fail_if_due()?;
            state.counts.syncs += 1;
            let file = state.files.get_mut(&file).expect("looked up above");
            file.before.clear();
            file.synced_len = file.bytes.len();
            Ok(())
        })
    }
}
