//! The log: what an append makes durable, and what is still known of it after a crash.
//!
//! Guarantees, for any disk that keeps the promises of [`super::fs`]:
//!
//! - When [`Log::append`] returns a number, the whole record is there for good, exactly once. When it returns an error, the
//!   record is not there for any reader; after a crash it may be, as a whole.
//! - Positions, steps and alerts are in one file and cannot disagree.
//! - [`Log::open`] does not fail because of what is in the files. What is damaged is passed over, said, and set aside.
//! - Nothing is read into memory that grows with the log.
//!
//! The log is a row of segments (`segment.rs`). Each begins with the state as it was then, its *base*: positions, the rules
//! that steps refer to, the steps that still matter, the ids of the last alerts. So the newest segment is enough to go on
//! from, and older ones are there for sinks that lag behind, save one, which stands in if the newest base is damaged. A
//! segment is written aside, synced, and then given its name.
//!
//! A sync that failed is not repeated: the segment is written anew and another one begun ([`Log::roll`]). Until that has
//! succeeded nothing is appended, and so nothing acknowledged. The next process could not know of it, and would read from the
//! kernel's memory what is not on the disk: so it writes the newest segment anew in any case.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use detectors::bytes::{put_number, take_number};
use detectors::engine::Step;
use detectors::event::time::Nanos;
use tokio::sync::watch;
use uuid::Uuid;

use super::Record;
use super::fs::{File, Fs, Mode, TEMPORARY, is_full, rewrite};

mod reader;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use reader::{Place, Reader, Tail};

use reader::PATIENCE;
use segment::{BASE, BASE_AT, FINAL, Found, Header, Item, MAX_ITEM, PARTIAL, Pen, Scanner, items};

/// A rule that steps belong to. The number that a step begins with counts in a list of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleTag {
    /// The rule's name.
    pub(crate) name: String,
    /// The digest of its logic: the steps of other logic are another rule's.
    pub(crate) logic: [u8; 32],
    /// Steps that are older than this, by [`Log::set_clock`], matter no more.
    pub(crate) reach: Nanos,
}

/// What a log is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// A segment that has so many bytes of records, and as many as its base, is followed by another.
    pub(crate) segment_bytes: u64,
    /// The steps of a base take no more; the oldest are dropped, and counted. 0: there are none.
    pub(crate) max_step_bytes: u64,
    /// Ids of so many alerts are kept.
    pub(crate) recent: usize,
    /// Older segments that are kept although nobody reads them.
    pub(crate) spare: usize,
    /// The rules that steps refer to.
    pub(crate) rules: Vec<RuleTag>,
}

impl Options {
    /// For a directory on a disk.
    pub(crate) fn durable(rules: Vec<RuleTag>) -> Options {
        Options { segment_bytes: 16 << 20, max_step_bytes: 64 << 20, recent: 1 << 16, spare: 1, rules }
    }

    /// For memory, where nothing is ever recovered.
    pub(crate) fn in_memory(rules: Vec<RuleTag>) -> Options {
        Options { segment_bytes: 1 << 20, max_step_bytes: 16 << 20, recent: 0, spare: 0, rules }
    }
}

/// What an earlier run knew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// By input, where to go on.
    pub(crate) positions: BTreeMap<String, String>,
    /// Ids of the last alerts, oldest first.
    pub(crate) recent: Vec<Uuid>,
    /// What could not be read.
    pub(crate) damage: Vec<Damage>,
    /// Bytes at the end of the log that are no whole record. As a rule the last run was writing them when it ended, and had
    /// acknowledged nothing of it.
    pub(crate) torn: u64,
    /// More is lost than can be read again from the positions: what is still there of the inputs is to be read from its
    /// beginning. Steps and ids are forgotten, so that what is found again is sent again.
    pub(crate) again: bool,
}

/// Something of the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// What is wrong, and what was done about it.
    pub(crate) what: String,
    /// The file.
    pub(crate) place: String,
    /// Records that are lost, if that is known.
    pub(crate) lost: Option<u64>,
}

/// What is durable.
#[derive(Debug, Default)]
struct Durable {
    /// The last seq.
    seq: u64,
    /// All segments, oldest first.
    extents: Vec<Extent>,
}

