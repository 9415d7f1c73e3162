//! Events that come by HTTP: a 2xx is a promise.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{self, Client, event_list};
use crate::events::Events;
use crate::house::{House, rounded};
use crate::process::{scaled, until};
use crate::receiver::Mode;

/// Clients that send again what was not acknowledged. Rounds keep them together: the order in which events come is mixed up
/// within a round, but never by more than that.
struct Senders {
    clean: PathBuf,
    address: Mutex<SocketAddr>,
    done: AtomicBool,
    acknowledged: AtomicU64,
    again: AtomicU64,
    slowest: Mutex<Duration>,
}

impl Senders {
    fn new(house: &House) -> Senders {
        Senders {
            clean: house.path().join("clean.jsonl"),
            address: Mutex::new(house.intake.unwrap()),
            done: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            again: AtomicU64::new(0),
            slowest: Mutex::default(),
        }
    }

    /// Sends until told that it is enough, and then until everything is acknowledged.
    fn send(&self, seed: u64, clients: usize, batch: usize) {
        let mut events = Events::new(seed, 20);
        let mut clean = OpenOptions::new().create(true).append(true).open(&self.clean).unwrap();
        while !self.done.load(Ordering::Relaxed) {
            thread::scope(|scope| {
                for _ in 0..clients {
                    let lines = events.take(batch);
                    clean.write_all(lines.concat().as_bytes()).unwrap();
                    scope.spawn(move || self.deliver(&lines));
                }
            });
        }
    }

    fn deliver(&self, lines: &[String]) {
        let body = event_list(lines);
        let began = Instant::now();
        loop {
            let address = *self.address.lock().unwrap();
            let mut client = Client::new(address);
            if client.post("/k8s-audit", "", &body).is_some_and(|status| (200..300).contains(&status)) {
                break;
            }
            self.again.fetch_add(1, Ordering::Relaxed);
            assert!(began.elapsed() < Duration::from_secs(120), "a batch was not taken for two minutes");
            thread::sleep(Duration::from_millis(20));
        }
        self.acknowledged.fetch_add(lines.len() as u64, Ordering::Relaxed);
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = began.elapsed().max(*slowest);
    }
}

fn house(name: &'static str) -> House {
    let mut house = House::new(name);
    house.file = None;
    house.intake = Some(crate::process::free_address());
    house
}

fn check(name: &'static str, clients: usize, batch: usize, cycles: u64) {
    let mut house = house(name);
    let mut rng = fastrand::Rng::with_seed(house.seed);
    let senders = Senders::new(&house);
    let seed = house.seed;
    let last = thread::scope(|scope| {
        let sending = scope.spawn(|| senders.send(seed, clients, batch));
        for cycle in 0..cycles {
            house.receiver.set(if rng.u8(0..4) == 0 { Mode::Moody } else { Mode::Accept });
            let lapwing = house.start();
            *senders.address.lock().unwrap() = house.intake.unwrap();
            if cycle % 4 == 3 {
                let before = senders.acknowledged.load(Ordering::Relaxed);
                until("a batch is acknowledged", || senders.acknowledged.load(Ordering::Relaxed) > before);
            }
            thread::sleep(Duration::from_millis(1 << rng.u32(0..11)) * rng.u32(50..100) / 100);
            house.kill(lapwing);
        }
        house.receiver.set(Mode::Accept);
        let lapwing = house.start();
        *senders.address.lock().unwrap() = house.intake.unwrap();
        senders.done.store(true, Ordering::Relaxed);
        sending.join().unwrap();
        lapwing
    });
    house.figures.insert("acknowledged".into(), senders.acknowledged.load(Ordering::Relaxed).into());
    house.figures.insert("sent_again".into(), senders.again.load(Ordering::Relaxed).into());
    house.finish(last, 0);
}

#[test]
fn killed_while_the_api_server_sends() {
    check("kill-webhook", 1, 400, scaled(12, 200));
}

