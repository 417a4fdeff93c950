//! What the log costs over the bare system calls: jobs of 150 KiB, each written and synced,
//! beside `pwrite` and `fdatasync` on a file of zeros. The two take turns, so that a noisy
//! disk hits both. Usage: `append_sync DIR`.
#![allow(clippy::print_stdout, reason = "a measurement is for reading")]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tl_types::{GroupId, Index, Term};
use tl_wal::{Record, StdDisk, Wal, WalOptions};

const RECORDS: u64 = 140;
const DATA_BYTES: usize = 1_080;
const ROUNDS: u64 = 2_000;
const RAW_BYTES: u64 = 32 * 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("name a directory")?);
    let begun = Instant::now();
    let disk = Arc::new(StdDisk::create(dir.join("log"))?);
    let (mut wal, _) = Wal::open(disk, WalOptions::default(), &mut |_, _| {})?;
    println!("first open {:?}", begun.elapsed());

    let raw = File::create(dir.join("raw"))?;
    raw.write_all_at(&vec![0; RAW_BYTES as usize], 0)?;
    raw.sync_all()?;
    let job_bytes = RECORDS as usize * (DATA_BYTES + 56);
    let bytes = vec![7; job_bytes];
    let data = Bytes::from(vec![7; DATA_BYTES]);
    let preparer = wal.preparer();

    let (mut raw_took, mut wal_took, mut append_took) = (Vec::new(), Vec::new(), Vec::new());
    let mut raw_at = 0;
    for round in 0..ROUNDS {
        // Beside the measurement: this asks what a job costs when a spare is ready.
        while preparer.work(&mut |_| {})? {}
        let from = Instant::now();
        raw.write_all_at(&bytes, raw_at)?;
        raw.sync_data()?;
        raw_took.push(from.elapsed());
        raw_at = (raw_at + job_bytes as u64) % (RAW_BYTES - job_bytes as u64);

        let job: Vec<Record> = (0..RECORDS)
            .map(|at| Record::Entry {
                group: GroupId((at % 64) as u16),
                term: Term(1),
                index: Index(round * RECORDS + at + 1),
                data: data.clone(),
            })
            .collect();
        let from = Instant::now();
        wal.append(&job)?;
        append_took.push(from.elapsed());
        wal.sync()?;
        wal_took.push(from.elapsed());
        let all = (0..64).map(|group| (GroupId(group), Index(u64::MAX))).collect();
        wal.release(&all, 64 * 1024 * 1024);
    }
    show("raw pwrite + fdatasync", &mut raw_took);
    show("log append + sync", &mut wal_took);
    show("  of that append", &mut append_took);
    println!("{:?}", wal.counts());
    drop(wal);

    let begun = Instant::now();
    let disk = Arc::new(StdDisk::create(dir.join("log"))?);
    let (_, opened) = Wal::open(disk, WalOptions::default(), &mut |_, _| {})?;
    println!("replay of {} bytes {:?}", opened.end.0 - opened.first.0, begun.elapsed());
    Ok(())
}

fn show(what: &str, took: &mut [Duration]) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let mean = took.iter().sum::<Duration>() / took.len() as u32;
    println!("{what}: mean {mean:?} p50 {:?} p90 {:?} p99 {:?}", at(0.5), at(0.9), at(0.99));
}
