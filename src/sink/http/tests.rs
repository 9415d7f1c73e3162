//! Each preset against a receiver that checks what the real one checks.

use std::collections::BTreeSet;
use std::io::Read as _;

use hmac::Mac as _;

use serde_json::{Value, json};

use super::receiver::{Got, Receiver, Reply};
use detectors::alert::Group;

use super::*;
use crate::sink::tests::{NASTY, alert, item, nasty};

fn sink(preset: &str, url: &str, more: &str) -> HttpSink {
    let output: HttpOutput =
        yaml_serde::from_str(&format!("{{preset: {preset}, url: '{url}'{more}}}")).unwrap();
    HttpSink::new(&output).unwrap()
}

/// Sends to a receiver that always answers so.
async fn answered(
    preset: &str,
    more: &str,
    reply: impl Into<Reply>,
    items: &[Arc<Item>],
) -> (Vec<Outcome>, Vec<Got>) {
    let receiver = Receiver::always(reply).await;
    let outcomes = sink(preset, &receiver.url(), more).send(items).await;
    (outcomes, receiver.got())
}

/// The receiver answers with each status, and the alert is then in this state.
async fn check(preset: &str, more: &str, codes: &[(u16, &str, &str)]) {
    for (status, body, expected) in codes {
        let (outcomes, _) = answered(preset, more, (*status, *body), &[item(&alert())]).await;
        let state = match &outcomes[0] {
            Outcome::Accepted => "accepted",
            Outcome::Retry { .. } => "retry",
            Outcome::Rejected { .. } => "rejected",
        };
        assert_eq!(state, *expected, "{preset} {status} {body}: {outcomes:?}");
    }
}

/// A mistake in the configuration, and how it is told.
fn check_config(yaml: &str, expected: &str) {
    let output: HttpOutput = yaml_serde::from_str(yaml).unwrap();
    let error = format!("{:#}", HttpSink::new(&output).unwrap_err());
    assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    assert!(!error.contains("hunter2"), "{error}");
}

/// What Falcosidekick's handler checks before it takes an event, and what makes it panic.
fn as_falcosidekick(got: &Got) -> Reply {
    let event: Value = match serde_json::from_slice(&got.body) {
        Ok(event) if got.method == "POST" && got.headers["content-type"] == "application/json" => event,
        _ => return (400, "Please send with POST http method").into(),
    };
    let priorities =
        ["emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"];
    let has = |key: &str| event[key].as_str().is_some_and(|text| !text.is_empty());
    let priority = event["priority"].as_str().unwrap_or_default().to_ascii_lowercase();
    let time = event["time"].as_str().unwrap_or_default();
    let fields = event["output_fields"].as_object();
    let strings = |key: &str| event["output_fields"].get(key).is_none_or(Value::is_string);
    let is_valid = priorities.contains(&priority.as_str())
        && has("rule")
        && chrono::DateTime::parse_from_rfc3339(time).is_ok()
        && fields.is_some_and(|fields| !fields.is_empty());
    assert!(strings("k8s.ns.name") && strings("k8s.pod.name"), "falcosidekick would panic");
    if is_valid { 200.into() } else { (400, "Please send a valid request body").into() }
}

#[tokio::test]
async fn falcosidekick() {
    let receiver = Receiver::new(as_falcosidekick).await;
    let items: Vec<_> = (0..10).map(|n| item(&if n % 2 == 0 { alert() } else { nasty() })).collect();
    let outcomes = sink("falcosidekick", &receiver.url(), "").send(&items).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted), "{outcomes:?}");
    let got = receiver.got();
    assert_eq!(got.len(), 10);
    let lines: BTreeSet<_> = items.iter().map(|item| item.line.clone()).collect();
    assert_eq!(got.iter().map(|got| got.text().to_owned()).collect::<BTreeSet<_>>(), lines);
    assert!(got.iter().all(|got| got.path == "/"));
    let mut empty = alert();
    empty.output_fields.clear();
    let outcomes = sink("falcosidekick", &receiver.url(), "").send(&[item(&empty)]).await;
    let expected = "400 Bad Request: Please send a valid request body";
    assert_eq!(outcomes, [Outcome::Rejected { reason: expected.into() }]);
    check(
        "falcosidekick",
        "",
        &[
            (200, "", "accepted"),
            (204, "", "retry"),
            (400, "", "rejected"),
            (401, "", "retry"),
            (429, "", "retry"),
            (500, "", "retry"),
            (503, "", "retry"),
        ],
    )
    .await;
}

