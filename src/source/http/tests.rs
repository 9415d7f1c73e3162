//! A lane that answers, clients that behave and clients that do not. Time is paused wherever no certificate is involved: a
//! limit of five seconds is over as soon as nothing else is left to do.

use std::io::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::*;
use crate::source::{Batch, Delivery, Handled};

/// What the stand-in for the lane does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Answers at once.
    Answers,
    /// Keeps it and says nothing.
    Keeps,
    /// Cannot make it durable.
    Refuses,
}

/// An intake with a lane behind it.
struct House {
    telemetry: Arc<Telemetry>,
    listening: Listening,
    stop: watch::Sender<Option<Instant>>,
    batches: mpsc::UnboundedReceiver<Batch>,
}

impl House {
    async fn new(config: HttpConfig, manner: Manner) -> House {
        House::with_room(config, manner, Room::new(128 << 20)).await
    }

    async fn with_room(config: HttpConfig, manner: Manner, room: Room) -> House {
        let (sender, receiver) = mpsc::channel(8);
        let (stop, stopped) = watch::channel(None);
        let (told, batches) = mpsc::unbounded_channel();
        tokio::spawn(lane(receiver, manner, told));
        let telemetry = Telemetry::new();
        let listening = start(config, sender, room, stopped, Arc::clone(&telemetry)).await.unwrap();
        House { telemetry, listening, stop, batches }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listening.address).await.unwrap()
    }

    /// Sends a request on a new connection.
    async fn ask(&self, request: &[u8]) -> Answer {
        let mut socket = self.connect().await;
        socket.write_all(request).await.unwrap();
        answer_of(&mut socket).await
    }

    fn batch(&mut self) -> Option<Batch> {
        self.batches.try_recv().ok()
    }
}

async fn lane(mut receiver: mpsc::Receiver<Delivery>, manner: Manner, told: mpsc::UnboundedSender<Batch>) {
    while let Some(delivery) = receiver.recv().await {
        let Delivery::Batch(mut batch) = delivery else { continue };
        let reply = batch.reply.take().unwrap();
        match manner {
            Manner::Answers => drop(reply.send(HANDLED)),
            Manner::Keeps => batch.reply = Some(reply),
            Manner::Refuses => {}
        }
        let _ = told.send(batch);
    }
}

const HANDLED: Handled = Handled { records: 1, bad: 0 };

fn config() -> HttpConfig {
    HttpConfig::new("hook", "127.0.0.1:0")
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

/// Reads one answer; code 0 if the connection was closed instead.
async fn answer_of(socket: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte).await {
            Ok(1) => bytes.push(byte[0]),
            _ => return Answer { code: 0, head: String::new(), body: String::new() },
        }
    }
    let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
    let length =
        head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    Answer { code: head[9..12].parse().unwrap(), head, body: String::from_utf8(body).unwrap() }
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sends a request to an intake with the defaults; expects the code, and that the lane gets the body if the code is 200.
async fn check(request: &[u8], code: u16, taken: Option<(&[u8], Option<&str>)>) {
    let mut house = House::new(config(), Manner::Answers).await;
    let answer = house.ask(request).await;
    assert_eq!(answer.code, code, "{answer:?}");
    assert_eq!(answer.body.is_empty(), code == 200, "{answer:?}");
    assert!(answer.body.lines().count() <= 1);
    let batch = house.batch();
    let got = batch.as_ref().map(|batch| (&batch.bytes[..], batch.cluster.as_deref()));
    assert_eq!(got, taken);
    if let Some(batch) = batch {
        assert_eq!(
            (&*batch.input, &*batch.stream, batch.offset, batch.last),
            ("hook", "http://hook/127.0.0.1", 0, true)
        );
        assert!(batch.room.is_some() && batch.position.is_none());
    }
}

const EVENT: &[u8] = br#"{"kind":"Event","auditID":"1"}"#;

