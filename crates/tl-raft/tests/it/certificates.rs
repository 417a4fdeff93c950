//! Mutual TLS: who shows which certificate, and what becomes of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tl_raft::transport::{
    Answer, CertificateError, CertificateFiles, Peers, Refusal, Security, Transport,
    TransportConfig, TransportError, Trouble, node_name,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::support::*;

/// An authority that signs certificates for nodes.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes what node `number` needs into a folder; good until that year.
    fn issue(&self, folder: &Path, number: u8, until_year: i32) -> CertificateFiles {
        self.issue_to(folder, node_name(seat(number).node), until_year)
    }

    fn issue_to(&self, folder: &Path, name: String, until_year: i32) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 1);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let files = CertificateFiles {
            authority: folder.join("authority.pem"),
            certificate: folder.join("node.pem"),
            key: folder.join("node.key"),
        };
        fs::write(&files.authority, self.0.pem()).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// The folder lives as long as the node may read it.
struct Certified {
    node: Node,
    folder: TempDir,
}

fn tls_config(number: u8, files: CertificateFiles) -> TransportConfig {
    let mut config = config(number);
    config.security = Security::MutualTls(files);
    config
}

fn start(number: u8, authority: &Authority, until_year: i32, peers: &Peers) -> Certified {
    let folder = TempDir::new().unwrap();
    let files = authority.issue(folder.path(), number, until_year);
    Certified { node: Node::start(tls_config(number, files), peers), folder }
}

/// Nodes 1 and 2 that call each other, under their authorities and dates.
fn both(one: (&Authority, i32), two: (&Authority, i32)) -> (Certified, Certified) {
    let first = start(1, one.0, one.1, &Peers::default());
    let second = start(2, two.0, two.1, &peers([peer(1, first.node.address())]));
    first.node.transport.set_peers(&peers([peer(2, second.node.address())])).unwrap();
    (first, second)
}