#[tokio::test]
async fn one_request_after_the_other_keeps_the_order() {
    let receiver = Receiver::always(200).await;
    let items: Vec<_> = (0..20)
        .map(|n| {
            let mut alert = alert();
            alert.count = Some(n);
            item(&alert)
        })
        .collect();
    sink("webhook", &receiver.url(), ", concurrency: 1").send(&items).await;
    let counts: Vec<_> = receiver.got().iter().map(|got| got.json()["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn webhook() {
    let (outcomes, got) = answered("webhook", "", 204, &[item(&alert())]).await;
    assert_eq!(outcomes, [Outcome::Accepted]);
    assert_eq!((got[0].method.as_str(), got[0].path.as_str()), ("POST", "/"));
    assert_eq!(got[0].headers["content-type"], "application/json");
    assert_eq!(got[0].headers["user-agent"], concat!("lapwing/", env!("CARGO_PKG_VERSION")));
    assert_eq!(got[0].text(), item(&alert()).line);
    check(
        "webhook",
        "",
        &[
            (200, "", "accepted"),
            (204, "", "accepted"),
            (301, "", "retry"),
            (400, "", "rejected"),
            (401, "", "rejected"),
            (404, "", "rejected"),
            (408, "", "retry"),
            (410, "", "rejected"),
            (425, "", "retry"),
            (429, "", "retry"),
            (500, "", "retry"),
            (503, "", "retry"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_webhook_gets_what_the_operator_says() {
    let more = r#", method: PUT, content_type: application/vnd.x+json, headers: {X-Team: blue}, auth: {basic: {user: u, password: p}},
        body: '{"who": "${k8s.user}", "level": ${level}, "raw": "${output_fields.ka.useragent}"}', sign: {secret: s3cret}"#;
    let (outcomes, got) = answered("webhook", more, 200, &[item(&nasty())]).await;
    assert_eq!(outcomes, [Outcome::Accepted]);
    let got = &got[0];
    assert_eq!(got.method, "PUT");
    assert_eq!(got.headers["content-type"], "application/vnd.x+json");
    assert_eq!(got.headers["x-team"], "blue");
    assert_eq!(got.headers["authorization"], "Basic dTpw");
    assert_eq!(got.json(), json!({"who": NASTY, "level": "high", "raw": NASTY}));
    assert_eq!(got.headers["webhook-id"], "msg_6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a");
    // Verified as a receiver does it, with nothing of the signer.
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"s3cret").unwrap();
    mac.update(
        format!("{}.{}.{}", got.headers["webhook-id"], got.headers["webhook-timestamp"], got.text())
            .as_bytes(),
    );
    let signature = got.headers["webhook-signature"].strip_prefix("v1,").unwrap();
    let signature = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature).unwrap();
    mac.verify_slice(&signature).unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_tried_again() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/secret-path?token=hunter2");
    let outcomes = sink("webhook", &url, "").send(&[item(&alert()), item(&alert())]).await;
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        let Outcome::Retry { reason, .. } = outcome else { panic!("{outcome:?}") };
        assert!(reason.starts_with("cannot connect: ") && !reason.contains("hunter2"), "{reason}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let outcomes = sink("webhook", &url, ", timeout: 50ms").send(&[item(&alert())]).await;
    assert_eq!(outcomes, [Outcome::Retry { after: None, reason: "no answer in time".into() }]);
}

#[tokio::test]
async fn once_it_is_down_no_further_request_is_begun() {
    let receiver = Receiver::always(503).await;
    let items = vec![item(&alert()); 30];
    let outcomes = sink("webhook", &receiver.url(), ", concurrency: 1").send(&items).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry { .. })));
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test]
async fn it_waits_as_long_as_it_is_asked_to() {
    let reply = Reply(429, vec![("retry-after", "7".into())], String::new());
    let (outcomes, _) = answered("webhook", "", reply, &[item(&alert())]).await;
    let after = Some(Duration::from_secs(7));
    assert_eq!(outcomes, [Outcome::Retry { after, reason: "429 Too Many Requests".into() }]);
}

#[tokio::test]
async fn redirects_are_not_followed_and_long_answers_not_read() {
    let elsewhere = Receiver::always(200).await;
    let reply = Reply(307, vec![("location", elsewhere.url())], String::new());
    let (outcomes, _) = answered("webhook", "", reply, &[item(&alert())]).await;
    assert!(
        matches!(&outcomes[0], Outcome::Retry { reason, .. } if reason.contains("not followed")),
        "{outcomes:?}"
    );
    assert_eq!(elsewhere.got().len(), 0);
    let (outcomes, _) =
        answered("webhook", "", (200, "x".repeat(10 << 20).as_str()), &[item(&alert())]).await;
    assert_eq!(outcomes, [Outcome::Accepted]);
}

#[tokio::test]
async fn secrets_are_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "one\n").unwrap();
    let receiver = Receiver::always(200).await;
    let more = format!(", auth: {{bearer: 'file:{}'}}", token.display());
    let mut sink = sink("webhook", &receiver.url(), &more);
    sink.send(&[item(&alert())]).await;
    std::fs::write(&token, "two\n").unwrap();
    sink.send(&[item(&alert())]).await;
    let tokens: Vec<_> = receiver.got().iter().map(|got| got.headers["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer one", "Bearer two"]);
    std::fs::remove_file(&token).unwrap();
    assert!(matches!(sink.send(&[item(&alert())]).await[0], Outcome::Retry { .. }));
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    for (yaml, expected) in [
        ("{preset: webhook}", "preset webhook needs a `url`"),
        (
            "{preset: webhook, url: 'hunter2'}",
            "url: this is no URL (relative URL without a base); write http://HOST:PORT",
        ),
        ("{preset: webhook, url: 'ftp://u:hunter2@h/x'}", "url: ftp://h is neither http:// nor https://"),
        (
            "{preset: webhook, url: 'http://169.254.169.254/hunter2'}",
            "url: http://169.254.169.254 is a cloud's metadata service",
        ),
        (
            "{preset: webhook, url: 'http://0xA9FEA9FE/'}",
            "url: http://169.254.169.254 is a cloud's metadata service",
        ),
        (
            "{preset: webhook, url: 'http://[::ffff:169.254.169.254]/'}",
            "url: http://[::ffff:a9fe:a9fe] is a cloud's metadata service",
        ),
        (
            "{preset: webhook, url: 'http://h', index: x}",
            "`index` is no option of preset webhook but of opensearch: leave it out",
        ),
        (
            "{preset: falcosidekick, url: 'http://h', encoding: ocsf}",
            "preset falcosidekick has a format of its own",
        ),
        ("{preset: webhook, url: 'http://h', auth: {}}", "`auth` is either `bearer: TOKEN` or `basic"),
        (
            "{preset: webhook, url: 'http://h', headers: {Host: x}}",
            "headers.Host: this header is written by Lapwing itself",
        ),
        (
            "{preset: webhook, url: 'http://h', headers: {X: \"hunter2\\n\"}}",
            "headers.X: a header holds one line",
        ),
        (
            "{preset: webhook, url: 'http://h', method: GET}",
            "`method`: a request with a body is POST, PUT or PATCH",
        ),
        ("{preset: webhook, url: 'http://h', concurrency: 0}", "`concurrency: 0`: 1 to 64"),
        ("{preset: webhook, url: 'http://h', timeout: 0s}", "`timeout: 0s` leaves no time"),
        (
            "{preset: webhook, url: 'http://h', body: '${rle}'}",
            "body: `${rle}`: an alert has no `rle`; did you mean `rule`?",
        ),
        (
            "{preset: webhook, url: 'https://h', tls: {ca: /no/such.pem}}",
            "tls.ca: cannot read certificates (PEM) from /no/such.pem",
        ),
        (
            "{preset: webhook, url: 'https://h', tls: {ca: /dev/null}}",
            "tls.ca: /dev/null holds no certificate",
        ),
        ("{preset: webhook, url: 'http://h', proxy: ':hunter2'}", "proxy: this is no URL of a proxy"),
    ] {
        check_config(yaml, expected);
    }
}

