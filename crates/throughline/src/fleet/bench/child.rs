//! A pod in a process of its own, as a user runs it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Bench, histogram};
use crate::bench::system::resident_kib;

/// How long a pod is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(5);
/// Requests to each endpoint.
const REQUESTS: usize = 5_000;
/// Endpoints that are answered from what was looked up within the second.
const CACHED: [&str; 3] = ["/admin/queue", "/admin/leader", "/v1/pods"];

struct Pod {
    child: Child,
    url: String,
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Already ended is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn start(bench: &Bench) -> anyhow::Result<Pod> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command
        .args(["fleet", "run", "--json", "--listen", "127.0.0.1:0", "--end-with-parent"])
        .args(["--kind", "bench=exec:true"])
        .args(&bench.child_flags)
        .env("TL_FLEET_LOCAL_DIR", bench.folder.join("pods"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(url) = &bench.url {
        command.env("TL_FLEET_POSTGRES_URL", url);
    }
    let mut child = command.spawn().context("starting a pod")?;
    let stdout = child.stdout.take().context("the pod's output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let ready: Value = serde_json::from_str(&line).context("the pod did not start")?;
    let url = ready["url"].as_str().context("the pod's address")?;
    Ok(Pod { url: url.trim_start_matches("http://").to_owned(), child })
}

/// Memory of a pod with nothing to do.
pub async fn idle(bench: &Bench) -> anyhow::Result<Value> {
    let pod = start(bench)?;
    tokio::time::sleep(SETTLE).await;
    let kib = resident_kib(pod.child.id())?;
    Ok(json!({ "idle_mib": (kib as f64 / 102.4).round() / 10.0 }))
}

/// Answers from what was looked up a moment ago, one request after the other on one connection.
pub async fn cached(bench: &Bench) -> anyhow::Result<Value> {
    let pod = start(bench)?;
    let mut stream = tokio::io::BufReader::new(TcpStream::connect(&pod.url).await?);
    stream.get_ref().set_nodelay(true)?;
    let mut worst = (0, "");
    for path in CACHED {
        let mut times = histogram();
        for _ in 0..REQUESTS {
            let began = Instant::now();
            get(&mut stream, path).await?;
            times.record(u64::try_from(began.elapsed().as_micros())?.max(1))?;
        }
        worst = worst.max((times.value_at_quantile(0.99), path));
    }
    Ok(json!({ "cached_p99_ms": worst.0 as f64 / 1e3, "cached_slowest": worst.1 }))
}

async fn get(stream: &mut tokio::io::BufReader<TcpStream>, path: &str) -> anyhow::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: pod\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).await?;
    let (mut length, mut line) = (None, String::new());
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "the pod hung up");
        let text = line.trim().to_ascii_lowercase();
        if text.is_empty() {
            break;
        }
        if text.starts_with("http/1.1 ") {
            ensure!(text.starts_with("http/1.1 200"), "{path}: {text}");
        }
        if let Some(bytes) = text.strip_prefix("content-length: ") {
            length = Some(bytes.parse::<usize>()?);
        }
    }
    let mut body = vec![0; length.context("a length")?];
    stream.read_exact(&mut body).await?;
    Ok(())
}
