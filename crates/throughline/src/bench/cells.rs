//! Cells: alternating slices of a workload and what it is held against, and the figures drawn
//! from them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart, microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Something that can be run for a while, again and again.
pub trait Side {
    /// Runs for `length`.
    ///
    /// # Errors
    /// A reply that is no success, a closed connection, or a silent server.
    fn slice(&mut self, length: Duration) -> anyhow::Result<Slice>;
}

/// What one slice measured.
#[derive(Debug)]
pub struct Slice {
    /// What was done, in the unit of the cell.
    pub units: u64,
    /// How long it really took.
    pub took: Duration,
    /// Latencies in microseconds.
    pub latency_us: Histogram<u64>,
    /// Latencies counted from an earlier or later moment than the first kind, where a workload
    /// has two.
    pub other_latency_us: Histogram<u64>,
    /// What was done in each second since the start.
    pub per_second: Vec<u64>,
}

impl Slice {
    /// Nothing yet.
    ///
    /// # Errors
    /// None with these bounds.
    pub fn new() -> anyhow::Result<Slice> {
        Ok(Slice {
            units: 0,
            took: Duration::ZERO,
            latency_us: histogram()?,
            other_latency_us: histogram()?,
            per_second: Vec::new(),
        })
    }

    /// Counts one answer that came `since` the start.
    pub fn record(&mut self, since: Duration, latency: Duration, units: u64) {
        self.units += units;
        self.latency_us.saturating_record((latency.as_micros() as u64).max(1));
        let second = since.as_secs() as usize;
        if second >= self.per_second.len() {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += units;
    }

    /// Units per second.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// An empty histogram of microseconds.
///
/// # Errors
/// None with these bounds.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

/// What a cell is about.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Title {
    /// What runs.
    pub workload: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Connections.
    pub conns: u32,
    /// Bytes of one unit as it is sent.
    pub size_bytes: u32,
}

/// How a cell is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Slices of each side.
    pub repetitions: u16,
    /// Length of each.
    pub length: Duration,
}

/// The figures of one cell; one JSON line each.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// What it is about.
    #[serde(flatten)]
    pub title: Title,
    /// Median units per second.
    pub rate: f64,
    /// Latencies over all repetitions.
    #[serde(flatten)]
    pub latency: Latency,
    /// The other side, where there was one.
    #[serde(flatten)]
    pub against: Option<Against>,
    /// Syncs of the log during the workload's slices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs: Option<u64>,
    /// Events that tails beside the workload were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered: Option<u64>,
    /// From an acknowledgement to the last delivery.
    #[serde(flatten)]
    pub after_ack: Option<AfterAck>,
    /// Figures of a run without a break.
    #[serde(flatten)]
    pub sustained: Option<super::sustained::Sustained>,
}

/// Latencies, microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Median.
    pub p50_us: u64,
    /// 99 of 100 are at most this.
    pub p99_us: u64,
    /// 999 of 1,000 are at most this.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Latency {
    /// Read off a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us: histogram.max() }
    }
}

/// The other side of a cell.
#[derive(Debug, Clone, Serialize)]
pub struct Against {
    /// What it is.
    pub against: &'static str,
    /// Its median units per second.
    pub against_rate: f64,
    /// Its latencies over all repetitions, microseconds.
    pub against_p50_us: u64,
    /// As above.
    pub against_p99_us: u64,
    /// Median of the repetitions' ratios of the rates.
    pub ratio: f64,
    /// Least ratio.
    pub ratio_min: f64,
    /// Greatest ratio.
    pub ratio_max: f64,
}

/// How long after a write's answer the last reader had its event, microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AfterAck {
    /// Median.
    pub after_ack_p50_us: u64,
    /// 99 of 100 are at most this.
    pub after_ack_p99_us: u64,
}

/// Slices of one side.
#[derive(Debug)]
pub struct Taken {
    rates: Vec<f64>,
    latency_us: Histogram<u64>,
    other_latency_us: Histogram<u64>,
}

