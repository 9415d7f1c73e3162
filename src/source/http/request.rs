//! One request: who asks for what, what is done with it, what is answered.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout_at};

use super::body::{self, Limits, PATIENCE, Whole};
use super::door::Line;
use super::{Intake, stopping};
use crate::source::{Batch, Delivery};

/// Kubernetes names are no longer than this.
const LONGEST_CLUSTER: usize = 253;
/// When an overloaded intake, or the next process, should be asked again, in seconds.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("1");
/// Requests are answered this much before everything must have ended, so that the answers still go out.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Who asks.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peer: IpAddr,
    /// Its certificate, if one is needed, is one of those that may come.
    pub(super) admitted: bool,
    pub(super) line: Arc<Line>,
    pub(super) intake: Arc<Intake>,
}

/// Why a request is not taken. The reason never holds a part of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: &'static str,
}

impl Refusal {
    pub(super) const TOO_LARGE: Refusal = Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "the body is too large, or expands too far: max_body sets the limit",
    );
    pub(super) const SLOW: Refusal = Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request took too long");
    pub(super) const BAD_GZIP: Refusal = Refusal::new(StatusCode::BAD_REQUEST, "the gzip body is damaged");
    pub(super) const OVERLOAD: Refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "more has come than can be taken at the moment: try again",
    );
    const NOT_HANDLED: Refusal =
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the events could not be made durable: try again");
    const STOPPING: Refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping: try again");

    pub(super) const fn new(status: StatusCode, reason: &'static str) -> Refusal {
        Refusal { status, reason }
    }
}

/// Answers a request.
pub(super) async fn answer(caller: &Caller, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let intake = &caller.intake;
    let busy = caller.line.busy();
    let version = request.version();
    let result = tokio::select! {
        biased;
        result = take(caller, request, started) => result,
        () = last_call(intake) => Err(Refusal::STOPPING),
    };
    let (mut response, code) = match result {
        Ok(()) => (Response::new(Full::default()), StatusCode::OK),
        Err(refusal) => (refuse(refusal), refusal.status),
    };
    if version <= Version::HTTP_11 && (is_stopping(intake) || closes(code)) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    drop(busy);
    intake.telemetry.intake(&intake.input, code.as_u16(), started.elapsed());
    response
}

/// The moment at which answers must be given, whatever they are.
async fn last_call(intake: &Intake) {
    let deadline = stopping(intake.stop.clone()).await;
    tokio::time::sleep_until(deadline.checked_sub(LAST_WORDS).unwrap_or(deadline)).await;
}

fn is_stopping(intake: &Intake) -> bool {
    intake.stop.borrow().is_some() || intake.stop.has_changed().is_err()
}

/// Refusals after which the connection is of no use to an honest client, and a nuisance with any other.
fn closes(code: StatusCode) -> bool {
    matches!(
        code,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::BAD_REQUEST
    )
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{}\n", refusal.reason)));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let (name, value) = match refusal.status {
        StatusCode::SERVICE_UNAVAILABLE => (RETRY_AFTER, COME_AGAIN),
        StatusCode::METHOD_NOT_ALLOWED => (ALLOW, HeaderValue::from_static("POST")),
        StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        _ => return response,
    };
    headers.insert(name, value);
    response
}

/// Takes the events in, and waits until they have been handled.
async fn take(caller: &Caller, request: Request<Incoming>, started: Instant) -> Result<(), Refusal> {
    let intake = &caller.intake;
    let timeouts = intake.config.timeouts;
    let deadline = started + timeouts.total.0;
    let limits = Limits { bytes: intake.config.max_body.0 as usize, idle: timeouts.body.0 };
    let (head, body) = request.into_parts();
    let wanted = examine(caller, &head.method, head.uri.path(), &head.headers);
    let (cluster, gzip) = match wanted {
        Ok(wanted) => wanted,
        Err(refusal) => {
            tokio::spawn(body::drain(body, limits));
            return Err(refusal);
        }
    };
    let whole = timeout_at(deadline, body::read(body, gzip, limits, &intake.room))
        .await
        .unwrap_or(Err(Refusal::SLOW))?;
    hand_over(caller, cluster, whole, deadline).await
}

