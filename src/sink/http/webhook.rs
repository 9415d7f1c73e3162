//! Any receiver: the alert as it is, or the operator's own body; signed if that is wanted.

use anyhow::{Context as _, Result, anyhow, bail};
use detectors::event::time::Nanos;
use reqwest::header::HeaderValue;

use super::Payload;
use super::answer::{Answer, Setup, Verdict};
use super::config::{Credentials, HttpOutput};
use super::template::{Context, Template};
use crate::sink::Encoding;
use crate::sink::transport::Item;

/// A webhook.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    encoding: Encoding,
    content_type: HeaderValue,
    body: Option<Template>,
}

impl Webhook {
    pub(super) fn new(output: &HttpOutput) -> Result<Webhook> {
        let content_type = output.content_type.as_deref().unwrap_or("application/json");
        let context = if content_type.contains("json") { Context::Json } else { Context::Text };
        if context == Context::Text && output.body.is_none() {
            bail!("`content_type: {content_type}` needs a `body` that is of this type");
        }
        let body =
            output.body.as_deref().map(|body| Template::parse(body, context)).transpose().context("body")?;
        let content_type = HeaderValue::from_str(content_type).map_err(|_| {
            anyhow!("`content_type` is no type of content; write for instance application/json")
        })?;
        Ok(Webhook { encoding: output.encoding, content_type, body })
    }

    pub(super) fn payload(&self, item: &Item, credentials: &Credentials, now: Nanos) -> Result<Payload> {
        let body = match &self.body {
            Some(template) => template.render(&serde_json::from_str(&item.line)?),
            None => self.encoding.line(item).into_owned(),
        };
        let headers = match &credentials.sign {
            Some(keys) => keys.headers(item.uuid, now, body.as_bytes())?,
            None => Vec::new(),
        };
        Ok(Payload { body: body.into_bytes(), content_type: self.content_type.clone(), headers })
    }
}

/// What it answers may repeat what it was sent, so that only the status is told.
pub(super) fn verdict(answer: &Answer) -> Verdict {
    answer.verdict(Setup::Rejects, &answer.alone())
}
