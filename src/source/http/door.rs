//! Who is in: the accept loop, the connections that are open, and how long each may stay.
//!
//! A connection is *busy* while a request of its is being read or answered; it is never closed for another then. In any other
//! state it may have to give way: first those that have not had a request answered yet, the oldest first; then idle ones, the
//! longest idle first. So connections that say nothing cost a good client nothing but the chance to be taken for one of
//! them, and that only between its connecting and its first request.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::request::{Caller, answer};
use super::{Intake, Timeouts, stopping};

/// How long a connection may stay without a request. Longer than the API server's and most clients' own limit (90 s), so that
/// they close first and no request meets a closing connection.
const IDLE: Duration = Duration::from_mins(2);
/// How long idle connections stay when the intake stops: a request on one of them is told to come again, rather than cut off.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the loop rests when the system has no descriptor, or no memory, for another connection.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How often the loop's troubles are said.
const REPEAT: Duration = Duration::from_secs(10);
/// The most that the head of a request may take.
const HEAD: usize = 16 << 10;
/// What a peer with too many busy connections gets, if there is no TLS to be spoken first.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It shakes hands, or has begun the head of a request.
    Head,
    /// So many of its requests are being read or answered.
    Busy(u32),
    /// It waits for the next request.
    Idle,
}

/// What a connection is doing, and has done.
#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
    /// A request of its has been answered.
    proven: bool,
}

/// One open connection, as the table and its requests see it.
#[derive(Debug)]
pub(super) struct Line {
    peer: IpAddr,
    state: watch::Sender<State>,
    evicted: Notify,
    changed: Arc<Notify>,
}

/// A request at work: the connection is busy until this is dropped.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Line);

impl Line {
    fn enter(&self, phase: impl FnOnce(Phase) -> Phase) {
        self.state.send_modify(|state| {
            state.phase = phase(state.phase);
            state.since = Instant::now();
        });
    }

    /// A request has come.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.enter(|phase| {
            if let Phase::Busy(requests) = phase { Phase::Busy(requests + 1) } else { Phase::Busy(1) }
        });
        Busy(self)
    }

    /// The first bytes after a rest begin a request.
    fn heard(&self) {
        if self.state.borrow().phase == Phase::Idle {
            self.enter(|phase| if phase == Phase::Idle { Phase::Head } else { phase });
        }
    }

    /// Returns when the connection has been too long at what it does.
    async fn overdue(&self, timeouts: &Timeouts) {
        let mut states = self.state.subscribe();
        loop {
            let State { phase, since, .. } = *states.borrow_and_update();
            let limit = match phase {
                Phase::Head => timeouts.header.0,
                // The request's own limits come first; this is for one that does not take its answer.
                Phase::Busy(_) => timeouts.total.0 + timeouts.header.0,
                Phase::Idle => IDLE,
            };
            tokio::select! {
                () = tokio::time::sleep_until(since + limit) => return,
                _ = states.changed() => {}
            }
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| {
            state.phase = match state.phase {
                Phase::Busy(requests @ 2..) => Phase::Busy(requests - 1),
                _ => Phase::Idle,
            };
            state.since = Instant::now();
            state.proven = true;
        });
        self.0.changed.notify_one();
    }
}

/// The connections that are open.
#[derive(Debug)]
struct Table {
    most: usize,
    most_per_peer: usize,
    lines: Mutex<BTreeMap<u64, Arc<Line>>>,
    changed: Arc<Notify>,
}

/// A connection's place in the table, given back when this is dropped.
#[derive(Debug)]
struct Seat {
    table: Arc<Table>,
    id: u64,
    line: Arc<Line>,
}

/// Why there is no seat.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    /// All connections are busy.
    All,
    /// All connections of this peer are busy.
    Peer,
}

