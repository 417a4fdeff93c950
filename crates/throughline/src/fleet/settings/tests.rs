use super::*;

fn load(variables: &[(&str, &str)]) -> Result<FleetSettings, String> {
    let environment: Vec<(String, String)> =
        variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    FleetSettings::load(&environment, Vec::new()).map_err(|failure| failure.to_string())
}

fn loaded(variables: &[(&str, &str)]) -> FleetSettings {
    load(variables).unwrap()
}

/// Every variable must be refused, and the message must say `words`.
fn refused(variables: &[(&str, &str)], words: &str) {
    let message = load(variables).unwrap_err();
    assert!(message.contains(words), "{variables:?}: {message}");
    for (name, _) in variables {
        assert!(message.contains(name), "{name} is not named: {message}");
    }
}

#[test]
fn nothing_needs_to_be_set() {
    let settings = loaded(&[]);
    assert!(matches!(&settings.place, Place::Sqlite(path) if path.ends_with("tl-fleet/fleet.db")));
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8000");
    assert!(settings.pod.pod.as_str().starts_with("pod-"));
    assert!(!settings.is_named && settings.kinds.is_empty());
}

#[test]
fn compatible_names_are_taken_in_any_case_and_ours_win() {
    let settings = loaded(&[
        ("fleet_q_max_parallelism", "50"),
        ("FLEET_Q_HEARTBEAT_INTERVAL_SECONDS", "15"),
        ("FLEET_Q_DEAD_POD_THRESHOLD_SECONDS", "60"),
        ("FLEET_Q_RECOVERY_INTERVAL_SECONDS", "60"),
        ("TL_FLEET_RECOVERY_MS", "250"),
        ("FLEET_Q_POD_ID", "theirs"),
        ("TL_FLEET_POD_ID", "ours"),
        ("FLEET_Q_SQLITE_DB_PATH", "/data/f.db"),
        ("FLEET_Q_API_PORT", "8001"),
        ("FLEET_Q_LOG_LEVEL", "WARNING"),
        ("FLEET_Q_LOG_FORMAT", "console"),
        ("FLEET_Q_SNOWFLAKE_ACCOUNT", ""),
    ]);
    let pod = &settings.pod;
    assert_eq!((pod.max_parallelism, pod.heartbeat_ms), (50, 15_000));
    assert_eq!((pod.pod_lease_ms, pod.recovery_ms), (60_000, 250));
    assert_eq!((pod.pod.as_str(), settings.is_named), ("ours", true));
    assert!(matches!(&settings.place, Place::Sqlite(path) if path.ends_with("f.db")));
    assert!(pod.local_dir.ends_with("data/pods"));
    assert_eq!(settings.listen.port(), 8001);
    assert_eq!((settings.logs.level.as_str(), settings.logs.format), ("warn", LogFormat::Text));
}

#[test]
fn a_rarer_heartbeat_alone_makes_the_lease_longer() {
    let settings = loaded(&[("FLEET_Q_HEARTBEAT_INTERVAL_SECONDS", "30")]);
    assert_eq!((settings.pod.heartbeat_ms, settings.pod.pod_lease_ms), (30_000, 90_000));
}

