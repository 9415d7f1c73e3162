//! Settings of a receiver of HTTP requests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preset::Preset;
use super::shown;
use super::sign::Sign;
use crate::sink::output::output;
use crate::sink::tls::Tls;
use crate::sink::{Encoding, guard};
use crate::units::{Secret, Span};

/// A request may take so long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most requests at a time.
const MOST_CONCURRENT: usize = 64;
/// Headers that the engine itself writes.
const OWN_HEADERS: [&str; 6] =
    ["host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection"];

output! {
    /// A receiver of HTTP requests. Redirects are not followed, proxies are used only if named here, and the metadata services
    /// of clouds are not connected to.
    HttpOutput {
        /// What kind of receiver it is: says what is sent and what the answers mean.
        preset: Preset,
        /// Where it is. A URL without a path gets the receiver's usual one. Needed for all but `pagerduty`.
        url: Option<Secret>,
        /// `alertmanager`: the other members of its cluster. Every one gets every alert; one that takes it is enough.
        #[serde(default)]
        peers: Vec<Secret>,
        /// Who asks.
        auth: Option<Auth>,
        /// Headers to be added.
        #[serde(default)]
        headers: BTreeMap<String, Secret>,
        /// Certificates.
        #[serde(default)]
        tls: Tls,
        /// A proxy, `http://host:port`. What stands behind it is not checked.
        proxy: Option<Secret>,
        /// How long a request may take, by default 10s.
        timeout: Option<Span>,
        /// Requests at a time, for receivers that take one alert a request (`falcosidekick` and `webhook`: 4 by default). With
        /// more than one, alerts that are sent at the same time arrive in any order; 1 keeps it.
        #[schemars(range(min = 1, max = 64))]
        concurrency: Option<usize>,
        /// Compress requests: `opensearch`, `loki`, `otlp`, and a `webhook` whose receiver can read it.
        #[serde(default)]
        gzip: bool,
        /// `webhook`: the method, by default POST.
        method: Option<String>,
        /// `webhook`: the type of the body, by default application/json.
        content_type: Option<String>,
        /// `webhook`: the body, with `${rule}`, `${k8s.user}` and the like in the places of the alert's values; by default
        /// the alert itself. In JSON, a value inside quotes is escaped, one outside brings its own.
        body: Option<String>,
        /// `webhook`: proves that the body is ours.
        sign: Option<Sign>,
        /// `pagerduty`: the integration's key.
        routing_key: Option<Secret>,
        /// `alertmanager`: how long an alert lasts unless it is repeated, by default 1h.
        hold: Option<Span>,
        /// `opensearch`: the index or data stream, by default lapwing-alerts.
        index: Option<String>,
        /// `loki`: the tenant, sent as X-Scope-OrgID.
        tenant: Option<String>,
        /// `loki`: labels to be added, at most 10.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// `loki`: the time of an entry. `now` is for a server that refuses old entries.
        timestamps: Option<Timestamps>,
    }
}

/// The time of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Timestamps {
    /// When it happened.
    #[default]
    Event,
    /// When it is sent.
    Now,
}

/// Who asks: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `bearer` or `basic`")]
pub(crate) struct Auth {
    /// A token.
    pub(crate) bearer: Option<Secret>,
    /// A user and a password.
    pub(crate) basic: Option<Basic>,
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `user` and `password`")]
pub(crate) struct Basic {
    /// The user.
    pub(crate) user: Secret,
    /// The password.
    pub(crate) password: Secret,
}

/// The secrets of a request, as they are now.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) sign: Option<super::sign::Keys>,
    pub(super) routing_key: Option<String>,
}

impl HttpOutput {
    /// Options that are there, and the presets that have them.
    fn special(&self) -> [(&'static str, bool, &'static [Preset]); 12] {
        use Preset::{Alertmanager, Loki, Opensearch, Otlp, Pagerduty, Webhook};
        [
            ("peers", !self.peers.is_empty(), &[Alertmanager]),
            ("gzip", self.gzip, &[Opensearch, Loki, Otlp, Webhook]),
            ("method", self.method.is_some(), &[Webhook]),
            ("content_type", self.content_type.is_some(), &[Webhook]),
            ("body", self.body.is_some(), &[Webhook]),
            ("sign", self.sign.is_some(), &[Webhook]),
            ("routing_key", self.routing_key.is_some(), &[Pagerduty]),
            ("hold", self.hold.is_some(), &[Alertmanager]),
            ("index", self.index.is_some(), &[Opensearch]),
            ("tenant", self.tenant.is_some(), &[Loki]),
            ("labels", !self.labels.is_empty(), &[Loki]),
            ("timestamps", self.timestamps.is_some(), &[Loki]),
        ]
    }

