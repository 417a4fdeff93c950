//! A disk that is full, and one that takes no writes: small file systems in memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tl_fleet::sqlite::{SqliteOptions, SqliteStore};
use tl_fleet::{JsonText, NewStep, StepId, StepState, Store, StoreError};

use crate::conformance::{claim_as, completed, finish, numbered, state};

/// A file system in memory; unmounted when dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn mount(size: &str) -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(mount.status.success(), "these tests run as root: {mount:?}");
        Disk { folder }
    }

    fn read_only(&self) {
        let remount =
            Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()).output().unwrap();
        assert!(remount.status.success(), "{remount:?}");
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn db(&self) -> PathBuf {
        self.path().join("fleet.db")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The store on it may still be ending: detached now, gone with its last file.
        drop(Command::new("umount").arg("--lazy").arg(self.folder.path()).output());
    }
}

/// Room that something else takes.
fn fill(path: &Path, bytes: usize) {
    std::fs::write(path, vec![1; bytes]).unwrap();
}

fn large(number: usize) -> NewStep {
    let args = format!(r#"{{"n":{number},"a":"{}"}}"#, "x".repeat(20_000));
    NewStep { args: JsonText::value("args", &args).unwrap(), ..numbered(number) }
}

#[tokio::test]
async fn a_full_disk_is_named_and_what_was_answered_is_there_when_there_is_room_again() {
    let disk = Disk::mount("4m");
    let others = disk.path().join("others");
    fill(&others, 2 << 20);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(SqliteOptions::new(disk.db())).unwrap());
    let mut kept: Vec<StepId> = Vec::new();
    let refused = loop {
        match store.submit(vec![large(kept.len())]).await {
            Ok(submitted) => kept.push(submitted.value[0].id),
            Err(error) => break error,
        }
        assert!(kept.len() < 1_000, "the disk is never full");
    };
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    assert!(!kept.is_empty());
    assert!(matches!(store.submit(vec![large(0)]).await, Err(StoreError::Refused { .. })));
    // Looking goes on.
    assert_eq!(store.counts().await.unwrap().value.pending as usize, kept.len());
    std::fs::remove_file(&others).unwrap();
    let more = store.submit(vec![large(0)]).await.unwrap().value[0].id;
    for claim in claim_as(&store, "w", 1_000).await {
        finish(&store, claim.key, completed("1")).await;
    }
    drop(store);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(SqliteOptions::new(disk.db())).unwrap());
    for id in kept.iter().chain([&more]) {
        assert_eq!(state(&store, *id).await, StepState::Completed);
    }
}

#[tokio::test]
async fn a_disk_that_is_full_from_the_start_is_named() {
    let disk = Disk::mount("1m");
    fill(&disk.path().join("others"), 1 << 20);
    let refused = SqliteStore::open(SqliteOptions::new(disk.db()));
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_is_named() {
    let disk = Disk::mount("4m");
    drop(SqliteStore::open(SqliteOptions::new(disk.db())).unwrap());
    disk.read_only();
    let refused = SqliteStore::open(SqliteOptions::new(disk.db()));
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
}
