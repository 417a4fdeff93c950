//! Words that only look: how the fleet stands, steps, dead letters, pods, the leader.

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use tl_fleet::{
    AttemptRecord, DeadLetter, FleetService, Kind, Leader, Overview, PageRequest, PageToken, Pod,
    PodId, Step, StepFilter, StepId, StepState,
};
use tl_gateway::fleet::{PodShape, StepShape, attempt_json, dead_letter_json};
use tl_types::UnixMs;

use super::submit::{not_found, wait};
use super::watch::{Seen, WatchArgs, show};
use crate::failure::Failure;
use crate::output::{Out, count, shorten, table};

/// Longest JSON or error on a line, characters.
const TEXT_MAX: usize = 80;
/// The same where it has a line of its own.
const LINE_MAX: usize = 2_000;

/// Arguments of `tl fleet status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Id of a step; how the fleet stands when absent
    id: Option<String>,
    /// Wait until the step is finished and print its result alone
    #[arg(long, requires = "id", conflicts_with = "watch")]
    wait: bool,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Arguments of `tl fleet list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only steps that stand so: scheduled, pending, claimed, completed, failed, cancelled; with
    /// commas for several
    #[arg(long, value_delimiter = ',', value_parser = state)]
    state: Vec<StepState>,
    /// Only steps of this kind
    #[arg(long = "type", value_name = "KIND", value_parser = kind)]
    kind: Option<Kind>,
    /// Only steps that this pod holds or held last
    #[arg(long, value_name = "NAME", value_parser = pod)]
    pod: Option<PodId>,
    /// Only the step submitted under this name
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// Only steps with this text in arguments or metadata
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only steps submitted at this time or later, such as 2030-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<UnixMs>,
    /// Only steps submitted before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<UnixMs>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Which page.
#[derive(Debug, Args)]
struct PageArgs {
    /// Most rows
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Go on where a page before ended
    #[arg(long, value_name = "TOKEN")]
    page: Option<String>,
}

impl PageArgs {
    fn request(&self) -> PageRequest {
        PageRequest { after: self.page.clone().map(PageToken), limit: self.limit }
    }
}

/// Arguments of `tl fleet dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    /// Also those that were put back
    #[arg(long)]
    retried: bool,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

fn state(word: &str) -> Result<StepState, String> {
    StepState::from_word(word).ok_or_else(|| {
        let words: Vec<_> = StepState::ALL.iter().map(|state| state.word()).collect();
        format!("there are {}", words.join(", "))
    })
}

fn kind(word: &str) -> Result<Kind, String> {
    Kind::new(word).map_err(|wrong| wrong.to_string())
}

fn pod(name: &str) -> Result<PodId, String> {
    PodId::new(name).map_err(|wrong| wrong.to_string())
}

fn time(text: &str) -> Result<UnixMs, String> {
    UnixMs::parse_rfc3339(text).ok_or_else(|| "must be an RFC 3339 time".to_owned())
}

/// An id as it was typed.
pub fn step_id(text: &str) -> Result<StepId, Failure> {
    text.parse().map_err(|wrong| Failure::Usage(format!("{text:?}: {wrong}")))
}

/// `tl fleet status`.
pub async fn status(fleet: &FleetService, args: StatusArgs, out: &Out) -> anyhow::Result<()> {
    let Some(id) = &args.id else {
        return show(args.watch, out, async || {
            let overview = fleet.overview().await.context("looking")?;
            Ok(Seen::now(overview_text(&overview), vec![overview_json(&overview)]))
        })
        .await;
    };
    let id = step_id(id)?;
    if args.wait {
        return wait(fleet, id, out).await;
    }
    show(args.watch, out, async || {
        let found = fleet.step(id).await.context("looking")?.value;
        let step = found.ok_or_else(|| not_found(id))?;
        let attempts = fleet.attempts(id).await.context("looking at its attempts")?.value;
        let mut json = serde_json::to_value(StepShape::new(&step))?;
        json["attempts"] = attempts.iter().map(attempt_json).collect();
        Ok(Seen {
            text: step_text(&step, &attempts),
            json: vec![json],
            is_last: step.state.is_finished(),
        })
    })
    .await
}

fn overview_json(overview: &Overview) -> Value {
    let counts = &overview.counts;
    json!({
        "scheduled": counts.scheduled,
        "pending": counts.pending,
        "claimed": counts.claimed,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "pods": overview.living().count(),
        "leader": overview.leading().map(|leader| leader.life.pod.as_str()),
        "types": counts.by_kind.iter().map(|of| json!({
            "type": of.kind.as_str(),
            "scheduled": of.scheduled,
            "pending": of.pending,
            "claimed": of.claimed,
            "oldest_pending": of.oldest_pending.map(|at| at.to_string()),
        })).collect::<Vec<_>>(),
        "unserved_types": overview.unserved().map(|of| of.kind.as_str()).collect::<Vec<_>>(),
        "at": overview.wall.to_string(),
    })
}

