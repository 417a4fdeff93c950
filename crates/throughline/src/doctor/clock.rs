//! The computer's clocks: is the wall clock set, does it run evenly, was it set back behind the
//! data, and what does a look at it cost.
//!
//! Times of events come from the wall clock by way of a clock that nobody sets. A wall clock
//! that is wrong gives events wrong times; one that is slow to read costs every request.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tl_types::UnixMs;

use super::{Finding, Status};

/// A clock before this is not set: 2025-01-01.
const PLAUSIBLE_MS: u64 = 1_735_689_600_000;
/// How long the wall clock is watched.
const WATCHED: Duration = Duration::from_millis(100);
/// How far the wall clock may part from the steady one meanwhile.
const APART_MAX: Duration = Duration::from_millis(5);
/// Data may be younger than the clock says by so much; file systems are coarse.
const AHEAD_MAX: Duration = Duration::from_secs(2);
/// Looks at the clock that are timed.
const LOOKS: u32 = 10_000;
/// A look that takes longer is a call into the kernel, or worse.
const LOOK_SLOW: Duration = Duration::from_nanos(400);
/// Where Linux says which clock it reads.
const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Its findings.
pub const CHECKS: [&str; 2] = ["clock", "clock reading"];

/// Everything about the clocks.
pub fn look(data: &Path) -> Vec<Finding> {
    vec![wall(data), reading()]
}

fn wall(data: &Path) -> Finding {
    let (wall, steady) = (SystemTime::now(), Instant::now());
    std::thread::sleep(WATCHED);
    let steps = apart(SystemTime::now().duration_since(wall), steady.elapsed());
    judge_wall(SystemTime::now(), steps, youngest(&data.join("log")))
}

/// How far the wall clock went astray while the steady one went on.
fn apart(wall: Result<Duration, std::time::SystemTimeError>, steady: Duration) -> Duration {
    wall.map_or_else(|back| back.duration() + steady, |wall| wall.abs_diff(steady))
}

/// When anything in a folder was last written.
fn youngest(folder: &Path) -> Option<SystemTime> {
    let files = std::fs::read_dir(folder).ok()?;
    files.filter_map(|file| file.ok()?.metadata().ok()?.modified().ok()).max()
}

fn judge_wall(now: SystemTime, apart: Duration, written: Option<SystemTime>) -> Finding {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let shown = UnixMs(since.as_millis() as u64);
    let set_it = "let a time service set it, such as chrony or systemd-timesyncd";
    if shown.0 < PLAUSIBLE_MS {
        let detail = format!("says {shown}: it is not set; times of events would be wrong");
        return Finding::new("clock", Status::Bad, detail).remedy(set_it);
    }
    let ahead = written.and_then(|written| written.duration_since(now).ok()).unwrap_or_default();
    if ahead > AHEAD_MAX {
        let detail = format!(
            "says {shown}, but the log was last written {} s later: it was set back, and times of \
             events stand still until it has caught up",
            ahead.as_secs()
        );
        return Finding::new("clock", Status::Warn, detail).remedy(set_it);
    }
    if apart > APART_MAX {
        let detail =
            format!("says {shown}, and jumped by {} ms while it was watched", apart.as_millis());
        let remedy = "find what sets it in steps; a time service should only bend its speed";
        return Finding::new("clock", Status::Warn, detail).remedy(remedy);
    }
    Finding::new("clock", Status::Ok, format!("says {shown}, and runs evenly"))
}

fn reading() -> Finding {
    let started = Instant::now();
    for _ in 0..LOOKS {
        std::hint::black_box(Instant::now());
    }
    let source = std::fs::read_to_string(SOURCE).unwrap_or_default();
    judge_reading(started.elapsed() / LOOKS, source.trim())
}

fn judge_reading(look: Duration, source: &str) -> Finding {
    let source = if source.is_empty() { String::new() } else { format!(" from {source}") };
    let detail = format!("a look at it takes {} ns{source}", look.as_nanos());
    if look <= LOOK_SLOW {
        return Finding::new("clock reading", Status::Ok, detail);
    }
    let detail = format!("{detail}: every request pays for several");
    Finding::new("clock reading", Status::Warn, detail).remedy(
        "on Linux, see whether available_clocksource beside current_clocksource offers tsc or \
         kvm-clock, and choose it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_is_judged_by_itself_by_its_pace_and_by_the_data() {
        let now = UNIX_EPOCH + Duration::from_millis(PLAUSIBLE_MS);
        let second = Duration::from_secs(1);
        let judged = |now, apart, written| {
            let finding = judge_wall(now, apart, written);
            assert_eq!(finding.status != Status::Ok, finding.remedy.is_some());
            finding.status
        };
        assert_eq!(judged(now, APART_MAX, None), Status::Ok);
        assert_eq!(judged(now - second, APART_MAX, None), Status::Bad);
        assert_eq!(judged(now, APART_MAX * 2, None), Status::Warn);
        assert_eq!(judged(now, APART_MAX, Some(now + AHEAD_MAX)), Status::Ok);
        assert_eq!(judged(now, APART_MAX, Some(now + AHEAD_MAX + second)), Status::Warn);
    }

    #[test]
    fn the_cost_of_a_look_is_judged_and_names_its_source() {
        assert_eq!(judge_reading(LOOK_SLOW, "tsc").status, Status::Ok);
        let slow = judge_reading(LOOK_SLOW * 5, "hpet");
        assert!(slow.status == Status::Warn && slow.detail.contains("2000 ns from hpet"));
        assert!(slow.remedy.is_some());
    }

    #[test]
    fn a_step_is_seen_in_either_direction() {
        let earlier = UNIX_EPOCH + Duration::from_secs(10);
        let steady = Duration::from_millis(100);
        let forward = (earlier + Duration::from_secs(1)).duration_since(earlier);
        assert_eq!(apart(forward, steady), Duration::from_millis(900));
        let back = (earlier - Duration::from_secs(1)).duration_since(earlier);
        assert_eq!(apart(back, steady), Duration::from_millis(1_100));
    }
}
