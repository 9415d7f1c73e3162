//! The scanner against `serde_json` and against itself, and what hostile bytes must not do.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::*;

const EVENT: &str = concat!(
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"0b7c6a2e-6a53-4f0e","#,
    r#""stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/pods?fieldManager=kubectl","verb":"create","#,
    r#""user":{"username":"dana","groups":["devs","system:authenticated"],"extra":{"a":["b"]}},"#,
    r#""sourceIPs":["203.0.113.9","10.0.4.2"],"userAgent":"kubectl/v1.34.0 (linux/amd64) \"quoted\" \\","#,
    r#""objectRef":{"resource":"pods","namespace":"shop","name":"web","apiVersion":"v1"},"#,
    r#""responseStatus":{"metadata":{},"code":201},"requestObject":{"kind":"Pod","spec":{"containers":[{"name":"c","#,
    r#""image":"nginx","args":["{\"a\":[1,2,{}]}","]}"],"securityContext":{"privileged":true}}],"x":[[],[[]],{}]}},"#,
    r#""requestReceivedTimestamp":"2026-03-01T10:00:00.000001Z","annotations":{"authorization.k8s.io/reason":""},"#,
    r#""n":-1.5e3,"t":true,"f":false,"z":null}"#,
);

/// Marks `bytes` as one document with each kernel, and calls `judge` with each.
fn each_doc(bytes: &[u8], judge: impl Fn(Doc<'_>)) {
    for kernel in Kernel::all() {
        let mut marks = Marks { kernel, ..Marks::new() };
        marks.mark(bytes);
        judge(Doc::new(bytes, &marks));
    }
}

/// The members of an object in order, duplicates included, as `serde_json` sees them.
struct Expected<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Expected<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Expected<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Expected(members))
            }
        }
        from.deserialize_map(Visit)
    }
}

/// `serde_json` reads the same from the node's bytes, all the way down.
fn agrees(doc: Doc<'_>, node: Node<'_>, raw: &RawValue) {
    let text = raw.get();
    assert_eq!(node.raw(), text.as_bytes());
    assert!(node.complete());
    assert_eq!(doc.node_at(node.start(), node.end()).raw(), node.raw());
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    match node.kind() {
        Kind::Object => {
            assert!(value.is_object());
            let Expected(expected) = serde_json::from_str(text).unwrap();
            let mut members = node.members();
            for (name, raw) in &expected {
                let (key, child) = members.next().unwrap();
                assert_eq!(key.text(), *name);
                assert!(key.is(name));
                agrees(doc, child, raw);
                let (_, last) = expected.iter().rfind(|(other, _)| other == name).unwrap();
                assert_eq!(node.get(name).unwrap().raw(), last.get().as_bytes());
            }
            assert!(members.next().is_none() && members.next().is_none() && !members.damaged());
        }
        Kind::Array => {
            let expected: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            let mut items = node.items();
            for raw in expected {
                agrees(doc, items.next().unwrap(), raw);
            }
            assert!(items.next().is_none() && items.next().is_none() && !items.damaged());
        }
        Kind::String => assert_eq!(node.text().as_deref(), value.as_str()),
        Kind::Number => {
            assert_eq!(node.as_f64(), text.parse().ok());
            assert!(value.as_i64().is_none_or(|number| node.as_i64() == Some(number)));
        }
        Kind::True | Kind::False => assert_eq!(node.as_bool(), value.as_bool()),
        Kind::Null => assert!(node.is_null() && value.is_null()),
        Kind::Invalid => panic!("{text} is valid"),
    }
}

/// Walks everything, values within values, and checks that spans nest and go forward. Returns true if no walk was
/// damaged and no value unsound.
fn sound(doc: Doc<'_>) -> bool {
    let mut sound = true;
    let mut open: Vec<Node<'_>> = doc.root().into_iter().collect();
    let mut budget = 2_000;
    while let Some(node) = open.pop() {
        assert!(node.start() <= node.end() && node.end() as usize <= doc.bytes().len());
        sound &= node.kind() != Kind::Invalid && node.complete();
        let _ = (node.text(), node.as_f64(), node.as_i64(), node.str_raw());
        let mut at = node.start() + 1;
        let mut visit = |child: Node<'_>| {
            assert!(at <= child.start() && child.start() <= child.end() && child.end() <= node.end());
            at = child.end();
        };
        let (mut members, mut items) = (node.members(), node.items());
        for (_, child) in members.by_ref() {
            visit(child);
            open.push(child);
        }
        for child in items.by_ref() {
            visit(child);
            open.push(child);
        }
        sound &= !members.damaged() && !items.damaged();
        budget -= 1;
        if budget == 0 {
            break;
        }
    }
    sound
}

