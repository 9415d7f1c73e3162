//! Repeats of the same alert, held back for one output.
//!
//! Alerts of the same detector, actor and target are one group. The first is sent; those within `repeat_after` of it, by event
//! time, are held back and counted; what was held back is told of by one follow-up, once an event later than that is seen. So
//! what an output shows depends on the alerts alone, not on when they were sent. The alerts before grouping stay as they are.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use detectors::alert::{Alert, Group};
use detectors::bytes::hex;
use detectors::event::time::{self, Nanos};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fs::{Fs, Mode, TEMPORARY, read_exact_at};
use super::log::Place;
use crate::sink::{self, Item, group_key};

/// So many groups are open at once; the oldest is closed for a new one.
const MOST: usize = 10_000;
/// The alerts that were held back last take no more bytes than these, over all groups.
const BUDGET: usize = 32 << 20;
/// No file of groups is longer.
const LONGEST: u64 = 256 << 20;

/// The groups of one output.
///
/// Two states are kept apart: `open` knows all alerts that were read, `kept` only those that the output is done with. The
/// latter is what is saved, with the place that it belongs to: after a restart alerts from there on are read again, and find
/// the groups as they were.
#[derive(Debug)]
pub(crate) struct Groups {
    span: Nanos,
    open: HashMap<Key, Open>,
    /// Groups by the end of their span.
    due: BTreeMap<(Nanos, Uuid), Key>,
    bytes: usize,
    kept: Saved,
    changed: bool,
    fs: Arc<dyn Fs>,
    /// The file that they are kept in.
    name: String,
}

/// What is written to the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// The log that the place is in.
    log: u64,
    seq: u64,
    alerts: u32,
    open: HashMap<Key, Open>,
}

/// What repeats have in common: [`group_key`].
type Key = String;

/// An open group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    first: Uuid,
    began: Nanos,
    last: Nanos,
    count: u64,
    /// The last alert that was held back.
    line: Option<String>,
}

/// What becomes of an alert.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is sent.
    Sent,
    /// It is held back.
    Held,
}

/// What an alert or a follow-up changes of the groups, to be kept once the output is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// An alert opens a group.
    Opens(Key, Uuid, Nanos),
    /// An alert was held back.
    Holds(Key, Nanos, String),
    /// A group is closed.
    Closes(Key, Uuid),
}

/// A group that was closed: the follow-up, if anything was held back.
pub(crate) type Closed = (Option<Arc<Item>>, Effect);

impl Groups {
    /// The groups of an output as they were kept; what cannot be read is forgotten, so that repeats are sent again.
    pub(crate) fn open(fs: Arc<dyn Fs>, output: &str, span: Nanos, log: u64) -> Groups {
        let name = file_name(output);
        let saved = read(&*fs, &name).and_then(|saved| serde_json::from_slice::<Saved>(&saved).ok());
        let kept =
            saved.filter(|saved| saved.log == log).unwrap_or_else(|| Saved { log, ..Saved::default() });
        let open = kept.open.clone();
        let due =
            open.iter().map(|(key, group)| ((group.began.saturating_add(span), group.first), key.clone()));
        let bytes = open.values().map(Open::bytes).sum();
        Groups { due: due.collect(), span, open, bytes, kept, changed: false, fs, name }
    }

