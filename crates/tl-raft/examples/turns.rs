//! How long a turn takes per entry: groups of one voter, a log that is always done at once.
//!
//! `cargo run --release -p tl-raft --example turns`

use std::io::Write;
use std::time::Instant;

use bytes::Bytes;
use tl_raft::{Deeds, Driver, DriverConfig, Inbound, Now, PeerId, RecoveredGroup, Token};
use tl_types::GroupId;

const GROUPS: u16 = 256;
const ENTRIES: u64 = 2_000_000;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for per_turn in [1, 16, 256, 2_048] {
        let ns = per_entry_ns(per_turn);
        writeln!(out, "{GROUPS} groups, {per_turn} entries of 1 KiB a turn: {ns:.0} ns per entry")?;
    }
    let mut driver = driver();
    let mut deeds = settle(&mut driver, 0);
    let started = Instant::now();
    let turns = 1_000_000;
    for turn in 0..turns {
        deeds = driver.turn(Now { boot_ms: turn }, []);
    }
    let ns = started.elapsed().as_nanos() as f64 / turns as f64;
    writeln!(out, "{GROUPS} groups, idle turn: {ns:.0} ns (more: {})", deeds.more)
}

fn driver() -> Driver {
    let groups = (0..GROUPS).map(|group| RecoveredGroup::new(GroupId(group), vec![PeerId(1)]));
    Driver::new(DriverConfig::new(PeerId(1), 1), groups.collect())
}

/// What a node answers to a turn's deeds when its disk and its store take no time.
fn answers(deeds: &Deeds) -> Vec<Inbound> {
    let done = deeds.log.iter().map(|job| Inbound::LogDone { job: job.id });
    let applied = deeds.apply.iter().filter_map(|batch| {
        let index = batch.entries.last()?.index;
        Some(Inbound::Applied { group: batch.group, index })
    });
    done.chain(applied).collect()
}

fn settle(driver: &mut Driver, boot_ms: u64) -> Deeds {
    let mut deeds = driver.turn(Now { boot_ms }, []);
    while deeds.log.is_some() || !deeds.apply.is_empty() {
        let inbox = answers(&deeds);
        deeds = driver.turn(Now { boot_ms }, inbox);
    }
    deeds
}

fn per_entry_ns(per_turn: u64) -> f64 {
    let mut driver = driver();
    settle(&mut driver, 0);
    let data = Bytes::from(vec![7; 1024]);
    let turns = ENTRIES / per_turn / if per_turn == 1 { 4 } else { 1 };
    let mut inbox: Vec<Inbound> = Vec::new();
    let mut committed = 0;
    let mut token = 0;
    let started = Instant::now();
    for turn in 0..turns {
        for _ in 0..per_turn {
            token += 1;
            let group = GroupId((token % u64::from(GROUPS)) as u16);
            inbox.push(Inbound::Propose { group, token: Token(token), data: data.clone() });
        }
        let deeds = driver.turn(Now { boot_ms: turn }, inbox.drain(..));
        committed += deeds.apply.iter().map(|batch| batch.entries.len() as u64).sum::<u64>();
        inbox.extend(answers(&deeds));
    }
    let spent = started.elapsed();
    assert!(
        committed + per_turn >= turns * per_turn,
        "all but the last turn's entries are committed"
    );
    spent.as_nanos() as f64 / committed as f64
}
