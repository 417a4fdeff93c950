//! Encryption on the way to the database, as its address asks for it.
//!
//! | `sslmode` | encrypted | whose certificate |
//! |---|---|---|
//! | absent, `disable`, `allow` | no | |
//! | `prefer` | when the server can | anybody's |
//! | `require` | yes | anybody's; with `sslrootcert` as `verify-ca` |
//! | `verify-ca` | yes | signed by an authority in the file `sslrootcert` |
//! | `verify-full` | yes | that, and made out to the host's name |
//!
//! The words are libpq's and so is their meaning. TLS 1.3 alone; the handshake is always checked
//! against the certificate that was shown, whoever's it is.
//!
//! Absent on purpose: certificates of our own, and channel binding.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

pub(super) use self::asked::Asked;
use crate::error::InvalidInput;

mod asked;

/// Whose certificate will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Anybodys,
    OfTheAuthority,
    OfTheHost,
}

/// Makes encrypted connections, or none.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// What the address asked for, and how the driver is told. Reads the file of authorities.
    ///
    /// # Errors
    /// [`InvalidInput`] when it is not one of the words above, or the file is missing, not named,
    /// or holds no certificate.
    pub(super) fn new(asked: &Asked) -> Result<(Tls, SslMode), InvalidInput> {
        let has_root = asked.root.is_some();
        let (mode, whose) = match asked.mode.as_deref() {
            None | Some("disable" | "allow") => {
                return Ok((Tls { config: None }, SslMode::Disable));
            }
            Some("prefer") => (SslMode::Prefer, Whose::Anybodys),
            Some("require") if !has_root => (SslMode::Require, Whose::Anybodys),
            Some("require" | "verify-ca") => (SslMode::Require, Whose::OfTheAuthority),
            Some("verify-full") => (SslMode::Require, Whose::OfTheHost),
            Some(_) => {
                return Err(invalid(
                    "has an sslmode that is not disable, allow, prefer, require, verify-ca or \
                     verify-full",
                ));
            }
        };
        let roots = match (&asked.root, whose) {
            (_, Whose::Anybodys) => None,
            (Some(file), _) => Some(Arc::new(read_roots(Path::new(file))?)),
            (None, _) => {
                return Err(invalid(
                    "needs sslrootcert beside this sslmode: a file of the authorities to trust, \
                     for example /etc/ssl/certs/ca-certificates.crt",
                ));
            }
        };
        let config = client_config(whose, roots)
            .map_err(|error| invalid(format!("cannot be reached by TLS: {error}")))?;
        Ok((Tls { config: Some(Arc::new(config)) }, mode))
    }
}

fn invalid(problem: impl Into<String>) -> InvalidInput {
    InvalidInput::new("url", problem)
}

fn read_roots(file: &Path) -> Result<RootCertStore, InvalidInput> {
    let shown = file.display();
    let unreadable = |error: rustls::pki_types::pem::Error| {
        invalid(format!("names the sslrootcert {shown}, which cannot be read: {error}"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        // A bundle may hold some that nobody can use any more; those that are left count.
        roots.add_parsable_certificates([certificate]);
    }
    if roots.is_empty() {
        return Err(invalid(format!("names the sslrootcert {shown}, which holds no certificate")));
    }
    Ok(roots)
}

fn client_config(
    whose: Whose,
    roots: Option<Arc<RootCertStore>>,
) -> Result<ClientConfig, rustls::Error> {
    // Named here rather than installed for the process: a library does not choose for others.
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let chain = match roots {
        Some(roots) => {
            let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
            Some(built.build().map_err(|error| rustls::Error::General(error.to_string()))?)
        }
        None => None,
    };
    let verifier: Arc<dyn ServerCertVerifier> = match (whose, chain) {
        (Whose::OfTheHost, Some(chain)) => chain,
        (_, chain) => Arc::new(AnyName { chain, algorithms }),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Takes a certificate whatever name it bears; with a chain, one that leads to an authority.
#[derive(Debug)]
struct AnyName {
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last, when all else was found to be in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, io::Error> {
        // A socket in a folder has no name, and is never asked for TLS.
        let name = ServerName::try_from(domain.to_owned()).ok();
        Ok(Handshake { config: self.config.clone(), name })
    }
}

/// One connection about to be encrypted.
#[derive(Debug)]
pub(super) struct Handshake {
    config: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted, io::Error>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let (Some(config), Some(name)) = (self.config, self.name) else {
                return Err(io::Error::other("the host has no name that a certificate could bear"));
            };
            TlsConnector::from(config).connect(name, stream).await.map(Encrypted)
        })
    }
}

/// An encrypted connection.
#[derive(Debug)]
pub(super) struct Encrypted(tokio_rustls::client::TlsStream<Socket>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
