//! Between a store and its server, passing everything on but for what it is told to spoil.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::server;

/// Where a server's socket is in its folder.
const SOCKET: &str = ".s.PGSQL.5432";
/// How a transaction of several calls begins, behind the head of its message.
const BEGIN: &[u8] = b"BEGIN; SET LOCAL";

pub struct Proxy {
    folder: TempDir,
    spoils: Arc<Spoils>,
}

#[derive(Default)]
struct Spoils {
    is_armed: AtomicBool,
    spoiled: AtomicUsize,
}

impl Proxy {
    /// Serves connections for as long as the runtime of the test lives.
    pub fn start() -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let behind = server::server().folder.join(SOCKET);
        let spoils: Arc<Spoils> = Arc::default();
        tokio::spawn(accept(listener, behind, Arc::clone(&spoils)));
        Proxy { folder, spoils }
    }

    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.folder.path().display())
    }

    /// The next transaction of several calls does not begin: the server refuses that message, and
    /// takes the statements behind it.
    pub fn spoil_a_beginning(&self) {
        self.spoils.is_armed.store(true, Ordering::SeqCst);
    }

    /// How many did not begin.
    pub fn spoiled(&self) -> usize {
        self.spoils.spoiled.load(Ordering::SeqCst)
    }
}

async fn accept(listener: UnixListener, behind: PathBuf, spoils: Arc<Spoils>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (from_client, mut to_client) = client.into_split();
        let server = UnixStream::connect(&behind).await.unwrap();
        let (mut from_server, to_server) = server.into_split();
        tokio::spawn(forward(from_client, to_server, Arc::clone(&spoils)));
        tokio::spawn(async move {
            // Ends with the connection.
            drop(tokio::io::copy(&mut from_server, &mut to_client).await);
        });
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, spoils: Arc<Spoils>) {
    // The first message has no letter before its length.
    let mut letters = 0;
    while let Ok(mut message) = message(&mut from, letters).await {
        if letters == 1
            && message[5..].starts_with(BEGIN)
            && spoils.is_armed.swap(false, Ordering::SeqCst)
        {
            message[5..10].copy_from_slice(b"BEGIX");
            spoils.spoiled.fetch_add(1, Ordering::SeqCst);
        }
        letters = 1;
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn message(from: &mut OwnedReadHalf, letters: usize) -> io::Result<Vec<u8>> {
    let head = letters + 4;
    let mut message = vec![0; head];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[letters..].try_into().unwrap());
    message.resize(letters + length as usize, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}
