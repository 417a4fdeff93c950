//! Running other programs: one builder with the environment that every check must have.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// A program call that has not been made yet.
#[derive(Debug)]
pub struct Call {
    command: Command,
    shown: String,
}

/// A call of the cargo that runs us.
pub fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Call {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut call = Call::new(cargo).args(args).dir(crate::tree::root());
    // `cargo run` exports the package's own variables; a nested cargo must not see them, or
    // build scripts that watch them run again.
    for (name, _) in std::env::vars_os() {
        let is_of_package = ["CARGO_MANIFEST_", "CARGO_PKG_"]
            .iter()
            .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
        if is_of_package {
            call.command.env_remove(name);
        }
    }
    call
}

impl Call {
    /// A call of `program`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(&program);
        // Nothing may depend on a protobuf compiler that happens to be installed.
        command.env_remove("PROTOC");
        Call { command, shown: name_of(program.as_ref()) }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            self.shown.push(' ');
            self.shown.push_str(&arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }

    /// Runs in this folder.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it with our own output; an exit status other than 0 is an error.
    pub fn run(mut self) -> Result<()> {
        let status = self.command.status().with_context(|| format!("cannot run {}", self.shown))?;
        if !status.success() {
            bail!("{} ended with {status}", self.shown);
        }
        Ok(())
    }

    /// Runs it and returns what it printed; errors carry the end of what it complained about, or
    /// of what it printed when it did not complain.
    pub fn output(mut self) -> Result<String> {
        let output = self
            .command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.shown))?;
        if !output.status.success() {
            let told = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            let told = String::from_utf8_lossy(told);
            bail!("{} ended with {}: {}", self.shown, output.status, last_lines(&told, 12));
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("{} printed bytes that are not UTF-8", self.shown))
    }

    /// Runs it silently and returns how it ended, with everything that it printed.
    pub fn verdict(mut self) -> Result<(ExitStatus, String)> {
        let output = self
            .command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.shown))?;
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status, printed))
    }
}

fn name_of(program: &OsStr) -> String {
    Path::new(program)
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The last `count` lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
