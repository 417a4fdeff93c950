//! Settings of a fleet: flags, then `TL_FLEET_…`, then the names of a compatible program
//! (`FLEET_Q_…`), then defaults.
//!
//! All of them are read before anything is refused: one message lists every mistake.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tl_fleet::postgres::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX, PostgresOptions};
use tl_fleet::{Exec, Kind, PodId, PodSettings};

use self::read::{Given, Reader};
use crate::failure::Failure;
use crate::settings::{LogFormat, LogSettings};

pub mod read;

/// Folder of a fleet that nobody named a place for.
const FOLDER: &str = "tl-fleet";
/// Port by custom.
const PORT: u16 = 8000;
/// Shortest and longest time that finished things may be kept: a minute, ten years.
const KEEP_MS: (u64, u64) = (60_000, 10 * 366 * 86_400_000);

/// Where the shared database is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Box<PostgresOptions>),
}

/// Everything that an operator may choose.
#[derive(Debug, Clone)]
pub struct FleetSettings {
    /// The shared database.
    pub place: Place,
    /// The pod, with its folder still to be chosen beside other pods of this computer.
    pub pod: PodSettings,
    /// Whether the pod's name was given: then its folder bears it.
    pub is_named: bool,
    /// Where HTTP listens.
    pub listen: SocketAddr,
    /// Whether it may listen on an address that is not loopback.
    pub open_to_network: bool,
    /// What the pod runs.
    pub kinds: Vec<(Kind, Exec)>,
    /// Log lines.
    pub logs: LogSettings,
    /// Variables that were held to their ranges and change nothing here.
    pub without_effect: Vec<String>,
}

