//! A syslog receiver (RFC 5424), over TCP, TLS or UDP; the message in words, or in CEF.
//!
//! Syslog has no acknowledgement: an alert counts as accepted once the system has taken its bytes. What was under way when the
//! receiver died is lost with nobody knowing, so this is the one transport that is at most once in that moment. To lose as little
//! as possible, the connection is looked at before and after every write: a receiver that has closed it is found out, and the
//! alerts are sent again on a new one. Over UDP even a receiver that does not exist is mostly not noticed.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::encoding::Encoding;
use super::guard;
use super::output::output;
use super::tls::Tls;
use super::transport::{Item, Outcome};
use crate::units::{Span, Text};

mod cef;
mod message;

use message::Header;

/// Connecting, and each write, may take so long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a datagram.
const LONGEST_DATAGRAM: usize = 2_048;
/// Bytes of a message in a stream: what rsyslog takes unless told otherwise.
const LONGEST_MESSAGE: usize = 8_192;

output! {
    /// A syslog receiver. Syslog has no acknowledgement: what is under way when the receiver dies is lost.
    SyslogOutput {
        /// The receiver, `host:port`. Usual ports are 514, and 6514 for TLS.
        address: Text,
        /// How it is reached.
        #[serde(default)]
        protocol: Protocol,
        /// How the message is written.
        #[serde(default)]
        format: Format,
        /// Syslog's facility.
        #[serde(default)]
        facility: Facility,
        /// The host that messages are from, by default this one.
        hostname: Option<Text>,
        /// Certificates, for protocol `tls`.
        tls: Option<Tls>,
        /// How long connecting and each write may take, by default 10s.
        timeout: Option<Span>,
    }
}

/// How the receiver is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// TCP, each message with its length before it (RFC 6587).
    #[default]
    Tcp,
    /// TLS (RFC 5425).
    Tls,
    /// UDP (RFC 5426): messages are cut at 2 KB.
    Udp,
}

/// How the message is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// The alert's sentence, its values as structured data.
    #[default]
    Rfc5424,
    /// ArcSight's Common Event Format.
    Cef,
}

/// Syslog's facility.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // syslog's words
pub(crate) enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Audit = 13,
    #[default]
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// A syslog receiver.
#[derive(Debug)]
pub(crate) struct SyslogSink {
    output: SyslogOutput,
    host: String,
    port: u16,
    header: Header,
    limit: usize,
    timeout: Duration,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Udp(UdpSocket),
}