impl Table {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Line>>> {
        // Every change to the table is one call, so a panic leaves it whole.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a new connection, for which another one may have to go.
    fn seat(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, Full> {
        let peer = network(peer);
        let mut lines = self.lines();
        if lines.values().filter(|line| line.peer == peer).count() >= self.most_per_peer
            && !evict(&mut lines, |line| line.peer == peer)
        {
            return Err(Full::Peer);
        }
        if lines.len() >= self.most && !evict(&mut lines, |_| true) {
            return Err(Full::All);
        }
        let state = State { phase: Phase::Head, since: Instant::now(), proven: false };
        let line = Arc::new(Line {
            peer,
            state: watch::Sender::new(state),
            evicted: Notify::new(),
            changed: Arc::clone(&self.changed),
        });
        let id = lines.last_key_value().map_or(0, |(last, _)| last + 1);
        lines.insert(id, Arc::clone(&line));
        Ok(Seat { table: Arc::clone(self), id, line })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut lines = self.table.lines();
        // The id may be another's if this connection was evicted.
        if lines.get(&self.id).is_some_and(|line| Arc::ptr_eq(line, &self.line)) {
            lines.remove(&self.id);
        }
        drop(lines);
        self.table.changed.notify_one();
    }
}

/// Closes the connection that has shown the least, if there is one that is not busy.
fn evict(lines: &mut BTreeMap<u64, Arc<Line>>, may: impl Fn(&Line) -> bool) -> bool {
    let candidates = lines.iter().filter(|(_, line)| may(line)).filter_map(|(id, line)| {
        let State { phase, since, proven } = *line.state.borrow();
        (!matches!(phase, Phase::Busy(_))).then_some((proven, since, *id))
    });
    let Some((.., id)) = candidates.min() else { return false };
    if let Some(line) = lines.remove(&id) {
        line.evicted.notify_one();
    }
    true
}

/// Whom an address belongs to: an IPv6 host has a whole /64 to choose its addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (!0 << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

/// The same trouble said once in a while.
#[derive(Debug, Default)]
struct Said(Option<Instant>);

impl Said {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= REPEAT);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Lets connections in until it is time to stop, then sees them out.
pub(super) async fn keep(listener: TcpListener, intake: Arc<Intake>) {
    let table = Arc::new(Table {
        most: intake.config.max_connections as usize,
        most_per_peer: intake.config.max_connections_per_peer as usize,
        lines: Mutex::default(),
        changed: Arc::default(),
    });
    let mut crew = JoinSet::new();
    let mut stop = pin!(stopping(intake.stop.clone()));
    let (mut refused, mut exhausted) = (Said::default(), Said::default());
    let deadline = loop {
        tokio::select! {
            biased;
            deadline = &mut stop => break deadline,
            Some(_) = crew.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => {
                    let seat = tokio::select! {
                        deadline = &mut stop => break deadline,
                        seat = admit(&table, address.ip()) => seat,
                    };
                    if let Some(seat) = seat {
                        crew.spawn(attend(socket, address.ip(), seat, Arc::clone(&intake)));
                    } else {
                        turn_away(&socket, &intake);
                        if refused.is_due() {
                            let (input, peer) = (&intake.input, address.ip());
                            tracing::warn!(%input, %peer, "all connections that one peer may have are busy: refused another; \
                                max_connections_per_peer sets the limit");
                        }
                    }
                }
                Err(error) => if is_exhaustion(&error) {
                    evict(&mut table.lines(), |_| true);
                    if exhausted.is_due() {
                        tracing::warn!(input = %intake.input, %error, "cannot take new connections at the moment");
                    }
                    tokio::time::sleep(EXHAUSTED).await;
                },
            }
        }
    };
    drop(listener);
    let all = async { while crew.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline, all).await.is_err() {
        crew.shutdown().await;
    }
}

/// Waits for a seat; `None` if the peer has too many already.
async fn admit(table: &Arc<Table>, peer: IpAddr) -> Option<Seat> {
    loop {
        let changed = table.changed.notified();
        match table.seat(peer) {
            Ok(seat) => return Some(seat),
            Err(Full::Peer) => return None,
            Err(Full::All) => changed.await,
        }
    }
}

/// Whether the error is about the process rather than about one connection that broke before it was taken.
fn is_exhaustion(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Tells a peer to come again, as far as that goes without waiting for it.
fn turn_away(socket: &TcpStream, intake: &Intake) {
    intake.telemetry.intake(&intake.input, 503, Duration::ZERO);
    if intake.keys.identity.is_none() {
        // A new socket's buffer is empty, so this does not block; if it fails, the peer sees the connection close.
        let _ = rustix::io::write(socket, TOO_MANY);
    }
}

/// One connection from beginning to end.
async fn attend(socket: TcpStream, peer: IpAddr, seat: Seat, intake: Arc<Intake>) {
    // Answers are small; waiting to fill a packet would only delay them.
    let _ = socket.set_nodelay(true);
    let line = Arc::clone(&seat.line);
    let timeouts = intake.config.timeouts;
    tokio::select! {
        () = line.evicted.notified() => {}
        () = line.overdue(&timeouts) => {}
        () = converse(socket, peer, &line, intake) => {}
    }
}

/// Shakes hands if there is TLS, then serves requests.
async fn converse(socket: TcpStream, peer: IpAddr, line: &Arc<Line>, intake: Arc<Intake>) {
    let caller = |admitted| Caller {
        peer: peer.to_canonical(),
        admitted,
        line: Arc::clone(line),
        intake: Arc::clone(&intake),
    };
    let Some(identity) = &intake.keys.identity else {
        return serve(socket, caller(true), false).await;
    };
    match TlsAcceptor::from(identity.config()).accept(socket).await {
        Ok(stream) => {
            let (_, session) = stream.get_ref();
            let certificate = session.peer_certificates().and_then(<[_]>::first);
            let admitted = identity.admits(certificate);
            let http2 = session.alpn_protocol() == Some(b"h2");
            line.enter(|_| Phase::Head);
            serve(stream, caller(admitted), http2).await;
        }
        Err(error) => intake.telemetry.handshake_failed(&intake.input, peer, &error),
    }
}

/// Serves requests until the connection ends. When it is time to stop, a busy connection answers what it has; an idle one stays
/// a moment longer.
async fn serve<S>(stream: S, caller: Caller, http2: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stop = caller.intake.stop.clone();
    let stream = TokioIo::new(Heard { stream, line: (!http2).then(|| Arc::clone(&caller.line)) });
    let caller = Arc::new(caller);
    let service = service_fn(move |request| {
        let caller = Arc::clone(&caller);
        async move { Ok::<_, std::convert::Infallible>(answer(&caller, request).await) }
    });
    let builder = protocol(http2);
    let mut connection = pin!(builder.serve_connection(stream, service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping(stop) => {}
    }
    if tokio::time::timeout(FAREWELL, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// HTTP/1 or HTTP/2, never guessed from what comes: guessing waits for bytes without a limit. HTTP/2 has its flood limits
/// (resets, continuations) from `h2` itself.
fn protocol(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without the timer, hyper's own limits are silently off. They stand behind those of `Line::overdue`.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(HEAD as u32)
        .max_pending_accept_reset_streams(20)
        .max_send_buf_size(64 << 10)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20);
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

/// A stream that tells its line when something comes. HTTP/2 has frames that belong to no request, so it tells nothing there.
struct Heard<S> {
    stream: S,
    line: Option<Arc<Line>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, into);
        if let (Some(line), true) = (&self.line, into.filled().len() > before) {
            line.heard();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
