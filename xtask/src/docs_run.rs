//! Runs the shell blocks of the documents, so that what a reader types is known to work.
//!
//! A fenced block is run when its info string is `sh run`. `sh run background` is for the one
//! block that starts a server: it is left running, and the next block begins when the server
//! says that it is ready. A comment that begins with `<!-- sh run` and ends with a line `-->` is
//! run too and not shown: it does what the page leaves to the reader, such as pulling a disk. All blocks of one document share one empty folder and one shell
//! environment, in the order of the page, with `tl` on the path, no network, and a time limit.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context, Result, ensure};

use crate::{cage, command, tree};

/// Longest run of one document, seconds.
const DOCUMENT_SECONDS_MAX: u32 = 300;

/// Whether a server that was started by a document answers; documents use the default addresses
/// of a node and of a fleet's pod.
const READY: &str = "(curl --silent --fail --output /dev/null \
                     http://127.0.0.1:4000/health/ready || \
                     curl --silent --fail --output /dev/null http://127.0.0.1:8000/health/ready)";

/// A shell block of a document that asks to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, from 1.
    pub line: usize,
    /// Left running while the next blocks run.
    pub background: bool,
    /// The commands.
    pub script: String,
}

/// How a block begins that is run and not shown.
const HIDDEN: &str = "<!-- sh run";

/// A fence or comment whose end has not come yet.
struct Open {
    line: usize,
    is_shown: bool,
    /// What is in it, if it is to be run.
    block: Option<Block>,
}

/// The blocks of one document that ask to be run.
pub fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let is_shown = !matches!(&open, Some(Open { is_shown: false, .. }));
        let edge = match is_shown {
            true if open.is_none() && line.starts_with(HIDDEN) => Some("sh run"),
            true => line.trim_start().strip_prefix("```"),
            false => (line.trim() == "-->").then_some(""),
        };
        let Some(info) = edge else {
            if let Some(Open { block: Some(block), .. }) = &mut open {
                block.script.push_str(line);
                block.script.push('\n');
            }
            continue;
        };
        match open.take() {
            Some(Open { block, .. }) => found.extend(block),
            None => {
                let mut words = info.split_whitespace();
                let runs = words.next() == Some("sh") && words.next() == Some("run");
                let background = words.next() == Some("background");
                let block = Block { line: number, background, script: String::new() };
                let is_shown = !line.starts_with(HIDDEN);
                open = Some(Open { line: number, is_shown, block: runs.then_some(block) });
            }
        }
    }
    if let Some(Open { line, .. }) = open {
        anyhow::bail!("the block opened in line {line} is never closed");
    }
    Ok(found)
}

/// Runs every document that has blocks to run.
pub fn run() -> Result<()> {
    tree::built_tl()?;
    let mut failed = Vec::new();
    let mut total = 0;
    for path in tree::files()? {
        if path.extension().is_none_or(|ext| ext != "md") {
            continue;
        }
        let Some(text) = tree::text(&path)? else { continue };
        let blocks = blocks(&text).with_context(|| path.display().to_string())?;
        if blocks.is_empty() {
            continue;
        }
        for block in &blocks {
            let kind = if block.background { "background" } else { "run" };
            println!("{}:{} {kind}", path.display(), block.line);
        }
        total += blocks.len();
        let (status, printed) = run_document(&script(&path, &blocks))?;
        if !status.success() {
            eprintln!("{}\n{}", path.display(), command::last_lines(&printed, 40));
            failed.push(path.display().to_string());
        }
    }
    println!("{total} blocks found");
    ensure!(failed.is_empty(), "blocks failed in {}", failed.join(", "));
    Ok(())
}

fn run_document(script: &str) -> Result<(ExitStatus, String)> {
    let folder = tempfile::tempdir().context("cannot make a folder for the blocks")?;
    let bin = tree::tl().parent().expect("the binary lies in a folder").to_path_buf();
    let path = std::env::var("PATH").unwrap_or_default();
    cage::call(DOCUMENT_SECONDS_MAX, folder.path(), Path::new("bash"), &["-c", script])
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("HOME", folder.path())
        .env("NO_PROXY", "127.0.0.1")
        .verdict()
}

/// One script for a whole document; each block names its place before it runs.
fn script(path: &Path, blocks: &[Block]) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for block in blocks {
        let Block { line, background, script: body } = block;
        let _ = writeln!(script, "echo '--- {}:{line}'", path.display());
        if *background {
            let _ = write!(
                script,
                "(\n{body}) >server.log 2>&1 &\nfor _ in $(seq 300); do\n  \
                 {READY} && break\n  sleep 0.1\ndone\n\
                 {READY} || {{ cat server.log; exit 1; }}\n"
            );
        } else {
            script.push_str(body);
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_marked_run_are_taken() {
        let text = "a\n```sh run\necho 1\n```\n```sh\nno\n```\n```json run\n{}\n```\n\
                    ```sh run background\ntl dev\n```\n";
        let found = blocks(text).unwrap();
        assert_eq!(
            found,
            [
                Block { line: 2, background: false, script: "echo 1\n".into() },
                Block { line: 11, background: true, script: "tl dev\n".into() },
            ]
        );
        assert!(blocks("```sh run\necho").is_err(), "an open block is an error");
        let hidden = blocks("<!-- sh run\nx=1\n```\n-->\n<!-- no\n-->\n```sh\n-->\n```\n").unwrap();
        assert_eq!(hidden, [Block { line: 1, background: false, script: "x=1\n```\n".into() }]);
        assert!(blocks("<!-- sh run\necho").is_err(), "an open comment too");
    }

    #[test]
    fn a_failing_command_in_any_block_fails_the_document() {
        let run = |text: &str| {
            let script = script(Path::new("README.md"), &blocks(text).unwrap());
            run_document(&script).unwrap().0.success()
        };
        assert!(run("```sh run\nx=1\n```\n```sh run\ntest $x = 1\n```\n"));
        assert!(!run("```sh run\nfalse\ntrue\n```\n"));
        assert!(!run("```sh run\nfalse | true\n```\n"));
    }
}
