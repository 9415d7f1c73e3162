//! The files that a live file has become: found beside it by their names, and put in order.
//!
//! Known are the names that kube-apiserver's lumberjack (`audit-2026-03-01T10-00-00.123.log`), logrotate (`audit.log.1`,
//! `audit.log-20260301`, `audit-20260301.log`, `audit.1.log`) and the kubelet (`0.log.20260301-100000`) give, each also with
//! `.gz` or `.zst` behind it. What is called otherwise but begins like the live file is looked at only to find a generation
//! whose content is known: a copy that somebody made by hand.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use chrono::{NaiveDate, NaiveTime};

use super::generation::millis;
use super::identity::Inode;

/// How often a directory is listed again because it changed meanwhile.
const LISTINGS: usize = 8;
/// More files than that beside a live file are not looked at: the oldest by name are left out.
const MOST: usize = 4096;

/// A file that holds, or may hold, a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) rank: Rank,
    /// When it was last modified, in milliseconds since 1970.
    pub(super) modified: i64,
}

/// What a name says about a file's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// A time stands in it, in milliseconds since 1970, exact or the beginning of a day or an hour; and a number, the higher
    /// the older.
    Time { at: i64, exact: bool, number: u32 },
    /// A number stands in it: the higher, the older.
    Number(u32),
    /// It says nothing.
    Other,
    /// It is the live file.
    Live,
}

impl Sibling {
    /// When the last of it was written, at the latest. An archive may have been made later than that, so that a name that
    /// tells the moment of the rotation is better than the time of the file.
    pub(super) fn written(&self) -> i64 {
        match self.rank {
            Rank::Time { at, exact: true, .. } if is_archive(self.path.as_os_str().as_bytes()) => at,
            _ => self.modified,
        }
    }

    /// True if its name says that it is a generation of the live file.
    #[cfg(test)]
    fn is_ranked(&self) -> bool {
        self.rank != Rank::Other
    }
}

/// All generations that lie beside `path`, oldest first, the live file at the end if there is one. The listing is repeated
/// until two are alike, because a name that is changed meanwhile may be missed.
pub(super) fn list(path: &Path) -> io::Result<Vec<Sibling>> {
    let mut last = once(path)?;
    for _ in 0..LISTINGS {
        let again = once(path)?;
        if again == last {
            break;
        }
        last = again;
    }
    #[cfg(test)]
    super::tests::meanwhile();
    Ok(last)
}

fn once(path: &Path) -> io::Result<Vec<Sibling>> {
    let mut found = Vec::new();
    let live = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Some(Inode::of(&metadata)),
        _ => None,
    };
    // Behind a link, the generations may lie beside the link or beside what it leads to.
    let real = fs::canonicalize(path).ok().filter(|real| real != path);
    for base in [Some(path), real.as_deref()].into_iter().flatten() {
        beside(base, &mut found)?;
    }
    found.retain(|sibling: &Sibling| Some(sibling.inode) != live);
    if found.iter().all(|sibling| matches!(sibling.rank, Rank::Number(_) | Rank::Other)) {
        found.sort_by_key(|sibling| match sibling.rank {
            Rank::Number(number) => (1, i64::from(u32::MAX - number), sibling.path.clone()),
            _ => (0, sibling.modified, sibling.path.clone()),
        });
    } else {
        found.sort_by_key(|sibling| match sibling.rank {
            Rank::Time { at, number, .. } => (at, u32::MAX - number, sibling.path.clone()),
            Rank::Number(number) => (sibling.modified, u32::MAX - number, sibling.path.clone()),
            _ => (sibling.modified, 0, sibling.path.clone()),
        });
    }
    let mut met = HashSet::new();
    found.retain(|sibling| met.insert(sibling.inode));
    found.drain(..found.len().saturating_sub(MOST));
    if let (Some(inode), Ok(metadata)) = (live, fs::metadata(path)) {
        let path = path.to_path_buf();
        found.push(Sibling { path, inode, rank: Rank::Live, modified: millis(&metadata) });
    }
    Ok(found)
}

/// Adds the files beside `base` whose names begin like it. An archive beside the file that it is being made of is left out.
fn beside(base: &Path, found: &mut Vec<Sibling>) -> io::Result<()> {
    let (Some(name), Some(folder)) = (base.file_name(), base.parent()) else { return Ok(()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut names = HashSet::new();
    for entry in fs::read_dir(folder)? {
        let other = entry?.file_name();
        if other != name && rank(name.as_bytes(), other.as_bytes()).is_some() {
            names.insert(other);
        }
    }
    for other in &names {
        let Some(rank) = rank(name.as_bytes(), other.as_bytes()) else { continue };
        let path = folder.join(other);
        let plain = path.with_extension("");
        let unfinished = is_archive(other.as_bytes())
            && plain.file_name().is_some_and(|plain| plain != name && names.contains(plain));
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() && !unfinished => metadata,
            _ => continue,
        };
        found.push(sibling(path, &metadata, rank));
    }
    Ok(())
}

fn sibling(path: PathBuf, metadata: &Metadata, rank: Rank) -> Sibling {
    let modified = millis(metadata);
    Sibling { path, inode: Inode::of(metadata), rank, modified }
}

fn is_archive(name: &[u8]) -> bool {
    name.ends_with(b".gz") || name.ends_with(b".zst")
}

/// What the name of a file says about its age, if it begins like `live`, the name of the live file.
pub(super) fn rank(live: &[u8], name: &[u8]) -> Option<Rank> {
    let bare = name.strip_suffix(b".gz").or_else(|| name.strip_suffix(b".zst")).unwrap_or(name);
    let separated = |rest: &[u8]| rest.first().is_some_and(|byte| b".-_".contains(byte));
    if let Some(rest) = bare.strip_prefix(live) {
        return match rest {
            // The live file's own archive: somebody packed it by hand.
            b"" => Some(Rank::Other),
            _ if separated(rest) => Some(tell(&rest[1..], 0)),
            _ => None,
        };
    }
    let dot = live.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
    let (stem, ending) = live.split_at(dot);
    let rest = bare.strip_prefix(stem).filter(|rest| separated(rest))?;
    if let Some(middle) = rest.strip_suffix(ending) {
        return Some(if middle.is_empty() { Rank::Other } else { tell(&middle[1..], 0) });
    }
    // audit-2026-03-01T10-00-00.123.log.1
    let last = rest.iter().rposition(|byte| *byte == b'.')?;
    let middle = rest[..last].strip_suffix(ending).filter(|middle| !middle.is_empty())?;
    Some(tell(&middle[1..], number(&rest[last + 1..])?))
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok().filter(|digits| digits.len() < 6)?.parse().ok()
}

/// What the part of a name says that the rotation has put in.
fn tell(part: &[u8], after: u32) -> Rank {
    if let Some(number) = number(part) {
        return Rank::Number(number);
    }
    // logrotate puts a number behind a date, too.
    let (date, behind) = match part.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if number(&part[dot + 1..]).is_some() && moment(part).is_none() => {
            (&part[..dot], number(&part[dot + 1..]).unwrap_or(after))
        }
        _ => (part, after),
    };
    match moment(date) {
        Some((at, exact)) => Rank::Time { at, exact, number: behind },
        None => Rank::Other,
    }
}

