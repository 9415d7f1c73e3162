//! What an operator must know about a followed file, in words.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};

use super::generation::Generation;
use super::identity::{Inode, Known};
use crate::source::{Notice, What};

/// Builds the notices of one input.
pub(super) struct Report<'i>(pub(super) &'i Arc<str>);

impl Report<'_> {
    fn notice(&self, what: What, message: String, identity: String) -> Notice {
        Notice { input: Arc::clone(self.0), part: None, what, message, identity }
    }

    /// A generation of which a part was not read is not there any more.
    pub(super) fn gone(&self, known: &Known) -> Notice {
        let message = format!(
            "{}: what stood from byte {} on in the file that was last seen to be written at {} is gone before it was read: \
             keep more rotated files, or keep them longer",
            known.path,
            known.mark.offset,
            time(known.modified)
        );
        self.notice(What::Gap, message, identity("gone", known))
    }

    /// A file was emptied in its place and no copy of what stood in it was found.
    pub(super) fn truncated(&self, known: &Known) -> Notice {
        let message = format!(
            "{}: the file was truncated or written over after byte {}, last seen to be written at {}, and no copy of it was \
             found: if something was written to it just before, it is gone",
            known.path,
            known.mark.offset,
            time(known.modified)
        );
        self.notice(What::Truncated, message, identity("truncated", known))
    }

    /// NULs stand in a file.
    pub(super) fn hole(&self, generation: &Generation, end: u64, length: u64) -> Notice {
        let path = generation.path.display();
        let message = format!(
            "{path}: a hole of {length} bytes ends at byte {end}: the file was truncated while its writer went on at its old \
             offset"
        );
        let Inode { dev, ino } = generation.inode;
        self.notice(What::Truncated, message, format!("hole:{dev}:{ino}:{end}:{length}"))
    }

    /// The path leads to something that cannot be opened or read.
    pub(super) fn unreadable(&self, path: &Path, reason: &str, inode: Option<Inode>) -> Notice {
        let shown = path.display();
        let ino = inode.map_or(0, |inode| inode.ino);
        let message = format!("{shown}: {reason}");
        self.notice(What::Unreadable, message, format!("unreadable:{shown}:{ino}:{reason}"))
    }

    /// A rotated file cannot be read, so that what stands in it is lost to us.
    pub(super) fn unread(&self, path: &Path, inode: Inode, offset: u64, reason: &str) -> Notice {
        let shown = path.display();
        let message = format!(
            "{shown}: what stands from byte {offset} on was not read: {reason}; read it with `lapwing replay` once that is \
             repaired"
        );
        let Inode { dev, ino } = inode;
        self.notice(What::Gap, message, format!("unread:{shown}:{dev}:{ino}:{offset}"))
    }
}

/// The same for the same loss, also after a restart.
fn identity(what: &str, known: &Known) -> String {
    let Inode { dev, ino } = known.inode;
    format!("{what}:{dev}:{ino}:{}:{}", known.head.hex(), known.mark.offset)
}

fn time(millis: i64) -> String {
    match DateTime::from_timestamp_millis(millis) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => "an unknown time".to_owned(),
    }
}

/// What to do when a file may not be opened.
pub(super) const DENIED: &str = "permission denied: either run lapwing as root with all capabilities dropped, since root owns \
     the file; or create the file beforehand with mode 0640 and a group that lapwing is in, which rotation keeps; or, under \
     systemd, give the service AmbientCapabilities=CAP_DAC_READ_SEARCH";
