//! Real files in a directory of their own, time as an argument.

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

/// Something that is done to files.
type Deed = Box<dyn FnOnce()>;

thread_local! {
    /// What happens right after the next listing of files.
    static MEANWHILE: RefCell<Option<Deed>> = const { RefCell::new(None) };
}

/// Lets happen what a test has put between a listing and what is made of it.
pub(super) fn meanwhile() {
    if let Some(happens) = MEANWHILE.take() {
        happens();
    }
}

/// A source without its thread, and what it has told the lane.
pub(super) struct Bench {
    folder: TempDir,
    config: Config,
    pub(super) context: Context,
    pub(super) trails: Vec<Trail>,
    lane: mpsc::Receiver<Delivery>,
    pub(super) now: Instant,
    /// What came, a line each: `file@offset text` for lines, `file@offset.` for the end of a stream, `! What` for notices.
    told: Vec<String>,
    /// What is done to the files while they are looked at, as long as it is being planned.
    plan: RefCell<Option<Vec<Deed>>>,
    pub(super) batches: Vec<Batch>,
    pub(super) notices: Vec<crate::source::Notice>,
    pub(super) position: Option<String>,
}

impl Bench {
    pub(super) fn new(from: From) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let config = Config { from, ..Config::of(path.to_str().unwrap()) };
        let (sender, lane) = mpsc::channel(4096);
        let outlet =
            Outlet::new(sender, Room::new(64 << 20), Stop::new().unwrap(), Telemetry::new()).unwrap();
        let context = Context {
            input: "audit".into(),
            cluster: None,
            outlet,
            watch: Watch::new(),
            rotate_wait: config.rotate_wait.0,
        };
        let trails = trails(&config, "audit", None);
        let now = Instant::now();
        let (told, plan, batches, notices, position) = Default::default();
        Bench { folder, config, context, trails, lane, now, told, plan, batches, notices, position }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts what `plan` does to the files between the next listing and what is made of it.
    pub(super) fn meanwhile(&self, plan: impl FnOnce()) {
        self.plan.replace(Some(Vec::new()));
        plan();
        let deeds = self.plan.take().unwrap_or_default();
        MEANWHILE.set(Some(Box::new(|| deeds.into_iter().for_each(|deed| deed()))));
    }

    /// Does something to the files, or plans it.
    fn act(&self, deed: impl FnOnce() + 'static) {
        match &mut *self.plan.borrow_mut() {
            Some(plan) => plan.push(Box::new(deed)),
            None => deed(),
        }
    }

    pub(super) fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let (path, text) = (self.path(name), text.as_ref().to_vec());
        self.act(move || {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(&text).unwrap();
        });
    }

    /// Writes at an offset, which leaves a hole before it if the file is shorter.
    pub(super) fn write_at(&self, name: &str, offset: u64, text: impl AsRef<[u8]>) {
        let (path, text) = (self.path(name), text.as_ref().to_vec());
        self.act(move || {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
            file.write_all_at(&text, offset).unwrap();
        });
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        self.act(move || fs::rename(from, to).unwrap());
    }

    pub(super) fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        self.act(move || fs::copy(from, to).map(|_| ()).unwrap());
    }

    pub(super) fn truncate(&self, name: &str) {
        let path = self.path(name);
        self.act(move || fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap());
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.path(name);
        self.act(move || fs::remove_file(path).unwrap());
    }

    /// Packs a file and removes it.
    pub(super) fn pack(&self, name: &str) {
        let (plain, packed) = (self.path(name), self.path(&format!("{name}.gz")));
        self.act(move || {
            let mut encoder =
                flate2::write::GzEncoder::new(fs::File::create(packed).unwrap(), flate2::Compression::fast());
            encoder.write_all(&fs::read(&plain).unwrap()).unwrap();
            encoder.finish().unwrap();
            fs::remove_file(plain).unwrap();
        });
    }

    /// Looks and reads until nothing more comes.
    pub(super) fn read(&mut self) {
        look(&self.context, &mut self.trails, self.now, true).unwrap();
        loop {
            let turn = turn(&self.context, &mut self.trails, self.now).unwrap();
            self.collect();
            if matches!(turn, Turn::Nothing) {
                break;
            }
        }
    }

    /// Lets so much time go by that rotated files are finished.
    pub(super) fn wait(&mut self) {
        self.now += Duration::from_secs(6);
        self.read();
    }

    pub(super) fn restart(&mut self) {
        self.trails = trails(&self.config, "audit", self.position.as_deref());
    }

    pub(super) fn collect(&mut self) {
        while let Ok(delivery) = self.lane.try_recv() {
            match delivery {
                Delivery::Batch(batch) => {
                    let name = Path::new(&*batch.stream).file_name().unwrap().display().to_string();
                    let mut offset = batch.offset;
                    for line in batch.bytes.split_inclusive(|byte| *byte == b'\n') {
                        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
                        self.told.push(format!("{name}@{offset} {text}"));
                        offset += line.len() as u64;
                    }
                    if batch.last {
                        self.told.push(format!("{name}@{offset}."));
                    }
                    self.position.clone_from(&batch.position);
                    self.batches.push(batch);
                }
                Delivery::Notice(notice) => {
                    self.told.push(format!("! {:?}", notice.what));
                    self.notices.push(notice);
                }
                Delivery::End { .. } | Delivery::Messages(_) => panic!("files do not end, and are no topics"),
            }
        }
    }

    /// What was told since the last time.
    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.told), expected);
    }
}

