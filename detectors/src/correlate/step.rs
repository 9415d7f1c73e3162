//! Steps as bytes: what one match of a member means to one correlation rule, packed so that it can be sorted, spilled and
//! sent. The form is private to Lapwing; a live run keeps steps over a restart, and knows by [`FORM`] that they are still of
//! this one. The group key in it is what alert ids are made of ([`super::report::uuid`]): it must not change.
//!
//! ```text
//! rule member identity[16] counted[8] group:(n text*) place:(input offset length sha256[32] audit_id?) shown:(n text?*)
//! ```
//! Numbers are LEB128, texts are length and bytes, optional texts are length + 1 (0: none) and bytes. The member is a byte,
//! whose highest bit says that the step is inexact. A group-by value that must not be shown stands there as its digest.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::rule::Rule;
use crate::bytes::{hex, put_number, take_number};
use crate::engine::Step;
use crate::event::identity::Identity;
use crate::event::time::Nanos;
use crate::redact::REDACTED;
use crate::value::Value;

/// The form of steps: to be counted up when it changes.
pub(crate) const FORM: u8 = 2;

/// Where the event behind a step lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The input's name.
    pub input: &'a str,
    /// Byte offset of the record.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// The request's auditID.
    pub audit_id: Option<&'a str>,
}

/// Texts longer than this are cut; what was cut is told apart by a hash.
const LONGEST: usize = 256;

/// Begins the digest of a group-by value that tells groups apart and is not to be shown.
const VEILED: char = '\0';

/// Set in a member's byte if the step was derived from a firing that may be wrong. Members are fewer than this.
const INEXACT: u8 = 0x80;

/// What may be shown of a value.
pub(super) fn visible(value: &str) -> &str {
    if value.starts_with(VEILED) { REDACTED } else { value }
}

/// The digests of a packed group's values, which are the same whether they are shown or not: what is hidden changes no id.
pub(super) fn digests(group: &[u8]) -> String {
    let values = group_values(group).into_iter();
    let digest = |value: &str| value.strip_prefix(VEILED).map_or_else(|| digest(value), str::to_owned);
    values.map(digest).collect()
}

fn digest(value: &str) -> String {
    hex(&Sha256::digest(value.as_bytes()))
}

/// Makes the steps of one member of one rule.
#[derive(Debug, Clone)]
pub struct StepBuilder {
    rule: u32,
    member: u8,
    groups: usize,
    counted: usize,
    shown: usize,
}

impl StepBuilder {
    /// The builder for `rules[rule].members[member]`.
    pub fn new(rules: &[Rule], rule: u32, member: u8) -> StepBuilder {
        let r = &rules[rule as usize];
        StepBuilder {
            rule,
            member,
            groups: r.group_by.len(),
            counted: r.counted().len(),
            shown: r.shown().len(),
        }
    }

    /// The value of a field whose value is not to be shown: groups are told apart by it, and it is counted.
    pub(crate) fn veiled(&self, field: usize, value: &str, shown: &str) -> String {
        match field {
            _ if value.is_empty() => String::new(),
            _ if field < self.groups => format!("{VEILED}{}", digest(&capped(value))),
            _ if field < self.groups + self.counted => value.to_owned(),
            _ => shown.to_owned(),
        }
    }

    /// Packs a match. `get` yields the value of each of [`Rule::fields_for`], by index.
    ///
    /// None if the event does not join: a group-by value that is absent, unknown or empty does not make a group (two unknown
    /// actors are not one actor), and without any counted value there is nothing to count.
    ///
    /// Group-by values and shown values end up in alerts: `get` must have scrubbed them. Counted values are only hashed.
    pub fn build<'v>(
        &self,
        time: Nanos,
        identity: &Identity,
        place: &Place<'_>,
        mut get: impl FnMut(usize) -> Value<'v>,
    ) -> Option<Step> {
        let mut group = Vec::with_capacity(64);
        put_number(&mut group, self.groups as u64);
        for i in 0..self.groups {
            let value = get(i);
            let text = value.display();
            if text.is_empty() {
                return None;
            }
            put_text(&mut group, &capped(&text));
        }
        let mut counted = Values::default();
        for i in self.groups..self.groups + self.counted {
            counted.add(&get(i).display());
        }
        if self.counted > 0 && !counted.any {
            return None;
        }
        let mut note = Vec::with_capacity(160);
        put_place(&mut note, place);
        let first = self.groups + self.counted;
        put_number(&mut note, self.shown as u64);
        for i in first..first + self.shown {
            let value = get(i);
            let text = value.display();
            put_maybe(&mut note, (!text.is_empty()).then_some(&capped(&text)));
        }
        let packed = Packed {
            rule: self.rule,
            member: self.member,
            inexact: false,
            identity: *identity,
            counted: counted.hash(),
            group: &group,
            note: &note,
        };
        Some(Step { time, bytes: packed.write() })
    }
}

/// A step's bytes, taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Packed<'a> {
    pub(super) rule: u32,
    pub(super) member: u8,
    pub(super) inexact: bool,
    pub(super) identity: Identity,
    pub(super) counted: u64,
    /// The group-by values, packed.
    pub(super) group: &'a [u8],
    /// Place and shown values, packed.
    pub(super) note: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Takes bytes apart. None if they are not a step's.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Packed<'a>> {
        let mut r = Reader(bytes);
        let rule = u32::try_from(r.number()?).ok()?;
        let byte = r.take(1)?[0];
        let (member, inexact) = (byte & !INEXACT, byte & INEXACT != 0);
        let identity = r.take(16)?.try_into().ok()?;
        let counted = u64::from_le_bytes(r.take(8)?.try_into().ok()?);
        let from = r.0;
        for _ in 0..r.number()? {
            r.text()?;
        }
        let group = &from[..from.len() - r.0.len()];
        let note = r.0;
        Note::read(note)?;
        Some(Packed { rule, member, inexact, identity, counted, group, note })
    }
}

