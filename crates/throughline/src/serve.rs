//! `tl serve`: a node from settings.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::node::{self, Ready};
use crate::output::Out;
use crate::settings::Settings;
use crate::settings::sources::Sources;
use crate::{failure::Failure, logs};

/// Arguments of `tl serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Settings file; `tl settings print` shows what may stand in it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory (setting engine.data_dir)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address to listen on (setting http.listen); port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

/// The flags that are settings.
pub fn flags(
    data: Option<&PathBuf>,
    listen: Option<&String>,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut flags = Vec::new();
    if let Some(data) = data {
        let text = data
            .to_str()
            .ok_or_else(|| Failure::Usage(format!("--data {} is not UTF-8", data.display())))?;
        flags.push(("engine.data_dir", text.to_owned()));
    }
    if let Some(listen) = listen {
        flags.push(("http.listen", listen.clone()));
    }
    Ok(flags)
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs, out: &Out) -> anyhow::Result<()> {
    if args.end_with_parent {
        end_with_parent()?;
    }
    let flags = flags(args.data.as_ref(), args.listen.as_ref())?;
    let settings = Sources::of_process(args.config, flags).load()?;
    logs::start(&settings.logs)?;
    let for_programs = out.is_json() || !std::io::stdout().is_terminal();
    node::run(&settings, |ready| out.line(&ready_line(&settings, ready, for_programs))).await
}

/// One line that says where the node is.
pub fn ready_line(settings: &Settings, ready: &Ready, for_programs: bool) -> String {
    let url = ready.url();
    let data = settings.engine.data_dir.display().to_string();
    let took_ms = ready.took.as_millis() as u64;
    if for_programs {
        return json!({
            "ready": true,
            "url": url,
            "address": ready.address.to_string(),
            "data_dir": data,
            "node_name": settings.engine.node_name,
            "pid": std::process::id(),
            "entries_replayed": ready.entries_replayed,
            "took_ms": took_ms,
        })
        .to_string();
    }
    format!("ready: {url} (data in {data}, {took_ms} ms)")
}

/// Has this process killed when the one that started it ends.
#[cfg(target_os = "linux")]
pub fn end_with_parent() -> anyhow::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Other systems cannot do that.
#[cfg(not(target_os = "linux"))]
pub fn end_with_parent() -> anyhow::Result<()> {
    Ok(())
}