/// Runs a story of a file that is read from its start.
fn check(story: impl Fn(&mut Bench)) {
    story(&mut Bench::new(From::Start));
}

#[test]
fn what_is_appended_is_read_once() {
    check(|b| {
        b.append("audit.log", "one\ntwo\n");
        b.read();
        b.expect(&["audit.log@0 one", "audit.log@4 two"]);
        b.read();
        b.expect(&[]);
        b.append("audit.log", "three\n");
        b.read();
        b.expect(&["audit.log@8 three"]);
        b.restart();
        b.read();
        b.expect(&[]);
        b.append("audit.log", "four\n");
        b.read();
        b.expect(&["audit.log@14 four"]);
    });
}

#[test]
fn a_first_start_begins_at_the_end_and_remembers_that() {
    for from in [From::Checkpoint, From::End] {
        let mut b = Bench::new(from);
        b.append("audit.log", "old\nhalf");
        b.append("audit.log.1", "older\n");
        b.read();
        b.expect(&[]);
        b.restart();
        b.append("audit.log", " whole\nnew\n");
        b.read();
        b.expect(&["audit.log@4 half whole", "audit.log@15 new"]);
    }
}

#[test]
fn a_file_that_comes_later_is_read_from_its_first_byte() {
    let mut b = Bench::new(From::Checkpoint);
    b.read();
    b.append("audit.log", "one\n");
    b.read();
    b.expect(&["audit.log@0 one"]);
    // Also when it came, and was rotated, while nobody looked.
    let mut b = Bench::new(From::Checkpoint);
    b.read();
    b.restart();
    b.append("audit.log", "one\n");
    b.rename("audit.log", "audit.log.1");
    b.append("audit.log", "two\n");
    b.read();
    b.expect(&["audit.log.1@0 one", "audit.log@0 two"]);
}

#[test]
fn half_lines_wait() {
    check(|b| {
        b.append("audit.log", "one\nha");
        b.read();
        b.expect(&["audit.log@0 one"]);
        b.append("audit.log", "lf");
        b.read();
        b.expect(&[]);
        b.append("audit.log", "\n");
        b.read();
        b.expect(&["audit.log@4 half"]);
    });
}

#[test]
fn a_half_line_is_handed_over_when_its_generation_ends() {
    check(|b| {
        b.append("audit.log", "one\nha");
        b.read();
        b.rename("audit.log", "audit.log.1");
        b.append("audit.log", "two\n");
        b.read();
        b.expect(&["audit.log@0 one", "audit.log@4.", "audit.log@0 two"]);
        b.wait();
        b.expect(&["audit.log.1@4 ha", "audit.log.1@6."]);
    });
}

#[test]
fn renaming_loses_nothing() {
    for rotated in ["audit-2026-03-01T10-00-00.123.log", "audit.log.1", "audit.log-20260301", "elsewhere"] {
        check(|b| {
            b.append("audit.log", "one\n");
            b.read();
            b.append("audit.log", "two\n");
            b.rename("audit.log", rotated);
            b.append("audit.log", "three\n");
            b.read();
            b.append(rotated, "late\n");
            b.append("audit.log", "four\n");
            b.read();
            let name = if rotated == "elsewhere" { "audit.log (moved)" } else { rotated };
            b.expect(&[
                "audit.log@0 one",
                "audit.log@4.",
                &format!("{name}@4 two"),
                "audit.log@0 three",
                &format!("{name}@8 late"),
                "audit.log@6 four",
            ]);
            b.wait();
            b.expect(&[&format!("{name}@13.")]);
        });
    }
}

