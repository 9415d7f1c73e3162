//! The scanner against a loop over bytes, and against `serde_json`.
#![no_main]

use detectors::scan::{Doc, Health, Kind, Marks, Node};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// What the kernel says of the first line, one byte at a time.
fn naive(bytes: &[u8]) -> (usize, Health) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (mut health, mut inside, mut escaped) = (Health::default(), false, false);
    for byte in &bytes[..end] {
        health.non_ascii |= *byte >= 0x80;
        health.control |= inside && *byte < 0x20;
        if *byte == b'"' && !escaped {
            inside = !inside;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    health.open_string = inside;
    (end, health)
}

/// What is a document to `serde_json` is the same to the cursor.
fn agrees(node: Node<'_>, value: &Value, depth: usize) {
    assert!(node.complete());
    match value {
        Value::Object(map) => {
            assert_eq!(node.kind(), Kind::Object);
            let mut names = 0;
            let mut members = node.members();
            for (key, _) in members.by_ref() {
                assert!(map.contains_key(&*key.text()));
                names += 1;
            }
            assert!(!members.damaged() && names >= map.len());
            for (name, value) in map.iter().filter(|_| depth > 0) {
                agrees(node.get(name).expect("the member is there"), value, depth - 1);
            }
        }
        Value::Array(list) => {
            assert_eq!(node.kind(), Kind::Array);
            let mut items = node.items();
            for value in list {
                let item = items.next().expect("the item is there");
                if depth > 0 {
                    agrees(item, value, depth - 1);
                }
            }
            assert!(items.next().is_none() && !items.damaged());
        }
        Value::String(text) => assert_eq!(node.text().as_deref(), Some(text.as_str())),
        Value::Bool(truth) => assert_eq!(node.as_bool(), Some(*truth)),
        Value::Number(number) => assert!(number.as_i64().is_none_or(|n| node.as_i64() == Some(n))),
        Value::Null => assert!(node.is_null()),
    }
}

/// Spans nest and go forward, whatever the bytes are.
fn nests(root: Node<'_>) {
    let mut open = vec![root];
    for _ in 0..2_000 {
        let Some(node) = open.pop() else { return };
        let _ = (node.text(), node.text_so_far(), node.as_f64(), node.as_whole(), node.raw());
        let mut at = node.start();
        let members = node.members().map(|(key, value)| {
            let _ = (key.text(), key.is("verb"));
            value
        });
        for child in members.chain(node.items()) {
            assert!(at <= child.start() && child.start() <= child.end() && child.end() <= node.end());
            at = child.end();
            open.push(child);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut marks = Marks::new();
    assert_eq!(marks.mark_line(bytes, 0), naive(bytes));
    let line = &bytes[..naive(bytes).0];
    Doc::new(line, &marks).root().into_iter().for_each(nests);
    marks.mark(bytes);
    let root = Doc::new(bytes, &marks).root();
    root.into_iter().for_each(nests);
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        agrees(root.expect("a value is there"), &value, 64);
    }
});
