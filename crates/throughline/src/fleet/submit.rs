//! `tl fleet submit`: one step, or one per line.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use serde_json::json;
use tl_fleet::limits::{BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX, RETRIES_DEFAULT};
use tl_fleet::{
    FleetService, JsonText, Kind, NewStep, RunAt, Step, StepId, StepState, Submitted, Unique,
    UniqueUntil,
};
use tl_gateway::fleet::{StepShape, submitted_json};
use tl_types::UnixMs;

use crate::failure::Failure;
use crate::output::{Out, count};

/// Steps in one call.
const BATCH: usize = 500;
/// One look for a result waits so long.
const LOOK: Duration = Duration::from_secs(5);

/// Arguments of `tl fleet submit`.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// What sort of work; pods take the kinds that they can run
    kind: String,
    /// What the handler is given: a JSON object
    #[arg(long, value_name = "JSON", conflicts_with = "lines")]
    args: Option<String>,
    /// One step per line of a file, `-` for the standard input: each line is a step's arguments
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "unique_key", "wait"])]
    lines: Option<PathBuf>,
    /// What goes along with it: a JSON object
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Larger is sooner
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Attempts after the first that may fail before it is given up
    #[arg(long, default_value_t = RETRIES_DEFAULT)]
    max_retries: u32,
    /// First run so many milliseconds from now
    #[arg(long, value_name = "MS", conflicts_with = "run_at")]
    delay_ms: Option<u64>,
    /// First run at this time, such as 2030-01-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    run_at: Option<String>,
    /// Longest run of one attempt, milliseconds
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// A name of your own: while a step holds it, another submission under it changes nothing
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// How long the name is held
    #[arg(long, value_enum, requires = "unique_key", default_value_t = Until::Forgotten)]
    unique_until: Until,
    /// Id of the step, a UUID; the same submission may then be sent again
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    /// Wait for the result and print it
    #[arg(long)]
    wait: bool,
}

/// How long a unique key is held.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Until {
    /// Until the step is finished
    Finished,
    /// Until the step is forgotten
    Forgotten,
}

fn wrong(name: &str, problem: impl std::fmt::Display) -> anyhow::Error {
    Failure::Usage(format!("{name}: {problem}")).into()
}

impl SubmitArgs {
    fn step(&self, args: JsonText) -> anyhow::Result<NewStep> {
        let kind = Kind::new(self.kind.as_str()).map_err(|e| Failure::Usage(e.to_string()))?;
        let mut step = NewStep { args, ..NewStep::new(kind) };
        if let Some(text) = &self.metadata {
            step.metadata =
                JsonText::object("--metadata", text).map_err(|e| Failure::Usage(e.to_string()))?;
        }
        step.priority = self.priority;
        step.attempts_max = self.max_retries.saturating_add(1);
        step.run_at = match (self.delay_ms, &self.run_at) {
            (Some(ms), _) => RunAt::InMs(ms),
            (None, Some(text)) => {
                let at = UnixMs::parse_rfc3339(text);
                RunAt::At(at.ok_or_else(|| wrong("--run-at", "must be an RFC 3339 time"))?)
            }
            (None, None) => RunAt::Now,
        };
        step.timeout_ms = self.timeout_ms;
        if let Some(id) = &self.id {
            step.id = id.parse().map_err(|e| wrong("--id", e))?;
        }
        let until = match self.unique_until {
            Until::Finished => UniqueUntil::Finished,
            Until::Forgotten => UniqueUntil::Forgotten,
        };
        step.unique = self.unique_key.clone().map(|key| Unique { key, until });
        step.check().map_err(|e| Failure::Usage(e.to_string()))?;
        Ok(step)
    }
}

/// Runs the word.
pub async fn run(fleet: &FleetService, args: SubmitArgs, out: &Out) -> anyhow::Result<()> {
    if let Some(path) = &args.lines {
        return lines(fleet, &args, path, out).await;
    }
    let given = match &args.args {
        Some(text) => {
            JsonText::object("--args", text).map_err(|e| Failure::Usage(e.to_string()))?
        }
        None => JsonText::empty_object(),
    };
    let step = args.step(given)?;
    let submitted = send(fleet, vec![step]).await?;
    let one = submitted.first().ok_or_else(|| anyhow!("nothing was submitted"))?;
    if !args.wait {
        return out.either(&submitted_json(one), &one.id.to_string());
    }
    out.note(&format!("{} is {}", one.id, one.state));
    wait(fleet, one.id, out).await
}

