//! Health, readiness, metrics and reload, on a listener of their own.
//!
//! Guarantees:
//!
//! - It answers whatever happens to the intake: nothing is shared with that but the process. One request a connection,
//!   [`GUESTS`] connections; when they are all taken, the oldest goes to make room for the newest, so that connections that
//!   are opened and left alone cannot keep a probe out.
//! - Everything here can be read by anybody who reaches the listener, and says nothing of an event. What changes something,
//!   `POST /-/reload`, is for loopback peers only, and not for a browser there.
//! - `/healthz` says whether the lane turns, `/readyz` whether it does its work. A run that waits for a full spool is not
//!   ready but healthy: starting it anew would help nobody.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::telemetry::{self, Telemetry};
use crate::text::for_terminal;
use crate::units::Text;

#[cfg(test)]
mod tests;

/// Connections at a time.
const GUESTS: usize = 32;
/// How long a peer may take to say what it wants.
const HEAD: Duration = Duration::from_secs(5);
/// The size of what it may say: the least that hyper allows.
const HEAD_BYTES: usize = 8 << 10;
/// And how many headers.
const HEADERS: usize = 64;
/// How long a reload may take before whoever asked is told to look at the log instead.
const RELOAD: Duration = Duration::from_secs(20);
/// A connection's whole life.
const WHOLE: Duration = Duration::from_secs(30);
/// A lane that has not turned for so long stands still.
const STILL: Duration = Duration::from_secs(30);
/// The pause after a connection could not be taken, mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The section `server` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of settings")]
pub(crate) struct Server {
    /// The address for `/healthz`, `/readyz` and `/metrics`. They can be read by whoever reaches it; `POST /-/reload`
    /// answers loopback peers only.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "String")]
    pub(crate) listen: SocketAddr,
}

impl Default for Server {
    fn default() -> Server {
        Server { listen: SocketAddr::from(([127, 0, 0, 1], 9468)) }
    }
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let Text(text) = Text::deserialize(from)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("`{text}` is no address and port: write 127.0.0.1:9468 or [::]:9468"))
    })
}

/// The lane's pulse: it touches this each time it turns, also when there is nothing to do.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    start: Instant,
    /// Milliseconds since `start`.
    touched: Arc<AtomicU64>,
}

impl Heartbeat {
    /// One that was touched just now.
    pub(crate) fn new() -> Heartbeat {
        Heartbeat { start: Instant::now(), touched: Arc::default() }
    }

    /// The lane turns.
    pub(crate) fn touch(&self) {
        self.touched.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long ago it turned.
    pub(crate) fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.touched.load(Ordering::Relaxed)))
    }
}

/// Why the run does not do its work at the moment.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    reasons: Arc<Mutex<BTreeSet<Cow<'static, str>>>>,
    /// The consumer groups of inputs, and how they are.
    groups: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// Until detectors are loaded.
    pub(crate) const DETECTORS: &'static str = "the detectors are not loaded yet";
    /// Until the inputs are open.
    pub(crate) const INPUTS: &'static str = "the inputs are not open yet";
    /// While the spool of an output is full and inputs are not read.
    pub(crate) const SPOOL: &'static str = "the spool of an output is full";
    /// While nothing can be made durable.
    pub(crate) const DISK: &'static str = "the state directory cannot be written";
    /// While the state directory is not in its place.
    pub(crate) const STATE: &'static str = "the state directory was removed or replaced";
    /// While the topic of matches does not take them, and inputs are not read.
    pub(crate) const MATCHES: &'static str = "the topic of matches cannot be written";
    /// From the signal to the end.
    pub(crate) const STOPPING: &'static str = "the run is stopping";

    /// Not ready: neither detectors nor inputs are there.
    pub(crate) fn new() -> Readiness {
        let readiness = Readiness { reasons: Arc::default(), groups: Arc::default() };
        readiness.set(Readiness::DETECTORS, false);
        readiness.set(Readiness::INPUTS, false);
        readiness
    }

    /// Until it is durable where an input begins.
    pub(crate) fn position(input: &str) -> String {
        format!("it is not yet kept where {} begins", for_terminal(input))
    }

    /// While an input reads nothing because no broker is reached, or its group does not have it as a member.
    fn member(input: &str) -> String {
        format!("{} reads nothing: see its group", for_terminal(input))
    }

    /// Says that a reason holds, or with `ok` that it does not. The text is what `/readyz` shows, so a reason that depends on
    /// an output or an input names it: `the spool of sidekick is full`.
    pub(crate) fn set(&self, reason: impl Into<Cow<'static, str>>, ok: bool) {
        let reason = reason.into();
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if ok {
            reasons.remove(&reason);
        } else {
            reasons.insert(reason);
        }
    }

    /// Says how the consumer group of an input is, and whether the input reads, as far as that is up to the group and known.
    pub(crate) fn group(&self, input: &str, state: String, reads: Option<bool>) {
        if let Some(reads) = reads {
            self.set(Readiness::member(input), reads);
        }
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(input.to_owned(), state);
    }

    /// The reasons that hold, in alphabetical order. None: ready.
    pub(crate) fn reasons(&self) -> Vec<Cow<'static, str>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Somebody asks for a reload; the answer is what changed, or why everything stays as it was.
pub(crate) type Reload = oneshot::Sender<Result<String, String>>;

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Where.
    pub(crate) address: SocketAddr,
    /// Ends after the stop.
    pub(crate) task: JoinHandle<()>,
}

/// What requests are answered from.
#[derive(Debug)]
struct House {
    telemetry: Arc<Telemetry>,
    readiness: Readiness,
    heartbeat: Heartbeat,
    reload: mpsc::Sender<Reload>,
}