/// What Alertmanager checks of a posted alert (API v2): names of labels, times, that something is there.
fn as_alertmanager(got: &Got) -> Reply {
    let Ok(Value::Array(alerts)) = serde_json::from_slice(&got.body) else { return (400, "no list").into() };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    for alert in &alerts {
        let time =
            |key: &str| chrono::DateTime::parse_from_rfc3339(alert[key].as_str().unwrap_or_default()).ok();
        let labels = alert["labels"].as_object().unwrap();
        let are_named =
            labels.keys().chain(alert["annotations"].as_object().unwrap().keys()).all(|key| is_name(key));
        let are_texts = labels.values().all(|value| value.as_str().is_some_and(|text| !text.is_empty()));
        let ends = time("startsAt").zip(time("endsAt")).is_some_and(|(start, end)| start < end);
        if labels.is_empty() || !are_named || !are_texts || !ends {
            return (400, "invalid alert").into();
        }
    }
    200.into()
}

#[tokio::test]
async fn alertmanager() {
    let (first, second) = (Receiver::new(as_alertmanager).await, Receiver::new(as_alertmanager).await);
    let mut sink = sink("alertmanager", &first.url(), &format!(", peers: ['{}'], hold: 30m", second.url()));
    let mut ahead = alert();
    ahead.time = "2999-01-01T00:00:00.000000000Z".into();
    let items = [item(&alert()), item(&nasty()), item(&ahead)];
    assert_eq!(sink.send(&items).await, Outcome::Accepted.of_all(3));
    let got = first.got();
    assert_eq!((got.len(), got[0].path.as_str(), got[0].method.as_str()), (1, "/api/v2/alerts", "POST"));
    let posted = got[0].json();
    assert_eq!(
        posted[0]["labels"],
        json!({
            "alertname": "Binding to cluster-admin", "severity": "error", "level": "high", "cluster": "prod",
            "detector": "rbac/cluster-admin-binding", "source": "k8s_audit",
        })
    );
    assert_eq!(posted[0]["startsAt"], "2026-03-01T10:00:00.010002000Z");
    assert_eq!(posted[0]["annotations"]["user"], "mirel@corp.example");
    assert_eq!(posted[0]["annotations"]["audit_id"], "0b7c");
    assert_eq!(second.got()[0].json(), posted);
    check(
        "alertmanager",
        "",
        &[
            (200, "", "accepted"),
            (202, "", "retry"),
            (400, "", "rejected"),
            (401, "", "rejected"),
            (404, "", "rejected"),
            (500, "", "retry"),
        ],
    )
    .await;
}

