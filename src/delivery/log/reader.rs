//! What a sink sees of the log: the alerts, in order, from a place on.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::segment::{Found, Item, Scanner, items};
use super::{Damage, Durable, Extent, file_name};
use crate::delivery::Entry;
use crate::delivery::fs::{Fs, Mode};

/// Where a sink is. Everything before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    /// The record that is not acknowledged yet, or not all of it.
    pub(crate) seq: u64,
    /// The alerts of it that are, counted from its first.
    pub(crate) alerts: u32,
}

impl Place {
    /// Before everything that the log holds.
    pub(crate) const START: Place = Place { seq: 0, alerts: 0 };

    /// The last record that is acknowledged as a whole: what [`super::Log::pass`] wants, of the sink that is furthest behind.
    pub(crate) fn consumed(self) -> u64 {
        self.seq.saturating_sub(1)
    }
}

/// What is durable, as the readers of a log see it. It is for any number of them.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) id: u64,
    pub(super) durable: watch::Receiver<Durable>,
}

impl Tail {
    /// The last seq.
    pub(crate) fn seq(&self) -> u64 {
        self.durable.borrow().seq
    }

    /// The place after the last record: where a sink begins that was not there before.
    pub(crate) fn end(&self) -> Place {
        Place { seq: self.seq() + 1, alerts: 0 }
    }

    /// The number that tells this log from another one in the same place.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Waits until there is more than there was at the last call, or at [`Tail::seq`]. False if there is no log any more.
    pub(crate) async fn changed(&mut self) -> bool {
        self.durable.changed().await.is_ok()
    }

    /// Where the record lies, or the next one if there is none of this seq.
    fn extent(&self, seq: u64) -> Option<Extent> {
        self.durable.borrow().extent(seq).copied()
    }
}

/// Alerts of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The record.
    pub(crate) seq: u64,
    /// How many alerts of it come before these.
    pub(crate) first: u32,
    /// The alerts, never none.
    pub(crate) entries: Vec<Entry>,
}

impl Chunk {
    /// Where a sink is that has acknowledged so many of them.
    pub(crate) fn after(&self, acknowledged: usize) -> Place {
        if acknowledged >= self.entries.len() {
            Place { seq: self.seq + 1, alerts: 0 }
        } else {
            Place { seq: self.seq, alerts: self.first + acknowledged as u32 }
        }
    }
}

/// Reads the alerts for one sink. What is damaged is passed over, and said.
#[derive(Debug)]
pub(crate) struct Reader {
    tail: Tail,
    place: Place,
    open: Option<(u64, Scanner)>,
    damage: Vec<Damage>,
    failures: u32,
}

/// So many times in a row a read may fail before what cannot be read counts as damaged.
pub(super) const PATIENCE: u32 = 3;

/// So much damage is remembered until it is asked for.
const MAX_DAMAGE: usize = 64;

impl Reader {
    /// Reads from there on.
    pub(crate) fn new(tail: Tail, place: Place) -> Reader {
        Reader { tail, place, open: None, damage: Vec::new(), failures: 0 }
    }

