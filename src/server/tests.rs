//! The listener, over real sockets of this machine.

use detectors::level::Level;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Running {
    listening: Listening,
    telemetry: Arc<Telemetry>,
    readiness: Readiness,
    reloads: mpsc::Receiver<Reload>,
    stop: watch::Sender<bool>,
}

async fn running() -> Running {
    let config = Server { listen: "127.0.0.1:0".parse().unwrap() };
    let (telemetry, readiness) = (Telemetry::new(), Readiness::new());
    let (reload, reloads) = mpsc::channel(1);
    let (stop, stopped) = watch::channel(false);
    let listening =
        start(&config, Arc::clone(&telemetry), readiness.clone(), Heartbeat::new(), reload, stopped)
            .await
            .unwrap();
    Running { listening, telemetry, readiness, reloads, stop }
}

/// The answer to a request, whole.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request}\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks and looks at status and body.
async fn check(running: &Running, request: &str, status: u16, body: &str) {
    let answer = ask(running.listening.address, request).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    let got = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(got.contains(body), "{request}: {answer}");
}

#[tokio::test]
async fn each_path_answers_its_method() {
    let running = running().await;
    check(&running, "GET /healthz HTTP/1.1", 200, "ok").await;
    check(&running, "HEAD /healthz HTTP/1.1", 200, "").await;
    check(&running, "GET /healthz?verbose HTTP/1.1", 200, "ok").await;
    check(&running, "POST /healthz HTTP/1.1", 405, "use GET").await;
    check(&running, "GET /-/reload HTTP/1.1", 405, "use POST").await;
    check(&running, "DELETE /metrics HTTP/1.1", 405, "use GET").await;
    check(&running, "GET / HTTP/1.1", 404, "/readyz").await;
    check(&running, "GET /healthz/ HTTP/1.1", 404, "").await;
    check(&running, "GET /../metrics HTTP/1.1", 404, "").await;
}

#[tokio::test]
async fn metrics_have_their_media_type() {
    let running = running().await;
    running.telemetry.alert("a/b", Level::High);
    let answer = ask(running.listening.address, "GET /metrics HTTP/1.1").await.to_lowercase();
    assert!(answer.contains(&format!("content-type: {}\r\n", telemetry::MEDIA_TYPE)), "{answer}");
    assert!(answer.contains("lapwing_alerts_total{level=\"high\"} 1\n"), "{answer}");
    assert!(answer.ends_with("# eof\n"), "{answer}");
}

