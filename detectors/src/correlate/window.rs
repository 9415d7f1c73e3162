//! The state of one group: buckets of events, and which of them complete a condition.
//!
//! Everything here is a function of the *set* of events, never of their order. Let T be the timespan and let bucket b hold
//! the times in [bT, (b+1)T). A condition that only grows is judged over the window (t - T, t] that ends at an event's time t
//! in b: it spans a tail of bucket b-1 and a head of bucket b. A new event can therefore complete windows that end at itself
//! or at later events less than T away, in its own bucket or the next, and those are looked at again. Since the condition
//! only grows, the set of buckets that have fired is the same after any order of arrival.
//!
//! What may be forgotten without changing any answer:
//! - *counts, bucket fired*: only windows ending in the next bucket still read it, and they read a tail of it: if the tail
//!   holds `need` distinct ids, so do its newest `need`; if it holds fewer, they are all among its newest `need`.
//! - *counts, bucket not fired*: it has fewer than `need` distinct ids (the window that ends at its last event spans all of
//!   it), and of each id only the earliest and the latest event matter: a head contains the id if it contains the earliest, a
//!   tail if it contains the latest, and a window that ends at one in between is no better than the window that ends at
//!   the event before it.
//! - *temporal*: the same argument, with the member in place of the id.
//!
//! `temporal_ordered`, and rules whose firings are steps of other rules, need all events. Past [`LIMIT`] events in a bucket
//! these are thinned, evenly in time, and the alerts are marked approximate.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use super::rule::{Judge, MAX_MEMBERS, Plan};
use crate::event::time::Nanos;

/// Events that a bucket keeps where none can be told to be superfluous.
const LIMIT: usize = 1024;

/// How far a bucket may grow past what it needs before it is settled. Tests settle at once.
const SLACK: usize = if cfg!(test) { 0 } else { 64 };

/// Notes that a bucket keeps: of all events for counts, of each member otherwise.
const NOTES: usize = 10;

/// What the entry of a waiting group in the list of what is due costs, at most.
const DUE: usize = 64;

/// Recently touched buckets around which history is kept, whatever the clock says.
const ANCHORS: usize = 3;

/// Buckets that a group may have.
pub(super) const BUCKETS: usize = 256;

/// And where history is kept beside them: of a day for timespans of a minute and longer.
pub(super) const MOST_BUCKETS: usize = 2048;

/// One event in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) time: Nanos,
    /// What is counted: the request, or the value.
    pub(super) id: u64,
    pub(super) member: u8,
    /// The rules that this one feeds know that the condition held at this event.
    pub(super) told: bool,
}

/// Where an event lies and what it shows, packed.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) time: Nanos,
    pub(super) member: u8,
    pub(super) bytes: Box<[u8]>,
}

/// The events of one group in one epoch-aligned stretch of a timespan.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) index: i64,
    pub(super) fired: bool,
    /// Events were forgotten that might have mattered.
    pub(super) inexact: bool,
    /// The times of its earliest and latest event, those it forgot included.
    pub(super) span: Option<(Nanos, Nanos)>,
    /// By (time, member, id); by id where the rule is judged on close.
    pub(super) entries: Vec<Entry>,
    /// By (time, member).
    pub(super) notes: Vec<Note>,
    note_bytes: usize,
}

/// Buffers for counting.
pub(super) type Seen = HashSet<u64, RandomState>;

/// What a heap block costs.
pub(super) fn block(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes.next_multiple_of(16) + 16 }
}

/// Inserts; the first element gets a block of its own size, since most groups never see a second.
fn insert_at<T>(list: &mut Vec<T>, at: usize, item: T) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.insert(at, item);
}

impl Entry {
    fn key(&self) -> (Nanos, u8, u64) {
        (self.time, self.member, self.id)
    }
}

impl Bucket {
    /// Memory on the heap.
    pub(super) fn weight(&self) -> usize {
        block(self.entries.capacity() * size_of::<Entry>())
            + block(self.notes.capacity() * size_of::<Note>())
            + self.note_bytes
    }

    /// Adds an event. False if it is there already.
    fn insert(&mut self, entry: Entry) -> bool {
        match self.entries.binary_search_by_key(&entry.key(), Entry::key) {
            Ok(_) => false,
            Err(at) => {
                insert_at(&mut self.entries, at, entry);
                true
            }
        }
    }