impl Durable {
    /// Where a record lies, or the next one if there is none of this seq.
    fn extent(&self, seq: u64) -> Option<&Extent> {
        self.extents.iter().find(|extent| extent.last >= seq)
    }
}

/// What is valid of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// Its name, and the seq of its base.
    first: u64,
    salt: u64,
    records_at: u64,
    end: u64,
    /// The last seq in it.
    last: u64,
    /// Whether there are records up to `last`, or might be.
    exact: bool,
    /// Parts of it are damaged: it is set aside when it is no longer needed.
    spoiled: bool,
}

/// The segment that is appended to.
#[derive(Debug)]
struct Active {
    file: Box<dyn File>,
    salt: u64,
    /// Where the next record goes.
    at: u64,
    /// It is full when it is longer than this.
    full_at: u64,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    fs: Arc<dyn Fs>,
    options: Options,
    id: u64,
    positions: BTreeMap<String, String>,
    recent: VecDeque<Uuid>,
    clock: Nanos,
    /// The last seq.
    last: u64,
    /// The state is in the segments from this one on.
    from: u64,
    active: Option<Active>,
    /// A sync of the newest segment has failed.
    suspect: bool,
    /// How often in a row no segment could be begun.
    failures: u32,
    dropped: u64,
    shared: watch::Sender<Durable>,
}

/// Takes a step: its rule, its time, all of its bytes.
type VisitStep<'v> = dyn FnMut(u32, Nanos, &[u8]) -> io::Result<()> + 'v;

/// A log knows no more rules.
const MAX_RULES: u64 = 1 << 20;

/// What segments are called.
const SEGMENT: &str = ".seg";
/// What is added to the name of one that cannot be read.
const BAD: &str = ".bad";
/// The segment that is being made.
const NEXT: &str = "next";

fn file_name(first: u64) -> String {
    format!("{first:016x}{SEGMENT}")
}

impl Record {
    fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.steps.is_empty() && self.alerts.is_empty()
    }

    /// Whether one piece of it is larger than the log's form allows.
    fn is_too_large(&self) -> bool {
        self.alerts.iter().any(|entry| entry.json.len() > MAX_ITEM)
            || self.steps.iter().any(|step| step.bytes.len() > MAX_ITEM)
            || self.positions.iter().any(|(input, json)| input.len() + json.len() > MAX_ITEM)
    }

    fn write(&self, pen: &mut Pen<'_>) -> io::Result<()> {
        for Step { time, bytes } in &self.steps {
            pen.put(&Item::Step { time: *time, bytes }, PARTIAL)?;
        }
        for entry in &self.alerts {
            pen.put(&Item::Alert { uuid: entry.uuid, json: &entry.json }, PARTIAL)?;
        }
        for (input, json) in &self.positions {
            pen.put(&Item::Position { input, json }, PARTIAL)?;
        }
        pen.flush(FINAL)
    }
}

impl Log {
    /// Opens what an earlier run left behind, or begins anew. The newest segment is written anew, and what cannot be read is
    /// set aside; if that fails, the first append sees to it.
    ///
    /// # Errors
    /// The directory itself cannot be read.
    pub(crate) fn open(fs: Arc<dyn Fs>, options: Options) -> io::Result<(Log, State)> {
        recovery::open(fs, options)
    }

    /// All steps that are kept, in the order in which they were appended, as steps of the rules of the options. Steps of
    /// rules that are gone, or whose logic is another, are left out.
    ///
    /// # Errors
    /// A file is gone, or cannot be opened.
    pub(crate) fn steps(&self, take: &mut dyn FnMut(Step)) -> io::Result<()> {
        self.each_step(true, &mut |_, time, bytes| {
            take(Step { time, bytes: bytes.to_vec() });
            Ok(())
        })
    }

