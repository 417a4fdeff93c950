//! How hard the machine or the pod's control group works, as the kernel tells it.

use std::fs;
use std::path::{Path, PathBuf};

use tl_core::fleet::Pressure;

/// Where the files of this process's control group are.
#[derive(Debug)]
pub(super) struct Meter {
    group: PathBuf,
}

impl Meter {
    /// The control group of this process; what cannot be found shows no pressure.
    pub(super) fn new() -> Meter {
        let line = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = line.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
        Meter { group: Path::new("/sys/fs/cgroup").join(path) }
    }

    /// Reads it anew.
    pub(super) fn read(&self) -> Pressure {
        let text = |name: &str| fs::read_to_string(self.group.join(name)).ok();
        let cpu = text("cpu.pressure").or_else(|| fs::read_to_string("/proc/pressure/cpu").ok());
        let memory = match (text("memory.current"), text("memory.max")) {
            (Some(current), Some(max)) => ratio(&current, &max),
            _ => 0.0,
        };
        Pressure { cpu_ratio: cpu.as_deref().map_or(0.0, some_avg10), memory_ratio: memory }
    }
}

/// A limit that is `max`, or unreadable, is none.
fn ratio(current: &str, max: &str) -> f64 {
    match (current.trim().parse::<f64>(), max.trim().parse::<f64>()) {
        (Ok(current), Ok(max)) if max > 0.0 => current / max,
        _ => 0.0,
    }
}

/// From `some avg10=12.34 avg60=…`: the share of the last ten seconds in which something
/// waited.
fn some_avg10(text: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix("some avg10="));
    let percent = line.and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    percent.unwrap_or(0.0) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let text = "some avg10=62.50 avg60=1.00 avg300=0.10 total=123\nfull avg10=0.00 total=0\n";
        assert!((some_avg10(text) - 0.625).abs() < 1e-9);
        assert!((ratio("50\n", "200\n") - 0.25).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_read_is_no_pressure() {
        for text in ["", "some", "some avg10=", "some avg10=x y"] {
            assert!(some_avg10(text).abs() < 1e-9, "{text:?}");
        }
        assert!(ratio("50", "max").abs() < 1e-9);
        assert!(ratio("", "0").abs() < 1e-9);
        let read = Meter::new().read();
        assert!(read.cpu_ratio >= 0.0 && read.memory_ratio >= 0.0);
    }
}
