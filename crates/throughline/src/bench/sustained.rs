//! A run without a break: what short slices cannot show. Its rate second by second, what
//! reaches the device, and whether memory grows.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::cells::{Side, Slice, median, rounded};
use super::system;

/// Between two looks at the memory of a process.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Figures of a run without a break.
#[derive(Debug, Clone, Serialize)]
pub struct Sustained {
    /// Its length.
    pub seconds: f64,
    /// Units in the slowest whole second.
    pub second_min: u64,
    /// Units in the median second.
    pub second_median: u64,
    /// The number of that slowest second, from 0.
    pub second_min_at: usize,
    /// Bytes of the events as sent.
    pub body_bytes: u64,
    /// Bytes written to the device below the directory meanwhile, by everybody; 0 when the
    /// directory is on no single device.
    pub device_bytes: u64,
    /// The latter by the former.
    pub device_ratio: f64,
    /// Median resident memory of the node in the second tenth of the run, KiB.
    pub resident_early_kib: u64,
    /// The same in the last tenth.
    pub resident_late_kib: u64,
    /// The most at any look.
    pub resident_max_kib: u64,
    /// Memtables written during the run.
    pub flushes: u64,
    /// Compactions during the run.
    pub compactions: u64,
}

/// Runs `side` for `length` while watching process `pid` and the device below `dir`.
///
/// # Errors
/// What the side met.
pub fn run(
    side: &mut dyn Side,
    length: Duration,
    pid: u32,
    dir: &Path,
    unit_bytes: u64,
) -> anyhow::Result<(Slice, Sustained)> {
    let over = AtomicBool::new(false);
    let device_before = system::device_written_bytes(dir);
    let (slice, resident) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(pid, &over));
        let slice = side.slice(length);
        over.store(true, Ordering::Relaxed);
        (slice, watcher.join().expect("the watcher does not panic"))
    });
    let slice = slice?;
    let device_bytes = match (device_before, system::device_written_bytes(dir)) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => 0,
    };
    let seconds = slice.took.as_secs_f64();
    // The last second is cut short.
    let whole = &slice.per_second[..slice.per_second.len().min(seconds as usize)];
    let slowest = whole.iter().enumerate().min_by_key(|(_, units)| **units);
    let body_bytes = slice.units * unit_bytes;
    let sustained = Sustained {
        seconds: rounded(seconds),
        second_min: slowest.map_or(0, |(_, units)| *units),
        second_median: median(&whole.iter().map(|units| *units as f64).collect::<Vec<_>>()) as u64,
        second_min_at: slowest.map_or(0, |(at, _)| at),
        body_bytes,
        device_bytes,
        device_ratio: rounded(device_bytes as f64 / body_bytes.max(1) as f64),
        resident_early_kib: tenth(&resident, 1),
        resident_late_kib: tenth(&resident, 9),
        resident_max_kib: resident.iter().copied().max().unwrap_or(0),
        flushes: 0,
        compactions: 0,
    };
    Ok((slice, sustained))
}

fn watch(pid: u32, over: &AtomicBool) -> Vec<u64> {
    let mut looks = Vec::new();
    while !over.load(Ordering::Relaxed) {
        // A process that has ended shows itself to the load.
        looks.extend(system::resident_kib(pid));
        std::thread::sleep(LOOK_EVERY);
    }
    looks
}

/// The median of a tenth of the looks, tenths counted from 0.
fn tenth(looks: &[u64], number: usize) -> u64 {
    let from = looks.len() * number / 10;
    let to = (looks.len() * (number + 1) / 10).max(from + 1).min(looks.len());
    let part: Vec<f64> = looks.iter().take(to).skip(from).map(|kib| *kib as f64).collect();
    median(&part) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_are_taken_from_the_looks_in_order() {
        let looks: Vec<u64> = (0..100).collect();
        assert_eq!((tenth(&looks, 1), tenth(&looks, 9)), (14, 94));
        assert_eq!((tenth(&[7], 1), tenth(&[7], 9), tenth(&[], 9)), (7, 7, 0));
    }
}
