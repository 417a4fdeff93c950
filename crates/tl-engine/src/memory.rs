//! The memory budget: one number, divided among what holds memory.
//!
//! ```text
//!   budget  = memtables   active and sealed ones, at most five
//!           + caches      rows and blocks of the sorted runs
//!           + in flight   writes proposed and not answered
//!           + windows     recent events that tails share
//!           + tails       events read for single tails and not given out
//!           + bodies      requests being read         (minded by the face)
//!           + pages       replies being read out      (minded by the face)
//!           + the rest    connections, code, what the allocator keeps
//! ```
//!
//! Every share has its own limit. The sum of what is really held is watched besides: above the
//! high mark clients' writes are refused until it is below the low one. The last twentieth is for
//! what frees memory.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tl_types::limits::INFLIGHT_BYTES_MAX;

/// Smallest budget that a node works with.
pub const BUDGET_BYTES_MIN: u64 = 128 << 20;
/// Largest budget.
pub const BUDGET_BYTES_MAX: u64 = 1 << 40;
/// What a budget is when nobody knows the machine.
pub const BUDGET_BYTES_DEFAULT: u64 = 1 << 30;
/// Unless it is set, the budget is this part of the memory that the process may use.
const OF_AVAILABLE: u64 = 4;
/// Largest budget that is chosen without being asked for.
const CHOSEN_BYTES_MAX: u64 = 16 << 30;
/// Largest memtable that is chosen without being asked for: larger flushes stall the log's sync.
const MEMTABLE_BYTES_CHOSEN_MAX: u64 = 16 << 20;
/// Memtables that may exist: the active one, and four sealed ones at which writes are held back.
pub(crate) const MEMTABLES_MAX: u64 = 5;
/// This part of every budget is for what frees memory.
pub(crate) const RESERVE_DIVISOR: u64 = 20;
/// The low mark lies this part of the budget below the high one.
const RECOVERED_DIVISOR: u64 = 16;

/// Between two looks at what is held.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same when half of what clients may fill is held.
const LOOK_EVERY_WHEN_NEAR: Duration = Duration::from_millis(50);

/// How a budget is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// One memtable.
    pub memtable_bytes: u64,
    /// Rows and blocks of the sorted runs.
    pub cache_bytes: u64,
    /// Writes proposed and not answered.
    pub inflight_bytes: u64,
    /// Recent events that tails share.
    pub windows_bytes: u64,
    /// Events read for single tails and not given out.
    pub tails_bytes: u64,
    /// Request bodies under way.
    pub bodies_bytes: u64,
    /// Pages on their way to their readers.
    pub pages_bytes: u64,
}

impl Shares {
    /// The usual shares of a budget; settings may name other sizes for some.
    #[must_use]
    pub fn of(budget_bytes: u64) -> Shares {
        let budget = budget_bytes.clamp(BUDGET_BYTES_MIN, BUDGET_BYTES_MAX);
        Shares {
            memtable_bytes: (budget / 48).min(MEMTABLE_BYTES_CHOSEN_MAX),
            cache_bytes: budget / 8,
            inflight_bytes: (budget / 4).min(INFLIGHT_BYTES_MAX as u64),
            windows_bytes: budget / 32,
            tails_bytes: budget / 16,
            bodies_bytes: budget / 8,
            pages_bytes: budget / 8,
        }
    }

    /// Everything together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.memtable_bytes.saturating_mul(MEMTABLES_MAX).saturating_add(self.cache_bytes)
            + self.inflight_bytes
            + self.windows_bytes
            + self.tails_bytes
            + self.bodies_bytes
            + self.pages_bytes
    }
}

/// The budget chosen for this process: a part of the memory that it may use.
#[must_use]
pub fn chosen_budget() -> u64 {
    chosen_of(available(|path| fs::read_to_string(path).ok()))
}

fn chosen_of(available_bytes: Option<u64>) -> u64 {
    let chosen = available_bytes.map_or(BUDGET_BYTES_DEFAULT, |bytes| bytes / OF_AVAILABLE);
    chosen.clamp(BUDGET_BYTES_MIN, CHOSEN_BYTES_MAX)
}

/// The machine's memory, or what the control groups of this process leave of it.
fn available(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
    });
    let of_group = |group: &str| {
        read(&format!("/sys/fs/cgroup{group}/memory.max"))
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    // The line of the unified hierarchy; a limit of any group above counts as well.
    let own = read("/proc/self/cgroup")
        .and_then(|text| Some(text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned()));
    let own = own.unwrap_or_default();
    let mut groups = vec![own.trim_end_matches('/')];
    while let Some((above, _)) = groups.last().and_then(|group| group.rsplit_once('/')) {
        groups.push(above);
    }
    groups.into_iter().filter_map(of_group).chain(machine).min()
}

