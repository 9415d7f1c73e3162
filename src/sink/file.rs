//! A file of JSON lines.
//!
//! Guarantees: an alert is accepted once its line is whole in the file and, unless `fsync` is off, on the disk. A line that a
//! crash has torn is ended before the next one begins, so that it spoils no other. After an error the file is opened anew and
//! the same lines are written again: after a failed fsync nobody can say which of them the disk has.
//!
//! The path may be moved away at any time (logrotate): it is looked at before every write, and at SIGHUP.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::encoding::Encoding;
use super::output::output;
use super::transport::{Item, Outcome};
use crate::units::{Size, Span};

/// Owner reads and writes, group reads: alerts name people.
const MODE: u32 = 0o640;
/// The most old files that can be kept.
const MOST_KEPT: u32 = 1_000;

output! {
    /// A file, one JSON object a line.
    FileOutput {
        /// The file. It is appended to, and created with mode 0640. Its folder must exist.
        path: PathBuf,
        /// Alerts are accepted only once they are on the disk.
        #[serde(default = "yes")]
        fsync: bool,
        /// When to begin a new file. Without it the file grows until somebody else moves it.
        rotate: Option<Rotate>,
    }
}

/// When a new file is begun, and how many old ones are kept: `alerts.jsonl.1` is the newest of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `max_size`, `max_age` and `keep`")]
pub(crate) struct Rotate {
    /// Before it would become larger than this.
    pub(crate) max_size: Option<Size>,
    /// Once it is older than this.
    pub(crate) max_age: Option<Span>,
    /// How many old files are kept.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) keep: u32,
}

fn yes() -> bool {
    true
}

fn five() -> u32 {
    5
}

/// A file that alerts are appended to.
#[derive(Debug)]
pub(crate) struct FileSink {
    encoding: Encoding,
    /// Shared with the thread that writes, which goes on even if nobody waits for it any more.
    writer: Arc<Mutex<Writer>>,
}

#[derive(Debug)]
struct Writer {
    path: PathBuf,
    fsync: bool,
    rotate: Option<Rotate>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    size: u64,
    born: SystemTime,
}

