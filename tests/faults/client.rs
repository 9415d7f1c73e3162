//! HTTP clients: one that does it right, as the API server's audit webhook does, and pieces to do it wrong with.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that is kept.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client that connects when it must.
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client { address, connection: None }
    }

    /// Posts a body. Returns the status, or nothing if no whole answer came.
    pub(crate) fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Option<u16> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: lapwing\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = self.exchange(head.as_bytes(), body);
        if answer.is_none() {
            self.connection = None;
        }
        Some(answer?.0)
    }

    fn exchange(&mut self, head: &[u8], body: &[u8]) -> Option<(u16, String)> {
        if self.connection.is_none() {
            self.connection = Some(BufReader::new(connect(self.address)?));
        }
        let reader = self.connection.as_mut()?;
        reader.get_mut().write_all(head).ok()?;
        reader.get_mut().write_all(body).ok()?;
        let (answer, keep) = answer(reader)?;
        if !keep {
            self.connection = None;
        }
        Some(answer)
    }
}

/// A connection with patience.
pub(crate) fn connect(address: SocketAddr) -> Option<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, Duration::from_secs(10)).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    connection.set_write_timeout(Some(Duration::from_secs(30))).ok()?;
    connection.set_nodelay(true).ok()?;
    Some(connection)
}

/// Gets a page: its status and its text.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut client = Client::new(address);
    client.exchange(
        format!("GET {path} HTTP/1.1\r\nHost: lapwing\r\nConnection: close\r\n\r\n").as_bytes(),
        b"",
    )
}

/// Reads the head of a request or an answer: its lines in small letters.
pub(crate) fn head(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Some(lines);
        }
        lines.push(line);
    }
}

/// Reads an answer, and whether the connection can be used again.
fn answer(reader: &mut BufReader<TcpStream>) -> Option<((u16, String), bool)> {
    let (mut status, mut length, mut keep) = (None, None, true);
    for line in head(reader)? {
        match line.split_once(':') {
            None => status = line.split(' ').nth(1)?.parse().ok(),
            Some(("content-length", value)) => length = value.trim().parse::<usize>().ok(),
            Some(("connection", value)) => keep = value.trim() != "close",
            Some(_) => {}
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body).ok()?;
        }
        None => {
            keep = false;
            reader.read_to_end(&mut body).ok()?;
        }
    }
    Some(((status?, String::from_utf8_lossy(&body).into_owned()), keep))
}

/// Events as the audit webhook sends them: a list whose items do not repeat what they are.
pub(crate) fn event_list(lines: &[String]) -> Vec<u8> {
    let items: Vec<String> = lines
        .iter()
        .map(|line| line.trim_end().replacen(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "", 1))
        .collect();
    let mut list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
        items.join(",")
    );
    list.push('\n');
    list.into_bytes()
}
