//! `tl dev`: a node, or a small cluster, without configuration, for this computer only.

mod nodes;

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use crate::output::Out;
use crate::settings::Settings;
use crate::settings::sources::Sources;
use crate::{logs, node, serve};

/// Arguments of `tl dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Data directory; what is in it stays
    #[arg(long, value_name = "DIR", default_value = "./tl-data")]
    data: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    listen: String,
    /// Nodes of one cluster, each a process: 1, or 3 to 5 on neighbouring ports
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = nodes_of)]
    nodes: u16,
}

fn nodes_of(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(count @ (1 | 3..=5)) => Ok(count),
        Ok(2) => Err("two nodes could not lose one; take 3".to_owned()),
        Ok(_) | Err(_) => Err("1, or from 3 to 5".to_owned()),
    }
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(args: DevArgs, out: &Out) -> anyhow::Result<()> {
    if args.nodes > 1 {
        let for_programs = out.is_json() || !std::io::stdout().is_terminal();
        let level = std::env::var("TL_LOGS__LEVEL").unwrap_or_else(|_| "warn".to_owned());
        let DevArgs { data, listen, nodes } = &args;
        return nodes::run(data, listen, *nodes, &level, for_programs, out).await;
    }
    let flags = serve::flags(Some(&args.data), Some(&args.listen))?;
    let mut sources = Sources::of_process(None, flags);
    // A laptop's PORT or a compose file's names must not move a node for trying things out.
    sources.environment.retain(|(name, _)| name.starts_with("TL_"));
    let mut settings = sources.load()?;
    if settings.logs == crate::settings::LogSettings::default() {
        settings.logs.level = "warn".to_owned();
    }
    logs::start(&settings.logs)?;
    let for_programs = out.is_json() || !std::io::stdout().is_terminal();
    node::run(&settings, |ready| {
        if for_programs {
            return out.line(&serve::ready_line(&settings, ready, true));
        }
        out.line(&banner(&settings, &ready.url()))
    })
    .await
}

/// What a newcomer needs: where it is, what it is not, and what to type next.
pub fn banner(settings: &Settings, url: &str) -> String {
    let data = settings.engine.data_dir.display();
    let flag = if url == crate::cli::URL_DEFAULT { String::new() } else { format!(" --url {url}") };
    format!(
        "\
Throughline {version} is ready.

  API          {url}/v1/sessions
  API document {url}/openapi.json
  health       {url}/health/ready
  metrics      {url}/metrics
  data         {data}

  No access control: everybody on this computer may read and write. Not for production.

Next, in another terminal:

  tl session create chat-42 --title 'A first session'{flag}
  tl session append chat-42 --text hello --actor user:ann{flag}
  tl session tail chat-42{flag}

Ctrl-C stops the node; its data stays.",
        version = env!("CARGO_PKG_VERSION"),
    )
}