impl Taken {
    /// None yet.
    ///
    /// # Errors
    /// None with these bounds.
    pub fn new() -> anyhow::Result<Taken> {
        let (latency_us, other_latency_us) = (histogram()?, histogram()?);
        Ok(Taken { rates: Vec::new(), latency_us, other_latency_us })
    }

    /// Lets the one slice's rate stand `times` times, to be held against as many slices.
    pub fn repeat_rate(&mut self, times: usize) {
        if let Some(rate) = self.rates.first().copied() {
            self.rates = vec![rate; times];
        }
    }

    /// Adds a slice.
    ///
    /// # Errors
    /// None: the histograms have the same bounds.
    pub fn take(&mut self, slice: &Slice) -> anyhow::Result<()> {
        self.rates.push(slice.rate());
        self.latency_us.add(&slice.latency_us)?;
        self.other_latency_us.add(&slice.other_latency_us)?;
        Ok(())
    }
}

/// One unmeasured slice: connections, caches and prepared segments settle.
///
/// # Errors
/// What the side met.
pub fn settle(side: &mut dyn Side) -> anyhow::Result<()> {
    side.slice(Duration::from_millis(300)).map(drop)
}

/// Measures one cell: slices of the workload, alternating with the other side when there is
/// one, the order swapped each time.
///
/// # Errors
/// What a side met.
pub fn measure(
    title: Title,
    plan: Plan,
    workload: &mut dyn Side,
    mut other: Option<(&'static str, &mut dyn Side)>,
) -> anyhow::Result<Cell> {
    let (mut ours, mut theirs) = (Taken::new()?, Taken::new()?);
    for repetition in 0..plan.repetitions {
        for workload_turn in [repetition % 2 == 0, repetition % 2 != 0] {
            if workload_turn {
                ours.take(&workload.slice(plan.length)?)?;
            } else if let Some((_, other)) = &mut other {
                theirs.take(&other.slice(plan.length)?)?;
            }
        }
    }
    Ok(cell(title, &ours, other.map(|(name, _)| (name, &theirs))))
}

/// The figures of two sides whose slices came in pairs, or of one alone.
pub fn cell(title: Title, ours: &Taken, theirs: Option<(&'static str, &Taken)>) -> Cell {
    let against = theirs.map(|(name, theirs)| {
        let mut ratios: Vec<f64> =
            ours.rates.iter().zip(&theirs.rates).map(|(ours, theirs)| ours / theirs).collect();
        ratios.sort_by(f64::total_cmp);
        Against {
            against: name,
            against_rate: median(&theirs.rates).round(),
            against_p50_us: theirs.latency_us.value_at_quantile(0.5),
            against_p99_us: theirs.latency_us.value_at_quantile(0.99),
            ratio: rounded(median(&ratios)),
            ratio_min: rounded(ratios.first().copied().unwrap_or_default()),
            ratio_max: rounded(ratios.last().copied().unwrap_or_default()),
        }
    });
    let after_ack = (!ours.other_latency_us.is_empty()).then(|| AfterAck {
        after_ack_p50_us: ours.other_latency_us.value_at_quantile(0.5),
        after_ack_p99_us: ours.other_latency_us.value_at_quantile(0.99),
    });
    Cell {
        title,
        rate: median(&ours.rates).round(),
        latency: Latency::of(&ours.latency_us),
        against,
        syncs: None,
        delivered: None,
        after_ack,
        sustained: None,
    }
}

/// To three digits behind the point.
pub fn rounded(ratio: f64) -> f64 {
    (ratio * 1_000.0).round() / 1_000.0
}

/// The middle value; of an even number of values the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
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

    #[test]
    fn answers_are_counted_in_their_second() {
        let mut slice = Slice::new().expect("bounds");
        for (at_ms, units) in [(0, 1), (999, 2), (2_500, 4)] {
            slice.record(Duration::from_millis(at_ms), Duration::from_micros(5), units);
        }
        assert_eq!((slice.units, slice.per_second), (7, vec![3, 0, 4]));
    }
}
