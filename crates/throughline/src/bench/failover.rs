//! How long writes wait when a node of a cluster is killed.
//!
//! ```text
//!   one writer per group, each in a loop:  append, pause     on whichever nodes are alive
//!   again and again:  kill -9 a node ─► wait for every writer ─► start it again ─► it leads again
//!   a sample:         from the end of the killed process to the first answered append that was
//!                     sent after it, of each group that the killed node led
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use parking_lot::RwLock;
use serde::Serialize;
use tl_types::Affinity;

use super::FailoverArgs;
use super::cells::{Latency, histogram};
use super::child::Server;
use super::cluster::{self, Cluster, GROUPS};
use super::scratch::Scratch;
use crate::output::Out;

/// Nodes of the cluster.
const NODES: usize = 3;
/// The tenant of everybody while there is no access control, and the namespace of calls that
/// name none.
const DEFAULT: &str = "default";
/// A server that says nothing for this long has failed.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Before a failed call is made again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Longest wait for all writers after a kill, and for leadership after a start.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// Between two looks at how far they are.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Waits of writes over all kills.
#[derive(Debug, Serialize)]
struct Failover {
    workload: &'static str,
    nodes: usize,
    groups: u16,
    kills: u16,
    /// Groups that lost their leader, over all kills.
    samples: u64,
    #[serde(flatten)]
    wait: Latency,
    /// Appends answered in all.
    appends: u64,
}