/// What the marks should be, byte by byte.
fn naive(bytes: &[u8]) -> (Vec<Block>, Health) {
    let mut blocks = vec![Block::default(); bytes.len().div_ceil(BLOCK)];
    let mut health = Health::default();
    let (mut inside, mut escape, mut depth) = (false, false, 0);
    for (at, &byte) in bytes.iter().enumerate() {
        let bit = 1 << (at % BLOCK);
        let block = &mut blocks[at / BLOCK];
        if at % BLOCK == 0 {
            *block = Block { depth, floor: depth, ..Block::default() };
        }
        health.non_ascii |= byte >= 0x80;
        health.control |= inside && byte < 0x20;
        let escaped = escape;
        escape = byte == b'\\' && !escaped;
        match byte {
            b'"' if !escaped => {
                block.quotes |= bit;
                inside = !inside;
            }
            b'{' | b'[' if !inside => {
                block.opens |= bit;
                depth += 1;
            }
            b'}' | b']' if !inside => {
                block.closes |= bit;
                block.floor -= 1;
                depth -= 1;
            }
            _ => {}
        }
    }
    blocks.push(Block { depth, floor: depth, ..Block::default() });
    (blocks, Health { open_string: inside, ..health })
}

/// Every kernel marks as the naive model does, as a document and as a line, also in a buffer that was used before.
fn marks_agree(bytes: &[u8]) {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    for kernel in Kernel::all() {
        let mut marks = Marks { kernel, ..Marks::new() };
        marks.mark(&[b'"'; 200]);
        let health = marks.mark(bytes);
        assert_eq!((marks.blocks().to_vec(), health), naive(bytes), "{kernel:?}");
        let (end, health) = marks.mark_line(bytes, 0);
        assert_eq!(end, line.len());
        assert_eq!((marks.blocks().to_vec(), health), naive(line), "{kernel:?}");
    }
}

/// JSON text: blanks, escapes, duplicates and all.
fn json() -> impl Strategy<Value = String> {
    let blank = || select(vec!["", "", "", "", " ", "\n", "\t\r\n  "]);
    let piece = select(vec![
        "a",
        "b",
        "key",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\u0041",
        "\\u00e9",
        "\\ud83d\\ude00",
        "é",
        "字",
        "🦆",
        "{",
        "]",
        ",",
        ":",
        " ",
        "\\\\\\\"",
        "a long stretch of plain text without anything in it, to fill a block",
    ]);
    let string = vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()));
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        select(vec!["0", "-0", "0.5", "1E+2", "-12.25e-3", "18446744073709551616"]).prop_map(String::from),
    ];
    let literal = select(vec!["true", "false", "null", "{}", "[]", "[ ]"]).prop_map(String::from);
    let leaf = prop_oneof![3 => string.clone(), 1 => number, 1 => literal];
    let value = leaf.prop_recursive(6, 80, 8, move |inner| {
        let element = (blank(), inner.clone(), blank()).prop_map(|(a, b, c)| format!("{a}{b}{c}"));
        let member = (blank(), string.clone(), blank(), blank(), inner, blank())
            .prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"));
        prop_oneof![
            vec(element, 1..6).prop_map(|items| format!("[{}]", items.join(","))),
            vec(member, 1..6).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    });
    (blank(), value, blank()).prop_map(|(a, b, c)| format!("{a}{b}{c}"))
}

