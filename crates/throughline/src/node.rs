//! A node in this process: engine, HTTP face, and the way down.
//!
//! ```text
//!  open engine ─► listen ─► wait until all groups are ready ─► ready ─► SIGTERM, SIGINT or a
//!       failure ─► a member gives away what it leads ─► connections drain ─► stop
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tl_engine::Engine;
use tl_gateway::{Gateway, GatewayError};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::settings::Settings;

/// A node that serves.
#[derive(Debug)]
pub struct Ready {
    /// Where it listens, with the real port.
    pub address: SocketAddr,
    /// Entries of the log that were applied again.
    pub entries_replayed: u64,
    /// Time from the start to here.
    pub took: Duration,
}

impl Ready {
    /// Base address for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Runs a node until it is told to stop; calls `ready` when it serves.
///
/// # Errors
/// Why it could not start, or why it stopped by itself.
pub async fn run(
    settings: &Settings,
    ready: impl FnOnce(&Ready) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let stop = stop_signal().context("listening for signals")?;
    let engine = Engine::open_in(&settings.engine, &settings.cluster)
        .with_context(|| format!("starting a node on {}", settings.engine.data_dir.display()))?;
    let gateway = match Gateway::bind(settings.http.clone(), engine.service()).await {
        Ok(gateway) => gateway,
        Err(error) => {
            engine.shutdown();
            return Err(listen_failure(error));
        }
    };
    let address = gateway.address();
    let mut failure = engine.failure();
    let serving = gateway.serve(async {
        tokio::select! {
            () = stop => give_away(&engine, settings).await,
            _ = failure.wait_for(Option::is_some) => tracing::error!("the node stopped by itself"),
        }
        engine.begin_drain();
    });
    let announced = async {
        engine.wait_ready().await.map_err(|why| anyhow!("the node stopped by itself: {why}"))?;
        let took = started.elapsed();
        let entries_replayed = engine.report().found.entries;
        ready(&Ready { address, entries_replayed, took })?;
        // From here on only the serving side ends the node.
        std::future::pending::<anyhow::Result<()>>().await
    };
    let outcome = tokio::select! {
        drained = serving => {
            if drained.cut > 0 {
                tracing::warn!(connections = drained.cut, "connections were cut off");
            }
            Ok(())
        }
        ended = announced => ended,
    };
    let failed = engine.failure().borrow().clone();
    engine.shutdown();
    match failed {
        Some(why) => Err(anyhow!("the node stopped by itself: {why}")),
        None => outcome,
    }
}

/// Hands over what a member leads before it stops, so that its end costs no election.
async fn give_away(engine: &Engine, settings: &Settings) {
    tracing::info!("stopping: open requests may finish");
    if !settings.cluster.is_set() {
        return;
    }
    let limit = Duration::from_millis(settings.cluster.drain_ms);
    if !engine.drain_within(limit).await {
        let limit_ms = settings.cluster.drain_ms;
        tracing::warn!(
            limit_ms,
            "other members did not take over everything; stopping all the same"
        );
    }
}

/// A future that completes at SIGTERM or SIGINT; from the call on, neither ends the process.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn listen_failure(error: GatewayError) -> anyhow::Error {
    match &error {
        GatewayError::Listen { listen, source }
            if source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            let what = format!("another program listens on {listen}");
            let advice = "end it, or choose another address: --listen 127.0.0.1:0 takes a free \
                          port"
                .to_owned();
            Failure::WithAdvice { what, advice }.into()
        }
        GatewayError::Settings { .. } | GatewayError::Listen { .. } => error.into(),
    }
}
