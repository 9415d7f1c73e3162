//! What is written, and what happens when the receiver goes away.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::sink::tests::{NASTY, alert, item, nasty};
use crate::text;

fn output(address: &str, more: &str) -> SyslogOutput {
    yaml_serde::from_str(&format!("{{address: '{address}', hostname: cp-1{more}}}")).unwrap()
}

fn sink(address: &str, more: &str) -> SyslogSink {
    let mut sink = SyslogSink::new(&output(address, more)).unwrap();
    sink.header.pin(7);
    sink
}

fn written(item: &Item, more: &str) -> String {
    String::from_utf8(sink("127.0.0.1:514", more).message(item)).unwrap()
}

/// Reads a message by its length, as a receiver does.
async fn frame<R: AsyncRead + Unpin>(stream: &mut BufReader<R>) -> String {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).await.unwrap();
    let length = String::from_utf8(length).unwrap().trim_end().parse().unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.unwrap();
    String::from_utf8(message).unwrap()
}

/// Structured data as RFC 5424 6.3 has it: names and values of the one element, and what follows.
fn parsed(message: &str) -> (Vec<(String, String)>, &str) {
    let start = message.find('[').unwrap();
    let mut chars = message[start..].char_indices().skip_while(|(_, c)| *c != ' ');
    let (mut parameters, mut name, mut value) = (Vec::new(), String::new(), None::<String>);
    while let Some((at, c)) = chars.next() {
        match (&mut value, c) {
            (None, ']') => return (parameters, &message[start + at + 1..]),
            (None, '"') => value = Some(String::new()),
            (None, ' ' | '=') => {}
            (None, c) => name.push(c),
            (Some(text), '\\') => text.push(chars.next().unwrap().1),
            (Some(_), '"') => parameters.push((std::mem::take(&mut name), value.take().unwrap())),
            (Some(_), ']') => panic!("a bracket that is not escaped: {message}"),
            (Some(text), c) => text.push(c),
        }
    }
    panic!("the structured data has no end: {message}")
}

#[test]
fn a_message_of_rfc_5424() {
    assert_eq!(
        written(&item(&alert()), ""),
        "<131>1 2026-03-01T10:00:00.010002Z cp-1 lapwing 7 ALERT [lapwing@32473 \
         uuid=\"6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a\" detector=\"rbac/cluster-admin-binding\" level=\"high\" \
         rule=\"Binding to cluster-admin\" cluster=\"prod\" user=\"mirel@corp.example\" ip=\"203.0.113.9\" \
         verb=\"create\" resource=\"rbac.authorization.k8s.io/clusterrolebindings\" name=\"night-shift\" \
         outcome=\"allowed\"] mirel@corp.example bound User tariq@corp.example to cluster-admin"
    );
    assert!(written(&item(&alert()), ", facility: audit").starts_with("<107>1 "));
}