#[test]
fn between_renaming_and_creating_there_is_no_file() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.append("audit.log", "two\n");
        b.rename("audit.log", "audit.log.1");
        b.read();
        b.expect(&["audit.log@0 one", "audit.log@4.", "audit.log.1@4 two"]);
        b.wait();
        b.append("audit.log", "three\n");
        b.read();
        b.expect(&["audit.log.1@8.", "audit.log@0 three"]);
    });
}

/// Three rotations, each with the content `one`, `two`, `three`, then `four`, of which only `one` has been read.
fn rotate(b: &Bench, lumberjack: bool) {
    for (at, text) in ["", "two\n", "three\n"].into_iter().enumerate() {
        b.append("audit.log", text);
        if lumberjack {
            b.rename("audit.log", &format!("audit-2026-03-01T10-00-0{at}.123.log"));
        } else {
            for number in (1..=at).rev() {
                b.rename(&format!("audit.log.{number}"), &format!("audit.log.{}", number + 1));
            }
            b.rename("audit.log", "audit.log.1");
        }
    }
    b.append("audit.log", "four\n");
}

#[test]
fn several_rotations_at_once() {
    for restarted in [false, true] {
        check(|b| {
            b.append("audit.log", "one\n");
            b.read();
            b.append("audit.log", "one and a half\n");
            rotate(b, true);
            if restarted {
                b.restart();
            }
            b.read();
            let mut expected = vec!["audit.log@0 one"];
            expected.extend(["audit.log@4."].iter().filter(|_| !restarted));
            expected.extend([
                "audit-2026-03-01T10-00-00.123.log@4 one and a half",
                "audit-2026-03-01T10-00-01.123.log@0 two",
                "audit-2026-03-01T10-00-02.123.log@0 three",
                "audit.log@0 four",
            ]);
            b.expect(&expected);
        });
        check(|b| {
            b.append("audit.log", "one\n");
            b.read();
            rotate(b, false);
            if restarted {
                b.restart();
            }
            b.read();
            let mut expected = vec!["audit.log@0 one"];
            expected.extend(["audit.log@4."].iter().filter(|_| !restarted));
            expected.extend(["audit.log.2@0 two", "audit.log.1@0 three", "audit.log@0 four"]);
            b.expect(&expected);
            b.wait();
            b.told.clear();
            b.restart();
            b.append("audit.log", "five\n");
            b.read();
            b.expect(&["audit.log@5 five"]);
        });
    }
}

#[test]
fn archives_are_read_on_from_where_the_file_was() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.append("audit.log", "one and a half\nha");
        rotate(b, true);
        b.pack("audit-2026-03-01T10-00-00.123.log");
        b.pack("audit-2026-03-01T10-00-01.123.log");
        b.restart();
        b.read();
        b.expect(&[
            "audit.log@0 one",
            "audit-2026-03-01T10-00-00.123.log.gz@4 one and a half",
            "audit-2026-03-01T10-00-00.123.log.gz@19 ha",
            "audit-2026-03-01T10-00-00.123.log.gz@21.",
            "audit-2026-03-01T10-00-01.123.log.gz@0 two",
            "audit-2026-03-01T10-00-01.123.log.gz@4.",
            "audit-2026-03-01T10-00-02.123.log@0 three",
            "audit.log@0 four",
        ]);
    });
}

#[test]
fn what_is_read_is_not_read_again_from_its_archive() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.rename("audit.log", "audit.log.1");
        b.append("audit.log", "two\n");
        b.read();
        b.pack("audit.log.1");
        b.wait();
        b.restart();
        b.append("audit.log", "three\n");
        b.read();
        b.told.retain(|line| !line.ends_with('.'));
        b.expect(&["audit.log@0 one", "audit.log@0 two", "audit.log@4 three"]);
    });
}

