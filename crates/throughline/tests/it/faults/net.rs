//! A small network of namespaces: one for each member, and one in the middle that routes.
//!
//! ```text
//!   this process ── link 0 ──┐
//!   member 1 ─────── link 1 ─┤ router: cuts a direction by a rule, slows a link by its queue
//!   member 2 ─────── link 2 ─┤
//!   member 3 ─────── link 3 ─┘
//! ```
//!
//! Needs root, and takes everything away again when dropped. A cut drops packets in the middle,
//! silently: neither end is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::members::NAMES;
use crate::tl::{TL, ran};

/// Port on which members listen for clients.
const HTTP_PORT: u16 = 4000;
/// Port on which members listen for one another.
const PEER_PORT: u16 = 4100;
/// A slow link: a tenth of a megabyte per second, and half a second of it waits in the queue.
const SLOW: &str = "tbf rate 800kbit burst 16kb latency 500ms";

pub struct Net {
    ip: PathBuf,
    /// Part of every name here, so that two runs do not meet, nor two tests of one run.
    tag: String,
    /// Second and third byte of all addresses.
    block: (u8, u8),
}

/// Where the tool that makes namespaces lies: not always on the path of a test.
fn ip_tool() -> PathBuf {
    let places = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"].map(PathBuf::from);
    let found = places.into_iter().find(|place| place.is_file());
    found.expect("iproute2 is installed: `cargo xtask test` looks after it")
}

impl Net {
    pub fn new() -> Net {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let tag = format!("{process}x{number}");
        let [low, high, ..] = process.wrapping_add(number << 10).to_le_bytes();
        let net = Net { ip: ip_tool(), tag, block: (128 + (high & 0x3f), low) };
        net.remove();
        net.run(&format!("netns add {}", net.router()));
        net.in_router("sh -c", &["echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        for link in 0..=NAMES.len() {
            net.add_link(link);
        }
        net
    }

    fn router(&self) -> String {
        format!("tl{}r", self.tag)
    }

    fn namespace(&self, node: usize) -> String {
        format!("tl{}n{}", self.tag, node + 1)
    }

    /// The end of a link in the router, and the other one.
    fn ends(&self, link: usize) -> (String, String) {
        (format!("r{}l{link}", self.tag), format!("e{}l{link}", self.tag))
    }

    fn address(&self, link: usize, host: u8) -> Ipv4Addr {
        let (second, third) = self.block;
        Ipv4Addr::new(10, second, third, 4 * link as u8 + host)
    }

    /// The address of a member.
    fn of_member(&self, node: usize) -> Ipv4Addr {
        self.address(node + 1, 2)
    }

    pub fn peers(&self) -> Vec<SocketAddr> {
        (0..NAMES.len()).map(|node| (self.of_member(node), PEER_PORT).into()).collect()
    }

    pub fn url(&self, node: usize) -> String {
        format!("http://{}:{HTTP_PORT}", self.of_member(node))
    }

    /// Where a member listens, so that it is reached from elsewhere and from its own namespace.
    pub fn listen() -> String {
        format!("0.0.0.0:{HTTP_PORT}")
    }

    fn add_link(&self, link: usize) {
        let (near, far) = self.ends(link);
        let (router, gateway) = (self.router(), self.address(link, 1));
        self.run(&format!("link add {near} type veth peer name {far}"));
        self.run(&format!("link set {near} netns {router}"));
        self.run(&format!("-n {router} addr add {gateway}/30 dev {near}"));
        self.run(&format!("-n {router} link set {near} up"));
        let (own, (second, third)) = (self.address(link, 2), self.block);
        if link == 0 {
            self.run(&format!("addr add {own}/30 dev {far}"));
            self.run(&format!("link set {far} up"));
            self.run(&format!("route add 10.{second}.{third}.0/24 via {gateway} dev {far}"));
            return;
        }
        let namespace = self.namespace(link - 1);
        self.run(&format!("netns add {namespace}"));
        self.run(&format!("link set {far} netns {namespace}"));
        self.run(&format!("-n {namespace} addr add {own}/30 dev {far}"));
        self.run(&format!("-n {namespace} link set lo up"));
        self.run(&format!("-n {namespace} link set {far} up"));
        self.run(&format!("-n {namespace} route add default via {gateway}"));
    }

    /// A program to be run in a member's namespace.
    pub fn program(&self, node: usize) -> Command {
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.namespace(node), TL]);
        command
    }

    /// Drops what one member sends to another.
    pub fn cut(&self, from: usize, to: usize) {
        self.rule("add", from, to);
    }

    /// Delivers it again.
    pub fn mend(&self, from: usize, to: usize) {
        self.rule("del", from, to);
    }

    fn rule(&self, what: &str, from: usize, to: usize) {
        let (from, to) = (self.of_member(from), self.of_member(to));
        self.run(&format!("-n {} rule {what} from {from} to {to} blackhole", self.router()));
    }

    /// Slows what goes to a member, from whomever it comes.
    pub fn slow(&self, node: usize) {
        let near = self.ends(node + 1).0;
        self.in_router("tc qdisc add dev", &[&[&near, " root ", SLOW].concat()]);
    }

    pub fn quick(&self, node: usize) {
        let near = self.ends(node + 1).0;
        self.in_router("tc qdisc del dev", &[&format!("{near} root")]);
    }

    /// How often the queue to a member had to hold something back; nothing unless it is slow.
    pub fn held_back(&self, node: usize) -> Option<u64> {
        let near = self.ends(node + 1).0;
        let shown = self.in_router("tc -s qdisc show dev", &[&near]);
        let (_, slow) = shown.split_once("qdisc tbf ")?;
        let (_, behind) = slow.split_once("overlimits ").expect("a queue counts what it holds");
        let number = behind.split_whitespace().next().unwrap();
        Some(number.parse().expect("a count"))
    }

    fn run(&self, words: &str) {
        let done = ran(Command::new(&self.ip).args(words.split(' ')));
        assert_eq!(done.code, 0, "ip {words}: {done:?}");
    }

    /// A program in the router's namespace. `sh -c` takes its script as one word.
    fn in_router(&self, program: &str, last: &[&str]) -> String {
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.router()]).args(program.split(' '));
        match program {
            "sh -c" => command.args(last),
            _ => command.args(last.iter().flat_map(|words| words.split(' '))),
        };
        let path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
        let done = ran(command.env("PATH", path));
        assert_eq!(done.code, 0, "{program} {last:?}: {done:?}");
        done.stdout
    }

    /// Takes away whatever there is of this network; links go with their namespaces.
    fn remove(&self) {
        let quietly = |words: String| {
            // It need not be there.
            let _ = Command::new(&self.ip).args(words.split(' ')).output();
        };
        for node in 0..NAMES.len() {
            quietly(format!("netns del {}", self.namespace(node)));
        }
        quietly(format!("netns del {}", self.router()));
        quietly(format!("link del {}", self.ends(0).1));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether this process may make networks.
pub fn is_allowed() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/proc/self/ns/net").exists()
}
