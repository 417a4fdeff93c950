//! The settings of a cluster, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tl_raft::DriverConfig;
use tl_raft::transport::{CertificateFiles, Security};

use super::{MEMBERS_MAX, MEMBERS_MIN, ROUTERS_MAX};
use crate::ops::Patience;

/// Steps of the groups' clocks, milliseconds.
const TICK_MS: u64 = 50;
/// A leader may lose fewer heartbeats in a row than this before it is followed no more.
const HEARTBEATS_LOST_MIN: u64 = 3;

/// Settings of a member as written. A node without members is a cluster of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct ClusterSettings {
    /// All members, this node among them, each as `name=host:port`. Default none, which is a node
    /// of its own; else from 3 to 5.
    pub members: Vec<String>,
    /// All routers, each as `name=host:port`; as the cluster was founded. Default none; at most 16.
    pub routers: Vec<String>,
    /// Address to listen on for the other members. Default empty: this node's own address in
    /// `members` or `routers`.
    pub listen: String,
    /// File with the certificates of the cluster's authority, PEM. Default empty: no encryption,
    /// which is allowed between loopback addresses only.
    pub authority: PathBuf,
    /// File with this node's certificate, PEM.
    pub certificate: PathBuf,
    /// File with the certificate's private key, PEM.
    pub key: PathBuf,
    /// Time between two heartbeats of a leader, milliseconds. Default 100; whole steps of 50, from 50
    /// to 10000. The same on every node.
    pub heartbeat_ms: u64,
    /// A leader that was not heard for so long, up to twice as long by lot, is followed no more,
    /// milliseconds. Default 500; whole steps of 50, from 150 to 60000, and at least three heartbeats. The
    /// same on every node.
    pub election_ms: u64,
    /// A member of which nothing was heard for longer is suspect, milliseconds. Default 500; from
    /// 300 to 60000.
    pub suspect_after_ms: u64,
    /// A member that is suspect for longer is lost, milliseconds. Default 120000; from 1000 to
    /// 86400000.
    pub lost_after_ms: u64,
    /// How long a member that is told to stop may take to hand over what it leads, milliseconds.
    /// Default 10000; from 0 to 600000.
    pub drain_ms: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings {
            members: Vec::new(),
            routers: Vec::new(),
            listen: String::new(),
            authority: PathBuf::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            heartbeat_ms: 100,
            election_ms: 500,
            suspect_after_ms: 500,
            lost_after_ms: 120_000,
            drain_ms: 10_000,
        }
    }
}

impl ClusterSettings {
    /// Whether the node is a member of a cluster of several.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.members.is_empty()
    }

    /// Checks every value; `node_name` is this node's.
    ///
    /// # Errors
    /// A sentence per bad value, naming the key.
    pub fn check(&self, node_name: &str) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let files = [&self.authority, &self.certificate, &self.key];
        let set = files.iter().filter(|file| !file.as_os_str().is_empty()).count();
        if set != 0 && set != files.len() {
            errors.push("authority, certificate and key must be set together".to_owned());
        }
        for (name, value, range) in [
            ("heartbeat_ms", self.heartbeat_ms, 50..=10_000),
            ("election_ms", self.election_ms, 150..=60_000),
            ("suspect_after_ms", self.suspect_after_ms, 300..=60_000),
            ("lost_after_ms", self.lost_after_ms, 1_000..=86_400_000),
            ("drain_ms", self.drain_ms, 0..=600_000),
        ] {
            if !range.contains(&value) {
                let (low, high) = range.into_inner();
                errors.push(format!("{name} is {value}; it must be from {low} to {high}"));
            }
        }
        for (name, value) in
            [("heartbeat_ms", self.heartbeat_ms), ("election_ms", self.election_ms)]
        {
            if value % TICK_MS != 0 {
                errors.push(format!("{name} is {value}; it must be whole steps of {TICK_MS}"));
            }
        }
        if self.election_ms < self.heartbeat_ms.saturating_mul(HEARTBEATS_LOST_MIN) {
            errors.push(format!(
                "election_ms is {}; it must be at least {HEARTBEATS_LOST_MIN} times heartbeat_ms",
                self.election_ms
            ));
        }
        if !self.is_set() {
            return if errors.is_empty() { Ok(()) } else { Err(errors) };
        }
        if !(MEMBERS_MIN..=MEMBERS_MAX).contains(&self.members.len()) {
            errors.push(format!(
                "members names {} nodes; it must name from {MEMBERS_MIN} to {MEMBERS_MAX}",
                self.members.len()
            ));
        }
        if self.routers.len() > ROUTERS_MAX {
            let count = self.routers.len();
            errors.push(format!("routers names {count} nodes; it may name {ROUTERS_MAX} at most"));
        }
        let mut names = BTreeSet::new();
        let routers = self.routers.iter().map(|router| ("router", router));
        for (what, member) in self.members.iter().map(|member| ("member", member)).chain(routers) {
            match named(member) {
                Some((name, _)) if !names.insert(name) => {
                    errors.push(format!("{what}s names {name:?} twice"));
                }
                Some(_) => {}
                None => errors.push(format!("{what} {member:?} must be name=host:port")),
            }
        }
        if errors.is_empty() && !names.contains(node_name) {
            errors.push(match self.routers.is_empty() {
                true => format!("members does not name this node, {node_name:?}"),
                false => format!("neither members nor routers name this node, {node_name:?}"),
            });
        }
        if errors.is_empty()
            && let Err(error) = self.listens_on(node_name)
        {
            errors.push(error);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    pub(super) fn listens_on(&self, node_name: &str) -> Result<SocketAddr, String> {
        let own = || {
            let all = self.members.iter().chain(&self.routers);
            let mut members = all.filter_map(|member| named(member));
            members.find(|(name, _)| *name == node_name).map(|(_, address)| address)
        };
        let text = if self.listen.is_empty() { own().unwrap_or_default() } else { &self.listen };
        text.parse()
            .map_err(|_| format!("listen must be set to an IP address and port: {text:?} is none"))
    }

    /// When a silent member is suspect, and when lost.
    #[must_use]
    pub fn patience(&self) -> Patience {
        let (suspect_after_ms, lost_after_ms) = (self.suspect_after_ms, self.lost_after_ms);
        Patience { suspect_after_ms, lost_after_ms }
    }

    /// A driver's settings with the times of this cluster.
    pub(crate) fn timed(&self, usual: DriverConfig) -> DriverConfig {
        DriverConfig {
            tick_ms: TICK_MS,
            heartbeat_ms: self.heartbeat_ms,
            election_min_ms: self.election_ms,
            election_max_ms: self.election_ms.saturating_mul(2),
            ..usual
        }
    }

    pub(super) fn security(&self) -> Security {
        if self.authority.as_os_str().is_empty() {
            return Security::PlaintextForDev;
        }
        Security::MutualTls(CertificateFiles {
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        })
    }
}

/// Name and address of `name=host:port`.
pub(super) fn named(member: &str) -> Option<(&str, &str)> {
    let (name, address) = member.split_once('=')?;
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let fits = (1..=64).contains(&name.len()) && port.is_some_and(|port| port > 0);
    fits.then_some((name, address))
}

/// Addresses by name.
pub(super) fn by_name(members: &[String]) -> BTreeMap<String, String> {
    let named = members.iter().filter_map(|member| named(member));
    named.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}
