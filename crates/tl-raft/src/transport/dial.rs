//! Calling one peer on one lane: connect, shake hands, send, and again when it ends.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::hello::{Answer, Hello, Lane, Refusal, VERSION_NEWEST, VERSION_OLDEST};
use super::link::{Control, Link};
use super::outlet::Outlet;
use super::sealed::{SealedError, read_sealed};
use super::status::Trouble;
use super::wire::{self, Wire};
use super::{Heard, Shared};

/// How a call ended.
enum End {
    /// Nobody needed the connection any more.
    Rested,
    Trouble(Trouble),
}

/// Calls until the link is stopped.
pub(super) async fn run(
    shared: Arc<Shared>,
    link: Arc<Link>,
    lane: Lane,
    mut control: watch::Receiver<Control>,
) {
    let outlet = link.outlet(lane);
    let config = &shared.config;
    let seed = config.seed ^ link.seat.peer.0.rotate_left(32) ^ lane as u64;
    let mut backoff = Backoff::new(config.backoff_min_ms, config.backoff_max_ms, seed);
    loop {
        let Control { address, stopped } = control.borrow_and_update().clone();
        if stopped {
            break;
        }
        outlet.ready();
        if lane == Lane::Bulk {
            tokio::select! {
                biased;
                _ = control.changed() => continue,
                () = outlet.work() => {}
            }
        }
        outlet.connecting();
        let end = tokio::select! {
            biased;
            _ = control.changed() => None,
            end = call(&shared, &link, lane, &address) => Some(end),
        };
        let trouble = match end {
            Some(End::Rested) => continue,
            Some(End::Trouble(trouble)) => Some(trouble),
            // Stopped, or to be found elsewhere.
            None => None,
        };
        let again_at_once = trouble.is_none();
        // Two processes that take themselves for the same node must not chase each other.
        let replaced = trouble == Some(Trouble::Ended(Refusal::Replaced));
        let removed =
            [Trouble::Refused(Refusal::RemovedLife), Trouble::Ended(Refusal::RemovedLife)];
        let is_removed = trouble.as_ref().is_some_and(|trouble| removed.contains(trouble));
        let is_other = trouble == Some(Trouble::Refused(Refusal::OtherBirth));
        let said = trouble.as_ref().map(ToString::to_string).unwrap_or_default();
        let remains = outlet.ended(trouble);
        let peer = link.seat.peer;
        if is_removed {
            (shared.heard)(Heard::Removed { by: peer });
        }
        if is_other {
            (shared.heard)(Heard::OtherBirth { by: peer });
        }
        if remains.news {
            tracing::warn!(%peer, address, ?lane, trouble = said, "no connection to a peer");
        }
        give_back(&shared, &link, remains.unsent);
        if remains.was_connected {
            if lane == Lane::Main {
                (shared.heard)(Heard::Lost { peer });
            }
            if !replaced {
                backoff.reset();
            }
        }
        if again_at_once {
            continue;
        }
        tokio::select! {
            _ = control.changed() => {}
            () = outlet.kicked() => {}
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
    give_back(&shared, &link, outlet.close());
}

fn give_back(shared: &Shared, link: &Link, unsent: Vec<Bytes>) {
    for payload in unsent {
        (shared.heard)(Heard::Unsent { to: link.seat.peer, payload });
    }
}

/// One connection, from its first packet to its end.
async fn call(shared: &Shared, link: &Link, lane: Lane, address: &str) -> End {
    let config = &shared.config;
    let connect = timeout(Duration::from_millis(config.connect_ms), TcpStream::connect(address));
    let stream = match connect.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return End::Trouble(Trouble::Unreachable { why: error.to_string() }),
        Err(_) => return End::Trouble(Trouble::Late { step: "connecting" }),
    };
    let shake = timeout(
        Duration::from_millis(config.handshake_ms),
        shake_hands(shared, link, lane, stream),
    );
    let (wire, rest) = match shake.await {
        Ok(Ok(wire)) => wire,
        Ok(Err(trouble)) => return End::Trouble(trouble),
        Err(_) => return End::Trouble(Trouble::Late { step: "the handshake" }),
    };
    let outlet = link.outlet(lane);
    outlet.connected();
    tracing::info!(peer = %link.seat.peer, address, ?lane, "connected to a peer");
    let (mut read, write) = tokio::io::split(wire);
    let _open = outlet.open(write);
    tokio::select! {
        trouble = farewell(&mut read, rest) => End::Trouble(trouble),
        end = send(shared, outlet, lane) => end,
    }
}

/// The open connection, and what was read of it past the answer.
async fn shake_hands(
    shared: &Shared,
    link: &Link,
    lane: Lane,
    stream: TcpStream,
) -> Result<(Wire, Vec<u8>), Trouble> {
    let config = &shared.config;
    wire::set_up(&stream, Duration::from_millis(config.silence_ms)).map_err(broken)?;
    let mut wire = match &shared.certificates {
        None => Wire::Plain(stream),
        Some(certificates) => {
            let stream = certificates.connect(stream, link.seat.node).await.map_err(|error| {
                // Before any certificate was seen it is the connection that failed.
                match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                    true => Trouble::Tls { why: error.to_string() },
                    false => Trouble::Broken { why: error.to_string() },
                }
            })?;
            Wire::Tls(Box::new(stream))
        }
    };
    let hello = Hello {
        versions: (VERSION_OLDEST, VERSION_NEWEST),
        lane,
        cluster: config.cluster,
        from: config.seat,
        to: link.seat,
        run: config.seed,
        ordinal: shared.next_ordinal(),
        birth: config.birth,
    };
    wire.write_all(&hello.encode()).await.map_err(broken)?;
    wire.flush().await.map_err(broken)?;
    let mut buffer = Vec::new();
    match read_sealed(&mut wire, &mut buffer, Answer::decode).await.map_err(no_answer)? {
        Answer::Refused(refusal) => Err(Trouble::Refused(refusal)),
        Answer::Accepted { version, cluster, seat } => {
            if !(VERSION_OLDEST..=VERSION_NEWEST).contains(&version) {
                return Err(Trouble::Stranger { why: "a version that was not offered" });
            }
            if cluster != config.cluster || seat != link.seat {
                return Err(Trouble::Stranger { why: "another node than was called" });
            }
            Ok((wire, buffer))
        }
    }
}

