//! Who an event is: the same request or Falco alert has the same identity however it reached us.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::{Event, Stream, Top};
use crate::scan::{Key, Node};

/// 128 bits that stand for a request or a Falco alert.
pub type Identity = [u8; 16];

/// The identity of an event. For audit it is the request's: auditID, request time, verb, URI, user and target, and neither
/// stage nor code nor place. The auditID alone would not do: clients choose it.
pub fn of(event: &Event<'_>) -> Identity {
    let mut hash = Fields(Sha256::new());
    match event.stream {
        Stream::Audit => audit(event, &mut hash),
        Stream::Falco => falco(event, &mut hash),
    }
    let digest = hash.0.finalize();
    digest[..16].try_into().expect("a SHA-256 digest has 32 bytes")
}

/// Length-prefixed fields, so that no two different sequences of fields hash alike.
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, field: Option<Cow<'_, str>>) {
        let field = field.unwrap_or_default();
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field.as_bytes());
    }
}

fn audit(event: &Event<'_>, hash: &mut Fields) {
    let text = |node: Option<Node<'_>>| node.and_then(|n| n.text().map(|t| Cow::Owned(t.into_owned())));
    hash.0.update(b"audit");
    hash.add(event.text(Top::AuditId));
    let received = event.text(Top::RequestReceivedTimestamp);
    hash.add(received.or_else(|| event.text(Top::StageTimestamp)));
    hash.add(event.text(Top::Verb));
    hash.add(event.text(Top::RequestUri));
    hash.add(text(event.user().username));
    let object = event.object_ref();
    for field in [object.group(), object.resource(), object.subresource(), object.namespace(), object.name()]
    {
        hash.add(text(field));
    }
}

fn falco(event: &Event<'_>, hash: &mut Fields) {
    hash.0.update(b"falco");
    for key in [Top::Time, Top::Rule, Top::Priority, Top::Hostname, Top::Output] {
        hash.add(event.text(key));
    }
    let members = || event.node(Top::OutputFields).into_iter().flat_map(Node::members);
    if members().nth(SORTED).is_some() {
        return hash.0.update(sum(members()));
    }
    let mut fields: Vec<_> =
        members().map(|(key, value)| (key.text().into_owned(), spelled(value))).collect();
    fields.sort_unstable();
    for (key, value) in fields {
        hash.add(Some(Cow::Owned(key)));
        hash.add(Some(Cow::Owned(value)));
    }
}

/// Output fields that are sorted. Falco writes a few dozen; of more only the sum of their hashes counts, which needs no
/// memory and no order either.
const SORTED: usize = 1024;

/// The sum of the hashes of members.
fn sum<'a>(members: impl Iterator<Item = (Key<'a>, Node<'a>)>) -> [u8; 16] {
    let one = |(key, value): (Key<'a>, Node<'a>)| {
        let mut hash = Fields(Sha256::new());
        hash.add(Some(key.text()));
        hash.add(Some(Cow::Owned(spelled(value))));
        let digest = hash.0.finalize();
        u128::from_le_bytes(digest[..16].try_into().expect("a SHA-256 digest has 32 bytes"))
    };
    members.map(one).fold(0, u128::wrapping_add).to_le_bytes()
}

/// A value as it counts for the identity: arrays item by item, so that blanks between them mean nothing.
fn spelled(value: Node<'_>) -> String {
    let plain = |node: Node<'_>| match node.text() {
        Some(text) => format!("\"{text}\""),
        None => String::from_utf8_lossy(node.raw()).into_owned(),
    };
    match value.text() {
        Some(text) => text.into_owned(),
        None => match value.items().next() {
            Some(_) => value.items().map(plain).collect::<Vec<_>>().join(","),
            None => plain(value),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Doc, Marks};
    use crate::settings::Settings;

    /// The identity of a Falco alert with these output fields.
    fn of_fields(fields: &[String]) -> Identity {
        let text = format!(r#"{{"rule":"r","priority":"Notice","output_fields":{{{}}}}}"#, fields.join(","));
        let mut marks = Marks::new();
        marks.mark(text.as_bytes());
        let settings = Settings::default();
        let mut event = Event::skim(Doc::new(text.as_bytes(), &marks).root().unwrap(), &settings);
        event.stream = Stream::Falco;
        of(&event)
    }

    #[test]
    fn the_order_of_fields_means_nothing_and_their_values_do() {
        for count in [3, SORTED, SORTED + 1, 3 * SORTED] {
            let mut fields: Vec<_> = (0..count).map(|n| format!(r#""f{n}":"v{n}""#)).collect();
            let first = of_fields(&fields);
            fields.reverse();
            assert_eq!(of_fields(&fields), first);
            fields.push(r#""g":1"#.to_owned());
            assert_ne!(of_fields(&fields), first);
            fields.pop();
            fields[1] = fields[1].replace("\"v", "\"w");
            assert_ne!(of_fields(&fields), first);
        }
    }
}
