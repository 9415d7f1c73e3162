//! A disk that keeps no more than its promises: for tests.
//!
//! What was written and not synced may be lost on a crash, sector by sector; names that were changed and not synced may be
//! as before, each on its own; a sync that fails leaves some sectors unwritten for good, although they are still read back.
//! Any operation can be made to fail or to be the last.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{File, Fs, Mode, SECTOR};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes, in the middle of it.
    Crash,
    /// There is no room for what is written or made.
    Full,
    /// The disk fails.
    Broken,
}

/// When it goes wrong: the operations by their number, from the first on.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) operations: std::ops::Range<u64>,
    pub(crate) fault: Fault,
}

/// The disk.
#[derive(Debug, Clone)]
pub(crate) struct Simulated(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    /// The names as they are on the disk.
    durable: BTreeMap<String, usize>,
    /// What was done to the names since.
    pending: Vec<Change>,
    random: fastrand::Rng,
    plan: Option<Plan>,
    operations: u64,
    down: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// As it is read.
    seen: Vec<u8>,
    /// As it is on the disk.
    durable: Vec<u8>,
    /// Sectors that differ and would be written by a sync.
    dirty: BTreeSet<usize>,
    /// The length has changed since the last sync.
    resized: bool,
    /// These bytes cannot be read.
    unreadable: std::ops::Range<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

#[derive(Debug)]
struct Open {
    disk: Simulated,
    node: usize,
}

impl Simulated {
    pub(crate) fn new(seed: u64) -> Simulated {
        Simulated(Arc::new(Mutex::new(Inner {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            plan: None,
            operations: 0,
            down: false,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// From now on, counted from 0.
    pub(crate) fn plan(&self, plan: Option<Plan>) {
        let mut inner = self.inner();
        inner.plan = plan;
        inner.operations = 0;
    }

    /// Operations since the plan was made.
    pub(crate) fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Whether the power is gone.
    pub(crate) fn is_down(&self) -> bool {
        self.inner().down
    }

    /// The power goes, if it is not gone, and comes back: what is on the disk is all that there is. Files that are open are
    /// useless.
    pub(crate) fn restart(&self) {
        let inner = &mut *self.inner();
        for change in std::mem::take(&mut inner.pending) {
            if inner.random.bool() {
                apply(&mut inner.durable, change);
            }
        }
        inner.names = inner.durable.clone();
        for node in &mut inner.nodes {
            node.lose(&mut inner.random);
        }
        inner.plan = None;
        inner.down = false;
    }

    /// The process ends and the power does not: everything that was written is there.
    pub(crate) fn kill(&self) {
        let mut inner = self.inner();
        inner.plan = None;
        inner.down = false;
    }

    /// Changes bytes behind everybody's back.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let node = inner.names[name];
        change(&mut inner.nodes[node].seen);
        inner.nodes[node].durable = inner.nodes[node].seen.clone();
    }

    /// These bytes cannot be read from now on.
    pub(crate) fn lose(&self, name: &str, bytes: std::ops::Range<usize>) {
        let mut inner = self.inner();
        let node = inner.names[name];
        inner.nodes[node].unreadable = bytes;
    }

    /// The names and what is in them.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.inner();
        inner.names.iter().map(|(name, node)| (name.clone(), inner.nodes[*node].seen.clone())).collect()
    }

    /// A disk with these files, all of them durable.
    pub(crate) fn with(files: &BTreeMap<String, Vec<u8>>, seed: u64) -> Simulated {
        let disk = Simulated::new(seed);
        {
            let mut inner = disk.inner();
            for (at, (name, bytes)) in files.iter().enumerate() {
                inner.nodes.push(Node { seen: bytes.clone(), durable: bytes.clone(), ..Node::default() });
                inner.names.insert(name.clone(), at);
            }
            inner.durable = inner.names.clone();
        }
        disk
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: Change) {
    match change {
        Change::Link(name, node) => {
            names.insert(name, node);
        }
        Change::Unlink(name) => {
            names.remove(&name);
        }
        Change::Rename(from, to, node) => {
            names.remove(&from);
            names.insert(to, node);
        }
    }
}

impl Node {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.seen.len() {
            self.resize(end);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
    }

    fn resize(&mut self, length: usize) {
        let old = self.seen.len();
        self.dirty.extend(old.min(length) / SECTOR..old.max(length).div_ceil(SECTOR));
        self.seen.resize(length, 0);
        self.resized = true;
    }

    /// Puts a sector on the disk.
    fn flush(&mut self, sector: usize) {
        let from = sector * SECTOR;
        let to = (from + SECTOR).min(self.seen.len());
        if from >= to {
            return;
        }
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].copy_from_slice(&self.seen[from..to]);
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.flush(sector);
        }
        self.durable.resize(self.seen.len(), 0);
        self.resized = false;
    }

    /// Some of it goes to the disk and the rest never will, unless it is written again.
    fn fail_to_sync(&mut self, random: &mut fastrand::Rng) {
        for sector in std::mem::take(&mut self.dirty) {
            if random.bool() {
                self.flush(sector);
            }
        }
    }

    fn lose(&mut self, random: &mut fastrand::Rng) {
        self.fail_to_sync(random);
        if self.resized && random.bool() {
            self.durable.resize(self.seen.len(), 0);
        }
        self.resized = false;
        self.seen = self.durable.clone();
    }
}

/// What an operation is allowed to do.
enum Verdict {
    Go,
    /// Do a part of it, then say this.
    Fail(io::Error),
}

impl Inner {
    /// Every operation that changes something asks first. `grows`: it needs room.
    fn ask(&mut self, grows: bool) -> io::Result<Verdict> {
        if self.down {
            return Err(io::Error::other("the power is gone"));
        }
        let number = self.operations;
        self.operations += 1;
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.operations.contains(&number)) else {
            return Ok(Verdict::Go);
        };
        Ok(match plan.fault {
            Fault::Crash => {
                self.down = true;
                Verdict::Fail(io::Error::other("the power is gone"))
            }
            Fault::Full if !grows => Verdict::Go,
            Fault::Full => Verdict::Fail(io::ErrorKind::StorageFull.into()),
            Fault::Broken => Verdict::Fail(rustix::io::Errno::IO.into()),
        })
    }

    fn change(&mut self, grows: bool, change: Change) -> io::Result<()> {
        if let Verdict::Fail(error) = self.ask(grows)? {
            if self.down && self.random.bool() {
                self.pending.push(change);
            }
            return Err(error);
        }
        apply(&mut self.names, change.clone());
        self.pending.push(change);
        Ok(())
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        if self.down {
            return Err(io::Error::other("the power is gone"));
        }
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Fs for Simulated {
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>> {
        let mut inner = self.inner();
        let node = match inner.find(name) {
            Ok(node) => {
                if mode == Mode::Create {
                    if let Verdict::Fail(error) = inner.ask(false)? {
                        return Err(error);
                    }
                    inner.nodes[node].resize(0);
                }
                node
            }
            Err(error) if mode == Mode::Read || error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {
                let node = inner.nodes.len();
                inner.nodes.push(Node::default());
                inner.change(true, Change::Link(name.to_owned(), node))?;
                node
            }
        };
        Ok(Box::new(Open { disk: self.clone(), node }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        let node = inner.find(from)?;
        inner.change(true, Change::Rename(from.to_owned(), to.to_owned(), node))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.find(name)?;
        inner.change(false, Change::Unlink(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let inner = &mut *self.inner();
        if let Verdict::Fail(error) = inner.ask(false)? {
            return Err(error);
        }
        for change in std::mem::take(&mut inner.pending) {
            apply(&mut inner.durable, change);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("/simulated/{name}")
    }
}

impl File for Open {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        if inner.down {
            return Err(io::Error::other("the power is gone"));
        }
        // Reads may be short.
        let most = if into.len() > 1 && inner.random.u8(..) < 16 { into.len() / 2 } else { into.len() };
        let Node { seen, unreadable, .. } = &inner.nodes[self.node];
        let from = seen.get(offset as usize..).unwrap_or_default();
        let read = from.len().min(most);
        if unreadable.start < offset as usize + read && (offset as usize) < unreadable.end {
            return Err(rustix::io::Errno::IO.into());
        }
        into[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        let verdict = inner.ask(true)?;
        let node = &mut inner.nodes[self.node];
        match verdict {
            Verdict::Go => {
                node.write(bytes, offset as usize);
                Ok(())
            }
            Verdict::Fail(error) => {
                let part = inner.random.usize(..=bytes.len());
                node.write(&bytes[..part], offset as usize);
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        match inner.ask(false)? {
            Verdict::Go => {
                inner.nodes[self.node].sync();
                Ok(())
            }
            Verdict::Fail(error) => {
                if !inner.down {
                    inner.nodes[self.node].fail_to_sync(&mut inner.random);
                }
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner().nodes[self.node].seen.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        if let Verdict::Fail(error) = inner.ask(false)? {
            return Err(error);
        }
        inner.nodes[self.node].resize(length as usize);
        Ok(())
    }
}
