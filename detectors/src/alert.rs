//! What leaves the building: the alert, a strict superset of Falco's alert JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::level::Level;

/// The value of [`Alert::schema`].
pub const SCHEMA: &str = "lapwing/v1";

/// One alert. Key order is the order of serialisation; `docs/alerts.md` describes each key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Deterministic id: UUIDv5 of the detector, its logic and the event's identity or the group.
    pub uuid: Uuid,
    /// Event time, RFC 3339, UTC, nine digits; the epoch's for an event that has none.
    pub time: String,
    /// The detector's title.
    pub rule: String,
    /// Falco's name for the level.
    pub priority: String,
    /// Sigma's name for the level.
    pub level: Level,
    /// `k8s_audit`, Falco's own source, or `lapwing` for correlations and integrity.
    pub source: String,
    /// One sentence: who, what, where.
    pub output: String,
    /// The facts behind the sentence; never empty, values are strings.
    pub output_fields: BTreeMap<String, String>,
    /// The detector's Sigma tags (and Falco's own for runtime alerts).
    pub tags: Vec<String>,
    /// [`SCHEMA`].
    pub schema: String,
    /// `family/name`.
    pub detector: String,
    /// The cluster, if known.
    pub cluster: Option<String>,
    /// The API request behind the alert, if there is one.
    pub k8s: Option<Request>,
    /// Where the events behind the alert lie.
    pub evidence: Vec<Evidence>,
    /// Falco's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// True if something was wrong with the record's bytes, so that it was judged on what could be recovered, or if it has
    /// no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
    /// True if memory bounds made a count inexact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approximate: Option<bool>,
    /// The steps of a temporal correlation, in event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<String>>,
    /// How many events or values a counting correlation saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What an output has held back since it sent the first alert of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
}

/// Repeats of an alert that an output held back and tells of at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// How many alerts, the first one not counted.
    pub count: u64,
    /// Event time of the first alert, which was sent.
    pub first_seen: String,
    /// Event time of the last.
    pub last_seen: String,
}

/// The API request behind an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[allow(missing_docs)] // the audit API's words
pub struct Request {
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub user: String,
    pub groups: Vec<String>,
    /// The impersonated user, if the request was impersonated.
    pub impersonated: Option<String>,
    /// The trusted hop: the last source address, or the one before the configured proxies.
    pub client_ip: Option<String>,
    /// What the client claimed before it.
    pub forwarded_ips: Vec<String>,
    pub user_agent: String,
    /// HTTP status, if the event has one.
    pub code: Option<i64>,
    pub decision: Option<String>,
    /// allowed, denied, failed or unknown.
    pub outcome: String,
    pub stage: String,
    pub audit_id: String,
}

/// Where an event behind an alert lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The input's name, as given or found.
    pub input: String,
    /// Byte offset of the record in the (decompressed) input.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// The event's time.
    pub time: String,
    /// The request's auditID (chosen by the client: not an identity), or null.
    pub audit_id: Option<String>,
}