#[tokio::test]
async fn readiness_says_why_not() {
    let running = running().await;
    check(&running, "GET /readyz HTTP/1.1", 503, r#"{"ready":false,"reasons":["the detectors are not"#).await;
    running.readiness.set(Readiness::DETECTORS, true);
    running.readiness.set(Readiness::INPUTS, true);
    check(&running, "GET /readyz HTTP/1.1", 200, r#"{"ready":true,"reasons":[]}"#).await;
    running.readiness.set("the spool of a is full", false);
    running.readiness.set("the spool of b is full".to_owned(), false);
    running.readiness.set("the spool of a is full", true);
    check(&running, "GET /readyz HTTP/1.1", 503, r#"["the spool of b is full"]"#).await;
    running.readiness.set("the spool of b is full", true);
    check(&running, "GET /readyz HTTP/1.1", 200, "true").await;
}

#[tokio::test]
async fn readiness_says_how_groups_are() {
    let running = running().await;
    running.readiness.set(Readiness::DETECTORS, true);
    running.readiness.set(Readiness::INPUTS, true);
    running.readiness.group("audit", "not yet a member".to_owned(), Some(false));
    running.readiness.group("falco", "3 partitions".to_owned(), Some(true));
    let groups = r#""groups":{"audit":"not yet a member","falco":"3 partitions"},"ready":false,"reasons":["audit reads nothing: see its group"]"#;
    check(&running, "GET /readyz HTTP/1.1", 503, groups).await;
    // Nothing new is known of whether it reads.
    running.readiness.group("audit", "0 partitions".to_owned(), None);
    running.readiness.group("falco", "0 partitions".to_owned(), None);
    check(&running, "GET /readyz HTTP/1.1", 503, r#"["audit reads nothing: see its group"]"#).await;
    running.readiness.group("audit", "0 of 3 partitions, steady".to_owned(), Some(true));
    check(&running, "GET /readyz HTTP/1.1", 200, r#""audit":"0 of 3 partitions, steady""#).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_stands_still_is_ill() {
    let (heartbeat, readiness) =
        (Heartbeat::new(), Readiness { reasons: Arc::default(), groups: Arc::default() });
    let status = || (health(&heartbeat).status().as_u16(), ready(&readiness, &heartbeat).status().as_u16());
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(status(), (200, 200));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(status(), (503, 503));
    heartbeat.touch();
    assert_eq!(status(), (200, 200));
}

#[tokio::test]
async fn a_reload_is_answered_with_its_result() {
    let mut running = running().await;
    let address = running.listening.address;
    for (result, status, body) in [
        (Ok("2 detectors changed".to_owned()), "200", "2 detectors changed"),
        (Err("line 3: no such key".to_owned()), "500", "line 3: no such key"),
    ] {
        let asked = tokio::spawn(async move { ask(address, "POST /-/reload HTTP/1.1").await });
        running.reloads.recv().await.unwrap().send(result).unwrap();
        let answer = asked.await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(body), "{answer}");
    }
    drop(running.reloads);
    let answer = ask(address, "POST /-/reload HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn a_second_reload_is_turned_away_at_once() {
    let mut running = running().await;
    let address = running.listening.address;
    let first = tokio::spawn(async move { ask(address, "POST /-/reload HTTP/1.1").await });
    // Nobody receives until the second has its answer. Which of the two is first does not matter.
    let second = tokio::spawn(async move { ask(address, "POST /-/reload HTTP/1.1").await });
    let turned_away = tokio::select! {
        answer = first => answer.unwrap(),
        answer = second => answer.unwrap(),
    };
    assert!(turned_away.contains("another reload is under way"), "{turned_away}");
    drop(running.reloads.recv().await.unwrap());
}

#[tokio::test]
async fn a_reload_is_for_this_machine_and_not_for_its_browsers() {
    let running = running().await;
    let from_page = "POST /-/reload HTTP/1.1\r\nOrigin: http://elsewhere.example";
    check(&running, from_page, 403, "from this machine only").await;
}

#[tokio::test]
async fn a_peer_from_elsewhere_cannot_reload() {
    let (reload, mut reloads) = mpsc::channel(1);
    let house = Arc::new(House {
        telemetry: Telemetry::new(),
        readiness: Readiness::new(),
        heartbeat: Heartbeat::new(),
        reload,
    });
    for (peer, status) in
        [("192.0.2.1:5", "403"), ("[2001:db8::1]:5", "403"), ("[::ffff:192.0.2.1]:5", "403")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move { ask(address, "POST /-/reload HTTP/1.1").await });
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, peer.parse().unwrap(), Arc::clone(&house), Arc::default()).await;
        let answer = asked.await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{peer}: {answer}");
    }
    assert!(reloads.try_recv().is_err());
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let running = running().await;
    let address = running.listening.address;
    let mut silent = Vec::new();
    for n in 0..4 * GUESTS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
        }
        silent.push(stream);
    }
    check(&running, "GET /healthz HTTP/1.1", 200, "ok").await;
    // The oldest were shown the door.
    let mut first = silent.swap_remove(1);
    assert!(matches!(first.read(&mut [0; 64]).await, Ok(0) | Err(_)));
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_not_waited_for() {
    let running = running().await;
    let mut stream = TcpStream::connect(running.listening.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
    let begun = Instant::now();
    // Paused time goes on by itself to the next timer, which is the one for heads.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!((HEAD..WHOLE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let running = running().await;
    let header = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(2 * HEAD_BYTES));
    check(&running, &header, 431, "").await;
}

#[tokio::test]
async fn a_stop_ends_it() {
    let running = running().await;
    running.stop.send(true).unwrap();
    running.listening.task.await.unwrap();
    assert!(TcpStream::connect(running.listening.address).await.is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let running = running().await;
    let config = Server { listen: running.listening.address };
    let (reload, _reloads) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let (telemetry, readiness) = (Telemetry::new(), Readiness::new());
    let error = start(&config, telemetry, readiness, Heartbeat::new(), reload, stopped).await.unwrap_err();
    assert!(format!("{error:#}").contains(&format!("cannot listen on {}", config.listen)), "{error:#}");
}

#[test]
fn the_section_is_read() {
    let read = |yaml: &str| yaml_serde::from_str::<Server>(yaml).map_err(|error| error.to_string());
    assert_eq!(read("{}").unwrap().listen.to_string(), "127.0.0.1:9468");
    assert_eq!(read("listen: '[::]:9000'").unwrap().listen.to_string(), "[::]:9000");
    assert_eq!(
        read("listen: '${LAPWING_NO_SUCH:-0.0.0.0}:9468'").unwrap().listen.to_string(),
        "0.0.0.0:9468"
    );
    assert!(read("listen: localhost").unwrap_err().contains("`localhost` is no address and port"));
    assert!(read("port: 9468").unwrap_err().contains("unknown field"));
}
