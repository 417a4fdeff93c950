//! Cells: alternating slices of a workload and its ceiling, and the figures drawn from them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{Load, Slice};

/// The figures of one cell; one JSON line each.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// What ran.
    pub workload: &'static str,
    /// Connections.
    pub conns: u16,
    /// Bytes of a request's body.
    pub size_bytes: u32,
    /// Median answers per second.
    pub rate: f64,
    /// Latency over all repetitions, microseconds.
    pub p50_us: u64,
    /// Latency over all repetitions, microseconds.
    pub p99_us: u64,
    /// Median answers per second of the ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_rate: Option<f64>,
    /// Latency of the ceiling, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_p50_us: Option<u64>,
    /// Median of the repetitions' ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Least ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_min: Option<f64>,
    /// Greatest ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_max: Option<f64>,
    /// Syncs of the log during the workload's slices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs: Option<u64>,
}

/// Slices of one side.
struct Side {
    rates: Vec<f64>,
    latency_us: Histogram<u64>,
}

impl Side {
    fn new() -> anyhow::Result<Side> {
        Ok(Side { rates: Vec::new(), latency_us: Histogram::new_with_bounds(1, 60_000_000, 3)? })
    }

    fn take(&mut self, slice: &Slice) -> anyhow::Result<()> {
        self.rates.push(slice.rate());
        self.latency_us.add(&slice.latency_us)?;
        Ok(())
    }
}

/// What a cell is about.
#[derive(Debug, Clone, Copy)]
pub struct Title {
    /// What runs.
    pub workload: &'static str,
    /// Connections.
    pub conns: u16,
    /// Bytes of a request's body.
    pub size_bytes: u32,
}

/// One unmeasured slice: connections, caches and prepared segments settle.
///
/// # Errors
/// What the load met.
pub fn settle(load: &mut Load) -> anyhow::Result<()> {
    load.slice(Duration::from_millis(300)).map(drop)
}

/// Measures one cell: `repetitions` slices of the workload, alternating with the ceiling when
/// there is one, the order swapped each time.
///
/// # Errors
/// What the load met.
pub fn measure(
    title: Title,
    workload: &mut Load,
    mut ceiling: Option<&mut Load>,
    repetitions: u16,
    length: Duration,
) -> anyhow::Result<Cell> {
    let (mut ours, mut theirs) = (Side::new()?, Side::new()?);
    for repetition in 0..repetitions {
        for workload_turn in [repetition % 2 == 0, repetition % 2 != 0] {
            if workload_turn {
                ours.take(&workload.slice(length)?)?;
            } else if let Some(ceiling) = ceiling.as_deref_mut() {
                theirs.take(&ceiling.slice(length)?)?;
            }
        }
    }
    let mut ratios: Vec<f64> =
        ours.rates.iter().zip(&theirs.rates).map(|(ours, theirs)| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    let compared = !ratios.is_empty();
    Ok(Cell {
        workload: title.workload,
        conns: title.conns,
        size_bytes: title.size_bytes,
        rate: median(&ours.rates).round(),
        p50_us: ours.latency_us.value_at_quantile(0.5),
        p99_us: ours.latency_us.value_at_quantile(0.99),
        ceiling_rate: compared.then(|| median(&theirs.rates).round()),
        ceiling_p50_us: compared.then(|| theirs.latency_us.value_at_quantile(0.5)),
        ratio: compared.then(|| rounded(median(&ratios))),
        ratio_min: ratios.first().copied().map(rounded),
        ratio_max: ratios.last().copied().map(rounded),
        syncs: None,
    })
}

fn rounded(ratio: f64) -> f64 {
    (ratio * 1_000.0).round() / 1_000.0
}

/// The middle value; of an even number of values the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }
}