    /// Refuses what does not belong to the preset.
    pub(super) fn check(&self) -> Result<()> {
        let preset = self.preset;
        for (option, is_there, of) in self.special() {
            if is_there && !of.contains(&preset) {
                let of: Vec<_> = of.iter().map(|preset| preset.name()).collect();
                bail!(
                    "`{option}` is no option of preset {} but of {}: leave it out",
                    preset.name(),
                    of.join(", ")
                );
            }
        }
        if self.encoding != Encoding::Native && !preset.takes_encodings() {
            bail!("preset {} has a format of its own: leave `encoding` out", preset.name());
        }
        if self.encoding != Encoding::Native && self.body.is_some() {
            bail!("`body` says what is sent: leave `encoding` out");
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            bail!("`timeout: 0s` leaves no time for an answer: write for instance 10s");
        }
        match self.concurrency {
            Some(number) if !(1..=MOST_CONCURRENT).contains(&number) => {
                bail!("`concurrency: {number}`: 1 to {MOST_CONCURRENT} requests at a time are possible")
            }
            Some(number) if number > 1 && !preset.is_concurrent() => {
                bail!("preset {} sends one request at a time: leave `concurrency` out", preset.name())
            }
            _ => Ok(()),
        }
    }

    /// Where requests go.
    pub(super) fn targets(&self) -> Result<Vec<Url>> {
        let first = match (&self.url, self.preset.usual_url()) {
            (Some(url), _) => url.reveal().context("url")?,
            (None, Some(usual)) => usual.to_owned(),
            (None, None) => bail!("preset {} needs a `url`", self.preset.name()),
        };
        let mut targets = vec![self.target(&first).context("url")?];
        for peer in &self.peers {
            targets.push(self.target(&peer.reveal().context("peers")?).context("peers")?);
        }
        Ok(targets)
    }

    fn target(&self, text: &str) -> Result<Url> {
        // The text is not shown: it may hold a secret.
        let mut url = Url::parse(text.trim())
            .map_err(|error| anyhow!("this is no URL ({error}); write http://HOST:PORT or https://HOST"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            bail!("{} is neither http:// nor https://", shown(&url));
        }
        let literal = url.host_str().unwrap_or_default().trim_matches(['[', ']']).parse();
        if let Some(why) = literal.ok().and_then(guard::refused) {
            bail!("{} is {why}, which is not connected to", shown(&url));
        }
        if url.path() == "/" {
            url.set_path(self.preset.usual_path());
        }
        if let Some(query) = self.preset.query() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// The method.
    pub(super) fn method(&self) -> Result<Method> {
        let Some(method) = &self.method else { return Ok(Method::POST) };
        match method.to_ascii_uppercase().as_str() {
            "POST" => Ok(Method::POST),
            "PUT" => Ok(Method::PUT),
            "PATCH" => Ok(Method::PATCH),
            _ => bail!("`method`: a request with a body is POST, PUT or PATCH"),
        }
    }

    /// How long a request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }

    /// Requests at a time.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(if self.preset.is_concurrent() { 4 } else { 1 })
    }

    /// The secrets, read anew.
    pub(super) fn credentials(&self) -> Result<Credentials> {
        let mut headers = Vec::new();
        if let Some(auth) = &self.auth {
            headers.push((AUTHORIZATION, hidden("auth", &auth.header()?)?));
        }
        for (name, value) in &self.headers {
            let option = format!("headers.{name}");
            let header: HeaderName =
                name.parse().map_err(|_| anyhow!("{option}: this is no name of a header"))?;
            if OWN_HEADERS.contains(&header.as_str()) {
                bail!("{option}: this header is written by Lapwing itself: leave it out");
            }
            if header == AUTHORIZATION && self.auth.is_some() {
                bail!("{option}: `auth` says that already: leave one of them out");
            }
            headers.push((header, hidden(&option, &value.reveal().context(option.clone())?)?));
        }
        Ok(Credentials {
            headers,
            sign: self.sign.as_ref().map(Sign::keys).transpose()?,
            routing_key: self.routing_key.as_ref().map(Secret::reveal).transpose().context("routing_key")?,
        })
    }
}

impl Auth {
    fn header(&self) -> Result<String> {
        match (&self.bearer, &self.basic) {
            (Some(token), None) => Ok(format!("Bearer {}", token.reveal().context("auth.bearer")?)),
            (None, Some(basic)) => {
                let user = basic.user.reveal().context("auth.basic.user")?;
                if user.contains(':') {
                    bail!("auth.basic.user: a colon is not possible there");
                }
                let password = basic.password.reveal().context("auth.basic.password")?;
                Ok(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            _ => bail!("`auth` is either `bearer: TOKEN` or `basic: {{user: U, password: P}}`"),
        }
    }
}

/// A header's value that no log shows.
fn hidden(option: &str, value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        anyhow!("{option}: a header holds one line of visible characters; is there a newline in it?")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