#[tokio::test]
async fn one_alertmanager_of_several_is_enough() {
    let (down, up) = (Receiver::always(503).await, Receiver::always(200).await);
    let items = [item(&alert())];
    let mut sink = sink("alertmanager", &down.url(), &format!(", peers: ['{}']", up.url()));
    assert_eq!(sink.send(&items).await, [Outcome::Accepted]);
    assert_eq!((down.got().len(), up.got().len()), (1, 1));
}

/// What Slack checks of a message: <https://docs.slack.dev/reference/block-kit/blocks>.
fn as_slack(got: &Got) -> Reply {
    fn texts(value: &Value, is_header: bool) -> bool {
        match value {
            Value::Object(map) if map.get("type") == Some(&json!("plain_text")) => {
                let text = map["text"].as_str().unwrap();
                let length = text.chars().count();
                assert!(
                    !text
                        .replace("&amp;", "")
                        .replace("&lt;", "")
                        .replace("&gt;", "")
                        .contains(['&', '<', '>']),
                    "{text}"
                );
                length > 0 && length <= if is_header { 150 } else { 3_000 }
            }
            Value::Object(map) => {
                let is_header = map.get("type") == Some(&json!("header"));
                assert!(map.get("type") != Some(&json!("mrkdwn")), "formatted text of an event");
                map.values().all(|value| texts(value, is_header))
            }
            Value::Array(items) => items.iter().all(|value| texts(value, is_header)),
            _ => true,
        }
    }
    let message = got.json();
    let blocks = message["blocks"].as_array().unwrap();
    let contexts = blocks.iter().filter_map(|block| block["elements"].as_array());
    let fits = blocks.len() <= 50 && contexts.into_iter().all(|elements| (1..=10).contains(&elements.len()));
    let is_quiet = message["unfurl_links"] == false && message["unfurl_media"] == false;
    if fits && is_quiet && texts(&message["blocks"], false) {
        (200, "ok").into()
    } else {
        (400, "invalid_blocks").into()
    }
}

