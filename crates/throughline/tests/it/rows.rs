//! Three processes, of which one was away for so long that it is given whole groups, killed with
//! -9 in the middle of that: whoever takes, whoever gives, and whoever writes a memtable out.
//!
//! When a blow falls is seen in the metrics of its victim, and that it hit in those of the others:
//! a transfer that is still open when its taker is dead, one that its taker lets go when its giver
//! is. Blows that came too late do not count.
//!
//! `TL_FAULTS_MINUTES` goes on until the time is over: `cargo xtask soak`.

pub mod watch;

use std::process::Child;
use std::time::{Duration, Instant};

use tl_client::Client;
use tl_client::verify::{Checker, Ledger, Reading, Via, read_all};
use tl_client::workload::WorkloadOptions;

use self::watch::Seen;
pub use self::watch::look;
use crate::members::{Cluster, NAMES};
use crate::ops::{Load, advance, settled};

/// Few groups, so that each has many rows.
const GROUPS: u16 = 4;
/// A member is away until it lacks so many groups.
const GROUPS_MISSED: u64 = 2;
/// Longest wait for a step, and for the sign that a blow hit.
const WITHIN: Duration = Duration::from_secs(20);
/// Between two looks, so that the members get on with their work.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Blows of a short run; more of them hit nothing than could be chance.
const BLOWS_MAX: usize = 24;
/// Events of the large kind between two looks at what the absent member lacks.
const EVENTS_AT_ONCE: u64 = 60;
const PAYLOAD_BYTES: usize = 60_000;

