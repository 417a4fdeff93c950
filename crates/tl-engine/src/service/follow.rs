//! Tails of sessions that are elsewhere: one follow per session brings what is new to all of them.
//!
//! ```text
//!   tails ─┐                       ┌── watch: "ends behind N?" ──► a member that has the group
//!   tails ─┼─► topic ◄── follow ───┤                                   │ new events, or nothing
//!   polls ─┘   (hub)               └──────────────◄────────────────────┘   for some seconds
//! ```
//!
//! To a tail its topic looks as if the session were here: it is woken, and takes events from the
//! shared window or reads them, which asks a member then. Where a tail stands is its cursor alone, so
//! a member that goes away costs some delay, and the next one is asked behind the same place.
//!
//! Invariants:
//!  - one follow at most for a session, at most [`FOLLOWS_MAX`] on a node;
//!  - a follow ends with the last tail that wants it, and leaves nothing behind.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, ResourcePath};
use tokio::task::AbortHandle;

use super::Service;
use super::elsewhere::Asked;
use crate::api::ServiceError;
use crate::hub::{Membership, Topic, TopicKey};
use crate::peer::{Found, Read, read};

/// Sessions of other members that a node follows. One past: `too_many_tails`.
pub(crate) const FOLLOWS_MAX: usize = 8_192;
/// How long a member may have nothing to say before it is asked again.
const WATCH_WITHIN: Duration = Duration::from_secs(5);
/// Rests after a member gave no answer double from the first to the second of these.
const RESTS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

type Open = Arc<Mutex<HashMap<TopicKey, Weak<Follow>>>>;

/// The follows of a node.
#[derive(Debug, Default)]
pub(crate) struct Follows(Open);

/// One session that is followed. The last one who lets go ends it.
#[derive(Debug)]
pub(crate) struct Follow {
    open: Open,
    task: AbortHandle,
    /// Keeps the topic that the task tells: whoever comes while this is there joins the same.
    member: Membership,
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.task.abort();
        let mut open = self.open.lock();
        let key = self.member.key();
        // Another one may have taken the place already.
        if open.get(&key).is_some_and(|follow| follow.strong_count() == 0) {
            open.remove(&key);
        }
    }
}

impl Follows {
    /// Sessions that are followed.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Joins the follow of a session, or begins it.
    fn join(
        &self,
        key: TopicKey,
        begin: impl FnOnce() -> (AbortHandle, Membership),
    ) -> Result<Arc<Follow>, ServiceError> {
        let mut open = self.0.lock();
        if let Some(follow) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(follow);
        }
        if open.len() >= FOLLOWS_MAX && !open.contains_key(&key) {
            return Err(ServiceError::new(
                ErrorCode::TooManyTails,
                format!(
                    "This node follows {FOLLOWS_MAX} sessions of other members, as many as it may"
                ),
            ));
        }
        let (task, member) = begin();
        let follow = Arc::new(Follow { open: Arc::clone(&self.0), task, member });
        open.insert(key, Arc::downgrade(&follow));
        Ok(follow)
    }
}

impl<S: OrderedStore + 'static> Service<S> {
    /// Has a session followed as long as the caller holds what comes back; nothing for a session
    /// that is here, whose topic hears of everything anyway.
    pub(super) fn follow_elsewhere(
        &self,
        path: &ResourcePath,
        member: &Membership,
    ) -> Result<Option<Arc<Follow>>, ServiceError> {
        let key = member.key();
        if self.is_here(key.group) {
            return Ok(None);
        }
        let follow = self.inner.follows.join(key, || {
            let own = self.inner.hub.join(key);
            let topic = Arc::clone(own.topic());
            let following = self.clone().keep_following(path.clone(), key, topic);
            (tokio::spawn(following).abort_handle(), own)
        });
        follow.map(Some)
    }

    /// Asks where the session ends, again and again, and tells its topic.
    async fn keep_following(self, path: ResourcePath, key: TopicKey, topic: Arc<Topic>) {
        let Some(links) = self.inner.links.clone() else { return };
        let mut after = topic.sight().head;
        // Sessions are spread over the members that have them.
        let spread = key.number.0 as usize;
        let mut asking = Asking::default();
        while self.is_running() {
            let readers = self.readers(&links, key.group, Some(spread));
            let heard = readers.iter().filter(|peer| self.state_of(**peer).is_heard()).count();
            let Some(peer) = asking.whom(&readers, heard) else { return };
            let read = Read::Watch { path: path.clone(), after };
            let asked = self.ask_reader(&links, peer, WATCH_WITHIN, &read).await;
            let Asked::Found(Found::Head { last_seq, ended, lines }) = asked else {
                tokio::time::sleep(asking.in_vain()).await;
                continue;
            };
            let is_news = last_seq > after || ended.is_some();
            asking.answered(is_news);
            if !lines.is_empty() {
                topic.share(&read::numbered(after, lines));
            }
            if is_news {
                topic.tell(last_seq, ended);
            }
            after = after.max(last_seq);
            if ended.is_some() {
                // Nothing can follow.
                return;
            }
        }
    }
}

