//! Running `tl`, and nodes that end with their test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub const TL: &str = env!("CARGO_BIN_EXE_tl");

/// `tl` with words separated by spaces, in an empty environment.
pub fn command(words: &str) -> Command {
    let mut command = Command::new(TL);
    command.args(words.split_whitespace()).env_clear();
    command
}

/// What a finished command printed.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(self.stdout.lines().last().unwrap()).unwrap()
    }
}

pub fn ran(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ran {
        code: status.code().expect("no signal"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

pub fn run(words: &str) -> Ran {
    ran(&mut command(words))
}

/// With text on stdin.
pub fn run_with_input(words: &str, input: &str) -> Ran {
    let mut child = command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        code: status.code().expect("no signal"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// A node of `tl serve`; killed when dropped.
pub struct Node {
    child: Child,
    pub url: String,
    pub ready: Value,
}

impl Node {
    pub fn start(data: &Path) -> Node {
        Node::start_at(data, "127.0.0.1:0")
    }

    pub fn start_at(data: &Path, listen: &str) -> Node {
        let listen = ("TL_HTTP__LISTEN".to_owned(), listen.to_owned());
        Node::ready(Node::begin(Command::new(TL), data, &[listen]))
    }

    /// Starts a node with variables in its environment, and does not wait for it. Its log goes
    /// to a file beside its data, for whoever looks after a failure.
    pub fn begin(mut command: Command, data: &Path, environment: &[(String, String)]) -> Child {
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(data.with_extension("log")).unwrap();
        command
            .args(["serve", "--json", "--end-with-parent", "--data"])
            .arg(data)
            .env_clear()
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Waits until a node that was begun is ready.
    pub fn ready(mut child: Child) -> Node {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("a ready line").unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Node { child, url: ready["url"].as_str().unwrap().to_owned(), ready }
    }

    /// Runs `tl` against this node.
    pub fn tl(&self, words: &str) -> Ran {
        ran(command(words).args(["--url", &self.url]))
    }

    /// Runs `tl` against this node; it must succeed. Answers its last line as JSON.
    pub fn json(&self, words: &str) -> Value {
        let ran = self.tl(&format!("{words} --json"));
        assert_eq!(ran.code, 0, "tl {words}: {ran:?}");
        ran.json()
    }

    /// The number of its process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; answers the exit code.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().expect("no signal")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already ended after `kill` and `stop`; then both calls fail harmlessly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