fn overview_text(overview: &Overview) -> String {
    let counts = &overview.counts;
    let mut lines = vec![
        format!("pods       {}", overview.living().count()),
        format!(
            "leader     {}",
            overview.leading().map_or("nobody", |leader| leader.life.pod.as_str())
        ),
    ];
    for (state, steps) in [
        (StepState::Scheduled, counts.scheduled),
        (StepState::Pending, counts.pending),
        (StepState::Claimed, counts.claimed),
        (StepState::Completed, counts.completed),
        (StepState::Failed, counts.failed),
        (StepState::Cancelled, counts.cancelled),
    ] {
        lines.push(format!("{:<10} {}", state.word(), count(steps)));
    }
    if !counts.by_kind.is_empty() {
        let rows: Vec<Vec<String>> = counts
            .by_kind
            .iter()
            .map(|of| {
                vec![
                    of.kind.to_string(),
                    count(of.scheduled),
                    count(of.pending),
                    count(of.claimed),
                    of.oldest_pending.map_or(String::new(), |at| at.to_string()),
                ]
            })
            .collect();
        let header = ["TYPE", "SCHEDULED", "PENDING", "CLAIMED", "OLDEST PENDING"];
        lines.push(format!("\n{}", table(&header, &rows)));
    }
    for of in overview.unserved() {
        let (kind, pending) = (&of.kind, count(of.pending));
        lines.push(format!("\nno living pod runs {kind}: {pending} wait (workers that pull over HTTP are not known here)"));
    }
    lines.join("\n")
}

fn step_text(step: &Step, attempts: &[AttemptRecord]) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("{name:<10} {text}"));
    line("id", step.id.to_string());
    line("type", step.kind.to_string());
    let asked = if step.cancel_asked { ", asked to stop" } else { "" };
    line("state", format!("{}{asked}", step.state));
    line("attempt", step.attempt.to_string());
    line("charged", format!("{} of {} attempts", step.charged, step.attempts_max));
    line("priority", step.priority.to_string());
    line("args", shorten(step.args.as_str(), LINE_MAX));
    if step.metadata.as_str() != "{}" {
        line("metadata", shorten(step.metadata.as_str(), LINE_MAX));
    }
    if let Some(unique) = &step.unique {
        line("unique", format!("{} until {}", shorten(&unique.key, TEXT_MAX), unique.until));
    }
    if let Some(pod) = &step.claimed_by {
        line("pod", pod.to_string());
    }
    if let Some(progress) = &step.progress {
        line("progress", shorten(progress.as_str(), LINE_MAX));
    }
    line("submitted", step.created_at.to_string());
    if step.state == StepState::Scheduled {
        line("runs at", step.run_at.to_string());
    }
    if let Some(at) = step.finished_at {
        line("finished", at.to_string());
    }
    if let Some(result) = &step.result {
        line("result", shorten(result.as_str(), LINE_MAX));
    }
    if let Some(error) = &step.last_error {
        line("error", shorten(error, LINE_MAX));
    }
    if !attempts.is_empty() {
        let rows: Vec<Vec<String>> = attempts
            .iter()
            .map(|attempt| {
                vec![
                    attempt.attempt.to_string(),
                    attempt.end.to_string(),
                    attempt.pod.to_string(),
                    attempt.claimed_at.to_string(),
                    attempt.ended_at.map_or(String::new(), |at| at.to_string()),
                    shorten(attempt.error.as_deref().unwrap_or_default(), TEXT_MAX),
                ]
            })
            .collect();
        let header = ["ATTEMPT", "END", "POD", "CLAIMED", "ENDED", "ERROR"];
        lines.push(format!("\n{}", table(&header, &rows)));
    }
    lines.join("\n")
}

/// A page of rows as text, with how to go on.
fn page_text(header: &[&str], rows: &[Vec<String>], next: Option<&PageToken>) -> String {
    let mut text = if rows.is_empty() { "nothing".to_owned() } else { table(header, rows) };
    if let Some(next) = next {
        text.push_str(&format!("\n\nmore with --page {}", next.0));
    }
    text
}

/// The rows of a page for programs; the token is a row of its own, so that rows are alike.
fn page_json(mut rows: Vec<Value>, next: Option<&PageToken>) -> Vec<Value> {
    rows.extend(next.map(|next| json!({ "next_page": next.0 })));
    rows
}

/// `tl fleet list`.
pub async fn list(fleet: &FleetService, args: ListArgs, out: &Out) -> anyhow::Result<()> {
    let filter = StepFilter {
        states: args.state,
        kind: args.kind,
        pod: args.pod,
        unique_key: args.unique_key,
        created_from: args.from,
        created_before: args.before,
        contains: args.contains,
    };
    show(args.watch, out, async || {
        let page = fleet.list(filter.clone(), args.page.request()).await.context("listing")?;
        let page = page.value;
        let row = |step: &Step| {
            let said = step.last_error.as_deref().or(step.result.as_ref().map(|it| it.as_str()));
            vec![
                step.id.to_string(),
                step.kind.to_string(),
                step.state.to_string(),
                step.attempt.to_string(),
                step.created_at.to_string(),
                step.claimed_by.as_ref().map_or(String::new(), ToString::to_string),
                shorten(said.unwrap_or_default(), TEXT_MAX),
            ]
        };
        let rows: Vec<_> = page.items.iter().map(row).collect();
        let header = ["ID", "TYPE", "STATE", "ATTEMPT", "SUBMITTED", "POD", "RESULT OR ERROR"];
        let json: Result<Vec<_>, _> =
            page.items.iter().map(|step| serde_json::to_value(StepShape::new(step))).collect();
        let next = page.next.as_ref();
        Ok(Seen::now(page_text(&header, &rows, next), page_json(json?, next)))
    })
    .await
}