    /// The place of the next alert: when all that was handed out is acknowledged, the sink has come so far, over the records
    /// without alerts too.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// The next record with alerts, without those that the place said are acknowledged. None: that was all that there is.
    ///
    /// # Errors
    /// The log cannot be read at the moment; to be tried again later. The third time in a row what cannot be read is passed
    /// over as damaged.
    pub(crate) fn next(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            let Some(extent) = self.tail.extent(self.place.seq) else { return Ok(None) };
            match self.step(&extent) {
                Ok(Some(chunk)) => {
                    self.failures = 0;
                    return Ok(Some(chunk));
                }
                Ok(None) => self.failures = 0,
                Err(error) => {
                    self.failures += 1;
                    self.open = None;
                    if self.failures > PATIENCE {
                        self.skip(&extent);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Waits until there is more than what was read. False if there is no log any more.
    pub(crate) async fn wait(&mut self) -> bool {
        while self.tail.durable.borrow_and_update().extent(self.place.seq).is_none() {
            if !self.tail.changed().await {
                return false;
            }
        }
        true
    }

    /// Bytes of the log that are still to be read: the sink's spool.
    #[cfg(test)]
    pub(super) fn backlog(&self) -> u64 {
        let durable = self.tail.durable.borrow();
        let reading = self.open.as_ref().map(|(first, scanner)| (*first, scanner.at));
        let left = |extent: &Extent| {
            let from = match reading {
                Some((first, at)) if first == extent.first => at,
                _ => extent.records_at,
            };
            extent.end.saturating_sub(from)
        };
        durable.extents.iter().filter(|extent| extent.last >= self.place.seq).map(left).sum()
    }

    /// What was found damaged since the last call.
    pub(crate) fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// One record.
    fn step(&mut self, extent: &Extent) -> io::Result<Option<Chunk>> {
        let place = self.place;
        let lenient = self.failures >= PATIENCE;
        let scanner = self.scanner(extent)?;
        scanner.lenient = lenient;
        match scanner.find(extent.end, extent.last, &|head| head.has_alerts() && head.seq >= place.seq)? {
            Found::Record(head) if head.seq < place.seq => Ok(None),
            Found::Record(head) => {
                let skip = if head.seq == place.seq { place.alerts } else { 0 };
                let entries: Vec<Entry> = if head.has_alerts() {
                    items(scanner.payload()).filter_map(entry).skip(skip as usize).collect()
                } else {
                    Vec::new()
                };
                self.place = Place { seq: head.seq + 1, alerts: 0 };
                Ok((!entries.is_empty()).then_some(Chunk { seq: head.seq, first: skip, entries }))
            }
            Found::Damaged(range, lost) => {
                // What lies before its place the sink had before.
                let lost = lost.min(scanner.next.saturating_sub(place.seq));
                if lost > 0 {
                    self.report(extent, &format!("bytes {} to {}", range.start, range.end), Some(lost));
                }
                Ok(None)
            }
            Found::End => {
                self.skip(extent);
                Ok(None)
            }
        }
    }

    fn scanner(&mut self, extent: &Extent) -> io::Result<&mut Scanner> {
        if self.open.as_ref().is_none_or(|(first, _)| *first != extent.first) {
            let file = self.tail.fs.open(&file_name(extent.first), Mode::Read)?;
            self.open =
                Some((extent.first, Scanner::new(file, extent.salt, extent.records_at, extent.first + 1)));
        }
        Ok(&mut self.open.as_mut().expect("it has just been opened").1)
    }

    /// Nothing more can be had of what the segment holds so far.
    fn skip(&mut self, extent: &Extent) {
        let next =
            self.open.as_ref().map_or(extent.first + 1, |(_, scanner)| scanner.next).max(self.place.seq);
        if next <= extent.last {
            let lost = extent.exact.then_some(extent.last + 1 - next);
            self.report(extent, &format!("what comes before byte {}", extent.end), lost);
        }
        self.place = Place { seq: extent.last + 1, alerts: 0 };
        if let Some((first, scanner)) = &mut self.open
            && *first == extent.first
        {
            (scanner.at, scanner.next) = (extent.end, extent.last + 1);
        } else if let Ok(file) = self.tail.fs.open(&file_name(extent.first), Mode::Read) {
            let scanner = Scanner::new(file, extent.salt, extent.end, extent.last + 1);
            self.open = Some((extent.first, scanner));
        }
    }

    fn report(&mut self, extent: &Extent, what: &str, lost: Option<u64>) {
        if self.damage.len() < MAX_DAMAGE {
            let place = self.tail.fs.path(&file_name(extent.first));
            self.damage.push(Damage { what: format!("{what}: no records"), place, lost });
        }
    }
}

fn entry(item: Item<'_>) -> Option<Entry> {
    match item {
        Item::Alert { uuid, json } => Some(Entry { uuid, json: json.to_owned() }),
        _ => None,
    }
}
