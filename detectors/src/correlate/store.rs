//! All groups of all rules within a budget of bytes.
//!
//! Every rule has two lists, least recently active last: groups on *probation* have seen one event, *protected* ones more.
//! When memory runs out, the rule that holds the most probation gives up its least recently active group; only when no rule
//! has any on probation do protected ones go. So a flood of keys in one rule displaces that rule's own single events, neither
//! what is building up nor what other rules wait for. Protected groups above four fifths of the budget go back to probation,
//! so that there is always room for new ones.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::window::Group;

const NONE: u32 = u32::MAX;

/// A group and its place in its rule's list.
#[derive(Debug)]
struct Slot {
    group: Group,
    hash: u64,
    newer: u32,
    older: u32,
    protected: bool,
    weight: usize,
}

/// One list: its ends, and the memory of its groups.
#[derive(Debug, Clone, Copy)]
struct List {
    newest: u32,
    oldest: u32,
    weight: usize,
}

const EMPTY: List = List { newest: NONE, oldest: NONE, weight: 0 };

/// Bytes for each group beside the group: the slot's own fields.
const OVERHEAD: usize = size_of::<Slot>() - size_of::<Group>();

/// All groups.
#[derive(Debug)]
pub(super) struct Store {
    budget: usize,
    slots: Vec<Option<Box<Slot>>>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: RandomState,
    /// By rule: probation, protected.
    lists: Vec<[List; 2]>,
    weight: usize,
    protected: usize,
    groups: usize,
}

impl Store {
    pub(super) fn new(rules: usize, budget: usize) -> Store {
        Store {
            budget,
            slots: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
            lists: vec![[EMPTY; 2]; rules],
            weight: 0,
            protected: 0,
            groups: 0,
        }
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.groups
    }

    /// An estimate of the memory that the groups take.
    pub(super) fn memory(&self) -> usize {
        self.weight
            + self.slots.capacity() * size_of::<Option<Box<Slot>>>()
            + self.free.capacity() * size_of::<u32>()
            + self.table.allocation_size()
            + self.lists.len() * size_of::<[List; 2]>()
    }

    /// The group of a key, and whether it is new.
    pub(super) fn enter(&mut self, rule: u32, only: i64, key: &[u8]) -> (u32, bool) {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(rule);
        hasher.write_i64(only);
        hasher.write(key);
        let hash = hasher.finish();
        let slots = &self.slots;
        let same = |id: &u32| {
            slots[*id as usize].as_ref().is_some_and(|s| {
                s.hash == hash && s.group.rule == rule && s.group.only == only && *s.group.key == *key
            })
        };
        if let Some(id) = self.table.find(hash, same) {
            return (*id, false);
        }
        let group = Group { rule, only, key: key.into(), buckets: Vec::new(), events: 0, due: None };
        let slot = Slot { group, hash, newer: NONE, older: NONE, protected: false, weight: 0 };
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[id as usize] = Some(Box::new(slot));
        self.groups += 1;
        self.link(id);
        let slots = &self.slots;
        self.table.insert_unique(hash, id, |id| slots[*id as usize].as_ref().map_or(0, |s| s.hash));
        (id, true)
    }

    /// A group.
    pub(super) fn group(&mut self, id: u32) -> &mut Group {
        &mut self.slot(id).group
    }

    fn slot(&mut self, id: u32) -> &mut Slot {
        self.slots[id as usize].as_mut().expect("ids of removed groups are not kept")
    }

    fn list(&mut self, id: u32) -> &mut List {
        let slot = self.slot(id);
        let (rule, protected) = (slot.group.rule, slot.protected);
        &mut self.lists[rule as usize][usize::from(protected)]
    }

    /// Makes a group the most recently active one of its list.
    fn link(&mut self, id: u32) {
        let weight = self.slot(id).weight;
        let list = self.list(id);
        list.weight += weight;
        let older = std::mem::replace(&mut list.newest, id);
        if older == NONE {
            list.oldest = id;
        } else {
            self.slot(older).newer = id;
        }
        let slot = self.slot(id);
        (slot.newer, slot.older) = (NONE, older);
        if slot.protected {
            self.protected += weight;
        }
        self.weight += weight;
    }

    fn unlink(&mut self, id: u32) {
        let slot = self.slot(id);
        let (newer, older, weight, protected) = (slot.newer, slot.older, slot.weight, slot.protected);
        let list = self.list(id);
        list.weight -= weight;
        if newer == NONE {
            list.newest = older;
        }
        if older == NONE {
            list.oldest = newer;
        }
        if newer != NONE {
            self.slot(newer).older = older;
        }
        if older != NONE {
            self.slot(older).newer = newer;
        }
        if protected {
            self.protected -= weight;
        }
        self.weight -= weight;
    }

    /// Weighs a group that has changed and moves it to the front of its list.
    pub(super) fn touch(&mut self, id: u32) {
        self.unlink(id);
        let slot = self.slot(id);
        slot.weight = slot.group.weight() + OVERHEAD;
        slot.protected = slot.group.events > 1;
        self.link(id);
        while self.protected > self.budget / 5 * 4 {
            let Some(id) = self.last_of_heaviest(1) else { break };
            self.unlink(id);
            self.slot(id).protected = false;
            self.link(id);
        }
    }

    /// Removes a group.
    pub(super) fn remove(&mut self, id: u32) -> Option<Group> {
        self.slots.get(id as usize)?.as_ref()?;
        self.unlink(id);
        let slot = self.slots[id as usize].take()?;
        if let Ok(entry) = self.table.find_entry(slot.hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
        self.groups -= 1;
        Some(slot.group)
    }

    /// The least recently active group of the rule with the heaviest list of a segment.
    fn last_of_heaviest(&self, segment: usize) -> Option<u32> {
        let lists = self.lists.iter().map(|lists| lists[segment]);
        let heaviest = lists.filter(|l| l.oldest != NONE).max_by_key(|l| l.weight)?;
        Some(heaviest.oldest)
    }

    /// True if there is enough to be worth clearing away.
    pub(super) fn crowded(&self) -> bool {
        self.memory() > self.budget / 4
    }

    /// If memory is over the budget, the group that must go.
    pub(super) fn excess(&self) -> Option<u32> {
        if self.memory() <= self.budget {
            return None;
        }
        self.last_of_heaviest(0).or_else(|| self.last_of_heaviest(1))
    }

    /// The least recently active groups of a rule.
    pub(super) fn oldest(&mut self, rule: usize) -> [Option<(u32, &Group)>; 2] {
        let ids = self.lists.get(rule).map_or([NONE; 2], |lists| [lists[0].oldest, lists[1].oldest]);
        ids.map(|id| {
            let slot = self.slots.get(id as usize)?.as_ref()?;
            Some((id, &slot.group))
        })
    }

    #[cfg(test)]
    pub(super) fn weighed(&self) -> bool {
        let slots = self.slots.iter().flatten();
        let weight = slots.clone().map(|s| s.group.weight() + OVERHEAD).sum::<usize>();
        let lists: usize = self.lists.iter().flatten().map(|l| l.weight).sum();
        weight == self.weight && lists == weight && slots.count() == self.groups
    }
}