    /// Adds an id, up to `enough` of them. Entries are ordered by id here. True if it is new.
    fn insert_once(&mut self, entry: Entry, enough: usize) -> bool {
        match self.entries.binary_search_by_key(&entry.id, |e| e.id) {
            Err(at) if self.entries.len() < enough => {
                insert_at(&mut self.entries, at, entry);
                true
            }
            _ => false,
        }
    }

    /// Keeps a note of an event: of each class the earliest few and the latest few.
    fn note(&mut self, note: Note, counting: bool) {
        let member = note.member;
        let at = self.notes.partition_point(|n| (n.time, n.member) <= (note.time, note.member));
        self.note_bytes += block(note.bytes.len());
        insert_at(&mut self.notes, at, note);
        let same = |n: &Note| counting || n.member == member;
        if self.notes.iter().filter(|n| same(n)).count() > NOTES {
            let middle = self.notes.iter().enumerate().filter(|(_, n)| same(n)).nth(NOTES / 3);
            let at = middle.expect("there are more than NOTES").0;
            self.note_bytes -= block(self.notes.remove(at).bytes.len());
        }
    }

    /// Forgets what cannot matter, or, where everything can, what matters least.
    pub(super) fn settle(&mut self, plan: &Plan) {
        let len = self.entries.len();
        let all = plan.chained() || matches!(plan.judge, Judge::Ordered);
        match plan.judge {
            Judge::Count(need) if all => {
                if len > LIMIT.max(4 * need) {
                    self.thin(plan, need);
                }
            }
            Judge::Count(need) if self.fired => {
                if len > need + need / 4 + SLACK {
                    self.keep_newest(need);
                }
            }
            Judge::Count(need) => {
                if len > 2 * need + SLACK {
                    self.keep_ends(|e| e.id);
                }
            }
            Judge::Members if !all => {
                if len > 2 * plan.rule.members.len() + SLACK {
                    self.keep_ends(|e| u64::from(e.member));
                }
            }
            Judge::Members | Judge::Ordered => {
                if len > LIMIT {
                    self.thin(plan, 0);
                }
            }
            Judge::CloseCount(_) | Judge::CloseMembers => {}
        }
    }

    /// Keeps the newest `need` distinct ids, each at its newest time.
    fn keep_newest(&mut self, need: usize) {
        let mut seen = Seen::default();
        self.entries.reverse();
        self.entries.retain(|e| seen.len() < need && seen.insert(e.id));
        self.entries.reverse();
        self.entries.shrink_to(need + need / 4 + SLACK);
    }

    /// Keeps the earliest and the latest event of each class.
    fn keep_ends(&mut self, class: impl Fn(&Entry) -> u64) {
        let mut latest: HashMap<u64, usize, RandomState> = HashMap::default();
        for (i, e) in self.entries.iter().enumerate() {
            latest.insert(class(e), i);
        }
        let (mut seen, mut i) = (Seen::default(), 0);
        self.entries.retain(|e| {
            let class = class(e);
            let keep = seen.insert(class) || latest[&class] == i;
            i += 1;
            keep
        });
    }

    /// Keeps the newest `need` distinct ids and, of every member, the earliest and the latest event of each of a number of
    /// equal slices of the bucket.
    fn thin(&mut self, plan: &Plan, need: usize) {
        let slices = (LIMIT / 4 / plan.rule.members.len()).max(1) as i64;
        let width = (plan.rule.timespan / slices).max(1);
        let slice = |e: &Entry| e.time.rem_euclid(plan.rule.timespan) / width;
        let mut keep = vec![false; self.entries.len()];
        let mut last: [Option<(i64, usize)>; MAX_MEMBERS] = [None; MAX_MEMBERS];
        for (i, e) in self.entries.iter().enumerate() {
            let last = &mut last[usize::from(e.member)];
            if last.is_none_or(|(s, _)| s != slice(e)) {
                keep[i] = true;
                if let Some((_, before)) = *last {
                    keep[before] = true;
                }
            }
            *last = Some((slice(e), i));
        }
        last.into_iter().flatten().for_each(|(_, i)| keep[i] = true);
        let mut newest = Seen::default();
        for (i, e) in self.entries.iter().enumerate().rev() {
            if newest.len() >= need {
                break;
            }
            keep[i] |= newest.insert(e.id);
        }
        let mut kept = keep.into_iter();
        self.entries.retain(|_| kept.next() == Some(true));
        self.inexact = true;
    }
}

