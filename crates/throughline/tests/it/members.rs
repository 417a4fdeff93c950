//! Founded clusters of real processes, whose members may be stopped, killed and started again.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use crate::tl::{Node, Ran, TL, command, ran};

pub const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];
pub const GROUPS: u16 = 32;
/// Between two looks at what comes in the end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The directories of members and of the routers behind them, and their certificates if they are to
/// have some.
pub struct Founding {
    folder: tempfile::TempDir,
    is_encrypted: bool,
    /// Its members keep no log for others, so that who was away is given rows.
    keeps_no_log: bool,
    names: Vec<&'static str>,
    /// How many of the names are routers.
    routers: usize,
    /// How often each node was given a new life.
    lives: Vec<u32>,
}

impl Founding {
    pub fn new(is_encrypted: bool) -> Founding {
        Founding::of(GROUPS, is_encrypted)
    }

    pub fn of(groups: u16, is_encrypted: bool) -> Founding {
        Founding::named(&NAMES, &[], groups, is_encrypted)
    }

    pub fn named(
        members: &[&'static str],
        routers: &[&'static str],
        groups: u16,
        is_encrypted: bool,
    ) -> Founding {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<&'static str> = members.iter().chain(routers).copied().collect();
        let lives = vec![0; names.len()];
        let (routers_count, keeps_no_log) = (routers.len(), false);
        let founding =
            Founding { folder, is_encrypted, keeps_no_log, names, routers: routers_count, lives };
        let mut words = format!("ops found {} --groups {groups}", members.join(" "));
        if !routers.is_empty() {
            words.push_str(&format!(" --routers {}", routers.join(",")));
        }
        words.push_str(" --out");
        let found = ran(command(&words).arg(founding.path("founding")));
        assert_eq!(found.code, 0, "{found:?}");
        if is_encrypted {
            founding.issue_certificates();
        }
        founding
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self, node: usize) -> PathBuf {
        self.path("founding").join(self.names[node])
    }

    fn issue_certificates(&self) {
        let authority = self.path("authority");
        let init = ran(command("ops ca init --ca").arg(&authority));
        assert_eq!(init.code, 0, "{init:?}");
        for node in 0..self.names.len() {
            self.issue_certificate(node);
        }
    }

    /// Where the certificate of a member's present life is.
    fn certificate(&self, node: usize) -> PathBuf {
        self.path("certificates").join(format!("{}-{}", self.names[node], self.lives[node]))
    }

    fn issue_certificate(&self, node: usize) {
        let issue = ran(command("ops ca issue --ca")
            .arg(self.path("authority"))
            .arg("--data")
            .arg(self.data(node))
            .arg("--out")
            .arg(self.certificate(node)));
        assert_eq!(issue.code, 0, "{issue:?}");
    }

    /// The settings of a node; `members` are the addresses of members and routers.
    pub fn environment(
        &self,
        node: usize,
        members: &[SocketAddr],
        listen: &str,
    ) -> Vec<(String, String)> {
        let all = self.names.iter().zip(members);
        let mut all: Vec<String> = all.map(|(name, at)| format!("{name}={at}")).collect();
        let routers = all.split_off(self.names.len() - self.routers);
        let list = serde_json::to_string(&all).unwrap();
        let mut environment = vec![
            ("TL_ENGINE__NODE_NAME", self.names[node].to_owned()),
            ("TL_ENGINE__MEMORY_BUDGET_BYTES", "134217728".to_owned()),
            ("TL_CLUSTER__MEMBERS", list),
            // The machine of a test may stand still for a moment.
            ("TL_CLUSTER__SUSPECT_AFTER_MS", "3000".to_owned()),
            ("TL_HTTP__LISTEN", listen.to_owned()),
        ];
        if !routers.is_empty() {
            let routers = serde_json::to_string(&routers).unwrap();
            environment.push(("TL_CLUSTER__ROUTERS", routers));
        }
        if self.keeps_no_log {
            environment.extend([
                ("TL_ENGINE__LOG_KEEP_BYTES", "0".to_owned()),
                ("TL_ENGINE__LOG_SEGMENT_BYTES", "25165824".to_owned()),
            ]);
        }
        if self.is_encrypted {
            let file = |file: &str| {
                let path = self.certificate(node).join(file);
                path.to_str().unwrap().to_owned()
            };
            environment.extend([
                ("TL_CLUSTER__AUTHORITY", file("authority.pem")),
                ("TL_CLUSTER__CERTIFICATE", file("node.pem")),
                ("TL_CLUSTER__KEY", file("node.key")),
            ]);
        }
        environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Nodes on loopback, each at addresses that it keeps.
pub struct Cluster {
    founding: Founding,
    members: Vec<SocketAddr>,
    listen: Vec<SocketAddr>,
    nodes: Vec<Option<Node>>,
    /// Begun, and not waited for yet.
    begun: Vec<(usize, Child)>,
}

/// Free addresses, all different ones.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    // Held until all are known.
    let ports: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    ports.iter().map(|port| port.local_addr().unwrap()).collect()
}

impl Cluster {
    pub fn start(is_encrypted: bool) -> Cluster {
        Cluster::of(GROUPS, is_encrypted)
    }

    pub fn of(groups: u16, is_encrypted: bool) -> Cluster {
        Cluster::founded(Founding::of(groups, is_encrypted))
    }

    /// Few groups, whose members keep no log for others.
    pub fn without_logs(groups: u16) -> Cluster {
        Cluster::founded(Founding { keeps_no_log: true, ..Founding::of(groups, true) })
    }

    /// Starts all nodes of a founding.
    pub fn founded(founding: Founding) -> Cluster {
        let count = founding.names.len();
        let (members, listen) = (free_addresses(count), free_addresses(count));
        let nodes = (0..count).map(|_| None).collect();
        let mut cluster = Cluster { founding, members, listen, nodes, begun: Vec::new() };
        cluster.restart_together(&(0..count).collect::<Vec<_>>());
        cluster
    }

    /// Starts a member and does not wait for it: see [`Cluster::take_in`].
    pub fn begin(&self, node: usize) -> Child {
        let listen = self.listen[node].to_string();
        let environment = self.founding.environment(node, &self.members, &listen);
        Node::begin(Command::new(TL), &self.founding.data(node), &environment)
    }

    pub fn restart(&mut self, node: usize) {
        self.nodes[node] = Some(Node::ready(self.begin(node)));
    }

    /// Starts members that can only get ready together.
    pub fn restart_together(&mut self, nodes: &[usize]) {
        let begun: Vec<_> = nodes.iter().map(|node| (*node, self.begin(*node))).collect();
        for (node, child) in begun {
            self.nodes[node] = Some(Node::ready(child));
        }
    }

    /// Starts a member that gets ready with the next one that is taken in.
    pub fn restart_later(&mut self, node: usize) {
        let child = self.begin(node);
        self.begun.push((node, child));
    }

    /// Waits until a member that was begun is ready, and all that were left for later.
    pub fn take_in(&mut self, node: usize, child: Child) {
        let begun = std::mem::take(&mut self.begun).into_iter();
        for (node, child) in begun.chain([(node, child)]) {
            self.nodes[node] = Some(Node::ready(child));
        }
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes[node].take().unwrap().kill();
    }

    /// SIGTERM; answers the exit code.
    pub fn stop(&mut self, node: usize) -> i32 {
        self.nodes[node].take().unwrap().stop()
    }

    pub fn node(&self, node: usize) -> &Node {
        self.nodes[node].as_ref().unwrap()
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        self.listen[node]
    }

    /// Where a member serves, also while it is down.
    pub fn url(&self, node: usize) -> String {
        format!("http://{}", self.listen[node])
    }

    pub fn data(&self, node: usize) -> PathBuf {
        self.founding.data(node)
    }

    /// Asks for a new life of a member, whose directory is gone; answers what the command said.
    pub fn try_replace(&self, node: usize, through: usize) -> Ran {
        ran(command(&format!("ops replace {} --json --data-dir", self.founding.names[node]))
            .arg(self.data(node))
            .args(["--url", &self.url(through)]))
    }

    /// The same, which must succeed, and the certificate of the new life.
    pub fn replace(&mut self, node: usize, through: usize) {
        let replaced = self.try_replace(node, through);
        assert_eq!(replaced.code, 0, "{replaced:?}");
        self.founding.lives[node] += 1;
        if self.founding.is_encrypted {
            self.founding.issue_certificate(node);
        }
    }

    /// Starts a member that is to end by itself; answers its exit code.
    pub fn start_in_vain(&self, node: usize) -> Option<i32> {
        self.begin(node).wait().unwrap().code()
    }

    /// What a member has logged.
    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.data(node).with_extension("log")).unwrap()
    }

    /// A word of `tl ops` to one member; it must succeed. Answers its last line as JSON.
    pub fn ops(&self, node: usize, words: &str) -> Value {
        let asked = self.try_ops(node, words);
        assert_eq!(asked.code, 0, "tl ops {words}: {asked:?}");
        asked.json()
    }

    /// Asks until a part of the answer is as expected: an election may cost a member its health for
    /// a moment at any time.
    pub fn ops_until(&self, node: usize, words: &str, part: &str, expected: &Value) -> Value {
        loop {
            let said = self.ops(node, words);
            if said.pointer(part) == Some(expected) {
                return said;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub fn try_ops(&self, node: usize, words: &str) -> Ran {
        ops(&self.url(node), words)
    }
}

/// `tl ops` to an address.
pub fn ops(url: &str, words: &str) -> Ran {
    ran(command(&format!("ops {words} --json")).args(["--url", url]))
}

/// Whether a path is there.
pub fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
