//! Follows files that are written to and rotated.
//!
//! Guarantees, as far as the disk holds what was written:
//!
//! - *Every line is handed over at least once*, in order within a generation, also over rotation by renaming, copying and
//!   truncating, compressing, and over any number of rotations while nobody looked. Without a restart it is exactly once,
//!   but for copies that begin with a hole and are packed before they are read.
//! - *A line is handed over whole*, unless it is longer than 1 MiB. A half line waits for its end, or for the end of its
//!   generation.
//! - *What is gone is told*: a generation that was deleted before it was read is a notice with its name and its offset.
//!
//! Not promised: what `copytruncate` itself loses, which is what is written between its copying and its truncating; and
//! what is written to a rotated file later than `rotate_wait` after the last sign of life.
//!
//! One thread serves all paths of an input ([`run`]); each path has a [`trail::Trail`], which is the generations of its file
//! that are still to be read, oldest first ([`generation`]). Which those are is told by their names ([`siblings`]) and by
//! their content ([`identity`]). Positions are JSON and hold all open generations.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outlet::{Outlet, Stop, Stopped};
use super::{Batch, Delivery, Room, Sender};
use crate::telemetry::Telemetry;
use crate::units::{Span, Text};

mod archive;
mod generation;
mod identity;
#[cfg(test)]
mod model;
mod report;
mod siblings;
#[cfg(test)]
mod tests;
mod trail;
mod watch;

use trail::{Remembered, Trail};
use watch::Watch;

/// After something was found, so long is waited before the next look: at high rates it makes few large batches of many small
/// ones.
const PAUSE: Duration = Duration::from_millis(1);

/// Files that are followed while they are written to and rotated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `paths`")]
pub(crate) struct Config {
    /// What alerts and metrics call the input. Default: the first path. Its position is remembered under this name.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Paths of the files that are written to. Rotated files are found beside them and must not be named.
    pub(crate) paths: Vec<Text>,
    /// Where to begin when no position is remembered. Rotated files are not read then; `lapwing replay` does that.
    #[serde(default)]
    pub(crate) from: From,
    /// How long a rotated file is watched for late writes.
    #[serde(default = "rotate_wait")]
    pub(crate) rotate_wait: Span,
    /// How often files are looked at when the system does not tell of changes.
    #[serde(default = "poll")]
    pub(crate) poll: Span,
    /// The cluster that the events are of. Default: the configuration's.
    #[serde(default)]
    pub(crate) cluster: Option<Text>,
}

fn rotate_wait() -> Span {
    Span(Duration::from_secs(5))
}

fn poll() -> Span {
    Span(Duration::from_millis(250))
}

/// Where to begin when no position is remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum From {
    /// At the end, like `end`.
    #[default]
    Checkpoint,
    /// At the beginning of the live file.
    Start,
    /// At the end of the live file.
    End,
}

impl Config {
    /// A source of one file with everything else as it is by default.
    pub(crate) fn of(path: &str) -> Config {
        Config {
            name: None,
            paths: vec![Text(path.to_owned())],
            from: From::default(),
            rotate_wait: rotate_wait(),
            poll: poll(),
            cluster: None,
        }
    }

    /// What the input is called.
    pub(crate) fn name(&self) -> &str {
        match (&self.name, self.paths.first()) {
            (Some(name), _) => name,
            (None, Some(path)) => &path.0,
            (None, None) => "file",
        }
    }

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// It names no path, or names one twice, or gives a pattern.
    pub(crate) fn check(&self) -> Result<()> {
        let name = self.name();
        if self.paths.is_empty() {
            bail!("input `{name}` names no file: write `paths: [/var/log/kubernetes/audit/audit.log]`");
        }
        for (at, path) in self.paths.iter().enumerate() {
            if self.paths[..at].contains(path) {
                bail!("input `{name}` names {} twice", path.0);
            }
            let pattern = path.0.contains(['*', '?']) && !PathBuf::from(&path.0).exists();
            if pattern {
                bail!(
                    "input `{name}`: {} is a pattern: name the file that is written to, the rotated ones are found beside it",
                    path.0
                );
            }
        }
        if self.poll.0.is_zero() {
            bail!("input `{name}`: `poll` is 0, write 250ms");
        }
        Ok(())
    }
}

/// What positions hold: for every path what is remembered of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Position {
    paths: BTreeMap<String, Remembered>,
}

/// What one input's thread works with.
struct Context {
    input: Arc<str>,
    cluster: Option<Arc<str>>,
    outlet: Outlet,
    watch: Watch,
    rotate_wait: Duration,
}