impl SyslogSink {
    pub(super) fn new(output: &SyslogOutput) -> Result<SyslogSink> {
        let (host, port) = address(&output.address.0)?;
        if output.encoding != Encoding::Native {
            bail!("syslog has formats of its own, rfc5424 and cef: leave `encoding` out");
        }
        if output.tls.is_some() && output.protocol != Protocol::Tls {
            bail!("`tls` is for `protocol: tls`: add that, or leave `tls` out");
        }
        if output.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            bail!("`timeout: 0s` leaves no time to connect: write for instance 10s");
        }
        if let Some(why) = host.parse().ok().and_then(guard::refused) {
            bail!("`address`: {host} is {why}, which is not connected to");
        }
        let limit = if output.protocol == Protocol::Udp { LONGEST_DATAGRAM } else { LONGEST_MESSAGE };
        let mut sink = SyslogSink {
            header: Header::new(output.facility as u8, output.hostname.as_ref().map(|name| name.0.as_str())),
            output: output.clone(),
            host,
            port,
            limit,
            timeout: output.timeout.map_or(TIMEOUT, |timeout| timeout.0),
            tls: None,
            connection: None,
        };
        sink.tls = sink.client()?;
        Ok(sink)
    }

    fn client(&self) -> Result<Option<Arc<ClientConfig>>> {
        if self.output.protocol != Protocol::Tls {
            return Ok(None);
        }
        let settings = self.output.tls.clone().unwrap_or_default();
        Ok(Some(Arc::new(settings.client()?)))
    }

    /// Reads certificates anew and connects anew.
    pub(super) fn reopen(&mut self) {
        match self.client() {
            Ok(tls) => (self.tls, self.connection) = (tls, None),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "an output's certificates could not be read anew"
            ),
        }
    }

    pub(super) async fn send(&mut self, items: &[Arc<Item>]) -> Vec<Outcome> {
        let messages: Vec<_> = items.iter().map(|item| self.message(item)).collect();
        // A call that is dropped in the middle of a message must not leave a connection on which the next one would be read
        // as the rest of it.
        let mut connection = match self.usable().await {
            Some(connection) => connection,
            None => match self.connected().await {
                Ok(connection) => connection,
                Err(error) => {
                    let reason = format!("cannot connect to {}:{}: {error}", self.host, self.port);
                    return Outcome::retry(reason).of_all(items.len());
                }
            },
        };
        let written = timeout(self.timeout, connection.write(&messages)).await;
        let failure = match written {
            Ok(Ok(())) if connection.is_closed().await => "the receiver has closed the connection".to_owned(),
            Ok(Ok(())) => {
                self.connection = Some(connection);
                return Outcome::Accepted.of_all(items.len());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes nothing".to_owned(),
        };
        Outcome::retry(format!("cannot write to {}:{}: {failure}", self.host, self.port)).of_all(items.len())
    }

    /// The connection that is there, if the receiver has not ended it.
    async fn usable(&mut self) -> Option<Connection> {
        let mut connection = self.connection.take()?;
        if connection.is_closed().await { None } else { Some(connection) }
    }

    /// Ends the connection in order.
    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Nobody waits for long for a receiver that does not answer; everything is written.
            let _ = timeout(self.timeout, connection.end()).await;
        }
    }

    fn message(&self, item: &Item) -> Vec<u8> {
        match self.output.format {
            Format::Rfc5424 => message::plain(&self.header, item, self.limit),
            Format::Cef => message::cef(&self.header, item, self.limit),
        }
    }

    async fn connected(&self) -> io::Result<Connection> {
        let attempt = async {
            let addresses = guard::resolve(&self.host, self.port).await?;
            if self.output.protocol == Protocol::Udp {
                return udp(&addresses).await;
            }
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else { return Ok(Connection::Tcp(stream)) };
            let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
            Ok(Connection::Tls(Box::new(stream)))
        };
        timeout(self.timeout, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

async fn udp(addresses: &[std::net::SocketAddr]) -> io::Result<Connection> {
    let is_v4 = addresses.first().is_some_and(std::net::SocketAddr::is_ipv4);
    let socket = UdpSocket::bind(if is_v4 { "0.0.0.0:0" } else { "[::]:0" }).await?;
    let same: Vec<_> = addresses.iter().filter(|address| address.is_ipv4() == is_v4).copied().collect();
    socket.connect(&same[..]).await?;
    Ok(Connection::Udp(socket))
}

impl Connection {
    async fn write(&mut self, messages: &[Vec<u8>]) -> io::Result<()> {
        match self {
            Connection::Tcp(stream) => write_stream(stream, messages).await,
            Connection::Tls(stream) => write_stream(stream, messages).await,
            Connection::Udp(socket) => {
                for message in messages {
                    socket.send(message).await?;
                }
                Ok(())
            }
        }
    }

    /// True if the receiver has ended the connection.
    async fn is_closed(&mut self) -> bool {
        match self {
            Connection::Tcp(stream) => has_ended(stream).await,
            Connection::Tls(stream) => has_ended(stream).await,
            // What came back for the last datagram: that nobody listens there.
            Connection::Udp(socket) => socket.take_error().map_or(true, |error| error.is_some()),
        }
    }

    async fn end(self) -> io::Result<()> {
        match self {
            Connection::Tcp(mut stream) => stream.shutdown().await,
            Connection::Tls(mut stream) => stream.shutdown().await,
            Connection::Udp(_) => Ok(()),
        }
    }
}

/// All messages at once, the length before each.
async fn write_stream<S: AsyncWrite + Unpin>(stream: &mut S, messages: &[Vec<u8>]) -> io::Result<()> {
    let mut frames = Vec::with_capacity(messages.iter().map(|message| message.len() + 6).sum());
    for message in messages {
        frames.extend_from_slice(format!("{} ", message.len()).as_bytes());
        frames.extend_from_slice(message);
    }
    stream.write_all(&frames).await?;
    stream.flush().await
}

/// Looks at what the receiver says, without waiting for it. Syslog says nothing, so all that can be there is the end.
async fn has_ended<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    // The runtime learns of an end only when it looks at its sockets, which it may not have done since.
    tokio::task::yield_now().await;
    poll_fn(|context| {
        let mut space = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            return Poll::Ready(match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Pending => false,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => true,
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(_)) => true,
            });
        }
    })
    .await
}

/// `host:port`, with brackets around an IPv6 address.
fn address(text: &str) -> Result<(String, u16)> {
    let wrong = || anyhow!("`address: {text}` is no address: write host:port, such as syslog.example:514");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if host.is_empty() || bare.is_none() && host.contains([':', '/', ' ']) {
        return Err(wrong())
            .context("an IPv6 address needs brackets around it, and no scheme stands before it");
    }
    Ok((bare.unwrap_or(host).to_owned(), port))
}

#[cfg(test)]
mod tests;
