//! Writers and tails that live through whatever is done to the members.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tl_client::verify::{Ledger, Reading};
use tl_client::workload::{Workload, WorkloadOptions};
use tl_client::{Client, ClientError, Event};
use tl_types::Seq;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// A wait that lasts longer than this is a failure: something hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// A tail that hears nothing for so long goes to the next member; pings come more often.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Writers through one member.
pub struct Load {
    running: JoinHandle<(Workload, Result<(), ClientError>)>,
    sessions: Vec<Arc<str>>,
    acked: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
}

impl Load {
    pub async fn start(url: &str, seed: u64, writers: usize, sessions: usize) -> Load {
        let options = WorkloadOptions { writers, sessions, seed, ..WorkloadOptions::default() };
        Load::with(url, options).await
    }

    pub async fn with(url: &str, options: WorkloadOptions) -> Load {
        let client = Client::new(url).unwrap();
        let mut workload = Workload::prepare(&client, options).await.unwrap();
        let (sessions, acked) = (workload.sessions().to_vec(), workload.acked());
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(async move {
            let outcome = workload.run(stopped).await;
            (workload, outcome)
        });
        Load { running, sessions, acked, stop }
    }

    pub fn sessions(&self) -> &[Arc<str>] {
        &self.sessions
    }

    fn acked(&self) -> u64 {
        *self.acked.borrow()
    }

    /// Ends the writers; none of their writes may have been refused for good.
    pub async fn end(self) -> Ledger {
        self.stop.send_replace(true);
        let (workload, outcome) = self.running.await.unwrap();
        outcome.unwrap();
        workload.ledger()
    }
}

/// Waits until each load has so many more events acknowledged.
pub async fn advance(loads: impl IntoIterator<Item = &Load>, events: u64) {
    let loads = loads.into_iter().map(|load| (load, load.acked() + events));
    for (number, (load, reached)) in loads.collect::<Vec<_>>().into_iter().enumerate() {
        let mut acked = load.acked.clone();
        let waited =
            tokio::time::timeout(PATIENCE, acked.wait_for(|acked| *acked >= reached)).await;
        match waited {
            Ok(still_writes) => drop(still_writes.expect("the writers go on")),
            Err(_) => panic!("load {number} stands still at {}", load.acked()),
        }
    }
}

/// What a tail saw.
pub struct Followed {
    pub reading: Reading,
    /// Codes that the members closed it with.
    pub codes: Vec<u16>,
}

/// A tail over WebSockets that goes to the next member whenever one ends it.
pub struct Follower {
    running: JoinHandle<Followed>,
    session: Arc<str>,
    until: watch::Sender<Option<Seq>>,
}

impl Follower {
    pub fn start(session: Arc<str>, urls: Vec<String>, first: usize) -> Follower {
        let (until, end) = watch::channel(None);
        let running = tokio::spawn(follow(session.clone(), urls, first, end));
        Follower { running, session, until }
    }

    /// Waits until it has seen everything that the session has now.
    pub async fn end(self, client: &Client) -> Followed {
        let last = client.get(&self.session).await.unwrap().last_seq;
        self.end_at(Seq(last)).await
    }

    /// Waits until it has seen everything up to here.
    pub async fn end_at(self, last: Seq) -> Followed {
        self.until.send_replace(Some(last));
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended.expect("a tail gets to the end").unwrap()
    }
}

async fn follow(
    session: Arc<str>,
    urls: Vec<String>,
    first: usize,
    mut end: watch::Receiver<Option<Seq>>,
) -> Followed {
    let mut followed = Followed { reading: Reading::new(session.clone()), codes: Vec::new() };
    let mut cursor = Seq(0);
    for turn in first.. {
        let url = urls[turn % urls.len()].replacen("http://", "ws://", 1);
        let address = format!("{url}/v1/sessions/{session}/tail?cursor={cursor}");
        let connecting =
            tokio::time::timeout(SILENCE_MAX, tokio_tungstenite::connect_async(address));
        let Ok(Ok((mut socket, _))) = connecting.await else {
            if is_done(&end, cursor) {
                return followed;
            }
            // A member that is down refuses at once: the next one is asked without hurry.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        loop {
            if is_done(&end, cursor) {
                return followed;
            }
            let message = tokio::select! {
                message = tokio::time::timeout(SILENCE_MAX, socket.next()) => message,
                changed = end.changed() => {
                    changed.expect("whoever ends a tail waits for it");
                    continue;
                }
            };
            match message {
                Ok(Some(Ok(Message::Text(text)))) => {
                    let event = Event::parse(text.into()).expect("an event, and never a gap");
                    assert_eq!(event.seq, cursor.next(), "{session}: lost or repeated");
                    followed.reading.saw(&event).unwrap();
                    cursor = event.seq;
                }
                Ok(Some(Ok(Message::Close(close)))) => {
                    followed.codes.extend(close.map(|close| u16::from(close.code)));
                    break;
                }
                Ok(Some(Ok(_))) => {}
                // Broken, ended without a word, or silent: a member that hangs says nothing.
                Ok(Some(Err(_)) | None) | Err(_) => break,
            }
        }
    }
    unreachable!("turns do not end")
}

fn is_done(end: &watch::Receiver<Option<Seq>>, cursor: Seq) -> bool {
    end.borrow().is_some_and(|last| cursor >= last)
}