#[test]
fn ranges_hold_at_their_ends_and_one_past() {
    for (name, least, most) in [
        ("FLEET_Q_HEARTBEAT_INTERVAL_SECONDS", 5_i64, 300),
        ("FLEET_Q_CLAIM_INTERVAL_SECONDS", 1, 60),
        ("FLEET_Q_LEADER_CHECK_INTERVAL_SECONDS", 10, 600),
        ("FLEET_Q_RECOVERY_INTERVAL_SECONDS", 60, 3_600),
        ("FLEET_Q_DEAD_POD_THRESHOLD_SECONDS", 60, 1_800),
        ("FLEET_Q_DEFAULT_MAX_ATTEMPTS", 1, 20),
        ("FLEET_Q_DEFAULT_BASE_DELAY_MS", 10, 5_000),
        ("FLEET_Q_DEFAULT_MAX_DELAY_MS", 1_000, 300_000),
        ("FLEET_Q_API_PORT", 1_024, 65_535),
        ("TL_FLEET_PREFETCH_MAX", 0, 900),
        ("TL_FLEET_STEP_LEASE_MS", 100, 3_600_000),
        ("TL_FLEET_KEEP_FINISHED_MS", 60_000, 316_224_000_000),
    ] {
        for inside in [least, most] {
            let loaded = load(&[(name, &inside.to_string())]);
            assert!(loaded.is_ok(), "{name}={inside}: {loaded:?}");
        }
        let past = [(least - 1).to_string(), (most + 1).to_string(), "x".to_owned()];
        for past in past {
            refused(&[(name, &past)], "must be from");
        }
    }
    for (parallelism, is_taken) in [("0", false), ("2", true), ("100", true), ("101", false)] {
        assert_eq!(load(&[("FLEET_Q_MAX_PARALLELISM", parallelism)]).is_ok(), is_taken);
    }
    refused(&[("FLEET_Q_CAPACITY_THRESHOLD", "0.05")], "must be from 0.1 to 1");
    refused(&[("FLEET_Q_CAPACITY_THRESHOLD", "NaN")], "must be from 0.1 to 1");
}

#[test]
fn one_message_lists_every_mistake() {
    refused(
        &[
            ("TL_FLEET_STORE", "mysql"),
            ("TL_FLEET_LISTEN", "everywhere"),
            ("TL_FLEET_KINDS", "echo; e=exec:; mail=run:x"),
            ("TL_FLEET_HEED_PRESSURE", "perhaps"),
            ("TL_FLEET_POD_ID", "a b"),
            ("TL_FLEET_HARTBEAT_MS", "5"),
            ("FLEET_Q_LOG_LEVEL", "LOUD"),
            ("FLEET_Q_MAX_PARALLELISM", "101"),
        ],
        "must be like echo=exec:cat",
    );
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    for (one, other) in [
        (("FLEET_Q_CLAIM_INTERVAL_SECONDS", "5"), ("FLEET_Q_HEARTBEAT_INTERVAL_SECONDS", "5")),
        (("FLEET_Q_RECOVERY_INTERVAL_SECONDS", "60"), ("FLEET_Q_DEAD_POD_THRESHOLD_SECONDS", "61")),
        (
            ("FLEET_Q_DEAD_POD_THRESHOLD_SECONDS", "60"),
            ("FLEET_Q_HEARTBEAT_INTERVAL_SECONDS", "31"),
        ),
        (("FLEET_Q_DEFAULT_MAX_DELAY_MS", "1000"), ("FLEET_Q_DEFAULT_BASE_DELAY_MS", "1000")),
    ] {
        refused(&[one, other], "must be");
    }
    let message =
        load(&[("TL_FLEET_POD_LEASE_MS", "1000"), ("TL_FLEET_HEARTBEAT_MS", "501")]).unwrap_err();
    assert!(message.contains("pod_lease_ms must be at least twice heartbeat_ms"), "{message}");
    let message = load(&[("FLEET_Q_MAX_PARALLELISM", "1"), ("FLEET_Q_CAPACITY_THRESHOLD", "0.9")]);
    assert!(message.unwrap_err().contains("at least 1"));
}

#[test]
fn stores_are_told_apart_and_secrets_are_not_repeated() {
    refused(&[("FLEET_Q_STORAGE_MODE", "snowflake")], "not built");
    refused(&[("TL_FLEET_SQLITE_PATH", ":memory:")], "must name a file");
    let message = load(&[("TL_FLEET_STORE", "postgres")]).unwrap_err();
    assert!(message.contains("TL_FLEET_POSTGRES_URL"), "{message}");
    let url = ("TL_FLEET_POSTGRES_URL", "postgres://ann:secret@db:port/x");
    let message = load(&[("FLEET_Q_STORAGE_MODE", "Postgres"), url]).unwrap_err();
    assert!(message.contains("TL_FLEET_POSTGRES_URL") && !message.contains("secret"), "{message}");
    let url = ("TL_FLEET_POSTGRES_URL", "postgres://ann:secret@db:5432/x");
    let settings = loaded(&[("TL_FLEET_STORE", "postgres"), url]);
    assert!(matches!(settings.place, Place::Postgres(_)));
}

