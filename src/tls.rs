//! The server's side of TLS: who we are, and who may come.
//!
//! Guarantees: TLS 1.2 and 1.3 only, no early data (a replayed request is no request), the provider named rather than
//! whatever the process has installed. Certificates are renewed while running: a pair of files that cannot be used leaves
//! the old one in force.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto::ring};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::units::Text;

/// How a listener shows who it is, and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsServer {
    /// A PEM file with the certificate and those between it and the CA. It may hold the key as well.
    pub(crate) cert: Text,
    /// A PEM file with the private key. By default it is looked for in the file of the certificate.
    pub(crate) key: Option<Text>,
    /// A PEM file with the CAs that sign clients' certificates. With it a client without a certificate is refused.
    pub(crate) client_ca: Option<Text>,
    /// The clients that may come: each name is compared with the subject alternative names of the client's certificate (DNS
    /// names, URIs, addresses, e-mail), or with its common name if it has none. Without names, whoever the CA has signed.
    #[serde(default)]
    pub(crate) allowed_names: Vec<String>,
}

/// No file of certificates is larger than this: a bundle of all public CAs takes a quarter of a megabyte.
const LARGEST_FILE: u64 = 4 << 20;

/// What errors call the settings.
const CERT: &str = "tls.cert";
const KEY: &str = "tls.key";
const CLIENT_CA: &str = "tls.client_ca";

/// What is in force at the moment.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    expires: Option<SystemTime>,
    /// Digest of the files that it was made of.
    digest: [u8; 32],
}

/// A listener's identity, renewed when its files change.
#[derive(Debug)]
pub(crate) struct Identity {
    settings: TlsServer,
    protocols: Vec<Vec<u8>>,
    current: watch::Sender<Arc<Current>>,
}

/// The bytes of the files.
struct Files {
    cert: Vec<u8>,
    key: Option<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Identity {
    /// Reads the files. `protocols` are offered by ALPN, the best first.
    ///
    /// # Errors
    /// A file cannot be read, is no PEM, or the key does not belong to the certificate.
    pub(crate) fn load(settings: TlsServer, protocols: &[&[u8]]) -> Result<Identity> {
        ensure!(
            settings.client_ca.is_some() || settings.allowed_names.is_empty(),
            "tls.allowed_names without tls.client_ca lets nobody in: name the CA that signs the clients' certificates"
        );
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let files = Files::read(&settings)?;
        let current = files.build(&settings, &protocols)?;
        Ok(Identity { settings, protocols, current: watch::Sender::new(Arc::new(current)) })
    }

    /// What a new connection is to use.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow().config)
    }

    /// When the certificate ends, if that can be read from it.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.current.borrow().expires
    }

    /// Looks whether the files have changed, and takes the new ones if they can be used. Says whether it took them.
    ///
    /// # Errors
    /// The new files cannot be used; the old certificate stays.
    pub(crate) fn renew(&self) -> Result<bool> {
        let files = Files::read(&self.settings)?;
        if files.digest() == self.current.borrow().digest {
            return Ok(false);
        }
        let current = files.build(&self.settings, &self.protocols)?;
        self.current.send_replace(Arc::new(current));
        Ok(true)
    }

    /// Whether the client with this certificate, which the CA has signed, is one of those that may come.
    pub(crate) fn admits(&self, certificate: Option<&CertificateDer<'_>>) -> bool {
        let allowed = &self.settings.allowed_names;
        allowed.is_empty() || certificate.is_some_and(|certificate| has_name(certificate, allowed))
    }
}

