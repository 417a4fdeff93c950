//! Being called: TLS, handshake, and then frames, one after the other, to whom they concern.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::codec::Decoder;
use super::hello::{Answer, Birth, Hello, Refusal, Seat, judge};
use super::incoming::Place;
use super::link::Link;
use super::sealed::{SealedError, read_sealed};
use super::settings::{ACCEPT_PAUSE_MS, Admission, Births, FAREWELL_MS, HANDSHAKES_MAX};
use super::tls;
use super::wire::{self, Wire};
use super::{Heard, Shared, stopped};

/// Accepts until it is told to stop, and ends when the last connection has.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, stop: watch::Receiver<bool>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(stop.clone()) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => match Arc::clone(&handshakes).try_acquire_owned() {
                Ok(permit) => {
                    let task = serve(Arc::clone(&shared), stream, from, permit, stop.clone());
                    connections.spawn(task);
                }
                Err(_) => shared.refused.lock().crowded += 1,
            },
            Err(error) => {
                tracing::warn!(%error, "no connection of a peer can be accepted");
                tokio::select! {
                    () = stopped(stop.clone()) => break,
                    () = tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)) => {}
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection, from its first packet to its end.
async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    handshake: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) {
    let patience = Duration::from_millis(shared.config.handshake_ms);
    let greeted = tokio::select! {
        biased;
        () = stopped(stop.clone()) => return,
        greeted = timeout(patience, greet(&shared, stream, address)) => greeted,
    };
    let (mut wire, greeting) = match greeted {
        Ok(Some(greeted)) => greeted,
        Ok(None) => return,
        Err(_) => {
            shared.refused.lock().late += 1;
            return;
        }
    };
    let refusal = match greeting {
        Ok(Guest { hello, version, link, place }) => {
            drop(handshake);
            let lane = hello.lane;
            let end = tokio::select! {
                biased;
                () = stopped(stop) => Some(Refusal::Stopping),
                refusal = Place::ended(place.end.clone()) => Some(refusal),
                end = receive(&shared, &link, &hello, version, &place, &mut wire) => end,
            };
            link.silent(lane, place.number);
            drop(place);
            if let Some(refusal) = end {
                link.refused(lane, refusal);
                tracing::info!(peer = %link.seat.peer, %address, ?lane, %refusal,
                    "ended a connection of a peer");
            }
            end
        }
        Err((hello, refusal)) => {
            shared.refuse(address, hello.as_ref(), refusal);
            Some(refusal)
        }
    };
    if let Some(refusal) = refusal {
        // That the last word is not heard is no loss: the connection ends all the same.
        let patience = Duration::from_millis(FAREWELL_MS);
        let _ = timeout(patience, farewell(&mut wire, refusal)).await;
    }
}

/// A peer that was let in.
struct Guest {
    hello: Hello,
    version: u8,
    link: Arc<Link>,
    place: Place,
}

type Greeting = Result<Guest, (Option<Hello>, Refusal)>;

