//! The generations of one live path that are still to be read, oldest first.
//!
//! A generation is read after all older ones have been read to their present ends. All are held open, so that deleting them
//! loses nothing. Whenever the path leads to another file than the youngest of them, the files beside it are listed, what is
//! known is found among them, and what is younger than that is added: so it makes no difference whether one rotation
//! happened or ten, a moment ago or while nobody looked.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use rustix::fs::OFlags;

use super::generation::{self, Found, Generation};
use super::identity::{Body, Inode, Known, Mark, Verdict};
use super::report::{DENIED, Report};
use super::siblings::{self, Rank, Sibling};
use super::watch::Watched;
use super::{Context, From};
use crate::source::outlet::Stopped;

/// So many generations are held open at most. Younger ones are added as older ones are finished.
const OPEN: usize = 64;

/// The longest tick of the kernel, in milliseconds.
const TICK: i64 = 10;

/// One live path and what it was.
pub(super) struct Trail {
    name: String,
    path: PathBuf,
    from: From,
    open: VecDeque<Generation>,
    /// Generations that are known and have to be found: those of the last run, and those that were written over.
    lost: Vec<Known>,
    /// Generations that are finished, up to as many as are held open.
    finished: VecDeque<Known>,
    /// Nothing is known yet, so `from` says where to begin.
    fresh: bool,
    /// What was written later than this has not been read, if no generation is known; milliseconds since 1970.
    since: i64,
    /// Files that hold another generation than before and are read anew, wherever they stand.
    anew: HashSet<Inode>,
    /// Something is to be remembered that no piece has told yet.
    dirty: bool,
    /// Streams that are to be closed, with their ends.
    closing: VecDeque<(Arc<str>, u64)>,
    /// The files when they were last compared with what is known.
    compared: Vec<Sibling>,
    /// What was told about the path last, until it can be read again.
    told: Option<String>,
    folder: Watched,
    real_folder: Watched,
}

/// What a position keeps of a path.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Remembered {
    since: i64,
    files: Vec<Known>,
}

impl Remembered {
    /// Goes back to the beginning of every generation that it knows.
    pub(super) fn rewind(&mut self) {
        for known in &mut self.files {
            (known.mark, known.done) = (Mark::default(), false);
        }
    }
}

/// Bytes for the lane.
pub(super) struct Piece {
    pub(super) stream: Arc<str>,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    pub(super) last: bool,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Where the known generations are among the files.
#[derive(Default)]
struct Place {
    /// Index of the first file that may be younger than all that are known.
    floor: usize,
    /// The youngest known generation: when it was written, and whether it was found.
    youngest: Option<(i64, bool)>,
    /// When the oldest was written of which nothing tells where it is: it may be in any file written since.
    blank: Option<i64>,
    /// Held files that were blank before and are not now.
    filled: Vec<Inode>,
}

impl Place {
    fn put(&mut self, modified: i64, index: Option<usize>) {
        self.floor = self.floor.max(index.map_or(0, |index| index + 1));
        if self.youngest.is_none_or(|(youngest, _)| modified >= youngest) {
            self.youngest = Some((modified, index.is_some()));
        }
    }

    fn put_blank(&mut self, modified: i64) {
        self.blank = Some(self.blank.map_or(modified, |blank| blank.min(modified)));
        self.put(modified, None);
    }
}

impl Trail {
    /// A path to be followed, from where it was left.
    pub(super) fn new(name: &str, from: From, remembered: Option<Remembered>) -> Trail {
        let fresh = remembered.is_none();
        let Remembered { since, files } = remembered.unwrap_or_default();
        Trail {
            name: name.to_owned(),
            path: PathBuf::from(name),
            from,
            open: VecDeque::new(),
            lost: files,
            finished: VecDeque::new(),
            fresh,
            since,
            anew: HashSet::new(),
            dirty: false,
            closing: VecDeque::new(),
            compared: Vec::new(),
            told: None,
            folder: Watched::default(),
            real_folder: Watched::default(),
        }
    }

    /// The path as the configuration writes it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What a restart needs in order to go on. `None` as long as nothing is known.
    pub(super) fn remember(&self) -> Option<Remembered> {
        if self.fresh {
            return None;
        }
        let mut files: Vec<Known> =
            self.lost.iter().cloned().chain(self.open.iter().map(Generation::known)).collect();
        if files.is_empty() {
            files.extend(self.last().cloned());
        }
        Some(Remembered { since: self.since, files })
    }

