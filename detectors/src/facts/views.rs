//! What several facts of one event share: parsed once, when the first of them asks.
//!
//! What a cell holds depends on the event alone, never on the lens: whether a fact may look into a cell, the fact checks
//! before.

use std::cell::OnceCell;

use super::exec::Command;
use super::object::{Body, View};
use super::pod::Pod;
use super::query::Query;
use super::rbac::{Binding, Rules};
use super::shape::Shape;

/// Parsed pieces of one event.
#[derive(Default)]
pub struct Views<'a> {
    pub(super) shape: OnceCell<Shape<'a>>,
    pub(super) query: OnceCell<Query>,
    pub(super) body: OnceCell<Body<'a>>,
    pub(super) object: OnceCell<Option<View<'a>>>,
    pub(super) rules: OnceCell<Rules<'a>>,
    pub(super) binding: OnceCell<Binding<'a>>,
    pub(super) pod: OnceCell<Pod<'a>>,
    pub(super) command: OnceCell<Option<Command>>,
}