    /// Forgets the groups of an output that is there no more.
    pub(crate) fn remove(fs: &dyn Fs, output: &str) -> io::Result<()> {
        match fs.remove(&file_name(output)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What is kept belongs to this place: what lies before it is done.
    pub(crate) fn place(&self) -> Place {
        Place { seq: self.kept.seq, alerts: self.kept.alerts }
    }

    /// True if there is something new to be kept.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// The output is done with what had this effect.
    pub(crate) fn settle(&mut self, effect: Effect) {
        self.changed = true;
        let kept = &mut self.kept.open;
        match effect {
            Effect::Opens(key, first, time) => {
                kept.insert(key, Open { first, began: time, last: time, count: 0, line: None });
            }
            Effect::Holds(key, time, line) => {
                if let Some(group) = kept.get_mut(&key) {
                    group.hold(time, line);
                }
            }
            Effect::Closes(key, first) => {
                if kept.get(&key).is_some_and(|group| group.first == first) {
                    kept.remove(&key);
                }
            }
        }
    }

    /// Keeps the groups as they are at a place. To be called before the cursor passes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&mut self, place: Place) -> io::Result<()> {
        (self.kept.seq, self.kept.alerts) = (place.seq, place.alerts);
        let fresh = format!("{}{TEMPORARY}", self.name);
        let file = self.fs.open(&fresh, Mode::Create)?;
        file.write_at(&serde_json::to_vec(&self.kept)?, 0)?;
        self.fs.rename(&fresh, &self.name)?;
        self.changed = false;
        Ok(())
    }

    /// Takes an alert. Groups that its time makes due are appended to `out` before it is decided on.
    pub(crate) fn take(&mut self, item: &Item, out: &mut Vec<Closed>) -> (Fate, Option<Effect>) {
        // What the run says of itself has the time of the clock, not of the events.
        let of_the_run = item.alert.k8s.is_none() && item.alert.evidence.is_empty();
        let Some(now) = time::parse(item.alert.time.as_bytes()).filter(|_| !of_the_run) else {
            return (Fate::Sent, None);
        };
        let key = group_key(&item.alert);
        self.advance(now, out);
        if let Some(group) = self.open.get_mut(&key) {
            if now.abs_diff(group.began) >= self.span.unsigned_abs() {
                return (Fate::Sent, None); // one of long before, which came late
            }
            self.bytes -= group.bytes();
            group.hold(now, item.line.clone());
            self.bytes += group.bytes();
            return (Fate::Held, Some(Effect::Holds(key, now, item.line.clone())));
        }
        while self.open.len() >= MOST || self.bytes > BUDGET {
            self.close_oldest(out);
        }
        self.due.insert((now.saturating_add(self.span), item.uuid), key.clone());
        self.open.insert(key.clone(), Open { first: item.uuid, began: now, last: now, count: 0, line: None });
        (Fate::Sent, Some(Effect::Opens(key, item.uuid, now)))
    }

    /// Closes the groups whose span is over at an event time.
    pub(crate) fn advance(&mut self, now: Nanos, out: &mut Vec<Closed>) {
        while self.due.first_key_value().is_some_and(|((end, _), _)| *end <= now) {
            self.close_oldest(out);
        }
    }

    fn close_oldest(&mut self, out: &mut Vec<Closed>) {
        let Some(((_, first), key)) = self.due.pop_first() else { return };
        let follow_up = self.open.remove(&key).and_then(|group| {
            self.bytes -= group.bytes();
            follow_up(&group)
        });
        out.push((follow_up, Effect::Closes(key, first)));
    }
}

impl Open {
    fn bytes(&self) -> usize {
        self.line.as_ref().map_or(0, String::len)
    }

