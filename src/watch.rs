//! Whether the files of the configuration have changed, told by looking at them now and then: it works on every mount, and
//! follows the links that Kubernetes swaps when a ConfigMap changes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What is looked at of a file.
type Mark = (PathBuf, u64, u64, i64, i64, u64);

/// The files that a configuration is made of, as they were.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    marks: Vec<Mark>,
}

/// How many files are looked at.
const MOST: usize = 10_000;

impl Watch {
    /// Files and folders as they are now.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Watch {
        Watch { marks: marks(&paths), paths }
    }

    /// True if something has changed since it was asked last.
    pub(crate) fn changed(&mut self) -> bool {
        let now = marks(&self.paths);
        let changed = now != self.marks;
        self.marks = now;
        changed
    }
}

fn marks(paths: &[PathBuf]) -> Vec<Mark> {
    let mut marks = Vec::new();
    for path in paths {
        collect(path, 0, &mut marks);
    }
    marks.sort();
    marks
}

fn collect(path: &Path, depth: usize, marks: &mut Vec<Mark>) {
    // What is not there is no mark: that it comes or goes is a change.
    let Ok(meta) = std::fs::metadata(path) else { return };
    if marks.len() >= MOST || depth > 8 {
        return;
    }
    marks.push((path.to_owned(), meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()));
    if meta.is_dir()
        && let Ok(entries) = std::fs::read_dir(path)
    {
        for entry in entries.flatten() {
            collect(&entry.path(), depth + 1, marks);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new, link) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("data"));
        for version in [&old, &new] {
            fs::create_dir(version).unwrap();
            fs::write(version.join("lapwing.yaml"), "cluster: a\n").unwrap();
        }
        symlink(&old, &link).unwrap();
        let mut watch = Watch::new(vec![link.join("lapwing.yaml")]);
        assert!(!watch.changed());
        fs::remove_file(&link).unwrap();
        assert!(watch.changed(), "it is gone");
        symlink(&new, &link).unwrap();
        assert!(watch.changed() && !watch.changed(), "the link leads elsewhere");
        fs::write(new.join("lapwing.yaml"), "cluster: ab\n").unwrap();
        assert!(watch.changed());
    }

    #[test]
    fn folders_are_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(vec![folder.path().to_owned()]);
        fs::write(folder.path().join("rule.yml"), "").unwrap();
        assert!(watch.changed() && !watch.changed());
    }
}