/// The state of one group of one rule.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) rule: u32,
    /// For rules that are judged on close, the bucket that the group is for; else 0.
    pub(super) only: i64,
    /// The packed group-by values.
    pub(super) key: Box<[u8]>,
    /// Least recently touched first.
    pub(super) buckets: Vec<Bucket>,
    /// How many events joined, up to two.
    pub(super) events: u8,
    /// When it is judged, if it waits for the watermark.
    pub(super) due: Option<Nanos>,
}

impl Group {
    /// Memory on the heap, itself included.
    pub(super) fn weight(&self) -> usize {
        block(size_of::<Group>())
            + if self.due.is_some() { DUE } else { 0 }
            + block(self.key.len())
            + block(self.buckets.capacity() * size_of::<Bucket>())
            + self.buckets.iter().map(Bucket::weight).sum::<usize>()
    }

    /// Where a bucket is.
    pub(super) fn find(&self, index: i64) -> Option<usize> {
        self.buckets.iter().position(|b| b.index == index)
    }

    /// The newest bucket.
    pub(super) fn newest(&self) -> i64 {
        self.buckets.iter().map(|b| b.index).max().unwrap_or(i64::MIN)
    }

    /// Makes a bucket the most recently touched, and forgets those that lie before `floor`, where by the event clock nothing can
    /// matter any more, and are out of reach of the last few so touched.
    ///
    /// An event at t needs the buckets from one before its own, and its own is at most `keep - 1` before the clock's while
    /// it is late by no more than [`Plan::patience`].
    fn touch(&mut self, index: i64, keep: i64, (floor, most): (i64, usize)) -> &mut Bucket {
        if let Some(at) = self.find(index) {
            self.buckets[at..].rotate_left(1);
        } else {
            let at = self.buckets.len();
            insert_at(&mut self.buckets, at, Bucket { index, ..Bucket::default() });
        }
        let from = self.buckets.len().saturating_sub(ANCHORS);
        let mut anchors = [index; ANCHORS];
        for (anchor, bucket) in anchors.iter_mut().zip(&self.buckets[from..]) {
            *anchor = bucket.index;
        }
        let near = |b: &Bucket| anchors.iter().any(|a| a.abs_diff(b.index) <= keep.unsigned_abs());
        self.buckets.retain(|b| b.index >= floor || near(b));
        let surplus = self.buckets.len().saturating_sub(most);
        self.buckets.drain(..surplus);
        let touched = self.buckets.last_mut().expect("the touched bucket stays");
        touched.inexact |= surplus > 0;
        touched
    }

    /// Adds an event to its bucket. Buckets before the first of the bounds are over, and there are at most so many. False if
    /// nothing is new.
    pub(super) fn add(&mut self, plan: &Plan, entry: Entry, note: &[u8], bounds: (i64, usize)) -> bool {
        let bucket = self.touch(plan.bucket(entry.time), plan.keep, bounds);
        let (first, last) = bucket.span.unwrap_or((entry.time, entry.time));
        bucket.span = Some((first.min(entry.time), last.max(entry.time)));
        let new = match plan.judge {
            Judge::CloseCount(enough) => bucket.insert_once(Entry { member: 0, ..entry }, enough),
            Judge::CloseMembers => {
                bucket.insert_once(Entry { id: u64::from(entry.member), ..entry }, MAX_MEMBERS)
            }
            // An event is counted once, whichever members it matched.
            Judge::Count(_) => bucket.insert(Entry { member: 0, ..entry }),
            Judge::Members | Judge::Ordered => bucket.insert(entry),
        };
        if new {
            let counting = matches!(plan.judge, Judge::Count(_) | Judge::CloseCount(_));
            bucket.note(Note { time: entry.time, member: entry.member, bytes: note.into() }, counting);
            self.events = (self.events + 1).min(2);
        }
        new
    }
}

/// The windows that end in one bucket.
pub(super) struct Windows<'a> {
    pub(super) plan: &'a Plan,
    /// The bucket before.
    pub(super) before: &'a [Entry],
    /// The bucket.
    pub(super) bucket: &'a [Entry],
}