/// Which cluster the events are of, and whether the body is compressed, if the request is one that may be made.
fn examine(
    caller: &Caller,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(Option<Arc<str>>, bool), Refusal> {
    if is_stopping(&caller.intake) {
        return Err(Refusal::STOPPING);
    }
    authenticate(caller, headers)?;
    let cluster = cluster(&caller.intake.config.path, path)?;
    if method != Method::POST {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "events are posted"));
    }
    check_type(headers)?;
    Ok((cluster.map(Arc::from), is_gzip(headers)?))
}

fn authenticate(caller: &Caller, headers: &HeaderMap) -> Result<(), Refusal> {
    if !caller.admitted {
        let reason = "the client certificate has none of the names in tls.allowed_names";
        return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    }
    let keys = &caller.intake.keys;
    if keys.tokens.is_empty() {
        return Ok(());
    }
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
    });
    match bearer {
        Some(token) if keys.knows(token) => Ok(()),
        Some(_) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "the bearer token is not one of ours")),
        None => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "a bearer token is needed: Authorization: Bearer TOKEN",
        )),
    }
}

/// The cluster that the path names. Falco posts to wherever its URL says, so the root is taken as well.
fn cluster<'a>(own: &str, path: &'a str) -> Result<Option<&'a str>, Refusal> {
    if path == "/" {
        return Ok(None);
    }
    let unknown = Refusal::new(StatusCode::NOT_FOUND, "nothing is taken at this path");
    let rest = path.strip_prefix(own.trim_end_matches('/')).ok_or(unknown)?;
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Ok(None),
        Some("") => Ok(None),
        None => Err(unknown),
        Some(name) => {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            // Receivers make folders and paths of names, where these two mean other places.
            if name.len() <= LONGEST_CLUSTER && name.bytes().all(is_name) && !matches!(name, "." | "..") {
                Ok(Some(name))
            } else {
                let reason = "the path names no cluster: 1 to 253 of A-Z a-z 0-9 . _ -, and neither . nor ..";
                Err(Refusal::new(StatusCode::NOT_FOUND, reason))
            }
        }
    }
}

/// Types that shippers give to JSON and to lines of JSON; Falco says `text/plain` unless told otherwise.
const TYPES: [&str; 10] = [
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/json-lines",
    "application/stream+json",
    "application/octet-stream",
    "text/json",
    "text/plain",
];

fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let given = given.to_str().unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() || TYPES.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let reason = "this type is not taken: send application/json, application/x-ndjson or text/plain";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let unknown =
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this encoding is not taken: send gzip, or none");
    let encoding = match (encodings.next(), encodings.next()) {
        (None, _) => return Ok(false),
        (Some(encoding), None) => encoding.to_str().map_err(|_| unknown)?.trim(),
        _ => return Err(unknown),
    };
    if encoding.eq_ignore_ascii_case("gzip") || encoding.eq_ignore_ascii_case("x-gzip") {
        Ok(true)
    } else if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        Ok(false)
    } else {
        Err(unknown)
    }
}

/// Gives the body to the lane and waits for its word.
async fn hand_over(
    caller: &Caller,
    cluster: Option<Arc<str>>,
    whole: Whole,
    deadline: Instant,
) -> Result<(), Refusal> {
    let intake = &caller.intake;
    let (reply, handled) = oneshot::channel();
    let patience = deadline.min(Instant::now() + PATIENCE);
    let place = timeout_at(patience, intake.sender.reserve()).await.map_err(|_| Refusal::OVERLOAD)?;
    place.map_err(|_| Refusal::STOPPING)?.send(Delivery::Batch(Batch {
        input: Arc::clone(&intake.input),
        stream: format!("http://{}/{}", intake.input, caller.peer).into(),
        offset: 0,
        bytes: whole.bytes,
        last: true,
        cluster,
        position: None,
        reply: Some(reply),
        room: Some(whole.room),
    }));
    match timeout_at(deadline, handled).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Refusal::NOT_HANDLED),
        Err(_) => Err(Refusal::OVERLOAD),
    }
}