/// Reads a time: digits from the year to, at most, the milliseconds, in groups or not; or seconds since 1970. It is exact if
/// it goes to the milliseconds, as lumberjack's, which is in UTC; logrotate's is local and only good for putting in order.
fn moment(part: &[u8]) -> Option<(i64, bool)> {
    if !part.iter().all(|byte| byte.is_ascii_digit() || b"-_.:TZ".contains(byte)) {
        return None;
    }
    let digits: String =
        part.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
    if digits.len() == 10 && digits.starts_with('1') {
        return Some((digits.parse::<i64>().ok()? * 1000, false));
    }
    if !matches!(digits.len(), 8 | 10 | 12 | 14 | 17) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |digits| digits.parse().ok());
    let date = NaiveDate::from_ymd_opt(i32::try_from(part(0, 4)?).ok()?, part(4, 6)?, part(6, 8)?)?;
    let time = NaiveTime::from_hms_milli_opt(part(8, 10)?, part(10, 12)?, part(12, 14)?, part(14, 17)?)?;
    Some((date.and_time(time).and_utc().timestamp_millis(), digits.len() == 17))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts the names into order, as if all had been written at the same time.
    fn check(live: &str, names: &[&str], expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
            let file = fs::File::options().write(true).open(folder.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        let found = list(&folder.path().join(live)).unwrap();
        let found: Vec<String> = found
            .iter()
            .map(|sibling| {
                let mark = if sibling.is_ranked() { "" } else { "?" };
                format!("{}{mark}", sibling.path.file_name().unwrap().display())
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lumberjack() {
        check(
            "audit.log",
            &[
                "audit-2026-03-01T10-00-00.124.log",
                "audit.log",
                "audit-2026-03-01T10-00-00.123.log.gz",
                "audit-2026-02-28T23-59-59.999.log",
                "audit2.log",
                "other.log",
            ],
            &[
                "audit-2026-02-28T23-59-59.999.log",
                "audit-2026-03-01T10-00-00.123.log.gz",
                "audit-2026-03-01T10-00-00.124.log",
                "audit.log",
            ],
        );
    }

    #[test]
    fn logrotate() {
        check(
            "audit.log",
            &["audit.log", "audit.log.1", "audit.log.10.gz", "audit.log.2.zst"],
            &["audit.log.10.gz", "audit.log.2.zst", "audit.log.1", "audit.log"],
        );
        check(
            "audit.log",
            &["audit.log-20260302", "audit.log-20260301.gz", "audit.log"],
            &["audit.log-20260301.gz", "audit.log-20260302", "audit.log"],
        );
        check(
            "audit.log",
            &["audit-20260302.log", "audit-20260301.log"],
            &["audit-20260301.log", "audit-20260302.log"],
        );
        check("audit.log", &["audit.1.log", "audit.2.log"], &["audit.2.log", "audit.1.log"]);
        check(
            "audit.log",
            &["audit.log-1772359200", "audit.log-1772359100"],
            &["audit.log-1772359100", "audit.log-1772359200"],
        );
    }

    #[test]
    fn other_rotations() {
        check(
            "0.log",
            &["0.log.20260301-100000", "0.log.20260301-090000.gz", "0.log"],
            &["0.log.20260301-090000.gz", "0.log.20260301-100000", "0.log"],
        );
        check(
            "audit.log",
            &["audit-2026-03-01T10-00-00.123.log.1.gz", "audit-2026-03-01T10-00-00.123.log.2"],
            &["audit-2026-03-01T10-00-00.123.log.2", "audit-2026-03-01T10-00-00.123.log.1.gz"],
        );
        check("audit", &["audit.1", "audit.2.gz", "audit"], &["audit.2.gz", "audit.1", "audit"]);
    }

    #[test]
    fn an_archive_beside_its_file_is_unfinished() {
        check("audit.log", &["audit.log.1", "audit.log.1.gz", "audit.log"], &["audit.log.1", "audit.log"]);
    }

    #[test]
    fn other_names_are_only_candidates() {
        check(
            "audit.log",
            &["audit.log.bak", "audit.log.lock", "audit-webhook.log"],
            &["audit-webhook.log?", "audit.log.bak?", "audit.log.lock?"],
        );
    }
}