#[test]
fn a_generation_that_only_begins_like_another_is_read() {
    check(|b| {
        b.append("audit.log", "same\n");
        b.read();
        for text in ["same\n", "same\nmore\n"] {
            b.rename("audit.log", &format!("audit.log.{}", 9 - text.len() / 5));
            b.append("audit.log", text);
            b.read();
            b.wait();
        }
        b.told.retain(|line| !line.ends_with('.'));
        b.expect(&["audit.log@0 same", "audit.log@0 same", "audit.log@0 same", "audit.log@5 more"]);
    });
}

#[test]
fn an_archive_that_is_being_made_is_not_looked_at() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.append("audit.log", "two\n");
        b.rename("audit.log", "audit.log.1");
        fs::write(b.path("audit.log.1.gz"), b"\x1f\x8b\x08").unwrap();
        b.append("audit.log", "three\n");
        b.restart();
        b.read();
        b.expect(&["audit.log@0 one", "audit.log.1@4 two", "audit.log@0 three"]);
    });
}

#[test]
fn what_is_deleted_while_it_is_held_is_read() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.append("audit.log", "two\n");
        b.remove("audit.log");
        b.append("audit.log", "three\n");
        b.read();
        b.expect(&["audit.log@0 one", "audit.log@4.", "audit.log (deleted)@4 two", "audit.log@0 three"]);
    });
}

#[test]
fn what_is_deleted_while_nobody_looks_is_told_once() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.append("audit.log", "two\n");
        b.rename("audit.log", "audit.log.1");
        b.append("audit.log", "three\n");
        b.remove("audit.log.1");
        b.restart();
        b.read();
        b.expect(&["audit.log@0 one", "! Gap", "audit.log@0 three"]);
        b.restart();
        b.read();
        b.expect(&[]);
        assert!(b.notices[0].message.contains("audit.log: what stood from byte 4 on"));
    });
}

#[test]
fn when_the_known_is_gone_everything_younger_is_read() {
    check(|b| {
        fs::write(b.path("audit-2026-01-01T00-00-00.000.log"), "too old\n").unwrap();
        let old = fs::File::options().write(true).open(b.path("audit-2026-01-01T00-00-00.000.log")).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        b.append("audit.log", "one\n");
        b.read();
        for (year, text) in [(2098, "two\n"), (2099, "three\n")] {
            b.remove("audit.log");
            b.append("audit.log", text);
            b.rename("audit.log", &format!("audit-{year}-01-01T00-00-00.000.log"));
            b.append("audit.log", "four\n");
        }
        b.restart();
        b.read();
        b.expect(&[
            "audit.log@0 one",
            "! Gap",
            "audit-2098-01-01T00-00-00.000.log@0 two",
            "audit-2099-01-01T00-00-00.000.log@0 three",
            "audit.log@0 four",
        ]);
    });
}

#[test]
fn copying_and_truncating() {
    for restarted in [false, true] {
        check(|b| {
            b.append("audit.log", "one\n");
            b.read();
            b.append("audit.log", "two\n");
            b.copy("audit.log", "audit.log.1");
            b.truncate("audit.log");
            b.append("audit.log", "a longer line than before\n");
            if restarted {
                b.restart();
            }
            b.read();
            b.told.retain(|line| !line.ends_with('.'));
            b.expect(&["audit.log@0 one", "audit.log.1@4 two", "audit.log@0 a longer line than before"]);
            b.wait();
            b.restart();
            b.read();
            b.expect(&["audit.log.1@8."]);
        });
    }
}

#[test]
fn copying_and_truncating_twice_while_nobody_looks() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.append("audit.log", "two\n");
        b.copy("audit.log", "audit.log.2");
        b.truncate("audit.log");
        b.append("audit.log", "three\n");
        b.copy("audit.log", "audit.log.1");
        b.pack("audit.log.2");
        b.truncate("audit.log");
        b.append("audit.log", "four\n");
        b.restart();
        b.read();
        b.expect(&[
            "audit.log@0 one",
            "audit.log.2.gz@4 two",
            "audit.log.2.gz@8.",
            "audit.log.1@0 three",
            "audit.log@0 four",
        ]);
    });
}

#[test]
fn a_copy_that_ends_before_what_was_read_has_nothing_left() {
    check(|b| {
        b.append("audit.log", "x".repeat(4999) + "\n");
        b.copy("audit.log", "audit.log.1");
        b.append("audit.log", "two\n");
        b.read();
        b.truncate("audit.log");
        b.append("audit.log", "three\n");
        b.read();
        b.told.remove(0);
        b.expect(&["audit.log@5000 two", "audit.log@5004.", "audit.log@0 three"]);
    });
}

