//! Three encrypted members in network namespaces of their own, while processes are killed and
//! frozen and links are cut and slowed, under writers and tails.
//!
//! This process is the oracle. It writes through one member and follows through others, and holds
//! what was acknowledged against what every member shows in the end. After each fault every
//! writer must get on; during faults that leave a majority in one piece, so must those who
//! write through it. A fault counts once the members themselves say that it is there: a cut that
//! cuts nothing fails the test.
//!
//! Each fault lasts ten seconds. `TL_FAULTS_MINUTES` repeats all of them, each for a minute, until
//! the time is over: `cargo xtask soak`.

mod net;

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tl_client::Client;
use tl_client::verify::{Checker, Via, check_via};

use self::net::Net;
use crate::members::{Founding, NAMES, ops};
use crate::ops::{Followed, Follower, Load, advance, settled};
use crate::tl::{Node, ran};

/// How much is done.
struct Plan {
    /// Writers through each member.
    writers: usize,
    /// Sessions of each member's writers, each with a tail.
    sessions: usize,
    /// How long a fault lasts at least, beside what has to be acknowledged.
    fault: Duration,
    /// How long faults go on; all of them come once in any case.
    all: Duration,
}

impl Plan {
    fn of_environment() -> Plan {
        match std::env::var("TL_FAULTS_MINUTES") {
            Err(_) => Plan::of(Duration::from_secs(10), Duration::ZERO),
            Ok(minutes) => {
                let minutes: u64 = minutes.parse().expect("TL_FAULTS_MINUTES is a number");
                Plan::of(Duration::from_secs(60), Duration::from_secs(60 * minutes))
            }
        }
    }

    /// 33 writers and 18 tails.
    fn of(fault: Duration, all: Duration) -> Plan {
        Plan { writers: 11, sessions: 6, fault, all }
    }
}

/// Acknowledged events that must come before, during and after a fault.
const EVENTS_PER_PART: u64 = 40;

/// Longest wait until the members say that a fault is there.
const HOLD_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what they say.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is done to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Its process is killed, and started again.
    Killed,
    /// Its process is stopped, and goes on.
    Frozen,
    /// Nothing goes between it and the others.
    CutOff,
    /// The others do not hear it.
    Mute,
    /// It does not hear the others.
    Deaf,
    /// It and one other do not hear each other; the third hears both.
    Quarrel,
    /// What comes to it comes slowly.
    Slow,
}

const FAULTS: [Fault; 7] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::CutOff,
    Fault::Mute,
    Fault::Deaf,
    Fault::Quarrel,
    Fault::Slow,
];

impl Fault {
    /// Whether those who write through the others get on meanwhile. In a quarrel one of them may
    /// not reach the leader of some group, and nobody passes its question on.
    fn leaves_others_at_work(self) -> bool {
        match self {
            Fault::Killed
            | Fault::Frozen
            | Fault::CutOff
            | Fault::Mute
            | Fault::Deaf
            | Fault::Slow => true,
            Fault::Quarrel => false,
        }
    }
}

struct World {
    // Dropped first: processes end before their network.
    nodes: Vec<Option<Node>>,
    net: Net,
    founding: Founding,
}

impl World {
    fn start() -> World {
        let (net, founding) = (Net::new(), Founding::new(true));
        let mut world = World { nodes: vec![None, None, None], net, founding };
        let begun: Vec<_> = (0..NAMES.len()).map(|node| world.begin(node)).collect();
        for (node, child) in begun.into_iter().enumerate() {
            world.nodes[node] = Some(Node::ready(child));
        }
        world
    }

    fn begin(&self, node: usize) -> std::process::Child {
        let mut environment = self.founding.environment(node, &self.net.peers(), &Net::listen());
        environment.push(("TL_HTTP__OPEN_TO_NETWORK".to_owned(), "true".to_owned()));
        Node::begin(self.net.program(node), &self.founding.data(node), &environment)
    }

    fn signal(&self, node: usize, signal: Signal) {
        let pid = self.nodes[node].as_ref().unwrap().pid();
        kill_process(pid, signal).unwrap();
    }

    fn begin_fault(&mut self, fault: Fault, victim: usize) {
        let others = others(victim);
        match fault {
            Fault::Killed => self.nodes[victim].take().unwrap().kill(),
            Fault::Frozen => self.signal(victim, Signal::STOP),
            Fault::CutOff => {
                self.begin_fault(Fault::Mute, victim);
                self.begin_fault(Fault::Deaf, victim);
            }
            Fault::Mute => others.iter().for_each(|other| self.net.cut(victim, *other)),
            Fault::Deaf => others.iter().for_each(|other| self.net.cut(*other, victim)),
            Fault::Quarrel => {
                self.net.cut(victim, others[0]);
                self.net.cut(others[0], victim);
            }
            Fault::Slow => self.net.slow(victim),
        }
    }

    /// What a member says of all, asked on its own computer.
    fn seen_by(&self, node: usize) -> Vec<Value> {
        let words = ["ops", "nodes", "--json", "--url", "http://127.0.0.1:4000"];
        let asked = ran(self.net.program(node).args(words));
        assert_eq!(asked.code, 0, "{}: {asked:?}", NAMES[node]);
        asked.json()["nodes"].as_array().unwrap().clone()
    }

    /// Whether a member hears nothing of another one.
    fn is_deaf_to(&self, node: usize, other: usize) -> bool {
        let seen = self.seen_by(node);
        let seen = seen.iter().find(|seen| seen["node"] == NAMES[other]).unwrap();
        seen["state"] == "suspect" || seen["state"] == "lost"
    }

