//! What a scraper is given: this pod's own counts always, the fleet's when the database answers.

use std::fmt::Write as _;

use axum::extract::State;
use http::{HeaderValue, StatusCode};
use tl_core::fleet::BreakerState;

use super::{Reply, Shared};
use crate::reply;

const TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// While there is no pod yet.
pub(super) async fn nothing() -> Reply {
    Ok(reply::typed(StatusCode::OK, TEXT, "# EOF\n".into()))
}

pub(super) async fn metrics(State(face): Shared) -> Reply {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, rows: &[(String, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP throughline_fleet_{name} {help}");
        let _ = writeln!(text, "# TYPE throughline_fleet_{name} gauge");
        for (labels, value) in rows {
            let _ = writeln!(text, "throughline_fleet_{name}{labels} {value}");
        }
    };
    let one = |value: u64| [(String::new(), value)];
    // A face whose database is away is scraped all the same.
    if let Ok(overview) = face.service.overview().await {
        let counts = &overview.counts;
        let state = |word: &str, steps: u64| (format!("{{state=\"{word}\"}}"), steps);
        gauge(
            "steps",
            "Steps by state.",
            &[
                state("scheduled", counts.scheduled),
                state("pending", counts.pending),
                state("claimed", counts.claimed),
                state("completed", counts.completed),
                state("failed", counts.failed),
                state("cancelled", counts.cancelled),
            ],
        );
        let kinds = |pick: fn(&tl_fleet::KindCount) -> u64| -> Vec<_> {
            let label = |kind: &tl_fleet::Kind| format!("{{type=\"{kind}\"}}");
            counts.by_kind.iter().map(|count| (label(&count.kind), pick(count))).collect()
        };
        gauge("pending_steps", "Pending steps by type.", &kinds(|count| count.pending));
        let unserved: u64 = overview.unserved().map(|count| count.pending).sum();
        gauge("unserved_steps", "Pending steps that no living pod can run.", &one(unserved));
        gauge("pods", "Pods that live.", &one(overview.living().count() as u64));
    }
    if let Some(pod) = face.service.pod() {
        let status = pod.status();
        gauge("leader", "Whether this pod leads.", &one(u64::from(status.epoch.is_some())));
        gauge("capacity_steps", "Steps that may run at once.", &one(status.capacity.into()));
        gauge("running_steps", "Steps that run.", &one(status.held.running.into()));
        gauge("journal_reports", "Reports that wait for the database.", &one(status.journal));
        let open = match status.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen | BreakerState::Open { .. } => 1,
        };
        gauge("breaker_open", "Whether the database is left alone.", &one(open));
        for (name, value) in status.counted.named() {
            let _ = writeln!(text, "# TYPE throughline_fleet_{name} counter");
            let _ = writeln!(text, "throughline_fleet_{name}_total {value}");
        }
    }
    text.push_str("# EOF\n");
    Ok(reply::typed(StatusCode::OK, TEXT, text.into()))
}
