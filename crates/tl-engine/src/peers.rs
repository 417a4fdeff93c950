//! A member's connections to the others, and what is done with what comes in on them.
//!
//! With each new list of members the transport has other peers: a life that is over is neither
//! spoken to nor listened to, and is told so when it calls.
//!
//! The transport has a small runtime of its own, so that a heartbeat never waits behind the work
//! of requests. What it hears is handed on there without waiting: frames to the driver's mailbox,
//! answers to whoever asked, questions to tasks of the node's runtime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tl_raft::PeerId;
use tl_raft::transport::{FrameKind, Heard, Transport, TransportConfig, TransportError};
use tl_store::LsmStore;
use tl_types::NodeId;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use self::pages::Pages;
use crate::cluster::{Addresses, MemberList, Membership};
use crate::node::Input;
use crate::ops::roster::Roster;
use crate::peer::{Answer, Question, Read};
use crate::service::{Service, served_until};
use crate::shell::links::Links;
use crate::shell::relay::Served;
use crate::shell::{Mail, Mailer, time};

mod pages;

/// Questions of other nodes that are worked on at a time. One past: answered "not taken", and
/// whoever asked asks again.
const SERVED_MAX: usize = 16_384;
/// Sessions that other nodes wait for news of, at a time. One past: answered "not taken", and whoever
/// asked asks another member.
const WATCHED_MAX: usize = 16_384;
/// Between two questions for a peer's clock.
const CLOCK_EVERY: Duration = Duration::from_millis(500);
/// A peer that is silent for so long is asked at once: it may just have nothing to say, since two
/// that lead nothing for one another exchange no heartbeats.
const SILENCE_ASKED: Duration = Duration::from_millis(200);
/// Of the questions how a peer is, every so manieth comes with one for its list of members.
const REPORTS_PER_LIST: u32 = 5;
/// Between two questions how a peer is.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for a clock.
const CLOCK_WITHIN: Duration = Duration::from_secs(1);
/// Between two adoptions of wall time.
const ADOPT_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for connections to end.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The running transport of a member.
#[derive(Debug)]
pub(crate) struct Peers {
    links: Arc<Links>,
    /// Taken when it is stopped.
    running: Running,
}

type Running = Arc<Mutex<Option<(Transport, Runtime)>>>;

impl Peers {
    /// Listens for the other members and calls them. Tasks of the node's runtime are added to
    /// `tasks`.
    pub(crate) fn start(
        member: Membership,
        links: Arc<Links>,
        mailer: Mailer<LsmStore>,
        service: &Service<LsmStore>,
        seed: u64,
        tasks: &mut Vec<AbortHandle>,
    ) -> Result<Peers, TransportError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tl-peers")
            .enable_all()
            .build()
            .map_err(|source| TransportError::Listen { address: member.listen, source })?;
        let peers = member.peers(&member.list);
        let birth = member.said_birth();
        let Membership { cluster, seat, births, addresses, listen, security, .. } = member;
        let mut config = TransportConfig::new(cluster, seat, listen, security, seed);
        (config.birth, config.births) = (birth, births);
        let heard = listener(Arc::clone(&links), mailer.clone(), service.clone());
        let transport = Transport::start(config, &peers, runtime.handle(), heard)?;
        links.open(transport.sender());
        let adopter = Adopter { links: Arc::clone(&links), mailer, service: service.clone() };
        let adopter = Arc::new(adopter);
        let running: Running = Arc::new(Mutex::new(Some((transport, runtime))));
        let mut watched = Watched { adopter, service: service.clone(), tasks: BTreeMap::new() };
        watched.only(&links.others());
        let follower = Follower {
            me: seat.node,
            addresses,
            running: Arc::clone(&running),
            links: Arc::clone(&links),
        };
        if let Some(lists) = service.ops().roster.as_ref().map(Roster::watch) {
            let following = follower.follow(lists, watched);
            tasks.push(tokio::runtime::Handle::current().spawn(following).abort_handle());
        }
        Ok(Peers { links, running })
    }
}

/// Gives the transport its peers with each list that comes into force.
struct Follower {
    me: NodeId,
    addresses: Addresses,
    running: Running,
    links: Arc<Links>,
}

