//! The figures that `tl bench` prints, read by the chores that judge them.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::command::Call;
use crate::tree;

/// What a judge needs of a cell.
#[derive(Debug, Clone, Deserialize)]
pub struct Cell {
    /// Connections; readers where one writer serves many.
    pub conns: u64,
    /// Units per second.
    pub rate: f64,
    /// Latencies, microseconds.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// The other side.
    #[serde(flatten)]
    against: Option<Against>,
    /// From a write's answer to its last delivery.
    pub after_ack_p50_us: Option<f64>,
    /// A run without a break.
    #[serde(flatten)]
    sustained: Option<Sustained>,
}

/// The other side of a cell.
#[derive(Debug, Clone, Deserialize)]
pub struct Against {
    /// Units per second.
    pub against_rate: f64,
    pub against_p50_us: f64,
    pub against_p99_us: f64,
    /// Rate by rate.
    pub ratio: f64,
}

/// A run without a break.
#[derive(Debug, Clone, Deserialize)]
pub struct Sustained {
    pub seconds: f64,
    pub second_min: f64,
    pub second_median: f64,
    pub device_ratio: f64,
    pub resident_early_kib: f64,
    pub resident_late_kib: f64,
    pub resident_max_kib: f64,
    pub flushes: u64,
    pub compactions: u64,
}

impl Cell {
    /// The other side, which must be there.
    pub fn against(&self) -> Result<&Against> {
        self.against.as_ref().context("the cell has no other side")
    }

    /// The figures of a run without a break, which it must have been.
    pub fn sustained(&self) -> Result<&Sustained> {
        self.sustained.as_ref().context("the cell is of slices")
    }
}

/// Runs `tl bench` with these words; answers what its lines say.
pub fn bench<T: DeserializeOwned>(words: &[&str]) -> Result<Vec<T>> {
    let printed = Call::new(tree::built_tl()?).args(["bench"]).args(words).args(["--json"]);
    lines(&printed.output()?)
}

/// The same for a workload that prints one line.
pub fn bench_one<T: DeserializeOwned>(words: &[&str]) -> Result<T> {
    let mut lines = bench(words)?;
    ensure!(lines.len() == 1, "tl bench {} printed {} lines", words.join(" "), lines.len());
    lines.pop().context("no line")
}

fn lines<T: DeserializeOwned>(printed: &str) -> Result<Vec<T>> {
    printed
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a figure is {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICES: &str = r#"{"workload":"append","unit":"events","conns":1,"size_bytes":1024,
        "rate":2.5,"p50_us":3,"p99_us":4,"p999_us":5,"max_us":6"#;

    fn cell(more: &str) -> Cell {
        lines(&format!("{SLICES}{more}}}").replace('\n', "")).unwrap().pop().unwrap()
    }

    #[test]
    fn a_cell_may_have_another_side_and_a_run_without_a_break() {
        assert!(cell("").against().is_err() && cell("").sustained().is_err());
        let other = r#","against":"ceiling","against_rate":5.0,"against_p50_us":1,
            "against_p99_us":2,"ratio":0.5,"ratio_min":0.4,"ratio_max":0.6"#;
        assert!((cell(other).against().unwrap().ratio - 0.5).abs() < f64::EPSILON);
        let run = r#","seconds":60.0,"second_min":1,"second_median":2,"second_min_at":7,
            "body_bytes":3,"device_bytes":6,"device_ratio":2.0,"resident_early_kib":1,
            "resident_late_kib":2,"resident_max_kib":3,"flushes":4,"compactions":5"#;
        assert_eq!(cell(run).sustained().unwrap().flushes, 4);
        assert!(lines::<Cell>("not a figure").is_err());
    }
}
