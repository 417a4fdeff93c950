//! What the kernel says about a process and about the disk below a folder.

use std::path::Path;

use anyhow::{Context, anyhow};

/// Bytes of a sector in the kernel's counts, whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// Resident memory of a process, KiB.
///
/// # Errors
/// When the process is gone.
pub fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process has had, KiB.
///
/// # Errors
/// When the process is gone.
pub fn resident_max_kib(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).ok_or_else(|| anyhow!("{name} is not in {text}"))
}

/// Processor time that the threads of a process have used, microseconds.
///
/// # Errors
/// When the process is gone, or the kernel does not count.
pub fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let threads = std::fs::read_dir(&folder).with_context(|| format!("process {pid} is gone"))?;
    let mut total_ns = 0;
    for thread in threads {
        // A thread that has ended meanwhile no longer counts.
        if let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) {
            total_ns += run_ns(&text).context("a thread's times are not readable")?;
        }
    }
    Ok(total_ns / 1_000)
}

/// The first number of a thread's scheduler counts: nanoseconds on a processor.
fn run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// Bytes written so far to the device that holds `dir`, by everybody; `None` where a folder is
/// on no single device.
pub fn device_written_bytes(dir: &Path) -> Option<u64> {
    let device = rustix::fs::stat(dir).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    Some(sectors_written(&text)? * SECTOR_BYTES)
}

/// Field 7 of a block device's counts.
fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(resident_kib(pid).expect("here") > 0);
        assert!(resident_max_kib(pid).expect("here") >= resident_kib(pid).expect("here") / 2);
        cpu_us(pid).expect("here");
    }

    #[test]
    fn time_on_a_processor_is_the_first_count() {
        assert_eq!(run_ns("58931372 1221349 61\n"), Some(58_931_372));
        assert_eq!(run_ns(""), None);
    }

    #[test]
    fn sectors_written_are_the_seventh_count() {
        let stat = " 2166982    70987 80695594  5038643  2399956   318976 420915240  1199422 0 1 2";
        assert_eq!(sectors_written(stat), Some(420_915_240));
        assert_eq!(sectors_written("1 2"), None);
    }
}
