//! Shows by system calls that an acknowledgement follows the sync of what it acknowledges.
//!
//! Killing a process keeps the page cache, so no kill can tell whether a node syncs before it
//! answers. A traced node can: the write that carries the event, then a finished sync of the
//! same file, then the reply.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::Call;
use crate::server::{Server, serve_args};
use crate::tree;

/// Text in the appended event by which its bytes are recognised in the trace.
const MARK: &str = "sync-order-mark-7f3a9c";
/// Longest wait for the tracer to end behind the node.
const TRACE_MAX: Duration = Duration::from_secs(20);

/// Traces one append on the release binary and checks the order.
pub fn run() -> Result<()> {
    let tl = tree::built_tl()?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let trace = folder.path().join("trace");
    let data = folder.path().join("data");
    let mut command = Command::new("strace");
    command
        // The tracer is a child of the node and not the other way round, so that the process
        // that is killed is the node, and the tracer ends with it.
        .args(["--daemonize", "-f", "-y", "-s", "4096", "-o"])
        .arg(&trace)
        .args(["-e", "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync"])
        .arg(tl)
        .args(serve_args(&data));
    let server = Server::spawn(command)?;
    post(&server.url, "/v1/sessions", r#"{"id":"traced"}"#)?;
    let event = format!(
        r#"{{"type":"note","payload":{{"text":"{MARK}"}},"producer_id":"p","producer_seq":1}}"#
    );
    post(&server.url, "/v1/sessions/traced/append", &event)?;
    server.kill()?;
    let order = order(&whole_trace(&trace)?, &data)?;
    println!("{order}");
    Ok(())
}

/// The trace, once the tracer has written its last line about the killed node.
fn whole_trace(path: &Path) -> Result<String> {
    let deadline = Instant::now() + TRACE_MAX;
    loop {
        let bytes = std::fs::read(path).context("strace wrote no trace")?;
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("+++ killed by SIGKILL +++") {
            return Ok(text.into_owned());
        }
        ensure!(Instant::now() < deadline, "strace did not notice the end of the node");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn post(url: &str, path: &str, body: &str) -> Result<()> {
    let reply = Call::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "30",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(["--header", "content-type: application/json", "--data", body])
        .args([format!("{url}{path}")])
        .output()?;
    ensure!(reply.ends_with("\n201"), "POST {path} answered {reply}");
    Ok(())
}

/// Finds write, sync and reply in a trace and says where they are, or what is wrong.
fn order(trace: &str, data: &Path) -> Result<String> {
    let lines: Vec<&str> = trace.lines().collect();
    let data = data.to_string_lossy();
    let is_write = |line: &str| line.contains("write") && line.contains(&*data);
    let Some(write) = lines.iter().position(|line| line.contains(MARK) && is_write(line)) else {
        bail!("no write into the data folder carries the event");
    };
    let file = file_of(lines[write]).context("the write names no file")?;
    let reply = lines[write..]
        .iter()
        .position(|line| line.contains("HTTP/1.1 201"))
        .map(|at| write + at)
        .context("no reply follows the write of the event")?;
    let replies = lines[..reply].iter().filter(|line| line.contains("HTTP/1.1 201")).count();
    ensure!(replies == 1, "expected one reply (to the create) before it, saw {replies}");
    let written = finished(&lines, write).context("the write never finished")?;
    let synced = lines
        .iter()
        .enumerate()
        .skip(written)
        .filter(|(_, line)| line.contains("sync(") && file_of(line) == Some(file))
        .filter_map(|(at, _)| finished(&lines, at))
        .min()
        .context("the event's file is never synced after the write")?;
    ensure!(
        synced < reply,
        "the reply (trace line {}) does not follow the finished sync (line {})",
        reply + 1,
        synced + 1
    );
    Ok(format!(
        "write at trace line {}, sync finished at {}, reply at {}",
        write + 1,
        synced + 1,
        reply + 1
    ))
}

/// The path between `<` and `>` behind the first argument's number.
fn file_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once('(')?;
    let (_, rest) = rest.split_once('<')?;
    Some(rest.split_once('>')?.0)
}

/// The line in which the call begun in line `at` returned without an error.
fn finished(lines: &[&str], at: usize) -> Option<usize> {
    let line = lines[at];
    if !line.ends_with("<unfinished ...>") {
        let value = line.rsplit_once("= ")?.1;
        return (!value.starts_with('-')).then_some(at);
    }
    let thread = line.split_whitespace().next()?;
    let call = line.split_whitespace().nth(1)?.split('(').next()?;
    let resumed = format!("<... {call} resumed>");
    let later = lines.iter().enumerate().skip(at + 1);
    let (end, line) = later
        .filter(|(_, line)| line.split_whitespace().next() == Some(thread))
        .find(|(_, line)| line.contains(&resumed))?;
    let value = line.rsplit_once("= ")?.1;
    (!value.starts_with('-')).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &[&str]) -> Result<String> {
        order(&lines.join("\n"), Path::new("/d"))
    }

    const CREATE: &str = r#"9 write(7<socket:[1]>, "HTTP/1.1 201 Created"..., 90) = 90"#;
    const WRITE: &str = r#"8 pwrite64(5</d/log/1>, "sync-order-mark-7f3a9c", 22, 0) = 22"#;
    const SYNC: &str = "8 fdatasync(5</d/log/1>)              = 0";
    const REPLY: &str = r#"9 write(7<socket:[1]>, "HTTP/1.1 201 Created"..., 90) = 90"#;

    #[test]
    fn reply_after_the_sync_passes() {
        assert!(judge(&[CREATE, WRITE, SYNC, REPLY]).is_ok());
    }

    #[test]
    fn reply_before_the_sync_is_found() {
        assert!(judge(&[CREATE, WRITE, REPLY, SYNC]).is_err());
        assert!(judge(&[CREATE, WRITE, REPLY]).is_err());
    }

    #[test]
    fn a_sync_that_has_only_begun_when_the_reply_leaves_is_not_enough() {
        let begun = "8 fdatasync(5</d/log/1> <unfinished ...>";
        let done = "8 <... fdatasync resumed>)              = 0";
        assert!(judge(&[CREATE, WRITE, begun, REPLY, done]).is_err());
        assert!(judge(&[CREATE, WRITE, begun, done, REPLY]).is_ok());
    }

    #[test]
    fn a_sync_of_another_file_or_a_failed_one_does_not_count() {
        let other = "8 fdatasync(6</d/log/2>) = 0";
        let failed = "8 fdatasync(5</d/log/1>) = -1 EIO (Input/output error)";
        assert!(judge(&[CREATE, WRITE, other, REPLY]).is_err());
        assert!(judge(&[CREATE, WRITE, failed, REPLY]).is_err());
    }

    #[test]
    fn a_sync_that_began_before_the_write_does_not_count() {
        let begun = "8 fdatasync(5</d/log/1> <unfinished ...>";
        let done = "8 <... fdatasync resumed>)              = 0";
        let write = WRITE.replacen('8', "6", 1);
        assert!(judge(&[CREATE, begun, &write, done, REPLY]).is_err());
    }
}
