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
use crate::sink::{self, Item, group_key};

/// So many groups are open at once; the oldest is closed for a new one.
const MOST: usize = 10_000;
/// No file of groups is longer: each holds an alert of at most 64 KiB.
const LONGEST: u64 = 1 << 30;

/// The groups of one output.
#[derive(Debug)]
pub(crate) struct Groups {
    span: Nanos,
    open: HashMap<Key, Open>,
    /// Groups by the end of their span.
    due: BTreeMap<(Nanos, Uuid), Key>,
    changed: bool,
    fs: Arc<dyn Fs>,
    /// The file that they are kept in.
    name: String,
}

/// What repeats have in common: [`group_key`].
type Key = String;

/// An open group, as it is kept over a restart.
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

impl Groups {
    /// The groups of an output as they were kept; what cannot be read is forgotten, so that repeats are sent again.
    pub(crate) fn open(fs: Arc<dyn Fs>, output: &str, span: Nanos) -> Groups {
        let name = format!("groups-{}.json", hex(output.as_bytes()));
        let open: HashMap<Key, Open> =
            read(&*fs, &name).and_then(|saved| serde_json::from_slice(&saved).ok()).unwrap_or_default();
        let due =
            open.iter().map(|(key, group)| ((group.began.saturating_add(span), group.first), key.clone()));
        Groups { due: due.collect(), span, open, changed: false, fs, name }
    }

    /// True if there is something new to be kept.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// Keeps the open groups. It is no matter of safety: a power cut costs repeats that nobody is told of, no alert.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        let fresh = format!("{}{TEMPORARY}", self.name);
        let file = self.fs.open(&fresh, Mode::Create)?;
        file.write_at(&serde_json::to_vec(&self.open)?, 0)?;
        self.fs.rename(&fresh, &self.name)?;
        self.changed = false;
        Ok(())
    }

    /// Takes an alert. Follow-ups that its time makes due are appended to `out` before it is decided on.
    pub(crate) fn take(&mut self, item: &Item, out: &mut Vec<Arc<Item>>) -> Fate {
        let Some(now) = time::parse(item.alert.time.as_bytes()) else { return Fate::Sent };
        let key = group_key(&item.alert);
        self.advance(now, out);
        self.changed = true;
        if let Some(group) = self.open.get_mut(&key) {
            group.count += 1;
            group.last = group.last.max(now);
            group.line = Some(item.line.clone());
            return Fate::Held;
        }
        if self.open.len() >= MOST {
            self.close_oldest(out);
        }
        self.due.insert((now.saturating_add(self.span), item.uuid), key.clone());
        self.open.insert(key, Open { first: item.uuid, began: now, last: now, count: 0, line: None });
        Fate::Sent
    }

    /// Closes the groups whose span is over at an event time.
    pub(crate) fn advance(&mut self, now: Nanos, out: &mut Vec<Arc<Item>>) {
        while self.due.first_key_value().is_some_and(|((end, _), _)| *end <= now) {
            self.close_oldest(out);
        }
    }

    fn close_oldest(&mut self, out: &mut Vec<Arc<Item>>) {
        let Some((_, key)) = self.due.pop_first() else { return };
        self.changed = true;
        out.extend(self.open.remove(&key).and_then(|group| follow_up(&group)));
    }
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

    /// What comes out of groups of a minute for alerts by user and second: `user@second`, or `user+count`.
    fn check(alerts: &[(&str, Nanos)], restart_after: Option<usize>, expected: &[&str]) {
        let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 20));
        let open = || Groups::open(Arc::clone(&fs), "out", 60 * SECOND);
        let mut groups = open();
        let mut shown = Vec::new();
        for (n, (user, seconds)) in alerts.iter().enumerate() {
            let (item, mut out) = (item(user, *seconds, n as u128), Vec::new());
            let fate = groups.take(&item, &mut out);
            shown.extend(out.iter().map(|item| {
                let group = item.alert.group.as_ref().unwrap();
                format!("{}+{}", item.alert.k8s.as_ref().unwrap().user, group.count)
            }));
            if fate == Fate::Sent {
                shown.push(format!("{user}@{seconds}"));
            }
            if restart_after == Some(n) {
                groups.save().unwrap();
                groups = open();
            }
        }
        assert_eq!(shown, expected);
    }

    #[test]
    fn repeats_are_held_back_and_told_of() {
        for restart in [None, Some(0), Some(1), Some(2)] {
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
    fn follow_ups_keep_their_ids() {
        let ids = |restart: bool| {
            let fs: Arc<dyn Fs> = Arc::new(Memory::new(1 << 20));
            let mut groups = Groups::open(Arc::clone(&fs), "out", 60 * SECOND);
            let mut out = Vec::new();
            groups.take(&item("a", 0, 1), &mut out);
            groups.take(&item("a", 1, 2), &mut out);
            if restart {
                groups.save().unwrap();
                groups = Groups::open(fs, "out", 60 * SECOND);
            }
            groups.advance(60 * SECOND, &mut out);
            out.iter().map(|item| item.uuid).collect::<Vec<_>>()
        };
        assert_eq!(ids(false).len(), 1);
        assert_eq!(ids(false), ids(true));
    }

    #[test]
    fn the_number_of_groups_is_bounded() {
        let mut groups = Groups::open(Arc::new(Memory::new(1 << 20)), "out", 60 * SECOND);
        let mut out = Vec::new();
        for n in 0..MOST + 5 {
            groups.take(&item(&format!("user-{n}"), 0, n as u128), &mut out);
        }
        assert_eq!((groups.open.len(), groups.due.len()), (MOST, MOST));
    }
}