#[test]
fn truncating_without_a_copy_is_told() {
    for restarted in [false, true] {
        check(|b| {
            b.append("audit.log", "one\n");
            b.read();
            b.truncate("audit.log");
            if restarted {
                b.restart();
            }
            b.read();
            b.append("audit.log", "two\n");
            b.read();
            b.told.retain(|line| !line.ends_with('.'));
            b.expect(&["audit.log@0 one", "! Truncated", "audit.log@0 two"]);
        });
    }
}

#[test]
fn a_writer_that_goes_on_at_its_old_offset_leaves_a_hole() {
    use std::os::unix::fs::FileExt as _;
    check(|b| {
        let line = "x".repeat(99) + "\n";
        b.append("audit.log", line.repeat(2000));
        b.read();
        b.told.clear();
        b.copy("audit.log", "audit.log.1");
        b.truncate("audit.log");
        b.read();
        let writer = fs::OpenOptions::new().write(true).open(b.path("audit.log")).unwrap();
        writer.write_all_at(b"after\n", 200_000).unwrap();
        writer.write_all_at(b"more\n", 1_000_000).unwrap();
        b.read();
        b.expect(&[
            "audit.log@200000.",
            "! Truncated",
            "audit.log@200000 after",
            "! Truncated",
            "audit.log@1000000 more",
        ]);
        assert!(b.notices[0].message.contains("a hole of 200000 bytes ends at byte 200000"));
        b.restart();
        b.read();
        writer.write_all_at(b"last\n", 1_000_005).unwrap();
        b.read();
        b.expect(&["audit.log@1000005 last"]);
    });
}

/// Rotated files are watched for a while, and so many are at most; those that are waiting must not be deleted unseen.
#[test]
fn many_rotations_while_the_first_are_still_watched() {
    let mut b = Bench::new(From::Start);
    let name = |number: usize| format!("audit-2026-03-01T10-00-00.{number:03}.log");
    for number in 0..300 {
        b.append("audit.log", format!("{number}\n"));
        b.read();
        b.rename("audit.log", &name(number));
        if number >= 10 {
            b.remove(&name(number - 10));
        }
    }
    b.read();
    let lines: Vec<_> = b.batches.iter().flat_map(|batch| batch.bytes.split(|byte| *byte == b'\n')).collect();
    for number in 0..300 {
        assert!(lines.contains(&number.to_string().as_bytes()), "{number}");
    }
    assert!(b.notices.is_empty(), "{:?}", b.notices);
}

#[test]
fn what_is_held_is_read_though_its_directory_is_gone() {
    check(|b| {
        b.append("audit.log", "");
        b.read();
        b.append("audit.log", "one\n");
        fs::remove_dir_all(b.path("")).unwrap();
        b.read();
        b.expect(&["audit.log (deleted)@0 one"]);
    });
}

/// A position in a hole is true of every later generation of a writer that goes on at its old offset.
#[test]
fn copies_behind_a_hole_are_read_after_a_restart() {
    check(|b| {
        b.write_at("audit.log", 0, "one\n");
        b.read();
        b.expect(&["audit.log@0 one"]);
        b.copy("audit.log", "audit.log.1");
        b.truncate("audit.log");
        b.write_at("audit.log", 8192, "");
        fs::File::options().write(true).open(b.path("audit.log")).unwrap().set_len(8192).unwrap();
        b.read();
        b.expect(&["audit.log@4."]);
        for name in ["audit.log.2", "audit.log.3"] {
            b.write_at("audit.log", 8192, format!("{name}\n"));
            b.copy("audit.log", name);
            b.truncate("audit.log");
        }
        // The higher the older: put the three in order.
        b.rename("audit.log.1", "audit.log.4");
        b.rename("audit.log.3", "audit.log.1");
        b.write_at("audit.log", 8192, "last\n");
        b.restart();
        b.read();
        b.expect(&[
            "! Truncated",
            "audit.log.2@8192 audit.log.2",
            "! Truncated",
            "audit.log.1@8192 audit.log.3",
            "! Truncated",
            "audit.log@8192 last",
        ]);
    });
}

