//! `tl fleet …` as a user types it: a pod in one terminal, everything else in another.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::tl::{Ran, command, ran};

// Not all that it offers is needed here.
#[allow(dead_code)]
#[path = "../../../tl-fleet/tests/it/postgres/server.rs"]
mod server;

/// A folder to work in, as a user's two terminals would be, and which database.
struct Place {
    folder: tempfile::TempDir,
    /// Flags that name the database.
    flags: Vec<String>,
}

impl Place {
    /// Nothing installed, nothing configured.
    fn plain() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), flags: Vec::new() }
    }

    fn postgres(schema: &str) -> Place {
        let flags = ["--url", &server::server().url(), "--schema", schema];
        Place { flags: flags.map(str::to_owned).to_vec(), ..Place::plain() }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = command(&format!("fleet {words}"));
        command.args(&self.flags).current_dir(self.folder.path()).env("PATH", "/usr/bin:/bin");
        command
    }

    fn tl(&self, words: &str) -> Ran {
        ran(&mut self.command(words))
    }

    /// Runs `tl fleet`; it must succeed. Answers its lines as JSON.
    fn json(&self, words: &str) -> Vec<Value> {
        let ran = self.tl(&format!("{words} --json"));
        assert_eq!(ran.code, 0, "tl fleet {words}: {ran:?}");
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only line.
    fn one(&self, words: &str) -> Value {
        let mut lines = self.json(words);
        assert_eq!(lines.len(), 1, "{words}: {lines:?}");
        lines.remove(0)
    }
}

/// A pod of `tl fleet run`; killed when dropped.
struct Pod {
    child: Child,
    ready: Value,
}

