//! How far a sink is: a file of two slots, written in turn, so that a write that is torn leaves the other.
//!
//! Guarantees: a place that was saved survives the end of the process, and one that was synced a power cut. What is damaged
//! costs duplicates, never an alert: without a slot that can be read the sink begins with all that the log still holds.
//! A sink that was never there before begins at the end; whoever opens the cursor says whether it was.
//!
//! ```text
//! slot at 0 and at 512: magic[8] version:u32 alerts:u32 count:u64 log:u64 seq:u64 crc32c:u32, little-endian
//! ```

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use detectors::bytes::hex;
use sha2::{Digest as _, Sha256};

use super::fs::{File, Fs, Mode, TEMPORARY, read_exact_at};
use super::log::{Damage, Place, Tail};

const MAGIC: [u8; 8] = *b"LAPWCUR\x1A";
const VERSION: u32 = 1;
const SLOT: usize = 44;
/// Each slot has a sector of its own.
const SECTOR: u64 = 512;

/// How far a sink is.
#[derive(Debug)]
pub(crate) struct Cursor {
    fs: Arc<dyn Fs>,
    name: String,
    file: Option<Box<dyn File>>,
    slot: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// How often it was written: the higher one is right.
    count: u64,
    /// The log that the place is in.
    log: u64,
    place: Place,
}

impl Slot {
    fn to_bytes(self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.place.alerts.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.count.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.log.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.place.seq.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; SLOT]) -> Option<Slot> {
        let number =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were taken"));
        let slot = Slot {
            count: number(16),
            log: number(24),
            place: Place { seq: number(32), alerts: (number(8) >> 32) as u32 },
        };
        (slot.to_bytes() == *bytes).then_some(slot)
    }

    fn read(file: &dyn File) -> Option<Slot> {
        let slot = |at| {
            let mut bytes = [0; SLOT];
            read_exact_at(file, &mut bytes, at).ok().and_then(|()| Slot::from_bytes(&bytes))
        };
        slot(0).into_iter().chain(slot(SECTOR)).max_by_key(|slot| slot.count)
    }
}