impl Files {
    fn read(settings: &TlsServer) -> Result<Files> {
        let maybe = |path: &Option<Text>| path.as_ref().map(|path| read(&path.0)).transpose();
        Ok(Files {
            cert: read(&settings.cert.0).context(CERT)?,
            key: maybe(&settings.key).context(KEY)?,
            client_ca: maybe(&settings.client_ca).context(CLIENT_CA)?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for file in [Some(&self.cert), self.key.as_ref(), self.client_ca.as_ref()] {
            let file = file.map_or(&[][..], Vec::as_slice);
            digest.update((file.len() as u64).to_le_bytes());
            digest.update(file);
        }
        digest.finalize().into()
    }

    fn build(&self, settings: &TlsServer, protocols: &[Vec<u8>]) -> Result<Current> {
        let cert = &settings.cert.0;
        let chain = certificates(&self.cert, cert).context(CERT)?;
        let expires = not_after(&chain[0]);
        let (key, file, named) = match (&self.key, &settings.key) {
            (Some(key), Some(path)) => (key, &path.0, KEY),
            _ => (&self.cert, cert, "tls.cert, since there is no tls.key"),
        };
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| describe(&error, file, "an unencrypted private key (PKCS#8, PKCS#1 or SEC1)"))
            .context(named)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .context("TLS cannot be set up")?;
        let builder = match (&self.client_ca, &settings.client_ca) {
            (Some(pem), Some(path)) => {
                let roots = Arc::new(roots(pem, &path.0).context(CLIENT_CA)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .with_context(|| format!("{CLIENT_CA}: the CAs in {} cannot be used", path.0))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).with_context(|| {
            format!("tls: the certificate in {cert} and the key in {file} cannot be used together")
        })?;
        config.alpn_protocols = protocols.to_vec();
        config.max_early_data_size = 0;
        Ok(Current { config: Arc::new(config), expires, digest: self.digest() })
    }
}

fn read(path: &str) -> Result<Vec<u8>> {
    let length = fs::metadata(path).with_context(|| format!("cannot read {path}"))?.len();
    ensure!(length <= LARGEST_FILE, "{path} is too large for a file of certificates");
    fs::read(path).with_context(|| format!("cannot read {path}"))
}

fn certificates(pem: &[u8], path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| describe(&error, path, "certificates"))?;
    ensure!(
        !chain.is_empty(),
        "{path} holds no certificate: it must be PEM, with `-----BEGIN CERTIFICATE-----`"
    );
    Ok(chain)
}

fn roots(pem: &[u8], path: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).with_context(|| format!("a CA in {path} cannot be used"))?;
    }
    Ok(roots)
}

/// The reason without the file's content, which may be a key.
fn describe(error: &PemError, path: &str, wanted: &str) -> anyhow::Error {
    match error {
        PemError::NoItemsFound => anyhow::anyhow!("{path} does not hold {wanted}"),
        PemError::Io(error) if error.kind() != ErrorKind::Other => {
            anyhow::anyhow!("cannot read {path}: {error}")
        }
        _ => anyhow::anyhow!("{path} is damaged: it must be PEM and hold {wanted}"),
    }
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().validity().not_after.to_system_time())
}

/// Whether one of the names is the certificate's. One that cannot be read has none.
fn has_name(certificate: &CertificateDer<'_>, allowed: &[String]) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    let certificate = certificate.tbs_certificate();
    match certificate.get_extension::<SubjectAltName>() {
        Ok(Some((_, names))) => {
            names.0.iter().any(|name| allowed.iter().any(|allowed| is_name(name, allowed)))
        }
        Ok(None) => match certificate.subject().common_name() {
            Ok(Some(name)) => allowed.iter().any(|allowed| *allowed == name.value()),
            _ => false,
        },
        Err(_) => false,
    }
}

fn is_name(name: &GeneralName, allowed: &str) -> bool {
    match name {
        GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) => {
            name.as_str().eq_ignore_ascii_case(allowed)
        }
        GeneralName::UniformResourceIdentifier(name) => name.as_str() == allowed,
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let address = <[u8; 4]>::try_from(octets)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
            address.is_ok_and(|address| allowed.parse() == Ok(address))
        }
        _ => false,
    }
}
