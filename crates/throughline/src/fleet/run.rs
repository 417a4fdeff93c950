//! `tl fleet run`: a pod and its HTTP face in this process.
//!
//! ```text
//!  settings ─► listen ─► database ─► pod ─► ready ─► SIGTERM, SIGINT or drain ─► give back ─► end
//! ```

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tl_fleet::pod::LocalError;
use tl_fleet::{
    FleetService, Handlers, JsonText, PodError, PodSettings, PodStatus, RunningPod, Store,
    StoreError,
};
use tl_gateway::fleet::{self as face, ConnectionLimits, Door, FleetFaceError};
use tokio::sync::watch;

use super::place;
use super::settings::read::Given;
use super::settings::{FleetSettings, Place, host_name};
use crate::failure::Failure;
use crate::output::Out;
use crate::{logs, node, serve};

/// Pods of one computer that share a folder without names of their own.
const FOLDERS_MAX: usize = 256;
/// How long open requests may take when the pod has gone down.
const REQUESTS: Duration = Duration::from_secs(5);

/// Arguments of `tl fleet run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to run for a kind of step, such as echo=exec:cat: the program gets one JSON object on
    /// its standard input and prints one JSON value. May be repeated
    #[arg(long = "kind", value_name = "KIND=exec:PROGRAM")]
    kinds: Vec<String>,
    /// Name of the pod; made up when absent
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Address to listen on; 127.0.0.1:8000 unless said otherwise, port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen nowhere: work only
    #[arg(long, conflicts_with = "listen")]
    no_http: bool,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

/// Runs until SIGTERM, SIGINT, or until somebody drains the pod.
pub async fn run(
    mut flags: Vec<(&'static str, Given)>,
    args: RunArgs,
    out: &Out,
) -> anyhow::Result<()> {
    if args.end_with_parent {
        serve::end_with_parent()?;
    }
    let mut flag = |key: &'static str, name: &str, text: Option<String>| {
        flags.extend(text.map(|text| (key, Given { name: name.to_owned(), text })));
    };
    let kinds = (!args.kinds.is_empty()).then(|| args.kinds.join("\n"));
    flag("kinds", "--kind", kinds);
    flag("pod_id", "--pod", args.pod);
    flag("listen", "--listen", args.listen);
    let settings = FleetSettings::of_process(flags)?;
    logs::start(&settings.logs)?;
    for name in &settings.without_effect {
        tracing::warn!("{name} has no effect here");
    }
    // This process starts no others but the programs of steps.
    if let Err(error) = tl_fleet::run::take_charge_of_orphans() {
        tracing::warn!(%error, "what leaves the process group of its step is not found again");
    }
    let stop = node::stop_signal().context("listening for signals")?;
    tokio::pin!(stop);
    let listener = match args.no_http {
        true => None,
        false => {
            let listening = face::listen(settings.listen, settings.open_to_network).await;
            Some(listening.map_err(listen_failure)?)
        }
    };
    let address = listener.as_ref().map(tokio::net::TcpListener::local_addr).transpose()?;
    if let Some(address) = address {
        tracing::info!(%address, "listening");
    }
    let (stopped, mut stops) = watch::channel(false);
    // It lives before its database answers: an outage must not restart the fleet.
    let door = Door::shut();
    let serving = listener.map(|listener| {
        let stops = async move {
            // An error means that the sender is gone, which ends the serving too.
            drop(stops.wait_for(|stop| *stop).await);
        };
        let limits = ConnectionLimits::default();
        tokio::spawn(face::serve(listener, Arc::clone(&door), limits, stops))
    });
    let waits = |error: &StoreError| door.waits(error);
    let store = tokio::select! {
        store = place::wait_for(&settings.place, waits) => store.context("opening the database")?,
        () = &mut stop => return Ok(()),
    };
    let pod = start(&settings, store)?;
    let handle = pod.handle();
    door.open(Arc::new(FleetService::beside(handle.clone())));
    out.line(&ready_line(&settings, address, handle.settings(), out.is_json()))?;

    let mut drain_asked = handle.drain_asked();
    tokio::select! {
        () = &mut stop => tracing::info!("stopping: what runs may end, the rest is given back"),
        // The sender lives as long as the pod.
        _ = drain_asked.wait_for(|asked| *asked) => tracing::info!("somebody asked to drain"),
    }
    let again = node::stop_signal().context("listening for signals")?;
    let status = tokio::select! {
        status = pod.drain() => Some(status),
        () = again => None,
    };
    // Workers that pull may report while the pod goes down; then the face goes too.
    stopped.send_replace(true);
    if let Some(serving) = serving
        && let Ok(served) = tokio::time::timeout(REQUESTS, serving).await
    {
        served.context("the HTTP face ended")?;
    }
    match status {
        Some(status) => say_goodbye(&status),
        None => tracing::warn!("stopped at once; what was in hand is found by its lease"),
    }
    Ok(())
}

