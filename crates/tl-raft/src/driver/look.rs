//! What a driver tells of itself and its groups.
use tl_types::{GroupId, Index};

use super::{Driver, FeedCounts};
use crate::deeds::{FollowerStatus, GroupStatus, Now, PeerId};
use crate::group::Group;

impl Driver {
    /// When the next turn is due even if nothing happens.
    #[must_use]
    pub fn next_tick(&self) -> Option<Now> {
        self.tick_at_ms.map(|boot_ms| Now { boot_ms })
    }

    /// Log jobs handed out and not confirmed.
    #[must_use]
    pub fn jobs_open(&self) -> usize {
        self.jobs.len()
    }

    /// Another number at every start of the node.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// What a follower has confirmed; `None` unless the group is led here.
    #[must_use]
    pub fn matched(&self, group: GroupId, peer: PeerId) -> Option<Index> {
        self.group(group)?.matched(peer)
    }

    /// Whether the record that puts staged rows in place is on its way to the disk.
    #[must_use]
    pub fn is_installing(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(Group::is_installing)
    }

    /// Whether records of the group's log were lost here, and it has not gone on from rows since.
    #[must_use]
    pub fn is_doubted(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(Group::is_doubted)
    }

    /// Whether a group is doubted here and lacks a word of another member, without which it cannot go
    /// on from any rows.
    #[must_use]
    pub fn lacks_answers(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(Group::lacks_answers)
    }

    /// Where a group stands; `None` if it does not live here.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.group(group).map(Group::status)
    }

    /// How far the followers of a group led here are; nothing for other groups.
    #[must_use]
    pub fn followers(&self, group: GroupId) -> Vec<FollowerStatus> {
        self.group(group).map_or_else(Vec::new, Group::followers)
    }

    /// First entry that is still in memory and can be sent to a follower.
    #[must_use]
    pub fn first_kept(&self, group: GroupId) -> Option<Index> {
        self.group(group).map(Group::first_kept)
    }

    /// Whether a follower of a group led here could be given this entry next, from memory or from
    /// the log.
    #[must_use]
    pub fn can_send(&self, group: GroupId, index: Index) -> bool {
        self.group(group).is_some_and(|group| group.can_send(index))
    }

    /// What was sent from the log.
    #[must_use]
    pub fn feed_counts(&self) -> FeedCounts {
        self.feeds.counts
    }
}
