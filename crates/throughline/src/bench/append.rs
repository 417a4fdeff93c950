//! The two workloads: the ceiling alone, and appends over HTTP beside it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::cells::{Cell, Title, measure, settle};
use super::child::Server;
use super::load::Load;
use super::protocol::{AppendRequests, Protocol};
use super::{Against, AppendArgs, CellArgs};
use crate::output::Out;

/// `tl bench ceiling`.
pub fn ceiling(args: &CellArgs, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.dir.as_deref())?;
    let server = Server::ceiling(dir.path(), args.size as usize)?;
    super::raise_file_limit()?;
    head(out)?;
    for &conns in &args.conns {
        let mut load = raw(&server, conns, args.size)?;
        settle(&mut load)?;
        let title = Title { workload: "ceiling", conns, size_bytes: args.size };
        let length = Duration::from_millis(args.slice_ms);
        print(out, &measure(title, &mut load, None, args.repetitions, length)?)?;
    }
    Ok(())
}

/// `tl bench append`.
pub fn append(args: &AppendArgs, out: &Out) -> anyhow::Result<()> {
    let cells = &args.cells;
    let dir = Scratch::new(cells.dir.as_deref())?;
    super::raise_file_limit()?;
    let node = Server::node(&dir.path().join("node"))?;
    let ceiling = match args.against {
        Some(Against::Ceiling) => Some(Server::ceiling(dir.path(), cells.size as usize)?),
        None => None,
    };
    let sessions: Vec<String> = (0..args.sessions).map(|n| format!("bench-{n}")).collect();
    create_sessions(node.address, &sessions)?;
    head(out)?;
    for &conns in &cells.conns {
        let requests = AppendRequests::new(
            node.address.to_string(),
            cells.size as usize,
            format!("b{conns}"),
            sessions.clone(),
            usize::from(conns),
        );
        let mut load = Load::connect(node.address, usize::from(conns), Protocol::Append(requests))?;
        let mut against =
            ceiling.as_ref().map(|server| raw(server, conns, cells.size)).transpose()?;
        settle(&mut load)?;
        against.as_mut().map_or(Ok(()), settle)?;
        let before = log_syncs(node.address)?;
        let title = Title { workload: "append", conns, size_bytes: cells.size };
        let length = Duration::from_millis(cells.slice_ms);
        let mut cell = measure(title, &mut load, against.as_mut(), cells.repetitions, length)?;
        cell.syncs = Some(log_syncs(node.address)? - before);
        print(out, &cell)?;
    }
    Ok(())
}

fn raw(server: &Server, conns: u16, size: u32) -> anyhow::Result<Load> {
    let protocol = Protocol::Raw { size: size as usize };
    Load::connect(server.address, usize::from(conns), protocol)
}

fn head(out: &Out) -> anyhow::Result<()> {
    if !out.is_json() {
        let mut stdout = std::io::stdout().lock();
        writeln!(
            stdout,
            "{:<9} {:>6} {:>7} {:>10} {:>9} {:>9} {:>10} {:>11} {:>7} {:>15} {:>8}",
            "workload",
            "conns",
            "bytes",
            "rate/s",
            "p50 µs",
            "p99 µs",
            "ceiling/s",
            "ceil p50 µs",
            "ratio",
            "(min..max)",
            "syncs"
        )?;
    }
    Ok(())
}

fn print(out: &Out, cell: &Cell) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if out.is_json() {
        writeln!(stdout, "{}", serde_json::to_string(cell)?)?;
        return Ok(());
    }
    let show = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let count = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |v| v.to_string());
    let spread = match (cell.ratio_min, cell.ratio_max) {
        (Some(min), Some(max)) => format!("({min:.2}..{max:.2})"),
        _ => "–".to_owned(),
    };
    writeln!(
        stdout,
        "{:<9} {:>6} {:>7} {:>10.0} {:>9} {:>9} {:>10} {:>11} {:>7} {:>15} {:>8}",
        cell.workload,
        cell.conns,
        cell.size_bytes,
        cell.rate,
        cell.p50_us,
        cell.p99_us,
        show(cell.ceiling_rate, 0),
        count(cell.ceiling_p50_us),
        show(cell.ratio, 3),
        spread,
        count(cell.syncs)
    )?;
    Ok(())
}

fn create_sessions(address: SocketAddr, sessions: &[String]) -> anyhow::Result<()> {
    for id in sessions {
        let body = format!(r#"{{"id":"{id}"}}"#);
        let reply = call(
            address,
            &format!(
                "POST /v1/sessions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        )?;
        if !reply.starts_with("HTTP/1.1 201") {
            bail!("creating session {id}: {reply}");
        }
    }
    Ok(())
}

/// Syncs of the node's log so far, from its metrics.
fn log_syncs(address: SocketAddr) -> anyhow::Result<u64> {
    let reply = call(
        address,
        &format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"),
    )?;
    let line = reply.lines().find_map(|line| line.strip_prefix("throughline_log_syncs_total "));
    let value = line.context("the node's metrics name no log syncs")?;
    value.trim().parse().context("reading the number of log syncs")
}

fn call(address: SocketAddr, request: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// The directory of a run: one given, or a temporary one that goes afterwards.
enum Scratch<'a> {
    Given(&'a Path),
    Temporary(tempfile::TempDir),
}

impl<'a> Scratch<'a> {
    fn new(given: Option<&'a Path>) -> anyhow::Result<Scratch<'a>> {
        match given {
            Some(path) => {
                std::fs::create_dir_all(path)
                    .with_context(|| format!("creating {}", path.display()))?;
                Ok(Scratch::Given(path))
            }
            None => Ok(Scratch::Temporary(tempfile::tempdir()?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Scratch::Given(path) => path,
            Scratch::Temporary(dir) => dir.path(),
        }
    }
}
