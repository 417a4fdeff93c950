//! What a run is given, and what one seed chooses for itself.
//!
//! Every seed draws a plan of its own: which faults it has and how often. Runs that differ in
//! kind find more than runs that all have a little of everything.

use fastrand::Rng;

/// Longest time from the end of trouble until every group has taken a write, virtual
/// milliseconds. A restarted node may wait out one election time-out (1 s), lose some elections
/// to split votes, and apply what it missed.
pub const HEAL_WITHIN_MS: u64 = 10_000;
/// Longest time after that until all replicas have applied the same, virtual milliseconds.
pub const SETTLE_WITHIN_MS: u64 = 10_000;
/// The same where logs and memory keep little, so that rows of whole groups have to travel, two
/// at a time.
pub const CATCH_UP_WITHIN_MS: u64 = 60_000;
/// Trouble ends here at the latest, virtual milliseconds, whatever was done until then.
pub const TROUBLE_MS_MAX: u64 = 400_000;
/// One seed in this many runs all the groups of a real cluster.
pub const FULL_SIZE_EVERY: u64 = 50;
/// Groups of a real cluster.
pub const GROUPS_FULL: u16 = 256;
/// Most machines of a run, each with a vote in every group.
pub const MACHINES_MAX: usize = 5;

/// What a run is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// Least operations of clients before trouble ends. Default 2,000.
    pub operations_min: u64,
    /// Least virtual time of trouble, milliseconds. Default 60,000.
    pub trouble_ms_min: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { operations_min: 2_000, trouble_ms_min: 60_000 }
    }
}

/// What one seed has chosen. Chances are out of a million; means are virtual milliseconds, and
/// 0 leaves the fault out.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Machines, each with a vote in every group: three, four or five.
    pub(crate) machines: usize,
    pub(crate) groups: u16,
    pub(crate) clients: usize,
    pub(crate) tails: usize,
    /// A client's mean pause between two operations.
    pub(crate) think_ms: u64,
    pub(crate) payload_bytes_max: usize,
    pub(crate) power_cut_mean_ms: u64,
    pub(crate) kill_mean_ms: u64,
    /// All machines lose power at once.
    pub(crate) blackout_mean_ms: u64,
    pub(crate) crash_in_turn_ppm: u32,
    pub(crate) down_ms_max: u64,
    pub(crate) sync_error_mean_ms: u64,
    pub(crate) disk_full_mean_ms: u64,
    pub(crate) sync_us_max: u64,
    pub(crate) slow_sync_ppm: u32,
    pub(crate) split_mean_ms: u64,
    pub(crate) split_ms_max: u64,
    pub(crate) loss_ppm: u32,
    pub(crate) repeat_ppm: u32,
    pub(crate) delay_us_max: u64,
    pub(crate) late_ppm: u32,
    pub(crate) stall_mean_ms: u64,
    pub(crate) wall_jump_mean_ms: u64,
    pub(crate) hand_over_mean_ms: u64,
    /// Wall clocks of machines start here; far from zero or near it.
    pub(crate) wall_start_ms: u64,
    pub(crate) memtable_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) keep_bytes: u64,
    pub(crate) flush_us_max: u64,
    pub(crate) beside_us_max: u64,
    pub(crate) turn_items_max: usize,
    /// Chance in a million that rows are loaded before an entry is proposed, as the shipped service
    /// does; it is a hint, and nothing may depend on it.
    pub(crate) prefetch_ppm: u32,
    pub(crate) little: Option<Little>,
    /// A disk is lost.
    pub(crate) lose_mean_ms: u64,
    /// A disk is slow for a while.
    pub(crate) slow_disk_mean_ms: u64,
    /// A row rots on one machine.
    pub(crate) rot_mean_ms: u64,
    /// The log of one machine rots while that is down.
    pub(crate) log_rot_mean_ms: u64,
    /// A wall clock goes a day forward where it matters, and back. Machines compare their clocks.
    pub(crate) clock_day_mean_ms: u64,
}

/// What a seed has chosen in which machines keep little for one that is away: each lets its log
/// go by itself, and rows of whole groups travel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Little {
    /// Applied entries kept in memory, all groups together.
    pub(crate) entry_cache_bytes: usize,
    pub(crate) chunk_bytes: usize,
    /// A machine goes away for long.
    pub(crate) away_mean_ms: u64,
    pub(crate) away_ms_max: u64,
    /// A machine that is taking rows goes down.
    pub(crate) kill_taking_mean_ms: u64,
    pub(crate) damage_ppm: u32,
}

impl Little {
    /// Drawn apart, so that what older seeds chose stays as it was.
    fn new(seed: u64) -> Little {
        let mut rng = Rng::with_seed(seed ^ 0x5eed_0f11_77e0_0001);
        Little {
            entry_cache_bytes: rng.usize(4..=64) * 1024,
            chunk_bytes: rng.usize(1..=16) * 512,
            away_mean_ms: rng.u64(6_000..=20_000),
            away_ms_max: rng.u64(6_000..=20_000),
            kill_taking_mean_ms: rng.u64(300..=4_000),
            damage_ppm: if rng.bool() { rng.u32(1_000..50_000) } else { 0 },
        }
    }
}

