//! Mutual TLS: both ends show a certificate of the cluster's authority that names their node.
//!
//! The name is a DNS name made of the node's id, [`node_name`]. The id is not its first label, so
//! that no wildcard can stand for more than one node. A node's certificate serves for both
//! directions: if it says what its key may be used for, it must say client and server.
//!
//! TLS 1.3 alone; sessions are not resumed, so every connection looks at certificate and date.
//! The files are read again every so often, and what is in them holds from the next connection
//! on. Files that do not fit together, which happens while they are being replaced, change
//! nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tl_types::ids::NodeId;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Largest certificate or key file, bytes. One past: refused.
pub const CERTIFICATE_BYTES_MAX: u64 = 1024 * 1024;

/// The name that a node's certificate carries as a subject alternative name.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("node.{node}.throughline.internal")
}

/// Where a node's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificates of the cluster's authority, PEM. Several during a change of authority.
    pub authority: PathBuf,
    /// This node's certificate and what lies between it and the authority, PEM.
    pub certificate: PathBuf,
    /// The certificate's private key, PEM.
    pub key: PathBuf,
}

/// Why a node's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} {why}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate belongs to another node.
    #[error("{} does not name this node: its name must be {name}", file.display())]
    Name {
        /// The file.
        file: PathBuf,
        /// The name that it lacks.
        name: String,
    },
    /// Certificate, key and authority do not fit together.
    #[error("certificate, key and authority do not fit together")]
    Fit {
        /// Why.
        source: rustls::Error,
    },
}

/// What both ends of new connections use.
struct Context {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Contents {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A node's certificate as it was last read.
pub(super) struct Certificates {
    files: CertificateFiles,
    node: NodeId,
    current: Mutex<(Contents, Arc<Context>)>,
}

impl Certificates {
    pub(super) fn load(
        files: CertificateFiles,
        node: NodeId,
    ) -> Result<Certificates, CertificateError> {
        let contents = read(&files)?;
        let context = context(&files, node, &contents)?;
        Ok(Certificates { files, node, current: Mutex::new((contents, Arc::new(context))) })
    }

    /// Reads the files again; true when they have changed, and then they hold from now on.
    pub(super) fn look(&self) -> Result<bool, CertificateError> {
        let contents = read(&self.files)?;
        if self.current.lock().0 == contents {
            return Ok(false);
        }
        let context = context(&self.files, self.node, &contents)?;
        *self.current.lock() = (contents, Arc::new(context));
        Ok(true)
    }

    /// Speaks first; the other end must be `node`.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        node: NodeId,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = self.current.lock().1.connector.clone();
        Ok(connector.connect(server_name(node), stream).await?.into())
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = self.current.lock().1.acceptor.clone();
        Ok(acceptor.accept(stream).await?.into())
    }
}

/// Whether the certificate that the other end has shown names this node.
pub(super) fn names(stream: &TlsStream<TcpStream>, node: NodeId) -> bool {
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    shown.is_some_and(|certificate| certificate_names(certificate, node))
}

fn certificate_names(certificate: &CertificateDer<'_>, node: NodeId) -> bool {
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &server_name(node)).is_ok())
}

fn server_name(node: NodeId) -> ServerName<'static> {
    ServerName::try_from(node_name(node)).expect("hexadecimal digits and words make a DNS name")
}

fn read(files: &CertificateFiles) -> Result<Contents, CertificateError> {
    Ok(Contents {
        authority: read_file(&files.authority)?,
        certificate: read_file(&files.certificate)?,
        key: read_file(&files.key)?,
    })
}

fn read_file(file: &Path) -> Result<Vec<u8>, CertificateError> {
    use io::Read;
    let failed = |source| CertificateError::Read { file: file.to_owned(), source };
    let mut content = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(CERTIFICATE_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > CERTIFICATE_BYTES_MAX {
        let why = format!("is larger than {CERTIFICATE_BYTES_MAX} bytes");
        return Err(CertificateError::Content { file: file.to_owned(), why });
    }
    Ok(content)
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |why: String| CertificateError::Content { file: file.to_owned(), why };
    let list = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("is no PEM: {error}")))?;
    if list.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok(list)
}

fn context(
    files: &CertificateFiles,
    node: NodeId,
    contents: &Contents,
) -> Result<Context, CertificateError> {
    let fit = |source| CertificateError::Fit { source };
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.authority, &contents.authority)? {
        roots.add(root).map_err(fit)?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&files.certificate, &contents.certificate)?;
    if !certificate_names(&chain[0], node) {
        let name = node_name(node);
        return Err(CertificateError::Name { file: files.certificate.clone(), name });
    }
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| {
        CertificateError::Content { file: files.key.clone(), why: format!("holds no key: {error}") }
    })?;

    // Named here rather than installed for the process: a library does not choose for others.
    let provider = Arc::new(ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(fit)?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .map_err(fit)?;
    client.resumption = Resumption::disabled();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| fit(rustls::Error::General(error.to_string())))?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(fit)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(fit)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Context {
        connector: TlsConnector::from(Arc::new(client)),
        acceptor: TlsAcceptor::from(Arc::new(server)),
    })
}
