//! The live progress line on standard error: how far, how fast, how long still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Progress;
use crate::text;

/// How often the line is drawn, in hertz.
const RATE: u8 = 10;
/// A message counts for so many bytes where a bar has files and topics: about as large as events are.
const MESSAGE: u64 = 1_000;

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
    let mut known = false;
    let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
    while stopped.recv_timeout(Duration::from_millis(1_000 / u64::from(RATE)))
        == Err(RecvTimeoutError::Timeout)
    {
        let done = Far { bytes: of(&progress.done), messages: of(&progress.messages) };
        let total = Far { bytes: of(&progress.total), messages: of(&progress.messages_total) };
        if !known {
            bar.set_style(style(total));
            if let Some(whole) = total.in_all() {
                bar.set_length(whole);
            }
        }
        known |= total.in_all().is_some();
        bar.set_position(done.part_of(total));
        // What comes from brokers has no size on disk.
        let read = if total.messages > 0 { of(&progress.decoded) } else { done.bytes };
        let rates = rates(read, of(&progress.records), of(&progress.alerts), begun.elapsed());
        bar.set_message(match total {
            Far { bytes: 1.., messages: 1.. } => format!("{}  {rates}", done.beside(total)),
            _ => rates,
        });
    }
}

/// How far, or how much in all.
#[derive(Debug, Clone, Copy)]
struct Far {
    /// Bytes of files.
    bytes: u64,
    /// Messages of topics.
    messages: u64,
}

impl Far {
    /// The length of the bar; nothing if there is nothing to be a part of, as on standard input.
    fn in_all(self) -> Option<u64> {
        Some(match self {
            Far { bytes: 0, messages: 0 } => return None,
            Far { bytes, messages: 0 } => bytes,
            Far { bytes: 0, messages } => messages,
            Far { bytes, messages } => bytes.saturating_add(messages.saturating_mul(MESSAGE)),
        })
    }

    /// The place in a bar of that length.
    fn part_of(self, total: Far) -> u64 {
        match total {
            Far { bytes: 0, messages: 0 } => self.bytes,
            Far { bytes, messages: 0 } => self.bytes.min(bytes),
            Far { bytes: 0, messages } => self.messages.min(messages),
            Far { bytes, messages } => {
                let messages = self.messages.min(messages).saturating_mul(MESSAGE);
                self.bytes.min(bytes).saturating_add(messages)
            }
        }
    }

    fn beside(self, total: Far) -> String {
        let bytes = format!("{}/{}", text::bytes(self.bytes), text::bytes(total.bytes));
        let (messages, all) = (text::thousands(self.messages), text::thousands(total.messages));
        format!("{bytes}, {messages}/{all} messages")
    }
}

fn style(total: Far) -> ProgressStyle {
    let template = match total {
        Far { bytes: 0, messages: 0 } => "{spinner} {decimal_bytes}  {msg}",
        Far { messages: 0, .. } => {
            "[{bar:30}] {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {msg}  eta {eta}"
        }
        Far { bytes: 0, .. } => {
            "[{bar:30}] {percent:>3}%  {human_pos}/{human_len} messages  {msg}  eta {eta}"
        }
        Far { .. } => "[{bar:30}] {percent:>3}%  {msg}  eta {eta}",
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
        for (bytes, messages) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let _ = style(Far { bytes, messages });
        }
    }

    #[test]
    fn files_and_topics_share_a_bar() {
        for (bytes, messages, whole, part) in [
            (0, 0, None, 300),
            (1_000, 0, Some(1_000), 300),
            (0, 10, Some(10), 4),
            (1_000, 10, Some(11_000), 4_300),
            (200, 3, Some(3_200), 3_200),
        ] {
            let total = Far { bytes, messages };
            let done = Far { bytes: 300, messages: 4 };
            assert_eq!((total.in_all(), done.part_of(total)), (whole, part), "{total:?}");
        }
        let (done, total) = (Far { bytes: 300, messages: 4 }, Far { bytes: 2_000_000, messages: 1_000 });
        assert_eq!(done.beside(total), "300 B/2.0 MB, 4/1,000 messages");
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(
            rates(824_000_000, 3_800_000, 118, Duration::from_secs(2)),
            "412 MB/s  1,900,000 events/s  118 alerts"
        );
    }
}