#[test]
fn a_message_in_cef() {
    let mut with_uri = alert();
    with_uri.output_fields.insert("ka.uri".into(), "/apis/x?a=b".into());
    assert_eq!(
        written(&item(&with_uri), ", format: cef"),
        format!(
            "<131>1 2026-03-01T10:00:00.010002Z cp-1 lapwing 7 ALERT - CEF:0|Lapwing|lapwing|{}|rbac/cluster-admin-binding|\
             Binding to cluster-admin|7|rt=1772359200010 externalId=6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a \
             suser=mirel@corp.example src=203.0.113.9 requestMethod=create act=create outcome=201 dhost=prod \
             cs2Label=resource cs2=rbac.authorization.k8s.io/clusterrolebindings cs3Label=name cs3=night-shift \
             request=/apis/x?a\\=b requestClientApplication=kubectl/v1.33.1 \
             msg=mirel@corp.example bound User tariq@corp.example to cluster-admin",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[test]
fn hostile_text_cannot_leave_its_place() {
    let item = item(&nasty());
    let shown = text::for_terminal(NASTY).into_owned();
    let message = written(&item, "");
    assert!(!message.chars().any(text::is_hostile), "{message}");
    let (parameters, rest) = parsed(&message);
    let user = parameters.iter().find(|(name, _)| name == "user").unwrap();
    assert_eq!(user.1, shown);
    assert_eq!(rest, format!(" {shown}"));

    let message = written(&item, ", format: cef");
    assert!(!message.chars().any(text::is_hostile), "{message}");
    let event = &message[message.find("CEF:").unwrap()..];
    // Pipes that are not escaped end the seven fields of the header; what follows are pairs.
    let mut ends = Vec::new();
    let mut is_escaped = false;
    for (at, c) in event.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '|' if ends.len() < 7 => ends.push(at),
            _ => {}
        }
    }
    let rule = &event[ends[4] + 1..ends[5]];
    assert_eq!(rule.replace("\\|", "|").replace("\\\\", "\\"), format!("Rule {shown}"));
    let values = &event[ends[6] + 1..];
    assert!(values.starts_with("rt=1772359200010 externalId="), "{values}");
    assert!(values.contains("|\\=\\\\<b>"), "{values}");
    assert!(values.contains(" src=2001:db8::1 "), "{values}");
}

#[test]
fn messages_have_a_limit() {
    let mut long = alert();
    long.output = "é".repeat(10_000);
    long.k8s.as_mut().unwrap().user = "]".repeat(10_000);
    let item = item(&long);
    for (more, limit) in [("", 8_192), (", protocol: udp", 2_048), (", protocol: udp, format: cef", 2_048)] {
        let message = written(&item, more);
        assert!(message.len() <= limit && message.len() > 500, "{more}: {}", message.len());
    }
    parsed(&written(&item, ", protocol: udp"));
}

#[tokio::test]
async fn over_tcp_and_again_after_the_receiver_was_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = sink(&listener.local_addr().unwrap().to_string(), "");
    let items = [item(&alert()), item(&nasty())];
    let messages: Vec<_> = items.iter().map(|item| String::from_utf8(sink.message(item)).unwrap()).collect();
    assert_eq!(sink.send(&items).await, [Outcome::Accepted, Outcome::Accepted]);
    let mut first = BufReader::new(listener.accept().await.unwrap().0);
    assert_eq!(frame(&mut first).await, messages[0]);
    assert_eq!(frame(&mut first).await, messages[1]);
    drop(first);
    // The end of the connection is seen before anything is written into it.
    while !sink.connection.as_mut().unwrap().is_closed().await {}
    assert_eq!(sink.send(&items[..1]).await, [Outcome::Accepted]);
    let mut second = BufReader::new(listener.accept().await.unwrap().0);
    assert_eq!(frame(&mut second).await, messages[0]);
    sink.close().await;
    assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcomes = sink(&address.to_string(), "").send(&[item(&alert())]).await;
    let [Outcome::Retry { reason, .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(reason.starts_with(&format!("cannot connect to {address}: Connection refused")), "{reason}");
}

#[tokio::test]
async fn over_udp() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut sink = sink(&receiver.local_addr().unwrap().to_string(), ", protocol: udp");
    let items = [item(&alert())];
    assert_eq!(sink.send(&items).await, [Outcome::Accepted]);
    let mut space = [0; 4_096];
    let length = receiver.recv(&mut space).await.unwrap();
    assert_eq!(&space[..length], sink.message(&items[0]));
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    for (address, more, expected) in [
        ("host", "", "`address: host` is no address: write host:port"),
        ("host:0", "", "`address: host:0` is no address"),
        ("::1:514", "", "an IPv6 address needs brackets around it"),
        ("169.254.169.254:514", "", "`address`: 169.254.169.254 is a cloud's metadata service"),
        ("h:514", ", encoding: ecs", "syslog has formats of its own"),
        ("h:514", ", tls: {ca: /x}", "`tls` is for `protocol: tls`"),
        ("h:514", ", timeout: 0s", "`timeout: 0s` leaves no time"),
        (
            "h:6514",
            ", protocol: tls, tls: {ca: /no/such}",
            "tls.ca: cannot read certificates (PEM) from /no/such",
        ),
    ] {
        let error = format!("{:#}", SyslogSink::new(&output(address, more)).unwrap_err());
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(address("[::1]:514").unwrap(), ("::1".to_owned(), 514));
}

#[tokio::test]
async fn over_tls() {
    let pki = crate::sink::tls::tests::Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = pki.acceptor();
    let files = ["ca.pem", "client.pem", "client.key"].map(|name| pki.path(name));
    let more = format!(", protocol: tls, tls: {{ca: {}, cert: {}, key: {}}}", files[0], files[1], files[2]);
    let mut sink = sink(&address, &more);
    let items = [item(&alert())];
    let receiver = async {
        let mut stream = BufReader::new(acceptor.accept(listener.accept().await.unwrap().0).await.unwrap());
        frame(&mut stream).await
    };
    let (outcomes, message) = tokio::join!(sink.send(&items), receiver);
    assert_eq!(outcomes, [Outcome::Accepted]);
    assert_eq!(message.as_bytes(), sink.message(&items[0]));
}
