//! Ctrl-C, and SIGTERM as `kill` and supervisors send it: the first asks for an orderly end, the second ends at once.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of both ends.
const EXIT: i32 = 130;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// A flag that is set when the program is asked to end.
pub(crate) fn flag() -> &'static AtomicBool {
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal that finds the flag set by another ends the program.
        let handled = flag::register_conditional_shutdown(signal, EXIT, Arc::clone(&INTERRUPTED))
            .and_then(|_| flag::register(signal, Arc::clone(&INTERRUPTED)));
        if let Err(error) = handled {
            tracing::debug!(%error, signal, "this signal ends the program without a summary");
        }
    }
    &INTERRUPTED
}
