//! `tl dev`: a node without configuration, for this computer only.

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
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(args: DevArgs, out: &Out) -> anyhow::Result<()> {
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
