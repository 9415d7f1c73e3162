//! Events over HTTP: the API server's audit webhook, Falco and falcosidekick, shippers.
//!
//! Guarantees, and what each rests on:
//!
//! - *200 means handled.* A body is answered after the lane said that what it caused is durable. What the lane cannot take in
//!   time is answered 503 with `Retry-After`, and may come again: its alerts have the same uuids.
//! - *A bad item is not retried for ever.* The API server sends a refused batch five times and then drops it, so a body that
//!   is no JSON is answered 200 as well; the lane has put it into the dead letters by then.
//! - *Nobody can starve the others.* Heads, bodies, whole requests and idle connections have their time; connections are
//!   limited, and the one that has shown the least gives way to a new one ([`door`]); bytes are paid for before they are
//!   read ([`body`]).
//! - *Nobody gets in by accident.* Beyond loopback, TLS and authentication are needed, or somebody has said `insecure`.

mod body;
mod door;
mod request;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::source::{Room, Sender};
use crate::telemetry::Telemetry;
use crate::tls::{Identity, TlsServer};
use crate::units::{Secret, Size, Span, Text};

/// An HTTP intake.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpConfig {
    /// The input's name, as alerts and metrics show it.
    pub(crate) name: String,
    /// Address and port to listen on.
    #[serde(default = "listen")]
    pub(crate) listen: Text,
    /// Where events are posted to. One more segment names the cluster: `/k8s-audit/prod`. `/` is taken as well.
    #[serde(default = "path")]
    pub(crate) path: String,
    /// TLS, with or without clients' certificates.
    pub(crate) tls: Option<TlsServer>,
    /// Bearer tokens; a request must carry one of them. With clients' certificates as well, both are needed.
    #[serde(default)]
    pub(crate) tokens: Vec<Secret>,
    /// Listen beyond loopback without TLS or without authentication.
    #[serde(default)]
    pub(crate) insecure: bool,
    /// The largest body, before and after decompression.
    #[serde(default = "max_body")]
    pub(crate) max_body: Size,
    /// How many connections may be open.
    #[serde(default = "max_connections")]
    pub(crate) max_connections: u32,
    /// How many of them one address may have (for IPv6, one /64).
    #[serde(default = "max_connections_per_peer")]
    pub(crate) max_connections_per_peer: u32,
    /// How long a client may take.
    #[serde(default)]
    pub(crate) timeouts: Timeouts,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// For the TLS handshake, and for the head of a request from its first byte.
    pub(crate) header: Span,
    /// Between two pieces of a body.
    pub(crate) body: Span,
    /// From a request's head to its answer.
    pub(crate) total: Span,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Timeouts { header: seconds(5), body: seconds(10), total: seconds(30) }
    }
}

fn listen() -> Text {
    Text("127.0.0.1:9765".to_owned())
}

fn path() -> String {
    "/k8s-audit".to_owned()
}

fn max_body() -> Size {
    Size(32 << 20)
}

fn max_connections() -> u32 {
    256
}

fn max_connections_per_peer() -> u32 {
    16
}

/// How often the files of certificates and tokens are looked at.
const RENEWAL: Duration = Duration::from_secs(5);

/// When to stop: `None` until then, afterwards the instant at which everything must have ended. A sender that is gone means
/// at once.
pub(crate) type Stop = watch::Receiver<Option<Instant>>;

impl HttpConfig {
    /// An intake with the defaults.
    pub(crate) fn new(name: &str, listen: &str) -> HttpConfig {
        HttpConfig {
            name: name.to_owned(),
            listen: Text(listen.to_owned()),
            path: path(),
            tls: None,
            tokens: Vec::new(),
            insecure: false,
            max_body: max_body(),
            max_connections: max_connections(),
            max_connections_per_peer: max_connections_per_peer(),
            timeouts: Timeouts::default(),
        }
    }

    /// The address to listen on, if everything that can be judged without the world is in order.
    ///
    /// # Errors
    /// A value cannot be, or the listener would be open to everybody.
    pub(crate) fn check(&self) -> Result<SocketAddr> {
        let name = &self.name;
        let address: SocketAddr = self.listen.0.parse().ok().with_context(|| {
            format!("input `{name}`: `{}` is no address to listen on: write 127.0.0.1:9765", self.listen.0)
        })?;
        ensure!(
            self.path.starts_with('/') && !self.path.contains(['?', '#', '%', ' ']),
            "input `{name}`: `{}` is no path: write one such as /k8s-audit",
            self.path
        );
        ensure!(
            (1..=1 << 30).contains(&self.max_body.0),
            "input `{name}`: max_body must lie between one byte and 1GiB"
        );
        ensure!(
            self.max_connections > 0 && self.max_connections_per_peer > 0,
            "input `{name}`: max_connections and max_connections_per_peer must be at least 1"
        );
        let Timeouts { header, body, total } = self.timeouts;
        ensure!(
            [header, body, total].iter().all(|span| (1..=3600).contains(&span.0.as_secs())),
            "input `{name}`: timeouts must lie between one second and one hour"
        );
        self.check_open(address)?;
        Ok(address)
    }

    /// Reads certificates, keys and tokens as [`start`] does.
    ///
    /// # Errors
    /// One of them cannot be used: its key, and why.
    pub(crate) fn check_keys(&self) -> Result<()> {
        Keys::load(self).map(|_| ())
    }