    /// Whether a fault does what it says, as the members see it.
    fn holds(&self, fault: Fault, victim: usize) -> bool {
        let others = others(victim);
        let is_unheard = || others.iter().all(|other| self.is_deaf_to(*other, victim));
        let hears_nobody = || others.iter().all(|other| self.is_deaf_to(victim, *other));
        match fault {
            Fault::Killed | Fault::Frozen | Fault::Mute => is_unheard(),
            Fault::Deaf => hears_nobody(),
            Fault::CutOff => is_unheard() && hears_nobody(),
            Fault::Quarrel => {
                let (first, second) = (others[0], others[1]);
                self.is_deaf_to(first, victim)
                    && self.is_deaf_to(victim, first)
                    && !self.is_deaf_to(second, victim)
                    && !self.is_deaf_to(second, first)
            }
            Fault::Slow => self.net.held_back(victim).is_some_and(|packets| packets > 0),
        }
    }

    /// Waits until a fault holds, or no longer does.
    async fn until_it(&self, holds: bool, fault: Fault, victim: usize) {
        let begun = Instant::now();
        while self.holds(fault, victim) != holds {
            let name = NAMES[victim];
            assert!(begun.elapsed() < HOLD_WITHIN, "{fault:?} of {name}: never {holds}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn end_fault(&mut self, fault: Fault, victim: usize) {
        let others = others(victim);
        match fault {
            Fault::Killed => self.nodes[victim] = Some(Node::ready(self.begin(victim))),
            Fault::Frozen => self.signal(victim, Signal::CONT),
            Fault::CutOff => {
                self.end_fault(Fault::Mute, victim);
                self.end_fault(Fault::Deaf, victim);
            }
            Fault::Mute => others.iter().for_each(|other| self.net.mend(victim, *other)),
            Fault::Deaf => others.iter().for_each(|other| self.net.mend(*other, victim)),
            Fault::Quarrel => {
                self.net.mend(victim, others[0]);
                self.net.mend(others[0], victim);
            }
            Fault::Slow => self.net.quick(victim),
        }
    }
}

fn others(victim: usize) -> Vec<usize> {
    (0..NAMES.len()).filter(|node| *node != victim).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_frozen_cut_off_and_slow_members_cost_no_event() {
    assert!(net::is_allowed(), "this test makes network namespaces: run it as root");
    let plan = Plan::of_environment();
    let mut world = World::start();
    let urls: Vec<String> = (0..NAMES.len()).map(|node| world.net.url(node)).collect();
    let mut loads = Vec::new();
    let mut followers = Vec::new();
    for node in 0..NAMES.len() {
        let load = Load::start(&urls[node], node as u64 + 1, plan.writers, plan.sessions).await;
        for session in load.sessions() {
            followers.push(Follower::start(session.clone(), urls.clone(), node + 1));
        }
        loads.push(load);
    }
    let started = Instant::now();
    let mut turn = 0;
    while turn < FAULTS.len() || started.elapsed() < plan.all {
        let (fault, victim) = (FAULTS[turn % FAULTS.len()], turn % NAMES.len());
        println!("{:>6.1} s  {fault:?} {}", started.elapsed().as_secs_f64(), NAMES[victim]);
        advance(&loads, EVENTS_PER_PART).await;
        world.until_it(false, fault, victim).await;
        world.begin_fault(fault, victim);
        world.until_it(true, fault, victim).await;
        tokio::time::sleep(plan.fault).await;
        if fault.leaves_others_at_work() {
            advance(others(victim).iter().map(|node| &loads[*node]), EVENTS_PER_PART).await;
        }
        world.end_fault(fault, victim);
        advance(&loads, EVENTS_PER_PART).await;
        turn += 1;
    }
    let ledger = settled(loads).await;
    let client = Client::new(&urls[0]).unwrap();
    let mut checker = Checker::new(&ledger);
    for follower in followers {
        let Followed { reading, codes } = follower.end(&client).await;
        assert!(!codes.contains(&1000), "{codes:?}");
        checker.complete(&reading);
    }
    let report = checker.report();
    assert!(report.is_clean(), "{report}");
    for url in &urls {
        let report = check_via(&Client::new(url).unwrap(), &ledger, Via::Pages).await.unwrap();
        assert!(report.is_clean(), "{url}: {report}");
    }
    println!("{turn} faults, {} events, none lost", ledger.acknowledged_events());
}

#[test]
fn a_node_is_operated_from_its_own_computer_only() {
    assert!(net::is_allowed(), "this test makes network namespaces: run it as root");
    let (net, folder) = (Net::new(), tempfile::tempdir().unwrap());
    let listen = Net::listen();
    let settings = [("TL_HTTP__LISTEN", &*listen), ("TL_HTTP__OPEN_TO_NETWORK", "true")];
    let environment = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let _node = Node::ready(Node::begin(net.program(0), &folder.path().join("data"), &environment));
    let its_own = |url: &str, words: &str| {
        let words = format!("ops {words} --json --url {url}");
        ran(net.program(0).args(words.split(' ')))
    };
    for words in ["status", "nodes", "group 7", "drain", "repair 7"] {
        // Over the network, from another address and from the node's own one.
        for refused in [ops(&net.url(0), words), its_own(&net.url(0), words)] {
            assert_eq!(refused.code, 1, "{words}: {refused:?}");
            assert!(refused.stderr.contains("ops_not_local"), "{words}: {refused:?}");
        }
    }
    let here = its_own("http://127.0.0.1:4000", "status");
    assert_eq!((here.code, &here.json()["state"]), (0, &Value::from("ready")), "{here:?}");
}