    /// An empty piece, with which a position can be handed over.
    fn nothing(&self) -> Piece {
        let (stream, offset) = match self.open.back() {
            Some(generation) => (Arc::clone(&generation.stream), generation.read()),
            None => (Arc::from(&*self.name), 0),
        };
        Piece { stream, offset, bytes: Bytes::new(), last: false, room: None }
    }

    /// Has the system tell of changes to what the path now leads to.
    pub(super) fn watch(&mut self, context: &Context) {
        if let Some(folder) = self.path.parent() {
            context.watch.folder(folder, &mut self.folder);
        }
        if self.path.is_symlink()
            && let Ok(real) = fs::canonicalize(&self.path)
            && let Some(folder) = real.parent()
        {
            context.watch.folder(folder, &mut self.real_folder);
        }
        context.watch.file(&self.path);
    }

    /// Looks what the path leads to. True if that has changed.
    pub(super) fn look(&mut self, context: &Context, now: Instant) -> Result<bool, Stopped> {
        let live = match fs::metadata(&self.path) {
            Ok(metadata) if !metadata.is_file() => {
                let reason = "not a regular file: name the file that the log is written to";
                self.unreadable(context, reason, Some(Inode::of(&metadata)))?;
                None
            }
            Ok(metadata) => Some(Inode::of(&metadata)),
            Err(error) if is_absent(&error) => None,
            Err(error) => {
                self.unreadable(context, &reason(&error), None)?;
                return Ok(false);
            }
        };
        self.mark_rotated(context, live, now);
        if live.is_some() && self.open.back().map(|youngest| youngest.inode) == live && self.lost.is_empty() {
            self.told = None;
            self.show(context);
            return Ok(false);
        }
        if live.is_none() && self.fresh {
            // What comes to stand there later is new from its first byte.
            self.fresh = false;
            tracing::info!(input = %context.input, path = self.name, "waits for the file to come");
            // The times of files lag behind the clock by up to a tick of the kernel.
            self.since = millis(SystemTime::now()) - TICK;
            self.dirty = true;
            return Ok(true);
        }
        self.compare(context, now)
    }

    /// Tells the metrics how far the live file is read.
    fn show(&self, context: &Context) {
        if let Some(live) = self.open.back() {
            let telemetry = &context.outlet.telemetry;
            telemetry.file(&context.input, &self.name, live.position(), live.size);
        }
    }

    /// What the path does not lead to is rotated.
    fn mark_rotated(&mut self, context: &Context, live: Option<Inode>, now: Instant) {
        for generation in &mut self.open {
            if Some(generation.inode) == live {
                generation.rotated = None;
            } else if generation.rotated.is_none() {
                generation.rotated = Some(now + context.rotate_wait);
                context.outlet.telemetry.rotated(&context.input);
            }
        }
    }

    fn unreadable(&mut self, context: &Context, reason: &str, inode: Option<Inode>) -> Result<(), Stopped> {
        if self.told.as_deref() == Some(reason) {
            return Ok(());
        }
        self.told = Some(reason.to_owned());
        context.outlet.notify(Report(&context.input).unreadable(&self.path, reason, inode))
    }

    /// Lists the files, finds what is known among them and adds what is younger. True if anything has changed.
    fn compare(&mut self, context: &Context, now: Instant) -> Result<bool, Stopped> {
        self.open.iter_mut().for_each(Generation::note);
        // Before the listing, so that the copy that was made before a file was written over is in it.
        self.check_held(context);
        let before = self.inodes();
        let restored = !self.lost.is_empty();
        // What is not found at once may have been renamed or copied since the listing. The second one decides.
        for sure in [false, true] {
            let Some(files) = self.list(context)? else { return Ok(false) };
            if self.lost.is_empty() && files == self.compared {
                return Ok(false);
            }
            self.compared.clear();
            let mut place = Place::default();
            let placed = self.place_held(&files, &mut place).is_ok();
            if placed
                && self.find_lost(context, &files, &mut place, sure, now)?
                && self.add(context, &files, &place, now)?
            {
                self.complete(context, files, &place, now);
                break;
            }
        }
        let changed = (restored && self.lost.is_empty()) || self.inodes() != before;
        self.dirty |= changed;
        Ok(changed)
    }

