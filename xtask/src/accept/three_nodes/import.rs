//! The data set through all three nodes in turn, while each is killed once.
//!
//! A third of the sessions goes through each node. While it does, the next node is killed with
//! SIGKILL, stays away for a quarter of the part, and comes back. In the end each node must
//! give the same events, and another import of everything must find all of it there.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tl_client::Client;
use tokio::runtime::Runtime;

use super::members::{Cluster, NAMES, joined};
use crate::accept::Verdict;
use crate::accept::data::{import, tl};
use crate::accept::export::Contents;
use crate::dataset;
use crate::server::Server;

/// Longest wait for a part to come so far.
const PART_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the whole line.
pub fn run() -> Result<Verdict> {
    let set = dataset::run()?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let cluster = Cluster::found(folder.path(), &[])?;
    let parts = split(&set.path, set.sessions, folder.path())?;
    let begun = NAMES.iter().map(|name| cluster.begin(name, &[], &[]));
    let begun: Vec<_> = begun.collect();
    let mut nodes = Vec::new();
    for node in begun {
        nodes.push(Some(joined(node)?));
    }
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let mut doubts = 0;
    for (turn, part) in parts.iter().enumerate() {
        let url = url(&nodes, turn)?;
        let client = Client::new(&url)?;
        let file = part.path.clone();
        let import = std::thread::spawn(move || import(&url, &file));
        let wait_for = |id: &str| runtime.block_on(until_there(&client, id));
        let victim = (turn + 1) % NAMES.len();
        wait_for(&part.quarter)?;
        let node = nodes[victim].take().context("the node is away already")?;
        node.kill()?;
        ensure!(!import.is_finished(), "the import was over before a node was killed");
        wait_for(&part.half)?;
        nodes[victim] = Some(joined(cluster.begin(NAMES[victim], &[], &[]))?);
        let counts = joined(import).with_context(|| format!("through {}", NAMES[turn]))?;
        let count = |name: &str| counts[name].as_u64().unwrap_or(0);
        let (appended, there) = (count("appended"), count("already_there"));
        ensure!(appended + there == part.events, "the import says {counts}");
        // What was repeated because nobody knew whether it had been written.
        doubts += there;
    }
    let imported = Contents::read(&set.path)?;
    for (turn, name) in NAMES.iter().enumerate() {
        let out = folder.path().join(format!("export-{turn}.jsonl"));
        tl(&url(&nodes, turn)?, &["session", "export", "--all", "--out", &out.to_string_lossy()])
            .run()?;
        let exported = Contents::read(&out)?;
        imported.same_as(&exported).with_context(|| format!("what {name} gives"))?;
    }
    let again = import(&url(&nodes, 0)?, &set.path)?;
    ensure!(again["appended"] == 0, "the second import says {again}");
    Ok(Verdict::Ok(format!(
        "{} sessions, {} events through three nodes, each killed once; {doubts} events were \
         written before their answer was lost; all nodes give the same",
        set.sessions, set.events
    )))
}

fn url(nodes: &[Option<Server>], node: usize) -> Result<String> {
    Ok(nodes[node].as_ref().context("a node is away")?.url.clone())
}

/// A third of the data set.
struct Part {
    path: PathBuf,
    events: u64,
    /// The sessions that are there when a quarter, and a half, of the part is.
    quarter: String,
    half: String,
}

fn split(set: &Path, sessions: usize, folder: &Path) -> Result<Vec<Part>> {
    let each = sessions.div_ceil(NAMES.len());
    let (mut parts, mut seen): (Vec<(Part, BufWriter<_>)>, usize) = (Vec::new(), 0);
    for line in BufReader::new(std::fs::File::open(set)?).lines() {
        let line = line?;
        let value: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let id = value["session"]["id"].as_str().map(str::to_owned);
        if id.is_some() && seen.is_multiple_of(each) {
            let path = folder.join(format!("part-{}.jsonl", parts.len()));
            let file = BufWriter::new(std::fs::File::create(&path)?);
            let part = Part { path, events: 0, quarter: String::new(), half: String::new() };
            parts.push((part, file));
        }
        let (part, file) = parts.last_mut().context("the set begins with an event")?;
        writeln!(file, "{line}")?;
        match id {
            None => part.events += 1,
            Some(id) => {
                let at = seen % each;
                if at == each / 4 {
                    part.quarter = id;
                } else if at == each / 2 {
                    part.half = id;
                }
                seen += 1;
            }
        }
    }
    for (part, file) in &mut parts {
        file.flush().with_context(|| part.path.display().to_string())?;
    }
    ensure!(parts.len() == NAMES.len(), "{} parts", parts.len());
    Ok(parts.into_iter().map(|(part, _)| part).collect())
}

/// Waits until a session is there.
async fn until_there(client: &Client, id: &str) -> Result<()> {
    let began = Instant::now();
    while client.get_raw(&format!("/v1/sessions/{id}")).await.is_err() {
        ensure!(began.elapsed() < PART_MAX, "the import does not come to session {id}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