fn broken(error: io::Error) -> Trouble {
    match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        true => Trouble::Tls { why: error.to_string() },
        false => Trouble::Broken { why: error.to_string() },
    }
}

fn no_answer(error: SealedError) -> Trouble {
    match error {
        SealedError::Io(error) => broken(error),
        SealedError::End => Trouble::Broken { why: "closed by the peer".to_owned() },
        SealedError::Malformed(why) => Trouble::Stranger { why },
    }
}

/// Waits for the peer's last word: a reason, or nothing but the end.
async fn farewell(read: &mut (impl AsyncRead + Unpin), mut buffer: Vec<u8>) -> Trouble {
    match read_sealed(read, &mut buffer, Answer::decode).await {
        Ok(Answer::Refused(refusal)) => Trouble::Ended(refusal),
        Ok(Answer::Accepted { .. }) => Trouble::Stranger { why: "a second answer" },
        Err(error) => no_answer(error),
    }
}

/// Sends what there is, gathered into few writes.
async fn send(shared: &Shared, outlet: &Outlet, lane: Lane) -> End {
    let silence = Duration::from_millis(shared.config.silence_ms);
    let idle = Duration::from_millis(shared.config.bulk_idle_ms);
    loop {
        loop {
            match timeout(silence, poll_fn(|cx| outlet.poll_send(cx))).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                Ok(Err(error)) => return End::Trouble(broken(error)),
                Err(_) => return End::Trouble(Trouble::Late { step: "a write" }),
            }
        }
        match lane {
            Lane::Main => outlet.asked().await,
            Lane::Bulk => match timeout(idle, outlet.asked()).await {
                Ok(()) => {}
                Err(_) if outlet.rest() => return End::Rested,
                Err(_) => {}
            },
        }
    }
}