fn is_tls(trouble: Option<&Trouble>) -> bool {
    matches!(trouble, Some(Trouble::Tls { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_authority_speak_and_large_frames_pass() {
    let authority = Authority::new();
    let (mut one, mut two) = both((&authority, 2100), (&authority, 2100));
    one.node.connected(2).await;
    two.node.connected(1).await;
    let frames: Vec<Bytes> = (0..60).map(|number| numbered(number, 7 << (number % 20))).collect();
    for frame in &frames {
        one.node.send(2, frame.clone());
        two.node.send(1, frame.clone());
    }
    for frame in &frames {
        assert!(two.node.payload().await == frame);
        assert!(one.node.payload().await == frame);
    }
    two.node.transport.stop().await;
    one.node.until(2, |peer| peer.from_main.connected_since.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused_by_both_ends() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (mut one, mut two) = both((&ours, 2100), (&theirs, 2100));
    one.node.until(2, |peer| is_tls(peer.to_main.last_trouble.as_ref())).await;
    two.node.until(1, |peer| is_tls(peer.to_main.last_trouble.as_ref())).await;
    for node in [&mut one.node, &mut two.node] {
        until(|| (node.transport.status().refused.tls > 0).then_some(())).await;
        assert!(node.transport.status().refused.last_tls.is_some());
        assert_eq!(node.heard_so_far(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused_and_a_new_one_taken_up_while_running() {
    let authority = Authority::new();
    let (mut one, two) = both((&authority, 2100), (&authority, 2021));
    two.node.until(1, |peer| is_tls(peer.to_main.last_trouble.as_ref())).await;
    one.node.until(2, |peer| is_tls(peer.to_main.last_trouble.as_ref())).await;
    until(|| (one.node.transport.status().refused.tls > 0).then_some(())).await;

    // Half of a replacement is no certificate: the former one stays.
    let key = fs::read(two.folder.path().join("node.key")).unwrap();
    fs::write(two.folder.path().join("node.key"), "-----BEGIN").unwrap();
    two.node.transport.look_at_certificates();
    let status = two.node.transport.status();
    assert_eq!(status.certificates_reloaded, 0);
    let trouble = status.certificates_trouble.unwrap();
    assert!(trouble.contains("node.key holds no key"), "{trouble}");
    fs::write(two.folder.path().join("node.key"), key).unwrap();
    two.node.transport.look_at_certificates();
    assert_eq!(two.node.transport.status().certificates_trouble, None);

    authority.issue(two.folder.path(), 2, 2100);
    two.node.transport.look_at_certificates();
    assert_eq!(two.node.transport.status().certificates_reloaded, 1);
    two.node.connected(1).await;
    one.node.connected(2).await;
    two.node.send(1, &b"renewed"[..]);
    assert_eq!(one.node.payload().await, &b"renewed"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_are_seen_without_being_told() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let mut config = tls_config(1, authority.issue(folder.path(), 1, 2100));
    config.certificates_look_ms = 5;
    let node = Node::start(config, &Peers::default());
    authority.issue(folder.path(), 1, 2101);
    // Files of two replacements may be seen mixed, which is refused, and then together.
    until(|| {
        let status = node.transport.status();
        (status.certificates_reloaded > 0 && status.certificates_trouble.is_none()).then_some(())
    })
    .await;
    node.transport.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_at_the_address_is_not_spoken_to() {
    let authority = Authority::new();
    let three = start(3, &authority, 2100, &Peers::default());
    let mut one = start(1, &authority, 2100, &peers([peer(2, three.node.address())]));
    one.node.until(2, |peer| is_tls(peer.to_main.last_trouble.as_ref())).await;
    assert_eq!(one.node.status(2).to_main.connections, 0);
    assert_eq!(one.node.heard_so_far(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_whom_its_certificate_names_and_nobody_else() {
    let authority = Authority::new();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let one = start(1, &authority, 2100, &peers([peer(2, nowhere), peer(3, nowhere)]));
    let folder = TempDir::new().unwrap();
    let files = authority.issue(folder.path(), 3, 2100);
    for (says, certified) in [(2, false), (3, true)] {
        let mut stream = tls_by_hand(one.node.address(), &files).await;
        stream.write_all(&hello(says, 1).encode()).await.unwrap();
        stream.flush().await.unwrap();
        let said = answer(&mut stream).await;
        match certified {
            true => assert!(matches!(said, Some(Answer::Accepted { .. })), "{said:?}"),
            false => assert_eq!(said, Some(Answer::Refused(Refusal::WrongCertificate))),
        }
    }
    // Without TLS nothing is said at all.
    let (_stream, said) = call_plainly(one.node.address()).await;
    assert_eq!(said, None);
}

async fn call_plainly(address: std::net::SocketAddr) -> (TcpStream, Option<Answer>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello(3, 1).encode()).await.unwrap();
    // Whatever comes back (an alert of TLS) is no answer.
    let mut bytes = Vec::new();
    let _ = soon(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes)).await;
    (stream, Answer::decode(&bytes).unwrap_or(None).map(|(answer, _)| answer))
}

async fn tls_by_hand(
    address: std::net::SocketAddr,
    files: &CertificateFiles,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&files.certificate).unwrap()],
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        )
        .unwrap();
    let name = ServerName::try_from(node_name(seat(1).node)).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn a_node_does_not_start_with_what_it_could_not_use() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let started = |files: &CertificateFiles| {
        let config = tls_config(1, files.clone());
        match Transport::start(config, &Peers::default(), &Handle::current(), drop) {
            Err(TransportError::Certificates(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let of_another = authority.issue(folder.path(), 2, 2100);
    assert!(matches!(started(&of_another), CertificateError::Name { .. }));

    // A wildcard may stand for a label before the id, never for the id.
    for (name, good) in [
        ("*.throughline.internal".to_owned(), false),
        ("node.*.throughline.internal".to_owned(), false),
        (format!("*.{}.throughline.internal", seat(1).node), true),
    ] {
        let files = authority.issue_to(folder.path(), name, 2100);
        let config = tls_config(1, files);
        let started = Transport::start(config, &Peers::default(), &Handle::current(), drop);
        assert_eq!(started.is_ok(), good);
    }

    let good = authority.issue(folder.path(), 1, 2100);
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    fs::write(&good.key, other_key).unwrap();
    assert!(matches!(started(&good), CertificateError::Fit { .. }));

    for (file, content) in [(&good.certificate, ""), (&good.authority, "no PEM"), (&good.key, "")] {
        let former = fs::read(file).unwrap();
        fs::write(file, content).unwrap();
        assert!(matches!(started(&good), CertificateError::Content { .. }), "{}", file.display());
        fs::write(file, former).unwrap();
    }
    let large =
        vec![b'\n'; usize::try_from(tl_raft::transport::CERTIFICATE_BYTES_MAX).unwrap() + 1];
    fs::write(&good.key, large).unwrap();
    assert!(started(&good).to_string().contains("is larger than 1048576 bytes"));
    fs::remove_file(&good.key).unwrap();
    assert!(matches!(started(&good), CertificateError::Read { .. }));
}