    /// The files as they lie now. `None` if that cannot be told, or the live file cannot be read.
    fn list(&mut self, context: &Context) -> Result<Option<Vec<Sibling>>, Stopped> {
        let files = match siblings::list(&self.path) {
            Ok(files) => files,
            // What is held can be read all the same; of what is not, nobody can tell now.
            Err(error) if is_absent(&error) => return Ok(self.lost.is_empty().then(Vec::new)),
            Err(error) => {
                let reason = format!("the files beside it cannot be listed: {error}");
                return self.unreadable(context, &reason, None).map(|()| None);
            }
        };
        let Some(live) = files.last().filter(|file| file.rank == Rank::Live) else { return Ok(Some(files)) };
        match open(&live.path, true) {
            Ok(_) => Ok(Some(files)),
            // It was renamed a moment ago: the next look tells.
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => self.unreadable(context, &reason(&error), Some(live.inode)).map(|()| None),
        }
    }

    /// Notes that all files have been compared with what is known.
    fn complete(&mut self, context: &Context, files: Vec<Sibling>, place: &Place, now: Instant) {
        let live = files.last().filter(|file| file.rank == Rank::Live).map(|live| live.inode);
        self.compared = files;
        self.told = None;
        self.anew.clear();
        let filled = |generation: &&mut Generation| place.filled.contains(&generation.inode);
        self.open.iter_mut().filter(filled).for_each(Generation::accept);
        self.fresh = false;
        self.mark_rotated(context, live, now);
    }

    /// Where the open generations lie.
    fn inodes(&self) -> Vec<Inode> {
        self.open.iter().map(|generation| generation.inode).collect()
    }

    /// Generations that have been written over are no longer held but have to be found.
    fn check_held(&mut self, context: &Context) {
        for generation in std::mem::take(&mut self.open) {
            if generation.is_overwritten() {
                self.lose(context, &generation);
            } else {
                self.open.push_back(generation);
            }
        }
    }

    /// Another generation stands where `generation` stood.
    fn lose(&mut self, context: &Context, generation: &Generation) {
        context.outlet.telemetry.rotated(&context.input);
        if generation.begun {
            self.closing.push_back((Arc::clone(&generation.stream), generation.read()));
        }
        self.anew.insert(generation.inode);
        self.lost.push(generation.known());
    }

    /// Finds the names under which what is held open lies now.
    fn place_held(&mut self, files: &[Sibling], place: &mut Place) -> Result<(), Moved> {
        let youngest = self.open.len().saturating_sub(1);
        let held = self.inodes();
        for (at, generation) in self.open.iter_mut().enumerate() {
            let mut index = files.iter().position(|file| file.inode == generation.inode);
            let closed = match index {
                Some(index) => {
                    let path = files[index].path.clone();
                    generation.rename(&path, &path.to_string_lossy())
                }
                // A link may lead elsewhere now, so that nobody lists what lies beside its old end.
                None if lies_at(&generation.path, generation.inode) => None,
                None => {
                    let state = if generation.is_deleted() { "deleted" } else { "moved" };
                    let path = generation.path.clone();
                    generation.rename(&path, &format!("{} ({state})", path.display()))
                }
            };
            self.closing.extend(closed);
            if generation.is_filled() {
                // What was written to it first may have been copied away and stand beside it now.
                generation.take_head();
                place.filled.push(generation.inode);
            }
            let known = generation.known();
            if place.filled.contains(&generation.inode) {
                place.put_blank(known.modified);
                continue;
            }
            if index.is_none() && at == youngest {
                // It is read from where it is held; its archive only tells what is younger.
                index = find(&known, files, &held)?.map(|(index, _)| index);
            }
            place.put(known.modified, index);
        }
        Ok(())
    }