    fn hold(&mut self, time: Nanos, line: String) {
        self.count += 1;
        self.last = self.last.max(time);
        self.line = Some(line);
    }
}

fn file_name(output: &str) -> String {
    format!("groups-{}.json", hex(output.as_bytes()))
}

/// The content of a file, if there is one of a sensible length.
fn read(fs: &dyn Fs, name: &str) -> Option<Vec<u8>> {
    let file = fs.open(name, Mode::Read).ok()?;
    let length = file.len().ok().filter(|length| *length <= LONGEST)?;
    let mut content = vec![0; length as usize];
    read_exact_at(&*file, &mut content, 0).ok()?;
    Some(content)
}

/// The alert that tells of what was held back.
fn follow_up(group: &Open) -> Option<Arc<Item>> {
    let mut alert: Alert = serde_json::from_str(group.line.as_deref()?).ok()?;
    // Its id must be the same after a restart, and no other alert's.
    alert.uuid = Uuid::new_v5(&group.first, &group.count.to_le_bytes());
    alert.group = Some(Group {
        count: group.count,
        first_seen: time::format(group.began),
        last_seen: time::format(group.last),
    });
    let line = sink::native(&alert);
    Some(Arc::new(Item { uuid: alert.uuid, line, alert }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::fs::Memory;
    use crate::sink::tests::alert;

    const SECOND: Nanos = 1_000_000_000;

    fn item(user: &str, seconds: Nanos, n: u128) -> Item {
        let mut alert = alert();
        alert.uuid = Uuid::from_u128(n);
        alert.time = time::format(seconds * SECOND);
        alert.k8s.as_mut().unwrap().user = user.to_owned();
        Item { uuid: alert.uuid, line: sink::native(&alert), alert }
    }

    fn open(fs: &Arc<dyn Fs>) -> Groups {
        Groups::open(Arc::clone(fs), "out", 60 * SECOND, 1)
    }

    /// What comes out of groups of a minute for alerts by user and second: `user@second`, or `user+count`. After so many alerts
    /// the output is restarted, having read three alerts more than it was done with.
    fn check(alerts: &[(&str, Nanos)], restart_after: Option<usize>, expected: &[&str]) {
        let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 20));
        let mut groups = open(&fs);
        let (mut shown, mut at, mut restart) = (Vec::new(), 0, restart_after);
        while at < alerts.len() {
            if restart == Some(at) {
                restart = None;
                for (n, (user, seconds)) in alerts.iter().enumerate().skip(at).take(3) {
                    groups.take(&item(user, *seconds, n as u128), &mut Vec::new());
                }
                groups.save(Place { seq: at as u64, alerts: 0 }).unwrap();
                groups = open(&fs);
                assert_eq!(groups.place().seq, at as u64);
            }
            let (user, seconds) = alerts[at];
            let mut out = Vec::new();
            let (fate, effect) = groups.take(&item(user, seconds, at as u128), &mut out);
            for (follow_up, effect) in out {
                shown.extend(follow_up.iter().map(|item| {
                    let group = item.alert.group.as_ref().unwrap();
                    format!("{}+{}", item.alert.k8s.as_ref().unwrap().user, group.count)
                }));
                groups.settle(effect);
            }
            if fate == Fate::Sent {
                shown.push(format!("{user}@{seconds}"));
            }
            if let Some(effect) = effect {
                groups.settle(effect);
            }
            at += 1;
        }
        assert_eq!(shown, expected, "restart after {restart_after:?}");
    }

    #[test]
    fn repeats_are_held_back_and_told_of() {
        for restart in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
            check(
                &[("a", 0), ("a", 10), ("a", 59), ("b", 59), ("a", 61)],
                restart,
                &["a@0", "b@59", "a+2", "a@61"],
            );
        }
    }

    #[test]
    fn a_group_without_repeats_is_not_told_of() {
        check(&[("a", 0), ("b", 70), ("a", 71)], None, &["a@0", "b@70", "a@71"]);
    }

    #[test]
    fn what_comes_late_is_no_repeat_of_what_came_after_it() {
        check(&[("a", 5000), ("a", 0), ("a", 4990)], None, &["a@5000", "a@0"]);
    }

    #[test]
    fn a_follow_up_that_was_not_done_comes_again_with_the_same_id() {
        let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 20));
        let mut groups = open(&fs);
        for (n, second) in [(1, 0), (2, 1)] {
            let (_, effect) = groups.take(&item("a", second, n), &mut Vec::new());
            groups.settle(effect.unwrap());
        }
        let ids = |groups: &mut Groups| {
            let mut out = Vec::new();
            groups.advance(60 * SECOND, &mut out);
            out.iter().filter_map(|(item, _)| Some(item.as_ref()?.uuid)).collect::<Vec<_>>()
        };
        groups.save(Place { seq: 3, alerts: 0 }).unwrap();
        let told = ids(&mut groups);
        assert_eq!((told.len(), &told), (1, &ids(&mut open(&fs))));
    }

    #[test]
    fn the_number_of_groups_is_bounded() {
        let mut groups = open(&(Arc::new(Memory::new(1 << 20)) as Arc<dyn Fs>));
        for n in 0..MOST + 5 {
            groups.take(&item(&format!("user-{n}"), 0, n as u128), &mut Vec::new());
        }
        assert_eq!((groups.open.len(), groups.due.len()), (MOST, MOST));
    }
}
