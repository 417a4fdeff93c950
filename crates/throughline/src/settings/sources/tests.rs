use super::*;

fn load(file: Option<&str>, environment: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let config = file.map(|text| {
        let path = folder.path().join("tl.toml");
        std::fs::write(&path, text).expect("written");
        path
    });
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { config, environment, flags: Vec::new() }.load().map_err(|e| e.to_string())
}

#[test]
fn without_sources_the_defaults_are_in_force() {
    assert_eq!(load(None, &[]), Ok(Settings::within(chosen_budget())));
}

#[test]
fn what_is_not_set_is_a_share_of_the_memory_budget() {
    let budget = ("TL_ENGINE__MEMORY_BUDGET_BYTES", "268435456");
    let settings = load(None, &[budget]).expect("settings");
    assert_eq!(settings, Settings::within(256 << 20));
    assert_eq!(settings.engine.cache_bytes, 32 << 20);
    assert_eq!(settings.http.bodies_bytes_max, 32 << 20);
    let file = "[engine]\ncache_bytes = 1048576\n";
    let settings = load(Some(file), &[budget]).expect("settings");
    assert_eq!(settings.engine.cache_bytes, 1 << 20, "what is set stays");
    assert_eq!(settings.http.pages_bytes_max, 32 << 20);
    let error = load(None, &[("TL_ENGINE__MEMORY_BUDGET_BYTES", "134217727")]).expect_err("small");
    assert!(error.contains("engine.memory_budget_bytes is 134217727; it must be"), "{error}");
    let error = load(None, &[budget, ("TL_ENGINE__CACHE_BYTES", "268435456")]).expect_err("large");
    assert!(error.contains("engine.memory_budget_bytes is 268435456; with these"), "{error}");
}

#[test]
fn environment_wins_over_the_file_and_flags_over_both() {
    let file = "[http]\nlisten = \"127.0.0.1:1\"\n[engine]\nnode_name = \"a\"\n";
    let settings = load(Some(file), &[("TL_HTTP__LISTEN", "127.0.0.1:2"), ("OTHER", "x")]);
    let settings = settings.expect("settings");
    assert_eq!(settings.http.listen.port(), 2);
    assert_eq!(settings.engine.node_name, "a");
    let sources = Sources {
        environment: vec![("TL_HTTP__LISTEN".into(), "127.0.0.1:2".into())],
        flags: vec![("http.listen", "127.0.0.1:3".into())],
        config: None,
    };
    assert_eq!(sources.load().expect("settings").http.listen.port(), 3);
}

#[test]
fn aliases_count_and_our_own_names_win() {
    let settings = load(None, &[("PORT", "5000"), ("STARCITE_RAFT_DATA_DIR", "/data")]);
    let settings = settings.expect("settings");
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(settings.engine.data_dir, PathBuf::from("/data"));
    let settings = load(None, &[("TL_HTTP__LISTEN", "127.0.0.1:7"), ("PORT", "5000")]);
    assert_eq!(settings.expect("settings").http.listen.port(), 7);
    assert!(load(None, &[("STARCITE_AUTH_MODE", "none")]).is_ok());
    assert!(load(None, &[("STARCITE_AUTH_MODE", "jwt")]).is_err());
    for name in ["CLUSTER_NODES", "DNS_CLUSTER_QUERY", "STARCITE_WRITE_NODE_IDS"] {
        let refused = load(None, &[(name, "a@10.0.0.1,b@10.0.0.2")]).unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("tl ops found"), "{refused}");
        assert!(load(None, &[(name, "")]).is_ok(), "{name}");
        // A list of nobody, as printed settings have it, is none.
        assert!(load(Some("[cluster]\nmembers = []\n"), &[(name, "a")]).is_err(), "{name}");
        assert!(load(None, &[(name, "a"), ("TL_CLUSTER__MEMBERS", "[]")]).is_err(), "{name}");
        let members = r#"["default=127.0.0.1:1","b=127.0.0.1:2","c=127.0.0.1:3"]"#;
        let named = [(name, "a"), ("TL_CLUSTER__MEMBERS", members), ("TL_ENGINE__NODE_NAME", "b")];
        assert!(load(None, &named).is_ok(), "{name}");
    }
    assert!(load(None, &[("PORT", "no")]).is_err());
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name_and_its_source() {
    let error = load(Some("[http]\nlissten = \"127.0.0.1:1\"\n"), &[]).expect_err("unknown");
    assert!(error.contains("no setting `http.lissten`; did you mean `listen`?"), "{error}");
    assert!(error.contains("tl.toml"), "{error}");
    let error = load(None, &[("TL_ENGIN__DATA_DIR", "x")]).expect_err("unknown");
    assert!(error.contains("no setting `engin`; did you mean `engine`?"), "{error}");
    let error = load(None, &[("TL_ENGINE__GRUOPS", "4")]).expect_err("unknown");
    assert!(error.contains("did you mean `groups`?"), "{error}");
    assert!(error.contains("environment variable TL_ENGINE__GRUOPS"), "{error}");
}

#[test]
fn values_of_the_wrong_kind_or_range_name_their_key() {
    let error = load(None, &[("TL_ENGINE__GROUPS", "many")]).expect_err("a word");
    assert!(error.contains("setting `engine.groups` is not right"), "{error}");
    let error = load(None, &[("TL_ENGINE__GROUPS", "0")]).expect_err("out of range");
    assert!(error.contains("engine.groups is 0; it must be from 1 to 4096"), "{error}");
    let error = load(Some("[engine]\ngroups = 0\n[http]\nping_ms = 0\n"), &[]).expect_err("two");
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(load(Some("[engine\n"), &[]).is_err());
}

/// What is taken is within its ranges and comes back from what `tl settings print` says; what is
/// refused is refused with a sentence.
#[test]
fn settings_over_the_corpus() {
    let defaults = toml::to_string(&Settings::default()).expect("settings are TOML");
    let few = "[http]\nlisten = \"127.0.0.1:1\"\norigins = [\"https://a.example\"]\n[logs]\nlevel = \"info,tl_engine=debug\"\n";
    let seeds = [
        ("defaults", defaults.into_bytes()),
        ("few", few.into()),
        ("wrong", "[http]\nlisten = 4\nconections_max = 1\n".into()),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tl.toml");
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        let config = Some(path.clone());
        Sources { config, ..Sources::default() }.load().map_err(|error| error.to_string())
    };
    tl_fuzz::check_slow("settings", &seeds, |bytes| match load(bytes) {
        Ok(settings) => {
            assert_eq!(settings.problems(), Vec::<String>::new());
            let printed = toml::to_string(&settings).expect("settings are TOML");
            assert_eq!(load(printed.as_bytes()), Ok(settings));
        }
        Err(why) => assert!(!why.trim().is_empty() && why.len() < 10_000 + 4 * bytes.len()),
    });
}