impl Packed<'_> {
    /// The bytes of such a step.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.group.len() + self.note.len() + 32);
        put_number(&mut bytes, u64::from(self.rule));
        bytes.push(self.member | if self.inexact { INEXACT } else { 0 });
        bytes.extend_from_slice(&self.identity);
        bytes.extend_from_slice(&self.counted.to_le_bytes());
        bytes.extend_from_slice(self.group);
        bytes.extend_from_slice(self.note);
        bytes
    }
}

/// What an alert shows of one event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note<'a> {
    pub(super) place: Place<'a>,
    pub(super) shown: Vec<Option<&'a str>>,
}

impl<'a> Note<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Option<Note<'a>> {
        let mut r = Reader(bytes);
        let (input, offset, length) = (r.text()?, r.number()?, r.number()?);
        let sha256 = r.take(32)?.try_into().ok()?;
        let audit_id = r.maybe()?;
        let shown = (0..r.number()?).map(|_| r.maybe()).collect::<Option<_>>()?;
        r.0.is_empty().then_some(Note { place: Place { input, offset, length, sha256, audit_id }, shown })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        put_place(&mut out, &self.place);
        put_number(&mut out, self.shown.len() as u64);
        for text in &self.shown {
            put_maybe(&mut out, text.as_ref());
        }
        out
    }
}

/// The group-by values in a packed group.
pub(super) fn group_values(group: &[u8]) -> Vec<&str> {
    let mut r = Reader(group);
    let n = r.number().unwrap_or(0);
    (0..n).map_while(|_| r.text()).collect()
}

/// Packs group-by values.
pub(super) fn pack_group<'t>(values: impl ExactSizeIterator<Item = &'t str>) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, values.len() as u64);
    values.for_each(|v| put_text(&mut out, v));
    out
}

/// Hashes the values of the counted fields into one.
#[derive(Default)]
pub(super) struct Values {
    hash: Sha256,
    any: bool,
}

impl Values {
    pub(super) fn add(&mut self, text: &str) {
        let text = capped(text);
        self.any |= !text.is_empty();
        self.hash.update((text.len() as u64).to_le_bytes());
        self.hash.update(text.as_bytes());
    }

    pub(super) fn hash(self) -> u64 {
        if !self.any {
            return 0;
        }
        let digest = self.hash.finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
    }
}

fn capped(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST {
        return Cow::Borrowed(text);
    }
    let digest = Sha256::digest(text.as_bytes());
    let head = &text[..text.floor_char_boundary(LONGEST - 20)];
    Cow::Owned(format!("{head}...{}", hex(&digest[..8])))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_maybe(out: &mut Vec<u8>, text: Option<impl AsRef<str>>) {
    let Some(text) = text else { return out.push(0) };
    let text = text.as_ref();
    put_number(out, text.len() as u64 + 1);
    out.extend_from_slice(text.as_bytes());
}

fn put_place(out: &mut Vec<u8>, place: &Place<'_>) {
    put_text(out, place.input);
    put_number(out, place.offset);
    put_number(out, place.length);
    out.extend_from_slice(&place.sha256);
    put_maybe(out, place.audit_id.map(capped));
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self) -> Option<u64> {
        take_number(&mut self.0)
    }

    fn text(&mut self) -> Option<&'a str> {
        let n = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(n)?).ok()
    }

    #[allow(clippy::option_option)] // damaged, none, some
    fn maybe(&mut self) -> Option<Option<&'a str>> {
        match self.number()? {
            0 => Some(None),
            n => {
                let n = usize::try_from(n - 1).ok()?;
                Some(Some(std::str::from_utf8(self.take(n)?).ok()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_texts_are_cut_and_told_apart() {
        let (a, b) = ("é".repeat(500) + "a", "é".repeat(500) + "b");
        assert!(capped(&a).len() <= LONGEST);
        assert_ne!(capped(&a), capped(&b));
        assert_eq!(capped(&a), capped(&a.clone()));
        assert_eq!(capped("short"), "short");
    }

    #[test]
    fn values_are_told_apart_by_field() {
        let hash = |fields: &[&str]| {
            let mut values = Values::default();
            for field in fields {
                values.add(field);
            }
            values.hash()
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["", "a"]), hash(&["a", ""]));
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
    }

    proptest! {
        #[test]
        fn notes_survive_packing(
            input in "\\PC{0,40}",
            offset: u64,
            length: u64,
            sha256: [u8; 32],
            audit_id in proptest::option::of("[a-z0-9-]{0,40}"),
            shown in proptest::collection::vec(proptest::option::of("\\PC{0,12}"), 0..5),
        ) {
            let note = Note {
                place: Place { input: &input, offset, length, sha256, audit_id: audit_id.as_deref() },
                shown: shown.iter().map(Option::as_deref).collect(),
            };
            let bytes = note.write();
            prop_assert_eq!(Note::read(&bytes), Some(note));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Note::read(&bytes[..cut]), None);
            }
        }

        #[test]
        fn any_bytes_are_harmless(bytes: Vec<u8>) {
            let _ = Packed::read(&bytes);
        }
    }
}
