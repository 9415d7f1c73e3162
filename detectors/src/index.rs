//! Which programs can match this event at all.
//!
//! The index is memoised partial evaluation. For a class of events that agree on a routing key (the shape of the request, or
//! the client that made it) every program is evaluated once with only that key in sight; what is then false is false for
//! the whole class, and its bit is cleared. An event is looked up by its keys and meets only the programs that every key
//! left standing; what shape and client decide of single tests is not asked again. Three-valued evaluation is monotone in
//! what is seen; so the index loses no match as long as each key holds all that the fields with its [`Parts`] look at.
//! Events whose keys don't (damaged ones, odd spellings) are not looked up.
//!
//! [`Parts`]: crate::facts::Parts

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::program::Answer;

/// A set of programs, one bit each.
pub(crate) type Mask = Box<[u64]>;

/// Entries that a table may have before it starts afresh.
const CAPACITY: usize = 4096;

/// Bytes that keys and answers of a table may take before it starts afresh.
const BYTES: usize = 4 << 20;

/// Keys longer than this are not kept: they are not of low cardinality.
const LONGEST_KEY: usize = 4096;

/// Slots that remember keys seen once. A key earns its entry at the second sighting, so that a flood of unique keys takes no
/// room and drives out no others.
const ONCE: usize = 8192;

/// What a routing key decides for all events that have it.
#[derive(Debug)]
pub(crate) struct Decided {
    /// Programs that it does not refute.
    pub(crate) mask: Mask,
    /// Tests that need no more than the key.
    pub(crate) answers: Box<[Answer]>,
}

/// What a table knows of a key.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    key: Box<[u8]>,
    /// What the key decides.
    pub(crate) decided: Decided,
    /// What else is kept with the key.
    pub(crate) extra: T,
}

/// Keys of low cardinality and the programs that each leaves standing.
#[derive(Debug)]
pub(crate) struct Table<T> {
    hasher: RandomState,
    entries: Vec<Entry<T>>,
    slots: HashTable<u32>,
    once: Box<[u32]>,
    bytes: usize,
}

/// The result of looking a key up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The entry's number.
    Known(u32),
    /// Seen before, but without an entry: make one with [`Table::insert`].
    Again(u64),
    /// Not worth an entry yet.
    New,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table {
            hasher: RandomState::default(),
            entries: Vec::new(),
            slots: HashTable::new(),
            once: vec![0; ONCE].into_boxed_slice(),
            bytes: 0,
        }
    }
}

impl<T> Table<T> {
    /// Finds a key.
    #[inline]
    pub(crate) fn find(&mut self, key: &[u8]) -> Lookup {
        let hash = self.hasher.hash_one(key);
        let entries = &self.entries;
        if let Some(id) = self.slots.find(hash, |id| *entries[*id as usize].key == *key) {
            return Lookup::Known(*id);
        }
        let print = (hash >> 32) as u32 | 1;
        let slot = &mut self.once[hash as usize % ONCE];
        if key.len() > LONGEST_KEY || *slot != print {
            *slot = print;
            return Lookup::New;
        }
        Lookup::Again(hash)
    }

    /// Adds a key that [`Table::find`] saw again. A full table is emptied first: `evict` gets what was kept.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        key: &[u8],
        decided: Decided,
        extra: T,
        evict: &mut dyn FnMut(T),
    ) -> u32 {
        if self.entries.len() >= CAPACITY || self.bytes > BYTES {
            self.slots.clear();
            self.bytes = 0;
            self.entries.drain(..).for_each(|entry| evict(entry.extra));
        }
        self.bytes += key.len() + size_of_val(&*decided.answers);
        let id = self.entries.len() as u32;
        self.entries.push(Entry { key: key.into(), decided, extra });
        let (hasher, entries) = (&self.hasher, &self.entries);
        self.slots.insert_unique(hash, id, |id| hasher.hash_one(&*entries[*id as usize].key));
        id
    }

    /// An entry.
    #[inline]
    pub(crate) fn entry(&mut self, id: u32) -> &mut Entry<T> {
        &mut self.entries[id as usize]
    }
}

/// An empty set for `programs` programs.
pub(crate) fn empty(programs: usize) -> Mask {
    vec![0; programs.div_ceil(64)].into_boxed_slice()
}

/// The set of all `programs` programs.
pub(crate) fn full(programs: usize) -> Mask {
    vec![u64::MAX; programs.div_ceil(64)].into_boxed_slice()
}

/// Takes a program out of a set.
pub(crate) fn clear(mask: &mut Mask, program: usize) {
    mask[program / 64] &= !(1 << (program % 64));
}

/// Adds a program to a set.
pub(crate) fn set(mask: &mut Mask, program: usize) {
    mask[program / 64] |= 1 << (program % 64);
}

/// The programs in a set, in order.
pub(crate) fn members(mask: &Mask) -> impl Iterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(word, bits)| {
        let mut bits = *bits;
        std::iter::from_fn(move || {
            (bits != 0).then(|| {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                word * 64 + bit
            })
        })
    })
}
