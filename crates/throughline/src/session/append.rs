//! `tl session append`: one event from arguments, or a batch from lines.

use std::io::Read;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;
use tl_client::{BatchEncoding, Client, NewEvent, Producer};
use tl_types::Seq;
use tl_types::limits::{BATCH_EVENTS_MAX, BODY_BYTES_MAX};

use super::object_text;
use super::patience::{told, write_retry};
use crate::failure::Failure;
use crate::output::Out;

/// Arguments of `tl session append`.
#[derive(Debug, Args)]
pub struct AppendArgs {
    /// Session id
    id: String,
    /// Type of the event
    #[arg(long = "type", value_name = "TYPE", default_value = "message")]
    event_type: String,
    /// The payload `{"text": TEXT}`
    #[arg(long, conflicts_with = "payload", required_unless_present_any = ["payload", "lines"])]
    text: Option<String>,
    /// The payload, a JSON object; `-` reads it from stdin
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Append a batch instead, all or none: a file with one event per line
    /// (`{"type":…,"payload":{…}}`), `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "payload"])]
    lines: Option<String>,
    /// Who acts: user:NAME, agent:NAME or service:NAME; the caller when absent
    #[arg(long)]
    actor: Option<String>,
    /// Metadata of the event, a JSON object
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Producer id: with a position of your own, the same command can be repeated safely
    #[arg(long, requires = "producer_seq", value_name = "ID")]
    producer: Option<String>,
    /// The producer's position of this (first) event, counted from 1
    #[arg(long, requires = "producer", value_name = "N")]
    producer_seq: Option<u64>,
    /// Append only if this is the session's last seq
    #[arg(long, value_name = "SEQ")]
    expected_seq: Option<u64>,
}

/// Appends and prints the position.
pub async fn run(client: &Client, args: AppendArgs, out: &Out) -> anyhow::Result<()> {
    // A producer of one command: it numbers this write 1 and is never seen again.
    let producer_id =
        args.producer.clone().unwrap_or_else(|| format!("tl-{:016x}", fastrand::u64(..)));
    let first = args.producer_seq.unwrap_or(1);
    let mut producer =
        Producer::at(client.clone(), &args.id, &producer_id, first).with_policy(write_retry());
    let expected_seq = args.expected_seq.map(Seq);
    if let Some(file) = &args.lines {
        let events = read_lines(file)?;
        let batch = producer.append_batch(&events, expected_seq, BatchEncoding::Ndjson);
        let batch = told(out, batch).await?;
        let (first, last) = (batch.first_seq.0, batch.last_seq.0);
        let value = json!({ "first_seq": first, "last_seq": last, "count": events.len(), "deduped": batch.deduped });
        let text = format!("seq {first} to {last}{}", again(batch.deduped));
        return out.either(&value, &text);
    }
    let mut event = NewEvent::raw(&args.event_type, payload(&args)?);
    event.actor = args.actor;
    event.metadata = args.metadata.map(|text| object_text("--metadata", text)).transpose()?;
    let appended = told(out, producer.append(&event, expected_seq)).await?;
    let value = json!({ "seq": appended.seq.0, "last_seq": appended.last_seq.0, "deduped": appended.deduped });
    out.either(&value, &format!("seq {}{}", appended.seq, again(appended.deduped)))
}

fn again(deduped: bool) -> &'static str {
    if deduped { " (it was there already)" } else { "" }
}

fn payload(args: &AppendArgs) -> anyhow::Result<Box<RawValue>> {
    if let Some(text) = &args.text {
        return Ok(serde_json::value::to_raw_value(&json!({ "text": text }))?);
    }
    match args.payload.as_deref() {
        Some("-") => object_text("stdin", read_input("-")?),
        Some(text) => object_text("--payload", text.to_owned()),
        None => Err(Failure::Usage("an event needs --text or --payload".into()).into()),
    }
}

fn read_lines(file: &str) -> anyhow::Result<Vec<NewEvent>> {
    let text = read_input(file)?;
    let mut events = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let event = serde_json::from_str(line)
            .map_err(|e| Failure::Usage(format!("{file} line {number} is not an event: {e}")))?;
        events.push(event);
    }
    if events.is_empty() || events.len() > BATCH_EVENTS_MAX {
        let count = events.len();
        let advice = "`tl session import` takes files of any length".to_owned();
        let what = format!("a batch holds 1 to {BATCH_EVENTS_MAX} events; {file} has {count}");
        return Err(Failure::WithAdvice { what, advice }.into());
    }
    Ok(events)
}

/// The text of a file, or of stdin for `-`, at most as long as a request body may be.
fn read_input(file: &str) -> anyhow::Result<String> {
    let source: Box<dyn Read> = match file {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(std::fs::File::open(path).with_context(|| path.to_owned())?),
    };
    let mut text = String::new();
    source
        .take(BODY_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("reading {file}"))?;
    if text.len() > BODY_BYTES_MAX {
        return Err(Failure::Usage(format!("{file} is longer than {BODY_BYTES_MAX} bytes")).into());
    }
    Ok(text)
}