/// Begins to listen. It goes on until `stop` is true or its other end is gone: that should be the last thing to go, so that
/// probes see how the run stops.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn start(
    config: &Server,
    telemetry: Arc<Telemetry>,
    readiness: Readiness,
    heartbeat: Heartbeat,
    reload: mpsc::Sender<Reload>,
    stop: watch::Receiver<bool>,
) -> Result<Listening> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {} for health and metrics: another program may; `server.listen` can be changed",
            config.listen
        )
    })?;
    let address = listener.local_addr().context("cannot tell the address of the listener")?;
    let house = Arc::new(House { telemetry, readiness, heartbeat, reload });
    Ok(Listening { address, task: tokio::spawn(listen(listener, house, stop)) })
}

async fn listen(listener: TcpListener, house: Arc<House>, mut stop: watch::Receiver<bool>) {
    let mut guests = Guests::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error says that the other end is gone.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => guests.admit(stream, peer, &house),
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection for health and metrics");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Open connections, the oldest first. They end when this is dropped.
#[derive(Debug, Default)]
struct Guests {
    tasks: JoinSet<()>,
    queue: VecDeque<Guest>,
}

#[derive(Debug)]
struct Guest {
    task: AbortHandle,
    /// Waits for a reload, and is not shown the door.
    staying: Arc<AtomicBool>,
}

impl Guests {
    /// Serves a connection; the oldest one goes if there are too many.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, house: &Arc<House>) {
        while self.tasks.try_join_next().is_some() {}
        self.queue.retain(|guest| !guest.task.is_finished());
        if self.queue.len() >= GUESTS {
            let oldest = self.queue.iter().position(|guest| !guest.staying.load(Ordering::Relaxed));
            // Reloads are few and short; should they ever fill the house, the newcomer has to go.
            let Some(guest) = oldest.and_then(|oldest| self.queue.remove(oldest)) else { return };
            guest.task.abort();
        }
        let staying = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(serve(stream, peer, Arc::clone(house), Arc::clone(&staying)));
        self.queue.push_back(Guest { task, staying });
    }
}

/// One connection: one request, one answer.
async fn serve(stream: TcpStream, peer: SocketAddr, house: Arc<House>, staying: Arc<AtomicBool>) {
    let service = service_fn(|request| {
        let (house, staying) = (Arc::clone(&house), Arc::clone(&staying));
        async move { Ok::<_, Infallible>(answer(&request, peer, &house, &staying).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new()) // without it the next line does nothing
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(WHOLE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection for health and metrics broke off"),
        Err(_) => tracing::debug!(%peer, "a connection for health and metrics took too long"),
    }
}

async fn answer(
    request: &Request<Incoming>,
    peer: SocketAddr,
    house: &House,
    staying: &AtomicBool,
) -> Response<Full<Bytes>> {
    let wanted = if request.uri().path() == "/-/reload" { Method::POST } else { Method::GET };
    // HEAD is GET without the body, which the connection leaves out by itself.
    let given = if *request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    match request.uri().path() {
        "/healthz" | "/readyz" | "/metrics" | "/-/reload" if given != wanted => {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("use {wanted}\n"));
            let allow = if wanted == Method::POST { "POST" } else { "GET, HEAD" };
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            answer
        }
        "/healthz" => health(&house.heartbeat),
        "/readyz" => ready(&house.readiness, &house.heartbeat),
        "/metrics" => typed(StatusCode::OK, telemetry::MEDIA_TYPE, house.telemetry.encode(SystemTime::now())),
        // A page in a browser on this machine is a loopback peer too; browsers say where a POST comes from.
        "/-/reload" if !peer.ip().to_canonical().is_loopback() || request.headers().contains_key(ORIGIN) => {
            plain(StatusCode::FORBIDDEN, "a reload can be asked for from this machine only\n".to_owned())
        }
        "/-/reload" => {
            staying.store(true, Ordering::Relaxed);
            reloaded(&house.reload).await
        }
        _ => plain(StatusCode::NOT_FOUND, "there are /healthz, /readyz, /metrics and /-/reload\n".to_owned()),
    }
}

fn health(heartbeat: &Heartbeat) -> Response<Full<Bytes>> {
    let age = heartbeat.age();
    if age < STILL {
        return plain(StatusCode::OK, "ok\n".to_owned());
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("the lane has stood still for {} s\n", age.as_secs()))
}

fn ready(readiness: &Readiness, heartbeat: &Heartbeat) -> Response<Full<Bytes>> {
    let mut reasons = readiness.reasons();
    if heartbeat.age() >= STILL {
        reasons.push("the lane stands still".into());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = serde_json::json!({"ready": reasons.is_empty(), "reasons": reasons});
    let groups = readiness.groups.lock().unwrap_or_else(PoisonError::into_inner);
    if !groups.is_empty() {
        body["groups"] = serde_json::json!(*groups);
    }
    drop(groups);
    typed(status, "application/json", format!("{body}\n"))
}

/// Asks for a reload and waits for its end.
async fn reloaded(reload: &mpsc::Sender<Reload>) -> Response<Full<Bytes>> {
    let (sender, receiver) = oneshot::channel();
    if reload.try_send(sender).is_err() {
        let busy = "another reload is under way, or the run is stopping\n".to_owned();
        let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, busy);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return answer;
    }
    match timeout(RELOAD, receiver).await {
        Ok(Ok(Ok(changed))) => plain(StatusCode::OK, format!("{changed}\n")),
        Ok(Ok(Err(why))) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        Ok(Err(_)) => plain(StatusCode::SERVICE_UNAVAILABLE, "the run is stopping\n".to_owned()),
        Err(_) => {
            plain(StatusCode::GATEWAY_TIMEOUT, "the reload goes on; the log says how it ends\n".to_owned())
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
