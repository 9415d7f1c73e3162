//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A flag that is set when the user interrupts.
pub(crate) fn flag() -> &'static AtomicBool {
    let handled = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
    });
    if let Err(error) = handled {
        tracing::debug!(%error, "interruption ends the program without a summary");
    }
    &INTERRUPTED
}
