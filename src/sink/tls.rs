//! TLS towards receivers: which certificates are believed, and which one is shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::BuilderVerifierExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of `ca`, `cert` and `key`")]
pub(crate) struct Tls {
    /// Certificates of the authorities that are believed, PEM. By default those of the system; if given, only these.
    pub(crate) ca: Option<PathBuf>,
    /// The certificate that is shown to the receiver, with its chain, PEM.
    pub(crate) cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub(crate) key: Option<PathBuf>,
}

impl Tls {
    /// What the TLS library needs to know.
    ///
    /// # Errors
    /// A file cannot be read or holds no certificate or key, or the system has no certificates.
    pub(super) fn client(&self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("tls: no version of the protocol is possible")?;
        let builder = match &self.ca {
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None => builder.with_platform_verifier().context(
                "tls: the system's certificates cannot be used; name a file of authorities with `tls: {ca: PATH}`",
            )?,
        };
        self.identified(builder)
    }

    fn identified(
        &self,
        builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig> {
        let (cert, key) = match (&self.cert, &self.key) {
            (None, None) => return Ok(builder.with_no_client_auth()),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => bail!("tls: `cert` needs its private key: add `key`"),
            (None, Some(_)) => bail!("tls: `key` needs its certificate: add `cert`"),
        };
        let private = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("tls.key: cannot read a private key (PEM) from {}", key.display()))?;
        builder
            .with_client_auth_cert(certificates("tls.cert", cert)?, private)
            .with_context(|| format!("tls: {} and {} do not belong together", cert.display(), key.display()))
    }
}

/// What a client is told that never speaks TLS: nobody is believed.
pub(super) fn nobody() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("tls: no version of the protocol is possible")?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn authorities(path: &Path) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("tls.ca", path)? {
        store
            .add(certificate)
            .with_context(|| format!("tls.ca: {} holds something that is no authority", path.display()))?;
    }
    Ok(store)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = || format!("{key}: cannot read certificates (PEM) from {}", path.display());
    let found = CertificateDer::pem_file_iter(path).with_context(unreadable)?;
    let found = found.collect::<Result<Vec<_>, _>>().with_context(unreadable)?;
    if found.is_empty() {
        bail!("{key}: {} holds no certificate; PEM is expected", path.display());
    }
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::net::SocketAddr;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream;

    use super::*;

    /// An authority, a server `localhost` and a client, in files.
    pub(in crate::sink) struct Pki {
        folder: TempDir,
    }

    impl Pki {
        pub(in crate::sink) fn new() -> Pki {
            let folder = tempfile::tempdir().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
            for (file, name) in [("server", "localhost"), ("client", "lapwing")] {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
                let certificate = params.signed_by(&key, &ca).unwrap();
                fs::write(folder.path().join(format!("{file}.pem")), certificate.pem()).unwrap();
                fs::write(folder.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
            }
            Pki { folder }
        }

        pub(in crate::sink) fn path(&self, name: &str) -> String {
            self.folder.path().join(name).display().to_string()
        }

        /// A server that wants a certificate of every client.
        pub(in crate::sink) fn acceptor(&self) -> TlsAcceptor {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let roots = Arc::new(authorities(Path::new(&self.path("ca.pem"))).unwrap());
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().unwrap();
            let chain = certificates("tls.cert", Path::new(&self.path("server.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
                .unwrap();
            TlsAcceptor::from(Arc::new(config))
        }

        /// One that takes any request.
        pub(in crate::sink) async fn serve_http(&self) -> SocketAddr {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, acceptor) = (listener.local_addr().unwrap(), self.acceptor());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(stream).await;
                    }
                }
            });
            address
        }
    }

    async fn answer(mut stream: TlsStream<TcpStream>) {
        let mut got = Vec::new();
        let mut space = [0; 4_096];
        while !got.ends_with(b"}") {
            match stream.read(&mut space).await {
                Ok(0) | Err(_) => return,
                Ok(length) => got.extend_from_slice(&space[..length]),
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        let _ = stream.shutdown().await;
    }
}
