//! The face on a socket, and beside a pod.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tl_fleet::sqlite::{SqliteOptions, SqliteStore};
use tl_fleet::{FleetService, Guard, Handlers, PodId, PodSettings, RunningPod, StoreError};
use tl_gateway::fleet::{self, ConnectionLimits, Door};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{World, is_problem, world};

/// Longest wait for something that must happen; reached only when it does not.
const PATIENCE: Duration = Duration::from_secs(30);

struct Served {
    address: std::net::SocketAddr,
    door: Arc<Door>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

async fn serve(limits: ConnectionLimits) -> Served {
    let listener = fleet::listen("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::shut();
    let (stop, mut stops) = watch::channel(false);
    let stopped = async move { drop(stops.wait_for(|stop| *stop).await) };
    let serving = tokio::spawn(fleet::serve(listener, Arc::clone(&door), limits, stopped));
    Served { address, door, stop, serving }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn send(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads one reply: head and body as text; empty when the connection was closed.
async fn reply(stream: &mut TcpStream) -> String {
    let read = async {
        let (mut text, mut chunk) = (String::new(), [0; 4096]);
        loop {
            match stream.read(&mut chunk).await.unwrap_or(0) {
                0 => return text,
                read => text.push_str(std::str::from_utf8(&chunk[..read]).unwrap()),
            }
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.is_some_and(|length| body.len() >= length.parse().unwrap()) {
                return text;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a reply")
}

async fn get(stream: &mut TcpStream, path: &str) -> String {
    send(stream, path).await;
    reply(stream).await
}

#[tokio::test]
async fn connections_have_a_limit_and_who_comes_later_is_served_when_one_ends() {
    let limits = ConnectionLimits { connections_max: 2, ..ConnectionLimits::default() };
    let served = serve(limits).await;
    let mut first = served.connect().await;
    assert!(get(&mut first, "/health/live").await.starts_with("HTTP/1.1 200"));
    let mut second = served.connect().await;
    assert!(get(&mut second, "/health/live").await.starts_with("HTTP/1.1 200"));
    let mut third = served.connect().await;
    send(&mut third, "/health/live").await;
    for _ in 0..50 {
        assert!(get(&mut first, "/health/live").await.starts_with("HTTP/1.1 200"));
    }
    let early = third.try_read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "it waits outside");
    drop(second);
    assert!(reply(&mut third).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_gives_its_place_back() {
    let limits =
        ConnectionLimits { connections_max: 2, head_ms: 100, ..ConnectionLimits::default() };
    let served = serve(limits).await;
    let mut silent = served.connect().await;
    let mut once = served.connect().await;
    assert!(get(&mut once, "/health/live").await.starts_with("HTTP/1.1 200"));
    let mut third = served.connect().await;
    assert!(get(&mut third, "/health/live").await.starts_with("HTTP/1.1 200"));
    // Both were closed, the one that had never said anything with a word or without.
    let said = reply(&mut silent).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    assert_eq!(reply(&mut once).await, "");
}

#[tokio::test]
async fn a_face_whose_database_never_answered_lives_and_says_why_it_is_not_ready() {
    let served = serve(ConnectionLimits::default()).await;
    let mut client = served.connect().await;
    assert!(get(&mut client, "/health/live").await.starts_with("HTTP/1.1 200"));
    assert!(get(&mut client, "/metrics").await.ends_with("# EOF\n"));
    let source = Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    served.door.waits(&StoreError::Unavailable { source });
    for path in ["/health", "/health/ready", "/v1/pods", "/submit", "/nothing"] {
        let reply = get(&mut client, path).await;
        assert!(reply.starts_with("HTTP/1.1 503"), "{path}: {reply}");
        assert!(reply.contains("retry-after: 1"), "{path}: {reply}");
        assert!(reply.contains("database_error"), "{path}: {reply}");
        assert!(reply.contains("waits for its database: the database does not answer"), "{reply}");
    }
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::new(folder.path().join("fleet.db"));
    let store = Arc::new(SqliteStore::open(options).unwrap());
    let guard = Arc::new(Guard::new(store, Default::default(), 60_000));
    served.door.open(Arc::new(FleetService::alone(guard)));
    // On the same connection.
    assert!(get(&mut client, "/health/ready").await.starts_with("HTTP/1.1 200"));
    served.stop.send_replace(true);
    tokio::time::timeout(PATIENCE, served.serving).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_leader_recovers_when_asked_and_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).unwrap());
    let name = PodId::new("leads").unwrap();
    // Its own cycles are rare: the one that is seen here was asked for.
    let settings = PodSettings {
        heartbeat_ms: 50,
        recovery_ms: 3_600_000,
        ..PodSettings::new(name, folder.path().join("pod"))
    };
    let pod = RunningPod::start(settings, store, Handlers::new()).unwrap();
    let handle = pod.handle();
    let leads = async {
        while handle.status().epoch.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, leads).await.expect("it leads");
    let router = fleet::router(Arc::new(FleetService::beside(handle)));
    let mut one = World { router: router.clone(), ..world() };
    let mut other = World { router, ..world() };
    let path = "/admin/recovery/run";
    // Nobody writes while this is locked: the first has to wait.
    let turn = std::fs::File::open(folder.path().join("fleet.db-turn")).unwrap();
    turn.lock().unwrap();
    {
        let mut first = std::pin::pin!(one.post(path, json!({})));
        tokio::select! {
            biased;
            first = &mut first => panic!("it did not wait: {}", first.text),
            () = std::future::ready(()) => {}
        }
        is_problem(&other.post(path, json!({})).await, 409, "conflict", path);
        turn.unlock().unwrap();
        let first = first.await;
        assert_eq!(first.status, http::StatusCode::OK, "{}", first.text);
        assert_eq!(first.body["recovery_summary"]["orphaned_steps_found"], 0);
    }
    assert_eq!(one.post(path, json!({ "force": true })).await.status, http::StatusCode::OK);
    let queue = one.get("/admin/queue").await;
    assert_eq!(queue.body["current_leader"], "leads");
    assert_eq!(one.get("/admin/leader").await.body["active_pods"], 1);
    assert_eq!(one.get("/health").await.body["is_leader"], true);
    assert_eq!(one.get("/v1/pods").await.body["leader"], "leads");
}
