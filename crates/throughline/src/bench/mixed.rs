//! A day of a node in a minute: writes, batches, reads, look-ups and creates on many connections
//! while tails are open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;

use super::cells::{Taken, Title, cell, measure, settle};
use super::child::Server;
use super::load::{Load, Shape};
use super::net::{Conn, Poll, ReadBuffer};
use super::protocol::mixed::Mixed;
use super::protocol::writers::Writers;
use super::scratch::Scratch;
use super::{MixedArgs, http, print, sustained, ws};
use crate::output::Out;

const PREFIX: &str = "mixed-";
/// Connections of a cell, when none are given.
const CONNS: [u16; 1] = [64];
/// Bytes of an event, when not given.
const SIZE: u32 = 1024;

/// `tl bench mixed`.
pub fn mixed(args: &MixedArgs, out: &Out) -> anyhow::Result<()> {
    let cells = &args.cells;
    let size = cells.size(SIZE);
    let dir = Scratch::new(cells.dir.as_deref())?;
    let node = Server::node(&dir.path().join("node"), &[])?;
    http::create_sessions(node.address, PREFIX, args.sessions)?;
    print::head(out)?;
    for conns in cells.conns(&CONNS) {
        let run = format!("m{conns}");
        let writers = Writers::new(PREFIX, 0, args.sessions, run.clone(), conns as usize);
        let host = node.address.to_string();
        let requests = Mixed::new(&host, writers, size as usize, &run, conns as usize);
        let mut load =
            Load::connect(node.address, Shape::conns(conns as usize), Box::new(requests))?;
        let mut tails = Tails::open(node.address, args.tails, args.sessions)?;
        let title = Title { workload: "mixed", unit: "requests", conns, size_bytes: size };
        let over = AtomicBool::new(false);
        let delivered = AtomicU64::new(0);
        let measured = std::thread::scope(|scope| {
            let reader = scope.spawn(|| tails.read(&over, &delivered));
            let measured = (|| {
                settle(&mut load)?;
                let Some(seconds) = args.seconds else {
                    return measure(title, cells.slices.plan(), &mut load, None);
                };
                let length = Duration::from_secs(seconds);
                let (slice, run) =
                    sustained::run(&mut load, length, node.pid(), dir.path(), size.into())?;
                let mut taken = Taken::new()?;
                taken.take(&slice)?;
                let mut cell = cell(title, &taken, None);
                cell.sustained = Some(run);
                Ok(cell)
            })();
            over.store(true, Ordering::Relaxed);
            reader.join().expect("the reader of the tails does not panic")?;
            measured
        });
        let mut cell = measured?;
        cell.delivered = Some(delivered.into_inner());
        print::cell(out, &cell)?;
    }
    Ok(())
}

/// Tails whose events are counted and dropped.
#[derive(Debug)]
struct Tails {
    poll: Poll,
    conns: Vec<Conn>,
}

impl Tails {
    fn open(address: SocketAddr, tails: u16, sessions: u32) -> anyhow::Result<Tails> {
        let poll = Poll::new()?;
        let mut conns = Vec::with_capacity(tails.into());
        for place in 0..usize::from(tails) {
            let session = place as u32 % sessions;
            let path = format!("/v1/sessions/{PREFIX}{session}/tail?from=latest");
            conns.push(Conn::connect(&poll, place, address, |stream| ws::open(stream, &path))?);
        }
        Ok(Tails { poll, conns })
    }

    fn read(&mut self, over: &AtomicBool, delivered: &AtomicU64) -> anyhow::Result<()> {
        let mut buffer = ReadBuffer::default();
        let mut ready = Vec::new();
        while !over.load(Ordering::Relaxed) {
            self.poll.wait(&mut ready)?;
            for &(place, _) in &ready {
                self.conns[place].read(&mut buffer, |bytes| match ws::frame(bytes) {
                    Some(frame) if frame.is_close => bail!("the server closed tail {place}"),
                    Some(frame) if frame.bytes <= bytes.len() => {
                        delivered.fetch_add(frame.is_text.into(), Ordering::Relaxed);
                        Ok(frame.bytes)
                    }
                    _ => Ok(0),
                })?;
            }
        }
        Ok(())
    }
}
