//! Receivers of HTTP requests: one engine, and a preset for each kind of receiver.
//!
//! A preset says how alerts become a request and what the answer means; the engine does the rest: TLS, credentials, limits,
//! several requests at a time, isolating the one alert that spoils a batch.
//!
//! Guarantees: redirects are not followed; no address is connected to that [`guard`](super::guard) refuses; an answer is read
//! up to 64 KiB; no proxy is used that the configuration does not name (what stands behind a proxy is the proxy's to check). A
//! reason never shows a path, a query or a credential of a URL, because that is where chat services keep theirs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use detectors::event::time::Nanos;
use detectors::level::Level;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url, redirect};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::transport::{Batch, Item, Outcome};
use super::{guard, tls};
use crate::text;
use crate::units::Secret;

mod alertmanager;
mod answer;
mod config;
mod falcosidekick;
mod loki;
mod opensearch;
mod otlp;
mod pagerduty;
mod preset;
#[cfg(test)]
mod receiver;
mod sign;
mod slack;
mod template;
mod webhook;

use answer::{Answer, Verdict};
use config::Credentials;
pub(super) use config::HttpOutput;
use preset::Receiver;

/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 << 10;
/// Connecting may take so long.
const CONNECT: Duration = Duration::from_secs(5);
/// An unused connection is closed after this time, before most receivers close it.
const IDLE: Duration = Duration::from_secs(30);

/// What is sent in one request.
#[derive(Debug, Clone, PartialEq)]
struct Payload {
    body: Vec<u8>,
    content_type: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Payload {
    fn json(body: impl Into<Vec<u8>>) -> Payload {
        let content_type = HeaderValue::from_static("application/json");
        Payload { body: body.into(), content_type, headers: Vec::new() }
    }
}

/// A receiver of HTTP requests.
#[derive(Debug)]
pub(crate) struct HttpSink {
    config: HttpOutput,
    engine: Arc<Engine>,
    concurrency: usize,
    /// Not before this moment may the next request begin.
    next: Instant,
}

/// What requests have in common.
#[derive(Debug)]
struct Engine {
    client: Client,
    targets: Vec<Url>,
    method: Method,
    receiver: Receiver,
    gzip: bool,
}

impl HttpSink {
    pub(super) fn new(output: &HttpOutput) -> Result<HttpSink> {
        let receiver = Receiver::new(output)?;
        let targets = output.targets()?;
        output.credentials()?;
        let engine = Engine {
            client: client(output, &targets)?,
            targets,
            method: output.method()?,
            receiver,
            gzip: output.gzip,
        };
        Ok(HttpSink {
            config: output.clone(),
            engine: Arc::new(engine),
            concurrency: output.concurrency(),
            next: Instant::now(),
        })
    }

    pub(super) fn batch(&self) -> Batch {
        Batch { concurrency: self.concurrency, ..self.config.preset.batch() }
    }

    pub(super) fn gives_up_after(&self) -> Option<Duration> {
        self.config.preset.gives_up_after()
    }

    /// Reads certificates anew.
    pub(super) fn reopen(&mut self) {
        match client(&self.config, &self.engine.targets) {
            Ok(client) => {
                let old = &*self.engine;
                self.engine = Arc::new(Engine {
                    client,
                    targets: old.targets.clone(),
                    method: old.method.clone(),
                    receiver: old.receiver.clone(),
                    gzip: old.gzip,
                });
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "an output's certificates could not be read anew"
            ),
        }
    }

    /// Sends alerts in as many requests as the preset needs. Once one is to be tried again no further one is begun: the
    /// receiver is down, and the others would only wait for the same timeout.
    pub(super) async fn send(&mut self, items: &[Arc<Item>]) -> Vec<Outcome> {
        let credentials = match self.config.credentials() {
            Ok(credentials) => Arc::new(credentials),
            Err(error) => return Outcome::retry(format!("{error:#}")).of_all(items.len()),
        };
        let share = self.config.preset.alerts_a_request().min(items.len()).max(1);
        let mut waiting = items.chunks(share).enumerate();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; items.len()];
        let mut running = JoinSet::new();
        let mut halted = None;
        loop {
            while halted.is_none() && running.len() < self.concurrency {
                let Some((place, chunk)) = waiting.next() else { break };
                self.pace().await;
                let (engine, credentials) = (Arc::clone(&self.engine), Arc::clone(&credentials));
                let chunk = chunk.to_vec();
                running.spawn(async move { (place * share, engine.deliver(&credentials, &chunk).await) });
            }
            match running.join_next().await {
                None => break,
                Some(Ok((start, done))) => {
                    if let Some(retry) = done.iter().find(|outcome| matches!(outcome, Outcome::Retry { .. }))
                    {
                        halted = Some(retry.clone());
                    }
                    for (place, outcome) in done.into_iter().enumerate() {
                        outcomes[start + place] = Some(outcome);
                    }
                }
                Some(Err(error)) => {
                    halted = Some(Outcome::retry(format!("the request was abandoned: {error}")));
                }
            }
        }
        let rest = halted.unwrap_or_else(|| Outcome::retry("not sent"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| rest.clone())).collect()
    }

    /// Waits until the receiver's own limit lets the next request through.
    async fn pace(&mut self) {
        if let Some(apart) = self.config.preset.apart() {
            tokio::time::sleep_until(self.next).await;
            self.next = Instant::now() + apart;
        }
    }
}

