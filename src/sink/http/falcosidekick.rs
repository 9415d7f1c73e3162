//! Falcosidekick: one alert a request, in Falco's form, of which ours is a superset.
//!
//! It answers 200 before it delivers, so what is promised ends there. It answers 400 to what it will never take: no rule, an
//! unknown priority, no time, no fields.

use reqwest::StatusCode;

use super::Payload;
use super::answer::{Answer, Setup, Verdict};
use crate::sink::transport::Item;

pub(super) fn payload(item: &Item) -> Payload {
    Payload::json(item.line.as_bytes())
}

pub(super) fn verdict(answer: &Answer) -> Verdict {
    answer.verdict_of(StatusCode::OK, Setup::Waits, &answer.with_body())
}