impl Cursor {
    /// The cursor of a sink, which is `known` if it was there before. To be called before anything is appended that the sink must see: what comes after is not missed
    /// even if the process ends at once. What is said beside it is what was wrong with the file.
    pub(crate) fn open(fs: Arc<dyn Fs>, sink: &str, tail: &Tail, known: bool) -> (Cursor, Option<Damage>) {
        let name = file_name(sink);
        let opened = match fs.open(&name, Mode::Read) {
            Ok(file) => Some(Slot::read(&*file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(None),
        };
        let (log, end) = (tail.id(), tail.end());
        let (place, what) = match opened {
            None if known => (Place::START, Some("it is gone: the sink gets again what the log still holds")),
            None => (end, None),
            Some(None) => (Place::START, Some("it is damaged: the sink gets again what the log still holds")),
            Some(Some(slot)) if slot.log != log => {
                (Place::START, Some("it belongs to another log: the sink gets all that this one holds"))
            }
            // The log has lost its end since. Its numbers are given out again, and must not be taken for known ones.
            Some(Some(slot)) if slot.place > end => {
                (end, Some("it is beyond the log's end, and is put there"))
            }
            Some(Some(slot)) => (slot.place, None),
        };
        let damaged = what.map(ToOwned::to_owned);
        let count = opened.flatten().map_or(0, |slot| slot.count);
        let known = opened.flatten().is_some_and(|slot| slot.log == log && slot.place == place);
        let mut cursor = Cursor { fs, name, file: None, slot: Slot { count, log, place } };
        let made = if known { Ok(()) } else { cursor.make() };
        let what = damaged.or_else(|| made.err().map(|error| format!("it cannot be written: {error}")));
        let place = cursor.fs.path(&cursor.name);
        let damage = what.map(|what| Damage { what, place, lost: None });
        (cursor, damage)
    }

    /// Where the sink goes on.
    pub(crate) fn place(&self) -> Place {
        self.slot.place
    }

    /// Everything before this place is acknowledged.
    ///
    /// # Errors
    /// It is remembered, but not in the file.
    pub(crate) fn save(&mut self, place: Place) -> io::Result<()> {
        self.slot.place = place;
        if self.file.is_none() {
            match self.fs.open(&self.name, Mode::Read) {
                Ok(_) => self.file = Some(self.fs.open(&self.name, Mode::Write)?),
                Err(_) => return self.make(),
            }
        }
        let Some(file) = &self.file else { return Ok(()) };
        let slot = Slot { count: self.slot.count + 1, ..self.slot };
        file.write_at(&slot.to_bytes(), slot.count % 2 * SECTOR)?;
        // Only now: a slot that may be torn is the next to be written.
        self.slot.count = slot.count;
        Ok(())
    }

    /// Forgets how far a sink is that is there no more.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub(crate) fn remove(fs: &dyn Fs, sink: &str) -> io::Result<()> {
        match fs.remove(&file_name(sink)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes what was saved durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync())
    }

    /// Writes the whole file, durably.
    fn make(&mut self) -> io::Result<()> {
        let fresh = format!("{}{TEMPORARY}", self.name);
        let file = self.fs.open(&fresh, Mode::Create)?;
        let slot = Slot { count: self.slot.count + 1, ..self.slot };
        file.write_at(&slot.to_bytes(), slot.count % 2 * SECTOR)?;
        file.sync()?;
        self.fs.rename(&fresh, &self.name)?;
        self.fs.sync_dir()?;
        (self.slot, self.file) = (slot, Some(file));
        Ok(())
    }
}

/// Longer names are cut, and told apart by a hash.
const LONGEST: usize = 100;

/// The file of a sink, whose name may be anything.
fn file_name(sink: &str) -> String {
    let mut name = String::from("cursor-");
    for byte in sink.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => write!(name, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
    }
    if name.len() > LONGEST {
        name.truncate(LONGEST);
        name.push('~');
        name.push_str(&hex(&Sha256::digest(sink)[..16]));
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::delivery::fs::simulated::{Fault, Plan, Simulated};
    use crate::delivery::log::{Log, Options};
    use crate::delivery::{Entry, Record};

    fn log(disk: &Simulated) -> Log {
        Log::open(Arc::new(disk.clone()), Options::durable(Vec::new())).unwrap().0
    }

    fn append(log: &mut Log) -> Place {
        let entry = Entry { uuid: uuid::Uuid::nil(), json: "{}".to_owned() };
        let seq = log.append(&Record { alerts: vec![entry], ..Record::default() }).unwrap();
        Place { seq: seq + 1, alerts: 0 }
    }

    fn open(disk: &Simulated, log: &Log) -> (Place, bool) {
        let (cursor, damage) = Cursor::open(Arc::new(disk.clone()), "a sink", &log.tail(), false);
        (cursor.place(), damage.is_some())
    }

    #[test]
    fn a_new_sink_begins_at_the_end_and_an_old_one_where_it_was() {
        let disk = Simulated::new(1);
        let mut log = log(&disk);
        let here = append(&mut log);
        let (mut cursor, damage) = Cursor::open(Arc::new(disk.clone()), "a sink", &log.tail(), false);
        assert_eq!((cursor.place(), damage), (here, None));
        append(&mut log);
        disk.restart();
        assert_eq!(open(&disk, &log), (here, false), "even if the power goes at once");
        for alerts in 1..4 {
            cursor = Cursor::open(Arc::new(disk.clone()), "a sink", &log.tail(), false).0;
            let place = Place { alerts, ..here };
            cursor.save(place).unwrap();
            disk.kill();
            assert_eq!(open(&disk, &log), (place, false));
        }
        cursor.sync().unwrap();
        disk.restart();
        assert_eq!(open(&disk, &log), (Place { alerts: 3, ..here }, false));
    }

    #[test]
    fn damage_costs_duplicates_and_no_alert() {
        let disk = Simulated::new(1);
        let mut log = log(&disk);
        let mut places: Vec<Place> = (0..3).map(|_| append(&mut log)).collect();
        let (mut cursor, _) = Cursor::open(Arc::new(disk.clone()), "a sink", &log.tail(), false);
        cursor.save(places[1]).unwrap();
        places.push(Place::START);
        let file = file_name("a sink");
        let length = disk.files()[&file].len();
        for at in 0..length {
            for bit in 0..8 {
                let mut files: BTreeMap<String, Vec<u8>> = disk.files();
                files.get_mut(&file).unwrap()[at] ^= 1 << bit;
                let place = open(&Simulated::with(&files, 1), &log).0;
                assert!(places.contains(&place), "{place:?}");
            }
            let cut = Simulated::with(&disk.files(), 1);
            cut.damage(&file, |bytes| bytes.truncate(at));
            assert!(places.contains(&open(&cut, &log).0));
        }
    }

    #[test]
    fn a_place_of_another_log_or_beyond_the_end_is_none() {
        let disk = Simulated::new(1);
        let mut first = log(&disk);
        append(&mut first);
        let (mut cursor, _) = Cursor::open(Arc::new(disk.clone()), "a sink", &first.tail(), false);
        let end = first.tail().end();
        cursor.save(Place { seq: end.seq + 7, alerts: 2 }).unwrap();
        assert_eq!(open(&disk, &first), (end, true));
        disk.restart();
        assert_eq!(open(&disk, &first), (end, false), "that is durable at once");
        let mut other = log(&Simulated::new(2));
        append(&mut other);
        assert_eq!(open(&disk, &other), (Place::START, true));
    }

    #[test]
    fn without_a_file_it_remembers_and_tries_again() {
        let disk = Simulated::new(1);
        let mut log = log(&disk);
        let place = append(&mut log);
        disk.plan(Some(Plan { operations: 0..1000, fault: Fault::Full }));
        let (mut cursor, damage) = Cursor::open(Arc::new(disk.clone()), "a sink", &log.tail(), false);
        assert!(damage.is_some());
        let next = Place { seq: place.seq - 1, alerts: 1 };
        assert!(cursor.save(next).is_err());
        assert_eq!(cursor.place(), next);
        disk.plan(None);
        cursor.save(next).unwrap();
        assert_eq!(open(&disk, &log), (next, false));
    }

    #[test]
    fn names_of_files_are_harmless_and_differ() {
        for (sink, file) in [
            ("falcosidekick", "cursor-falcosidekick"),
            ("../../etc/passwd", "cursor-%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"),
            ("a.tmp", "cursor-a%2Etmp"),
            ("ä", "cursor-%C3%A4"),
            ("", "cursor-"),
        ] {
            assert_eq!(file_name(sink), file);
        }
        let (a, b) = (file_name(&"x".repeat(1000)), file_name(&"x".repeat(1001)));
        assert!(a != b && a.len() < 200);
    }
}
