//! Who belongs to the cluster and where they are found.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tl_types::ids::NodeId;

use super::hello::Seat;
use crate::deeds::PeerId;

/// Most peers of one node.
pub const PEERS_MAX: usize = 255;
/// Most removed lives that are remembered by name; older ones are "unknown" then.
pub const REMOVED_MAX: usize = 65_536;
/// Longest address of a peer, bytes: a host name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 260;

/// One other node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its life: what Raft knows it by.
    pub peer: PeerId,
    /// The node.
    pub node: NodeId,
    /// Where it listens, `host:port`; names are looked up anew for every connection.
    pub address: String,
}

impl Peer {
    pub(super) fn seat(&self) -> Seat {
        Seat { node: self.node, peer: self.peer }
    }
}

/// All other nodes, and the lives that are over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// Who is spoken to and listened to.
    pub members: Vec<Peer>,
    /// Lives that were removed for good: they are told so when they call.
    pub removed: BTreeSet<PeerId>,
}

/// Why a list of peers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// A list is longer than its limit.
    #[error("{count} {what} are too many, at most {count_max}")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// How long it is.
        count: usize,
        /// How long it may be.
        count_max: usize,
    },
    /// A peer cannot be this node, nobody, removed, or listed twice.
    #[error("peer {peer} {why}")]
    Peer {
        /// The peer.
        peer: PeerId,
        /// What is wrong with it, in a few fixed words.
        why: &'static str,
    },
    /// An address that cannot be called.
    #[error("{address:?} is not host:port with a port above 0")]
    Address {
        /// The address.
        address: String,
    },
    /// Without mutual TLS every address is a literal loopback one.
    #[error("{address:?} is not a loopback address; without certificates nothing else is allowed")]
    NotLoopback {
        /// The address.
        address: String,
    },
}

impl Peers {
    pub(super) fn check(&self, me: Seat, plaintext: bool) -> Result<(), PeersError> {
        at_most("peers", self.members.len(), PEERS_MAX)?;
        at_most("removed lives", self.removed.len(), REMOVED_MAX)?;
        let mut seen = BTreeSet::new();
        for Peer { peer, address, .. } in &self.members {
            let wrong = |why| Err(PeersError::Peer { peer: *peer, why });
            if peer.0 == 0 {
                return wrong("names nobody");
            }
            if *peer == me.peer {
                return wrong("is this node");
            }
            if self.removed.contains(peer) {
                return wrong("is both a member and removed");
            }
            if !seen.insert(*peer) {
                return wrong("is listed twice");
            }
            check_address(address)?;
            if plaintext && !is_loopback(address) {
                return Err(PeersError::NotLoopback { address: address.clone() });
            }
        }
        Ok(())
    }
}

fn at_most(what: &'static str, count: usize, count_max: usize) -> Result<(), PeersError> {
    if count > count_max {
        return Err(PeersError::TooMany { what, count, count_max });
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), PeersError> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    let plain = address.bytes().all(|byte| byte.is_ascii_graphic());
    if address.len() > ADDRESS_BYTES_MAX || !plain || port.is_none_or(|port| port == 0) {
        return Err(PeersError::Address { address: address.to_owned() });
    }
    Ok(())
}

/// A name may lead anywhere tomorrow, so only a literal address counts.
fn is_loopback(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Seat = Seat { node: NodeId([1; 16]), peer: PeerId(1) };

    fn peer(peer: u64, address: &str) -> Peer {
        Peer { peer: PeerId(peer), node: NodeId([9; 16]), address: address.to_owned() }
    }

    fn check(members: Vec<Peer>, removed: &[u64], plaintext: bool) -> Result<(), String> {
        let removed = removed.iter().copied().map(PeerId).collect();
        Peers { members, removed }.check(ME, plaintext).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_names_each_other_node_once() {
        let here = "127.0.0.1:4";
        assert_eq!(check(vec![peer(2, here), peer(3, "node-3.example:7100")], &[4], false), Ok(()));
        for (members, removed, said) in [
            (vec![peer(0, here)], vec![], "peer 0 names nobody"),
            (vec![peer(1, here)], vec![], "peer 1 is this node"),
            (vec![peer(2, here)], vec![2], "peer 2 is both a member and removed"),
            (vec![peer(2, here), peer(2, here)], vec![], "peer 2 is listed twice"),
        ] {
            assert_eq!(check(members, &removed, false), Err(said.to_owned()));
        }
    }

    #[test]
    fn lists_and_addresses_have_limits() {
        let many = |count: u64| (2..count + 2).map(|id| peer(id, "127.0.0.1:4")).collect();
        assert_eq!(check(many(PEERS_MAX as u64), &[], true), Ok(()));
        let said = check(many(PEERS_MAX as u64 + 1), &[], true).unwrap_err();
        assert_eq!(said, "256 peers are too many, at most 255");

        let long = |bytes: usize| format!("{}:80", "a".repeat(bytes - 3));
        assert_eq!(check(vec![peer(2, &long(ADDRESS_BYTES_MAX))], &[], false), Ok(()));
        assert!(check(vec![peer(2, &long(ADDRESS_BYTES_MAX + 1))], &[], false).is_err());
        for address in ["", "host", "host:", "host:0", ":80", "host:99999", "ho st:80", "host:x"] {
            assert!(check(vec![peer(2, address)], &[], false).is_err(), "{address}");
        }
    }

    #[test]
    fn without_certificates_only_literal_loopback_addresses_pass() {
        for address in ["127.0.0.1:4", "127.8.8.8:4", "[::1]:4"] {
            assert_eq!(check(vec![peer(2, address)], &[], true), Ok(()), "{address}");
        }
        for address in ["localhost:4", "10.0.0.1:4", "[::]:4", "0.0.0.0:4"] {
            assert!(check(vec![peer(2, address)], &[], true).is_err(), "{address}");
        }
    }
}
