//! Waking up when something happens to a file.
//!
//! The kernel's notes (inotify) are only taken as a hint that a look is worth while: they get lost when there are many, and
//! some file systems do not give them. So there is a look every `poll`, too, and nothing rests on a note's content.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::source::outlet::Stop;

/// What happens to a file that is worth a look.
const FILE: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::ATTRIB).union(WatchFlags::MOVE_SELF);
/// What happens in a directory that is worth a look. Writes to all the files in it would be too many.
const FOLDER: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ONLYDIR);

/// Notes about files and directories, if the system gives any.
pub(super) struct Watch {
    notes: Option<OwnedFd>,
}

/// The thing that is watched under one path.
#[derive(Debug, Default)]
pub(super) struct Watched(Option<i32>);

impl Watch {
    /// A watch over nothing yet.
    pub(super) fn new() -> Watch {
        let notes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        if let Err(error) = &notes {
            tracing::info!(%error, "no inotify: files are looked at by the clock alone");
        }
        Watch { notes: notes.ok() }
    }

    /// Watches what the path of a file now leads to. What it led to before remains watched: it may be written to for a while.
    pub(super) fn file(&self, path: &Path) {
        if let Some(notes) = &self.notes {
            // What is not there cannot be watched; the clock finds it.
            let _ = inotify::add_watch(notes, path, FILE);
        }
    }

    /// Watches what the path of a directory now leads to, no longer what it led to before.
    pub(super) fn folder(&self, path: &Path, watched: &mut Watched) {
        let Some(notes) = &self.notes else { return };
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let now = inotify::add_watch(notes, path, FOLDER).ok();
        if let Some(before) = watched.0.filter(|before| Some(*before) != now) {
            // It is gone already if the directory was removed.
            let _ = inotify::remove_watch(notes, before);
        }
        watched.0 = now;
    }

    /// Waits until there is a note, the source is to stop, or the time is over. True if there was a note.
    pub(super) fn wait(&self, stop: &Stop, longest: Duration) -> bool {
        let Some(notes) = &self.notes else {
            stop.pause(longest);
            return false;
        };
        let mut wanted = [PollFd::new(stop, PollFlags::IN), PollFd::new(notes, PollFlags::IN)];
        wait(&mut wanted, longest);
        !wanted[1].revents().is_empty()
    }

    /// Throws away the notes that have come. What they tell is found by looking.
    pub(super) fn drain(&self) {
        let Some(notes) = &self.notes else { return };
        let mut buffer = [0; 16 << 10];
        while rustix::io::read(notes, &mut buffer).is_ok_and(|read| read > 0) {}
    }
}

fn wait(wanted: &mut [PollFd<'_>], longest: Duration) {
    let timeout =
        Timespec { tv_sec: longest.as_secs().min(3600) as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
    match poll(wanted, Some(&timeout)) {
        // Whoever waits looks at the clock.
        Ok(_) | Err(Errno::INTR) => {}
        // For want of kernel memory: trying again at once would not help.
        Err(_) => std::thread::sleep(longest.min(Duration::from_millis(100))),
    }
}
