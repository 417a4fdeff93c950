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
        let (mut failed, mut rest) = (0, RESTS[0]);
        while self.is_running() {
            let readers = self.readers(&links, key.group, Some(spread));
            let Some(peer) = readers.get(failed % readers.len().max(1)) else { return };
            let read = Read::Watch { path: path.clone(), after };
            let asked = self.ask_reader(&links, *peer, WATCH_WITHIN, &read).await;
            let Asked::Found(Found::Head { last_seq, ended, lines }) = asked else {
                failed += 1;
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(RESTS[1]);
                continue;
            };
            (failed, rest) = (0, RESTS[0]);
            if !lines.is_empty() {
                topic.share(&read::numbered(after, lines));
            }
            if last_seq > after || ended.is_some() {
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
