//! A step as a process: JSON in, JSON out.
//!
//! The program reads one JSON object from its standard input,
//! `{"step_id":…,"type":…,"attempt":…,"idempotency_key":…,"args":…,"metadata":…}`, and writes one
//! JSON value to its standard output, or nothing for `null`. Exit code 0 is success. Exit code 65
//! is an error that another attempt cannot mend; any other is one that it may. The end of its
//! standard error is kept as the error.
//!
//! It leads a process group of its own. When it ends, is stopped or runs out of time, the whole
//! group is killed: nothing that it started outlives the attempt.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{Handled, Handler, HandlerError, Run};
use crate::error::InvalidInput;
use crate::json::JsonText;
use crate::limits::RESULT_BYTES_MAX;

/// The exit code that says: do not try again (`EX_DATAERR` of sysexits).
const EXIT_FATAL: i32 = 65;
/// Bytes of standard error that are kept, its end.
const STDERR_KEPT_BYTES: usize = 4 * 1024;

/// Runs a program for each step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The program, looked up as a shell would.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Exec {
    /// From a line such as `cat` or `python3 work.py --fast`, split at spaces; there is no
    /// quoting.
    ///
    /// # Errors
    /// [`InvalidInput`] for an empty line.
    pub fn from_line(line: &str) -> Result<Exec, InvalidInput> {
        let mut words = line.split_whitespace().map(OsString::from);
        match words.next() {
            Some(program) => Ok(Exec { program, args: words.collect() }),
            None => Err(InvalidInput::new("exec", "must name a program")),
        }
    }
}

#[derive(Serialize)]
struct Input<'r> {
    step_id: String,
    r#type: &'r str,
    attempt: u64,
    idempotency_key: String,
    args: &'r RawValue,
    metadata: &'r RawValue,
}

fn input(run: &Run) -> Result<Vec<u8>, serde_json::Error> {
    let claim = &run.claim;
    let mut text = serde_json::to_vec(&Input {
        step_id: claim.key.id.to_string(),
        r#type: claim.kind.as_str(),
        attempt: claim.attempt.0,
        idempotency_key: run.idempotency_key(),
        args: serde_json::from_str(claim.args.as_str())?,
        metadata: serde_json::from_str(claim.metadata.as_str())?,
    })?;
    text.push(b'\n');
    Ok(text)
}

impl Handler for Exec {
    fn run(&self, run: Run) -> Handled {
        let exec = self.clone();
        Box::pin(async move { exec.attempt(&run).await })
    }
}

impl Exec {
    async fn attempt(&self, run: &Run) -> Result<JsonText, HandlerError> {
        let input = input(run).map_err(HandlerError::fatal)?;
        let name = self.program.to_string_lossy();
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| HandlerError::retry(format!("{name} cannot be started: {error}")))?;
        let group = Group::of(&child);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let feed = async move {
            if let Some(mut stdin) = stdin {
                // A program need not read what it is given.
                drop(stdin.write_all(&input).await);
            }
        };
        let wait = async {
            let status = child.wait().await;
            // What it has left behind would hold its output open.
            group.kill();
            status
        };
        let ((), output, errors, status) =
            tokio::join!(feed, head(stdout, RESULT_BYTES_MAX), end_of(stderr), wait);
        let status = status.map_err(|error| HandlerError::retry(format!("{name}: {error}")))?;
        if !status.success() {
            let text = format!("{name} ended with {status}: {}", errors.trim());
            return Err(match status.code() {
                Some(EXIT_FATAL) => HandlerError::fatal(text),
                _ => HandlerError::retry(text),
            });
        }
        let output = output
            .map_err(|problem| HandlerError::fatal(format!("the output of {name} {problem}")))?;
        if output.trim().is_empty() {
            return Ok(JsonText::null());
        }
        JsonText::value("output", &output)
            .map_err(|error| HandlerError::fatal(format!("{name}: {error}")))
    }
}

/// All of the output when it is no longer than the limit and text. What is past the limit is
/// read and dropped, so that the program is not stuck.
async fn head(pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> Result<String, String> {
    let Some(mut pipe) = pipe else { return Ok(String::new()) };
    let (mut kept, mut total, mut chunk) = (Vec::new(), 0, vec![0; 16 * 1024]);
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        total += read;
        if total <= bytes_max {
            kept.extend_from_slice(&chunk[..read]);
        }
    }
    if total > bytes_max {
        return Err(format!("has {total} bytes, more than {bytes_max}"));
    }
    String::from_utf8(kept).map_err(|_| "is not UTF-8".to_owned())
}

async fn end_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 4 * 1024]);
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        let over = kept.len().saturating_sub(STDERR_KEPT_BYTES);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The process group that a child leads, 0 when it was killed. Killed when dropped: with the
/// handler's future. Only once, for its number may be another's later.
struct Group(AtomicI32);

impl Group {
    fn of(child: &Child) -> Group {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Group(AtomicI32::new(id.unwrap_or(0)))
    }

    fn kill(&self) {
        if let Some(group) = Pid::from_raw(self.0.swap(0, Ordering::Relaxed)) {
            // Gone already is as good.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
