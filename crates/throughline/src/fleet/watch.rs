//! Looking once, or again and again.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use crate::output::Out;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Whether to go on looking.
#[derive(Debug, Clone, Copy, Args)]
pub struct WatchArgs {
    /// Look again and again until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Time between two looks, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=600_000), requires = "watch")]
    every_ms: u64,
}

/// What one look showed.
#[derive(Debug)]
pub struct Seen {
    /// For people.
    pub text: String,
    /// For programs, one per line.
    pub json: Vec<serde_json::Value>,
    /// Whether there will be nothing new.
    pub is_last: bool,
}

impl Seen {
    /// Something that may change.
    pub fn now(text: String, json: Vec<serde_json::Value>) -> Seen {
        Seen { text, json, is_last: false }
    }
}

/// Shows what `look` sees: once, or until there is nothing new.
pub async fn show(
    args: WatchArgs,
    out: &Out,
    mut look: impl AsyncFnMut() -> anyhow::Result<Seen>,
) -> anyhow::Result<()> {
    let clears = args.watch && std::io::stdout().is_terminal();
    loop {
        let seen = look().await?;
        if out.is_json() {
            for value in &seen.json {
                out.json(value)?;
            }
        } else {
            let clear = if clears { CLEAR } else { "" };
            out.line(&format!("{clear}{}", seen.text))?;
        }
        if !args.watch || seen.is_last {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(args.every_ms)).await;
    }
}
