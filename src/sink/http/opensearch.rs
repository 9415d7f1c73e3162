//! OpenSearch and Elasticsearch, by the bulk API.
//!
//! Documents are created under the alert's id, so that one that comes twice is there once: 409 says that it is there already.

use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Payload;
use super::answer::{Answer, Setup, Verdict};
use super::config::HttpOutput;
use crate::sink::encoding::{self, Encoding, ecs};
use crate::sink::transport::{Item, Outcome};

/// The answer holds only what is read of it. Without this it would repeat parts of documents, and be too long.
pub(super) const QUERY: [(&str, &str); 1] = [("filter_path", "errors,items.*.status,items.*.error.type")];
const INDEX: &str = "lapwing-alerts";

/// An index or data stream.
#[derive(Debug, Clone)]
pub(super) struct Opensearch {
    index: String,
    encoding: Encoding,
}

impl Opensearch {
    pub(super) fn new(output: &HttpOutput) -> Result<Opensearch> {
        let index = output.index.clone().unwrap_or_else(|| INDEX.to_owned());
        // <https://docs.opensearch.org/latest/api-reference/index-apis/create-index/>
        let illegal = |c: char| c.is_ascii_uppercase() || c.is_whitespace() || r#"\/*?"<>|,#:"#.contains(c);
        if index.is_empty()
            || index.len() > 255
            || index.contains(illegal)
            || index.starts_with(['_', '-', '+', '.'])
        {
            bail!(
                "`index: {index}` is no name of an index: lower case, no blanks, no first `_`, `-`, `+` or `.`"
            );
        }
        Ok(Opensearch { index, encoding: output.encoding })
    }

    pub(super) fn payload(&self, items: &[Arc<Item>]) -> Payload {
        let mut body = String::new();
        for item in items {
            body.push_str(&encoding::json(&json!({"create": {"_index": self.index, "_id": item.uuid}})));
            body.push('\n');
            body.push_str(&encoding::json(&self.document(item)));
            body.push('\n');
        }
        let mut payload = Payload::json(body);
        payload.content_type = reqwest::header::HeaderValue::from_static("application/x-ndjson");
        payload
    }

    fn document(&self, item: &Item) -> Value {
        let line = self.encoding.line(item);
        let mut document: Value = serde_json::from_str(&line).unwrap_or_default();
        // Dots in names would become objects, and `proc` cannot be a text and an object.
        for holder in ["", "/unmapped"] {
            if let Some(fields) = document.pointer_mut(&format!("{holder}/output_fields")) {
                *fields = ecs::underscored(item);
            }
        }
        if let Some(map) = document.as_object_mut() {
            map.insert("@timestamp".to_owned(), Value::from(item.alert.time.as_str()));
        }
        document
    }
}

#[derive(Deserialize)]
struct Bulk {
    errors: bool,
    #[serde(default)]
    items: Vec<Action>,
}

#[derive(Deserialize)]
struct Action {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(super) fn verdict(answer: &Answer, items: usize) -> Verdict {
    if !answer.status.is_success() {
        return answer.verdict(Setup::Waits, &answer.alone());
    }
    match serde_json::from_slice::<Bulk>(&answer.body) {
        Ok(bulk) if !bulk.errors => Verdict::All(Outcome::Accepted),
        Ok(bulk) if bulk.items.len() == items => {
            Verdict::Each(bulk.items.into_iter().map(|action| outcome(answer, &action.create)).collect())
        }
        _ => Verdict::All(
            answer.retry("the answer is not that of a bulk request: does the URL lead to `/_bulk`?"),
        ),
    }
}

fn outcome(answer: &Answer, created: &Created) -> Outcome {
    let kind = created.error.as_ref().and_then(|error| error.kind.as_deref()).unwrap_or("unknown error");
    let reason = format!("{} {kind}", created.status);
    match created.status {
        200..=299 | 409 => Outcome::Accepted,
        429 | 500..=599 => answer.retry(&reason),
        _ => Outcome::rejected(reason),
    }
}
