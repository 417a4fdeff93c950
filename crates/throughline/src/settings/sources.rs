//! Reading settings from all sources and saying exactly what is wrong with them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;

use tl_engine::memory::chosen_budget;

use super::Settings;
use crate::failure::Failure;

/// Prefix of environment variables.
const PREFIX: &str = "TL_";
/// `TL_…` variables that belong to client commands and are no settings.
const NOT_SETTINGS: [&str; 2] = ["TL_URL", "TL_NAMESPACE"];
/// Prefix of the variables of a fleet, which are none of a node's.
const FLEET_PREFIX: &str = "TL_FLEET_";
/// Variables of compatible servers, and the key each one sets.
const ALIASES: [(&str, &str); 4] = [
    ("STARCITE_RAFT_DATA_DIR", "engine.data_dir"),
    ("STARCITE_NUM_GROUPS", "engine.groups"),
    ("STARCITE_SHUTDOWN_DRAIN_TIMEOUT_MS", "http.drain_ms"),
    ("NODE_NAME", "engine.node_name"),
];

/// Variables of compatible servers that make a node a member of a cluster by names which say too
/// little here: neither ports nor which directory is whose.
const NODE_LISTS: [&str; 3] = ["CLUSTER_NODES", "DNS_CLUSTER_QUERY", "STARCITE_WRITE_NODE_IDS"];
/// The setting that says it.
const MEMBERS: &str = "cluster.members";

/// Where settings come from, as values: the caller reads environment and flags.
#[derive(Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub config: Option<PathBuf>,
    /// The process environment.
    pub environment: Vec<(String, String)>,
    /// Key and value of each flag that was given.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The sources of this process.
    pub fn of_process(config: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Sources {
        // Names and values that are not Unicode belong to nobody here.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Sources { config, environment, flags }
    }

    /// The settings in force.
    ///
    /// # Errors
    /// [`Failure::Usage`] with a sentence per mistake.
    pub fn load(&self) -> Result<Settings, Failure> {
        let mut figment = Figment::new();
        let mut origins: BTreeMap<String, String> = BTreeMap::new();
        if let Some(path) = &self.config {
            if !path.is_file() {
                return Err(Failure::Usage(format!(
                    "there is no settings file {}",
                    path.display()
                )));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        for (name, key, value) in self.variables()? {
            origins.insert(key.clone(), format!("environment variable {name}"));
            figment = figment.merge((key, value));
        }
        for (key, value) in &self.flags {
            origins.insert((*key).to_owned(), "the command line".to_owned());
            figment = figment.merge((*key, Value::from(value.clone())));
        }
        let over = |memory_budget_bytes| {
            let defaults = Serialized::defaults(Settings::within(memory_budget_bytes));
            let settings = Figment::from(defaults).merge(&figment).extract::<Settings>();
            settings.map_err(|error| self.explain(error, &origins))
        };
        // Other sizes are shares of the memory budget, unless they are set: that one comes first.
        let first = over(chosen_budget())?;
        let settings = over(first.engine.memory_budget_bytes)?;
        let problems = settings.problems();
        if problems.is_empty() { Ok(settings) } else { Err(Failure::Usage(problems.join("\n  "))) }
    }

    /// Variables that are settings: name, key and value. Our own names win over aliases.
    fn variables(&self) -> Result<Vec<(String, String, Value)>, Failure> {
        let mut aliased = Vec::new();
        let mut own: Vec<(String, String, Value)> = Vec::new();
        let mut lists = Vec::new();
        for (name, text) in &self.environment {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                if !NOT_SETTINGS.contains(&name.as_str()) && !name.starts_with(FLEET_PREFIX) {
                    let key = rest.to_ascii_lowercase().replace("__", ".");
                    own.push((name.clone(), key, parse(text)));
                }
            } else if name == "PORT" {
                let port: u16 = text.parse().map_err(|_| {
                    Failure::Usage(format!("environment variable PORT is {text:?}, not a port"))
                })?;
                let listen = format!("127.0.0.1:{port}");
                aliased.push((name.clone(), "http.listen".to_owned(), Value::from(listen)));
            } else if name == "STARCITE_AUTH_MODE" && text != "none" {
                let what = "environment variable STARCITE_AUTH_MODE asks for access control, \
                            which this version does not have; set it to none";
                return Err(Failure::Usage(what.to_owned()));
            } else if NODE_LISTS.contains(&name.as_str()) && !text.trim().is_empty() {
                lists.push(name.as_str());
            } else if let Some((_, key)) = ALIASES.iter().find(|(alias, _)| alias == name) {
                aliased.push((name.clone(), (*key).to_owned(), parse(text)));
            }
        }
        aliased.append(&mut own);
        let in_file = || {
            self.config.as_ref().is_some_and(|path| {
                Figment::from(Toml::file_exact(path)).find_value(MEMBERS).is_ok_and(names_somebody)
            })
        };
        if let Some(name) = lists.first()
            && !aliased
                .iter()
                .any(|(_, key, value)| key == MEMBERS && names_somebody(value.clone()))
            && !in_file()
        {
            return Err(Failure::Usage(format!(
                "environment variable {name} names a cluster, and this node would be one of its \
                 own: make the members' directories with `tl ops found` and set {MEMBERS} on \
                 each (TL_CLUSTER__MEMBERS), or unset {name}"
            )));
        }
        Ok(aliased)
    }

    /// Each mistake in one sentence: which key, from where, and what would be right.
    fn explain(&self, error: figment::Error, origins: &BTreeMap<String, String>) -> Failure {
        let file = self.config.as_ref().map(|path| path.display().to_string());
        let sentences: Vec<String> = error
            .into_iter()
            .map(|error| {
                let mut key = error.path.join(".");
                if let Kind::UnknownField(name, _) = &error.kind
                    && error.path.last() != Some(name)
                {
                    key = [&key, name.as_str()].join(".").trim_start_matches('.').to_owned();
                }
                let origin = origins.get(&key).or(file.as_ref());
                let place = origin.map_or(String::new(), |origin| format!(" (from {origin})"));
                match &error.kind {
                    Kind::UnknownField(name, known) => {
                        let near = nearest(name, known)
                            .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                        format!("there is no setting `{key}`{near}{place}")
                    }
                    other if key.is_empty() => {
                        format!("the settings are not right: {other}{place}")
                    }
                    other => format!("setting `{key}` is not right: {other}{place}"),
                }
            })
            .collect();
        Failure::Usage(sentences.join("\n  "))
    }
}

/// A number, truth value, list or text, as it looks.
fn parse(text: &str) -> Value {
    text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {})
}

/// The known name with the fewest edits, if it is near enough to be meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known.iter().map(|known| (edits(name, known), *known)).min()?;
    (distance <= 1 + name.len() / 3).then_some(best)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Whether a list of members is one: as a setting that says nothing it is empty.
fn names_somebody(members: Value) -> bool {
    !members.into_array().is_some_and(|members| members.is_empty())
}

#[cfg(test)]
mod tests;
