//! Opening a log that may have been left in the middle of anything.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use detectors::event::time::Nanos;
use tokio::sync::watch;
use uuid::Uuid;

use super::segment::{BASE_AT, FINAL, Found, HEAD, Header, Item, Opened, Scanner, items, secret};
use super::{Active, BAD, Damage, Durable, Extent, Log, Options, SEGMENT, State, file_name};
use crate::delivery::OF_THE_RUN;
use crate::delivery::fs::{Fs, Mode, TEMPORARY, rewrite};

/// So many files that could not be read are kept for somebody to look at.
const MAX_BAD: usize = 8;

/// Opens a log.
pub(super) fn open(fs: Arc<dyn Fs>, options: Options) -> io::Result<(Log, State)> {
    let mut survey = Survey::of(&*fs)?;
    let mut extents = survey.extents();
    let mut gathered = Gathered { limit: options.recent, ..Gathered::default() };
    let start = gathered.start(&*fs, &extents);
    for at in start..extents.len() {
        gathered.base(&*fs, &extents[at], at == start);
        let newest = at + 1 == extents.len();
        gathered.records(&*fs, &mut extents[at], newest);
    }
    survey.damage.append(&mut gathered.damage);
    let again = survey.set_aside || gathered.baseless;
    if again {
        gathered.recent.clear();
    }
    let newest = extents.last().copied();
    // What was read may be in the kernel's memory alone, and if a sync of the last run has failed, another one proves nothing.
    let rewritten = |newest: Extent| rewrite(&*fs, &file_name(newest.first), newest.end, false).is_ok();
    let suspect = newest.is_some_and(|newest| !rewritten(newest));
    // A seq that something may have had, and be it a cursor, is not used again.
    let last = newest.map_or(0, |newest| newest.last).max(gathered.bound).max(survey.bound);
    let clean = !suspect && !again && gathered.is_clean && newest.is_some_and(|newest| newest.last == last);
    let mut log = Log {
        id: survey.segments.last().map_or_else(secret, |(header, _)| header.log),
        positions: gathered.positions.clone(),
        recent: gathered.recent.iter().copied().collect::<VecDeque<Uuid>>(),
        clock: Nanos::MIN,
        last,
        from: if again { u64::MAX } else { extents.get(start).map_or(0, |extent| extent.first) },
        active: None,
        suspect,
        failures: 0,
        dropped: 0,
        shared: watch::Sender::new(Durable { seq: last, extents }),
        fs,
        options,
    };
    if let Some(newest) = newest.filter(|_| clean) {
        log.active = log.adopt(&newest);
    }
    let recent = gathered.recent.into();
    let Gathered { positions, torn, .. } = gathered;
    Ok((log, State { positions, recent, damage: survey.damage, torn, again }))
}

impl Log {
    /// Goes on with the newest segment, if its rules are today's.
    fn adopt(&self, newest: &Extent) -> Option<Active> {
        let numbers = self.numbers(newest, true).ok()?;
        let count = self.options.rules.len();
        if numbers.len() != count || !numbers.iter().zip(0..).all(|(number, at)| *number == Some(at)) {
            return None;
        }
        let file = self.fs.open(&file_name(newest.first), Mode::Write).ok()?;
        let full_at = newest.records_at + self.options.segment_bytes.max(newest.records_at);
        Some(Active { file, salt: newest.salt, at: newest.end, full_at })
    }
}

/// What files there are.
#[derive(Debug, Default)]
struct Survey {
    /// Segments that can be read, oldest first, and their length.
    segments: Vec<(Header, u64)>,
    /// No record of a segment that cannot be read has a higher seq.
    bound: u64,
    /// A segment was there that is none any more. Alerts may have waited in it.
    set_aside: bool,
    damage: Vec<Damage>,
}

impl Survey {
    fn of(fs: &dyn Fs) -> io::Result<Survey> {
        let mut survey = Survey::default();
        let mut names = fs.list()?;
        names.sort_unstable();
        let mut bad: Vec<String> = Vec::new();
        for name in names {
            if name.ends_with(TEMPORARY) {
                // Nobody needs it; if it cannot be removed, it will be written over.
                let _ = fs.remove(&name);
            } else if let Some(first) = number_of(&name, SEGMENT) {
                bad.extend(survey.segment(fs, &name, first));
            } else if let Some(first) = name.strip_suffix(BAD).and_then(|name| number_of(name, SEGMENT)) {
                survey.at_most(first, length_of(fs, &name));
                bad.push(name);
            }
        }
        for name in bad.iter().take(bad.len().saturating_sub(MAX_BAD)) {
            let _ = fs.remove(name);
        }
        Ok(survey)
    }

