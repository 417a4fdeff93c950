//! A step as a process: JSON in, JSON out.
//!
//! The program reads one JSON object from its standard input,
//! `{"step_id":…,"type":…,"attempt":…,"idempotency_key":…,"args":…,"metadata":…}`, and writes one
//! JSON value to its standard output, or nothing for `null`. Exit code 0 is success. Exit code 65
//! is an error that another attempt cannot mend; any other is one that it may. The end of its
//! standard error is kept as the error.
//!
//! It leads a process group of its own. When it ends, is stopped or runs out of time, the whole
//! group is killed; in a process that has taken charge of orphans, as `tl fleet run` does on
//! Linux, so is what has left the group (see `orphans`). What the program has written when it ends
//! counts; for what others write into its output then, nobody waits.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::orphans::{self, Trace};
use super::{Handled, Handler, HandlerError, Run};
use crate::error::InvalidInput;
use crate::json::JsonText;
use crate::limits::RESULT_BYTES_MAX;

/// The exit code that says: do not try again (`EX_DATAERR` of sysexits).
const EXIT_FATAL: i32 = 65;
/// Bytes of standard error that are kept, its end.
const STDERR_KEPT_BYTES: usize = 4 * 1024;
/// How long the output of a program that has ended is read on while others hold it open.
const LINGER: Duration = Duration::from_secs(1);

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
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let (mut child, trace) = orphans::spawn(&mut command)
            .map_err(|error| HandlerError::retry(format!("{name} cannot be started: {error}")))?;
        let mut behind = Behind(Some(trace));
        let (mut output, mut errors) = (Head::default(), Vec::new());
        let status = {
            let stdin = child.stdin.take();
            let feed = async move {
                if let Some(mut stdin) = stdin {
                    // A program need not read what it is given.
                    drop(stdin.write_all(&input).await);
                }
            };
            let output = output.read(child.stdout.take(), RESULT_BYTES_MAX);
            let errors = end_of(child.stderr.take(), &mut errors);
            let pipes = async { tokio::join!(feed, output, errors) };
            tokio::pin!(pipes);
            let mut read = false;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut pipes, if !read => read = true,
                }
            };
            // What it has left behind would hold its output open.
            behind.clear().await;
            if !read {
                drop(tokio::time::timeout(LINGER, pipes).await);
            }
            status
        };
        let status = status.map_err(|error| HandlerError::retry(format!("{name}: {error}")))?;
        if !status.success() {
            let errors = String::from_utf8_lossy(&errors);
            let text = format!("{name} ended with {status}: {}", errors.trim());
            return Err(match status.code() {
                Some(EXIT_FATAL) => HandlerError::fatal(text),
                _ => HandlerError::retry(text),
            });
        }
        let output = output
            .text(RESULT_BYTES_MAX)
            .map_err(|problem| HandlerError::fatal(format!("the output of {name} {problem}")))?;
        if output.trim().is_empty() {
            return Ok(JsonText::null());
        }
        JsonText::value("output", &output)
            .map_err(|error| HandlerError::fatal(format!("{name}: {error}")))
    }
}

/// The beginning of an output, up to a limit. What is past it is read and dropped, so that the
/// program is not stuck.
#[derive(Debug, Default)]
struct Head {
    kept: Vec<u8>,
    total: usize,
}

impl Head {
    /// Reads to the end. Dropped before, it has what was read so far.
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            self.total += read;
            if self.total <= bytes_max {
                self.kept.extend_from_slice(&chunk[..read]);
            }
        }
    }

    /// All of it, when it is no longer than the limit and text.
    fn text(self, bytes_max: usize) -> Result<String, String> {
        if self.total > bytes_max {
            return Err(format!("has {} bytes, more than {bytes_max}", self.total));
        }
        String::from_utf8(self.kept).map_err(|_| "is not UTF-8".to_owned())
    }
}

async fn end_of(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 4 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        let over = kept.len().saturating_sub(STDERR_KEPT_BYTES);
        kept.drain(..over);
    }
}

/// What a program may leave behind; cleared away once, at the latest when dropped: with the
/// handler's future. Not twice, for its number may be another's later.
struct Behind(Option<Trace>);

impl Behind {
    fn kill(&mut self) -> Option<Trace> {
        let trace = self.0.take()?;
        if let Some(group) = trace.group() {
            // Gone already is as good.
            let _gone = kill_process_group(group, Signal::KILL);
        }
        Some(trace)
    }

    async fn clear(&mut self) {
        if let Some(trace) = self.kill() {
            // In a task of its own: it goes on when nobody waits for the attempt any more.
            drop(tokio::spawn(trace.clear()).await);
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let (Some(trace), Ok(runtime)) = (self.kill(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(trace.clear());
        }
    }
}