/// What is held of the budget, and whether clients may have more.
#[derive(Debug)]
pub struct Budget {
    budget_bytes: u64,
    /// Above it clients' writes are refused.
    high_bytes: u64,
    /// Until so little is held.
    low_bytes: u64,
    used_bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Budget {
    /// Of a node with these shares. Those of the face are minded there and count as taken here.
    #[must_use]
    pub fn new(budget_bytes: u64, shares: &Shares) -> Budget {
        let taken = shares.bodies_bytes + shares.pages_bytes + shares.tails_bytes;
        let high_bytes =
            (budget_bytes - budget_bytes / RESERVE_DIVISOR).saturating_sub(taken).max(1);
        Budget {
            budget_bytes,
            high_bytes,
            low_bytes: high_bytes.saturating_sub(budget_bytes / RECOVERED_DIVISOR),
            used_bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Takes note of what is held, and answers the sum.
    pub(crate) fn note(&self, memtables: u64, cache: u64, inflight: u64, windows: u64) -> u64 {
        let used = memtables + cache + inflight + windows;
        self.used_bytes.store(used, Ordering::Relaxed);
        let was_over = self.is_over.load(Ordering::Relaxed);
        let is_over = used > if was_over { self.low_bytes } else { self.high_bytes };
        self.is_over.store(is_over, Ordering::Relaxed);
        if is_over && !was_over {
            tracing::warn!(
                used_bytes = used,
                memtables,
                cache,
                inflight,
                windows,
                "the memory budget is used up: clients' writes are refused"
            );
        }
        if was_over && !is_over {
            tracing::info!(used_bytes = used, "there is memory again: clients' writes are taken");
        }
        used
    }

    /// When to look again.
    pub(crate) fn pause(&self) -> Duration {
        if self.used_bytes() > self.high_bytes / 2 { LOOK_EVERY_WHEN_NEAR } else { LOOK_EVERY }
    }

    /// Whether clients may have no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// What was held when it was last looked at.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The whole budget.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_every_budget_with_room_to_spare() {
        let mut budget = BUDGET_BYTES_MIN;
        while budget <= BUDGET_BYTES_MAX {
            let shares = Shares::of(budget);
            assert!(shares.total() <= budget / 100 * 85, "{budget}: {shares:?}");
            assert!(shares.memtable_bytes >= 1 << 20 && shares.bodies_bytes >= 16 << 20);
            budget *= 2;
        }
    }

    #[test]
    fn at_the_high_mark_it_is_still_open_and_below_the_low_one_again() {
        let shares = Shares::of(BUDGET_BYTES_MIN);
        let budget = Budget::new(BUDGET_BYTES_MIN, &shares);
        let over_at = |bytes| {
            budget.note(bytes, 0, 0, 0);
            budget.is_over()
        };
        assert!(!over_at(budget.high_bytes));
        assert!(over_at(budget.high_bytes + 1) && over_at(budget.low_bytes + 1));
        assert!(!over_at(budget.low_bytes) && !over_at(budget.high_bytes));
        assert_eq!(budget.note(1, 2, 3, 4), 10);
        assert_eq!(budget.used_bytes(), 10);
    }

    #[test]
    fn the_smallest_limit_of_machine_and_control_groups_counts() {
        let machine = ("/proc/meminfo", "MemTotal:       8388608 kB\nMemFree: 1 kB\n");
        let looks = |files: &[(&str, &str)]| {
            available(|path| {
                files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
            })
        };
        assert_eq!(looks(&[]), None);
        assert_eq!(looks(&[machine]), Some(8 << 30));
        let own = ("/proc/self/cgroup", "0::/a/b\n");
        let unlimited = ("/sys/fs/cgroup/a/b/memory.max", "max\n");
        let above = ("/sys/fs/cgroup/a/memory.max", "1073741824\n");
        assert_eq!(looks(&[machine, own, unlimited]), Some(8 << 30));
        assert_eq!(looks(&[machine, own, unlimited, above]), Some(1 << 30));
        // Inside a container the group is the root of what can be seen.
        let inside = [machine, ("/proc/self/cgroup", "0::/\n")];
        let root = ("/sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(looks(&[inside[0], inside[1], root]), Some(512 << 20));
        assert_eq!(chosen_of(Some(512 << 20)), BUDGET_BYTES_MIN);
        assert_eq!(chosen_of(Some(8 << 30)), 2 << 30);
        assert_eq!(chosen_of(Some(u64::MAX)), CHOSEN_BYTES_MAX);
        assert!(chosen_budget() >= BUDGET_BYTES_MIN);
    }
}
