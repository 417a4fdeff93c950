//! What somebody does who has just got the binary.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::accept::Verdict;
use crate::command::Call;
use crate::tree;

/// A pod in one terminal, a step from another, in a folder where nothing is.
pub fn run() -> Result<Verdict> {
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(tree::built_tl()?)
        .args(["fleet", "run", "--kind", "echo=exec:cat", "--listen", "127.0.0.1:0", "--json"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pod = super::faults::Child::ready(&mut child)?;
    let submit = ["fleet", "submit", "echo", "--args", r#"{"hello":"world"}"#, "--wait"];
    let db = folder.path().join("tl-fleet/fleet.db").to_string_lossy().into_owned();
    let result = Call::new(tree::built_tl()?).args(submit).args(["--db", &db]).output();
    drop(pod);
    let result: serde_json::Value = serde_json::from_str(result?.trim())?;
    ensure!(result["args"]["hello"] == "world", "the result is {result}");
    Ok(Verdict::Ok(format!("{result}")))
}
