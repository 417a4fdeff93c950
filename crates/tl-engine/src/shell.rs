//! The threads around a node: driver, log, flush, and the helper that applies cold entries.
//!
//! ```text
//!  Service ─ Mailbox ─► driver: Node::turn ─ LogBox ──► log: append, sync ─► LogDone back
//!     ▲                    │  │  └─ Mailbox ─► cold: rules over blocking reads ─► BesideDone back
//!     └── answers, wakes ──┘  └─── bell ─────► flush: memtable → runs, log released, compaction
//! ```
//!
//! A front may live on the driver's thread (see [`crate::front`]); it then waits for sockets and
//! for the mailbox at once. Beside them: one thread prepares log segments, one looks after what is
//! on disk, one watches how much room there is on disk and in memory.
//!
//! On a full disk background work waits for room. Any other failure of the log or of the store
//! stops the node: every thread ends, open requests get an unknown outcome, and [`Shell::failure`]
//! says why. Nothing is retried on a disk that lied.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use tl_raft::{MemberChange, PeerId};
use tl_store::OrderedStore;
use tl_types::GroupId;
use tokio::sync::watch;

use crate::front::Front;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::node::{Input, Node};
use crate::ops::GroupLook;
use crate::peer::Answer as PeerAnswer;
use crate::shell::admission::{Admission, Permit};
use crate::shell::answers::{Answer, Answers};
use crate::shell::links::{Links, NoAnswer};
use crate::shell::mailbox::Mailbox;
use crate::shell::pulse::Pulse;
use crate::shell::relay::Served;
use crate::shell::space::Space;

pub mod admission;
pub mod answers;
mod aside;
mod cold;
mod driver;
mod feed;
mod flush;
pub(crate) mod links;
mod log;
pub mod mailbox;
pub(crate) mod pulse;
pub mod relay;
pub mod space;
pub mod time;
mod upkeep;
mod waiters;
mod watcher;

pub use self::flush::Background;
pub(crate) use self::log::LogLimits;

/// What the service puts into the driver's mailbox.
pub enum Mail {
    /// A proposal or a read of a client; answered through the sender.
    Ask {
        /// What to do; the token is given by the driver thread.
        ask: Ask,
        /// Where the answer goes.
        answer: tokio::sync::oneshot::Sender<Answer>,
        /// Held until the answer is on its way.
        permit: Option<Permit>,
    },
    /// A face that wants to live on the driver's thread.
    Front(Box<dyn Front>),
    /// News from the other threads.
    Input(Input),
    /// A frame of another node, which has room until it is taken.
    Frame {
        /// Who sent it.
        from: PeerId,
        /// The frame.
        bytes: bytes::Bytes,
    },
    /// A piece of something large from another node, which has room until it is taken.
    Bulk {
        /// Who sent it.
        from: PeerId,
        /// The piece.
        bytes: bytes::Bytes,
    },
    /// Propose what another node asks for, and answer it.
    Serve(Served),
    /// What another node says of a write of the front, by the token of its waiter.
    Told(u64, Result<PeerAnswer, NoAnswer>),
    /// Say how all groups are.
    Look(tokio::sync::oneshot::Sender<Arc<[GroupLook]>>),
    /// End the driver thread.
    Stop,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mail::Ask { ask, .. } => f.debug_tuple("Ask").field(ask).finish(),
            Mail::Front(_) => f.write_str("Front"),
            Mail::Input(input) => f.debug_tuple("Input").field(input).finish(),
            Mail::Frame { from, bytes } => {
                f.debug_struct("Frame").field("from", from).field("bytes", &bytes.len()).finish()
            }
            Mail::Bulk { from, bytes } => {
                f.debug_struct("Bulk").field("from", from).field("bytes", &bytes.len()).finish()
            }
            Mail::Serve(served) => f.debug_tuple("Serve").field(served).finish(),
            Mail::Told(token, _) => f.debug_tuple("Told").field(token).finish(),
            Mail::Look(_) => f.write_str("Look"),
            Mail::Stop => f.write_str("Stop"),
        }
    }
}

/// What a client asks of a group.
#[derive(Debug)]
pub enum Ask {
    /// Propose an encoded entry.
    Propose(GroupId, Vec<u8>),
    /// An index for a linearizable read.
    Read(GroupId),
    /// Change who belongs to the group.
    Change(GroupId, MemberChange),
}