impl Follower {
    /// Goes on as long as the node runs. `watched` ends with it.
    async fn follow(self, mut lists: watch::Receiver<Arc<MemberList>>, mut watched: Watched) {
        while lists.changed().await.is_ok() {
            let list = Arc::clone(&lists.borrow_and_update());
            let peers = self.addresses.peers(self.me, &list);
            if let Some((transport, _)) = &*self.running.lock()
                && let Err(error) = transport.set_peers(&peers)
            {
                // Those of before stay; the settings must name the same members to start at all.
                tracing::error!(%error, "the members of the new list cannot be called");
            }
            watched.only(&self.links.others());
        }
    }
}

/// The tasks that ask other members, by member.
struct Watched {
    adopter: Arc<Adopter>,
    service: Service<LsmStore>,
    tasks: BTreeMap<PeerId, [AbortHandle; 2]>,
}

impl Watched {
    /// Asks these members and nobody else.
    fn only(&mut self, others: &[PeerId]) {
        let node = tokio::runtime::Handle::current();
        for tasks in self.tasks.extract_if(.., |peer, _| !others.contains(peer)) {
            tasks.1.iter().for_each(AbortHandle::abort);
        }
        for peer in others {
            self.tasks.entry(*peer).or_insert_with(|| {
                let clock = node.spawn(Arc::clone(&self.adopter).watch_clock(*peer));
                let ask = node.spawn(watch_reports(self.service.clone(), *peer));
                [clock.abort_handle(), ask.abort_handle()]
            });
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.values().flatten().for_each(AbortHandle::abort);
    }
}

/// After this nothing is sent or heard, and nothing of the transport holds the node any more.
impl Drop for Peers {
    fn drop(&mut self) {
        self.links.close();
        let Some((transport, runtime)) = self.running.lock().take() else { return };
        // The caller may be a task of another runtime, which must not run one of its own.
        let stopping = std::thread::spawn(move || {
            let stop = async { tokio::time::timeout(STOP_WITHIN, transport.stop()).await };
            if runtime.block_on(stop).is_err() {
                tracing::warn!("connections to other members did not end in time");
            }
            runtime.shutdown_timeout(STOP_WITHIN);
        });
        if stopping.join().is_err() {
            tracing::error!("stopping the connections to other members ended in a panic");
        }
    }
}

/// What is done with what is heard.
fn listener(
    links: Arc<Links>,
    mailer: Mailer<LsmStore>,
    service: Service<LsmStore>,
) -> impl Fn(Heard) + Send + Sync + 'static {
    let runtime = tokio::runtime::Handle::current();
    let served = Arc::new(Semaphore::new(SERVED_MAX));
    let watched = Arc::new(Semaphore::new(WATCHED_MAX));
    let pages = Pages::default();
    let saw = service.clone();
    let watching = saw.clone();
    let alive = move |from| watching.ops().sights.heard(from, time::now().boot_ms);
    move |heard| match heard {
        Heard::Frame { from, kind: FrameKind::Raft, payload } => {
            alive(from);
            if links.take_in(payload.len()) {
                mailer.send(Mail::Frame { from, bytes: payload });
            }
        }
        Heard::Frame { from, kind: FrameKind::Reply, payload } => {
            alive(from);
            links.answered(from, payload);
        }
        Heard::Frame { from, kind: FrameKind::Request, payload } => {
            alive(from);
            let (id, question) = match Question::decode(payload) {
                Ok(decoded) => decoded,
                Err(error) => {
                    let peer = links.name(from);
                    tracing::warn!(%peer, %error, "a question of a peer is none");
                    return;
                }
            };
            // Those that mostly wait take no room from those that work.
            let room = match &question {
                Question::Read { read: Read::Watch { .. }, .. } => &watched,
                Question::Read { .. }
                | Question::Propose { .. }
                | Question::Clock
                | Question::Report
                | Question::Drain { .. }
                | Question::Transfer { .. }
                | Question::Members { .. }
                | Question::Repair { .. } => &served,
            };
            let Ok(place) = Arc::clone(room).try_acquire_owned() else {
                links.answer(from, id, &Answer::NotTaken { leader: None });
                return;
            };
            let question = match question {
                Question::Propose { group, wait_ms, entry } => {
                    match service.admit_for_peer(group, &entry) {
                        Ok(Some(permit)) => {
                            let served = Served { from, id, group, entry, permit, place };
                            return mailer.send(Mail::Serve(served));
                        }
                        Ok(None) => Question::Propose { group, wait_ms, entry },
                        Err(error) => return links.answer(from, id, &Answer::Refused(error)),
                    }
                }
                other => other,
            };
            let (links, service, pages) = (Arc::clone(&links), service.clone(), pages.clone());
            runtime.spawn(async move {
                match question {
                    Question::Read { wait_ms, read } => {
                        let until = served_until(wait_ms);
                        // Held until the answer is with the transport.
                        let (_room, answer) = match pages.room(&read, until).await {
                            Some(room) => (Some(room), service.answer_read(until, read).await),
                            None => (None, Answer::NotTaken { leader: None }),
                        };
                        links.answer_in_turn(from, id, &answer, until).await;
                    }
                    question => {
                        let answer = service.answer_peer(from, question).await;
                        links.answer(from, id, &answer);
                    }
                }
                drop(place);
            });
        }
        Heard::Frame { from, kind: FrameKind::Bulk, payload } => {
            if links.take_in(payload.len()) {
                mailer.send(Mail::Bulk { from, bytes: payload });
            }
        }
        Heard::Lost { peer } => {
            tracing::info!(peer = %links.name(peer), "lost the connection to a member");
            links.lost(peer);
            mailer.send(Mail::Input(Input::Unreachable(peer)));
        }
        Heard::Unsent { to, payload } => links.unsent(to, payload),
        Heard::Removed { by } => {
            tracing::error!(by = %links.name(by), "a member says that this life is over");
            saw.end_life();
        }
        Heard::OtherBirth { by } => {
            tracing::error!(by = %links.name(by), "a member knows this life by another directory");
            saw.end_other_birth();
        }
    }
}

