//! The live progress line on standard error: how far, how fast, how long still.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Progress;
use crate::text;

/// How often the line is drawn, in hertz.
const RATE: u8 = 10;

/// A line that is drawn while this lives.
pub(crate) struct Line {
    bar: ProgressBar,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// Draws `progress` until [`Line::clear`]. Draws nothing if `wanted` is false or standard error is no terminal.
    pub(crate) fn draw(progress: &Arc<Progress>, wanted: bool) -> Line {
        let target =
            if wanted { ProgressDrawTarget::stderr_with_hz(RATE) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if bar.is_hidden() {
            return Line { bar, stop: None, thread: None };
        }
        let (stop, stopped) = channel();
        let (progress, drawn) = (Arc::clone(progress), bar.clone());
        let thread = thread::spawn(move || follow(&progress, &drawn, &stopped));
        Line { bar, stop: Some(stop), thread: Some(thread) }
    }

    /// Takes the line away while something else is written to the same terminal.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// True if nothing is drawn.
    pub(crate) fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// Ends the drawing and takes the line away.
    pub(crate) fn clear(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread only draws: if it panicked, the line is gone all the same.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

fn follow(progress: &Progress, bar: &ProgressBar, stopped: &Receiver<()>) {
    let begun = Instant::now();
    let mut known = None;
    while stopped.recv_timeout(Duration::from_millis(1_000 / u64::from(RATE)))
        == Err(RecvTimeoutError::Timeout)
    {
        let total = progress.total.load(Ordering::Relaxed);
        if known != Some(total) {
            bar.set_style(style(total));
            if total > 0 {
                bar.set_length(total);
            }
            known = Some(total);
        }
        let done = progress.done.load(Ordering::Relaxed);
        let records = progress.records.load(Ordering::Relaxed);
        let alerts = progress.alerts.load(Ordering::Relaxed);
        bar.set_position(if total > 0 { done.min(total) } else { done });
        bar.set_message(rates(done, records, alerts, begun.elapsed()));
    }
}

/// Without a total (standard input) there is nothing to be a part of.
fn style(total: u64) -> ProgressStyle {
    let template = if total > 0 {
        "[{bar:30}] {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {msg}  eta {eta}"
    } else {
        "{spinner} {decimal_bytes}  {msg}"
    };
    ProgressStyle::with_template(template)
        .expect("the template is well formed")
        .progress_chars("=> ")
        .tick_chars("-\\|/ ")
}

fn rates(done: u64, records: u64, alerts: u64, elapsed: Duration) -> String {
    let per_second = |count: u64| (count as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    format!(
        "{}/s  {} events/s  {}",
        text::bytes(per_second(done)),
        text::thousands(per_second(records)),
        text::counted(alerts, "alert")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed() {
        for total in [0, 1] {
            let _ = style(total);
        }
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(
            rates(824_000_000, 3_800_000, 118, Duration::from_secs(2)),
            "412 MB/s  1,900,000 events/s  118 alerts"
        );
    }
}
