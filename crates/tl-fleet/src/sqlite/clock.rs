//! The clock of a store that is a file on one machine.
//!
//! Deadlines are counted since the machine started, asleep or awake: that clock cannot be set,
//! so no change of the calendar shortens or lengthens a lease. It starts anew with the machine;
//! the number of the start, the *boot id*, tells whether deadlines in the file mean anything.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tl_types::UnixMs;

use crate::time::StoreTime;

/// What a store looks at for the time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clocks.
    #[default]
    Machine,
    /// Hands that are moved by whoever holds them; for tests.
    Manual(ManualClock),
}

impl Clock {
    /// Now, since the machine's start and by the calendar.
    pub(super) fn now(&self) -> (StoreTime, UnixMs) {
        match self {
            Clock::Machine => (machine_time(), calendar()),
            Clock::Manual(clock) => {
                let hands = clock.0.lock();
                (StoreTime(hands.at_ms), UnixMs(hands.wall_ms))
            }
        }
    }

    /// Names this start of the machine.
    pub(super) fn boot_id(&self) -> std::io::Result<String> {
        match self {
            Clock::Machine => machine_boot_id(),
            Clock::Manual(clock) => Ok(clock.0.lock().boot_id.clone()),
        }
    }
}

#[derive(Debug)]
struct Hands {
    at_ms: u64,
    wall_ms: u64,
    boot_id: String,
}

/// A clock that stands still until it is moved. Clones share their hands.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Hands>>);

impl Default for ManualClock {
    fn default() -> ManualClock {
        let hands =
            Hands { at_ms: 1_000_000, wall_ms: 1_700_000_000_000, boot_id: "boot-1".to_owned() };
        ManualClock(Arc::new(Mutex::new(hands)))
    }
}

impl ManualClock {
    /// Lets time pass on both hands.
    pub fn advance(&self, ms: u64) {
        let mut hands = self.0.lock();
        hands.at_ms += ms;
        hands.wall_ms += ms;
    }

    /// Sets the calendar alone, as an operator or a time server may.
    pub fn set_wall(&self, wall: UnixMs) {
        self.0.lock().wall_ms = wall.0;
    }

    /// Starts the machine anew: the first hand goes back to `at_ms`, under another boot id.
    pub fn restart_machine(&self, at_ms: u64) {
        let mut hands = self.0.lock();
        hands.at_ms = at_ms;
        hands.boot_id.push('\'');
    }
}

fn calendar() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(target_os = "linux")]
fn machine_time() -> StoreTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    StoreTime(now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000)
}

#[cfg(target_os = "linux")]
fn machine_boot_id() -> std::io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Elsewhere the monotonic clock may stand still while the machine sleeps: leases then last
/// longer, which is safe.
#[cfg(not(target_os = "linux"))]
fn machine_time() -> StoreTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    StoreTime(now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn machine_boot_id() -> std::io::Result<String> {
    let output =
        std::process::Command::new("sysctl").args(["-n", "kern.bootsessionuuid"]).output()?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if id.is_empty() {
        return Err(std::io::Error::other("the system does not name its boot session"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_goes_on_and_its_start_has_a_name() {
        let (one, wall) = Clock::Machine.now();
        let (two, _) = Clock::Machine.now();
        assert!(two >= one);
        assert!(wall.0 > 1_600_000_000_000);
        assert_eq!(Clock::Machine.boot_id().unwrap(), Clock::Machine.boot_id().unwrap());
        assert!(!Clock::Machine.boot_id().unwrap().is_empty());
    }
}