/// Bytes that look like JSON more often than not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\"",
        ",",
        ":",
        "\\",
        " ",
        "\n",
        "\t",
        "1",
        "-",
        ".",
        "e",
        "0",
        "true",
        "nul",
        "é",
        "\"a\":",
        "\"b\":",
        ",\"",
        "\":",
        "{\"a\":1,",
        "\\u00",
        "\\ud800",
        "\0",
        "    ",
        "\"\"",
        "x",
    ]);
    let piece = prop_oneof![
        12 => piece.prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => vec(any::<u8>(), 0..80),
        1 => (select(b"\\\"[]{} a".to_vec()), 0..140_usize).prop_map(|(byte, times)| vec![byte; times]),
    ];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_json_reads_as_serde_json_reads_it(text in json()) {
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        each_doc(text.as_bytes(), |doc| {
            agrees(doc, doc.root().unwrap(), raw);
            assert!(sound(doc));
        });
    }

    #[test]
    fn any_bytes_are_walked_within_bounds(bytes in bytes()) {
        each_doc(&bytes, |doc| {
            let well_formed = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
            assert!(sound(doc) || !well_formed);
        });
    }

    #[test]
    fn a_cut_or_bent_document_is_walked_within_bounds(
        text in json(), cut in any::<prop::sample::Index>(), with in "[{}\\[\\]\",:\\\\ x]?"
    ) {
        let cut = cut.index(text.len() + 1);
        let mut bytes = text.into_bytes();
        bytes.splice(cut..(cut + 1).min(bytes.len()), with.bytes());
        each_doc(&bytes, |doc| {
            let well_formed = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
            assert!(sound(doc) || !well_formed);
        });
    }

    #[test]
    fn senseless_spans_and_marks_do_no_harm(bytes in bytes(), other in bytes(), start: u16, end: u16) {
        let mut marks = Marks::new();
        marks.mark(&other);
        let doc = Doc::new(&bytes, &marks);
        let node = doc.node_at(u32::from(start) % 300, u32::from(end) % 300);
        let _ = (node.kind(), node.complete(), node.text(), node.as_f64());
        let some = bytes.len() + 1;
        prop_assert!(node.members().take(some).count() + node.items().take(some).count() < some);
    }

    #[test]
    fn kernels_mark_as_the_naive_model_does(bytes in bytes()) {
        marks_agree(&bytes);
    }

    #[test]
    fn kernels_mark_random_bytes_alike(bytes in vec(any::<u8>(), 0..700)) {
        marks_agree(&bytes);
    }

    #[test]
    fn a_line_anywhere_is_marked_like_a_document(lines in vec(json(), 1..5)) {
        let lines: Vec<String> = lines.iter().map(|line| line.replace('\n', " ")).collect();
        let text = lines.join("\n");
        let (mut marks, mut alone, mut start) = (Marks::new(), Marks::new(), 0);
        for line in &lines {
            let (end, health) = marks.mark_line(text.as_bytes(), start);
            prop_assert_eq!(&text[start..end], line);
            prop_assert_eq!(alone.mark(line.as_bytes()), health);
            prop_assert_eq!(alone.blocks(), marks.blocks());
            start = end + 1;
        }
    }

    #[test]
    fn strings_decode_as_serde_json_decodes_them(raw in any::<String>()) {
        let literal = serde_json::to_string(&raw).unwrap();
        prop_assert_eq!(unescape(&literal.as_bytes()[1..literal.len() - 1]), raw);
    }

    #[test]
    fn without_backslashes_decoding_is_the_lossy_one(raw in vec(any::<u8>(), 0..40)) {
        let raw: Vec<u8> = raw.into_iter().filter(|&byte| byte != b'\\').collect();
        prop_assert_eq!(unescape(&raw), String::from_utf8_lossy(&raw));
    }
}

#[test]
fn odd_strings_decode() {
    let check = |raw: &[u8], expected: &str| assert_eq!(unescape(raw), expected);
    check(b"", "");
    check(b"a\\", "a\\");
    check(b"\\x\\n", "\\x\n");
    check(b"\\u12", "\\u12");
    check(b"\\u12g4", "\\u12g4");
    check(b"\\uD83D\\uDE00!", "\u{1f600}!");
    check(b"\\ud83d", "\u{fffd}");
    check(b"\\ud83dx", "\u{fffd}x");
    check(b"\\ude00\\ud83d\\u0041", "\u{fffd}\u{fffd}A");
    check(b"\\ud83d\\ud83d\\ude00", "\u{fffd}\u{1f600}");
    check(b"\\u0000\\/\\b\\f", "\0/\u{8}\u{c}");
    check(b"\x61\x80\x7a", "a\u{fffd}z");
    check(b"\xe2\\n\x82", "\u{fffd}\n\u{fffd}");
    check(b"\xf0\x9f\x92\\u0041", "\u{fffd}A");
}