/// Asks a peer how it is, again and again.
async fn watch_reports(service: Service<LsmStore>, peer: PeerId) {
    let mut rest = tokio::time::interval(REPORT_EVERY);
    rest.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for asked in (0..REPORTS_PER_LIST).cycle() {
        rest.tick().await;
        if asked == 0 {
            service.ask_members(peer).await;
        }
        service.ask_report(peer, Instant::now() + REPORT_EVERY).await;
    }
}

/// Lets the groups' clocks go to wall time while a majority of the members say the same.
struct Adopter {
    links: Arc<Links>,
    mailer: Mailer<LsmStore>,
    service: Service<LsmStore>,
}

impl Adopter {
    fn is_silent(&self, peer: PeerId) -> bool {
        let sight = self.service.ops().sights.sight(peer, time::now().boot_ms);
        u128::from(sight.silent_ms) >= SILENCE_ASKED.as_millis()
    }

    /// Asks a peer for its clock again and again.
    async fn watch_clock(self: Arc<Self>, peer: PeerId) {
        let mut rest = tokio::time::interval(SILENCE_ASKED);
        rest.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut adopted, mut asked_at): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            rest.tick().await;
            let is_due = asked_at.is_none_or(|at| at.elapsed() >= CLOCK_EVERY);
            if !is_due && !self.is_silent(peer) {
                continue;
            }
            let asked = Instant::now();
            asked_at = Some(asked);
            let answer = self.links.ask(peer, &Question::Clock, asked + CLOCK_WITHIN).await;
            let Ok(Answer::Clock { wall_ms, may_lead }) = answer else { continue };
            // It was read somewhere in between.
            let half_ms = (asked.elapsed() / 2).as_millis() as u64;
            let now = time::now();
            self.links.saw_clock(peer, wall_ms.saturating_add(half_ms), now, may_lead);
            let is_due = adopted.is_none_or(|at| at.elapsed() >= ADOPT_EVERY);
            if is_due && self.links.clocks_agree(now) {
                adopted = Some(Instant::now());
                self.mailer.send(Mail::Input(Input::ClocksAgree(now)));
            }
        }
    }
}
