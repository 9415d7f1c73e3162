//! Where events come from.

pub(crate) mod archive;
pub(crate) mod pipe;
pub(crate) mod plan;
