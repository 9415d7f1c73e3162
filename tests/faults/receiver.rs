//! A webhook that remembers every alert it was sent and whether it said so.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client;
use crate::process;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Takes everything.
    Accept,
    /// Takes everything, slowly.
    Slow(Duration),
    /// Nobody listens.
    Refuse,
    /// Takes connections and requests, and never answers.
    Hang,
    /// Resets every connection.
    Reset,
    /// Answers with this status, and a Retry-After of so many seconds.
    Status(u16, Option<u32>),
    /// Remembers the alert, then drops the connection.
    TakeAndDrop,
    /// Remembers the alert, answers half a status line, then drops the connection.
    TakeAndStammer,
    /// One request is taken, the next meets one of the faults above, as the dice fall.
    Moody,
}

/// An alert that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// Its id.
    pub(crate) uuid: String,
    /// All of it.
    pub(crate) alert: Value,
    /// When it was taken.
    pub(crate) at: Instant,
}

struct Shared {
    mode: Mutex<Mode>,
    taken: Mutex<Vec<Taken>>,
    connections: Mutex<Vec<TcpStream>>,
    dice: Mutex<fastrand::Rng>,
    ended: AtomicBool,
}

/// The receiver.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens at a port of its own.
    pub(crate) fn new(seed: u64) -> Receiver {
        let listener = process::listener();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Accept),
            taken: Mutex::default(),
            connections: Mutex::default(),
            dice: Mutex::new(fastrand::Rng::with_seed(seed ^ 0xd1ce)),
            ended: AtomicBool::new(false),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared, address, listener)
        });
        Receiver { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Behaves otherwise from now on. Connections from before are cut.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// What was taken so far.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// How much was taken so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.taken.lock().unwrap().len()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.set(Mode::Refuse);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// Accepts connections, and does not listen while nobody shall.
fn accept(shared: &Arc<Shared>, address: SocketAddr, first: TcpListener) {
    let mut listener = Some(first);
    while !shared.ended.load(Ordering::Relaxed) {
        let mode = *shared.mode.lock().unwrap();
        if mode == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            // The port may still be in the hands of a connection that is closing.
            listener = TcpListener::bind(address).ok();
        }
        let connection = listener.as_ref().and_then(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept().ok()
        });
        let Some((connection, _)) = connection else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        connection.set_nonblocking(false).unwrap();
        connection.set_nodelay(true).unwrap();
        let shared = Arc::clone(shared);
        {
            let mut open = shared.connections.lock().unwrap();
            open.push(connection.try_clone().unwrap());
            let excess = open.len().saturating_sub(1000);
            open.drain(..excess);
        }
        thread::spawn(move || serve(&shared, connection));
    }
}

fn serve(shared: &Shared, mut connection: TcpStream) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    loop {
        if *shared.mode.lock().unwrap() == Mode::Reset {
            // To close with bytes unread makes the kernel send a reset.
            let _ = connection.peek(&mut [0; 1]);
            return;
        }
        let Some(body) = request(&mut reader) else { return };
        let mode = shared.mode.lock().map(|mode| *mode).unwrap();
        let mode = if mode == Mode::Moody { mood(&mut shared.dice.lock().unwrap()) } else { mode };
        let answer = match mode {
            Mode::Accept => {
                shared.take(&body);
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            Mode::Slow(time) => {
                thread::sleep(time);
                shared.take(&body);
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            Mode::Status(status, after) => {
                let after = after.map_or_else(String::new, |after| format!("Retry-After: {after}\r\n"));
                format!("HTTP/1.1 {status} So\r\n{after}Content-Length: 0\r\n\r\n")
            }
            Mode::TakeAndDrop => {
                shared.take(&body);
                return;
            }
            Mode::TakeAndStammer => {
                shared.take(&body);
                let _ = connection.write_all(b"HTTP/1.1 20");
                return;
            }
            Mode::Hang => {
                // Until the other end, or a new mode, cuts the connection.
                let _ = reader.read(&mut [0; 1]);
                return;
            }
            Mode::Refuse | Mode::Reset | Mode::Moody => return,
        };
        if connection.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// What a moody receiver does to one request. It never hangs, because that takes the sender's patience and not its skill.
fn mood(dice: &mut fastrand::Rng) -> Mode {
    match dice.u8(0..10) {
        0 => Mode::Status(500, None),
        1 => Mode::Status(503, Some(0)),
        2 => Mode::Status(429, Some(0)),
        3 => Mode::TakeAndDrop,
        4 => Mode::TakeAndStammer,
        5 => Mode::Reset,
        _ => Mode::Accept,
    }
}

/// Reads a request and returns its body.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let head = client::head(reader)?;
    let length = head.iter().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(Some(0), |length| length.trim().parse().ok())?];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

impl Shared {
    fn take(&self, body: &[u8]) {
        let alert: Value = serde_json::from_slice(body).expect("alerts are JSON");
        let uuid = alert["uuid"].as_str().expect("alerts have a uuid").to_owned();
        self.taken.lock().unwrap().push(Taken { uuid, alert, at: Instant::now() });
    }
}
