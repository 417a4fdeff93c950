//! Every workload of `tl bench`, at a size at which its figures mean nothing: it must end, and
//! its lines must carry what readers of them look for.

use serde_json::Value;

use crate::tl::run;

/// Runs a workload; answers its lines.
fn lines(words: &str) -> Vec<Value> {
    let ran = run(&format!("bench {words} --json"));
    assert_eq!(ran.code, 0, "tl bench {words}: {ran:?}");
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "tl bench {words} printed nothing");
    // What people read carries the same news.
    assert!(lines.iter().all(Value::is_object), "{lines:?}");
    lines
}

/// The one line of a workload that has one, with these numbers in it.
fn line(words: &str, numbers: &[&str]) -> Value {
    let lines = lines(words);
    assert_eq!(lines.len(), 1, "{lines:?}");
    has_numbers(&lines[0], numbers);
    lines.into_iter().next().unwrap()
}

fn has_numbers(line: &Value, names: &[&str]) {
    for name in names {
        assert!(line[name].as_f64().is_some_and(|number| number >= 0.0), "{name} in {line}");
    }
}

const CELL: [&str; 6] = ["conns", "size_bytes", "rate", "p50_us", "p99_us", "p999_us"];
const AGAINST: [&str; 5] =
    ["against_rate", "against_p50_us", "against_p99_us", "ratio", "ratio_min"];

#[test]
fn the_ceiling_takes_frames_one_by_one_and_pipelined() {
    for depth in [1, 16] {
        let words = format!("ceiling --conns 2 --depth {depth} --repetitions 2 --slice-ms 50");
        let cell = line(&words, &CELL);
        assert_eq!((cell["workload"].as_str(), cell["conns"].as_u64()), (Some("ceiling"), Some(2)));
        assert!(cell["rate"].as_f64() > Some(0.0), "{cell}");
        assert_eq!(cell["ratio"], Value::Null);
    }
}

#[test]
fn the_other_ceilings_have_lines_of_the_same_shape() {
    let cell = line("ceiling --fanout 3 --repetitions 2 --slice-ms 50", &CELL);
    assert_eq!((cell["unit"].as_str(), cell["conns"].as_u64()), (Some("deliveries"), Some(3)));
    let cell = line("ceiling --replay --size 100 --repetitions 2 --slice-ms 50", &CELL);
    assert_eq!(cell["unit"], "bytes");
}

#[test]
fn appends_stand_beside_the_ceiling_in_every_cell() {
    let words = "append --conns 1,5 --sessions 3 --against ceiling --repetitions 3 --slice-ms 50";
    let cells = lines(words);
    assert_eq!(cells.len(), 2);
    for (cell, conns) in cells.iter().zip([1, 5]) {
        assert_eq!(
            (cell["conns"].as_u64(), cell["against"].as_str()),
            (Some(conns), Some("ceiling"))
        );
        has_numbers(cell, &CELL);
        has_numbers(cell, &AGAINST);
        assert!(cell["syncs"].as_u64() > Some(0), "{cell}");
    }
}

#[test]
fn a_run_without_a_break_tells_device_bytes_and_memory() {
    let words = "append --conns 2 --sessions 2 --against ceiling --seconds 1 --repetitions 2 \
                 --slice-ms 50";
    let run = [
        "seconds",
        "second_min",
        "second_median",
        "device_bytes",
        "device_ratio",
        "resident_early_kib",
        "resident_late_kib",
        "flushes",
        "compactions",
    ];
    let cell = line(words, &run);
    has_numbers(&cell, &CELL);
    has_numbers(&cell, &AGAINST);
    assert!(cell["body_bytes"].as_u64() > Some(0), "{cell}");
}

#[test]
fn batches_count_their_events() {
    let words = "batch --events 8 --conns 1 --sessions 2 --against ceiling --repetitions 2 \
                 --slice-ms 50";
    let cell = line(words, &CELL);
    has_numbers(&cell, &AGAINST);
    assert_eq!((cell["unit"].as_str(), cell["size_bytes"].as_u64()), (Some("events"), Some(100)));
}

#[test]
fn deliveries_are_timed_from_the_write_and_from_its_answer() {
    let after = ["after_ack_p50_us", "after_ack_p99_us"];
    let cell = line("tail --repetitions 2 --slice-ms 50", &after);
    assert_eq!(cell["workload"], "tail");
    let words = "fanout --readers 1,7 --against ceiling --repetitions 2 --slice-ms 50";
    let cells = lines(words);
    assert_eq!(cells.len(), 2);
    for cell in &cells {
        has_numbers(cell, &after);
        has_numbers(cell, &AGAINST);
    }
}

#[test]
fn a_replay_reads_whole_sessions() {
    let words = "replay --sessions 2 --events 64 --against ceiling --repetitions 2 --slice-ms 50";
    let cell = line(words, &CELL);
    has_numbers(&cell, &AGAINST);
    assert_eq!(cell["unit"], "bytes");
}

#[test]
fn starts_and_restarts_have_a_line_per_case() {
    let starts = lines("start --repetitions 1");
    let cases: Vec<_> = starts.iter().map(|line| line["directory"].as_str().unwrap()).collect();
    assert_eq!(cases, ["empty", "none"]);
    starts.iter().for_each(|line| has_numbers(line, &["p50_us", "resident_kib"]));

    let restarts = lines("restart --tail 1MiB --repetitions 1");
    let cases: Vec<_> = restarts.iter().map(|line| line["cache"].as_str().unwrap()).collect();
    assert_eq!(cases, ["warm", "cold"]);
    for line in &restarts {
        has_numbers(line, &["log_bytes", "ready_ms", "against_ms", "ratio"]);
    }
}

#[test]
fn an_idle_node_and_many_sessions_are_weighed() {
    line("idle --seconds 1 --rest 0", &["cpu_percent", "rss_mib", "syncs"]);
    let words = "sessions --sessions 200 --rest-ms 0 --conns 2 --pages 3 --repetitions 2 \
                 --slice-ms 50";
    let many = line(words, &["create_rate", "empty_kib", "resident_kib", "cold_ratio"]);
    assert_eq!(many["list_pages"], 2, "200 sessions are two pages of 100");
    has_numbers(&many, &["hot_p50_us", "cold_p50_us", "list_p99_us"]);
}

#[test]
fn a_cluster_is_measured_while_a_node_is_away() {
    let words = "append --cluster --against ceiling --conns 2 --sessions 2 --repetitions 1 \
                 --slice-ms 50";
    has_numbers(&line(words, &CELL), &AGAINST);
    let died = line("failover --kills 1", &["p50_us", "p99_us", "max_us", "appends"]);
    assert!(died["samples"].as_u64() > Some(0), "{died}");
    line("catchup --missed 1MiB", &["missed_bytes", "ready_ms", "caught_up_ms", "mib_per_s"]);
    line("idle --nodes 3 --down 1 --seconds 1 --rest 0", &["cpu_percent", "rss_mib"]);
}

#[test]
fn a_mixed_load_gets_the_answers_it_expects_while_tails_are_open() {
    let words = "mixed --conns 3 --tails 2 --sessions 4 --repetitions 3 --slice-ms 50";
    has_numbers(&line(words, &CELL), &["delivered"]);
    let words = "mixed --conns 3 --tails 0 --sessions 4 --seconds 1";
    has_numbers(&line(words, &CELL), &["seconds", "second_min", "resident_late_kib"]);
}

#[test]
fn another_server_must_be_named() {
    let ran = run("bench append --against redis --conns 1");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("--other"), "{ran:?}");
}