#[test]
fn numbers_are_read_strictly() {
    let check = |text: &str, kind: Kind, int: Option<i64>, float: Option<f64>| {
        each_doc(text.as_bytes(), |doc| {
            let node = doc.root().unwrap();
            assert_eq!((node.kind(), node.as_i64(), node.as_f64()), (kind, int, float), "{text}");
        });
    };
    check("201", Kind::Number, Some(201), Some(201.0));
    check(" -7 ", Kind::Number, Some(-7), Some(-7.0));
    check("1e3", Kind::Number, None, Some(1000.0));
    check("1e400", Kind::Number, None, None);
    check("9223372036854775808", Kind::Number, None, Some(9_223_372_036_854_775_808.0));
    for bad in ["01", "+1", "1.", ".5", "1e", "-", "0x10", "NaN", "inf", "1_0", "tru", "True", "nulll"] {
        check(bad, Kind::Invalid, None, None);
    }
}

/// The keys that a walk gives, and whether it was damaged.
fn keys(text: &str) -> (String, bool) {
    let mut marks = Marks::new();
    marks.mark(text.as_bytes());
    let mut members = Doc::new(text.as_bytes(), &marks).root().unwrap().members();
    let mut keys = Vec::new();
    for (key, value) in members.by_ref() {
        keys.push(format!("{}={}", key.text(), String::from_utf8_lossy(value.raw())));
    }
    (keys.join(" "), members.damaged())
}

