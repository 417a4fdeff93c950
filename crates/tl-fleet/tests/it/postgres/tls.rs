//! The way to the database, encrypted: a real server with a certificate of an authority made here.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tl_fleet::postgres::{PostgresOptions, PostgresStore};
use tl_fleet::{Store, StoreError};

use super::server::{self, Server};
use crate::conformance::{claim_one, completed, finish, numbered, submit};

struct Encrypted {
    port: u16,
    folder: TempDir,
    _server: Server,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Its certificate is made out to `localhost`.
fn start() -> Encrypted {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    let (ours, another) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    write("server.pem", params.signed_by(&key, &ours).unwrap().pem());
    write("server.key", key.serialize_pem());
    write("ours.pem", ours.pem());
    write("another.pem", another.pem());
    // Postgres runs as another user.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = server::start_with_tls(port, folder.path());
    Encrypted { port, folder, _server: server }
}

impl Encrypted {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self, host: &str, mode: &str, root: Option<&Path>) -> PostgresOptions {
        let root = root.map(|file| format!("&sslrootcert={}", file.display())).unwrap_or_default();
        let port = self.port;
        let url = format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}{root}");
        PostgresOptions::parse(&url).unwrap()
    }
}

/// Whether the server says that the connection is encrypted.
async fn is_encrypted(options: &PostgresOptions) -> Result<bool, StoreError> {
    let client = PostgresStore::connection(options).await?;
    let asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(client.query_one(asked, &[]).await.unwrap().get(0))
}

#[tokio::test]
async fn connections_are_as_encrypted_as_the_address_says() {
    let server = start();
    let (ours, another) = (server.file("ours.pem"), server.file("another.pem"));
    let (ours, another) = (Some(ours.as_path()), Some(another.as_path()));
    for (host, mode, root, encrypted) in [
        ("127.0.0.1", "disable", None, false),
        ("127.0.0.1", "prefer", None, true),
        ("127.0.0.1", "require", None, true),
        ("127.0.0.1", "verify-ca", ours, true),
        ("localhost", "verify-full", ours, true),
    ] {
        let found = is_encrypted(&server.options(host, mode, root)).await;
        assert_eq!(found.unwrap(), encrypted, "{mode} at {host}");
    }
    for (host, mode, root) in [
        ("127.0.0.1", "verify-full", ours),
        ("localhost", "verify-full", another),
        ("localhost", "verify-ca", another),
        // As libpq has it: with authorities named, `require` asks for one of them.
        ("localhost", "require", another),
    ] {
        let refused = is_encrypted(&server.options(host, mode, root)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{mode} at {host}");
    }
    // A server that does not speak it is not spoken to.
    let plain = format!("{} sslmode=require", server::server().url());
    let refused = is_encrypted(&PostgresOptions::parse(&plain).unwrap()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_work_is_done_over_encrypted_connections_alone() {
    let server = start();
    let options = server.options("localhost", "verify-full", Some(&server.file("ours.pem")));
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(options.clone()).await.unwrap());
    let mut wakes = store.wakes();
    submit(&store, numbered(1)).await;
    wakes.changed().await.unwrap();
    let large = format!("\"{}\"", "r".repeat(1_000_000));
    finish(&store, claim_one(&store).await.key, completed(&large)).await;
    assert_eq!(store.counts().await.unwrap().value.completed, 1);
    let looker = PostgresStore::connection(&options).await.unwrap();
    let asked = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl
                 JOIN pg_stat_activity USING (pid) WHERE backend_type = 'client backend'";
    let row = looker.query_one(asked, &[]).await.unwrap();
    let (all, encrypted): (i64, i64) = (row.get(0), row.get(1));
    assert!(all >= 2 && all == encrypted, "{encrypted} of {all}");
}
