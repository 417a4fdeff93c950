#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use tl_engine::hub::{Hub, Membership, TopicKey};
use tl_types::{GroupId, ResourceNumber, Seq};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Longer than a test may take.
const NEVER: Duration = Duration::from_secs(3_600);

/// A connection whose client reads nothing, with the reply of event 1 in its write buffer.
struct Scene {
    socket: Socket,
    _client: TcpStream,
    tail: Membership,
}

impl Scene {
    async fn new(stall: Duration) -> Scene {
        let (hub, key) = (Hub::new(), TopicKey { group: GroupId(0), number: ResourceNumber(1) });
        let tail = hub.join(key);
        let guard = hub.applied(key, Seq(1), Seq(1), true).unwrap();
        let held = Arc::new(Held::default());
        held.hold(guard);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let socket = Socket::new(stream, Bytes::new(), held, Arc::default(), stall);
        Scene { socket, _client: client, tail }
    }

    fn visible(&self) -> u64 {
        self.tail.topic().sight().visible.0
    }
}

#[tokio::test]
async fn events_show_when_the_reply_was_flushed_and_not_when_it_was_written_into_a_buffer() {
    let mut scene = Scene::new(NEVER).await;
    scene.socket.write_all(b"a reply").await.unwrap();
    assert_eq!(scene.visible(), 0);
    scene.socket.flush().await.unwrap();
    assert_eq!(scene.visible(), 1);
}

#[tokio::test]
async fn events_show_when_the_connection_ends() {
    let Scene { socket, tail, .. } = Scene::new(NEVER).await;
    assert_eq!(tail.topic().sight().visible, Seq(0));
    drop(socket);
    assert_eq!(tail.topic().sight().visible, Seq(1));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_events_back_only_briefly() {
    let Scene { mut socket, tail, _client } = Scene::new(NEVER).await;
    let shown = async {
        loop {
            let wake = tail.topic().wake();
            tokio::pin!(wake);
            wake.as_mut().enable();
            if tail.topic().sight().visible == Seq(1) {
                return;
            }
            wake.await;
        }
    };
    let flood = vec![0; 64 << 20];
    tokio::select! {
        error = socket.write_all(&flood) => panic!("nobody reads: {error:?}"),
        () = shown => {}
    }
}

#[tokio::test]
async fn a_write_without_progress_fails_and_the_next_one_has_its_own_time() {
    let mut scene = Scene::new(Duration::from_millis(50)).await;
    for _ in 0..2 {
        let stalled = scene.socket.write_all(&vec![0; 64 << 20]).await;
        assert_eq!(stalled.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn what_was_read_before_comes_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b" and after").await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let begun = Bytes::from_static(b"before");
    let mut socket = Socket::new(stream, begun, Arc::default(), Arc::default(), NEVER);
    let mut seen = [0; 16];
    socket.read_exact(&mut seen[..3]).await.unwrap();
    socket.read_exact(&mut seen[3..]).await.unwrap();
    assert_eq!(&seen, b"before and after");
}

/// Closes a socket into which a client writes `bytes`; what the client got, and how its writing
/// ended.
async fn close_under(bytes: usize) -> (Vec<u8>, io::Result<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let unread = Arc::new(Unread::default());
    unread.leave();
    let mut socket = Socket::new(stream, Bytes::new(), Arc::default(), unread, NEVER);
    let (mut reader, mut writer) = client.into_split();
    let send = tokio::spawn(async move {
        writer.write_all(&vec![0; bytes]).await?;
        writer.shutdown().await
    });
    socket.write_all(b"no").await.unwrap();
    socket.shutdown().await.unwrap();
    drop(socket);
    let sent = send.await.unwrap();
    let mut got = Vec::new();
    // A reset takes with it what was not read before.
    let _ = reader.read_to_end(&mut got).await;
    (got, sent)
}

#[tokio::test]
async fn a_client_whose_body_was_left_gets_its_answer_while_it_still_sends() {
    let (got, sent) = close_under(LINGER_BYTES_MAX / 2).await;
    assert_eq!(got, b"no");
    sent.unwrap();
}

#[tokio::test]
async fn a_client_that_sends_without_end_is_cut() {
    let (_, sent) = close_under(8 * LINGER_BYTES_MAX).await;
    assert!(sent.is_err(), "it was taken to the end");
}