    /// Looks at a segment. Yields its new name if it cannot be read.
    fn segment(&mut self, fs: &dyn Fs, name: &str, first: u64) -> Option<String> {
        let opened = fs.open(name, Mode::Read).map(|file| (Header::read(&*file), file.len()));
        let (what, set_aside) = match opened {
            Ok((Opened::Fine(header), Ok(length))) if header.first == first => {
                self.segments.push((header, length));
                return None;
            }
            Ok((Opened::Newer(version), _)) => {
                (format!("written by a newer Lapwing (format {version}), and left alone"), false)
            }
            Ok(_) => ("no segment of a log: set aside".to_owned(), true),
            Err(error) => (format!("cannot be opened, and is left alone: {error}"), false),
        };
        self.damage.push(Damage { what, place: fs.path(name), lost: None });
        self.at_most(first, length_of(fs, name));
        self.set_aside |= set_aside;
        let aside = format!("{name}{BAD}");
        (set_aside && fs.rename(name, &aside).is_ok()).then_some(aside)
    }

    fn at_most(&mut self, first: u64, length: u64) {
        self.bound = self.bound.max(first.saturating_add(length / HEAD as u64 + 1));
    }

    /// What is valid of each segment, as the next one says. What is valid of the newest remains to be found out.
    fn extents(&self) -> Vec<Extent> {
        let next = self.segments.iter().skip(1).map(|(header, _)| Some(header)).chain([None]);
        let extent = |(&(header, length), next): (&(Header, u64), Option<&Header>)| {
            let Header { first, salt, records_at, .. } = header;
            let (end, last, exact) = match next {
                Some(next) if next.prior_first == first => {
                    (next.prior_end.min(length), next.prior_last, true)
                }
                Some(next) => (length, next.first - 1, false),
                None => (length, u64::MAX, false),
            };
            Extent { first, salt, records_at, end, last, exact, spoiled: false }
        };
        self.segments.iter().zip(next).map(extent).collect()
    }
}

fn number_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let canonical = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn length_of(fs: &dyn Fs, name: &str) -> u64 {
    fs.open(name, Mode::Read).and_then(|file| file.len()).unwrap_or(0)
}

/// What a record says whose last part has not come yet.
#[derive(Debug, Default)]
struct Pending {
    positions: BTreeMap<String, String>,
    alerts: Vec<Uuid>,
}

/// The state, as it comes together.
#[derive(Debug, Default)]
struct Gathered {
    limit: usize,
    positions: BTreeMap<String, String>,
    recent: VecDeque<Uuid>,
    pending: Pending,
    /// Records that were acknowledged are lost: what they held has to be read again, and so no later position counts.
    holed: bool,
    /// So is something of which no position tells where it was read.
    baseless: bool,
    /// The segment can be gone on with.
    is_clean: bool,
    /// No record behind the newest segment's last one had a higher seq.
    bound: u64,
    torn: u64,
    damage: Vec<Damage>,
}

impl Gathered {
    /// The newest segment whose base is whole, of the last two.
    fn start(&mut self, fs: &dyn Fs, extents: &[Extent]) -> usize {
        self.is_clean = true;
        let newest = extents.len().saturating_sub(1);
        let Some(extent) = extents.get(newest) else { return 0 };
        if read_base(fs, extent, &mut |_| {}) {
            return newest;
        }
        self.is_clean = false;
        let before = newest.checked_sub(1).filter(|&at| read_base(fs, &extents[at], &mut |_| {}));
        let what = match before {
            Some(_) => "the state at its beginning is damaged: that of the segment before is used",
            None => "the state at its beginning is damaged: what can be read of it is used",
        };
        self.damage.push(Damage {
            what: what.to_owned(),
            place: fs.path(&file_name(extent.first)),
            lost: None,
        });
        if before.is_none() {
            (self.holed, self.baseless) = (true, true);
        }
        before.unwrap_or(newest)
    }

    /// Takes what the base says, or only the positions, if the rest is known from the segment before.
    fn base(&mut self, fs: &dyn Fs, extent: &Extent, all: bool) {
        read_base(fs, extent, &mut |item| match item {
            Item::Position { input, json } => self.position(input.to_owned(), json.to_owned()),
            Item::Recent(uuids) if all => {
                self.recent.extend(uuids.as_chunks().0.iter().map(|uuid| Uuid::from_bytes(*uuid)));
            }
            _ => {}
        });
        self.trim();
    }