impl FileSink {
    pub(super) fn new(output: &FileOutput) -> Result<FileSink> {
        let path = output.path.clone();
        if path.file_name().is_none() {
            bail!("`path: {}` names no file", path.display());
        }
        let folder = folder(&path);
        if !folder.is_dir() {
            bail!("the folder {} of `path` does not exist: create it, or mount it", folder.display());
        }
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            bail!(
                "`path: {}` is no regular file; for a pipe or a terminal use `type: stdout`",
                path.display()
            );
        }
        if let Some(rotate) = &output.rotate {
            if rotate.max_size.is_none() && rotate.max_age.is_none() {
                bail!("`rotate` needs `max_size`, `max_age` or both");
            }
            if rotate.max_size.is_some_and(|size| size.0 == 0)
                || rotate.max_age.is_some_and(|age| age.0.is_zero())
            {
                bail!("`rotate` at every alert is not possible: give a `max_size` or `max_age` above zero");
            }
            if !(1..=MOST_KEPT).contains(&rotate.keep) {
                bail!("`rotate: {{keep: {}}}`: keep 1 to {MOST_KEPT} old files", rotate.keep);
            }
        }
        let writer = Writer { path, fsync: output.fsync, rotate: output.rotate.clone(), open: None };
        Ok(FileSink { encoding: output.encoding, writer: Arc::new(Mutex::new(writer)) })
    }

    pub(super) async fn send(&mut self, items: &[Arc<Item>]) -> Vec<Outcome> {
        let lines = self.encoding.lines(items);
        match self.with(move |writer| writer.append(&lines, SystemTime::now())).await {
            Ok(()) => Outcome::Accepted,
            Err(error) => Outcome::retry(error.to_string()),
        }
        .of_all(items.len())
    }

    /// The next alert goes to what is then at the path.
    pub(super) async fn reopen(&mut self) {
        let closed = self.with(|writer| {
            writer.open = None;
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "a file of alerts could not be closed");
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let writer = Arc::clone(&self.writer);
        // A writer whose thread has panicked may hold anything in `open`; the job opens it anew if it is not what is at the path.
        spawn_blocking(move || job(&mut writer.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(io::Error::other)?
    }
}

impl Writer {
    fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let result = self.appended(lines, now);
        if result.is_err() {
            // What the file holds now is not known: look at it anew.
            self.open = None;
        }
        result.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write to {}: {error}", self.path.display()))
        })
    }

    fn appended(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        self.follow()?;
        if self.is_due(lines.len() as u64, now) {
            self.open = None;
            self.turn()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::at(&self.path, now)?),
        };
        open.file.write_all(lines)?;
        open.size += lines.len() as u64;
        if self.fsync {
            open.file.sync_data()?;
        }
        Ok(())
    }

    /// Opens what is at the path, unless it is what is open.
    fn follow(&mut self) -> io::Result<()> {
        let there = match fs::metadata(&self.path) {
            Ok(there) => Some((there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if self.open.as_ref().map(|open| (open.device, open.inode)) != there {
            self.open = None;
        }
        if self.open.is_none() && there.is_some() {
            self.open = Some(Open::at(&self.path, SystemTime::now())?);
        }
        Ok(())
    }

    fn is_due(&self, more: u64, now: SystemTime) -> bool {
        let (Some(rotate), Some(open)) = (&self.rotate, &self.open) else { return false };
        let age = now.duration_since(open.born).unwrap_or(Duration::ZERO);
        open.size > 0
            && (rotate.max_size.is_some_and(|limit| open.size + more > limit.0)
                || rotate.max_age.is_some_and(|limit| age >= limit.0))
    }

    /// Moves the files on by one: the last goes, the current one becomes the first of the old.
    fn turn(&self) -> io::Result<()> {
        let Some(rotate) = &self.rotate else { return Ok(()) };
        // The oldest is replaced by the rename that follows, so that no moment has fewer than are to be kept.
        for number in (1..rotate.keep).rev() {
            rename_if_there(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        rename_if_there(&self.path, &numbered(&self.path, 1))?;
        File::open(folder(&self.path))?.sync_all()
    }
}

impl Open {
    fn at(path: &Path, now: SystemTime) -> io::Result<Open> {
        let is_new = !path.try_exists()?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut size = found.len();
        if size > 0 && is_torn(&mut file)? {
            file.write_all(b"\n")?;
            size += 1;
        }
        if is_new {
            File::open(folder(path))?.sync_all()?;
        }
        // Not every filesystem remembers when a file was made.
        let born = found.created().unwrap_or(now);
        Ok(Open { file, device: found.dev(), inode: found.ino(), size, born })
    }
}

/// True if the last line has no end.
fn is_torn(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;
    use crate::sink::tests::{alert, item, nasty};

    fn output(folder: &TempDir, more: &str) -> FileOutput {
        let path = folder.path().join("alerts.jsonl");
        yaml_serde::from_str(&format!("{{path: {}{more}}}", path.display())).unwrap()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn content(output: &FileOutput) -> String {
        fs::read_to_string(&output.path).unwrap()
    }

    #[tokio::test]
    async fn alerts_are_appended_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let output = output(&folder, "");
        let mut sink = FileSink::new(&output).unwrap();
        let items = [item(&alert()), item(&nasty())];
        assert_eq!(sink.send(&items).await, [Outcome::Accepted, Outcome::Accepted]);
        assert_eq!(sink.send(&items[..1]).await, [Outcome::Accepted]);
        assert_eq!(content(&output), format!("{0}\n{1}\n{0}\n", items[0].line, items[1].line));
        assert_eq!(fs::metadata(&output.path).unwrap().permissions().mode() & 0o137, 0);
    }

    #[tokio::test]
    async fn a_torn_line_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let output = output(&folder, "");
        fs::write(&output.path, "{\"uuid\":\"6a1").unwrap();
        let item = item(&alert());
        FileSink::new(&output).unwrap().send(&[Arc::clone(&item)]).await;
        assert_eq!(content(&output), format!("{{\"uuid\":\"6a1\n{}\n", item.line));
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let output = output(&folder, ", fsync: false");
        let mut sink = FileSink::new(&output).unwrap();
        let items = [item(&alert())];
        sink.send(&items).await;
        fs::rename(&output.path, folder.path().join("old")).unwrap();
        sink.send(&items).await;
        sink.reopen().await;
        sink.send(&items).await;
        assert_eq!(content(&output).lines().count(), 2);
        assert_eq!(names(&folder), ["alerts.jsonl", "old"]);
    }

    #[tokio::test]
    async fn it_turns_at_its_size_and_keeps_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let output = output(&folder, ", rotate: {max_size: 2KiB, keep: 2}");
        let mut sink = FileSink::new(&output).unwrap();
        let items = [item(&alert())];
        let fit = 2048 / (items[0].line.len() + 1);
        for _ in 0..=fit * 4 {
            assert_eq!(sink.send(&items).await, [Outcome::Accepted]);
        }
        assert_eq!(names(&folder), ["alerts.jsonl", "alerts.jsonl.1", "alerts.jsonl.2"]);
        assert_eq!(content(&output).lines().count(), 1);
        let old = fs::read_to_string(folder.path().join("alerts.jsonl.2")).unwrap();
        assert_eq!(old.lines().count(), fit);
    }

    #[test]
    fn it_turns_at_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let output = output(&folder, ", rotate: {max_age: 1h}");
        let sink = FileSink::new(&output).unwrap();
        let mut writer = sink.writer.lock().unwrap();
        let now = SystemTime::now();
        writer.append(b"a\n", now).unwrap();
        writer.append(b"b\n", now + Duration::from_mins(1)).unwrap();
        writer.append(b"c\n", now + Duration::from_secs(3_700)).unwrap();
        assert_eq!(content(&output), "c\n");
        assert_eq!(fs::read_to_string(folder.path().join("alerts.jsonl.1")).unwrap(), "a\nb\n");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let output = output(&folder, "");
        let mut sink = FileSink::new(&output).unwrap();
        fs::create_dir(&output.path).unwrap();
        let outcomes = sink.send(&[item(&alert())]).await;
        let [Outcome::Retry { reason, .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert!(reason.starts_with("cannot write to /"), "{reason}");
        fs::remove_dir(&output.path).unwrap();
        assert_eq!(sink.send(&[item(&alert())]).await, [Outcome::Accepted]);
    }

    #[test]
    fn mistakes_are_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        for (more, expected) in [
            (", rotate: {keep: 3}", "`rotate` needs `max_size`, `max_age` or both"),
            (", rotate: {max_size: 1MiB, keep: 0}", "`rotate: {keep: 0}`: keep 1 to 1000 old files"),
            (
                ", rotate: {max_size: 0}",
                "`rotate` at every alert is not possible: give a `max_size` or `max_age` above zero",
            ),
        ] {
            assert_eq!(FileSink::new(&output(&folder, more)).unwrap_err().to_string(), expected);
        }
        let nowhere: FileOutput = yaml_serde::from_str("{path: /no/such/folder/alerts.jsonl}").unwrap();
        let error = FileSink::new(&nowhere).unwrap_err().to_string();
        assert!(error.starts_with("the folder /no/such/folder of `path` does not exist"), "{error}");
        let device: FileOutput = yaml_serde::from_str("{path: /dev/null}").unwrap();
        assert!(FileSink::new(&device).unwrap_err().to_string().contains("is no regular file"));
    }
}
