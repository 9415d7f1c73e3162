//! What is to be read: paths and topics as typed become an ordered list of inputs.
//!
//! Nothing that was named is left out in silence: whatever is not read stands in [`Plan::skipped`] or
//! [`Plan::unreadable`] with its reason. Inputs keep the order of the paths; within a directory, names are in byte order.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::kafka::address::Address;
use super::kafka::history::{Listing, Partition, Wanted};

/// Something that was typed.
pub(crate) enum Named<'p> {
    /// A file, a directory, a pattern, or `-` for standard input.
    Path(&'p OsStr),
    /// A topic.
    Topic(Box<Wanted>),
}

/// What is to be read, and what not.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What is to be read, in order.
    pub(crate) inputs: Vec<Input>,
    /// What is left out on purpose.
    pub(crate) skipped: Vec<Note>,
    /// What can't be read.
    pub(crate) unreadable: Vec<Note>,
}

/// One input.
#[derive(Debug)]
pub(crate) struct Input {
    /// Its name in alerts and summary.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) place: Place,
    /// Its size on disk in bytes; 0 if it has none.
    pub(crate) size: u64,
    /// The planned file beside it that it is the archive of, judging by its name. If it is a copy, it need not be read.
    pub(crate) twin: Option<PathBuf>,
}

/// Where an input lies.
#[derive(Debug)]
pub(crate) enum Place {
    /// Standard input.
    Stdin,
    /// On disk.
    Path(PathBuf),
    /// A partition of a topic.
    Partition(Partition),
}

impl Input {
    /// The partition, if it is one.
    pub(crate) fn partition(&self) -> Option<&Partition> {
        if let Place::Partition(partition) = &self.place { Some(partition) } else { None }
    }
}

/// Something to tell about an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// The input's name.
    pub(crate) input: String,
    /// What there is to tell.
    pub(crate) reason: String,
}

/// Why something can't be opened or read, and what to do about it.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied: run as the file's owner, or let your group read it".to_string()
        }
        io::ErrorKind::NotFound => "no such file or directory".to_string(),
        _ => error.to_string(),
    }
}

/// Finds the inputs: files as they are, directories with all that is below them, patterns (`*`, `?`, `[a-z]`, `**`) where
/// no file of that very name exists, `-` for standard input, and the partitions of topics, about which brokers are asked
/// until `stop` is set.
pub(crate) fn plan<'p>(named: impl IntoIterator<Item = Named<'p>>, stop: &AtomicBool) -> Plan {
    let mut search = Search::default();
    for named in named {
        match named {
            Named::Path(path) if path == "-" => search.stdin(),
            Named::Path(path) => search.typed(Path::new(path)),
            Named::Topic(wanted) => search.topic(&wanted, stop),
        }
    }
    search.finish()
}

#[derive(Default)]
struct Search {
    plan: Plan,
    stdin: bool,
    /// Files by device and inode, with the name they were first met under.
    files: HashMap<(u64, u64), String>,
    /// Directories that were entered: a link back into one of them ends there.
    directories: HashSet<(u64, u64)>,
    /// The inputs that were found, not named, and so may be left out as copies.
    found: HashSet<usize>,
    topics: HashSet<Address>,
}

impl Search {
    fn stdin(&mut self) {
        if std::mem::replace(&mut self.stdin, true) {
            self.skip("-", "standard input can be read only once");
        } else {
            self.plan.inputs.push(Input { name: "-".to_string(), place: Place::Stdin, size: 0, twin: None });
        }
    }

    fn topic(&mut self, wanted: &Wanted, stop: &AtomicBool) {
        let typed = wanted.address.typed.as_str();
        if !self.topics.insert(Address { typed: String::new(), ..wanted.address.clone() }) {
            return self.skip(typed, "a topic that is already being read");
        }
        match wanted.ask(stop) {
            Ok(Listing { partitions, unreadable }) => {
                self.plan.unreadable.extend(unreadable);
                self.plan.inputs.extend(partitions.into_iter().map(|partition| Input {
                    name: partition.name(),
                    place: Place::Partition(partition),
                    size: 0,
                    twin: None,
                }));
            }
            Err(reason) => self.unreadable(Path::new(typed), reason),
        }
    }

