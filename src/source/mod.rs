//! Where events come from.
//!
//! A live source is split at birth. Its reading end hands [`Delivery`]s to the lane over a channel that is bounded in bytes
//! ([`Room`]); its remembering end is what goes with each: a position, which the lane writes to the log together with what the
//! batch caused, or a reply that is sent once that is done.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use detectors::engine::Engine;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use self::kafka::Gathered;
use crate::stream::Judged;

pub(crate) mod archive;
pub(crate) mod file;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod outlet;
pub(crate) mod pipe;
pub(crate) mod plan;
pub(crate) mod stdin;

/// What a reading end tells the lane.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Bytes to be judged.
    Batch(Batch),
    /// What was read of a topic.
    Messages(Messages),
    /// Something about the input that an operator must know.
    Notice(Notice),
    /// The input has ended and nothing more will come of it.
    End {
        /// The input's name.
        input: Arc<str>,
    },
}

/// Bytes to be judged.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The input's name, as the configuration calls it.
    pub(crate) input: Arc<str>,
    /// What the bytes are a part of, as evidence names it: a path, `stdin`, an address. Batches of the same stream come one
    /// after another, and a value may go on from one to the next.
    pub(crate) stream: Arc<str>,
    /// Offset of the first byte in the (decompressed) stream.
    pub(crate) offset: u64,
    /// Whole lines, or everything that there is when `last` is set.
    pub(crate) bytes: bytes::Bytes,
    /// The stream ends with these bytes: what is open is judged as a fragment.
    pub(crate) last: bool,
    /// The cluster that the events are of, if the source knows it better than the configuration.
    pub(crate) cluster: Option<Arc<str>>,
    /// Where to go on after a restart once the batch has been handled: JSON that only the source understands.
    pub(crate) position: Option<String>,
    /// Told once the batch has been handled and that is durable, or that it could not be.
    pub(crate) reply: Option<oneshot::Sender<Handled>>,
    /// The room that the bytes take, given back when the batch is dropped.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// The detectors that are in force: a source that judges by itself asks for them.
pub(crate) type Engines = watch::Receiver<Arc<Engine>>;

/// What something that was found takes, in bytes: an alert, or a step.
const FOUND: usize = 4 << 10;
/// What a record that is no event takes beside its bytes.
const REJECTED: usize = 512;
/// What messages take in which nothing was found: what was seen in them.
const SEEN: usize = 1 << 10;

/// What was read of a partition of a topic.
#[derive(Debug)]
pub(crate) struct Messages {
    /// The input's name, as the configuration calls it.
    pub(crate) input: Arc<str>,
    /// Topic and partition, as evidence names them: `k8s-audit/3`.
    pub(crate) stream: Arc<str>,
    /// The cluster that the events are of, if the source knows it better than the configuration.
    pub(crate) cluster: Option<Arc<str>>,
    /// How many bytes it is. 0: the partition has just been given to us, and there is something in it to be read.
    pub(crate) bytes: usize,
    /// What it is.
    pub(crate) content: Content,
    /// Told once it has been handled and that is durable, or that it could not be.
    pub(crate) reply: Option<oneshot::Sender<Handled>>,
    /// The room that it takes, given back when it is dropped.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// What messages of a topic are to the lane.
pub(crate) enum Content {
    /// Their payloads.
    Payloads(Gathered),
    /// What these detectors have found in them.
    Judged(Arc<Engine>, Box<Judged>),
}

impl Content {
    /// How many bytes wait for the lane with it.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Content::Payloads(gathered) => {
                gathered.bytes.len() + gathered.messages.len() * size_of::<Message>()
            }
            Content::Judged(_, judged) => {
                let rejected: usize = judged.rejected.iter().map(|bad| REJECTED + bad.bytes.len()).sum();
                SEEN + judged.emitted.len() * FOUND + rejected
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Payloads(gathered) => f.debug_tuple("Payloads").field(&gathered.messages).finish(),
            Content::Judged(_, judged) => f.debug_tuple("Judged").field(&judged.tally).finish(),
        }
    }
}

/// One message among the bytes of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// The message's offset in its partition.
    pub(crate) offset: u64,
    /// Where its bytes begin.
    pub(crate) start: u32,
    /// And end.
    pub(crate) end: u32,
    /// It has been handled before, and comes again for the windows that reach back to it.
    pub(crate) again: bool,
}

impl Message {
    /// Its place among the bytes.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Batch {
    /// The bytes of a record of the stream, as a sample tells of it.
    pub(crate) fn part(&self, offset: u64, length: u64) -> Option<&[u8]> {
        part(&self.bytes, offset.checked_sub(self.offset)?, length)
    }
}

/// So many bytes from there on.
pub(crate) fn part(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// How a batch was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handled {
    /// Records that were recognised and judged.
    pub(crate) records: u64,
    /// Records that are none, and are in the dead letters.
    pub(crate) bad: u64,
}

/// Something about an input that an operator must know. Each becomes an alert `integrity/<what>`, a counter and a line of log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The input's name.
    pub(crate) input: Arc<str>,
    /// The part of the input that it happened to, if parts are told apart: a partition.
    pub(crate) part: Option<String>,
    /// What happened.
    pub(crate) what: What,
    /// One sentence for a person: which file, from when to when, how many bytes.
    pub(crate) message: String,
    /// What tells this happening from others of its kind, the same after a restart: part of the alert's uuid.
    pub(crate) identity: String,
}

/// Kinds of notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// Bytes of the input are gone that were never read.
    Gap,
    /// A file has shrunk, or a hole of NULs stands in it: somebody truncated it.
    Truncated,
    /// The input cannot be read at the moment.
    Unreadable,
    /// Nothing has come for long although it used to.
    Silent,
}

impl What {
    /// The detector that raises it.
    pub(crate) fn detector(self) -> &'static str {
        match self {
            What::Gap => "integrity/input-gap",
            What::Truncated => "integrity/input-truncated",
            What::Unreadable => "integrity/input-unreadable",
            What::Silent => "integrity/input-silent",
        }
    }
}

/// The lane's ear.
pub(crate) type Sender = mpsc::Sender<Delivery>;

/// How many bytes may wait for the lane, over all sources.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    permits: Arc<Semaphore>,
    whole: u32,
}

/// Permits are counted in these.
const UNIT: usize = 1 << 10;

impl Room {
    /// Room for so many bytes.
    pub(crate) fn new(bytes: usize) -> Room {
        let whole = (bytes / UNIT).max(1) as u32;
        Room { permits: Arc::new(Semaphore::new(whole as usize)), whole }
    }

    /// Waits for room. A batch that is larger than all the room takes all of it.
    pub(crate) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = Arc::clone(&self.permits);
        permits.acquire_many_owned(self.needed(bytes)).await.expect("the semaphore is never closed")
    }

    /// Room now or never.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_many_owned(self.needed(bytes)).ok()
    }

    fn needed(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.whole)
    }
}