    /// Finds what is known and not held, and goes on reading it. What is not found stays lost unless it is `sure` that it is
    /// gone. False if something stays so.
    fn find_lost(
        &mut self,
        context: &Context,
        files: &[Sibling],
        place: &mut Place,
        sure: bool,
        now: Instant,
    ) -> Result<bool, Stopped> {
        let mut lost = std::mem::take(&mut self.lost);
        if lost.is_empty() && self.open.is_empty() {
            lost.extend(self.last().cloned());
        }
        for known in lost {
            let found = find(&known, files, &self.inodes());
            let gone = matches!(found, Ok(None)) && (sure || known.is_blank());
            let Some(found) = found.ok().filter(|found| found.is_some() || gone) else {
                self.lost.push(known);
                continue;
            };
            match &found {
                None if known.is_blank() => place.put_blank(known.modified),
                found => place.put(known.modified, found.as_ref().map(|(index, _)| *index)),
            }
            match found {
                Some((index, Verdict::Same(body))) => {
                    if let Some(generation) = resume(&files[index], body, &known, context, now) {
                        self.open.push_back(generation);
                        continue;
                    }
                }
                None if !known.done && !is_at_hand(&known, files) => {
                    let here = |file: &Sibling| file.rank == Rank::Live && file.inode == known.inode;
                    let overwritten = self.anew.contains(&known.inode) || files.last().is_some_and(here);
                    let report = Report(&context.input);
                    let notice = if overwritten { report.truncated(&known) } else { report.gone(&known) };
                    context.outlet.notify(notice)?;
                }
                _ => {}
            }
            // It may come back, as on a volume that is mounted late; its loss is told once.
            self.finished(Known { done: true, ..known });
        }
        Ok(self.lost.is_empty())
    }

    /// Remembers that a generation is finished.
    fn finished(&mut self, known: Known) {
        self.finished.retain(|finished| finished.head != known.head || finished.inode != known.inode);
        self.finished.push_back(known);
        if self.finished.len() > OPEN {
            self.finished.pop_front();
        }
    }

    /// The youngest generation that is finished.
    fn last(&self) -> Option<&Known> {
        self.finished.iter().max_by_key(|known| known.modified)
    }

    /// True if a file holds a generation that is finished or being read, at its place or as a copy or an archive, and not a
    /// byte more: a generation that only begins like another is one of its own.
    fn is_known(&self, file: &Sibling) -> bool {
        let held = self.open.iter().map(|generation| (generation.known(), generation.length()));
        let finished = self.finished.iter().map(|known| (known.clone(), known.mark.offset));
        held.chain(finished).any(|(known, length)| match file.open().map(|opened| known.compare(opened)) {
            Ok(Ok(Verdict::Same(mut body))) => known.inode == file.inode || body.has_length(length),
            _ => false,
        })
    }

    /// Opens what is younger than all that is known. False if not all could be opened.
    fn add(
        &mut self,
        context: &Context,
        files: &[Sibling],
        place: &Place,
        now: Instant,
    ) -> Result<bool, Stopped> {
        let held = self.inodes();
        for (index, file) in files.iter().enumerate() {
            let live = file.rank == Rank::Live;
            let younger = self.is_younger(file, index, place);
            if held.contains(&file.inode) || !(younger || self.anew.contains(&file.inode)) {
                continue;
            }
            if self.open.len() >= OPEN {
                self.make_room(now);
                return Ok(false);
            }
            if !live && !self.anew.contains(&file.inode) && self.is_known(file) {
                continue;
            }
            if !self.add_one(context, file, now)? {
                return Ok(false);
            }
            if live && self.has_more(files) {
                // What stood in it when it was listed has been copied away: the copy has to be read before.
                self.open.pop_back();
                return Ok(false);
            }
        }
        Ok(place.filled.is_empty() || !self.has_more(files))
    }

    /// Rotated files that have been read to their ends are no longer watched for late writes: others wait for their places.
    fn make_room(&mut self, now: Instant) {
        for generation in self.open.iter_mut().filter(|generation| generation.known().done) {
            generation.rotated = Some(now);
        }
    }

    /// True if there are rotated files by now that have not been listed.
    fn has_more(&self, files: &[Sibling]) -> bool {
        let listed: HashSet<Inode> = files.iter().map(|file| file.inode).collect();
        siblings::list(&self.path).is_ok_and(|now| now.iter().any(|file| !listed.contains(&file.inode)))
    }

    /// True if a file has not been read, as far as its name and times tell: it stands behind all known ones, or was written
    /// later than they.
    fn is_younger(&self, file: &Sibling, index: usize, place: &Place) -> bool {
        let behind = index >= place.floor;
        match (file.rank, place.youngest) {
            (Rank::Other, _) => false,
            (Rank::Live, _) => behind,
            _ if place.blank.is_some_and(|blank| file.written() >= blank) => true,
            (_, Some((_, true))) => behind,
            (_, Some((modified, false))) => behind && file.written() >= modified,
            (_, None) => behind && !self.fresh && file.written() >= self.since,
        }
    }