    /// Takes what the records say. Of the newest segment it is found out where they end.
    fn records(&mut self, fs: &dyn Fs, extent: &mut Extent, newest: bool) {
        let mut whole = (extent.first, extent.records_at.min(extent.end));
        let place = fs.path(&file_name(extent.first));
        let Ok(file) = fs.open(&file_name(extent.first), Mode::Read) else {
            // It was there a moment ago.
            self.damage.push(Damage { what: "cannot be opened any more".to_owned(), place, lost: None });
            self.is_clean = false;
            return;
        };
        let mut scanner = Scanner::new(file, extent.salt, extent.records_at, extent.first + 1);
        scanner.lenient = true;
        // Damage of which it is not known yet whether the record was acknowledged: a disk may lose any part of one that was not.
        let mut doubts: Vec<Damage> = Vec::new();
        while let Ok(found) = scanner.find(extent.end, extent.last, &|_| true) {
            match found {
                Found::End => break,
                Found::Record(head) => {
                    if head.part == 0 && !doubts.is_empty() {
                        self.believe(&mut doubts, extent);
                    }
                    self.record(scanner.payload());
                    if head.kind() == FINAL && doubts.is_empty() {
                        self.settle();
                        whole = (head.seq, scanner.at);
                    }
                }
                Found::Damaged(range, lost) => {
                    let what = format!("bytes {} to {} are no records: passed over", range.start, range.end);
                    doubts.push(Damage { what, place: place.clone(), lost: Some(lost) });
                }
            }
        }
        if !newest && !doubts.is_empty() {
            self.believe(&mut doubts, extent);
        }
        self.pending = Pending::default();
        if newest {
            let torn = extent.end.saturating_sub(whole.1);
            self.torn = torn;
            self.is_clean &= torn == 0;
            self.bound = if torn == 0 { 0 } else { whole.0 + torn / HEAD as u64 + 1 };
            (extent.last, extent.end, extent.exact) = (whole.0, whole.1, true);
        } else if scanner.next <= extent.last {
            (extent.spoiled, self.holed) = (true, true);
            let lost = extent.exact.then_some(extent.last + 1 - scanner.next);
            self.damage.push(Damage { what: "its end is damaged: passed over".to_owned(), place, lost });
        }
    }

    /// Another record has been begun, so that the damaged one was acknowledged.
    fn believe(&mut self, doubts: &mut Vec<Damage>, extent: &mut Extent) {
        (self.is_clean, extent.spoiled, self.holed) = (false, true, true);
        // What else there is of the damaged record is behind the hole as well.
        self.settle();
        self.damage.append(doubts);
    }

    /// Takes note of a position. Behind lost records an input's older one counts: from that it reads again what was lost, and
    /// what it reads twice is known by its ids. Without an older one nothing tells how far back that was.
    fn position(&mut self, name: String, json: String) {
        let lost = self.holed && !name.starts_with(OF_THE_RUN);
        if !lost || !self.positions.contains_key(&name) {
            self.baseless |= lost;
            self.positions.insert(name, json);
        }
    }

    fn record(&mut self, payload: &[u8]) {
        for item in items(payload) {
            match item {
                Item::Position { input, json } => {
                    self.pending.positions.insert(input.to_owned(), json.to_owned());
                }
                Item::Alert { uuid, .. } => self.pending.alerts.push(uuid),
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        for (name, json) in std::mem::take(&mut self.pending.positions) {
            self.position(name, json);
        }
        self.recent.extend(self.pending.alerts.drain(..));
        self.trim();
    }

    fn trim(&mut self) {
        let over = self.recent.len().saturating_sub(self.limit);
        self.recent.drain(..over);
    }
}

/// Reads a base. Whether it is whole.
fn read_base(fs: &dyn Fs, extent: &Extent, visit: &mut dyn FnMut(Item<'_>)) -> bool {
    let Ok(file) = fs.open(&file_name(extent.first), Mode::Read) else { return false };
    let mut scanner = Scanner::new(file, extent.salt, BASE_AT, extent.first);
    scanner.lenient = true;
    let (mut read, mut count) = (0, None);
    while let Ok(found) = scanner.find(extent.records_at.min(extent.end), extent.first, &|_| true) {
        match found {
            Found::End => break,
            Found::Damaged(..) => {}
            Found::Record(_) => {
                read += 1;
                for item in items(scanner.payload()) {
                    if let Item::Count(number) = item {
                        count = Some(number);
                    }
                    visit(item);
                }
            }
        }
    }
    count == Some(read)
}
