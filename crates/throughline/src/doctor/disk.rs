//! The disk under a data directory: is it one, how much room, and how fast does it sync.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Finding, Status};

/// Syncs measured.
const SYNCS: usize = 64;
/// Bytes written before each sync.
const SYNC_BYTES: usize = 4096;
/// Free bytes below which a node soon stops taking writes.
const FREE_NEEDED: u64 = 256 << 20;
/// Free bytes below which it is time to look.
const FREE_COMFORTABLE: u64 = 2 << 30;
/// Faster than any disk: nothing is really synced.
const SYNC_UNBELIEVABLE: Duration = Duration::from_micros(4);
const SYNC_FAST: Duration = Duration::from_millis(1);
const SYNC_SLOW: Duration = Duration::from_millis(10);
/// What `statfs` says for file systems in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// A sync this much longer than the middle one is a pause of the disk.
const PAUSE_TIMES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Its findings that say whether it is fit for a log.
pub const CHECKS: [&str; 3] = ["free space", "disk", "disk sync"];

/// Everything about the disk.
pub fn look(data: &Path) -> Vec<Finding> {
    let folder = existing(data);
    let mut findings = vec![space(&folder)];
    findings.push(match in_memory(&folder) {
        true => {
            let detail = "the directory is in memory: all data is gone when the computer stops";
            Finding::new("disk", Status::Bad, detail)
                .remedy("name a directory on a disk with --data")
        }
        false => sync_speed(&folder),
    });
    findings
}

/// The directory itself, or the nearest one above it that exists.
fn existing(data: &Path) -> PathBuf {
    let mut folder = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    while !folder.is_dir() {
        if !folder.pop() {
            return PathBuf::from("/");
        }
    }
    folder
}

fn space(folder: &Path) -> Finding {
    match rustix::fs::statvfs(folder) {
        Ok(stat) => space_finding(stat.f_bavail.saturating_mul(stat.f_frsize)),
        Err(error) => {
            let detail = format!("cannot look at {}: {error}", folder.display());
            Finding::new("free space", Status::Bad, detail)
        }
    }
}

fn space_finding(free: u64) -> Finding {
    let gib = free as f64 / f64::from(1 << 30);
    let (status, meaning) = match free {
        free if free < FREE_NEEDED => (Status::Bad, "a node would refuse writes"),
        free if free < FREE_COMFORTABLE => (Status::Warn, "enough to begin, not for long"),
        _ => (Status::Ok, "enough"),
    };
    let finding = Finding::new("free space", status, format!("{gib:.1} GiB: {meaning}"));
    if status == Status::Ok { finding } else { finding.remedy("make room, or choose another disk") }
}

#[cfg(target_os = "linux")]
fn in_memory(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|stat| {
        let kind = stat.f_type as u64 & 0xffff_ffff;
        kind == TMPFS_MAGIC || kind == RAMFS_MAGIC
    })
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_folder: &Path) -> bool {
    false
}

fn sync_speed(folder: &Path) -> Finding {
    match measure(folder) {
        Ok(times) => sync_finding(times),
        Err(error) => {
            let detail = format!("cannot write and sync in {}: {error}", folder.display());
            Finding::new("disk sync", Status::Bad, detail)
        }
    }
}

/// The time of each write and sync, shortest first. Overwrites one place, as the log does in its
/// prepared segments.
fn measure(folder: &Path) -> std::io::Result<Vec<Duration>> {
    use std::os::unix::fs::FileExt;
    let mut file: File = tempfile::tempfile_in(folder)?;
    file.write_all(&[0; SYNC_BYTES])?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS {
        let started = Instant::now();
        file.write_all_at(&[at as u8; SYNC_BYTES], 0)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn sync_finding(times: Vec<Duration>) -> Finding {
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let figures = format!(
        "{:.2} ms in the middle, {:.2} ms at worst",
        median.as_secs_f64() * 1e3,
        worst.as_secs_f64() * 1e3
    );
    // Appends that wait for each other share nothing; concurrent ones share a sync.
    let in_turn = (1.0 / median.as_secs_f64().max(1e-9)) as u64;
    let pause = worst >= PAUSE && worst >= median * PAUSE_TIMES;
    let (status, meaning) = match median {
        median if median < SYNC_UNBELIEVABLE => (
            Status::Bad,
            "no disk is that fast: it confirms what it has not stored, and a power cut loses data"
                .to_owned(),
        ),
        _ if pause => (
            Status::Warn,
            "it pauses now and then, and every append waits for the pause to end".to_owned(),
        ),
        median if median <= SYNC_FAST => {
            (Status::Ok, format!("fast: about {in_turn} appends per second one after another"))
        }
        median if median <= SYNC_SLOW => {
            (Status::Ok, format!("usable: about {in_turn} appends per second one after another"))
        }
        _ => (
            Status::Warn,
            format!("slow: every append waits for it, about {in_turn} per second in turn"),
        ),
    };
    let finding = Finding::new("disk sync", status, format!("{figures}: {meaning}"));
    match status {
        Status::Ok => finding,
        Status::Warn => finding.remedy(
            "use a local SSD for --data, one that nothing else writes to; batches share a sync",
        ),
        Status::Bad => finding.remedy(
            "turn the disk's volatile write cache off, or use one that is safe from power loss",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(median: Duration) -> Status {
        sync_finding(vec![median; 3]).status
    }

    #[test]
    fn sync_times_are_judged() {
        assert_eq!(status(Duration::from_micros(1)), Status::Bad);
        assert_eq!(status(Duration::from_micros(150)), Status::Ok);
        assert_eq!(status(Duration::from_millis(5)), Status::Ok);
        assert_eq!(status(Duration::from_millis(40)), Status::Warn);
        let once = |worst| sync_finding([vec![SYNC_FAST; 9], vec![worst]].concat());
        assert_eq!(once(PAUSE - Duration::from_millis(1)).status, Status::Ok);
        assert!(once(PAUSE).status == Status::Warn && once(PAUSE).remedy.is_some());
    }

    #[test]
    fn free_space_is_judged() {
        let judged = [1 << 20, 1 << 30, 1 << 40].map(|free| space_finding(free).status);
        assert_eq!(judged, [Status::Bad, Status::Warn, Status::Ok]);
    }

    #[test]
    fn a_directory_to_be_made_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(existing(&folder.path().join("a/b")), folder.path());
        assert_eq!(measure(folder.path()).expect("times").len(), SYNCS);
    }
}