    /// Makes a record durable, and yields the seq of its last part. An empty record is none.
    ///
    /// # Errors
    /// It is not durable and nobody will see it; it can be appended again later. A record with a piece of more than 32 MiB
    /// ([`io::ErrorKind::InvalidInput`]) never can.
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<u64> {
        if record.is_empty() {
            return Ok(self.last);
        }
        if record.is_too_large() {
            let message = format!("an alert, a step or a position is longer than {MAX_ITEM} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if self.active.as_ref().is_none_or(|active| active.at >= active.full_at) {
            self.grow()?;
        }
        match self.write(record) {
            // The disk is full, and the segment as it was.
            Err(error) if self.active.is_some() => return Err(error),
            Err(_) => {
                self.roll()?;
                self.write(record)?;
            }
            Ok(()) => {}
        }
        self.remember(record);
        Ok(self.last)
    }

    /// The readers' view.
    pub(crate) fn tail(&self) -> Tail {
        Tail { fs: Arc::clone(&self.fs), id: self.id, durable: self.shared.subscribe() }
    }

    /// False if the files are no longer where the next process would look for them.
    pub(crate) fn is_in_place(&self) -> bool {
        self.fs.is_in_place()
    }

    /// The events' clock: with it, and a rule's reach, steps get old.
    pub(crate) fn set_clock(&mut self, now: Nanos) {
        self.clock = self.clock.max(now);
    }

    /// All sinks have passed the records up to this one: segments that nobody needs any more go.
    ///
    /// # Errors
    /// A segment cannot be removed; the next call tries again.
    pub(crate) fn pass(&mut self, consumed: u64) -> io::Result<()> {
        loop {
            let oldest = {
                let durable = self.shared.borrow();
                let [oldest, next, ..] = durable.extents.as_slice() else { return Ok(()) };
                let needed = durable.extents.len() <= 1 + self.options.spare
                    || oldest.first >= self.from
                    || next.first > consumed.saturating_add(1);
                if needed {
                    return Ok(());
                }
                *oldest
            };
            let name = file_name(oldest.first);
            // No sync of the directory: a segment that comes back after a crash goes the same way again.
            if oldest.spoiled {
                self.fs.rename(&name, &format!("{name}{BAD}"))?;
            } else {
                self.fs.remove(&name)?;
            }
            self.shared.send_modify(|durable| {
                durable.extents.remove(0);
            });
        }
    }

    /// Begins a fresh segment, so that those before it can go.
    ///
    /// # Errors
    /// There is no room for it, or the disk fails.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        self.roll()
    }

    /// These are the positions now, as if nothing had been read since.
    pub(crate) fn go_back(&mut self, positions: &BTreeMap<String, String>) {
        self.positions.clone_from(positions);
    }

    /// From now on steps refer to these rules. Steps of rules that are in both lists are kept.
    ///
    /// # Errors
    /// It is not durable yet; the next append makes it so, or fails.
    pub(crate) fn rules_changed(&mut self, rules: Vec<RuleTag>) -> io::Result<()> {
        self.options.rules = rules;
        // The segment's steps count in another list.
        self.active = None;
        self.roll()
    }