/// Begins to follow the files of `config` on a thread of its own. `restored` is the last position of this input that was
/// made durable. The thread ends when `stop` is said or nobody listens any more.
///
/// # Errors
/// The configuration is wrong, or the system gives no thread.
pub(crate) fn start(
    config: &Config,
    restored: Option<&str>,
    sender: Sender,
    room: Room,
    stop: Stop,
    telemetry: Arc<Telemetry>,
) -> Result<JoinHandle<()>> {
    config.check()?;
    let input: Arc<str> = config.name().into();
    let context = Context {
        input: Arc::clone(&input),
        cluster: config.cluster.as_ref().map(|cluster| cluster.0.as_str().into()),
        outlet: Outlet::new(sender, room, stop, telemetry)?,
        watch: Watch::new(),
        rotate_wait: config.rotate_wait.0,
    };
    let trails = trails(config, &input, restored);
    let poll = config.poll.0;
    thread::Builder::new()
        .name("file".to_owned())
        .spawn(move || {
            // That it was stopped is all that there is to say, and who said it knows.
            let _ = run(&context, trails, poll);
        })
        .with_context(|| format!("cannot start the thread of input `{input}`"))
}

/// Changes a position so that all is read again that it knows of and that is still there. What is no position stays as it is,
/// and means the beginning.
pub(crate) fn rewind(position: &mut String) {
    if let Ok(mut known) = serde_json::from_str::<Position>(position) {
        known.paths.values_mut().for_each(Remembered::rewind);
        // Maps of strings and numbers can always be written.
        *position = serde_json::to_string(&known).unwrap_or_default();
    }
}

/// What is followed, from where it was left.
fn trails(config: &Config, input: &str, restored: Option<&str>) -> Vec<Trail> {
    let mut from = config.from;
    let mut position = match restored.map(serde_json::from_str::<Position>) {
        None => Position::default(),
        Some(Ok(position)) => position,
        Some(Err(error)) => {
            // Too much is better than too little: what was alerted on before has the same ids.
            tracing::warn!(input, %error, "the remembered position cannot be read: live files are read from their beginning");
            from = From::Start;
            Position::default()
        }
    };
    let trail = |path: &Text| Trail::new(&path.0, from, position.paths.remove(&path.0));
    config.paths.iter().map(trail).collect()
}

/// Follows all paths until it is to stop. Within a turn each path gives one batch, so that none waits for another's backlog.
fn run(context: &Context, mut trails: Vec<Trail>, poll: Duration) -> Result<(), Stopped> {
    let mut next_look = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next_look {
            next_look = now + poll;
            look(context, &mut trails, now, true)?;
        }
        let found = turn(context, &mut trails, now)?;
        if context.outlet.stop.is_said() {
            return Err(Stopped);
        }
        match found {
            Turn::Much => {}
            Turn::Little => {
                // Only the word to stop ends this pause early; notes gather meanwhile.
                context.outlet.stop.pause(PAUSE);
            }
            Turn::Nothing => {
                let longest = next_look.saturating_duration_since(Instant::now());
                if context.watch.wait(&context.outlet.stop, longest) {
                    context.watch.drain();
                    look(context, &mut trails, Instant::now(), false)?;
                }
            }
        }
    }
}

/// Looks what the paths lead to now.
fn look(context: &Context, trails: &mut [Trail], now: Instant, thorough: bool) -> Result<(), Stopped> {
    for trail in trails {
        if thorough {
            trail.watch(context);
        }
        if trail.look(context, now)? {
            trail.watch(context);
        }
    }
    Ok(())
}

/// How much a turn has yielded.
enum Turn {
    /// There may be more at once.
    Much,
    /// That was all.
    Little,
    Nothing,
}

/// Hands over the next batch of every path.
fn turn(context: &Context, trails: &mut [Trail], now: Instant) -> Result<Turn, Stopped> {
    let mut turn = Turn::Nothing;
    for at in 0..trails.len() {
        let Some(piece) = trails[at].next(context, now)? else { continue };
        if piece.bytes.len() > generation::BATCH / 4 || piece.last {
            turn = Turn::Much;
        } else if matches!(turn, Turn::Nothing) {
            turn = Turn::Little;
        }
        hand_over(context, trails, piece)?;
    }
    Ok(turn)
}

/// Hands over a piece of a path together with the position after it.
fn hand_over(context: &Context, trails: &[Trail], piece: trail::Piece) -> Result<(), Stopped> {
    let known = |trail: &Trail| Some((trail.name().to_owned(), trail.remember()?));
    let paths = trails.iter().filter_map(known).collect();
    // Maps of strings and numbers can always be written.
    let position = serde_json::to_string(&Position { paths }).ok();
    context.outlet.send(Delivery::Batch(Batch {
        input: Arc::clone(&context.input),
        stream: piece.stream,
        offset: piece.offset,
        bytes: piece.bytes,
        last: piece.last,
        cluster: context.cluster.clone(),
        position,
        reply: None,
        room: piece.room,
    }))
}