impl Ask {
    /// The group that is asked.
    #[must_use]
    pub fn group(&self) -> GroupId {
        match self {
            Ask::Propose(group, _) | Ask::Read(group) | Ask::Change(group, _) => *group,
        }
    }
}

/// Puts things into the driver's mailbox.
#[derive(Debug)]
pub struct Mailer<S>(Arc<Shared<S>>);

impl<S> Clone for Mailer<S> {
    fn clone(&self) -> Self {
        Mailer(Arc::clone(&self.0))
    }
}

impl<S> Mailer<S> {
    /// How many memtables were sealed; tells one memtable from the next.
    #[must_use]
    pub fn memtables(&self) -> u64 {
        self.0.memtables.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Ends the node for a reason that is told once.
    pub(crate) fn fail(&self, why: String) {
        self.0.fail(why);
    }

    /// Puts one item in. After the driver has ended nobody takes it out: its answer never comes.
    pub fn send(&self, mail: Mail) {
        self.0.mail.push(mail);
    }
}

/// Why a node stopped by itself.
pub type FailureWatch = watch::Receiver<Option<Arc<str>>>;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    pub(crate) store: Arc<S>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) mail: Mailbox<Mail>,
    pub(crate) answers: Answers,
    /// Memtables sealed since the start.
    pub(crate) memtables: AtomicU64,
    /// What is known about room on disk.
    pub(crate) space: Arc<Space>,
    failure: watch::Sender<Option<Arc<str>>>,
}

impl<S> Shared<S> {
    #[cfg(test)]
    pub(crate) fn new(store: Arc<S>) -> Shared<S> {
        Shared::over(store, Hub::new(), Arc::default(), Arc::default())
    }

    fn over(store: Arc<S>, hub: Arc<Hub>, metrics: Arc<Metrics>, space: Arc<Space>) -> Shared<S> {
        Shared {
            store,
            hub,
            metrics,
            mail: Mailbox::default(),
            answers: Answers::default(),
            memtables: AtomicU64::new(0),
            space,
            failure: watch::Sender::new(None),
        }
    }

    /// Stops the node for a reason that is told once.
    pub(crate) fn fail(&self, why: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(reason = %why, "the node stops");
                *failure = Some(why.into());
            }
            first
        });
        self.mail.push(Mail::Stop);
    }

    pub(crate) fn failed(&self) -> bool {
        self.failure.borrow().is_some()
    }
}

/// Stops the node when its thread panics: half a node would answer nobody and say nothing.
struct PanicWatch<S> {
    name: &'static str,
    shared: Arc<Shared<S>>,
}

impl<S> Drop for PanicWatch<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail(format!("thread {} panicked; the lines before say why", self.name));
        }
    }
}

/// The running threads of one node.
#[derive(Debug)]
pub struct Shell<S> {
    shared: Arc<Shared<S>>,
    log: Arc<log::LogBox>,
    background: Arc<Background>,
    cold: Arc<cold::ColdBox>,
    asides: Arc<aside::AsideBox>,
    feeds: Arc<feed::FeedBox>,
    pulse: Arc<Pulse>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share with the rest of the node.
pub(crate) struct With {
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) space: Arc<Space>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) limits: LogLimits,
    /// The other nodes; `None` for a node that is a cluster of its own.
    pub(crate) links: Option<Arc<Links>>,
}

