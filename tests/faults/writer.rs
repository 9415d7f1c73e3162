//! A file that is written to and rotated as the API server, or logrotate, does it.
//!
//! Everything is written a second time to a clean copy, which nobody rotates: what the oracle reads. Lines are whole when a
//! rotation comes, as they are with the API server, which writes each by one call.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use crate::events::Events;

/// How the file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// As lumberjack does for the API server: rename, then create without `O_APPEND`.
    Rename {
        /// Rotated files are compressed in the background, then removed.
        compress: bool,
    },
    /// As logrotate's `copytruncate` does.
    CopyTruncate {
        /// The writer has the file open with `O_APPEND`; without it a hole grows before what it writes next.
        append: bool,
    },
}

/// Writes events.
pub(crate) struct Writer {
    /// Where they come from.
    pub(crate) events: Events,
    /// How often the file was rotated.
    pub(crate) rotations: u64,
    path: PathBuf,
    rotation: Rotation,
    /// A file that has so many bytes is rotated.
    limit: u64,
    /// How many rotated files stay.
    backups: usize,
    file: File,
    size: u64,
    clean: File,
    rng: fastrand::Rng,
    mills: Vec<JoinHandle<()>>,
}

impl Writer {
    /// Writes to `audit.log` in a directory.
    pub(crate) fn new(directory: &Path, events: Events, rotation: Rotation, limit: u64, seed: u64) -> Writer {
        let path = directory.join("audit.log");
        let append = matches!(rotation, Rotation::CopyTruncate { append: true });
        Writer {
            events,
            rotations: 0,
            file: create(&path, append),
            path,
            rotation,
            limit,
            backups: 60,
            size: 0,
            clean: create(&directory.join("clean.jsonl"), true),
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            mills: Vec::new(),
        }
    }

    /// Writes so many events: alone, several by one call, or one by two calls.
    pub(crate) fn write(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let now = left.min(self.rng.usize(1..20));
            let text = self.events.take(now).concat();
            self.append(text.as_bytes());
            left -= now;
        }
    }

    /// Writes bytes that are whole lines.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.clean.write_all(bytes).unwrap();
        if self.rng.u8(0..8) == 0 {
            let (head, tail) = bytes.split_at(self.rng.usize(0..bytes.len()));
            self.file.write_all(head).unwrap();
            thread::sleep(Duration::from_millis(self.rng.u64(0..4)));
            self.file.write_all(tail).unwrap();
        } else {
            self.file.write_all(bytes).unwrap();
        }
        self.size += bytes.len() as u64;
        if self.size >= self.limit {
            self.rotate();
        }
    }

    /// Rotates now.
    pub(crate) fn rotate(&mut self) {
        self.rotations += 1;
        self.size = 0;
        let backup = self.backup();
        match self.rotation {
            Rotation::Rename { compress } => {
                std::fs::rename(&self.path, &backup).unwrap();
                self.file = create(&self.path, false);
                if compress {
                    let delay = Duration::from_millis(self.rng.u64(0..300));
                    self.mills.push(thread::spawn(move || mill(&backup, delay)));
                }
            }
            Rotation::CopyTruncate { .. } => {
                std::fs::copy(&self.path, &backup).unwrap();
                self.file.set_len(0).unwrap();
            }
        }
        self.remove_old();
    }

    /// A name that no backup has: two rotations in one millisecond would overwrite each other.
    fn backup(&self) -> PathBuf {
        loop {
            let now = DateTime::<Utc>::from(SystemTime::now());
            let backup =
                self.path.with_file_name(format!("audit-{}.log", now.format("%Y-%m-%dT%H-%M-%S%.3f")));
            if !backup.exists() && !backup.with_extension("log.gz").exists() {
                return backup;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn remove_old(&self) {
        let old = self.backups();
        for path in old.iter().take(old.len().saturating_sub(self.backups)) {
            // The mill may have been faster.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Rotated files, oldest first.
    pub(crate) fn backups(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path.parent().unwrap()).unwrap().flatten();
        let mut old: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("audit-"))
            .collect();
        old.sort();
        old
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        for mill in self.mills.drain(..) {
            // A test that has failed already needs no second failure.
            let _ = mill.join();
        }
    }
}

fn create(path: &Path, append: bool) -> File {
    let mut options = OpenOptions::new();
    options.create(true);
    if append {
        options.append(true)
    } else {
        options.write(true).truncate(true)
    };
    options.open(path).unwrap()
}

/// Compresses beside the file, then removes it, as lumberjack's mill does.
fn mill(path: &Path, delay: Duration) {
    thread::sleep(delay);
    let Ok(content) = std::fs::read(path) else { return };
    let file = File::create(path.with_extension("log.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    for chunk in content.chunks(64 << 10) {
        encoder.write_all(chunk).unwrap();
    }
    encoder.finish().unwrap();
    // It may be one too many by now, and gone.
    let _ = std::fs::remove_file(path);
}