impl Plan {
    pub(crate) fn new(seed: u64, rng: &mut Rng) -> Plan {
        let full = seed % FULL_SIZE_EVERY == FULL_SIZE_EVERY - 1;
        let mut often = |chance: f64, from: u64, to: u64| {
            let drawn = rng.u64(from..=to);
            if rng.f64() < chance { drawn } else { 0 }
        };
        let power_cut_mean_ms = often(0.8, 3_000, 20_000);
        let kill_mean_ms = often(0.6, 4_000, 30_000);
        let blackout_mean_ms = often(0.5, 8_000, 40_000);
        let sync_error_mean_ms = often(0.4, 10_000, 40_000);
        let disk_full_mean_ms = often(0.4, 3_000, 20_000);
        let split_mean_ms = often(0.7, 3_000, 20_000);
        let stall_mean_ms = often(0.4, 5_000, 30_000);
        let wall_jump_mean_ms = often(0.7, 3_000, 20_000);
        let hand_over_mean_ms = often(0.6, 2_000, 20_000);
        let crash_in_turn_ppm = often(0.5, 20, 300) as u32;
        let slow_sync_ppm = often(0.6, 1_000, 50_000) as u32;
        let loss_ppm = often(0.6, 100, 50_000) as u32;
        let repeat_ppm = often(0.5, 100, 50_000) as u32;
        let late_ppm = often(0.5, 100, 50_000) as u32;
        let clients = rng.usize(12..=32);
        // So that the operations asked for take about as long as the time asked for.
        let operations_per_s = rng.u64(40..=60);
        Plan {
            machines: if full { 3 } else { machines(seed) },
            groups: if full { GROUPS_FULL } else { rng.u16(2..=8) },
            clients,
            tails: rng.usize(3..=8),
            think_ms: clients as u64 * 1_000 / operations_per_s,
            payload_bytes_max: if rng.bool() { 200 } else { 2_000 },
            power_cut_mean_ms,
            kill_mean_ms,
            blackout_mean_ms,
            crash_in_turn_ppm,
            down_ms_max: rng.u64(200..=4_000),
            sync_error_mean_ms,
            disk_full_mean_ms,
            sync_us_max: rng.u64(200..=8_000),
            slow_sync_ppm,
            split_mean_ms,
            split_ms_max: rng.u64(500..=6_000),
            loss_ppm,
            repeat_ppm,
            delay_us_max: rng.u64(200..=10_000),
            late_ppm,
            stall_mean_ms,
            wall_jump_mean_ms,
            hand_over_mean_ms,
            wall_start_ms: if rng.bool() { 1_750_000_000_000 } else { 20_000 },
            memtable_bytes: rng.usize(16..=64) * 1024,
            cache_bytes: [32, 128, 1_024, 8_192][rng.usize(0..4)] * 1024,
            segment_bytes: [64, 96, 128, 256][rng.usize(0..4)] * 1024,
            keep_bytes: if rng.bool() { 0 } else { 64 * 1024 },
            flush_us_max: rng.u64(2_000..=300_000),
            beside_us_max: rng.u64(200..=20_000),
            turn_items_max: if rng.bool() { 4_096 } else { rng.usize(1..=64) },
            prefetch_ppm: [0, 500_000, 1_000_000][rng.usize(0..3)],
            // Logs that are let go early have segments to use again when a disk is full: what
            // that does is for the other seeds to find.
            little: (!full && disk_full_mean_ms == 0 && matches!(seed % 5, 1 | 3 | 4))
                .then(|| Little::new(seed)),
            // Drawn apart, as above.
            lose_mean_ms: if !full && seed % 3 == 1 {
                Rng::with_seed(seed ^ 0x5eed_0f11_77e0_0002).u64(3_000..=15_000)
            } else {
                0
            },
            slow_disk_mean_ms: apart(seed, 3, seed % 4 == 1, 4_000..=15_000),
            rot_mean_ms: apart(seed, 4, !full && seed % 4 == 2, 3_000..=15_000),
            log_rot_mean_ms: apart(seed, 6, !full && matches!(seed % 8, 0 | 5), 3_000..=15_000),
            clock_day_mean_ms: apart(seed, 5, seed % 4 == 3, 2_000..=10_000),
        }
    }
}

/// The mean of a fault that some seeds have, drawn apart as above; 0 in the others.
fn apart(seed: u64, which: u64, has_it: bool, mean_ms: std::ops::RangeInclusive<u64>) -> u64 {
    if has_it { Rng::with_seed(seed ^ (0x5eed_0f11_77e0_0000 + which)).u64(mean_ms) } else { 0 }
}

/// How many machines a seed has: three, as most clusters do, for five seeds of eight; five for two
/// of eight; and four for one, where half is not enough.
fn machines(seed: u64) -> usize {
    match seed % 8 {
        1 | 5 => MACHINES_MAX,
        2 => 4,
        _ => 3,
    }
}