/// When whom to kill.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// The member that takes rows, at a step.
    Taker(&'static str),
    /// One that gives rows, at a step.
    Giver(&'static str),
    /// Any that writes a memtable out.
    Flush,
}

const BLOWS: [Blow; 6] = [
    Blow::Taker("loading"),
    Blow::Giver("sending"),
    Blow::Flush,
    Blow::Taker("flushing"),
    Blow::Giver("finishing"),
    Blow::Taker("installing"),
];

#[derive(Debug, Default)]
struct Hits {
    takers: usize,
    givers: usize,
    flushes: usize,
    missed: usize,
}

impl Hits {
    fn are_enough(&self) -> bool {
        self.takers >= 2 && self.givers >= 1 && self.flushes >= 1
    }

    fn all(&self) -> usize {
        self.takers + self.givers + self.flushes + self.missed
    }
}

struct World {
    cluster: Cluster,
    ledger: Ledger,
    /// Of the next load.
    seed: u64,
}

fn others(node: usize) -> impl Iterator<Item = usize> {
    (0..NAMES.len()).filter(move |other| *other != node)
}

impl World {
    fn look(&self, node: usize) -> Option<Seen> {
        look(self.cluster.address(node))
    }

    /// What the others together say of a member.
    fn of_others(&self, node: usize, count: impl Fn(&Seen) -> u64) -> u64 {
        others(node).filter_map(|other| self.look(other)).map(|seen| count(&seen)).sum()
    }

    /// Groups of which a member lacks more than those that lead them have in memory and in their logs.
    fn missed(&self, node: usize) -> u64 {
        let name = format!("replicas_behind{{member=\"{}\"}}", NAMES[node]);
        self.of_others(node, |seen| seen.of(&name))
    }

    /// Kills a member and writes until it lacks whole groups.
    async fn leave_behind(&mut self, node: usize) -> u64 {
        while self.missed(node) > 0 {
            // The others have not counted again since it caught up.
            std::thread::sleep(LOOK_EVERY);
        }
        self.cluster.kill(node);
        self.seed += 1;
        let options = WorkloadOptions {
            writers: 4,
            sessions: 4 * usize::from(GROUPS),
            seed: self.seed,
            batch_events_max: 4,
            payload_bytes: PAYLOAD_BYTES,
            ..WorkloadOptions::default()
        };
        let through = self.cluster.url((node + 1) % NAMES.len());
        let load = Load::with(&through, options).await;
        let missed = loop {
            advance([&load], EVENTS_AT_ONCE).await;
            let missed = self.missed(node);
            if missed >= GROUPS_MISSED {
                break missed;
            }
        };
        self.ledger.merge(load.end().await);
        missed
    }

    /// Whom a blow may fall on now, if on anybody.
    fn victim(&self, blow: Blow, taker: usize) -> Option<usize> {
        (0..NAMES.len()).find(|node| {
            let Some(seen) = self.look(*node) else { return false };
            match blow {
                Blow::Taker(step) => *node == taker && seen.open("taken", step) > 0,
                Blow::Giver(step) => *node != taker && seen.open("given", step) > 0,
                Blow::Flush => seen.of("flushes_open") > 0,
            }
        })
    }

    /// Whether a member has been given as many groups as it lacked, and takes no more.
    fn is_given(&self, taker: usize, missed: u64) -> bool {
        self.look(taker).is_some_and(|seen| {
            let steps = ["loading", "flushing", "installing"];
            let open: u64 = steps.iter().map(|step| seen.open("taken", step)).sum();
            open == 0 && seen.of("snapshots_taken_total") >= missed
        })
    }

    /// Brings a member back and kills somebody meanwhile; says whether that hit.
    fn strike(&mut self, blow: Blow, taker: usize, missed: u64, hits: &mut Hits) {
        let mut taking = Some(self.cluster.begin(taker));
        let until = Instant::now() + WITHIN;
        let victim = loop {
            if let Some(victim) = self.victim(blow, taker) {
                break Some(victim);
            }
            if self.is_given(taker, missed) || Instant::now() >= until {
                break None;
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let counted = match victim {
            None => &mut hits.missed,
            Some(victim) if victim == taker => {
                kill(taking.take().unwrap());
                let is_open =
                    |seen: &Seen| seen.open("given", "sending") + seen.open("given", "finishing");
                // Nobody can have told them that it is done.
                let hit = self.of_others(taker, is_open) > 0;
                taking = Some(self.cluster.begin(taker));
                match blow {
                    Blow::Flush => &mut hits.flushes,
                    Blow::Taker(_) | Blow::Giver(_) if hit => &mut hits.takers,
                    Blow::Taker(_) | Blow::Giver(_) => &mut hits.missed,
                }
            }
            Some(victim) => {
                let let_go =
                    |world: &World| world.look(taker).map(|seen| seen.of("snapshots_let_go_total"));
                let before = let_go(self);
                self.cluster.kill(victim);
                self.cluster.restart_later(victim);
                match blow {
                    Blow::Flush => &mut hits.flushes,
                    Blow::Taker(_) | Blow::Giver(_) => {
                        let until = Instant::now() + WITHIN;
                        let mut hit = false;
                        while before.is_some() && !hit && Instant::now() < until {
                            hit = let_go(self) > before;
                            std::thread::sleep(LOOK_EVERY);
                        }
                        if hit { &mut hits.givers } else { &mut hits.missed }
                    }
                }
            }
        };
        *counted += 1;
        self.cluster.take_in(taker, taking.expect("it was begun, and again if it was killed"));
        (0..NAMES.len()).for_each(|node| drop(self.cluster.ops(node, "wait-ready")));
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_killed_while_rows_are_given_lose_nothing() {
    let minutes = std::env::var("TL_FAULTS_MINUTES").ok();
    let minutes = minutes.map(|minutes| minutes.parse().expect("TL_FAULTS_MINUTES is a number"));
    let all = Duration::from_secs(60 * minutes.unwrap_or(0));
    let cluster = Cluster::without_logs(GROUPS);
    let mut world = World { cluster, ledger: Ledger::default(), seed: 100 };
    let mut loads = Vec::new();
    for node in 0..NAMES.len() {
        loads.push(Load::start(&world.cluster.url(node), node as u64 + 1, 2, 3).await);
    }
    let (started, mut hits) = (Instant::now(), Hits::default());
    while !hits.are_enough() || started.elapsed() < all {
        let turn = hits.all();
        assert!(turn < BLOWS_MAX || !all.is_zero(), "hardly a blow hits: {hits:?}");
        let (blow, taker) = (BLOWS[turn % BLOWS.len()], turn % NAMES.len());
        advance(&loads, 10).await;
        let missed = world.leave_behind(taker).await;
        world.strike(blow, taker, missed, &mut hits);
        println!(
            "{:>6.1} s  {blow:?}, {missed} groups missed: {hits:?}",
            started.elapsed().as_secs_f64()
        );
    }
    advance(&loads, 10).await;
    let World { cluster, mut ledger, .. } = world;
    ledger.merge(settled(loads).await);
    let mut first: Option<Vec<Reading>> = None;
    for (node, name) in NAMES.iter().enumerate() {
        let client = Client::new(&cluster.url(node)).unwrap();
        let mut checker = Checker::new(&ledger);
        let mut readings = Vec::new();
        for session in checker.sessions() {
            let reading = read_all(&client, session, Via::Pages).await.unwrap();
            checker.complete(&reading);
            readings.push(reading);
        }
        let report = checker.report();
        assert!(report.is_clean(), "{name}: {report}");
        let first = first.get_or_insert_with(|| readings.clone());
        assert!(*first == readings, "{name} answers something else");
    }
    println!("{hits:?}, {} events, none lost", ledger.acknowledged_events());
}