/// The words of a flag or a variable.
type Flags = Vec<(&'static str, Given)>;

impl FleetSettings {
    /// The settings of this process.
    ///
    /// # Errors
    /// [`Failure::Usage`] with a sentence per mistake.
    pub fn of_process(flags: Flags) -> Result<FleetSettings, Failure> {
        // Names and values that are not Unicode belong to nobody here.
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        FleetSettings::load(&environment, flags)
    }

    /// The settings in force.
    ///
    /// # Errors
    /// [`Failure::Usage`] with a sentence per mistake.
    pub fn load(environment: &[(String, String)], flags: Flags) -> Result<FleetSettings, Failure> {
        let mut read = Reader::new(environment, flags);
        let settings = read_all(&mut read);
        if read.problems.is_empty()
            && let Err(wrong) = settings.pod.check()
        {
            // Rules between values that are each in their range.
            let named = |rule: &str| format!("the settings do not fit together: {rule}");
            read.problems.extend(wrong.problem.split("; ").map(named));
        }
        let problems = read.end();
        if problems.is_empty() { Ok(settings) } else { Err(Failure::Usage(problems.join("\n  "))) }
    }
}

/// Reads every setting; what is wrong is kept with the reader.
fn read_all(read: &mut Reader) -> FleetSettings {
    let place = place(read);
    let (mut pod, is_named) = pod_name(read, &place);
    let mut without_effect = Vec::new();
    intervals(read, &mut pod, &mut without_effect);
    work(read, &mut pod);
    breaker(read, &mut pod);
    retention(read, &mut pod);
    unused(read, &mut without_effect);
    let (listen, open_to_network) = address(read);
    let kinds = kinds(read);
    let logs = logs(read);
    FleetSettings { place, pod, is_named, listen, open_to_network, kinds, logs, without_effect }
}

fn place(read: &mut Reader) -> Place {
    let word = read.ours("store");
    let theirs = read.theirs("STORAGE_MODE");
    let path = read.ours("sqlite_path");
    let their_path = read.theirs("SQLITE_DB_PATH");
    let url = read.ours("postgres_url");
    let schema = read.ours("postgres_schema");
    let connections = read.number("postgres_connections", 1..=CONNECTIONS_MAX, CONNECTIONS_DEFAULT);
    let migrate = read.truth("postgres_migrate", true);
    let sqlite = Place::Sqlite(PathBuf::from(FOLDER).join("fleet.db"));
    // An address alone says enough; with a file beside it, it is not clear what is meant.
    let implied = match (&url, path.as_ref().or(their_path.as_ref())) {
        (Some(url), None) => Some(Given { name: url.name.clone(), text: "postgres".to_owned() }),
        (Some(url), Some(path)) if word.is_none() && theirs.is_none() => {
            let rule = "name two databases: TL_FLEET_STORE says whether it is postgres or sqlite";
            read.problems.push(format!("{} and {} {rule}", url.name, path.name));
            None
        }
        (Some(_), Some(_)) | (None, _) => None,
    };
    match word.or(theirs).or(implied) {
        Some(given) if given.text.eq_ignore_ascii_case("postgres") => {
            let Some(url) = url else {
                read.problems.push(
                    "TL_FLEET_POSTGRES_URL is needed for the store postgres, such as \
                     postgres://user:password@host:5432/database"
                        .to_owned(),
                );
                return sqlite;
            };
            let mut options = match PostgresOptions::parse(&url.text) {
                Ok(options) => options,
                Err(wrong) => {
                    read.wrong_secret(&url, &wrong.problem);
                    return sqlite;
                }
            };
            if let Some(schema) = schema {
                match options.clone().schema(&schema.text) {
                    Ok(named) => options = named,
                    Err(wrong) => read.wrong(&schema, &wrong.problem),
                }
            }
            match options.clone().connections(connections) {
                Ok(counted) => options = counted,
                Err(wrong) => read.problems.push(wrong.to_string()),
            }
            if !migrate {
                options = options.without_migration();
            }
            Place::Postgres(Box::new(options))
        }
        Some(given) if given.text.eq_ignore_ascii_case("snowflake") => {
            read.problems.push(format!(
                "{} is snowflake, which is not built yet; there are sqlite and postgres",
                given.name
            ));
            sqlite
        }
        Some(given) if !given.text.eq_ignore_ascii_case("sqlite") => {
            read.wrong(&given, "must be sqlite or postgres");
            sqlite
        }
        _ => match path.or(their_path) {
            Some(given) if given.text == ":memory:" => {
                let rule = "must name a file: pods share it, and memory is nobody else's";
                read.wrong(&given, rule);
                sqlite
            }
            Some(given) => Place::Sqlite(PathBuf::from(given.text)),
            None => sqlite,
        },
    }
}

fn pod_name(read: &mut Reader, place: &Place) -> (PodSettings, bool) {
    let named = read.ours("pod_id").or_else(|| read.theirs("POD_ID"));
    let folder = read.ours("local_dir").map_or_else(
        || match place {
            Place::Sqlite(path) => path.parent().unwrap_or(path).join("pods"),
            Place::Postgres(_) => PathBuf::from(FOLDER).join("pods"),
        },
        |given| PathBuf::from(given.text),
    );
    let is_named = named.is_some();
    let pod = match named.as_ref().map(|given| PodId::new(given.text.as_str())) {
        Some(Ok(pod)) => pod,
        Some(Err(wrong)) => {
            if let Some(given) = &named {
                read.wrong(given, &wrong.problem);
            }
            fresh_pod_id()
        }
        None => fresh_pod_id(),
    };
    (PodSettings::new(pod, folder), is_named)
}

/// What this computer is called; empty where it does not say.
pub fn host_name() -> String {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = named.or_else(|| std::env::var("HOSTNAME").ok());
    named.unwrap_or_default().trim().to_owned()
}

/// `pod-HOST-` and eight hexadecimal digits.
fn fresh_pod_id() -> PodId {
    let host = host_name();
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '.';
    let host: String = host.chars().filter(plain).take(64).collect();
    let host = if host.is_empty() { "unknown" } else { &host };
    PodId::new(format!("pod-{host}-{:08x}", fastrand::u32(..))).expect("plain letters, short")
}

/// Seconds of a compatible variable as milliseconds.
fn seconds(read: &mut Reader, name: &str, least: u64, most: u64) -> Option<u64> {
    Some(read.their_number(name, least..=most)? * 1_000)
}

fn intervals(read: &mut Reader, pod: &mut PodSettings, without_effect: &mut Vec<String>) {
    let heartbeat = seconds(read, "HEARTBEAT_INTERVAL_SECONDS", 5, 300);
    let claim = seconds(read, "CLAIM_INTERVAL_SECONDS", 1, 60);
    let recovery = seconds(read, "RECOVERY_INTERVAL_SECONDS", 60, 3_600);
    let dead = seconds(read, "DEAD_POD_THRESHOLD_SECONDS", 60, 1_800);
    if claim.is_some() {
        // Pods ask at once when there is more, and seldom when there is nothing.
        without_effect.push("FLEET_Q_CLAIM_INTERVAL_SECONDS".to_owned());
    }
    let mut rule = |broken: bool, rule: &str| {
        if broken {
            read.problems.push(rule.to_owned());
        }
    };
    rule(
        claim.zip(heartbeat).is_some_and(|(claim, heartbeat)| claim >= heartbeat),
        "FLEET_Q_CLAIM_INTERVAL_SECONDS must be less than FLEET_Q_HEARTBEAT_INTERVAL_SECONDS",
    );
    rule(
        recovery.zip(dead).is_some_and(|(recovery, dead)| recovery < dead),
        "FLEET_Q_RECOVERY_INTERVAL_SECONDS must be at least FLEET_Q_DEAD_POD_THRESHOLD_SECONDS",
    );
    rule(
        dead.zip(heartbeat).is_some_and(|(dead, heartbeat)| dead < 2 * heartbeat),
        "FLEET_Q_DEAD_POD_THRESHOLD_SECONDS must be at least twice \
         FLEET_Q_HEARTBEAT_INTERVAL_SECONDS",
    );
    pod.heartbeat_ms =
        read.number("heartbeat_ms", 10..=600_000, heartbeat.unwrap_or(pod.heartbeat_ms));
    // Who only makes heartbeats rarer does not mean that the pod should die in between.
    let lease = dead.unwrap_or(pod.pod_lease_ms.max(3 * pod.heartbeat_ms));
    pod.pod_lease_ms = read.number("pod_lease_ms", 100..=3_600_000, lease);
    pod.recovery_ms =
        read.number("recovery_ms", 10..=3_600_000, recovery.unwrap_or(pod.recovery_ms));
    pod.step_lease_ms = read.number("step_lease_ms", 100..=3_600_000, pod.step_lease_ms);
    pod.timeout_ms = read.number("timeout_ms", 1..=604_800_000, pod.timeout_ms);
    pod.call_ms = read.number("call_ms", 10..=300_000, pod.call_ms);
    pod.grace_ms = read.number("grace_ms", 0..=3_600_000, pod.grace_ms);
}

fn work(read: &mut Reader, pod: &mut PodSettings) {
    let theirs = read.their_number("MAX_PARALLELISM", 1..=100);
    let default = theirs.unwrap_or(pod.max_parallelism);
    pod.max_parallelism = read.number("max_parallelism", 1..=100, default);
    let theirs = read.their_number("CAPACITY_THRESHOLD", 0.1..=1.0);
    let default = theirs.unwrap_or(pod.capacity_threshold);
    pod.capacity_threshold = read.number("capacity_threshold", 0.1..=1.0, default);
    pod.heed_pressure = read.truth("heed_pressure", pod.heed_pressure);
    pod.prefetch_max = read.number("prefetch_max", 0..=900, pod.prefetch_max);
    pod.backoff.base_ms = read.number("backoff_base_ms", 1..=300_000, pod.backoff.base_ms);
    pod.backoff.max_ms = read.number("backoff_max_ms", 1..=86_400_000, pod.backoff.max_ms);
    pod.poison_after = read.number("poison_after", 1..=11, pod.poison_after);
}

fn breaker(read: &mut Reader, pod: &mut PodSettings) {
    let breaker = &mut pod.breaker;
    breaker.failures_in_row = read.number("breaker_failures", 1..=64, breaker.failures_in_row);
    breaker.window = read.number("breaker_window", 1..=64, breaker.window);
    breaker.open_ms = read.number("breaker_open_ms", 1..=300_000, breaker.open_ms);
    breaker.open_ms_max = read.number("breaker_open_ms_max", 1..=300_000, breaker.open_ms_max);
}

fn retention(read: &mut Reader, pod: &mut PodSettings) {
    let keep = &mut pod.retention;
    let range = || KEEP_MS.0..=KEEP_MS.1;
    keep.finished_ms = read.number("keep_finished_ms", range(), keep.finished_ms);
    keep.dead_ms = read.number("keep_dead_ms", range(), keep.dead_ms);
    keep.pods_ms = read.number("keep_pods_ms", range(), keep.pods_ms);
}

/// Variables that mean nothing here. They are held to their ranges all the same: who set them
/// meant something.
fn unused(read: &mut Reader, without_effect: &mut Vec<String>) {
    let mut note = |name: &str, is_set: bool| {
        if is_set {
            without_effect.push(format!("{}{name}", read::THEIRS));
        }
    };
    let check = read.their_number("LEADER_CHECK_INTERVAL_SECONDS", 10..=600_u64);
    note("LEADER_CHECK_INTERVAL_SECONDS", check.is_some());
    note("DEFAULT_MAX_ATTEMPTS", read.their_number("DEFAULT_MAX_ATTEMPTS", 1..=20_u64).is_some());
    let base = read.their_number("DEFAULT_BASE_DELAY_MS", 10..=5_000_u64);
    let most = read.their_number("DEFAULT_MAX_DELAY_MS", 1_000..=300_000_u64);
    note("DEFAULT_BASE_DELAY_MS", base.is_some());
    note("DEFAULT_MAX_DELAY_MS", most.is_some());
    if base.zip(most).is_some_and(|(base, most)| most <= base) {
        let rule = "FLEET_Q_DEFAULT_MAX_DELAY_MS must be more than FLEET_Q_DEFAULT_BASE_DELAY_MS";
        read.problems.push(rule.to_owned());
    }
}

fn address(read: &mut Reader) -> (SocketAddr, bool) {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let host = match read.theirs("API_HOST") {
        None => loopback,
        Some(given) => match given.text.parse() {
            Ok(host) => host,
            Err(_) if given.text.eq_ignore_ascii_case("localhost") => loopback,
            Err(_) => {
                read.wrong(&given, "must be an IP address");
                loopback
            }
        },
    };
    let port = read.their_number("API_PORT", 1_024..=65_535).unwrap_or(PORT);
    let listen = match read.ours("listen") {
        None => SocketAddr::new(host, port),
        Some(given) => given.text.parse().unwrap_or_else(|_| {
            read.wrong(&given, "must be an address such as 127.0.0.1:8000");
            SocketAddr::new(host, port)
        }),
    };
    let open_to_network = read.truth("open_to_network", false);
    if !listen.ip().is_loopback() && !open_to_network {
        read.problems.push(format!(
            "{listen} (TL_FLEET_LISTEN or FLEET_Q_API_HOST) is open to other machines, and there is no \
             access control yet; TL_FLEET_OPEN_TO_NETWORK=true says that something in front guards it"
        ));
    }
    (listen, open_to_network)
}

fn kinds(read: &mut Reader) -> Vec<(Kind, Exec)> {
    let Some(given) = read.ours("kinds") else { return Vec::new() };
    let mut kinds: Vec<(Kind, Exec)> = Vec::new();
    // One flag is one line; a variable holds several.
    let ends = |c: char| c == '\n' || (c == ';' && !given.name.starts_with("--"));
    for line in given.text.split(ends).map(str::trim).filter(|line| !line.is_empty()) {
        match kind(line) {
            Ok((kind, _)) if kinds.iter().any(|(known, _)| *known == kind) => {
                read.problems.push(format!("{} names {kind} twice", given.name));
            }
            Ok(runs) => kinds.push(runs),
            Err(problem) => read.problems.push(format!("{} {line:?}: {problem}", given.name)),
        }
    }
    if kinds.len() > tl_fleet::limits::KINDS_MAX {
        let most = tl_fleet::limits::KINDS_MAX;
        read.problems.push(format!("{} must name at most {most} kinds", given.name));
    }
    kinds
}

/// `KIND=exec:PROGRAM ARGUMENT…`.
fn kind(line: &str) -> Result<(Kind, Exec), String> {
    let form = || "must be like echo=exec:cat".to_owned();
    let (word, runner) = line.split_once('=').ok_or_else(form)?;
    let program = runner.strip_prefix("exec:").ok_or_else(form)?;
    let kind = Kind::new(word.trim()).map_err(|wrong| wrong.to_string())?;
    let exec = Exec::from_line(program).map_err(|wrong| wrong.to_string())?;
    Ok((kind, exec))
}

fn logs(read: &mut Reader) -> LogSettings {
    let mut logs = LogSettings::default();
    if let Some(given) = read.theirs("LOG_LEVEL") {
        match given.text.to_ascii_uppercase().as_str() {
            "DEBUG" => logs.level = "debug".to_owned(),
            "INFO" => logs.level = "info".to_owned(),
            "WARNING" => logs.level = "warn".to_owned(),
            "ERROR" | "CRITICAL" => logs.level = "error".to_owned(),
            _ => read.wrong(&given, "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        }
    }
    if let Some(given) = read.theirs("LOG_FORMAT") {
        match given.text.to_ascii_lowercase().as_str() {
            "json" => logs.format = LogFormat::Json,
            "console" => logs.format = LogFormat::Text,
            _ => read.wrong(&given, "must be json or console"),
        }
    }
    if let Some(given) = read.ours("log_level") {
        match given.text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) => logs.level = given.text,
            Err(_) => read.wrong(&given, "must be error, warn, info, debug or trace"),
        }
    }
    if let Some(given) = read.ours("log_format") {
        match given.text.as_str() {
            "auto" => logs.format = LogFormat::Auto,
            "text" => logs.format = LogFormat::Text,
            "json" => logs.format = LogFormat::Json,
            _ => read.wrong(&given, "must be auto, text or json"),
        }
    }
    logs
}

/// How long a command that only looks waits for the database.
pub const LOOK: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