impl Windows<'_> {
    /// The entries of the bucket, by index, at which the condition holds and has not been told to hold, among those less than
    /// a timespan from `from` on: all of them for a rule that feeds others, else the first.
    pub(super) fn complete(&self, from: Nanos, seen: &mut Seen) -> Vec<usize> {
        let mut found = Vec::new();
        match &self.plan.judge {
            Judge::Count(need) => self.counts(*need, from, seen, &mut found),
            Judge::Members => self.members(from, &mut found),
            Judge::Ordered => self.ordered(from, &mut found),
            Judge::CloseCount(_) | Judge::CloseMembers => {}
        }
        found
    }

    fn within(&self, from: Nanos, time: Nanos) -> bool {
        time >= from && time < from.saturating_add(self.plan.rule.timespan)
    }

    /// The entries in the window that ends at `end`, newest first.
    pub(super) fn ending(&self, end: Nanos) -> impl Iterator<Item = &Entry> + Clone {
        let start = end.saturating_sub(self.plan.rule.timespan);
        let low = self.before.partition_point(|e| e.time <= start);
        let high = self.bucket.partition_point(|e| e.time <= end);
        self.bucket[..high].iter().rev().chain(self.before[low..].iter().rev())
    }

    fn counts(&self, need: usize, from: Nanos, seen: &mut Seen, found: &mut Vec<usize>) {
        let first = self.bucket.partition_point(|e| e.time < from);
        for (i, e) in self.bucket.iter().enumerate().skip(first) {
            if !self.within(from, e.time) || (!found.is_empty() && !self.plan.chained()) {
                break;
            }
            let window = self.ending(e.time);
            if e.told || window.size_hint().0 < need {
                continue;
            }
            seen.clear();
            if window.into_iter().any(|w| seen.insert(w.id) && seen.len() >= need) {
                found.push(i);
            }
        }
    }

    fn members(&self, from: Nanos, found: &mut Vec<usize>) {
        let (condition, members) = (&self.plan.rule.condition, self.plan.rule.members.len());
        let mut last: [Option<Nanos>; MAX_MEMBERS] = [None; MAX_MEMBERS];
        for e in self.before {
            last[usize::from(e.member)] = Some(e.time);
        }
        let mut at = 0;
        for ties in self.bucket.chunk_by(|a, b| a.time == b.time) {
            let time = ties[0].time;
            for e in ties {
                last[usize::from(e.member)] = Some(time);
            }
            if self.within(from, time) {
                let start = time.saturating_sub(self.plan.rule.timespan);
                let present = last.iter().enumerate().filter(|(_, t)| t.is_some_and(|t| t > start));
                let present = present.fold(0_u64, |mask, (m, _)| mask | 1 << m);
                if condition.holds_members(present, members) {
                    found.extend((at..at + ties.len()).filter(|i| !self.bucket[*i].told));
                    if !self.plan.chained() && !found.is_empty() {
                        return;
                    }
                }
            }
            at += ties.len();
        }
    }

    /// A chain is complete at an event of the last member. `start[m]` is the latest time at which a chain of the members up
    /// to m, as far as it was seen, began.
    fn ordered(&self, from: Nanos, found: &mut Vec<usize>) {
        let last = self.plan.rule.members.len() - 1;
        let mut start: [Option<Nanos>; MAX_MEMBERS] = [None; MAX_MEMBERS];
        for (i, e) in self.before.iter().chain(self.bucket).enumerate() {
            let m = usize::from(e.member);
            let begun = if m == 0 { Some(e.time) } else { start[m - 1] };
            start[m] = begun; // never earlier than it was: times only rise here
            let Some(at) = i.checked_sub(self.before.len()) else { continue };
            let edge = e.time.saturating_sub(self.plan.rule.timespan);
            if m == last && !e.told && self.within(from, e.time) && begun.is_some_and(|t| t > edge) {
                found.push(at);
                if !self.plan.chained() {
                    return;
                }
            }
        }
    }

    /// The steps that an alert at `end` tells of: the latest event of each member, or the latest chain.
    pub(super) fn steps(&self, end: Nanos) -> Vec<(Nanos, u8)> {
        let members = self.plan.rule.members.len() as u8;
        let mut steps = Vec::new();
        match self.plan.judge {
            Judge::Members => {
                for m in 0..members {
                    steps.extend(self.ending(end).find(|e| e.member == m).map(|e| (e.time, m)));
                }
            }
            Judge::Ordered => {
                let mut bound = end;
                for m in (0..members).rev() {
                    let Some(e) = self.ending(end).find(|e| e.member == m && e.time <= bound) else { break };
                    bound = e.time;
                    steps.push((e.time, m));
                }
            }
            _ => {}
        }
        steps.sort_unstable();
        steps
    }
}