#[tokio::test(start_paused = true)]
async fn what_is_posted_reaches_the_lane() {
    for (path, cluster) in [
        ("/k8s-audit", None),
        ("/k8s-audit/", None),
        ("/", None),
        ("/k8s-audit?timeout=30s", None),
        ("/k8s-audit/prod-1.eu_west?timeout=30s", Some("prod-1.eu_west")),
    ] {
        check(&post(path, "content-type: application/json\r\n", EVENT), 200, Some((EVENT, cluster))).await;
    }
    let list = br#"{"kind":"EventList","items":[{"kind":"Event"},{"kind":"Event"}]}"#;
    let lines = b"{\"kind\":\"Event\"}\n{\"kind\":\"Event\"}\n";
    let array = br#"[{"kind":"Event"}]"#;
    let falco = br#"{"output":"x","priority":"Warning","rule":"r","time":"2026-03-01T10:00:00Z"}"#;
    for (headers, body) in [
        ("content-type: application/json; charset=utf-8\r\n", &list[..]),
        ("content-type: application/x-ndjson\r\n", lines),
        ("content-type: APPLICATION/JSON\r\ncontent-encoding: identity\r\n", array),
        ("content-type: text/plain\r\n", falco),
        ("", falco),
        ("", b"this is no JSON, which is for the dead letters and no reason to retry"),
    ] {
        check(&post("/", headers, body), 200, Some((body, None))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_may_be_compressed_or_of_unknown_length() {
    let large: Vec<u8> = (0..200_000_u32)
        .flat_map(|n| format!("{{\"n\":{}}}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
        .collect();
    for body in [EVENT, &large] {
        check(&post("/k8s-audit", "content-encoding: gzip\r\n", &gzip(body)), 200, Some((body, None))).await;
        // Two members, as a shipper makes them that joins compressed pieces.
        let twice = [gzip(body), gzip(body)].concat();
        check(
            &post("/k8s-audit", "content-encoding: gzip\r\n", &twice),
            200,
            Some((&[body, body].concat(), None)),
        )
        .await;
        let mut chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(5000) {
            chunked.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        check(&chunked, 200, Some((body, None))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_is_refused_with_a_reason() {
    let json = "content-type: application/json\r\n";
    let long = format!("/k8s-audit/{}", "a".repeat(254));
    for (request, code) in [
        (post("/other", json, EVENT), 404),
        (post("/k8s-auditor", json, EVENT), 404),
        (post("/k8s-audit/a/b", json, EVENT), 404),
        (post("/k8s-audit/a%20b", json, EVENT), 404),
        (post("/k8s-audit/a%0ab", json, EVENT), 404),
        (post("/k8s-audit/..", json, EVENT), 404),
        (post("/k8s-audit/.", json, EVENT), 404),
        (post(&long, json, EVENT), 404),
        (post("/k8s-audit", json, b""), 400),
        (post("/k8s-audit", "content-type: application/x-www-form-urlencoded\r\n", EVENT), 415),
        (post("/k8s-audit", "content-encoding: br\r\n", EVENT), 415),
        (post("/k8s-audit", "content-encoding: gzip, gzip\r\n", EVENT), 415),
        (post("/k8s-audit", "content-encoding: gzip\r\ncontent-encoding: gzip\r\n", EVENT), 415),
        (post("/k8s-audit", "content-encoding: gzip\r\n", EVENT), 400),
        (post("/k8s-audit", "content-encoding: gzip\r\n", &gzip(EVENT)[..20]), 400),
        (b"GET /k8s-audit HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 33554433\r\n\r\n".to_vec(), 413),
    ] {
        check(&request, code, None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_limit_before_and_after_decompression() {
    let small = HttpConfig { max_body: Size(4 << 20), ..config() };
    let mut house = House::new(small, Manner::Answers).await;
    let zip = "content-encoding: gzip\r\n";
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(b'0'..=b'~')).take(5 << 20).collect();
    let chunk = [b"500000\r\n", &noise[..], b"\r\n0\r\n\r\n"].concat();
    let chunked = [b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", &chunk[..]].concat();
    for request in [
        post("/", "", &noise),
        post("/", zip, &gzip(&noise)),
        // Within the size, but no log compresses like this.
        post("/", zip, &gzip(&vec![b' '; 3 << 20])),
        // A bomb.
        post("/", zip, &gzip(&vec![b' '; 64 << 20])),
        chunked,
    ] {
        let mut socket = house.connect().await;
        let (mut reader, mut writer) = socket.split();
        // The answer may come before all has been sent.
        let (_, answer) = tokio::join!(writer.write_all(&request), answer_of(&mut reader));
        assert_eq!(answer.code, 413, "{answer:?}");
        assert!(answer.head.contains("connection: close"));
    }
    assert!(house.batch().is_none());
    assert_eq!(house.ask(&post("/", zip, &gzip(&vec![b' '; 900 << 10]))).await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_many_requests() {
    let mut house = House::new(config(), Manner::Answers).await;
    let mut socket = house.connect().await;
    for _ in 0..3 {
        socket.write_all(&post("/", "", EVENT)).await.unwrap();
        assert_eq!(answer_of(&mut socket).await.code, 200);
        // Longer than a head may take, shorter than a connection may rest.
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    let batches = std::iter::from_fn(|| house.batch()).count();
    assert_eq!(batches, 3);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(answer_of(&mut socket).await.code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_needed_where_tokens_are_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let secret = |text: &str| serde_json::from_value(text.into()).unwrap();
    let tokens = vec![secret(&format!("file:{}", file.display())), secret("other")];
    let house = House::new(HttpConfig { tokens, ..config() }, Manner::Answers).await;
    let ask = async |headers: &str| house.ask(&post("/", headers, EVENT)).await;
    assert_eq!(ask("authorization: Bearer first\r\n").await.code, 200);
    assert_eq!(ask("authorization: bearer other\r\n").await.code, 200);
    for headers in [
        "",
        "authorization: Bearer wrong\r\n",
        "authorization: Bearer \r\n",
        "authorization: Basic first\r\n",
    ] {
        let answer = ask(headers).await;
        assert_eq!(answer.code, 401);
        assert!(
            answer.head.contains("www-authenticate: bearer") && !answer.body.contains("wrong"),
            "{answer:?}"
        );
    }
    std::fs::write(&file, "second\n").unwrap();
    house.listening.reload().unwrap();
    assert_eq!(ask("authorization: Bearer first\r\n").await.code, 401);
    assert_eq!(ask("authorization: Bearer second\r\n").await.code, 200);
    std::fs::write(&file, "\n").unwrap();
    let error = format!("{:#}", house.listening.reload().unwrap_err());
    assert!(error.contains("the old keys stay in force: tokens[0] is empty"), "{error}");
    assert_eq!(ask("authorization: Bearer second\r\n").await.code, 200);
    assert_eq!(ask("authorization: Bearer \r\n").await.code, 401);
    std::fs::write(&file, "third\n").unwrap();
    tokio::time::sleep(RENEWAL * 3).await;
    assert_eq!(ask("authorization: Bearer third\r\n").await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn slow_clients_are_not_waited_for() {
    let house = House::new(config(), Manner::Answers).await;
    let started = Instant::now();
    for (sent, every, code, seconds) in [
        // Nothing; then a head that never ends, a byte a second.
        (&b""[..], None, 0, 5),
        (b"POST / HTTP/1.1\r\nx: ", Some(b"a"), 0, 5),
        // A body that stands still; then one that drips.
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", None, 408, 10),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", Some(b"a"), 408, 30),
    ] {
        let (from, socket) = (Instant::now(), house.connect().await);
        let (mut reader, mut writer) = socket.into_split();
        writer.write_all(sent).await.unwrap();
        let dripping = tokio::spawn(async move {
            while let Some(bytes) = every {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if writer.write_all(bytes).await.is_err() {
                    return None;
                }
            }
            Some(writer)
        });
        assert_eq!(answer_of(&mut reader).await.code, code);
        assert_eq!(from.elapsed().as_secs(), seconds, "{}", String::from_utf8_lossy(sent));
        dripping.abort();
    }
    assert!(started.elapsed() < Duration::from_secs(52));
}

#[tokio::test(start_paused = true)]
async fn half_open_connections_stop_nobody() {
    let many = HttpConfig { max_connections: 32, max_connections_per_peer: 1000, ..config() };
    for config in [config(), many] {
        let house = House::new(config, Manner::Answers).await;
        let mut regular = house.connect().await;
        regular.write_all(&post("/", "", EVENT)).await.unwrap();
        assert_eq!(answer_of(&mut regular).await.code, 200);
        let started = Instant::now();
        let mut open = Vec::new();
        for n in 0..300 {
            let mut socket = house.connect().await;
            if n % 2 == 0 {
                socket.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
            }
            open.push(socket);
            tokio::task::yield_now().await;
        }
        // A new client, and one that has been here before and rests.
        assert_eq!(house.ask(&post("/", "", EVENT)).await.code, 200);
        regular.write_all(&post("/", "", EVENT)).await.unwrap();
        assert_eq!(answer_of(&mut regular).await.code, 200);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn busy_connections_are_not_closed_for_others() {
    // The lane says nothing, so that every request stays busy.
    let full = HttpConfig { max_connections: 3, ..config() };
    let mut house = House::new(full, Manner::Keeps).await;
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut socket = house.connect().await;
        socket.write_all(&post("/", "", EVENT)).await.unwrap();
        let batch = house.batches.recv().await.unwrap();
        busy.push((socket, batch));
    }
    let mut waiting = house.connect().await;
    waiting.write_all(&post("/", "", EVENT)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(house.batch().is_none());
    // As soon as one has been answered, the waiting one has its turn.
    let (mut socket, mut batch) = busy.remove(0);
    batch.reply.take().unwrap().send(HANDLED).unwrap();
    assert_eq!(answer_of(&mut socket).await.code, 200);
    let mut batch = house.batches.recv().await.unwrap();
    batch.reply.take().unwrap().send(HANDLED).unwrap();
    assert_eq!(answer_of(&mut waiting).await.code, 200);
    // The others have waited for as long as a request may take.
    for (mut socket, _batch) in busy {
        let answer = answer_of(&mut socket).await;
        assert_eq!(answer.code, 503);
        assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_too_many_busy_connections_is_told_so() {
    let one = HttpConfig { max_connections_per_peer: 1, ..config() };
    let mut house = House::new(one, Manner::Keeps).await;
    let mut socket = house.connect().await;
    socket.write_all(&post("/", "", EVENT)).await.unwrap();
    let _batch = house.batches.recv().await.unwrap();
    let mut another = house.connect().await;
    assert_eq!(answer_of(&mut another).await.code, 503);
}

#[tokio::test(start_paused = true)]
async fn what_the_lane_does_not_take_comes_again() {
    let house = House::new(config(), Manner::Refuses).await;
    let answer = house.ask(&post("/", "", EVENT)).await;
    assert_eq!(answer.code, 503);
    assert!(answer.head.contains("retry-after: 1"));

    // No room, because what was taken has not been handled.
    let room = Room::new(1 << 20);
    let all = room.take(1 << 20).await;
    let mut house = House::with_room(config(), Manner::Answers, room).await;
    let started = Instant::now();
    assert_eq!(house.ask(&post("/", "", EVENT)).await.code, 503);
    assert_eq!(started.elapsed(), body::PATIENCE);
    drop(all);
    assert_eq!(house.ask(&post("/", "", EVENT)).await.code, 200);
    // A body that grows beyond all room is refused rather than waited for; its room is given back.
    assert_eq!(house.ask(&post("/", "", &vec![b' '; 3 << 20])).await.code, 503);
    drop(house.batch());
    assert_eq!(house.ask(&post("/", "", EVENT)).await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_is_in_flight_and_ends_in_time() {
    let mut house = House::new(config(), Manner::Keeps).await;
    let (mut answered, mut forgotten) = (house.connect().await, house.connect().await);
    answered.write_all(&post("/", "", EVENT)).await.unwrap();
    let mut batch = house.batches.recv().await.unwrap();
    forgotten.write_all(&post("/", "", EVENT)).await.unwrap();
    let _kept = house.batches.recv().await.unwrap();
    let (mut idle, mut silent) = (house.connect().await, house.connect().await);
    tokio::time::sleep(Duration::from_millis(1)).await;

    let started = Instant::now();
    house.stop.send(Some(started + Duration::from_secs(20))).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(TcpStream::connect(house.listening.address).await.is_err());
    idle.write_all(&post("/", "", EVENT)).await.unwrap();
    let answer = answer_of(&mut idle).await;
    assert_eq!(answer.code, 503);
    assert!(
        answer.head.contains("connection: close") && answer.head.contains("retry-after: 1"),
        "{answer:?}"
    );
    assert_eq!(answer_of(&mut silent).await.code, 0);
    assert!(started.elapsed() < Duration::from_secs(2));

    tokio::time::sleep(Duration::from_secs(3)).await;
    batch.reply.take().unwrap().send(HANDLED).unwrap();
    let answer = answer_of(&mut answered).await;
    assert_eq!(answer.code, 200);
    assert!(answer.head.contains("connection: close"), "{answer:?}");
    assert_eq!(answer_of(&mut forgotten).await.code, 503);
    house.listening.task.await.unwrap();
    assert!(started.elapsed() <= Duration::from_secs(20));
    // The lane learns that nothing more will come.
    assert!(house.batches.recv().await.is_none());
}

/// Certificates for a test, in a folder of its own.
struct Papers {
    folder: tempfile::TempDir,
    ca: Issuer<'static, KeyPair>,
}

impl Papers {
    fn new() -> Papers {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(folder.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        let papers = Papers { folder, ca: Issuer::new(params, key) };
        papers.issue("server", &["localhost"]);
        papers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> Text {
        Text(self.path(name).display().to_string())
    }

    /// Writes `<file>.crt` and `<file>.key`, with a common name instead of names if there are none.
    fn issue(&self, file: &str, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        std::fs::write(self.path(&format!("{file}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn config(&self) -> HttpConfig {
        let tls = TlsServer {
            cert: self.text("server.crt"),
            key: Some(self.text("server.key")),
            client_ca: None,
            allowed_names: Vec::new(),
        };
        HttpConfig { tls: Some(tls), ..config() }
    }

    fn connector(&self, client: Option<&str>, protocol: &[u8]) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = vec![CertificateDer::from_pem_file(self.path(&format!("{client}.crt"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{client}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// Posts an event over TLS; 0 if the connection does not come about.
    async fn ask(&self, house: &House, client: Option<&str>) -> u16 {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = self.connector(client, b"http/1.1");
        let Ok(mut stream) = connector.connect(name, house.connect().await).await else { return 0 };
        if stream.write_all(&post("/", "", EVENT)).await.is_err() {
            return 0;
        }
        answer_of(&mut stream).await.code
    }
}

#[tokio::test]
async fn clients_show_certificates_of_the_right_ca_and_name() {
    let (papers, strangers) = (Papers::new(), Papers::new());
    for (file, names) in [
        ("api", &["api.example"][..]),
        ("address", &["10.0.0.1"]),
        ("other", &["other.example"]),
        ("named", &[]),
    ] {
        papers.issue(file, names);
    }
    strangers.issue("api", &["api.example"]);
    for file in ["api.crt", "api.key"] {
        std::fs::copy(strangers.path(file), papers.path(&format!("strange-{file}"))).unwrap();
    }
    let mut config = papers.config();
    let house = House::new(config.clone(), Manner::Answers).await;
    assert_eq!(papers.ask(&house, None).await, 200);
    let failed = || {
        let metrics = house.telemetry.encode(SystemTime::now());
        metrics.contains("lapwing_tls_handshakes_failed_total{input=\"hook\"} 1\n")
    };
    assert!(house.listening.url().starts_with("https://127.0.0.1:") && !failed());
    assert_eq!(house.ask(&post("/", "", EVENT)).await.code, 0, "no TLS");
    assert!(failed());

    config.tls.as_mut().unwrap().client_ca = Some(papers.text("ca.crt"));
    let house = House::new(config.clone(), Manner::Answers).await;
    for (client, code) in [(None, 0), (Some("strange-api"), 0), (Some("api"), 200), (Some("other"), 200)] {
        assert_eq!(papers.ask(&house, client).await, code, "{client:?}");
    }

    config.tls.as_mut().unwrap().allowed_names =
        vec!["API.example".to_owned(), "10.0.0.1".to_owned(), "named".to_owned()];
    let house = House::new(config, Manner::Answers).await;
    for (client, code) in [
        (None, 0),
        (Some("strange-api"), 0),
        (Some("api"), 200),
        (Some("address"), 200),
        (Some("named"), 200),
        (Some("other"), 403),
    ] {
        assert_eq!(papers.ask(&house, client).await, code, "{client:?}");
    }
}

#[tokio::test]
async fn certificates_are_renewed_while_running() {
    let papers = Papers::new();
    // One file with both, as Falco has it.
    let both = |papers: &Papers| {
        let text = |name: &str| std::fs::read_to_string(papers.path(name)).unwrap();
        std::fs::write(papers.path("both.pem"), text("server.key") + &text("server.crt")).unwrap();
    };
    both(&papers);
    let mut config = papers.config();
    let tls = config.tls.as_mut().unwrap();
    (tls.cert, tls.key) = (papers.text("both.pem"), None);
    let house = House::new(config, Manner::Answers).await;
    let shown = async || {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = papers.connector(None, b"http/1.1").connect(name, house.connect().await).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    assert!(house.listening.certificate_expires().unwrap() > SystemTime::now());
    house.listening.reload().unwrap();
    assert_eq!(shown().await, first);

    std::fs::write(papers.path("both.pem"), "no certificate").unwrap();
    let error = format!("{:#}", house.listening.reload().unwrap_err());
    assert!(
        error.contains("both.pem holds no certificate") && error.contains("the old keys stay"),
        "{error}"
    );
    assert_eq!(shown().await, first);
    // Whoever asks again hears it again.
    house.listening.reload().unwrap_err();

    // A key that belongs to another certificate.
    let old_key = std::fs::read_to_string(papers.path("server.key")).unwrap();
    papers.issue("server", &["localhost"]);
    let new = std::fs::read_to_string(papers.path("server.crt")).unwrap();
    std::fs::write(papers.path("both.pem"), old_key + &new).unwrap();
    let error = format!("{:#}", house.listening.reload().unwrap_err());
    assert!(error.contains("cannot be used together") && !error.contains("BEGIN"), "{error}");
    assert_eq!(shown().await, first);

    both(&papers);
    house.listening.reload().unwrap();
    assert_ne!(shown().await, first);
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_agreed_upon() {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let papers = Papers::new();
    let mut house = House::new(papers.config(), Manner::Answers).await;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = papers.connector(None, b"h2").connect(name, house.connect().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for (path, code) in [("/k8s-audit/prod", 200), ("/other", 404)] {
        let request = hyper::Request::post(format!("https://localhost{path}"));
        let response =
            sender.send_request(request.body(Full::new(Bytes::from_static(EVENT))).unwrap()).await.unwrap();
        assert_eq!(response.status(), code);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(house.batch().unwrap().cluster.as_deref(), Some("prod"));
    // A stop ends an idle connection.
    house.stop.send(Some(Instant::now() + Duration::from_secs(20))).unwrap();
    house.listening.task.await.unwrap();
    let _ = connection.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time() {
    let papers = Papers::new();
    let house = House::new(papers.config(), Manner::Answers).await;
    let started = Instant::now();
    let mut socket = house.connect().await;
    assert_eq!(answer_of(&mut socket).await.code, 0);
    assert_eq!(started.elapsed().as_secs(), 5);
}

/// The loop goes on when the process has no descriptors left. A process of its own, because the limit is the process's.
#[test]
fn the_loop_survives_a_lack_of_descriptors() {
    let test = "source::http::tests::with_few_descriptors";
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" --ignored --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "runs in a process with few descriptors, started by another test"]
async fn with_few_descriptors() {
    let house = House::new(HttpConfig { max_connections_per_peer: 256, ..config() }, Manner::Answers).await;
    let mut open = Vec::new();
    while let Ok(socket) = TcpStream::connect(house.listening.address).await {
        open.push(socket);
        assert!(open.len() < 64, "the limit is not in force");
    }
    // One descriptor for a good client, whose connection the listener cannot take with what is left.
    open.pop();
    let mut socket = house.connect().await;
    socket.write_all(&post("/", "", EVENT)).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(4), answer_of(&mut socket)).await.unwrap();
    assert_eq!(answer.code, 200);
}

/// Expects the reason why a configuration, given as changes to the least one, is refused, or that it is not.
#[track_caller]
fn check_config(changes: &str, reason: Option<&str>) {
    let config: Result<HttpConfig, _> = yaml_serde::from_str(&format!("{{name: hook, {changes}}}"));
    let result = config.map_err(anyhow::Error::from).and_then(|config| config.check());
    match (result, reason) {
        (Ok(_), None) => {}
        (Err(error), Some(reason)) => assert!(format!("{error:#}").contains(reason), "{error:#}"),
        (result, _) => panic!("{changes}: {result:?}"),
    }
}

#[test]
fn nobody_listens_to_the_world_by_accident() {
    check_config("", None);
    check_config("listen: '[::1]:1'", None);
    check_config("listen: '[::ffff:127.0.0.1]:1'", None);
    check_config("listen: '0.0.0.0:1'", Some("add TLS (`tls: {cert, key}`) and authentication"));
    check_config("listen: '[::]:1', tokens: [x]", Some("add TLS (`tls: {cert, key}`), listen on"));
    check_config(
        "listen: '10.0.0.1:1', tls: {cert: c}",
        Some("add authentication (`tls.client_ca` or `tokens`)"),
    );
    check_config("listen: '0.0.0.0:1', tls: {cert: c, key: k, client_ca: a}", None);
    check_config("listen: '0.0.0.0:1', tls: {cert: c}, tokens: [x]", None);
    check_config("listen: '0.0.0.0:1', insecure: true", None);
}

#[test]
fn keys_are_checked_without_listening() {
    let papers = Papers::new();
    std::fs::write(papers.path("empty"), "").unwrap();
    let folder = papers.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    let files = "tls: {cert: DIR/server.crt, key: DIR/server.key, client_ca: DIR/ca.crt}, tokens: [a, 'file:DIR/ca.crt']";
    for (from, to, expected) in [
        ("", "", None),
        ("DIR/server.crt", "DIR/none", Some("input `hook`: tls.cert: cannot read DIR/none")),
        (
            "DIR/server.key",
            "DIR/empty",
            Some("input `hook`: tls.key: DIR/empty does not hold an unencrypted"),
        ),
        (
            "client_ca: DIR/ca.crt",
            "client_ca: DIR/none",
            Some("input `hook`: tls.client_ca: cannot read DIR/none"),
        ),
        (
            "client_ca: DIR/ca.crt",
            "client_ca: DIR/empty",
            Some("input `hook`: tls.client_ca: DIR/empty holds no"),
        ),
        (
            "file:DIR/ca.crt",
            "file:DIR/none",
            Some("input `hook`: tokens[1]: cannot read the secret in DIR/none"),
        ),
        (
            "[a,",
            "['${LAPWING_NO_SUCH_VARIABLE}',",
            Some("input `hook`: tokens[0]: the environment has no variable"),
        ),
    ] {
        let yaml = format!("{{name: hook, {}}}", files.replace(from, to)).replace("DIR", folder);
        let config: HttpConfig = yaml_serde::from_str(&yaml).unwrap();
        let said = config.check_keys().err().map(|error| format!("{error:#}"));
        let expected = expected.map(|expected| expected.replace("DIR", folder));
        match (&said, &expected) {
            (None, None) => {}
            (Some(said), Some(expected)) => assert!(said.starts_with(expected), "{said}\nis not\n{expected}"),
            other => panic!("{yaml}: {other:?}"),
        }
    }
}

#[test]
fn the_configuration_is_checked() {
    check_config("max_body: 64MiB, timeouts: {header: 2s}, path: /in", None);
    check_config("listen: 'localhost'", Some("is no address to listen on"));
    check_config("path: in", Some("is no path"));
    check_config("max_body: 0", Some("max_body must lie"));
    check_config("max_connections: 0", Some("at least 1"));
    check_config("timeouts: {body: 0s}", Some("timeouts must lie"));
    check_config("timeout: 5s", Some("unknown field `timeout`"));
    check_config("timeouts: {idle: 5s}", Some("unknown field `idle`"));
}

#[test]
fn names_without_a_ca_are_refused() {
    let tls = TlsServer {
        cert: Text("x".to_owned()),
        key: None,
        client_ca: None,
        allowed_names: vec!["api".to_owned()],
    };
    let error = Identity::load(tls, &[]).unwrap_err().to_string();
    assert!(error.contains("without tls.client_ca"), "{error}");
}

/// Measures rather than tests: `cargo test --release -p lapwing --bin lapwing -- --ignored --nocapture how_many`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, which takes seconds"]
async fn how_many_events_per_second_come_in() {
    const CLIENTS: usize = 4;
    const BATCHES: usize = 500;
    const ITEMS: usize = 400;
    let event = format!("{{\"kind\":\"Event\",\"padding\":\"{}\"}}", "x".repeat(1170));
    let body = format!("{{\"kind\":\"EventList\",\"items\":[{}]}}", vec![event; ITEMS].join(","));
    let request: Arc<[u8]> = post("/k8s-audit", "content-type: application/json\r\n", body.as_bytes()).into();
    let house = House::new(config(), Manner::Answers).await;
    let mut batches = house.batches;
    tokio::spawn(async move { while batches.recv().await.is_some() {} });
    let started = std::time::Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (request, address) = (Arc::clone(&request), house.listening.address);
            tokio::spawn(async move {
                let mut socket = TcpStream::connect(address).await.unwrap();
                for _ in 0..BATCHES {
                    socket.write_all(&request).await.unwrap();
                    assert_eq!(answer_of(&mut socket).await.code, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let elapsed = started.elapsed().as_secs_f64();
    let events = CLIENTS * BATCHES * ITEMS;
    println!(
        "{events} events of 1.2 KB from {CLIENTS} clients in {elapsed:.2} s: {:.0}/s",
        events as f64 / elapsed
    );
}
