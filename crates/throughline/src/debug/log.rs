//! `tl debug log`

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tl_types::GroupId;
use tl_wal::StdDisk;
use tl_wal::inspect::{Facts, HeadInfo, RecordInfo, SegmentInfo, Status, records, segments};

use crate::failure::Failure;
use crate::output::{Out, count, table};

/// Arguments of `tl debug log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Data directory
    #[arg(long, value_name = "DIR", default_value = "./tl-data")]
    data: PathBuf,
    /// Every record, not only a summary
    #[arg(long)]
    records: bool,
    /// With --records: only those of this group
    #[arg(long, value_name = "GROUP", requires = "records")]
    group: Option<u16>,
}

/// What a segment holds.
#[derive(Default)]
struct Sums {
    records: u64,
    damaged: u64,
}

/// Prints the segments, or every record.
///
/// Damage before the end of a segment is a failed check. What follows the last intact record of
/// the last segment is the end of the log and no damage: opening the log judges it.
pub fn run(args: &LogArgs, out: &Out) -> anyhow::Result<()> {
    let dir = args.data.join("log");
    ensure!(dir.is_dir(), "there is no log in {}", args.data.display());
    let disk = StdDisk::read_only(&dir);
    let found = segments(&disk).with_context(|| format!("reading {}", dir.display()))?;
    let mut rows = Vec::new();
    let mut damaged = 0;
    for segment in &found {
        let mut sums = Sums::default();
        let of_segment =
            records(&disk, &segment.name).with_context(|| format!("reading {}", segment.name))?;
        for record in of_segment {
            match &record.status {
                Status::Intact(_) => sums.records += 1,
                Status::DamagedData(_) | Status::Unreadable { .. } => sums.damaged += 1,
                Status::End { .. } => {}
            }
            if args.records && belongs(&record, args.group) {
                show_record(segment, &record, out)?;
            }
        }
        if matches!(segment.head, HeadInfo::Unreadable { .. }) {
            sums.damaged += 1;
        }
        damaged += sums.damaged;
        if !args.records {
            show_segment(segment, &sums, out, &mut rows)?;
        }
    }
    if !args.records && !out.is_json() {
        let header = ["SEGMENT", "BYTES", "STATE", "FIRST POSITION", "RECORDS", "DAMAGED"];
        out.line(&table(&header, &rows))?;
    }
    match damaged {
        0 => Ok(()),
        places => {
            let these = if places == 1 { "1 place" } else { &format!("{places} places") };
            let what =
                format!("damaged: {these}; a start of the node tells whether it was confirmed");
            Err(Failure::Check(what).into())
        }
    }
}

fn belongs(record: &RecordInfo, group: Option<u16>) -> bool {
    let Some(group) = group else { return true };
    match &record.status {
        Status::Intact(facts) | Status::DamagedData(facts) => facts.group == GroupId(group),
        Status::Unreadable { .. } => true,
        Status::End { .. } => false,
    }
}

fn show_segment(
    segment: &SegmentInfo,
    sums: &Sums,
    out: &Out,
    rows: &mut Vec<Vec<String>>,
) -> anyhow::Result<()> {
    let (state, first) = match &segment.head {
        HeadInfo::Used { life, first, whole, .. } => {
            let half = if *whole { "" } else { ", one copy of its head is damaged" };
            (format!("life {life}{half}"), Some(first.0))
        }
        HeadInfo::Spare => ("spare".to_owned(), None),
        HeadInfo::Unfinished => ("being prepared".to_owned(), None),
        HeadInfo::Unsupported { version } => (format!("unknown version {version}"), None),
        HeadInfo::Unreadable { .. } => ("unreadable head".to_owned(), None),
    };
    if out.is_json() {
        return out.json(&json!({
            "segment": segment.name,
            "file_bytes": segment.file_bytes,
            "state": state,
            "first_position": first,
            "records": sums.records,
            "damaged": sums.damaged,
        }));
    }
    rows.push(vec![
        segment.name.clone(),
        count(segment.file_bytes),
        state,
        first.map_or("-".to_owned(), count),
        count(sums.records),
        count(sums.damaged),
    ]);
    Ok(())
}

fn show_record(segment: &SegmentInfo, record: &RecordInfo, out: &Out) -> anyhow::Result<()> {
    let mut value = json!({
        "segment": segment.name,
        "at_bytes": record.at_bytes,
        "position": record.position.0,
    });
    let text = match &record.status {
        Status::Intact(facts) => describe(facts, &mut value),
        Status::DamagedData(facts) => {
            value["damaged"] = true.into();
            format!("DAMAGED DATA of {}", describe(facts, &mut value))
        }
        Status::Unreadable { bytes } => {
            value["unreadable_bytes"] = (*bytes).into();
            format!("UNREADABLE {bytes} bytes")
        }
        Status::End { zeros } => {
            value["end"] = true.into();
            value["zeros"] = (*zeros).into();
            let rest = if *zeros { "zeros" } else { "something that is no record" };
            format!("end; {rest} behind it")
        }
    };
    let name = &segment.name;
    out.either(&value, &format!("{name} {:>10} {:>14}  {text}", record.at_bytes, record.position))
}

fn describe(facts: &Facts, value: &mut serde_json::Value) -> String {
    let kind = facts.kind.map_or("unknown kind".to_owned(), |kind| format!("{kind:?}"));
    value["kind"] = kind.clone().into();
    value["group"] = facts.group.0.into();
    value["term"] = facts.term.0.into();
    value["index"] = facts.index.0.into();
    value["data_bytes"] = facts.data_bytes.into();
    value["durable_before"] = facts.mark.0.into();
    value["repeated"] = facts.repeated.into();
    let Facts { group, term, index, data_bytes, mark, .. } = facts;
    let repeated = if facts.repeated { " (repeated state)" } else { "" };
    format!(
        "{kind} group {group} term {term} index {index}, {data_bytes} bytes, durable before: {mark}{repeated}"
    )
}
