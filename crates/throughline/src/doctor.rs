//! `tl doctor`: what this computer is like to run a node on, in plain words.

mod clock;
mod disk;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tl_engine::lock::{DirLock, LockError};

use crate::failure::Failure;
use crate::output::{Out, count, table};

/// The finding that sums up.
const VERDICT: &str = "verdict";
/// Open files below which tails and connections soon run out.
const FILES_COMFORTABLE: u64 = 16_384;
/// Open files below which a node hardly works.
const FILES_NEEDED: u64 = 1_024;

/// Arguments of `tl doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Data directory to be used; need not exist
    #[arg(long, value_name = "DIR", default_value = "./tl-data")]
    data: PathBuf,
    /// Address to be listened on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    listen: SocketAddr,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    Warn,
    Bad,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    check: &'static str,
    status: Status,
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl Finding {
    fn new(check: &'static str, status: Status, detail: impl Into<String>) -> Finding {
        Finding { check, status, detail: detail.into(), remedy: None }
    }
}

impl Finding {
    fn remedy(self, remedy: &'static str) -> Finding {
        Finding { remedy: Some(remedy), ..self }
    }
}

/// Looks at everything; a bad finding is a failed check.
pub fn run(args: &DoctorArgs, out: &Out) -> anyhow::Result<()> {
    let mut findings = clock::look(&args.data);
    findings.extend([open_files(), port(args.listen), data_dir(&args.data)]);
    findings.extend(disk::look(&args.data));
    findings.push(verdict(&findings));
    if out.is_json() {
        for finding in &findings {
            out.json(finding)?;
        }
    } else {
        let rows: Vec<Vec<String>> = findings.iter().map(cells).collect();
        out.line(&table(&["", "CHECK", "WHAT IT MEANS"], &rows))?;
    }
    let bad = |finding: &&Finding| finding.check != VERDICT && finding.status == Status::Bad;
    let bad = findings.iter().filter(bad).count();
    match bad {
        0 => Ok(()),
        1 => Err(Failure::Check("one thing here keeps a node from running well".into()).into()),
        more => {
            let what = format!("{more} things here keep a node from running well");
            Err(Failure::Check(what).into())
        }
    }
}

fn cells(finding: &Finding) -> Vec<String> {
    let mark = match finding.status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Bad => "BAD",
    };
    let mut meaning = finding.detail.clone();
    if let Some(remedy) = finding.remedy {
        meaning.push_str("; ");
        meaning.push_str(remedy);
    }
    vec![mark.to_owned(), finding.check.to_owned(), meaning]
}

/// Whether the disk or the clock stands in the way.
fn verdict(findings: &[Finding]) -> Finding {
    let worst = |checks: &[&str]| {
        let of = findings.iter().filter(|finding| checks.contains(&finding.check));
        of.map(|finding| finding.status).max().unwrap_or(Status::Ok)
    };
    let (disk, clock) = (worst(&disk::CHECKS), worst(&clock::CHECKS));
    let said = match (disk, clock) {
        (Status::Ok, Status::Ok) => "neither the disk nor the clock stands in the way",
        (_, Status::Ok) => "the disk is the problem",
        (Status::Ok, _) => "the clock is the problem",
        _ => "both the disk and the clock are problems",
    };
    Finding::new(VERDICT, disk.max(clock), said)
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    let Some(limit) = limit else {
        return Finding::new("open files", Status::Ok, "no limit");
    };
    let (status, meaning) = match limit {
        limit if limit < FILES_NEEDED => (Status::Bad, "too few to run a node: raise it"),
        limit if limit < FILES_COMFORTABLE => {
            (Status::Warn, "each connection and open tail takes one: raise it with `ulimit -n`")
        }
        _ => (Status::Ok, "enough for tails and connections"),
    };
    Finding::new("open files", status, format!("limit {}: {meaning}", count(limit)))
}

fn port(listen: SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::new("port", Status::Ok, format!("{listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let detail = format!(
                "{listen} is taken, perhaps by a running node; `tl dev --listen 127.0.0.1:0` \
                 takes a free port"
            );
            Finding::new("port", Status::Warn, detail)
        }
        Err(error) => {
            Finding::new("port", Status::Bad, format!("cannot listen on {listen}: {error}"))
        }
    }
}

fn data_dir(data: &Path) -> Finding {
    let shown = data.display();
    let log = data.join("log");
    if !data.exists() {
        let detail = format!("{shown} does not exist yet; a node makes it");
        return Finding::new("data directory", Status::Ok, detail);
    }
    if !log.is_dir() {
        let empty = std::fs::read_dir(data).is_ok_and(|mut files| files.next().is_none());
        return match empty {
            true => Finding::new("data directory", Status::Ok, format!("{shown} is empty")),
            false => {
                let detail = format!(
                    "{shown} holds other files and no node's data: a node would start empty there"
                );
                Finding::new("data directory", Status::Warn, detail)
            }
        };
    }
    match DirLock::take(data) {
        Ok(_) => {
            let detail = format!("{shown} holds a node's data; no node runs on it now");
            Finding::new("data directory", Status::Ok, detail)
        }
        Err(LockError::InUse { .. }) => {
            Finding::new("data directory", Status::Ok, format!("a node runs on {shown}"))
        }
        Err(LockError::Io { source, .. }) => {
            let detail = format!("{shown} cannot be used: {source}");
            Finding::new("data directory", Status::Bad, detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_the_disk_or_the_clock_or_neither() {
        let said = |disk, clock| {
            let findings = [
                Finding::new("disk sync", disk, ""),
                Finding::new("clock reading", clock, ""),
                Finding::new("port", Status::Bad, ""),
            ];
            let verdict = verdict(&findings);
            (verdict.detail, verdict.status)
        };
        let (ok, warn, bad) = (Status::Ok, Status::Warn, Status::Bad);
        assert!(said(ok, ok).0.starts_with("neither"));
        assert_eq!(said(bad, ok), ("the disk is the problem".to_owned(), bad));
        assert_eq!(said(ok, warn), ("the clock is the problem".to_owned(), warn));
        assert!(said(warn, bad).0.starts_with("both") && said(warn, bad).1 == bad);
    }

    #[test]
    fn a_taken_port_is_a_warning() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        assert_eq!(port(address).status, Status::Warn);
        drop(taken);
        assert_eq!(port(address).status, Status::Ok);
    }

    #[test]
    fn a_directory_with_other_files_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(data_dir(folder.path()).status, Status::Ok);
        std::fs::write(folder.path().join("thesis.txt"), "x").expect("written");
        assert_eq!(data_dir(folder.path()).status, Status::Warn);
    }

    #[test]
    fn a_directory_in_use_is_said_to_be() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("log")).expect("a log directory");
        let _lock = DirLock::take(folder.path()).expect("locked");
        assert!(data_dir(folder.path()).detail.starts_with("a node runs"));
    }
}