#[tokio::test]
async fn slack() {
    let receiver = Receiver::new(as_slack).await;
    let mut sink = sink("slack", &format!("{}/services/T0/B0/hunter2", receiver.url()), "");
    let few = [item(&alert()), item(&nasty())];
    assert_eq!(sink.send(&few).await, Outcome::Accepted.of_all(2));
    let got = receiver.got();
    assert_eq!(got[0].path, "/services/T0/B0/hunter2");
    assert_eq!(got[0].json()["blocks"][0]["text"]["text"], "high: Binding to cluster-admin");
    assert!(!got[0].text().contains("<!here>") && got[0].text().contains("&lt;!here&gt;"));
    // The next message would come a second later.
    let mut sink = self::sink("slack", &receiver.url(), "");
    let many: Vec<_> = (0..100).map(|n| item(&if n % 9 == 0 { nasty() } else { alert() })).collect();
    assert_eq!(sink.send(&many).await, Outcome::Accepted.of_all(100));
    let blocks = &receiver.got()[0].json()["blocks"];
    assert_eq!(blocks[0]["text"]["text"], "100 alerts, the worst is high");
    assert!(
        blocks[1]["text"]["text"].as_str().unwrap().starts_with("100 × high (rbac/cluster-admin-binding): ")
    );
    check(
        "slack",
        "",
        &[
            (200, "ok", "accepted"),
            (200, "no", "rejected"),
            (400, "invalid_payload", "rejected"),
            (403, "action_prohibited", "rejected"),
            (404, "no_service", "rejected"),
            (410, "channel_is_archived", "rejected"),
            (429, "", "retry"),
            (500, "", "retry"),
        ],
    )
    .await;
}

