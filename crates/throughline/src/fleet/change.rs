//! Words that step in: call off, put back, have pods go down.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tl_fleet::limits::BATCH_MAX;
use tl_fleet::{Cancelled, DrainAsked, FleetService, PodId, PodState, Redriven, StepId};

use super::look::step_id;
use crate::failure::Failure;
use crate::output::Out;

/// Time between two looks at pods that are to go down.
const LOOK: Duration = Duration::from_millis(500);

/// Steps by id.
#[derive(Debug, Args)]
pub struct IdsArgs {
    /// Ids of steps
    #[arg(required = true, num_args = 1..=BATCH_MAX)]
    ids: Vec<String>,
}

impl IdsArgs {
    fn ids(&self) -> Result<Vec<StepId>, Failure> {
        self.ids.iter().map(|id| step_id(id)).collect()
    }
}

/// Arguments of `tl fleet drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Names of pods
    #[arg(required_unless_present = "all", num_args = 1..=BATCH_MAX)]
    pods: Vec<String>,
    /// Every pod that is up
    #[arg(long, conflicts_with = "pods")]
    all: bool,
    /// Wait until they are down
    #[arg(long)]
    wait: bool,
}

/// What was refused, after everything else was done.
fn refused(problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("{}", problems.join("\n  "))) }
}

/// `tl fleet cancel`.
pub async fn cancel(fleet: &FleetService, args: IdsArgs, out: &Out) -> anyhow::Result<()> {
    let ids = args.ids()?;
    let cancelled = fleet.cancel(ids.clone()).await.context("calling off")?.value;
    let mut problems = Vec::new();
    for (id, cancelled) in ids.iter().zip(cancelled) {
        let (word, said) = match cancelled {
            Cancelled::Now => ("now", format!("{id} is called off")),
            Cancelled::Asked => ("asked", format!("{id} runs; who runs it is told to stop")),
            Cancelled::Finished(state) => {
                problems.push(format!("{id} is finished: {state}"));
                continue;
            }
            Cancelled::NotFound => {
                problems.push(format!("there is no step {id}"));
                continue;
            }
        };
        out.either(&json!({ "step_id": id.to_string(), "cancel": word }), &said)?;
    }
    refused(&problems)
}

/// `tl fleet retry`.
pub async fn retry(fleet: &FleetService, args: IdsArgs, out: &Out) -> anyhow::Result<()> {
    let ids = args.ids()?;
    let redriven = fleet.redrive(ids.clone()).await.context("putting back")?.value;
    let mut problems = Vec::new();
    for (id, redriven) in ids.iter().zip(redriven) {
        match redriven {
            Redriven::Now => {
                let json = json!({ "step_id": id.to_string(), "state": "pending" });
                out.either(&json, &format!("{id} is pending"))?;
            }
            Redriven::NotNow(state) => problems.push(format!(
                "{id} is {state}; only failed, cancelled and scheduled steps are put back"
            )),
            Redriven::KeyTaken(holder) => {
                problems.push(format!("the unique key of {id} is now held by {holder}"));
            }
            Redriven::NotFound => problems.push(format!("there is no step {id}")),
        }
    }
    refused(&problems)
}

/// `tl fleet drain`.
pub async fn drain(fleet: &FleetService, args: DrainArgs, out: &Out) -> anyhow::Result<()> {
    let pods: Vec<PodId> = if args.all {
        let overview = fleet.overview().await.context("looking for pods")?;
        overview.living().map(|pod| pod.life.pod.clone()).collect()
    } else {
        let named = args.pods.iter().map(|name| {
            PodId::new(name.as_str()).map_err(|wrong| Failure::Usage(wrong.to_string()))
        });
        named.collect::<Result<_, _>>()?
    };
    let (mut problems, mut asked) = (Vec::new(), Vec::new());
    for chunk in pods.chunks(BATCH_MAX) {
        let answers = fleet.ask_drain(chunk.to_vec()).await.context("asking to drain")?.value;
        for (pod, answer) in chunk.iter().zip(answers) {
            match answer {
                DrainAsked::Asked => asked.push(pod),
                DrainAsked::NotUp => problems.push(format!("no pod {pod} is up")),
            }
        }
    }
    if !args.wait {
        for pod in &asked {
            let said = format!("{pod} is told with its next heartbeat");
            out.either(&json!({ "pod_id": pod.as_str(), "drain": "asked" }), &said)?;
        }
        return refused(&problems);
    }
    let mut waiting = asked;
    while !waiting.is_empty() {
        let overview = fleet.overview().await.context("looking at pods")?;
        let is_up = |name: &PodId| {
            let mut named = overview.pods.iter().filter(|pod| pod.life.pod == *name);
            named.any(|pod| pod.state == PodState::Up && pod.lease_until > overview.at)
        };
        let (still, down): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|pod| is_up(pod));
        for pod in down {
            out.either(
                &json!({ "pod_id": pod.as_str(), "drain": "down" }),
                &format!("{pod} is down"),
            )?;
        }
        waiting = still;
        if !waiting.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
    refused(&problems)
}
