//! Against real receivers, where they are installed and `LAPWING_TEST_RECEIVERS=1` asks for it: Debian's packages
//! `prometheus-alertmanager` and `rsyslog`.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::tests::{NASTY, alert, item, nasty};
use super::{Item, Outcome, Output, Transport};
use crate::text;

/// A receiver may take so long to begin or to write.
const PATIENCE: Duration = Duration::from_secs(20);

/// A receiver that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, if it is there and wanted.
fn wanted(program: &str) -> Option<PathBuf> {
    let is_wanted = std::env::var("LAPWING_TEST_RECEIVERS").is_ok_and(|value| value == "1");
    let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|place| Path::new(place).join(program));
    places.into_iter().find(|path| is_wanted && path.exists())
}

fn start(program: &Path, arguments: &[String]) -> Running {
    let quiet = || Stdio::null();
    Running(
        Command::new(program).args(arguments).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().unwrap(),
    )
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn is_up(address: SocketAddr) {
    let up = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, up).await.expect("the receiver begins");
}

async fn send(yaml: &str, items: &[Arc<Item>]) {
    let output: Output = yaml_serde::from_str(yaml).unwrap();
    let mut transport = Transport::new(&output).unwrap();
    assert_eq!(transport.send(items).await, vec![Outcome::Accepted; items.len()], "{yaml}");
    transport.close().await;
}

/// The lines of a file, once there are so many.
async fn lines(path: &Path, number: usize) -> Vec<String> {
    let there = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= number && text.ends_with('\n') {
                return text.lines().map(str::to_owned).collect();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, there).await.expect("the receiver writes")
}

#[tokio::test]
async fn alertmanager_takes_alerts() {
    let Some(program) = wanted("prometheus-alertmanager") else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: none}\nreceivers: [{name: none}]\n").unwrap();
    let address = free_port();
    let _running = start(
        &program,
        &[
            format!("--config.file={}", config.display()),
            format!("--storage.path={}", folder.path().display()),
            format!("--web.listen-address={address}"),
            "--cluster.listen-address=".to_owned(),
        ],
    );
    is_up(address).await;
    let items = [item(&alert()), item(&nasty())];
    send(&format!("{{type: http, preset: alertmanager, url: 'http://{address}'}}"), &items).await;

    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/v2/alerts HTTP/1.0\r\nHost: {address}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut response = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut response).await.unwrap();
    let alerts: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    let alerts = alerts.as_array().unwrap();
    assert_eq!(alerts.len(), 2);
    assert!(alerts.iter().all(|alert| alert["status"]["state"] == "active"), "{alerts:?}");
    let hostile = alerts.iter().find(|alert| alert["labels"]["cluster"] != "prod").unwrap();
    assert_eq!(hostile["annotations"]["user"], text::for_terminal(NASTY).into_owned());
}

/// An rsyslog that takes messages over TCP and UDP and writes what it makes of them.
fn rsyslog(program: &Path, folder: &TempDir, address: SocketAddr) -> Running {
    let (config, port, out) = (folder.path().join("rsyslog.conf"), address.port(), folder.path().join("out"));
    let text = format!(
        r#"module(load="imtcp") module(load="imudp") module(load="mmpstrucdata")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="all")
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="all")
template(name="parts" type="list") {{
  property(name="pri") constant(value="\t") property(name="timestamp" dateFormat="rfc3339") constant(value="\t")
  property(name="hostname") constant(value="\t") property(name="app-name") constant(value="\t") property(name="msgid")
  constant(value="\t") property(name="$!rfc5424-sd!lapwing@32473!user") constant(value="\t") property(name="msg")
  constant(value="\n")
}}
ruleset(name="all") {{ action(type="mmpstrucdata" sd_name.lowercase="off") action(type="omfile" file="{}" template="parts") }}
"#,
        out.display()
    );
    std::fs::write(&config, text).unwrap();
    let pid = folder.path().join("pid");
    let arguments = ["-n", "-f", &config.display().to_string(), "-i", &pid.display().to_string()];
    start(program, &arguments.map(str::to_owned))
}

#[tokio::test]
async fn rsyslog_takes_messages() {
    let Some(program) = wanted("rsyslogd") else { return };
    let folder = tempfile::tempdir().unwrap();
    let address = free_port();
    let _running = rsyslog(&program, &folder, address);
    is_up(address).await;
    let _same_port_is_taken = UdpSocket::bind(address).unwrap_err();
    let items = [item(&alert()), item(&nasty())];
    let mut number = 0;
    for protocol in ["tcp", "udp"] {
        send(
            &format!("{{type: syslog, address: '{address}', protocol: {protocol}, hostname: cp-1}}"),
            &items,
        )
        .await;
        number += items.len();
        let got = lines(&folder.path().join("out"), number).await;
        assert_eq!(got.len(), number, "{got:?}");
        let plain: Vec<_> = got[number - 2].split('\t').collect();
        assert_eq!(
            plain,
            [
                "131",
                "2026-03-01T10:00:00.010002Z",
                "cp-1",
                "lapwing",
                "ALERT",
                "mirel@corp.example",
                "mirel@corp.example bound User tariq@corp.example to cluster-admin",
            ]
        );
        let hostile: Vec<_> = got[number - 1].split('\t').collect();
        let shown = text::for_terminal(NASTY);
        assert_eq!(hostile.last(), Some(&shown.as_ref()));
        assert_eq!(hostile[5], shown);
    }
    send(&format!("{{type: syslog, address: '{address}', format: cef, hostname: cp-1}}"), &items).await;
    let got = lines(&folder.path().join("out"), number + 2).await;
    assert!(got[number].contains("CEF:0|Lapwing|lapwing|"), "{got:?}");
}