#[test]
fn killed_while_four_clients_send() {
    check("kill-clients", 4, 100, scaled(6, 100));
}

/// Clients that open connections and do not do what they should.
fn misbehave(address: SocketAddr, done: &AtomicBool, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xbad);
    let mut held = Vec::new();
    let begun: [&[u8]; 6] = [
        b"",
        b"POST /k8s-audit HTTP/1.1\r\nHost: lapw",
        b"POST /k8s-audit HTTP/1.1\r\nHost: lapwing\r\nContent-Length: 100000\r\n\r\n{\"kind\":\"EventList\"",
        b"POST /k8s-audit HTTP/1.1\r\nHost: lapwing\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"kin\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n\r\n\0\0\0",
    ];
    while !done.load(Ordering::Relaxed) {
        if let Some(mut connection) = client::connect(address) {
            // Whatever becomes of it.
            let _ = connection.write_all(begun[rng.usize(0..begun.len())]);
            held.push(connection);
        }
        if held.len() > 300 {
            held.remove(rng.usize(0..held.len()));
        }
        for _ in 0..3 {
            // Slow ones add a byte now and then.
            let Some(connection) = held.get_mut(rng.usize(0..300)) else { continue };
            let _ = connection.write_all(b"x");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn slow_and_half_open_clients_starve_nobody() {
    let mut house = house("half-open");
    let mut lapwing = house.start();
    lapwing.ready();
    let (senders, address, seed) = (Senders::new(&house), house.intake.unwrap(), house.seed);
    let misbehaving = AtomicBool::new(false);
    let mut probe = Duration::ZERO;
    thread::scope(|scope| {
        let bad = scope.spawn(|| misbehave(address, &misbehaving, seed));
        let good = scope.spawn(|| senders.send(seed, 2, 100));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(scaled(12, 60)) {
            let asked = Instant::now();
            let (status, _) =
                client::get(lapwing.server, "/healthz").expect("the listener for health answers");
            assert_eq!(status, 200);
            probe = probe.max(asked.elapsed());
            thread::sleep(Duration::from_millis(100));
        }
        senders.done.store(true, Ordering::Relaxed);
        good.join().unwrap();
        misbehaving.store(true, Ordering::Relaxed);
        bad.join().unwrap();
    });
    let slowest = senders.slowest.lock().unwrap().as_secs_f64();
    house.figures.insert("acknowledged".into(), senders.acknowledged.load(Ordering::Relaxed).into());
    house.figures.insert("slowest_batch_seconds".into(), rounded(slowest).into());
    house.figures.insert("slowest_probe_seconds".into(), rounded(probe.as_secs_f64()).into());
    house.finish(lapwing, 0);
}

#[test]
fn bad_items_do_not_fail_their_batch() {
    let mut house = house("bad-items");
    let mut lapwing = house.start();
    lapwing.ready();
    let mut events = Events::new(house.seed, 300);
    let mut clean =
        OpenOptions::new().create(true).append(true).open(house.path().join("clean.jsonl")).unwrap();
    let mut client = Client::new(house.intake.unwrap());
    let bad = ["{\"kind\":\"Pod\"}", "null", "17", "[]"];
    for round in 0..scaled(20, 200) {
        let mut lines = events.take(20);
        clean.write_all(lines.concat().as_bytes()).unwrap();
        lines.insert(round % 20, format!("{}\n", bad[round % bad.len()]));
        let body = if round % 2 == 0 { event_list(&lines) } else { lines.concat().into_bytes() };
        assert_eq!(client.post("/k8s-audit", "", &body), Some(200));
    }
    // Bodies that are nothing at all are taken too: the API server would send them again for ever.
    assert!(
        client
            .post("/k8s-audit", "", b"{\"kind\":\"EventList\",\"items\":[{")
            .is_some_and(|status| status == 200)
    );
    house.finish(lapwing, 0);
}