async fn send(fleet: &FleetService, steps: Vec<NewStep>) -> anyhow::Result<Vec<Submitted>> {
    let submitted = fleet.submit(steps).await.context("submitting")?.value;
    Ok(submitted)
}

/// Waits until the step is finished, and prints what it gave.
pub async fn wait(fleet: &FleetService, id: StepId, out: &Out) -> anyhow::Result<()> {
    let mut told = false;
    loop {
        let found = fleet.wait(id, LOOK).await.context("waiting for the result")?.value;
        let step = found.ok_or_else(|| not_found(id))?;
        if step.state.is_finished() {
            return ended(&step, out);
        }
        if !told && step.state == StepState::Pending {
            told = true;
            let overview = fleet.overview().await.context("looking for pods")?;
            if overview.unserved().any(|count| count.kind == step.kind) {
                let kind = &step.kind;
                out.note(&format!("no pod runs {kind}: `tl fleet run --kind {kind}=exec:PROGRAM`"));
            }
        }
    }
}

/// There is no such step.
pub fn not_found(id: StepId) -> Failure {
    Failure::WithAdvice {
        what: format!("there is no step {id}"),
        advice: "`tl fleet list` shows what is there; finished steps are forgotten after a while"
            .to_owned(),
    }
}

fn ended(step: &Step, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        out.json(&StepShape::new(step))?;
    } else if let Some(result) = &step.result {
        out.line(result.as_str())?;
    }
    if step.state == StepState::Completed {
        return Ok(());
    }
    let why = step.last_error.as_deref().unwrap_or("without a word");
    Err(Failure::WithAdvice {
        what: format!("step {} is {}: {why}", step.id, step.state),
        advice: format!("`tl fleet retry {}` runs it again", step.id),
    }
    .into())
}

async fn lines(
    fleet: &FleetService,
    args: &SubmitArgs,
    path: &std::path::Path,
    out: &Out,
) -> anyhow::Result<()> {
    let mut input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path);
        Box::new(BufReader::new(file.with_context(|| format!("opening {}", path.display()))?))
    };
    let (mut number, mut sent, mut bytes) = (0_u64, 0_u64, 0);
    let mut batch: Vec<NewStep> = Vec::new();
    loop {
        let mut line = String::new();
        // One byte past the limit is enough to know that it is too long.
        let read = (&mut input).take(PAYLOAD_BYTES_MAX as u64 + 2).read_line(&mut line);
        let read = read.with_context(|| format!("reading {}", path.display()))?;
        number += 1;
        let text = line.trim();
        if !text.is_empty() {
            let place = || format!("line {number} (the first {sent} steps are submitted)");
            let given = JsonText::object("arguments", text)
                .map_err(|e| Failure::Usage(format!("{}: {e}", place())))?;
            let step = args.step(given).with_context(place)?;
            if batch.len() == BATCH || bytes + step.payload_bytes() > BATCH_BYTES_MAX {
                sent += flush(fleet, &mut batch, out).await?;
                bytes = 0;
            }
            bytes += step.payload_bytes();
            batch.push(step);
        }
        if read == 0 {
            sent += flush(fleet, &mut batch, out).await?;
            out.note(&format!("{} steps are submitted", count(sent)));
            return Ok(());
        }
    }
}

async fn flush(fleet: &FleetService, batch: &mut Vec<NewStep>, out: &Out) -> anyhow::Result<u64> {
    if batch.is_empty() {
        return Ok(0);
    }
    let submitted = send(fleet, std::mem::take(batch)).await?;
    for one in &submitted {
        out.either(&json!({ "step_id": one.id.to_string() }), &one.id.to_string())?;
    }
    Ok(submitted.len() as u64)
}
