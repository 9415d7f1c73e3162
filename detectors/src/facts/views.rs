//! What several facts of one event share: parsed once, when the first of them asks.
//!
//! What a cell holds depends on the event alone, never on the lens: whether a fact may look into a cell, the fact checks
//! before.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

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
    /// What has been said of bounds. Views of the object share it.
    bounds: OnceCell<Bounds>,
}

/// Whether a bound of what is read of an event was hit, so that some fact is unknown for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds(Rc<Cell<bool>>);

impl Bounds {
    /// Notes that one was hit.
    pub(super) fn hit(&self) {
        self.0.set(true);
    }
}

impl Views<'_> {
    pub(super) fn bounds(&self) -> &Bounds {
        self.bounds.get_or_init(Bounds::default)
    }

    /// Notes that a bound was hit.
    pub(crate) fn hit_bound(&self) {
        self.bounds().hit();
    }

    /// True if a fact that was asked for hit a bound.
    pub(crate) fn bound_hit(&self) -> bool {
        self.bounds.get().is_some_and(|bounds| bounds.0.get())
    }
}
