//! What was given in vain, and when it may be offered again.
//!
//! An offer may cost a flush, and a transfer has a place that others wait for. So whoever wants
//! nothing is asked less and less often, and a group that could not be given lets others go first,
//! for longer each time.
//!
//! Bounded by the number of groups and members; what is long over is forgotten.

use std::collections::BTreeMap;

use tl_raft::PeerId;
use tl_types::GroupId;

use super::AGAIN_MS;

/// Longest rest of a peer that wants nothing, milliseconds. It takes from others meanwhile, as a
/// rule, and has room again when these are done.
pub(super) const PEER_REST_MAX_MS: u64 = 8_000;
/// Longest rest of one group that could not be given to one peer, milliseconds.
pub(super) const GROUP_REST_MAX_MS: u64 = 16_000;

/// Doublings that count: more would be past every limit.
const TIMES_MAX: u32 = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    until_ms: u64,
    /// In vain, one after the other.
    times: u32,
}

impl Rest {
    /// Rests twice as long as the last time.
    fn again(&mut self, now_ms: u64, max_ms: u64) {
        self.until_ms = now_ms + (AGAIN_MS << self.times).min(max_ms);
        self.times = (self.times + 1).min(TIMES_MAX);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rests {
    peers: BTreeMap<PeerId, Rest>,
    groups: BTreeMap<(GroupId, PeerId), Rest>,
}

impl Rests {
    /// Whether it is too early to offer this group to this peer.
    pub(super) fn is_early(&self, group: GroupId, to: PeerId, now_ms: u64) -> bool {
        let rests = |rest: Option<&Rest>| rest.is_some_and(|rest| now_ms < rest.until_ms);
        rests(self.peers.get(&to)) || rests(self.groups.get(&(group, to)))
    }

    /// The peer did not want what it was offered: it may have no place, or no use for that group.
    pub(super) fn refused(&mut self, group: GroupId, to: PeerId, now_ms: u64) {
        self.forget(now_ms);
        let peer = self.peers.entry(to).or_default();
        peer.again(now_ms, PEER_REST_MAX_MS);
        // Another group is offered first when the peer is asked again.
        let until_ms = peer.until_ms + (peer.until_ms - now_ms);
        let group = self.groups.entry((group, to)).or_default();
        group.until_ms = group.until_ms.max(until_ms);
    }

    /// A transfer came to nothing, on whichever side.
    pub(super) fn failed(&mut self, group: GroupId, to: PeerId, now_ms: u64) {
        self.forget(now_ms);
        self.groups.entry((group, to)).or_default().again(now_ms, GROUP_REST_MAX_MS);
    }

    /// The peer takes what it is offered.
    pub(super) fn accepted(&mut self, by: PeerId) {
        self.peers.remove(&by);
    }

    /// The peer goes on from the rows of a group.
    pub(super) fn given(&mut self, group: GroupId, to: PeerId) {
        self.groups.remove(&(group, to));
    }

    /// Whoever was not tried again for the longest rest needs nothing any more.
    fn forget(&mut self, now_ms: u64) {
        let matters = |rest: &Rest| now_ms < rest.until_ms + GROUP_REST_MAX_MS;
        self.peers.retain(|_, rest| matters(rest));
        self.groups.retain(|_, rest| matters(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(2);
    const OTHER: PeerId = PeerId(3);
    const STUCK: GroupId = GroupId(0);
    const FREE: GroupId = GroupId(1);

    /// How long nothing may be offered from `now_ms` on.
    fn rest_ms(rests: &Rests, group: GroupId, now_ms: u64) -> u64 {
        (0..).step_by(500).find(|ms| !rests.is_early(group, PEER, now_ms + ms)).expect("it ends")
    }

    #[test]
    fn whoever_wants_nothing_is_asked_less_and_less_often_up_to_a_limit() {
        let (mut rests, mut now_ms, mut seen) = (Rests::default(), 1_000, Vec::new());
        for _ in 0..6 {
            rests.refused(STUCK, PEER, now_ms);
            let rest = rest_ms(&rests, FREE, now_ms);
            seen.push(rest);
            assert_eq!(rest_ms(&rests, STUCK, now_ms), 2 * rest, "another group goes first");
            assert!(!rests.is_early(STUCK, OTHER, now_ms), "others are others");
            now_ms += 2 * rest;
        }
        assert_eq!(seen, [1_000, 2_000, 4_000, PEER_REST_MAX_MS, PEER_REST_MAX_MS, 8_000]);
        rests.accepted(PEER);
        rests.refused(FREE, PEER, now_ms);
        assert_eq!(rest_ms(&rests, GroupId(2), now_ms), 1_000, "it wanted something meanwhile");
    }

    #[test]
    fn a_group_that_cannot_be_given_lets_others_go_first_up_to_a_limit() {
        let (mut rests, mut now_ms, mut seen) = (Rests::default(), 1_000, Vec::new());
        for _ in 0..7 {
            rests.failed(STUCK, PEER, now_ms);
            assert!(!rests.is_early(FREE, PEER, now_ms));
            let rest = rest_ms(&rests, STUCK, now_ms);
            seen.push(rest);
            now_ms += rest;
        }
        let expected = [1_000, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000];
        assert_eq!(seen, expected);
        rests.given(STUCK, PEER);
        rests.failed(STUCK, PEER, now_ms);
        assert_eq!(rest_ms(&rests, STUCK, now_ms), 1_000);
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let mut rests = Rests::default();
        for group in (0..100).map(GroupId) {
            rests.refused(group, PEER, 1_000);
            rests.failed(group, OTHER, 1_000);
        }
        rests.failed(STUCK, OTHER, 1_000 + 3 * GROUP_REST_MAX_MS);
        assert_eq!((rests.peers.len(), rests.groups.len()), (0, 1));
    }
}
