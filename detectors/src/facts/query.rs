//! Request URIs: path and query, decoded once, as the API server (Go's `net/url`) does.

use std::borrow::Cow;

use crate::event::{Event, Top};
use crate::percent;

/// Values of parameters that are kept of one query. Headers end at 1 MiB, so that no request has more than so many commands.
const LIMIT: usize = 1 << 17;

/// The parameters that facts read. No number of others may hide them.
const READ: [&str; 12] = [
    "command",
    "cmd",
    "container",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "input",
    "labelSelector",
    "resourceVersion",
    "sendInitialEvents",
    "stdin",
    "tty",
];

/// How many of them are read in all their values. Of the others the first counts; `dryRun` may have several, but no request
/// succeeds that has different ones.
const MANY: usize = 1;

/// The query of a request URI, as far as facts read it.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(&'static str, String)>,
    /// True if there were more than [`LIMIT`] values.
    pub(super) partial: bool,
}

impl Query {
    /// The event's query, parsed once.
    pub(super) fn of<'e>(event: &'e Event<'_>) -> &'e Query {
        event.views().query.get_or_init(|| {
            let uri = event.text(Top::RequestUri).unwrap_or_default();
            let query = uri.split_once('?').map_or_else(Query::default, |(_, query)| Query::parse(query));
            if query.partial {
                event.views().hit_bound();
            }
            query
        })
    }

    /// Reads `a=b&c=d`. Like Go, it passes over parameters that hold a semicolon or a broken escape: the API server never
    /// saw those, so they may not hide or feign others.
    fn parse(text: &str) -> Query {
        let (mut query, mut seen) = (Query::default(), [false; READ.len()]);
        for pair in text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (decode(key, true), decode(value, true)) else { continue };
            let Some(place) = READ.iter().position(|name| *name == key) else { continue };
            if std::mem::replace(&mut seen[place], true) && place >= MANY {
                continue;
            }
            if query.pairs.len() == LIMIT {
                query.partial = true;
                break;
            }
            query.pairs.push((READ[place], value.into_owned()));
        }
        query
    }

    /// The first value of a parameter.
    pub(super) fn first(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter, in order.
    pub(super) fn all<'q>(&'q self, key: &'q str) -> impl Iterator<Item = &'q str> {
        self.pairs.iter().filter(move |(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// A boolean parameter as `k8s.io/apimachinery` converts it: there, and its first value neither `false` nor `0`.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.first(key).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

/// Percent-decodes once; with `plus`, a plus sign is a space. `None` if an escape is broken; bytes that are not UTF-8 become
/// U+FFFD.
pub(super) fn decode(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    let (decoded, valid) = percent::decode(text, plus);
    valid.then_some(decoded)
}

/// The path of a request URI, percent-decoded once; as it is if an escape is broken.
pub(super) fn path<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    let path = match event.text(Top::RequestUri)? {
        Cow::Borrowed(uri) => Cow::Borrowed(uri.split_once('?').map_or(uri, |(path, _)| path)),
        Cow::Owned(mut uri) => {
            uri.truncate(uri.find('?').unwrap_or(uri.len()));
            Cow::Owned(uri)
        }
    };
    Some(match path {
        Cow::Borrowed(path) => decode(path, false).unwrap_or(Cow::Borrowed(path)),
        Cow::Owned(path) => Cow::Owned(decode(&path, false).map_or_else(|| path.clone(), Cow::into_owned)),
    })
}

/// A path without empty segments, `.` and `..`, as Go's `path.Clean` gives it; a relative path stays relative.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            segment => kept.push(segment),
        }
    }
    let joined = kept.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn cleans(path: &str, expected: &str) {
        assert_eq!(clean(path), expected);
    }

    #[test]
    fn paths_are_cleaned() {
        cleans("/", "/");
        cleans("//etc/./kubernetes//", "/etc/kubernetes");
        cleans("/var/../etc/../..", "/");
        cleans("../x/..", "..");
        cleans("", ".");
    }

    #[track_caller]
    fn decodes(text: &str, expected: Option<&str>) {
        assert_eq!(decode(text, true).as_deref(), expected);
    }

    #[test]
    fn decoding_happens_once_and_refuses_broken_escapes() {
        decodes("a+b%20c%2B", Some("a b c+"));
        decodes("%2525", Some("%25"));
        decodes("%", None);
        decodes("%2", None);
        decodes("%zz", None);
        decodes("%ff", Some("\u{fffd}"));
    }

    #[test]
    fn what_go_does_not_read_is_not_read() {
        let query =
            Query::parse("command=ls;x&command=%zz&command=sh&&tty&stdin=0&container=b=c&container=d&a");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh"]);
        assert!(query.flag("tty"));
        assert!(!query.flag("stdin"));
        assert_eq!(query.all("container").collect::<Vec<_>>(), ["b=c"]);
    }

    #[test]
    fn no_number_of_parameters_hides_one_that_is_read() {
        let query = Query::parse(&format!("{}command=sh", "a&tty&".repeat(LIMIT)));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh"]);
        let query = Query::parse(&format!("{}command=sh", "command&".repeat((1 << 20) / 8 - 2)));
        assert_eq!(query.all("command").last(), Some("sh"));
        assert!(!query.partial);
    }
}