/// What PagerDuty checks of an event: <https://developer.pagerduty.com/docs/send-alert-event>.
fn as_pagerduty(got: &Got) -> Reply {
    let event = got.json();
    let chars =
        |pointer: &str| event.pointer(pointer).and_then(Value::as_str).map(|text| text.chars().count());
    let is_valid = chars("/routing_key") == Some(32)
        && event["event_action"] == "trigger"
        && chars("/dedup_key").is_some_and(|length| (1..=255).contains(&length))
        && chars("/payload/summary").is_some_and(|length| (1..=1_024).contains(&length))
        && chars("/payload/source").is_some_and(|length| length > 0)
        && ["critical", "error", "warning", "info"].contains(&event["payload"]["severity"].as_str().unwrap())
        && got.body.len() <= 512 << 10;
    if is_valid {
        (202, r#"{"status":"success"}"#).into()
    } else {
        (400, r#"{"status":"invalid event"}"#).into()
    }
}

#[tokio::test]
async fn pagerduty() {
    let receiver = Receiver::new(as_pagerduty).await;
    let key = ", routing_key: 0123456789abcdef0123456789abcdef";
    let mut long = nasty();
    long.output = NASTY.repeat(100);
    let mut sink = sink("pagerduty", &receiver.url(), key);
    assert_eq!(sink.send(&[item(&long)]).await, [Outcome::Accepted]);
    let event = &receiver.got()[0];
    assert_eq!(event.path, "/v2/enqueue");
    let mut followed = (*item(&alert())).clone();
    let first_seen = "2026-03-01T10:00:00Z".to_owned();
    followed.alert.group = Some(Group { count: 9, last_seen: first_seen.clone(), first_seen });
    let mut sink = self::sink("pagerduty", &receiver.url(), key);
    assert_eq!(sink.send(&[Arc::new(followed)]).await, [Outcome::Accepted]);
    let event = receiver.got()[0].json();
    assert_eq!(
        (&event["dedup_key"], &event["payload"]["custom_details"]["count"]),
        (&json!(crate::sink::group_key(&alert())), &json!(9))
    );
    assert_eq!(event["payload"]["severity"], "error");
    check(
        "pagerduty",
        key,
        &[
            (202, "", "accepted"),
            (200, "", "retry"),
            (400, "", "rejected"),
            (429, "", "retry"),
            (500, "", "retry"),
        ],
    )
    .await;
    check_config("{preset: pagerduty}", "preset pagerduty needs a `routing_key`");
    check_config(
        "{preset: pagerduty, routing_key: hunter2}",
        "routing_key: the key of an Events API v2 integration has 32",
    );
}

#[tokio::test]
async fn opensearch() {
    let receiver = Receiver::new(|got| {
        assert!(got.text().ends_with('\n'));
        let lines: Vec<Value> = got.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let statuses = [201, 409, 429, 400];
        let items: Vec<_> = lines
            .chunks(2)
            .zip(statuses)
            .map(|(pair, status)| {
                assert_eq!(pair[0]["create"]["_index"], "alerts-k8s");
                assert_eq!(pair[0]["create"]["_id"], pair[1]["uuid"]);
                assert!(pair[1]["@timestamp"].is_string());
                let fields = pair[1]["output_fields"].as_object().unwrap();
                assert!(fields.keys().all(|key| !key.contains('.')), "{fields:?}");
                match status {
                    201 => json!({"create": {"status": 201}}),
                    _ => json!({"create": {"status": status, "error": {"type": "mapper_parsing_exception"}}}),
                }
            })
            .collect();
        Reply(200, Vec::new(), json!({"errors": true, "items": items}).to_string())
    })
    .await;
    let items = [item(&alert()), item(&alert()), item(&alert()), item(&nasty())];
    let outcomes = sink("opensearch", &receiver.url(), ", index: alerts-k8s").send(&items).await;
    assert_eq!(
        outcomes,
        [
            Outcome::Accepted,
            Outcome::Accepted,
            Outcome::retry("429 mapper_parsing_exception"),
            Outcome::rejected("400 mapper_parsing_exception"),
        ]
    );
    let got = &receiver.got()[0];
    assert_eq!(got.path, "/_bulk?filter_path=errors%2Citems.*.status%2Citems.*.error.type");
    assert_eq!(got.headers["content-type"], "application/x-ndjson");
    check(
        "opensearch",
        "",
        &[
            (200, r#"{"errors":false}"#, "accepted"),
            (200, "<html>", "retry"),
            (400, "", "rejected"),
            (401, "", "retry"),
            (429, "", "retry"),
            (503, "", "retry"),
        ],
    )
    .await;
    check_config(
        "{preset: opensearch, url: 'http://h', index: Alerts}",
        "`index: Alerts` is no name of an index",
    );
}

#[tokio::test]
async fn documents_in_other_encodings() {
    for (encoding, pointer) in [("ecs", "/event/id"), ("ocsf", "/finding_info/uid")] {
        let more = format!(", encoding: {encoding}");
        let (_, got) = answered("opensearch", &more, (200, r#"{"errors":false}"#), &[item(&nasty())]).await;
        let document: Value = serde_json::from_str(got[0].text().lines().nth(1).unwrap()).unwrap();
        assert_eq!(document.pointer(pointer).unwrap(), "6a1d7a0e-0c0e-5d4f-9d55-0a4e3f7c1b2a");
        assert_eq!(document["@timestamp"], "2026-03-01T10:00:00.010002000Z");
        assert_eq!(document.pointer("/unmapped/output_fields/ka.verb"), None);
    }
}

/// What Loki checks of a push.
fn as_loki(got: &Got) -> Reply {
    for stream in got.json()["streams"].as_array().unwrap() {
        let labels = stream["stream"].as_object().unwrap();
        let is_name = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        assert!(labels.len() <= 15 && labels.keys().all(is_name) && labels.values().all(Value::is_string));
        for entry in stream["values"].as_array().unwrap() {
            assert!(entry[0].as_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000_000_000_000);
            assert!(entry[1].is_string() && entry[2].as_object().unwrap().values().all(Value::is_string));
        }
    }
    204.into()
}

#[tokio::test]
async fn loki() {
    let receiver = Receiver::new(as_loki).await;
    let mut sink = sink("loki", &receiver.url(), ", tenant: team-a, labels: {env: dev}");
    let mut earlier = alert();
    earlier.time = "2026-03-01T09:00:00.000000000Z".into();
    let items = [item(&alert()), item(&nasty()), item(&earlier)];
    assert_eq!(sink.send(&items).await, Outcome::Accepted.of_all(3));
    let got = &receiver.got()[0];
    assert_eq!((got.path.as_str(), got.headers["x-scope-orgid"].as_str()), ("/loki/api/v1/push", "team-a"));
    let streams = got.json()["streams"].clone();
    assert_eq!(streams.as_array().unwrap().len(), 2);
    let prod =
        streams.as_array().unwrap().iter().find(|stream| stream["stream"]["cluster"] == "prod").unwrap();
    assert_eq!(
        prod["stream"],
        json!({"app": "lapwing", "cluster": "prod", "env": "dev", "level": "high", "priority": "error", "source": "k8s_audit"})
    );
    assert_eq!(prod["values"][0][0], "1772355600000000000");
    assert_eq!(prod["values"][1][0], "1772359200010002000");
    assert_eq!(prod["values"][1][1], items[0].line);
    assert_eq!(prod["values"][1][2]["detector"], "rbac/cluster-admin-binding");
    check(
        "loki",
        "",
        &[
            (204, "", "accepted"),
            (200, "", "retry"),
            (400, "", "rejected"),
            (401, "", "retry"),
            (429, "", "retry"),
            (500, "", "retry"),
        ],
    )
    .await;
    check_config("{preset: loki, url: 'http://h', labels: {a-b: c}}", "labels: `a-b` is no name of a label");
    check_config(
        "{preset: loki, url: 'http://h', labels: {app: c}}",
        "labels.app: this label is set by Lapwing itself",
    );
}

#[tokio::test]
async fn loki_with_the_time_of_sending() {
    let (_, got) = answered("loki", ", timestamps: now", 204, &[item(&alert())]).await;
    let moment = got[0].json()["streams"][0]["values"][0][0].as_str().unwrap().parse::<Nanos>().unwrap();
    assert!((now() - moment).abs() < 60 * detectors::event::time::SECOND);
}

/// What a collector checks of OTLP in JSON: numbers of 64 bits are texts, attributes have one value.
fn as_collector(got: &Got) -> Reply {
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&got.body[..]).read_to_end(&mut body).unwrap();
    let logs: Value = serde_json::from_slice(&body).unwrap();
    for resource in logs["resourceLogs"].as_array().unwrap() {
        for record in resource["scopeLogs"][0]["logRecords"].as_array().unwrap() {
            for time in ["timeUnixNano", "observedTimeUnixNano"] {
                assert!(record[time].as_str().unwrap().parse::<u64>().is_ok());
            }
            assert!((1..=24).contains(&record["severityNumber"].as_u64().unwrap()));
            for attribute in record["attributes"].as_array().unwrap() {
                let value = attribute["value"].as_object().unwrap();
                assert!(attribute["key"].is_string() && value.len() == 1);
                assert!(value.get("intValue").is_none_or(Value::is_string), "{value:?}");
            }
        }
    }
    (200, "{}").into()
}

#[tokio::test]
async fn otlp() {
    let receiver = Receiver::new(as_collector).await;
    let mut sink = sink("otlp", &receiver.url(), ", gzip: true");
    assert_eq!(sink.send(&[item(&alert()), item(&nasty())]).await, Outcome::Accepted.of_all(2));
    let got = &receiver.got()[0];
    assert_eq!((got.path.as_str(), got.headers["content-encoding"].as_str()), ("/v1/logs", "gzip"));
    let partial = r#"{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "no"}}"#;
    check(
        "otlp",
        "",
        &[
            (200, "{}", "accepted"),
            (200, "", "accepted"),
            (200, partial, "rejected"),
            (200, r#"{"partialSuccess": {}}"#, "accepted"),
            (202, "", "retry"),
            (400, "", "rejected"),
            (401, "", "rejected"),
            (429, "", "retry"),
            (500, "", "rejected"),
            (502, "", "retry"),
            (503, "", "retry"),
            (504, "", "retry"),
        ],
    )
    .await;
}

#[tokio::test]
async fn one_alert_does_not_condemn_its_neighbours() {
    let receiver =
        Receiver::new(|got| if got.text().contains("poison") { 400.into() } else { 204.into() }).await;
    let items: Vec<_> = (0..9)
        .map(|n| {
            let mut alert = alert();
            if n == 5 {
                alert.rule = "poison".into();
            }
            item(&alert)
        })
        .collect();
    let outcomes = sink("loki", &receiver.url(), "").send(&items).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(*outcome == Outcome::Accepted, n != 5, "{outcomes:?}");
    }
}

/// The names under which a receiver is resolved are guarded, and a certificate is checked against the given authority.
#[tokio::test]
async fn tls_with_both_sides_known() {
    let pki = crate::sink::tls::tests::Pki::new();
    let address = pki.serve_http().await;
    let url = format!("https://localhost:{}", address.port());
    let ca = pki.path("ca.pem");
    let mutual =
        format!(", tls: {{ca: {ca}, cert: {}, key: {}}}", pki.path("client.pem"), pki.path("client.key"));
    let items = [item(&alert())];
    let mut sink = sink("webhook", &url, &mutual);
    assert_eq!(sink.send(&items).await, [Outcome::Accepted]);
    sink.reopen();
    assert_eq!(sink.send(&items).await, [Outcome::Accepted]);
    for more in [format!(", tls: {{ca: {ca}}}"), format!(", tls: {{ca: {}}}", pki.path("client.pem"))] {
        let outcomes = self::sink("webhook", &url, &more).send(&items).await;
        assert!(matches!(outcomes[0], Outcome::Retry { .. }), "{more}: {outcomes:?}");
    }
    let wrong = format!("{{preset: webhook, url: '{url}', tls: {{ca: {ca}, cert: {ca}}}}}");
    check_config(&wrong, "tls: `cert` needs its private key");
}