    /// Refuses what would let anybody in.
    fn check_open(&self, address: SocketAddr) -> Result<()> {
        if self.insecure || is_loopback(address.ip()) {
            return Ok(());
        }
        let certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let missing = match (self.tls.is_some(), certificates || !self.tokens.is_empty()) {
            (true, true) => return Ok(()),
            (false, true) => "TLS (`tls: {cert, key}`)",
            (true, false) => "authentication (`tls.client_ca` or `tokens`)",
            (false, false) => "TLS (`tls: {cert, key}`) and authentication (`tls.client_ca` or `tokens`)",
        };
        bail!(
            "input `{}`: {address} can be reached from outside, where anybody could post events: add {missing}, listen on \
             127.0.0.1, or set `insecure: true` if something else protects it",
            self.name
        );
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// What a client must show. Renewed while running.
#[derive(Debug)]
struct Keys {
    input: Arc<str>,
    identity: Option<Identity>,
    tokens: Vec<Secret>,
    /// Digests of the tokens: equally long, so that a comparison tells nothing about length.
    digests: watch::Sender<Arc<[[u8; 32]]>>,
}

impl Keys {
    fn load(config: &HttpConfig) -> Result<Keys> {
        let name = || format!("input `{}`", config.name);
        let identity = config.tls.clone().map(|tls| Identity::load(tls, &[b"h2", b"http/1.1"]));
        let identity = identity.transpose().with_context(name)?;
        let digests = watch::Sender::new(digests(&config.tokens).with_context(name)?);
        Ok(Keys { input: config.name.as_str().into(), identity, tokens: config.tokens.clone(), digests })
    }

    /// Looks at the files again. What cannot be used leaves the old in force.
    fn renew(&self) -> Result<()> {
        let tokens = digests(&self.tokens).map(|digests| {
            self.digests.send_if_modified(|old| {
                let changed = *old != digests;
                *old = digests;
                changed
            })
        });
        let certificate = self.identity.as_ref().map_or(Ok(false), Identity::renew);
        if certificate? {
            tracing::info!(input = %self.input, "took the new certificate");
        }
        if tokens? {
            tracing::info!(input = %self.input, "took the new tokens");
        }
        Ok(())
    }

    /// Whether the token is one of ours. Takes the same time whichever it is.
    fn knows(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let digests = self.digests.borrow();
        digests.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&digest)).into()
    }
}

fn digests(tokens: &[Secret]) -> Result<Arc<[[u8; 32]]>> {
    let digest = |(at, token): (usize, &Secret)| {
        let token = token.reveal().with_context(|| format!("tokens[{at}]"))?;
        ensure!(!token.is_empty(), "tokens[{at}] is empty, which would let in whoever sends none");
        Ok(Sha256::digest(token).into())
    };
    tokens.iter().enumerate().map(digest).collect()
}

/// What all connections of an intake share.
#[derive(Debug)]
struct Intake {
    config: HttpConfig,
    input: Arc<str>,
    sender: Sender,
    room: Room,
    stop: Stop,
    keys: Arc<Keys>,
    telemetry: Arc<Telemetry>,
}

/// An intake at work.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Where it listens: the port that was given if 0 was asked for.
    pub(crate) address: SocketAddr,
    /// Ends when everything has been answered after a stop; the intake's ends of the channel are closed then.
    pub(crate) task: JoinHandle<()>,
    keys: Arc<Keys>,
}

impl Listening {
    /// Where events are posted to.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.keys.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The input's name.
    pub(crate) fn input(&self) -> &str {
        &self.keys.input
    }

    /// Looks at the files of certificates and tokens now rather than in a few seconds.
    ///
    /// # Errors
    /// New ones cannot be used; the old ones stay in force.
    pub(crate) fn reload(&self) -> Result<()> {
        self.keys.renew().with_context(|| format!("input `{}`: the old keys stay in force", self.keys.input))
    }

    /// When the certificate ends.
    pub(crate) fn certificate_expires(&self) -> Option<SystemTime> {
        self.keys.identity.as_ref().and_then(Identity::expires)
    }
}

/// Starts an intake: from now on, what is posted comes out of the channel.
///
/// # Errors
/// The configuration cannot be, a file cannot be read, or the address cannot be listened on.
pub(crate) async fn start(
    config: HttpConfig,
    sender: Sender,
    room: Room,
    stop: Stop,
    telemetry: Arc<Telemetry>,
) -> Result<Listening> {
    let address = config.check()?;
    let input: Arc<str> = config.name.as_str().into();
    let keys = Arc::new(Keys::load(&config)?);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("input `{input}`: cannot listen on {address}"))?;
    let address = listener.local_addr().with_context(|| format!("input `{input}`"))?;
    tracing::info!(%input, %address, tls = config.tls.is_some(), "listening for events");
    let intake = Intake { config, input, sender, room, stop, keys: Arc::clone(&keys), telemetry };
    let task = tokio::spawn(run(listener, Arc::new(intake)));
    Ok(Listening { address, task, keys })
}

async fn run(listener: TcpListener, intake: Arc<Intake>) {
    let renewal = tokio::spawn(renew(Arc::clone(&intake.keys)));
    door::keep(listener, intake).await;
    renewal.abort();
}

/// Looks at the files every few seconds. One failure is said once, not every few seconds.
async fn renew(keys: Arc<Keys>) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(RENEWAL).await;
        let keys = Arc::clone(&keys);
        let input = Arc::clone(&keys.input);
        let result = tokio::task::spawn_blocking(move || keys.renew()).await;
        match result {
            Ok(Err(error)) => {
                let error = format!("{error:#}");
                if error != said {
                    tracing::warn!(%input, %error, "new keys cannot be used; the old ones stay in force");
                    said = error;
                }
            }
            _ => said.clear(),
        }
    }
}

/// When it is time to stop, the instant by which all must have ended.
async fn stopping(mut stop: Stop) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}