/// TLS and hello; nothing when there is nobody to be answered.
async fn greet(
    shared: &Shared,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(Wire, Greeting)> {
    let silence = Duration::from_millis(shared.config.silence_ms);
    if wire::set_up(&stream, silence).is_err() {
        shared.refused.lock().late += 1;
        return None;
    }
    let mut wire = match &shared.certificates {
        None => Wire::Plain(stream),
        Some(certificates) => match certificates.accept(stream).await {
            Ok(stream) => Wire::Tls(Box::new(stream)),
            Err(error) => {
                shared.refuse_tls(address, &error);
                return None;
            }
        },
    };
    let mut buffer = Vec::new();
    let hello = match read_sealed(&mut wire, &mut buffer, Hello::decode).await {
        // Whoever sends more before it was answered does not speak this protocol.
        Ok(hello) if buffer.is_empty() => hello,
        Ok(_) | Err(SealedError::Malformed(_)) => {
            return Some((wire, Err((None, Refusal::Malformed))));
        }
        Err(SealedError::Io(error)) if shared.certificates.is_some() && is_tls(&error) => {
            shared.refuse_tls(address, &error);
            return None;
        }
        Err(SealedError::Io(_) | SealedError::End) => {
            shared.refused.lock().late += 1;
            return None;
        }
    };
    let greeting = let_in(shared, &wire, hello).await.map_err(|refusal| (Some(hello), refusal));
    Some((wire, greeting))
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

async fn let_in(shared: &Shared, wire: &Wire, hello: Hello) -> Result<Guest, Refusal> {
    let certified = match wire {
        Wire::Plain(_) => true,
        Wire::Tls(stream) => tls::names(stream, hello.from.node),
    };
    let config = &shared.config;
    let standing = shared.standing(hello.from);
    let version = judge(&hello, config.cluster, config.seat, certified, standing)?;
    if let Some(birth) = hello.birth {
        match admission(&config.births, hello.from, birth).await {
            Admission::Admitted => {}
            Admission::Another => return Err(Refusal::OtherBirth),
            Admission::NotNow => return Err(Refusal::UnwrittenBirth),
        }
    }
    let place = shared.incoming.take(&hello)?;
    // Looked up again now that it has a place: whoever is taken off the list from here on finds
    // this connection and ends it.
    let standing = shared.standing(hello.from);
    judge(&hello, config.cluster, config.seat, certified, standing)?;
    let link = shared.link(hello.from.peer).ok_or(Refusal::UnknownLife)?;
    Ok(Guest { hello, version, link, place })
}

/// Whether a life may speak from its directory; waits for a disk only if it was not known before.
async fn admission(births: &Arc<dyn Births>, from: Seat, birth: Birth) -> Admission {
    if let Some(known) = births.known(from, birth) {
        return known;
    }
    let births = Arc::clone(births);
    let admitted = tokio::task::spawn_blocking(move || births.admit(from, birth)).await;
    // One that panics has proved nothing against the caller, and admits nobody.
    admitted.unwrap_or(Admission::NotNow)
}

/// Answers and reads frames until the connection ends; with a reason if it is ended here.
async fn receive(
    shared: &Shared,
    link: &Link,
    hello: &Hello,
    version: u8,
    place: &Place,
    wire: &mut Wire,
) -> Option<Refusal> {
    let lane = hello.lane;
    let _reading = place.reading.lock().await;
    let config = &shared.config;
    let answer = Answer::Accepted { version, cluster: config.cluster, seat: config.seat };
    wire.write_all(&answer.encode()).await.ok()?;
    wire.flush().await.ok()?;
    link.heard_of(lane, place.number);
    tracing::info!(peer = %link.seat.peer, ?lane, "a peer has connected");
    let mut decoder = Decoder::new(lane);
    loop {
        loop {
            match decoder.frame() {
                Ok(Some((kind, payload))) => {
                    link.received(lane, payload.len());
                    (shared.heard)(Heard::Frame { from: link.seat.peer, kind, payload });
                }
                Ok(None) => break,
                Err(why) => {
                    link.damaged(lane);
                    tracing::warn!(peer = %link.seat.peer, ?lane, why, "a damaged frame");
                    return Some(Refusal::Damaged);
                }
            }
        }
        match wire.read_buf(&mut decoder.room()).await {
            // An end in the middle of a frame is a lost frame like any other: Raft repairs.
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// The last word, and then silence until the other end has heard it: bytes that come in and are
/// not read would take it along.
async fn farewell(wire: &mut Wire, refusal: Refusal) -> io::Result<()> {
    wire.write_all(&Answer::Refused(refusal).encode()).await?;
    wire.shutdown().await?;
    let mut sink = vec![0; 16 * 1024];
    while wire.read(&mut sink).await? > 0 {}
    Ok(())
}