#[test]
fn an_address_alone_says_which_store_and_with_a_file_beside_it_one_must_be_named() {
    let url = ("TL_FLEET_POSTGRES_URL", "postgres://ann:secret@db:5432/x");
    assert!(matches!(loaded(&[url]).place, Place::Postgres(_)));
    for path in ["TL_FLEET_SQLITE_PATH", "FLEET_Q_SQLITE_DB_PATH"] {
        refused(&[url, (path, "/data/f.db")], "TL_FLEET_STORE says whether");
        let message = load(&[url, (path, "/data/f.db")]).unwrap_err();
        assert!(!message.contains("secret"), "{message}");
        let named = |store| loaded(&[url, (path, "/data/f.db"), ("TL_FLEET_STORE", store)]).place;
        assert!(matches!(named("sqlite"), Place::Sqlite(_)));
        assert!(matches!(named("postgres"), Place::Postgres(_)));
    }
}

#[test]
fn it_is_open_to_the_network_only_when_forced() {
    refused(&[("FLEET_Q_API_HOST", "0.0.0.0"), ("FLEET_Q_API_PORT", "80")], "must be from 1024");
    let message = load(&[("FLEET_Q_API_HOST", "0.0.0.0")]).unwrap_err();
    assert!(message.contains("0.0.0.0:8000 (TL_FLEET_LISTEN"), "{message}");
    let forced = [("FLEET_Q_API_HOST", "0.0.0.0"), ("TL_FLEET_OPEN_TO_NETWORK", "true")];
    assert_eq!(loaded(&forced).listen.to_string(), "0.0.0.0:8000");
}

#[test]
fn a_slip_in_a_name_is_named_with_the_nearest_one() {
    let message = load(&[("TL_FLEET_HARTBEAT_MS", "50")]).unwrap_err();
    assert!(message.ends_with("did you mean TL_FLEET_HEARTBEAT_MS?"), "{message}");
}

#[test]
fn every_variable_is_on_the_settings_page() {
    let path = format!("{}/../../docs/reference/settings.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    let mut read = Reader::new(&[], Vec::new());
    read_all(&mut read);
    for name in &read.asked {
        assert!(page.contains(&format!("`{name}`")), "the page lacks {name}");
    }
    let shown = |prefix: &str| page.lines().filter(|line| line.starts_with(prefix)).count();
    let ours = read.asked.iter().filter(|name| name.starts_with(read::OURS)).count();
    assert_eq!(shown("| `TL_FLEET_"), ours, "the page shows settings that do not exist");
    let theirs = read.asked.len() - ours;
    assert_eq!(shown("| `FLEET_Q_"), theirs, "the page shows settings that do not exist");
}

#[test]
fn what_has_no_effect_is_said() {
    let settings = loaded(&[("FLEET_Q_DEFAULT_MAX_ATTEMPTS", "5")]);
    assert_eq!(settings.without_effect, ["FLEET_Q_DEFAULT_MAX_ATTEMPTS"]);
}

#[test]
fn kinds_run_programs() {
    let settings = loaded(&[("TL_FLEET_KINDS", "echo=exec:cat; mail=exec:python3 mail.py --fast")]);
    let kinds: Vec<(&str, usize)> =
        settings.kinds.iter().map(|(kind, exec)| (kind.as_str(), exec.args.len())).collect();
    assert_eq!(kinds, [("echo", 0), ("mail", 2)]);
    let twice = load(&[("TL_FLEET_KINDS", "a=exec:cat;a=exec:cat")]).unwrap_err();
    assert!(twice.contains("names a twice"), "{twice}");
}