impl Pod {
    fn start(place: &Place, words: &str) -> Pod {
        let words = format!("run --listen 127.0.0.1:0 --end-with-parent --json {words}");
        let mut child = place
            .command(&words)
            .env("TL_FLEET_HEARTBEAT_MS", "100")
            .env("TL_FLEET_BACKOFF_BASE_MS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("a ready line").unwrap();
        Pod { child, ready: serde_json::from_str(&line).unwrap() }
    }

    fn name(&self) -> &str {
        self.ready["pod_id"].as_str().unwrap()
    }

    fn stop(mut self) -> i32 {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().code().expect("no signal")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything a newcomer does, in one order.
fn a_tour(place: &Place) {
    let pod = Pod::start(place, "--kind echo=exec:cat --kind no=exec:false");
    let given = json!({ "hello": "world", "n": 7 });
    let words = format!("submit echo --wait --args {}", given.to_string().replace(' ', ""));
    let result = place.tl(&words);
    assert_eq!(result.code, 0, "{result:?}");
    let result: Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!((&result["args"], &result["attempt"]), (&given, &json!(1)));
    let id = result["step_id"].as_str().unwrap();

    let step = place.one(&format!("status {id}"));
    assert_eq!((&step["state"], &step["type"]), (&json!("completed"), &json!("echo")));
    assert_eq!(step["attempts"][0]["end"], "completed");
    assert_eq!(step["claimed_by"], pod.name());
    let text = place.tl(&format!("status {id}")).stdout;
    assert!(text.contains("completed") && text.contains(pod.name()), "{text}");
    let listed = place.json("list --state completed --type echo");
    assert_eq!((listed.len(), listed[0]["step_id"].as_str()), (1, Some(id)));

    // What fails is given up, seen, and put back.
    let failed = place.tl("submit no --max-retries 1 --wait");
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("tl fleet retry"), "{failed:?}");
    let letter = place.one("dead-letters");
    assert_eq!(letter["reason"], "max_retries_exceeded");
    let dead = letter["step_id"].as_str().unwrap();
    assert_eq!(place.one(&format!("retry {dead}"))["state"], "pending");
    // It may have failed again by now, and be a dead letter once more.
    let letters = place.json("dead-letters --retried");
    let retried = letters.iter().filter(|letter| !letter["retried_at"].is_null()).count();
    assert_eq!(retried, 1, "{letters:?}");
    let waited = place.tl(&format!("status {dead} --wait --json"));
    assert_eq!((waited.code, &waited.json()["retry_count"]), (1, &json!(2)));
    assert_eq!(waited.json()["attempt"], 4, "attempts go on counting");

    // Later, and then not at all.
    let later = place.one("submit echo --delay-ms 3600000 --unique-key once");
    assert_eq!((&later["state"], &later["deduped"]), (&json!("scheduled"), &json!(false)));
    let again = place.one("submit echo --unique-key once");
    assert_eq!((&again["step_id"], &again["deduped"]), (&later["step_id"], &json!(true)));
    let later = later["step_id"].as_str().unwrap();
    assert_eq!(place.one(&format!("cancel {later}"))["cancel"], "now");
    let twice = place.tl(&format!("cancel {later}"));
    assert_eq!(twice.code, 1);
    assert!(twice.stderr.contains("is finished: cancelled"), "{twice:?}");

    let overview = place.one("status");
    assert_eq!((&overview["completed"], &overview["cancelled"]), (&json!(1), &json!(1)));
    assert_eq!(overview["pods"], 1);
    let pods = place.json("pods");
    assert_eq!((pods.len(), &pods[0]["status"]), (1, &json!("up")));
    assert_eq!(place.one("leader")["leader"], pod.name());
    assert_eq!(pod.stop(), 0);
    assert_eq!(place.json("pods")[0]["status"], "down");
    assert_eq!(place.one("leader")["leader"], Value::Null);
}

#[test]
fn a_newcomer_submits_a_step_and_reads_its_result_with_nothing_installed() {
    a_tour(&Place::plain());
}

#[test]
fn the_same_over_postgres() {
    a_tour(&Place::postgres("tour"));
}

fn pods_are_drained_through_the_database(place: &Place) {
    let first = Pod::start(place, "--kind echo=exec:cat --pod first");
    let second = Pod::start(place, "--kind echo=exec:cat --pod second");
    let told = place.one("drain first --wait");
    assert_eq!((&told["pod_id"], &told["drain"]), (&json!("first"), &json!("down")));
    let mut first = first;
    assert_eq!(first.child.wait().unwrap().code(), Some(0));
    let refused = place.tl("drain first unknown");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no pod first is up"), "{refused:?}");
    assert!(refused.stderr.contains("no pod unknown is up"), "{refused:?}");
    assert_eq!(place.tl("submit echo --wait").code, 0, "the other goes on");
    assert_eq!(place.one("drain --all --wait")["pod_id"], "second");
    let mut second = second;
    assert_eq!(second.child.wait().unwrap().code(), Some(0));
}

#[test]
fn pods_go_down_when_somebody_asks_through_the_file() {
    pods_are_drained_through_the_database(&Place::plain());
}

#[test]
fn pods_go_down_when_somebody_asks_through_postgres() {
    pods_are_drained_through_the_database(&Place::postgres("drained"));
}

/// Told to stop with one step that ends soon, one that does not, and some that wait: the first
/// counts, the others are given back uncharged and no lease has to run out.
fn what_is_in_hand_is_ended_or_given_back(place: &Place) {
    let folder = place.folder.path();
    std::fs::write(folder.join("soon.sh"), "touch soon; until [ -e stop ]; do sleep 0.02; done")
        .unwrap();
    std::fs::write(folder.join("long.sh"), "touch long; exec sleep 600").unwrap();
    let mut child = place
        .command("run --listen 127.0.0.1:0 --end-with-parent --json")
        .args(["--kind", "soon=exec:sh soon.sh"])
        .args(["--kind", "long=exec:sh long.sh"])
        .envs([
            ("TL_FLEET_MAX_PARALLELISM", "2"),
            ("TL_FLEET_CAPACITY_THRESHOLD", "1"),
            ("TL_FLEET_HEED_PRESSURE", "false"),
            ("TL_FLEET_GRACE_MS", "3000"),
            ("TL_FLEET_HEARTBEAT_MS", "100"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = serde_json::from_str(&lines.next().expect("a ready line").unwrap()).unwrap();
    let pod = Pod { child, ready };
    let submit =
        |words: &str| place.one(&format!("submit {words}"))["step_id"].as_str().unwrap().to_owned();
    let (soon, long) = (submit("soon"), submit("long"));
    let is_there = |name: &str| folder.join(name).exists();
    wait_until("both run", || is_there("soon") && is_there("long"));
    let waiting: Vec<String> = (0..4).map(|_| submit("long")).collect();
    // One or two, as they came: a pod asks for more when half of its room is free.
    let claimed = || place.one("status")["claimed"].as_u64().unwrap();
    wait_until("some are held ready", || claimed() > 2);
    kill_process(Pid::from_child(&pod.child), Signal::TERM).unwrap();
    // What has not started is given back at once, while the rest still runs.
    wait_until("two are in hand", || claimed() == 2);
    std::fs::write(folder.join("stop"), "").unwrap();
    // A second signal would end it at once.
    let mut pod = pod;
    assert_eq!(pod.child.wait().unwrap().code(), Some(0));
    let step = |id: &str| place.one(&format!("status {id}"));
    assert_eq!(step(&soon)["state"], "completed");
    for id in waiting.iter().chain([&long]) {
        let step = step(id);
        assert_eq!((&step["state"], &step["retry_count"]), (&json!("pending"), &json!(0)));
        for attempt in step["attempts"].as_array().unwrap() {
            assert_eq!(attempt["end"], "released");
        }
    }
    assert_eq!(step(&long)["attempt"], 1);
    assert_eq!(place.one("status")["claimed"], 0);
}

/// Waits until it is so; fails when that takes longer than anything should.
#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed().as_secs() < 60, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_pod_that_is_told_to_stop_ends_or_gives_back_what_it_holds() {
    what_is_in_hand_is_ended_or_given_back(&Place::plain());
}

#[test]
fn a_pod_over_postgres_that_is_told_to_stop_ends_or_gives_back_what_it_holds() {
    what_is_in_hand_is_ended_or_given_back(&Place::postgres("stopped"));
}

#[test]
fn lines_become_steps_and_a_wrong_one_is_named() {
    const LINES: usize = 1_100;
    let place = Place::plain();
    let pod = Pod::start(&place, "--kind other=exec:cat");
    let submit = |text: &str| {
        let mut child = place
            .command("submit count --lines - --json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let lines: String = (0..LINES).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let output = submit(&lines);
    assert!(output.status.success());
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), LINES);
    let output = submit("{\"n\":1}\n[]\n");
    assert_eq!(output.status.code(), Some(2));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(error["message"].as_str().unwrap().starts_with("line 2 "), "{error}");
    let overview = place.one("status");
    assert_eq!(overview["pending"], LINES);
    assert_eq!(overview["unserved_types"], json!(["count"]));
    let page = place.json("list --limit 2");
    assert_eq!((page.len(), page[2]["next_page"].is_string()), (3, true));
    let next = page[2]["next_page"].as_str().unwrap();
    assert_eq!(place.json(&format!("list --limit 2 --page {next}")).len(), 3);
    assert_eq!(pod.stop(), 0);
}

#[test]
fn what_cannot_work_is_said_with_what_to_do() {
    let place = Place::plain();
    let nowhere = place.tl("status --json");
    assert_eq!(nowhere.code, 1);
    let error: Value = serde_json::from_str(&nowhere.stderr).unwrap();
    assert!(error["message"].as_str().unwrap().contains("there is no fleet at"), "{error}");
    assert!(error["advice"].as_str().unwrap().contains("tl fleet run"), "{error}");
    assert!(!Path::new(&place.folder.path().join("tl-fleet")).exists(), "looking makes nothing");

    let mut wrong = place.command("run --kind echo --json");
    let wrong = ran(wrong.env("TL_FLEET_GRACE_MS", "x").env("FLEET_Q_STORAGE_MODE", "snowflake"));
    assert_eq!(wrong.code, 2);
    for name in ["--kind", "TL_FLEET_GRACE_MS", "FLEET_Q_STORAGE_MODE"] {
        assert!(wrong.stderr.contains(name), "{name}: {wrong:?}");
    }

    let away = place.tl("status --url postgres://nobody@127.0.0.1:1/none");
    assert_eq!(away.code, 3, "{away:?}");
    assert!(away.stderr.contains("does not answer"), "{away:?}");

    assert_eq!(place.tl("migrate").code, 0);
    assert_eq!(place.tl("status not-an-id").code, 2);
    assert_eq!(place.tl("submit a/b").code, 2);
    assert_eq!(place.tl("submit a --max-retries 11").code, 2);
    let unknown = "00000000-0000-7000-8000-000000000000";
    assert_eq!(place.tl(&format!("status {unknown}")).code, 1);
    assert_eq!(place.tl(&format!("retry {unknown}")).code, 1);
}

#[test]
fn postgres_without_tables_says_how_they_are_made() {
    let place = Place::postgres("empty");
    let none = place.tl("status");
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.stderr.contains("tl fleet migrate"), "{none:?}");
    let grants = place.tl("migrate --grants");
    assert!(grants.stdout.contains("GRANT USAGE ON SCHEMA \"empty\""), "{grants:?}");
    let version = tl_fleet::postgres::SCHEMA_VERSION;
    assert_eq!(place.one("migrate"), json!({ "store": "postgres", "schema_version": version }));
    assert_eq!(place.one("status")["pods"], 0);
}

#[test]
fn a_second_pod_of_a_folder_has_its_own_journal_and_the_same_name_is_refused() {
    let place = Place::plain();
    let one = Pod::start(&place, "");
    let two = Pod::start(&place, "");
    let folders = std::fs::read_dir(place.folder.path().join("tl-fleet/pods")).unwrap();
    assert_eq!(folders.count(), 2);
    assert_ne!(one.name(), two.name());
    let named = Pod::start(&place, "--pod named");
    let refused = place.tl("run --pod named --no-http");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("another pod uses the folder"), "{refused:?}");
    assert_eq!([one.stop(), two.stop(), named.stop()], [0; 3]);
}

/// The status of a GET, and all that was said.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

#[test]
fn a_pod_that_starts_while_its_database_is_away_lives_and_says_why_it_is_not_ready() {
    let place = Place::plain();
    let child = place
        .command("run --listen 127.0.0.1:0 --end-with-parent --json")
        .arg("--url=postgres://nobody@127.0.0.1:1/none")
        .env("TL_FLEET_LOG_FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pod = Pod { child, ready: Value::Null };
    let mut lines = BufReader::new(pod.child.stderr.take().unwrap()).lines();
    let address = lines
        .by_ref()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find_map(|line| line.to_string().contains("listening").then_some(line))
        .and_then(|line| {
            let text = line.to_string();
            let from = text.find("127.0.0.1:")?;
            Some(
                text[from..]
                    .chars()
                    .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
                    .collect(),
            )
        });
    let address: String = address.expect("it says where it listens");
    // What it says on has a reader: a pod whose last words find none would end.
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(get(&address, "/health/live").0, 200);
    let why = || get(&address, "/health/ready");
    wait_until("it says why", || why().1.contains("the database does not answer"));
    assert_eq!(why().0, 503);
    assert_eq!(get(&address, "/v1/pods").0, 503);
    assert_eq!(pod.stop(), 0);
}

/// Whether a process is there and not only waiting to be collected.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// In a session of its own, and out of sight of its parents: only the mark in its environment
/// tells whose it is.
#[test]
fn nothing_that_a_program_starts_outlives_its_attempt() {
    let place = Place::plain();
    let folder = place.folder.path();
    let stay = |name: &str| {
        format!("setsid sh -c 'echo $$ > {name}; exec sleep 1000' < /dev/null > /dev/null 2>&1 &")
    };
    let wait = |name: &str| format!("until [ -s {name} ]; do sleep 0.01; done");
    let (ends, hangs) = (stay("ends"), stay("hangs"));
    std::fs::write(folder.join("ends.sh"), format!("( {ends} )\n{}\necho 1", wait("ends")))
        .unwrap();
    std::fs::write(folder.join("hangs.sh"), format!("( {hangs} )\n{}\nsleep 1000", wait("hangs")))
        .unwrap();
    let mut child = place
        .command("run --listen 127.0.0.1:0 --end-with-parent --json")
        .args(["--kind", "ends=exec:sh ends.sh", "--kind", "hangs=exec:sh hangs.sh"])
        .env("TL_FLEET_HEARTBEAT_MS", "100")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = serde_json::from_str(&lines.next().expect("a ready line").unwrap()).unwrap();
    let pod = Pod { child, ready };
    let pid = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().trim().to_owned();
    let hung = place.one("submit hangs --timeout-ms 1000 --max-retries 0");
    let ended = place.tl("submit ends --wait");
    assert_eq!((ended.code, ended.stdout.trim()), (0, "1"), "{ended:?}");
    wait_until("what the one that ended left is gone", || !is_alive(&pid("ends")));
    let failed = place.tl(&format!("status {} --wait", hung["step_id"].as_str().unwrap()));
    assert_eq!(failed.code, 1, "{failed:?}");
    wait_until("what the one that hung left is gone", || !is_alive(&pid("hangs")));
    assert_eq!(pod.stop(), 0);
}