fn say_goodbye(status: &PodStatus) {
    let counted = status.counted;
    tracing::info!(
        completed = counted.completed,
        failed = counted.failed,
        released = counted.released,
        journal = status.journal,
        "stopped"
    );
}

fn start(settings: &FleetSettings, store: Arc<dyn Store>) -> anyhow::Result<RunningPod> {
    let mut handlers = Handlers::new();
    for (kind, exec) in &settings.kinds {
        if !is_there(Path::new(&exec.program)) {
            let program = exec.program.to_string_lossy();
            tracing::warn!("there is no program {program}; steps of {kind} will fail until it is");
        }
        handlers.add(kind.clone(), exec.clone())?;
    }
    let mut pod = settings.pod.clone();
    pod.meta = meta(&pod)?;
    let base = pod.local_dir.clone();
    if settings.is_named {
        pod.local_dir = base.join(pod.pod.as_str());
        return Ok(RunningPod::start(pod, store, handlers)?);
    }
    // A folder that another pod left is as good as a new one: what its journal holds is sent
    // from here, and counts under the tokens that it carries.
    for number in 0..FOLDERS_MAX {
        pod.local_dir = base.join(number.to_string());
        match RunningPod::start(pod.clone(), Arc::clone(&store), handlers.clone()) {
            Err(PodError::Local(LocalError::InUse)) => {}
            started => return Ok(started?),
        }
    }
    let what = format!("{FOLDERS_MAX} pods use {} already", base.display());
    let advice = "name another folder with TL_FLEET_LOCAL_DIR".to_owned();
    Err(Failure::WithAdvice { what, advice }.into())
}

/// Whether a program can be found as a shell would.
fn is_there(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// What the pod says of itself.
fn meta(pod: &PodSettings) -> anyhow::Result<JsonText> {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let meta = json!({
        "system": {
            "host": host_name(),
            "system": std::env::consts::OS,
            "machine": std::env::consts::ARCH,
            "cpu_count": cpus,
        },
        "process": { "pid": std::process::id() },
        "fleet": {
            "version": env!("CARGO_PKG_VERSION"),
            "max_parallelism": pod.max_parallelism,
            "capacity_threshold": pod.capacity_threshold,
            "heartbeat_ms": pod.heartbeat_ms,
            "pod_lease_ms": pod.pod_lease_ms,
            "step_lease_ms": pod.step_lease_ms,
        },
    });
    Ok(JsonText::of("meta", &meta)?)
}

/// One line for programs; for people also what to type next.
fn ready_line(
    settings: &FleetSettings,
    address: Option<SocketAddr>,
    pod: &PodSettings,
    json: bool,
) -> String {
    let url = address.map(|address| format!("http://{address}"));
    let kinds: Vec<&str> = settings.kinds.iter().map(|(kind, _)| kind.as_str()).collect();
    let db = match &settings.place {
        Place::Sqlite(path) => Some(path),
        Place::Postgres(_) => None,
    };
    if json || !std::io::stdout().is_terminal() {
        return json!({
            "ready": true,
            "pod_id": pod.pod.as_str(),
            "url": url,
            "store": if db.is_some() { "sqlite" } else { "postgres" },
            "db": db.map(|path| path.display().to_string()),
            "kinds": kinds,
            "pid": std::process::id(),
        })
        .to_string();
    }
    let from = db.map_or(" --store postgres".to_owned(), |path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        format!(" --db {}", path.display())
    });
    let place = match &settings.place {
        Place::Sqlite(path) => path.display().to_string(),
        Place::Postgres(_) => "Postgres".to_owned(),
    };
    let runs = if kinds.is_empty() {
        "nothing: it takes submissions and looks after others (--kind echo=exec:cat runs a program)"
            .to_owned()
    } else {
        kinds.join(", ")
    };
    let kind = kinds.first().unwrap_or(&"echo");
    let http = url.unwrap_or_else(|| "none".to_owned());
    format!(
        "\
Pod {pod} is ready.

  runs      {runs}
  database  {place}
  HTTP      {http}

  No access control: everybody on this computer may submit.

Next, in another terminal:

  tl fleet submit {kind} --args '{{\"hello\": \"world\"}}' --wait{from}
  tl fleet list{from}
  tl fleet pods{from}

Ctrl-C stops the pod: what runs may end, the rest is given back.",
        pod = pod.pod,
    )
}

fn listen_failure(error: FleetFaceError) -> anyhow::Error {
    match &error {
        FleetFaceError::Listen { listen, source }
            if source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            let what = format!("another program listens on {listen}");
            let advice = "a second pod on this computer takes a free port with \
                          --listen 127.0.0.1:0, or none with --no-http"
                .to_owned();
            Failure::WithAdvice { what, advice }.into()
        }
        FleetFaceError::Open(_) | FleetFaceError::Listen { .. } => error.into(),
    }
}