impl<S: OrderedStore + 'static> Shell<S> {
    /// Starts the threads. `runtime` is where answers are handed to waiting requests.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start(
        node: Node<S>,
        wal: log::NodeLog,
        with: With,
        runtime: &tokio::runtime::Handle,
    ) -> std::io::Result<Shell<S>> {
        let With { hub, metrics, space, admission, pulse, limits, links } = with;
        let groups = node.groups();
        let is_alone = links.is_none();
        let shared = Arc::new(Shared::over(Arc::clone(node.store()), hub, metrics, space));
        let preparer = wal.preparer();
        let log = Arc::new(log::LogBox::new(wal, limits));
        let background = Arc::new(Background::default());
        // Before anybody can read: their rows may lack what this node has acknowledged.
        node.doubted().for_each(|(group, why)| background.group_stopped(group, why));
        let cold = Arc::new(cold::ColdBox::default());
        let spawn = |name: &'static str, body: Box<dyn FnOnce() + Send>| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                let _watch = PanicWatch { name, shared };
                body();
            })
        };
        let mut threads = Vec::new();
        {
            let (shared, log, background, pulse) = (
                Arc::clone(&shared),
                Arc::clone(&log),
                Arc::clone(&background),
                Arc::clone(&pulse),
            );
            threads.push(spawn(
                "tl-log",
                Box::new(move || log::run(&shared, &log, &background, &pulse)),
            )?);
        }
        {
            let (shared, log, background, pulse) = (
                Arc::clone(&shared),
                Arc::clone(&log),
                Arc::clone(&background),
                Arc::clone(&pulse),
            );
            threads.push(spawn(
                "tl-flush",
                Box::new(move || flush::run(&shared, &log, &background, &pulse, is_alone)),
            )?);
        }
        {
            let (shared, background) = (Arc::clone(&shared), Arc::clone(&background));
            threads.push(spawn(
                "tl-prepare",
                Box::new(move || flush::prepare(&shared, &background, &preparer)),
            )?);
        }
        {
            let (shared, background) = (Arc::clone(&shared), Arc::clone(&background));
            threads.push(spawn(
                "tl-watch",
                Box::new(move || watcher::run(&shared, &background, &admission)),
            )?);
        }
        {
            let (shared, background, pulse) =
                (Arc::clone(&shared), Arc::clone(&background), Arc::clone(&pulse));
            threads.push(spawn(
                "tl-upkeep",
                Box::new(move || upkeep::run(&shared, &background, &pulse, groups)),
            )?);
        }
        {
            let (shared, cold) = (Arc::clone(&shared), Arc::clone(&cold));
            threads.push(spawn("tl-cold", Box::new(move || cold::run(&shared, &cold)))?);
        }
        let asides = Arc::new(aside::AsideBox::default());
        if links.is_some() {
            let (shared, asides) = (Arc::clone(&shared), Arc::clone(&asides));
            threads.push(spawn("tl-catch-up", Box::new(move || aside::run(&shared, &asides)))?);
        }
        let feeds = Arc::new(feed::FeedBox::default());
        if links.is_some() {
            let (shared, log, feeds) = (Arc::clone(&shared), Arc::clone(&log), Arc::clone(&feeds));
            threads.push(spawn("tl-feed", Box::new(move || feed::run(&shared, &log, &feeds)))?);
        }
        {
            let around = driver::Around {
                shared: Arc::clone(&shared),
                log: Arc::clone(&log),
                background: Arc::clone(&background),
                cold: Arc::clone(&cold),
                asides: Arc::clone(&asides),
                feeds: Arc::clone(&feeds),
                pulse: Arc::clone(&pulse),
                links: links.clone(),
            };
            threads.push(spawn("tl-driver", Box::new(move || driver::run(node, &around)))?);
        }
        runtime.spawn(answers::deliver(Arc::clone(&shared)));
        Ok(Shell { shared, log, background, cold, asides, feeds, pulse, threads })
    }

    /// A handle that puts things into the driver's mailbox.
    #[must_use]
    pub fn mailer(&self) -> Mailer<S> {
        Mailer(Arc::clone(&self.shared))
    }

    /// What the background threads know: due work, stopped groups.
    #[must_use]
    pub fn background(&self) -> Arc<Background> {
        Arc::clone(&self.background)
    }

    /// Becomes `Some` when the node stopped by itself.
    #[must_use]
    pub fn failure(&self) -> FailureWatch {
        self.shared.failure.subscribe()
    }
}

impl<S> Shell<S> {
    /// Ends all threads. What was acknowledged is in the log; nothing needs to be flushed.
    pub fn stop(&mut self) {
        self.shared.mail.push(Mail::Stop);
        self.pulse.stop();
        self.log.stop();
        self.background.stop();
        self.cold.stop();
        self.asides.stop();
        self.feeds.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the node ended in a panic");
            }
        }
        self.shared.answers.close();
    }
}

impl<S> Drop for Shell<S> {
    fn drop(&mut self) {
        self.stop();
    }
}
