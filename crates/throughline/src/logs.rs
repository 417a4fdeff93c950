//! Log lines on stderr: text for people, JSON for everybody else.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::settings::{LogFormat, LogSettings};

/// Starts logging for this process.
///
/// # Errors
/// [`Failure::Usage`] when the level is not one.
pub fn start(settings: &LogSettings) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.level)
        .map_err(|e| Failure::Usage(format!("logs.level is not one: {e}")))?;
    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that nobody can read is lost; the complaint about it would end the process.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process (a test) keeps the first.
    let _ = if json { lines.json().try_init() } else { lines.with_target(false).try_init() };
    Ok(())
}