#[test]
fn damaged_objects_give_what_is_left() {
    let check = |text: &str, expected: &str| assert_eq!(keys(text), (expected.to_owned(), true), "{text}");
    check(r#"{"a":1 "b":2}"#, "a=1 b=2");
    check(r#"{"a" 1,"b":2}"#, "b=2");
    check(r#"{"a","b":2}"#, "b=2");
    check(r#"{"a" "x","b":2}"#, "b=2");
    check(r#"{"a":,"b":2}"#, "a= b=2");
    check(r#"{"a"::1,"b":2}"#, "a= b=2");
    check(r#"{"a":1,,"b":2}"#, "a=1 b=2");
    check(r#"{,"b":2}"#, "b=2");
    check(r#"{"b":2,}"#, "b=2");
    check(r#"{"a":tru"b":2}"#, "a=tru b=2");
    check(r#"{xyz,"b":2}"#, "b=2");
    check(r#"{{"x":1},"b":2}"#, "b=2");
    check(r#"{"a":{"x":1}{"y":2},"b":2}"#, r#"a={"x":1} b=2"#);
    check(r#"{"b":2]"#, "b=2");
    check(r#"{"a":"x"#, r#"a="x"#);
    check(r#"{"a":"#, "a=");
    check(r#"{"a"#, "");
    check(r#"{"a":{"#, "a={");
    check("{", "");
    check("{\0\0\"b\":2}", "b=2");
    assert_eq!(keys("{ \"a\" : 1 }"), ("a=1".to_owned(), false));
    assert_eq!(keys("{ }"), (String::new(), false));
    assert_eq!(keys("[1]"), (String::new(), false));
}

#[test]
fn damaged_arrays_give_what_is_left() {
    let check = |text: &str, expected: &str| {
        each_doc(text.as_bytes(), |doc| {
            let mut items = doc.root().unwrap().items();
            let found: Vec<_> = items.by_ref().map(|item| String::from_utf8_lossy(item.raw())).collect();
            assert_eq!((found.join(" ").as_str(), items.damaged()), (expected, true), "{text}");
        });
    };
    check("[1 2]", "1 2");
    check("[,1]", "1");
    check("[1,]", "1");
    check("[1,,2]", "1 2");
    check("[1:2]", "1 2");
    check("[1", "1");
    check("[[1}", "[1}");
    check("[1}", "1");
    check("[", "");
}

#[test]
fn the_last_of_duplicate_keys_wins_however_it_is_spelled() {
    let text = br#"{"verb":"get","\u0076erb":"delete","xverb":1}"#;
    each_doc(text, |doc| {
        let root = doc.root().unwrap();
        assert_eq!(root.get("verb").unwrap().text().unwrap(), "delete");
        assert!(root.get("ver").is_none());
    });
}

#[test]
fn marks_of_other_bytes_let_a_walk_end() {
    let mut marks = Marks::new();
    marks.mark(&[b'"'; 9]);
    for text in ["[1::1,::]", "{1::1,::}", r#"[1""1,"]"#, r#"{1""1,"}"#] {
        let text = text.as_bytes();
        let root = Doc::new(text, &marks).root().unwrap();
        assert!(root.members().take(9).count() + root.items().take(9).count() < 9);
    }
}

#[test]
fn every_truncation_of_an_event_is_walked() {
    let all = keys(EVENT);
    assert!(!all.1);
    for cut in 1..EVENT.len() {
        let (found, damaged) = keys(&EVENT[..cut]);
        assert!(damaged && all.0.starts_with(&found), "cut at {cut}: {found}");
        each_doc(&EVENT.as_bytes()[..cut], |doc| {
            assert!(!sound(doc) && !doc.root().unwrap().complete());
            if let Some((_, last)) = doc.root().unwrap().members().last() {
                let cut_off = (last.end() as usize) == cut;
                assert!(last.complete() || cut_off);
                assert!(!last.complete() || !cut_off || !matches!(last.kind(), Kind::Invalid | Kind::Number));
            }
        });
    }
}

#[test]
fn backslashes_and_quotes_on_every_place_of_a_block() {
    for before in 0..=130 {
        for run in 0..=70 {
            let mut text = vec![b'a'; before];
            text.push(b'"');
            text.extend(vec![b'\\'; run]);
            text.extend(b"\"{}\"[]\n\"{");
            marks_agree(&text);
        }
    }
    for length in 0..=200 {
        marks_agree(&vec![b'"'; length]);
        marks_agree(&[&vec![b' '; length][..], b"\n\"[]"].concat());
    }
}

#[test]
fn torture_ends_in_time() {
    const MANY: usize = 10_000_000;
    let mut half = vec![b'['; MANY];
    let closes = vec![b']'; MANY];
    let objects = br#"{"a":"#.repeat(MANY / 5);
    for bytes in [
        vec![b'['; MANY],
        closes.clone(),
        [b"[".as_slice(), &closes].concat(),
        objects,
        vec![b'"'; 16 << 20],
        vec![b'\\'; MANY],
        [b"{\"".as_slice(), &vec![b'\\'; MANY]].concat(),
        vec![0; MANY],
        [b"{".as_slice(), &vec![0; MANY]].concat(),
        vec![b','; MANY],
        [b"[".as_slice(), &vec![b','; MANY]].concat(),
        [b"{".as_slice(), &vec![b','; MANY]].concat(),
        vec![b' '; MANY],
        b"{\"\"".repeat(MANY / 3),
        [b"{".as_slice(), &b"\"\"".repeat(MANY / 2)].concat(),
        [b"{".as_slice(), &b"{}".repeat(MANY / 2)].concat(),
        [b"{".as_slice(), &b"\"\":".repeat(MANY / 3)].concat(),
        [b"[".as_slice(), &b"[]".repeat(MANY / 2)].concat(),
    ] {
        let mut marks = Marks::new();
        marks.mark(&bytes);
        let doc = Doc::new(&bytes, &marks);
        if let Some(root) = doc.root() {
            let (mut members, mut items) = (root.members(), root.items());
            assert!(members.by_ref().count() + items.by_ref().count() <= MANY * 2);
            let container = matches!(root.kind(), Kind::Object | Kind::Array);
            assert!(!container || members.damaged() || items.damaged() || root.complete());
            let _ = root.get("a");
        }
    }
    half.extend(closes);
    each_doc(&half, |doc| {
        assert_eq!(doc.root().unwrap().raw().len(), half.len());
        assert_eq!(doc.root().unwrap().items().map(|item| item.raw().len()).sum::<usize>(), half.len() - 2);
    });
}

#[test]
fn a_line_ends_at_a_newline_even_inside_a_string() {
    let text = b"{\"a\":\"b\n\"}\nx";
    let mut marks = Marks::new();
    let (end, health) = marks.mark_line(text, 0);
    assert_eq!((end, health.open_string, health.control), (7, true, false));
    let (end, health) = marks.mark_line(text, 8);
    assert_eq!((end, health.open_string), (10, true));
    assert_eq!(marks.mark_line(text, 11), (12, Health::default()));
    assert_eq!(marks.mark_line(text, 12), (12, Health::default()));
    assert_eq!(marks.mark_line(b"\n", 0), (0, Health::default()));
    assert!(Doc::new(b"", &marks).root().is_none());
    assert_eq!(marks.mark(b"\"\n\""), Health { control: true, ..Health::default() });
    assert_eq!(marks.mark("é".as_bytes()), Health { non_ascii: true, ..Health::default() });
}