/// `tl fleet dead-letters`.
pub async fn dead_letters(
    fleet: &FleetService,
    args: DeadLettersArgs,
    out: &Out,
) -> anyhow::Result<()> {
    show(args.watch, out, async || {
        let page = fleet.dead_letters(args.retried, args.page.request()).await;
        let page = page.context("listing dead letters")?.value;
        let row = |letter: &DeadLetter| {
            vec![
                letter.id.to_string(),
                letter.kind.to_string(),
                letter.reason.to_string(),
                letter.attempt.to_string(),
                letter.died_at.to_string(),
                letter.pod.to_string(),
                letter.redriven_at.map_or(String::new(), |at| at.to_string()),
                shorten(letter.error.as_deref().unwrap_or_default(), TEXT_MAX),
            ]
        };
        let rows: Vec<_> = page.items.iter().map(row).collect();
        let header = ["ID", "TYPE", "REASON", "ATTEMPT", "GIVEN UP", "POD", "RETRIED", "ERROR"];
        let json = page.items.iter().map(dead_letter_json).collect();
        let next = page.next.as_ref();
        Ok(Seen::now(page_text(&header, &rows, next), page_json(json, next)))
    })
    .await
}

fn pod_row(overview: &Overview, pod: &Pod) -> Vec<String> {
    let is_up = overview.living().any(|living| living.life == pod.life);
    let leads = overview.leading().is_some_and(|leader| leader.life == pod.life);
    let state = match (is_up, pod.draining, leads) {
        (false, ..) => "down",
        (true, true, _) => "draining",
        (true, false, true) => "up, leads",
        (true, false, false) => "up",
    };
    let kinds: Vec<&str> = pod.kinds.iter().map(Kind::as_str).collect();
    vec![
        pod.life.pod.to_string(),
        state.to_owned(),
        format!("{}/{}", pod.running, pod.capacity),
        pod.prefetched.to_string(),
        pod.birth_wall.to_string(),
        pod.heartbeat_wall.to_string(),
        shorten(&kinds.join(" "), TEXT_MAX),
    ]
}

const POD_HEADER: [&str; 7] = ["POD", "STATE", "RUNS", "READY", "BORN", "HEARD OF", "TYPES"];

fn pod_json(overview: &Overview, pod: &Pod) -> anyhow::Result<Value> {
    let is_up = overview.living().any(|living| living.life == pod.life);
    let mut json = serde_json::to_value(PodShape::new(pod, is_up))?;
    let leads = overview.leading().is_some_and(|leader| leader.life == pod.life);
    json["is_leader"] = leads.into();
    Ok(json)
}

/// `tl fleet pods`.
pub async fn pods(fleet: &FleetService, args: WatchArgs, out: &Out) -> anyhow::Result<()> {
    show(args, out, async || {
        let overview = fleet.overview().await.context("looking for pods")?;
        let rows: Vec<_> = overview.pods.iter().map(|pod| pod_row(&overview, pod)).collect();
        let json: anyhow::Result<Vec<_>> =
            overview.pods.iter().map(|pod| pod_json(&overview, pod)).collect();
        Ok(Seen::now(page_text(&POD_HEADER, &rows, None), json?))
    })
    .await
}

/// `tl fleet leader`.
pub async fn leader(fleet: &FleetService, args: WatchArgs, out: &Out) -> anyhow::Result<()> {
    show(args, out, async || {
        let overview = fleet.overview().await.context("looking for the leader")?;
        let leader = overview.leading();
        let eligible: anyhow::Result<Vec<_>> =
            overview.living().map(|pod| pod_json(&overview, pod)).collect();
        let json = json!({
            "leader": leader.map(|leader| leader.life.pod.as_str()),
            "incarnation": leader.map(|leader| leader.life.incarnation.0),
            "epoch": leader.map(|leader| leader.epoch.0),
            "lease_ms_left": leader.map(|leader| leader.lease_until.since_ms(overview.at)),
            "eligible": eligible?,
        });
        Ok(Seen::now(leader_text(&overview, leader), vec![json]))
    })
    .await
}

fn leader_text(overview: &Overview, leader: Option<&Leader>) -> String {
    let said = leader.map_or("nobody leads".to_owned(), |leader| {
        let left_ms = leader.lease_until.since_ms(overview.at);
        format!(
            "{} leads, epoch {}, for {left_ms} ms unless renewed",
            leader.life.pod, leader.epoch
        )
    });
    let rows: Vec<_> = overview.living().map(|pod| pod_row(overview, pod)).collect();
    format!("{said}\n\n{}", page_text(&POD_HEADER, &rows, None))
}