/// `tl bench failover`.
pub fn failover(args: &FailoverArgs, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.dir.as_deref())?;
    let cluster = Cluster::found(&dir.path().join("cluster"), NODES as u16)?;
    let mut nodes: Vec<Option<Server>> = cluster.start()?.into_iter().map(Some).collect();
    let places =
        Places(RwLock::new(nodes.iter().flatten().map(|node| Some(node.address)).collect()));
    let (over, pause) = (AtomicBool::new(false), Duration::from_millis(args.pause_ms));
    let answered: Vec<RwLock<Vec<Append>>> = (0..GROUPS).map(|_| RwLock::default()).collect();
    let mut waits_us = histogram()?;
    let appends = std::thread::scope(|scope| {
        let writers: Vec<_> = sessions()
            .into_iter()
            .enumerate()
            .map(|(group, id)| {
                let writer = Writer { id, next: 1, place: group, conn: None };
                let (places, over, log) = (&places, &over, &answered[group]);
                scope.spawn(move || writer.run(places, over, pause, log))
            })
            .collect();
        let killed: anyhow::Result<()> = (0..args.kills).try_for_each(|kill| {
            let place = usize::from(kill) % NODES;
            let led = leads_its_share(nodes[place].as_ref().expect("started"))?;
            let node = nodes[place].take().expect("started");
            node.kill()?;
            // Before the process is gone it may still answer.
            let at = Instant::now();
            places.0.write()[place] = None;
            for wait in first_answers(at, &answered, &led)? {
                waits_us.saturating_record(wait.as_micros() as u64);
            }
            let node = cluster.start_one(place)?;
            places.0.write()[place] = Some(node.address);
            nodes[place] = Some(node);
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        let mut appends = 0;
        for writer in writers {
            appends += writer.join().expect("writers do not panic")?;
        }
        killed.map(|()| appends)
    })?;
    let failover = Failover {
        workload: "failover",
        nodes: NODES,
        groups: GROUPS,
        kills: args.kills,
        samples: waits_us.len(),
        wait: Latency::of(&waits_us),
        appends,
    };
    let ms = |us: u64| us as f64 / 1e3;
    let text = format!(
        "failover, {} kills, {} groups lost their leader: first write after p50 {:.0} ms, p99 {:.0} \
         ms, at most {:.0} ms; {} appends in all",
        failover.kills,
        failover.samples,
        ms(failover.wait.p50_us),
        ms(failover.wait.p99_us),
        ms(failover.wait.max_us),
        failover.appends
    );
    out.either(&failover, &text)
}

/// The names of as many sessions as there are groups, each in the group of its place.
fn sessions() -> Vec<String> {
    let mut found = vec![None; usize::from(GROUPS)];
    let mut left = found.len();
    for number in 0_u32.. {
        let id = format!("failover-{number}");
        let affinity = Affinity { tenant: DEFAULT, namespace: DEFAULT, tag: &id, partition: None };
        let slot = &mut found[usize::from(affinity.group(GROUPS).0)];
        if slot.is_none() {
            *slot = Some(id);
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    found.into_iter().flatten().collect()
}

/// The groups that a node leads, once these are about its share.
fn leads_its_share(node: &Server) -> anyhow::Result<Vec<u16>> {
    let began = Instant::now();
    loop {
        let led = cluster::led_by(node)?;
        if cluster::is_a_share(&led, NODES) || (began.elapsed() > RECOVERY_MAX && !led.is_empty()) {
            return Ok(led);
        }
        ensure!(began.elapsed() <= RECOVERY_MAX, "the node to be killed leads nothing");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// One answered append.
#[derive(Debug, Clone, Copy)]
struct Append {
    sent: Instant,
    answered: Instant,
}

/// For each of these groups, from `killed` to the first answer to what was sent after it; waits
/// until every group has one, also those that kept their leader.
fn first_answers(
    killed: Instant,
    appends: &[RwLock<Vec<Append>>],
    led: &[u16],
) -> anyhow::Result<Vec<Duration>> {
    while !appends.iter().all(|log| wait_of(killed, &log.read()).is_some()) {
        if killed.elapsed() > RECOVERY_MAX {
            let dead = appends.iter().filter(|log| wait_of(killed, &log.read()).is_none()).count();
            bail!("{dead} groups took no write for {} s after a kill", RECOVERY_MAX.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let waits =
        led.iter().filter_map(|group| wait_of(killed, &appends[usize::from(*group)].read()));
    let waits = waits.collect();
    appends.iter().for_each(|log| log.write().clear());
    Ok(waits)
}

fn wait_of(killed: Instant, appends: &[Append]) -> Option<Duration> {
    appends.iter().find(|append| append.sent >= killed).map(|append| append.answered - killed)
}

/// Where nodes listen that are alive.
struct Places(RwLock<Vec<Option<SocketAddr>>>);

/// The one writer of a group.
struct Writer {
    id: String,
    /// Position of its next append.
    next: u64,
    /// The node it tries next, modulo their number.
    place: usize,
    conn: Option<TcpStream>,
}

impl Writer {
    /// Appends until told to stop; how many were answered.
    fn run(
        mut self,
        places: &Places,
        over: &AtomicBool,
        pause: Duration,
        log: &RwLock<Vec<Append>>,
    ) -> anyhow::Result<u64> {
        let body = format!(r#"{{"id":"{}"}}"#, self.id);
        let began = Instant::now();
        // One that is there was created by a call whose answer was lost.
        while !matches!(self.call(places, "/v1/sessions", &body), Some(200..=299 | 409)) {
            ensure!(began.elapsed() < RECOVERY_MAX, "{} was not created", self.id);
            std::thread::sleep(AGAIN_AFTER);
        }
        let path = format!("/v1/sessions/{}/append", self.id);
        while !over.load(Ordering::Relaxed) {
            let body = format!(
                r#"{{"type":"probe","producer_id":"p","producer_seq":{},"payload":{{}}}}"#,
                self.next
            );
            let sent = Instant::now();
            if matches!(self.call(places, &path, &body), Some(200..=299)) {
                self.next += 1;
                log.write().push(Append { sent, answered: Instant::now() });
                std::thread::sleep(pause);
            } else {
                std::thread::sleep(AGAIN_AFTER);
            }
        }
        Ok(self.next - 1)
    }

    /// Posts; the status, if there was one. After a failure another node is asked.
    fn call(&mut self, places: &Places, path: &str, body: &str) -> Option<u16> {
        let status = self.post(places, path, body).ok();
        if !matches!(status, Some(200..=299)) {
            self.conn = None;
            self.place += 1;
        }
        status
    }

    fn post(&mut self, places: &Places, path: &str, body: &str) -> anyhow::Result<u16> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                let address = {
                    let places = places.0.read();
                    places[self.place % places.len()].context("that node is down")?
                };
                let conn = TcpStream::connect(address)?;
                conn.set_nodelay(true)?;
                conn.set_read_timeout(Some(ANSWER_MAX))?;
                conn
            }
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        conn.write_all(format!("{head}{body}").as_bytes())?;
        let (mut reply, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match conn.read(&mut buffer)? {
                0 => bail!("closed"),
                count => reply.extend_from_slice(&buffer[..count]),
            }
            // A success is read to its end, for the next call uses the connection again.
            match super::protocol::http_reply("2", &reply) {
                Ok(None) => {}
                Ok(Some(_)) => break,
                Err(_) => return status_of(&reply),
            }
        }
        self.conn = Some(conn);
        status_of(&reply)
    }
}

/// The status in the first line of a reply.
fn status_of(reply: &[u8]) -> anyhow::Result<u16> {
    // "HTTP/1.1 " has nine bytes.
    let digits = reply.get(9..12).context("a reply without a status")?;
    Ok(std::str::from_utf8(digits)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_from_the_kill_to_what_was_sent_after_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let append = |sent, answered| Append { sent: at(sent), answered: at(answered) };
        // Under way at the kill, then one that was sent after it.
        let appends = [append(0, 3), append(8, 15), append(12, 40), append(50, 51)];
        assert_eq!(wait_of(at(10), &appends), Some(Duration::from_millis(30)));
        assert_eq!(wait_of(at(60), &appends), None);
    }

    #[test]
    fn there_is_one_session_for_each_group() {
        let all = sessions();
        assert_eq!(all.len(), usize::from(GROUPS));
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