impl Engine {
    /// Sends alerts in one request, and if the receiver refuses that as a whole, each half by itself: one alert that it cannot
    /// take must not condemn the others.
    async fn deliver(&self, credentials: &Credentials, items: &[Arc<Item>]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; items.len()];
        let mut open: Vec<_> = std::iter::once(0..items.len()).collect();
        while let Some(range) = open.pop() {
            let verdict = self.call(credentials, &items[range.clone()]).await;
            match verdict {
                Verdict::Spoilt(_) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    open.extend([middle..range.end, range.start..middle]);
                }
                Verdict::All(outcome) | Verdict::Spoilt(outcome) => {
                    let is_down = matches!(outcome, Outcome::Retry { .. });
                    for place in range {
                        outcomes[place] = Some(outcome.clone());
                    }
                    if is_down {
                        return outcomes
                            .into_iter()
                            .map(|had| had.unwrap_or_else(|| outcome.clone()))
                            .collect();
                    }
                }
                Verdict::Each(each) => {
                    for (place, outcome) in range.zip(each) {
                        outcomes[place] = Some(outcome);
                    }
                }
            }
        }
        outcomes.into_iter().map(|outcome| outcome.expect("the ranges cover all items")).collect()
    }

    /// One request to every target. It is enough that one of them has the alerts: that is what several mean.
    async fn call(&self, credentials: &Credentials, items: &[Arc<Item>]) -> Verdict {
        let payload =
            match self.receiver.payload(items, credentials, now()).and_then(|payload| self.packed(payload)) {
                Ok(payload) => payload,
                Err(error) => return Verdict::Spoilt(Outcome::rejected(format!("{error:#}"))),
            };
        let mut best: Option<Verdict> = None;
        for target in &self.targets {
            let verdict = match self.post(target, credentials, &payload).await {
                Ok(answer) => self.receiver.verdict(&answer, items.len()),
                Err(reason) => Verdict::All(Outcome::retry(reason)),
            };
            if best.as_ref().is_none_or(|best| verdict.rank() > best.rank()) {
                best = Some(verdict);
            }
        }
        best.expect("an output has a target")
    }

    fn packed(&self, mut payload: Payload) -> Result<Payload> {
        if self.gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &payload.body).context("cannot compress the request")?;
            payload.body = encoder.finish().context("cannot compress the request")?;
            payload.headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        Ok(payload)
    }

    async fn post(
        &self,
        target: &Url,
        credentials: &Credentials,
        payload: &Payload,
    ) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, payload.content_type.clone());
        headers.extend(payload.headers.iter().cloned());
        // What the operator says wins over what the preset says.
        headers.extend(credentials.headers.iter().cloned());
        let request = self.client.request(self.method.clone(), target.clone()).headers(headers);
        let mut response = request.body(payload.body.clone()).send().await.map_err(explained)?;
        let after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| answer::pause(value, now()));
        let status = response.status();
        let mut body = Vec::new();
        while body.len() < LONGEST_ANSWER {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    body.extend_from_slice(&chunk[..chunk.len().min(LONGEST_ANSWER - body.len())]);
                }
                // The status is already the answer for most; a receiver whose body counts will not find it whole.
                Err(error) if status == StatusCode::OK => return Err(explained(error)),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(Answer { status, after, body })
    }
}

/// The HTTP client.
fn client(output: &HttpOutput, targets: &[Url]) -> Result<Client> {
    let proxy = output.proxy.as_ref().map(Secret::reveal).transpose().context("proxy")?;
    let is_encrypted = targets.iter().any(|target| target.scheme() == "https")
        || proxy.as_ref().is_some_and(|proxy| proxy.starts_with("https:"));
    // Where nothing is encrypted the system need not have any certificates.
    let tls = if is_encrypted { output.tls.client()? } else { tls::nobody()? };
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("lapwing/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .dns_resolver(guard::Guarded)
        .connect_timeout(CONNECT)
        .timeout(output.timeout())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(output.concurrency())
        .no_proxy();
    if let Some(proxy) = proxy {
        // The error would show the proxy's URL, and with it perhaps a password.
        let proxy = reqwest::Proxy::all(proxy)
            .map_err(|_| anyhow::anyhow!("proxy: this is no URL of a proxy; write http://HOST:PORT"))?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| anyhow::anyhow!("cannot build the HTTP client: {}", explained(error)))
}

/// What went wrong, without the URL: the innermost cause says most.
fn explained(error: reqwest::Error) -> String {
    let error = error.without_url();
    let doing = match () {
        () if error.is_timeout() => return "no answer in time".to_owned(),
        () if error.is_connect() => "cannot connect",
        () if error.is_body() || error.is_decode() => "the answer broke off",
        () => "the request failed",
    };
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("{doing}: {cause}")
}

/// What may be shown of a URL: where it leads, but neither who asks nor for what.
fn shown(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    text::for_terminal(&format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default()))
        .into_owned()
}

/// A level as PagerDuty and most users of Alertmanager name it.
fn severity(level: Level) -> &'static str {
    match level {
        Level::Informational | Level::Low => "info",
        Level::Medium => "warning",
        Level::High => "error",
        Level::Critical => "critical",
    }
}

/// The wall clock.
fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests;