#[test]
fn what_is_renamed_while_it_is_looked_for_is_found() {
    for rotated in ["audit-2026-03-01T10-00-00.123.log", "audit.log.1"] {
        check(|b| {
            b.append("audit.log", "one\n");
            b.read();
            b.append("audit.log", "two\n");
            b.restart();
            b.meanwhile(|| {
                b.rename("audit.log", rotated);
                b.append("audit.log", "three\n");
            });
            b.read();
            b.expect(&["audit.log@0 one", &format!("{rotated}@4 two"), "audit.log@0 three"]);
        });
    }
}

#[test]
fn what_is_copied_while_it_is_looked_for_is_found() {
    for known in [true, false] {
        check(|b| {
            b.append("audit.log", if known { "one\n" } else { "" });
            b.read();
            b.append("audit.log", "two\n");
            b.restart();
            b.meanwhile(|| {
                b.copy("audit.log", "audit.log.1");
                b.truncate("audit.log");
                b.append("audit.log", "three\n");
            });
            b.read();
            let first: &[&str] =
                if known { &["audit.log@0 one", "audit.log.1@4 two"] } else { &["audit.log.1@0 two"] };
            b.expect(&[first, &["audit.log@0 three"]].concat());
        });
    }
}

#[test]
fn an_inode_that_is_used_again_is_another_file() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        b.rename("audit.log", "audit.log.1");
        // As if the old file had been deleted and the new one got its inode.
        b.copy("audit.log.1", "audit.log.2");
        fs::write(b.path("audit.log.1"), "another file\n").unwrap();
        b.rename("audit.log.1", "audit.log");
        b.rename("audit.log.2", "audit.log.1");
        b.append("audit.log.1", "two\n");
        b.restart();
        b.read();
        b.expect(&["audit.log@0 one", "audit.log.1@4 two", "audit.log@0 another file"]);
    });
}

#[test]
fn links_are_followed() {
    check(|b| {
        fs::create_dir(b.path("pods")).unwrap();
        b.append("pods/0.log", "one\n");
        symlink("pods/0.log", b.path("audit.log")).unwrap();
        b.read();
        // Rotation happens where the file is.
        b.append("pods/0.log", "two\n");
        b.rename("pods/0.log", "pods/0.log.20260301-100000");
        b.append("pods/0.log", "three\n");
        b.read();
        b.expect(&["audit.log@0 one", "audit.log@4.", "0.log.20260301-100000@4 two", "audit.log@0 three"]);
        // The link is swapped.
        b.append("pods/1.log", "four\n");
        symlink("pods/1.log", b.path("swap")).unwrap();
        b.append("pods/0.log", "late\n");
        b.rename("swap", "audit.log");
        b.read();
        b.expect(&["audit.log@6.", "audit.log (moved)@6 late", "audit.log@0 four"]);
    });
}

#[test]
fn what_cannot_be_read_is_told_once_and_tried_again() {
    let root = rustix::process::geteuid().is_root();
    check(|b| {
        fs::create_dir(b.path("audit.log")).unwrap();
        b.read();
        b.read();
        b.expect(&["! Unreadable"]);
        assert!(b.notices[0].message.contains("not a regular file"));
        fs::remove_dir(b.path("audit.log")).unwrap();
        b.append("audit.log", "one\n");
        b.read();
        b.expect(&["audit.log@0 one"]);
    });
    if root {
        return; // root may read everything
    }
    check(|b| {
        b.append("audit.log", "one\n");
        let mode = |mode| fs::set_permissions(b.path("audit.log"), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o000);
        b.read();
        b.read();
        b.expect(&["! Unreadable"]);
        let message = &b.notices[0].message;
        assert!(message.contains("0640") && message.contains("CAP_DAC_READ_SEARCH"), "{message}");
        fs::set_permissions(b.path("audit.log"), fs::Permissions::from_mode(0o600)).unwrap();
        b.read();
        b.expect(&["audit.log@0 one"]);
    });
}

#[test]
fn a_directory_that_comes_later() {
    let mut b = Bench::new(From::Checkpoint);
    b.config.paths = vec![Text(b.path("sub/audit.log").to_str().unwrap().to_owned())];
    b.restart();
    b.read();
    fs::create_dir(b.path("sub")).unwrap();
    b.append("sub/audit.log", "one\n");
    b.read();
    b.expect(&["audit.log@0 one"]);
}

