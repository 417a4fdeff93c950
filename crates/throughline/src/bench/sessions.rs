//! Very many sessions: what each costs in memory, whether one that was long untouched is slow,
//! and how fast their list is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::cells::{Cell, Latency, Plan, Title, histogram, measure, rounded, settle};
use super::child::Server;
use super::load::{Load, Shape};
use super::protocol::append::Appends;
use super::protocol::writers::{Order, Writers};
use super::scratch::Scratch;
use super::{SessionsArgs, http, system};
use crate::output::Out;

const PREFIX: &str = "s-";
/// Sessions that are written to again and again.
const HOT: u32 = 1024;
/// Bytes of an event.
const EVENT_BYTES: usize = 1024;
/// Start of the random order in which cold sessions are written to.
const SEED: u64 = 7;

/// What many sessions cost.
#[derive(Debug, Serialize)]
struct Many {
    workload: &'static str,
    sessions: u32,
    /// Creates per second.
    create_rate: f64,
    /// Resident memory of an empty node after the rest, KiB.
    empty_kib: u64,
    /// The same with the sessions.
    resident_kib: u64,
    /// What each session adds, bytes.
    each_bytes: f64,
    /// Appends to few sessions over and over.
    hot_p50_us: u64,
    /// Appends to sessions drawn from all the others.
    cold_p50_us: u64,
    cold_p99_us: u64,
    /// Cold by hot p50.
    cold_ratio: f64,
    /// Pages of the list, one after another.
    list_pages: u64,
    list_p50_us: u64,
    list_p99_us: u64,
}

/// `tl bench sessions`.
pub fn sessions(args: &SessionsArgs, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.dir.as_deref())?;
    let rest = Duration::from_millis(args.rest_ms);
    let empty_kib = {
        let node = Server::node(&dir.path().join("empty"), &[])?;
        std::thread::sleep(rest);
        system::resident_kib(node.pid())?
    };
    let node = Server::node(&dir.path().join("node"), &[])?;
    let created = http::create_sessions(node.address, PREFIX, args.sessions)?;
    std::thread::sleep(rest);
    let resident_kib = system::resident_kib(node.pid())?;
    let hot = HOT.min(args.sessions / 2);
    let plan = args.slices.plan();
    let cell = appends(node.address, args, hot, plan)?;
    let against = cell.against.as_ref().context("cold appends have hot ones beside them")?;
    let pages = list(node.address, args.pages)?;
    let list = Latency::of(&pages);
    let many = Many {
        workload: "sessions",
        sessions: args.sessions,
        create_rate: created.rate().round(),
        empty_kib,
        resident_kib,
        each_bytes: rounded(
            (resident_kib as f64 - empty_kib as f64) * 1024.0 / f64::from(args.sessions),
        ),
        hot_p50_us: against.against_p50_us,
        cold_p50_us: cell.latency.p50_us,
        cold_p99_us: cell.latency.p99_us,
        cold_ratio: rounded(cell.latency.p50_us as f64 / against.against_p50_us.max(1) as f64),
        list_pages: pages.len(),
        list_p50_us: list.p50_us,
        list_p99_us: list.p99_us,
    };
    let text = format!(
        "{} sessions, created at {:.0}/s: resident {:.0} MiB, {:.0} MiB without them, {:.0} bytes \
         each\nappends: hot p50 {} µs, cold p50 {} µs = {:.2}, cold p99 {} µs\nlist: {} pages, p50 \
         {} µs, p99 {} µs",
        many.sessions,
        many.create_rate,
        resident_kib as f64 / 1024.0,
        empty_kib as f64 / 1024.0,
        many.each_bytes,
        many.hot_p50_us,
        many.cold_p50_us,
        many.cold_ratio,
        many.cold_p99_us,
        many.list_pages,
        many.list_p50_us,
        many.list_p99_us
    );
    out.either(&many, &text)
}

/// Appends to sessions at random beside appends to few.
fn appends(address: SocketAddr, args: &SessionsArgs, hot: u32, plan: Plan) -> anyhow::Result<Cell> {
    let conns = usize::from(args.conns);
    let load = |first, sessions, order, run: &str| {
        let writers = Writers::new(PREFIX, first, sessions, run.to_owned(), conns).order(order);
        let appends = Appends::single(&address.to_string(), writers, EVENT_BYTES);
        Load::connect(address, Shape::conns(conns), Box::new(appends))
    };
    let random = Order::Random(fastrand::Rng::with_seed(SEED));
    let mut cold = load(hot, args.sessions - hot, random, "cold")?;
    let mut few = load(0, hot, Order::Turns, "hot")?;
    settle(&mut few)?;
    let title = Title {
        workload: "cold",
        unit: "events",
        conns: args.conns.into(),
        size_bytes: EVENT_BYTES as u32,
    };
    measure(title, plan, &mut cold, Some(("hot", &mut few)))
}

/// How long each of the first pages of the list takes, in microseconds.
fn list(address: SocketAddr, pages: u32) -> anyhow::Result<Histogram<u64>> {
    let mut took_us = histogram()?;
    let mut cursor = String::new();
    for _ in 0..pages {
        let began = Instant::now();
        let page = http::get(address, &format!("/v1/sessions?limit=100{cursor}"))?;
        took_us.saturating_record((began.elapsed().as_micros() as u64).max(1));
        let page: serde_json::Value = serde_json::from_str(&page)?;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    Ok(took_us)
}