    /// Opens a file from its beginning. False if it is not there any more.
    fn add_one(&mut self, context: &Context, file: &Sibling, now: Instant) -> Result<bool, Stopped> {
        let live = file.rank == Rank::Live;
        let reason = match self.begin(file) {
            Ok(Ok(mut generation)) => {
                let (path, offset) = (file.path.display(), generation.position());
                tracing::info!(input = %context.input, %path, offset, "reads a file");
                generation.set_written(file.written());
                if !live {
                    generation.rotated = Some(quiet(&generation, context.rotate_wait, now));
                }
                self.open.push_back(generation);
                return Ok(true);
            }
            Ok(Err(reason)) => reason.to_owned(),
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) if live => {
                return self.unreadable(context, &reason(&error), Some(file.inode)).map(|()| false);
            }
            Err(error) => reason(&error),
        };
        context.outlet.notify(Report(&context.input).unread(&file.path, file.inode, 0, &reason))?;
        Ok(true)
    }

    /// A file from its beginning, or from its end if nothing is known; the reason if nobody can read such a file.
    fn begin(&self, file: &Sibling) -> io::Result<Result<Generation, &'static str>> {
        let live = file.rank == Rank::Live;
        let opened = file.open()?;
        let body = if live { Ok(Body::Plain(Arc::new(opened))) } else { Body::open(opened)? };
        let body = match body {
            Ok(body) => body,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut generation = Generation::new(&file.path, file.inode, body)?;
        if self.fresh && self.from != From::Start {
            generation.skip_to_end()?;
        }
        Ok(Ok(generation))
    }

    /// The next piece: of the oldest generation that has one.
    pub(super) fn next(&mut self, context: &Context, now: Instant) -> Result<Option<Piece>, Stopped> {
        let mut at = 0;
        let mut checked = None;
        loop {
            if let Some((stream, offset)) = self.closing.pop_front() {
                return Ok(Some(Piece { stream, offset, bytes: Bytes::new(), last: true, room: None }));
            }
            if std::mem::take(&mut self.dirty) {
                // So that a restart goes on from here even if nothing is written until then.
                return Ok(Some(self.nothing()));
            }
            let Some(generation) = self.open.get_mut(at) else { return Ok(None) };
            generation.note();
            if generation.is_filled() && checked != Some(generation.inode) {
                checked = Some(generation.inode);
                self.compared.clear();
                self.compare(context, now)?;
                at = 0;
                continue;
            }
            if generation.is_filled() {
                // What was in it before may be elsewhere, and has not been found yet.
                at += 1;
                continue;
            }
            match generation.next(&context.outlet)? {
                Found::Piece(piece) => return self.found(context, at, piece, now).map(Some),
                Found::Hole => continue,
                Found::Overwritten => {
                    if let Some(generation) = self.open.remove(at) {
                        self.lose(context, &generation);
                    }
                    self.compare(context, now)?;
                    at = 0;
                    continue;
                }
                Found::Failed(reason) => self.failed(context, at, &reason)?,
                Found::Nothing => self.open[at].failed = None,
            }
            if self.open[at].is_finished(now) {
                return self.finish(context, at).map(Some);
            }
            at += 1;
        }
    }

    /// Makes a piece of what a generation gave.
    fn found(
        &mut self,
        context: &Context,
        at: usize,
        piece: generation::Piece,
        now: Instant,
    ) -> Result<Piece, Stopped> {
        let generation = &mut self.open[at];
        generation.begun = true;
        generation.failed = None;
        if let Some(until) = generation.rotated {
            generation.rotated = Some(until.max(quiet(generation, context.rotate_wait, now)));
        }
        let hole = std::mem::take(&mut generation.hole);
        if hole > 0 {
            context.outlet.notify(Report(&context.input).hole(generation, piece.offset, hole))?;
        }
        let generation::Piece { offset, bytes, room } = piece;
        Ok(Piece { stream: Arc::clone(&generation.stream), offset, bytes, last: false, room: Some(room) })
    }

    /// A generation cannot be read at the moment.
    fn failed(&mut self, context: &Context, at: usize, reason: &str) -> Result<(), Stopped> {
        let generation = &mut self.open[at];
        if generation.failed.is_none() && !generation.is_archive() {
            context.outlet.notify(Report(&context.input).unreadable(
                &generation.path,
                reason,
                Some(generation.inode),
            ))?;
        }
        generation.failed = Some(reason.to_owned());
        // If that fails it is as damaged as before.
        let _ = generation.retry();
        Ok(())
    }

