//! The data set: in once, in again without effect, out the same; followed live while it comes
//! in; sound on disk after a crash.
//!
//! Two sessions of the file are begun before the import. One lies at the front of the file: its
//! next event tells that the import is under way. One lies near the end: tails that start in the
//! middle of what is there first replay, then follow live what the import adds.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tl_client::Client;
use tokio::runtime::Runtime;

use super::export::Contents;
use super::following::{Begun, Following};
use super::{Verdict, scrub, tails};
use crate::command::Call;
use crate::dataset;
use crate::server::Server;
use crate::tree;

/// Runs the whole line.
pub fn run() -> Result<Verdict> {
    let set = dataset::run()?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let data = folder.path().join("data");
    let server = Server::start(&data)?;
    let client = Client::new(&server.url)?;
    let runtime = Runtime::new().context("cannot start a runtime")?;

    let imported = Contents::read(&set.path)?;
    let (front, late) = (at_the_front(&imported)?, near_the_end(&imported)?);
    let begun = front.count + late.count;
    let beginnings = folder.path().join("beginnings.jsonl");
    write_beginnings(&set.path, &beginnings, &[&front, &late])?;
    let counts = import(&server.url, &beginnings)?;
    ensure!(counts["appended"] == begun, "the import of two beginnings says {counts}");

    let following = Following::start(&runtime, &client, front, late);
    let counts = import(&server.url, &set.path)?;
    let rest = set.events as u64 - begun;
    let as_expected = counts["appended"] == rest && counts["already_there"] == begun;
    ensure!(as_expected, "the import says {counts}, {rest} events were new");
    let upkeep = upkeep(&runtime.block_on(client.get_raw("/metrics"))?)?;
    let counts = import(&server.url, &set.path)?;
    ensure!(counts["appended"] == 0, "the second import says {counts}");

    let out = folder.path().join("export.jsonl");
    tl(&server.url, &["session", "export", "--all", "--out", &out.to_string_lossy()]).run()?;
    let exported = Contents::read(&out)?;
    imported.same_as(&exported).context("the export differs")?;

    let followed = following.end(&runtime, &client)?;
    let longest = imported.sessions.iter().max_by_key(|(_, events)| events.len());
    let (id, events) = longest.context("the data set is empty")?;
    let delivered = tails::by_command(&server.url, id, events.len() as u64)?
        + runtime.block_on(tails::from_the_middle(&client, id))?;

    // The same events must be there after a crash, and the runs on disk must be sound.
    server.kill()?;
    scrub(&data)?;
    Ok(Verdict::Ok(format!(
        "{} sessions, {} events; on three fronts {followed} events tailed during the imports and \
         {delivered} after them; {upkeep}; runs sound",
        set.sessions,
        exported.events()
    )))
}

/// `tl` with these words, talking to the node at `url`.
pub(super) fn tl(url: &str, words: &[&str]) -> Call {
    Call::new(tree::tl()).args(words).args(["--url", url])
}

/// Imports a file, and gives what `tl` says of it.
pub(super) fn import(url: &str, path: &Path) -> Result<Value> {
    let path = path.to_string_lossy();
    let printed = tl(url, &["session", "import", &path, "--json"]).output()?;
    let last = printed.lines().next_back().context("the import printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("the import's last line is {last}"))
}

/// The first session of the file that can be cut in two.
fn at_the_front(contents: &Contents) -> Result<Begun> {
    let first = contents.sessions.iter().find(|(_, events)| events.len() >= 2);
    let (id, events) = first.context("no session has two events")?;
    Ok(Begun::half_of(id, events))
}

/// The longest session in the last third of the file.
fn near_the_end(contents: &Contents) -> Result<Begun> {
    let late = contents.sessions.iter().skip(contents.sessions.len() / 3 * 2);
    let (id, events) = late.max_by_key(|(_, events)| events.len()).context("no session")?;
    ensure!(events.len() >= 8, "the longest late session has {} events", events.len());
    Ok(Begun::half_of(id, events))
}

/// Copies from the import file what of some sessions is written beforehand.
fn write_beginnings(set: &Path, out: &Path, begun: &[&Begun]) -> Result<()> {
    let set = BufReader::new(std::fs::File::open(set)?);
    let mut out = BufWriter::new(std::fs::File::create(out)?);
    let mut left = 0;
    for line in set.lines() {
        let line = line?;
        let value: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let is_copied = if let Some(id) = value["session"]["id"].as_str() {
            left = begun.iter().find(|begun| begun.id == id).map_or(0, |begun| begun.count);
            left > 0
        } else {
            let is_beginning = left > 0;
            left = left.saturating_sub(1);
            is_beginning
        };
        if is_copied {
            writeln!(out, "{line}")?;
        }
    }
    out.flush().context("cannot write the beginnings")
}

/// Reads in the metrics that the store flushed and compacted.
fn upkeep(metrics: &[u8]) -> Result<String> {
    let metrics = std::str::from_utf8(metrics).context("the metrics are not UTF-8")?;
    let (flushes, compactions) =
        (counter(metrics, "flushes_total")?, counter(metrics, "compactions_total")?);
    let what = format!("{flushes} flushes and {compactions} compactions by the import's end");
    ensure!(flushes > 0 && compactions > 0, "{what}");
    Ok(what)
}

/// The value of a counter without labels.
fn counter(metrics: &str, name: &str) -> Result<u64> {
    let prefix = format!("throughline_{name} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&prefix));
    let value = value.with_context(|| format!("the metrics lack {}", prefix.trim_end()))?;
    value.trim().parse().with_context(|| format!("{prefix}is {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upkeep_needs_a_flush_and_a_compaction() {
        let text = |flushes: &str, compactions: u32| {
            format!(
                "# TYPE throughline_flushes counter\n{flushes}\
                 throughline_compactions_total {compactions}\n# EOF\n"
            )
        };
        assert!(upkeep(text("throughline_flushes_total 3\n", 1).as_bytes()).is_ok());
        assert!(upkeep(text("throughline_flushes_total 3\n", 0).as_bytes()).is_err());
        assert!(upkeep(text("throughline_flushes_total 0\n", 1).as_bytes()).is_err());
        assert!(upkeep(text("", 1).as_bytes()).is_err(), "a counter that is not there");
    }

    #[test]
    fn beginnings_are_session_lines_with_their_first_events() {
        let folder = tempfile::tempdir().unwrap();
        let (set, out) = (folder.path().join("set"), folder.path().join("out"));
        let session = |id| format!("{{\"session\":{{\"id\":\"{id}\"}}}}\n");
        let event = |n| format!("{{\"event\":{{\"n\":{n}}}}}\n");
        let lines = [session("a"), event(1), event(2), session("b"), event(3), session("c")];
        std::fs::write(&set, lines.concat() + &event(4) + &event(5) + &event(6)).unwrap();
        let begun = |id: &str, count| Begun { id: id.into(), count, events: Vec::new() };
        write_beginnings(&set, &out, &[&begun("a", 1), &begun("c", 2)]).unwrap();
        let expected = [session("a"), event(1), session("c"), event(4), event(5)].concat();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), expected);
    }
}