/// Which member is asked next.
#[derive(Debug)]
struct Asking {
    turn: usize,
    rest: Duration,
}

impl Default for Asking {
    fn default() -> Self {
        Asking { turn: 0, rest: RESTS[0] }
    }
}

impl Asking {
    /// One of those of which something is heard, which come first, or of all if that is nobody.
    fn whom(&self, readers: &[PeerId], heard: usize) -> Option<PeerId> {
        let among = if heard > 0 { heard } else { readers.len() };
        self.turn.checked_rem(among).map(|turn| readers[turn])
    }

    /// There was an answer. A member that has news goes on telling them; one that has none may stand still,
    /// cut off from the others and not from this node, so the next one is asked.
    fn answered(&mut self, is_news: bool) {
        self.rest = RESTS[0];
        self.turn = self.turn.wrapping_add(usize::from(!is_news));
    }

    /// There was none; so long is waited before the next one is asked.
    fn in_vain(&mut self) -> Duration {
        self.turn = self.turn.wrapping_add(1);
        let rest = self.rest;
        self.rest = (rest * 2).min(RESTS[1]);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use tl_types::{GroupId, ResourceNumber};

    fn key(number: u64) -> TopicKey {
        TopicKey { group: GroupId(1), number: ResourceNumber(number) }
    }

    fn idle() -> AbortHandle {
        tokio::spawn(std::future::pending::<()>()).abort_handle()
    }

    #[test]
    fn whoever_has_no_news_is_not_asked_again_before_the_others() {
        let members = [PeerId(4), PeerId(2), PeerId(3)];
        let mut asking = Asking::default();
        let whom = |asking: &Asking, heard| asking.whom(&members, heard).map(|peer| peer.0);
        asking.answered(true);
        assert_eq!(whom(&asking, 3), Some(4), "it knows of the next event first, too");
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.extend(whom(&asking, 3));
            asking.answered(false);
        }
        assert_eq!(asked, [4, 2, 3, 4]);
        asking = Asking::default();
        let rests: Vec<Duration> = (0..9).map(|_| asking.in_vain()).collect();
        assert_eq!((rests[0], rests[1], rests[8]), (RESTS[0], RESTS[0] * 2, RESTS[1]));
        assert_eq!(whom(&asking, 2), Some(2), "the silent ones come behind");
        assert_eq!(whom(&asking, 0), Some(4), "if nobody is heard, each is tried");
        assert_eq!(asking.whom(&[], 0), None);
        asking.answered(true);
        assert_eq!(asking.in_vain(), RESTS[0]);
    }

    #[tokio::test]
    async fn a_session_is_followed_once_and_until_the_last_one_lets_go() {
        let (hub, follows) = (Hub::new(), Follows::default());
        let begin = || (idle(), hub.join(key(1)));
        let one = follows.join(key(1), begin).expect("room");
        let two = follows.join(key(1), || unreachable!("it is followed already")).expect("room");
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!((follows.count(), hub.topics()), (1, 1));
        drop(one);
        assert_eq!((follows.count(), hub.topics()), (1, 1));
        drop(two);
        assert_eq!((follows.count(), hub.topics()), (0, 0));
        let again = follows.join(key(1), || (idle(), hub.join(key(1)))).expect("room");
        assert_eq!(follows.count(), 1);
        drop(again);
    }

    #[tokio::test]
    async fn as_many_sessions_as_may_be_are_followed_and_no_more() {
        let (hub, follows) = (Hub::new(), Follows::default());
        let task = idle();
        let begin = |number| (task.clone(), hub.join(key(number)));
        let mut open: Vec<Arc<Follow>> = (0..FOLLOWS_MAX as u64)
            .map(|number| follows.join(key(number), || begin(number)).expect("room"))
            .collect();
        let past = FOLLOWS_MAX as u64;
        let refused = follows.join(key(past), || begin(past)).expect_err("one past");
        assert_eq!(refused.code, ErrorCode::TooManyTails);
        assert!(follows.join(key(0), || begin(0)).is_ok(), "who is followed may be joined");
        open.pop();
        assert!(follows.join(key(past), || begin(past)).is_ok());
    }
}