    /// Bytes of all segments.
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.shared.borrow().extents.iter().map(|extent| extent.end).sum()
    }

    /// Steps that had to go before their time, for want of room.
    pub(crate) fn dropped_steps(&self) -> u64 {
        self.dropped
    }

    /// Begins another segment, unless the present one does as well.
    fn grow(&mut self) -> io::Result<()> {
        let result = self.roll();
        match (&mut self.active, result) {
            // There may be no room for another base, but for a record. It is tried again in a while.
            (Some(active), Err(_)) => {
                active.full_at = active.at + self.options.segment_bytes / 8;
                Ok(())
            }
            (_, result) => result,
        }
    }

    /// Writes a record to the active segment and makes it durable. Without success the segment is not active any more, unless
    /// it is as it was.
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let active = self.active.take().ok_or(io::ErrorKind::NotFound)?;
        let mut pen = Pen::new(&*active.file, active.salt, active.at, self.last + 1);
        if let Err(error) = record.write(&mut pen) {
            if is_full(&error) && active.file.set_len(active.at).is_ok() {
                self.active = Some(active);
            } else {
                self.suspect = true;
            }
            return Err(error);
        }
        let (seq, end) = (pen.seq - 1, pen.at);
        if let Err(error) = active.file.sync() {
            self.suspect = true;
            return Err(error);
        }
        self.active = Some(Active { at: end, ..active });
        self.last = seq;
        self.shared.send_modify(|durable| {
            let newest = durable.extents.last_mut().expect("a segment is active");
            (newest.end, newest.last, durable.seq) = (end, seq, seq);
        });
        Ok(())
    }

    fn remember(&mut self, record: &Record) {
        for (input, json) in &record.positions {
            self.positions.insert(input.clone(), json.clone());
        }
        self.recent.extend(record.alerts.iter().map(|entry| entry.uuid));
        let over = self.recent.len().saturating_sub(self.options.recent);
        self.recent.drain(..over);
    }

    /// Begins another segment.
    fn roll(&mut self) -> io::Result<()> {
        let result = self.begin_segment();
        if result.is_ok() {
            self.failures = 0;
        } else {
            self.failures += 1;
            // What it takes may be what is missing.
            let _ = self.fs.remove(&format!("{NEXT}{TEMPORARY}"));
        }
        result
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let prior = self.shared.borrow().extents.last().copied();
        if let Some(prior) = prior.filter(|_| self.suspect) {
            rewrite(&*self.fs, &file_name(prior.first), prior.end, self.failures >= PATIENCE)?;
            self.suspect = false;
        }
        let (first, salt) = (self.last + 1, segment::secret());
        let name = format!("{NEXT}{TEMPORARY}");
        let file = self.fs.open(&name, Mode::Create)?;
        let (records_at, dropped) = self.write_base(&*file, salt, first)?;
        let header = Header {
            log: self.id,
            salt,
            first,
            records_at,
            prior_first: prior.map_or(0, |prior| prior.first),
            prior_end: prior.map_or(0, |prior| prior.end),
            prior_last: prior.map_or(0, |prior| prior.last),
        };
        header.write(&*file)?;
        file.sync()?;
        // From here on a crash may find the new segment, in which what is appended to the old one does not count.
        self.active = None;
        self.fs.rename(&name, &file_name(first))?;
        self.fs.sync_dir()?;
        let full_at = records_at + self.options.segment_bytes.max(records_at);
        self.active = Some(Active { file, salt, at: records_at, full_at });
        (self.last, self.from, self.suspect) = (first, first, false);
        self.dropped += dropped;
        let (end, last) = (records_at, first);
        let extent = Extent { first, salt, records_at, end, last, exact: true, spoiled: false };
        self.shared.send_modify(|durable| {
            durable.extents.push(extent);
            durable.seq = first;
        });
        Ok(())
    }

    /// Writes the state as it is. Yields where it ends, and how many steps were left out for want of room.
    fn write_base(&self, file: &dyn File, salt: u64, first: u64) -> io::Result<(u64, u64)> {
        let mut pen = Pen::new(file, salt, BASE_AT, first);
        self.write_frame(&mut pen)?;
        pen.flush(BASE)?;
        let recent: Vec<u8> = self.recent.iter().flat_map(|uuid| *uuid.as_bytes()).collect();
        pen.put(&Item::Recent(&recent), BASE)?;
        pen.flush(BASE)?;
        let dropped = self.write_steps(&mut pen)?;
        // Once more, since all else depends on it.
        self.write_frame(&mut pen)?;
        let count = pen.written + 1;
        pen.put(&Item::Count(count), BASE)?;
        pen.flush(BASE)?;
        Ok((pen.at, dropped))
    }

    /// Writes the steps that are live, and yields the number of those for which there is no room.
    fn write_steps(&self, pen: &mut Pen<'_>) -> io::Result<u64> {
        if self.options.max_step_bytes == 0 {
            return Ok(0);
        }
        let excess = self.excess()?;
        let (mut skipped, mut dropped) = (0, 0);
        let lenient = self.failures >= PATIENCE;
        self.each_step(lenient, &mut |rule, time, bytes| {
            if !self.is_live(rule, time) {
                return Ok(());
            }
            if skipped < excess {
                skipped += bytes.len() as u64;
                dropped += 1;
                return Ok(());
            }
            pen.put(&Item::Step { time, bytes }, BASE)
        })?;
        pen.flush(BASE)?;
        Ok(dropped)
    }

    /// Writes the rules and the positions.
    fn write_frame(&self, pen: &mut Pen<'_>) -> io::Result<()> {
        let of = self.options.rules.len() as u64;
        for (index, RuleTag { name, logic, .. }) in self.options.rules.iter().enumerate() {
            pen.put(&Item::Rule { index: index as u64, of, name, logic: *logic }, BASE)?;
        }
        for (input, json) in &self.positions {
            pen.put(&Item::Position { input, json }, BASE)?;
        }
        Ok(())
    }

    fn is_live(&self, rule: u32, time: Nanos) -> bool {
        let reach = self.options.rules[rule as usize].reach;
        time >= self.clock.saturating_sub(reach)
    }

    /// By how many bytes the live steps are too many.
    fn excess(&self) -> io::Result<u64> {
        let most = self.options.max_step_bytes;
        let all: u64 = self.chain().iter().map(|extent| extent.end).sum();
        if all <= most {
            return Ok(0);
        }
        let mut live = 0;
        self.each_step(self.failures >= PATIENCE, &mut |rule, time, bytes| {
            live += if self.is_live(rule, time) { bytes.len() as u64 } else { 0 };
            Ok(())
        })?;
        Ok(live.saturating_sub(most))
    }

    /// The segments that the state is in.
    fn chain(&self) -> Vec<Extent> {
        let durable = self.shared.borrow();
        durable.extents.iter().filter(|extent| extent.first >= self.from).copied().collect()
    }

    /// Goes over all steps, as steps of today's rules.
    fn each_step(&self, lenient: bool, visit: &mut VisitStep<'_>) -> io::Result<()> {
        let mut step = Vec::new();
        for extent in self.chain() {
            let numbers = self.numbers(&extent, lenient)?;
            let mut scan = |mut scanner: Scanner, end: u64| -> io::Result<()> {
                scanner.lenient = lenient;
                loop {
                    match scanner.find(end, extent.last, &|_| true)? {
                        Found::Record(_) => {}
                        Found::Damaged(..) => continue,
                        Found::End => return Ok(()),
                    }
                    for item in items(scanner.payload()) {
                        let Item::Step { time, mut bytes } = item else { continue };
                        let old = take_number(&mut bytes).and_then(|old| usize::try_from(old).ok());
                        let Some(&Some(rule)) = old.and_then(|old| numbers.get(old)) else { continue };
                        step.clear();
                        put_number(&mut step, u64::from(rule));
                        step.extend_from_slice(bytes);
                        visit(rule, time, &step)?;
                    }
                }
            };
            if extent.first == self.from {
                scan(self.base(&extent)?, extent.records_at.min(extent.end))?;
            }
            let file = self.fs.open(&file_name(extent.first), Mode::Read)?;
            scan(Scanner::new(file, extent.salt, extent.records_at, extent.first + 1), extent.end)?;
        }
        Ok(())
    }

    fn base(&self, extent: &Extent) -> io::Result<Scanner> {
        let file = self.fs.open(&file_name(extent.first), Mode::Read)?;
        Ok(Scanner::new(file, extent.salt, BASE_AT, extent.first))
    }

    /// What the rules of a segment are called today.
    fn numbers(&self, extent: &Extent, lenient: bool) -> io::Result<Vec<Option<u32>>> {
        let mut scanner = self.base(extent)?;
        scanner.lenient = lenient;
        let (mut numbers, mut known) = (Vec::new(), 0);
        loop {
            match scanner.find(extent.records_at.min(extent.end), extent.last, &|_| true)? {
                Found::Record(_) => {}
                Found::Damaged(..) => continue,
                Found::End => return Ok(numbers),
            }
            for item in items(scanner.payload()) {
                let Item::Rule { index, of, name, logic } = item else { continue };
                if index >= of.min(MAX_RULES) {
                    continue;
                }
                let same = |tag: &RuleTag| tag.name == name && tag.logic == logic;
                let today = self.options.rules.iter().position(same).map(|at| at as u32);
                numbers.resize(numbers.len().max(index as usize + 1), None);
                numbers[index as usize] = today;
                known += 1;
                if known == of {
                    return Ok(numbers);
                }
            }
        }
    }
}