#[test]
fn long_lines_come_in_pieces_and_again_from_their_beginning_after_a_restart() {
    check(|b| {
        let long = "x".repeat(5 << 19);
        b.append("audit.log", format!("short\n{long}"));
        b.read();
        let lengths: Vec<_> =
            b.batches.iter().map(|batch| (batch.offset, batch.bytes.len())).filter(|(_, n)| *n > 0).collect();
        assert_eq!(lengths, [(0, 6), (6, 1 << 20), (6 + (1 << 20), 1 << 20)]);
        b.restart();
        b.batches.clear();
        b.append("audit.log", "\nend\n");
        b.read();
        let bytes: Vec<u8> = b.batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
        assert_eq!(bytes, format!("{long}\nend\n").into_bytes());
    });
}

#[test]
fn a_byte_order_mark_is_no_text() {
    check(|b| {
        b.append("audit.log", "\u{feff}one\n");
        b.read();
        b.expect(&["audit.log@3 one"]);
    });
}

#[test]
fn positions_that_cannot_be_read_mean_the_beginning() {
    let mut b = Bench::new(From::Checkpoint);
    b.append("audit.log", "one\n");
    b.position = Some("{damaged".to_owned());
    b.restart();
    b.read();
    b.expect(&["audit.log@0 one"]);
}

#[test]
fn a_backlog_of_many_files_is_read_in_order() {
    check(|b| {
        b.append("audit.log", "0\n");
        b.read();
        for at in 0..100 {
            b.rename("audit.log", &format!("audit-2026-03-01T10-00-{:02}.{:03}.log", at / 10, at));
            b.append("audit.log", format!("{}\n", at + 1));
        }
        b.restart();
        for _ in 0..4 {
            b.wait();
        }
        let read: Vec<u32> = b
            .told
            .iter()
            .filter(|line| !line.ends_with('.'))
            .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
            .collect();
        assert_eq!(read, (0..=100).collect::<Vec<_>>());
    });
}

#[test]
fn damaged_archives_yield_what_they_hold_and_are_told() {
    check(|b| {
        b.append("audit.log", "one\n");
        b.read();
        let text: String = (0..20_000).flat_map(|at| [at.to_string(), "\n".to_owned()]).collect();
        b.append("audit.log", &text);
        b.rename("audit.log", "audit.log.1");
        b.pack("audit.log.1");
        let bytes = fs::read(b.path("audit.log.1.gz")).unwrap();
        fs::write(b.path("audit.log.1.gz"), &bytes[..bytes.len() / 2]).unwrap();
        b.append("audit.log", "live\n");
        b.restart();
        b.read();
        b.wait();
        assert!(b.told.len() > 1000);
        assert!(b.told.contains(&"audit.log@0 live".to_owned()));
        assert_eq!(b.notices.len(), 1);
        assert!(b.notices[0].message.contains("truncated archive"), "{}", b.notices[0].message);
    });
}

/// Runs `work` with a follower on its own thread.
fn live(work: impl FnOnce(&Path, &mut mpsc::Receiver<Delivery>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let config = Config { poll: Span(Duration::from_mins(1)), ..Config::of(path.to_str().unwrap()) };
    let (sender, mut lane) = mpsc::channel(64);
    let stop = Stop::new().unwrap();
    fs::write(&path, "old\n").unwrap();
    let thread = start(&config, None, sender, Room::new(1 << 20), stop.clone(), Telemetry::new()).unwrap();
    lane.blocking_recv().unwrap();
    work(&path, &mut lane);
    stop.say();
    thread.join().unwrap();
}

#[test]
fn the_system_tells_of_changes() {
    live(|path, lane| {
        for turn in 0..3 {
            // A look by the clock would come a minute later.
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(b"new\n").unwrap();
            let mut text = Vec::new();
            while text != b"new\n" {
                if let Delivery::Batch(batch) = lane.blocking_recv().unwrap() {
                    text.extend_from_slice(&batch.bytes);
                }
            }
            fs::rename(path, path.with_extension(format!("log.{}", 9 - turn))).unwrap();
        }
    });
}

#[test]
fn a_lane_that_stands_still_does_not_keep_it_from_stopping() {
    live(|path, _lane| {
        fs::write(path, "x\n".repeat(4 << 20)).unwrap();
    });
}
