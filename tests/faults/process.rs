//! The program under test, as a child that never outlives its test.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client;

/// Waiting longer than this for anything is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(soon(PATIENCE, &mut holds), "this did not come about in {PATIENCE:?}: {what}");
}

/// True once something holds, false if it does not in that time.
pub(crate) fn soon(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > time {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// An address at which nobody listens, and that is given out once.
pub(crate) fn free_address() -> SocketAddr {
    listener().local_addr().unwrap()
}

/// Who listens at an address that is given out once. It lies below the ports that the system gives to clients: while a listener
/// is down, one of those would soon be somebody's own end of a connection.
pub(crate) fn listener() -> TcpListener {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let port = 12_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
}

/// True if the suite was asked for its long part.
pub(crate) fn is_long() -> bool {
    std::env::var("LAPWING_FAULTS").is_ok_and(|part| part == "long")
}

/// One number here, another in the long part.
pub(crate) fn scaled<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// A running `lapwing run`.
pub(crate) struct Lapwing {
    child: Child,
    /// Where its listener for health and metrics is.
    pub(crate) server: SocketAddr,
}

impl Lapwing {
    /// Starts it; what it says goes to a file. With words before it, those are the program, and it is told what to run.
    pub(crate) fn start(before: &[String], arguments: &[String], server: SocketAddr, log: &Path) -> Lapwing {
        let binary = env!("CARGO_BIN_EXE_lapwing");
        let mut command = match before.split_first() {
            None => Command::new(binary),
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary);
                command
            }
        };
        let says = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child =
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(says).spawn().unwrap();
        Lapwing { child, server }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may just have ended.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills it at once.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, most: Duration) -> ExitStatus {
        let mut status = None;
        let ended = soon(most, || {
            status = self.ended();
            status.is_some()
        });
        assert!(ended, "it did not end in {most:?}");
        status.unwrap()
    }

    /// Asks it to end, which it must do in time and with exit code 0. Returns how long it took.
    pub(crate) fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(25));
        assert_eq!(status.code(), Some(0), "SIGTERM ends it in order");
        began.elapsed()
    }

    /// Waits until it says that it is ready.
    pub(crate) fn ready(&mut self) {
        let server = self.server;
        until("the process is ready", || {
            assert!(self.ended().is_none(), "it ended instead of starting");
            client::get(server, "/readyz").is_some_and(|(status, _)| status == 200)
        });
    }

    /// The sum over all labels of a metric; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let Some((200, text)) = client::get(self.server, "/metrics") else { return 0.0 };
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().unwrap_or(0.0))
        };
        text.lines().filter_map(of).sum()
    }

    /// Resident memory, in MB.
    pub(crate) fn rss(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Lapwing {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
