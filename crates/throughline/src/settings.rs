//! Where settings come from: defaults, then a TOML file, then the environment, then flags.
//!
//! | From | Looks like |
//! |---|---|
//! | file | `[http]` … `listen = "127.0.0.1:4000"` |
//! | environment | `TL_HTTP__LISTEN=127.0.0.1:4000` (two underscores per level) |
//! | aliases | `PORT`, `STARCITE_RAFT_DATA_DIR`, …: see [`sources`] |
//! | flags | `--listen`, `--data` |
//!
//! A key that is not known is refused, with the nearest one that is.

pub mod command;
pub mod sources;

use serde::{Deserialize, Serialize};
use tl_engine::{ClusterSettings, EngineSettings};
use tl_gateway::GatewaySettings;

/// Everything an operator may choose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The node: data directory, log, memory.
    pub engine: EngineSettings,
    /// The other members, for a node of a cluster.
    pub cluster: ClusterSettings,
    /// The HTTP face.
    pub http: GatewaySettings,
    /// Log lines.
    pub logs: LogSettings,
}

/// What is logged, and how. Lines go to stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Least level that is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives such
    /// as `info,tl_engine=debug`. Default `info`.
    pub level: String,
    /// `auto` (text on a terminal, else JSON), `text` or `json`. Default `auto`.
    pub format: LogFormat,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Settings {
    /// The defaults of a node that may hold so much memory: what is not set is a share of it.
    pub fn within(memory_budget_bytes: u64) -> Settings {
        let engine = EngineSettings::default().within(memory_budget_bytes);
        let shares = engine.shares();
        let http = GatewaySettings {
            bodies_bytes_max: shares.bodies_bytes,
            pages_bytes_max: shares.pages_bytes,
            ..GatewaySettings::default()
        };
        Settings { engine, cluster: ClusterSettings::default(), http, logs: LogSettings::default() }
    }

    /// Checks every value against its range; each sentence names its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut add = |section: &str, checked: Result<(), Vec<String>>| {
            let sentences = checked.err().unwrap_or_default();
            problems.extend(sentences.iter().map(|sentence| format!("{section}.{sentence}")));
        };
        add("engine", self.engine.check());
        add("cluster", self.cluster.check(&self.engine.node_name));
        add("http", self.http.check());
        let level = self.logs.level.parse::<tracing_subscriber::filter::Targets>();
        add("logs", level.map(|_| ()).map_err(|e| vec![format!("level is not one: {e}")]));
        problems
    }
}