    /// Hands over what is left of a generation and forgets it.
    fn finish(&mut self, context: &Context, at: usize) -> Result<Piece, Stopped> {
        let (offset, bytes, room) = self.open[at].rest(&context.outlet)?;
        if let Some(generation) = self.open.remove(at) {
            if let Some(reason) = &generation.failed {
                let (path, inode, offset) = (&generation.path, generation.inode, generation.position());
                context.outlet.notify(Report(&context.input).unread(path, inode, offset, reason))?;
            }
            let stream = Arc::clone(&generation.stream);
            self.finished(Known { done: true, ..generation.known() });
            return Ok(Piece { stream, offset, bytes, last: true, room });
        }
        Ok(self.nothing())
    }
}

/// Goes on reading a generation that was found again. `None` if nothing can be left in it.
fn resume(file: &Sibling, body: Body, known: &Known, context: &Context, now: Instant) -> Option<Generation> {
    let live = file.rank == Rank::Live;
    let grown = match &body {
        Body::Plain(plain) => plain.metadata().is_ok_and(|metadata| metadata.len() > known.mark.offset),
        Body::Archive(_) => false,
    };
    if known.done && !grown && !live {
        return None;
    }
    let mut generation = Generation::resumed(&file.path, file.inode, body, known).ok()?;
    let path = file.path.display();
    tracing::info!(input = %context.input, %path, offset = known.mark.offset, "goes on reading a file");
    generation.set_written(known.modified);
    if !live {
        generation.rotated = Some(quiet(&generation, context.rotate_wait, now));
    }
    Some(generation)
}

/// A file does not lie any more where it was listed, so that what was not found may be there all the same.
struct Moved;

/// Finds a generation among the files that are not held: where it lay, or by what stands in it.
fn find(known: &Known, files: &[Sibling], held: &[Inode]) -> Result<Option<(usize, Verdict)>, Moved> {
    let (mut shorter, mut moved) = (None, false);
    let (at_home, elsewhere): (Vec<usize>, Vec<usize>) =
        (0..files.len()).rev().partition(|index| files[*index].inode == known.inode);
    for index in at_home.into_iter().chain(elsewhere) {
        let file = &files[index];
        if held.contains(&file.inode) {
            continue;
        }
        // What cannot be read is not it, as far as we can know.
        match file.open().and_then(|opened| known.compare(opened)) {
            Ok(Verdict::Same(body)) => return Ok(Some((index, Verdict::Same(body)))),
            Ok(Verdict::Shorter) if !matches!(file.rank, Rank::Live | Rank::Other) => {
                shorter = shorter.or(Some((index, Verdict::Shorter)));
            }
            Err(error) if is_absent(&error) => moved = true,
            _ => {}
        }
    }
    if moved { Err(Moved) } else { Ok(shorter) }
}

/// True if a generation may stand in one of the files although it was not found, because it is blank, or because that file is
/// held already; such files are read from their beginnings. Also if it was empty.
fn is_at_hand(known: &Known, files: &[Sibling]) -> bool {
    let may_be = |file: &Sibling| file.open().is_ok_and(|opened| known.may_be(opened));
    known.head.length == 0 || files.iter().any(may_be)
}

/// True if the path leads to that file, not over a link.
fn lies_at(path: &Path, inode: Inode) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| Inode::of(&metadata) == inode)
}

impl Sibling {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be opened, or another file lies there by now, which is the same as none.
    fn open(&self) -> io::Result<File> {
        let file = open(&self.path, self.rank == Rank::Live)?;
        if Inode::of(&file.metadata()?) == self.inode {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// Opens a file without waiting for anybody at its other end; a link only where `follow` says so.
fn open(path: &Path, follow: bool) -> io::Result<File> {
    let mut flags = OFlags::NONBLOCK;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// Until when a rotated generation is watched: it was last written or renamed some time ago.
fn quiet(generation: &Generation, rotate_wait: Duration, now: Instant) -> Instant {
    now + rotate_wait.saturating_sub(generation.age(SystemTime::now()))
}

/// True if nothing is there, as opposed to something that cannot be looked at.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Why something cannot be read, and what to do about it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => DENIED.to_owned(),
        _ => error.to_string(),
    }
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
