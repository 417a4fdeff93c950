//! Cells as a table for people, or as JSON lines.

use std::io::Write;

use super::cells::Cell;
use crate::output::Out;

/// Prints the table's head, for people.
///
/// # Errors
/// When stdout is closed.
pub fn head(out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return Ok(());
    }
    let columns = [
        "workload",
        "conns",
        "bytes",
        "rate/s",
        "unit",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "against",
        "rate/s",
        "p50 µs",
        "ratio",
        "(min..max)",
        "syncs",
    ];
    row(&columns.map(str::to_owned))
}

/// Prints one cell.
///
/// # Errors
/// When stdout is closed.
pub fn cell(out: &Out, cell: &Cell) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(cell);
    }
    let (title, latency) = (&cell.title, &cell.latency);
    let none = || "–".to_owned();
    let against = cell.against.as_ref();
    let other = |show: fn(&super::cells::Against) -> String| against.map_or_else(none, show);
    row(&[
        title.workload.to_owned(),
        title.conns.to_string(),
        title.size_bytes.to_string(),
        format!("{:.0}", cell.rate),
        title.unit.to_owned(),
        latency.p50_us.to_string(),
        latency.p99_us.to_string(),
        latency.p999_us.to_string(),
        other(|other| other.against.to_owned()),
        other(|other| format!("{:.0}", other.against_rate)),
        other(|other| other.against_p50_us.to_string()),
        other(|other| format!("{:.3}", other.ratio)),
        other(|other| format!("({:.2}..{:.2})", other.ratio_min, other.ratio_max)),
        cell.syncs.map_or_else(none, |syncs| syncs.to_string()),
    ])?;
    let mut stdout = std::io::stdout().lock();
    if let Some(after) = cell.after_ack {
        let (p50, p99) = (after.after_ack_p50_us, after.after_ack_p99_us);
        writeln!(stdout, "  last delivery after the answer: p50 {p50} µs, p99 {p99} µs")?;
    }
    if let Some(delivered) = cell.delivered {
        writeln!(stdout, "  {delivered} events delivered to open tails")?;
    }
    if let Some(run) = &cell.sustained {
        writeln!(
            stdout,
            "  {:.0} s: slowest second {} (no. {}) of a median {}; device {:.2} × bodies; resident \
             {} → {} MiB, at most {}; {} flushes, {} compactions; longest wait {} ms",
            run.seconds,
            run.second_min,
            run.second_min_at,
            run.second_median,
            run.device_ratio,
            run.resident_early_kib / 1024,
            run.resident_late_kib / 1024,
            run.resident_max_kib / 1024,
            run.flushes,
            run.compactions,
            latency.max_us / 1_000
        )?;
    }
    Ok(())
}

fn row(texts: &[String; 14]) -> anyhow::Result<()> {
    const WIDTHS: [usize; 14] = [9, 6, 7, 10, 8, 8, 8, 9, 9, 10, 7, 7, 13, 7];
    let mut stdout = std::io::stdout().lock();
    for (text, width) in texts.iter().zip(WIDTHS) {
        write!(stdout, "{text:>width$} ")?;
    }
    writeln!(stdout)?;
    Ok(())
}