    fn typed(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(metadata) => self.add(path, &metadata, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match path.to_str() {
                Some(pattern) if pattern.contains(['*', '?', '[']) => self.pattern(pattern),
                _ => self.unreadable(path, reason(&error)),
            },
            Err(error) => self.unreadable(path, reason(&error)),
        }
    }

    fn pattern(&mut self, pattern: &str) {
        let matches = match glob::glob(pattern) {
            Ok(matches) => matches,
            Err(error) => {
                return self.unreadable(Path::new(pattern), format!("not a valid pattern: {error}"));
            }
        };
        let mut any = false;
        for found in matches {
            any = true;
            match found {
                Ok(path) => self.met(&path),
                Err(error) => self.unreadable(error.path(), reason(error.error())),
            }
        }
        if !any {
            self.unreadable(Path::new(pattern), "no file matches the pattern".to_string());
        }
    }

    /// Adds what was found, not named.
    fn met(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(metadata) => self.add(path, &metadata, false),
            Err(error) => self.lost(path, &error),
        }
    }

    /// What was found and cannot be looked at. A link that leads nowhere holds nothing that could be read.
    fn lost(&mut self, path: &Path, error: &io::Error) {
        if error.kind() == io::ErrorKind::NotFound && path.is_symlink() {
            self.skip(path, "a link to something that is not there");
        } else {
            self.unreadable(path, reason(error));
        }
    }

    fn add(&mut self, path: &Path, metadata: &Metadata, named: bool) {
        if metadata.is_dir() {
            self.walk(path, metadata);
        } else {
            self.file(path, metadata, named);
        }
    }

    fn walk(&mut self, root: &Path, metadata: &Metadata) {
        let mut ahead = self.enter(root, metadata);
        while let Some(path) = ahead.pop() {
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => ahead.extend(self.enter(&path, &metadata)),
                Ok(metadata) => self.file(&path, &metadata, false),
                Err(error) => self.lost(&path, &error),
            }
        }
    }

    /// The entries of a directory, last name first.
    fn enter(&mut self, path: &Path, metadata: &Metadata) -> Vec<PathBuf> {
        if !self.directories.insert((metadata.dev(), metadata.ino())) {
            self.skip(path, "a directory that is already being read");
            return Vec::new();
        }
        let mut entries = Vec::new();
        match fs::read_dir(path) {
            Ok(listing) => {
                for entry in listing {
                    match entry {
                        Ok(entry) => entries.push(entry.path()),
                        Err(error) => self.unreadable(path, reason(&error)),
                    }
                }
            }
            Err(error) => self.unreadable(path, reason(&error)),
        }
        entries.sort_unstable_by(|a, b| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
        entries
    }

    fn file(&mut self, path: &Path, metadata: &Metadata, named: bool) {
        if !metadata.is_file() && !named {
            return self.skip(path, "not a regular file");
        }
        let name = path.to_string_lossy().into_owned();
        if let Some(first) = self.files.get(&(metadata.dev(), metadata.ino())) {
            let reason = format!("the same file as {first}");
            return self.skip(path, &reason);
        }
        self.files.insert((metadata.dev(), metadata.ino()), name.clone());
        if !named {
            if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("md")) {
                return self.skip(path, "a text for people; name it to have it read");
            }
            self.found.insert(self.plan.inputs.len());
        }
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        self.plan.inputs.push(Input { name, place: Place::Path(path.to_path_buf()), size, twin: None });
    }

    fn skip(&mut self, path: impl AsRef<Path>, reason: &str) {
        let input = path.as_ref().to_string_lossy().into_owned();
        self.plan.skipped.push(Note { input, reason: reason.to_string() });
    }

    fn unreadable(&mut self, path: &Path, reason: String) {
        self.plan.unreadable.push(Note { input: path.to_string_lossy().into_owned(), reason });
    }

    /// Pairs archives with the planned files that they may be copies of.
    fn finish(self) -> Plan {
        let Search { mut plan, found, .. } = self;
        let paths = plan.inputs.iter().filter_map(|input| match &input.place {
            Place::Path(path) => Some(path.clone()),
            Place::Stdin | Place::Partition(_) => None,
        });
        let planned: HashSet<PathBuf> = paths.collect();
        for index in found {
            let input = &mut plan.inputs[index];
            let Place::Path(path) = &input.place else { continue };
            let archived = path.extension().is_some_and(|end| end == "gz" || end == "zst");
            input.twin = Some(path.with_extension("")).filter(|plain| archived && planned.contains(plain));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::fs::symlink;

    /// Plans `paths`, with `%` for a directory that holds the files `files`, and shows the outcome without that directory.
    fn check(files: &[&str], arrange: impl Fn(&Path), paths: &[&str], expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        arrange(root);
        let root = root.to_str().unwrap();
        let paths: Vec<OsString> = paths.iter().map(|path| path.replace('%', root).into()).collect();
        let plan = plan(paths.iter().map(|path| Named::Path(path)), &AtomicBool::new(false));
        let mut lines = Vec::new();
        for input in plan.inputs {
            let twin = input.twin.map(|twin| format!(" ~ {}", twin.display())).unwrap_or_default();
            lines.push(format!("{}{twin}", input.name));
        }
        lines.extend(plan.skipped.iter().map(|note| format!("skip {}: {}", note.input, note.reason)));
        lines.extend(plan.unreadable.iter().map(|note| format!("fail {}: {}", note.input, note.reason)));
        let lines: Vec<_> = lines.iter().map(|line| line.replace(root, "%")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn directories_are_read_recursively_in_name_order() {
        check(
            &["b.log", "a.log", ".hidden", "sub/c.log", "sub/deep/d.log", "z.log"],
            |_| (),
            &["%"],
            &["%/.hidden", "%/a.log", "%/b.log", "%/sub/c.log", "%/sub/deep/d.log", "%/z.log"],
        );
    }

    #[test]
    fn paths_keep_their_order() {
        check(&["b", "a"], |_| (), &["%/b", "-", "%/a"], &["%/b", "-", "%/a"]);
    }

    #[test]
    fn archives_are_paired_with_their_file_unless_named() {
        let files = ["x.log", "x.log.gz", "y.log.zst", "z.log.1", "z.log.1.zst"];
        check(
            &files,
            |_| (),
            &["%"],
            &["%/x.log", "%/x.log.gz ~ %/x.log", "%/y.log.zst", "%/z.log.1", "%/z.log.1.zst ~ %/z.log.1"],
        );
        check(&files, |_| (), &["%/x.log.gz", "%/x.log"], &["%/x.log.gz", "%/x.log"]);
        check(&files, |_| (), &["%/*.gz"], &["%/x.log.gz"]);
    }

    #[test]
    fn a_file_is_read_once() {
        check(
            &["a", "b"],
            |root| {
                fs::hard_link(root.join("a"), root.join("c")).unwrap();
                symlink(root.join("b"), root.join("d")).unwrap();
            },
            &["%", "%/a", "-", "-"],
            &[
                "%/a",
                "%/b",
                "-",
                "skip %/c: the same file as %/a",
                "skip %/d: the same file as %/b",
                "skip %/a: the same file as %/a",
                "skip -: standard input can be read only once",
            ],
        );
    }

    #[test]
    fn link_loops_end() {
        check(
            &["sub/a"],
            |root| symlink(root, root.join("sub/up")).unwrap(),
            &["%"],
            &["%/sub/a", "skip %/sub/up: a directory that is already being read"],
        );
    }

    #[test]
    fn patterns() {
        let files = ["a.log", "b.log", "b.txt", "sub/c.log", "we[i]rd"];
        check(&files, |_| (), &["%/*.log"], &["%/a.log", "%/b.log"]);
        check(&files, |_| (), &["%/**/*.log"], &["%/a.log", "%/b.log", "%/sub/c.log"]);
        check(&files, |_| (), &["%/we[i]rd"], &["%/we[i]rd"]);
        check(&files, |_| (), &["%/*.gz"], &["fail %/*.gz: no file matches the pattern"]);
    }

    #[test]
    fn what_cannot_be_read_does_not_stop_the_rest() {
        check(
            &["a"],
            |root| symlink("nowhere", root.join("b")).unwrap(),
            &["%/missing", "%", "%/*", "%/b"],
            &[
                "%/a",
                "skip %/b: a link to something that is not there",
                "skip %/a: the same file as %/a",
                "skip %/b: a link to something that is not there",
                "fail %/missing: no such file or directory",
                "fail %/b: no such file or directory",
            ],
        );
    }

    #[test]
    fn sockets_are_skipped() {
        check(
            &["a"],
            |root| drop(std::os::unix::net::UnixListener::bind(root.join("s")).unwrap()),
            &["%"],
            &["%/a", "skip %/s: not a regular file"],
        );
    }
}
