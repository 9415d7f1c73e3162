use super::*;
use proptest::prelude::*;

/// A frame with bytes of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    offset: u64,
    bytes: Vec<u8>,
    extent: Extent,
    listed: bool,
}

const SMALL: Limits = Limits { record: 64, head: 16, tail: 8 };

fn frames(blocks: &[&[u8]], limits: Limits) -> Vec<Record> {
    let mut records = Vec::new();
    let mut emit = |frame: Frame<'_>| {
        let Frame { offset, bytes, extent, listed, joined: _ } = frame;
        records.push(Record { offset, bytes: bytes.to_vec(), extent, listed });
    };
    let mut framer = Framer::with_limits(0, limits);
    for block in blocks {
        assert_eq!(framer.feed(block, &mut emit), None);
        let prefix = PREFIX.min(limits.record);
        let bound = limits.record + limits.head + limits.tail + HOLE + prefix + block.len();
        assert!(framer.held() <= bound, "{} bytes held", framer.held());
    }
    framer.finish(&mut emit);
    records
}

fn blocks(input: &[u8], size: usize) -> Vec<&[u8]> {
    input.chunks(size).collect()
}

const FULL: Limits = Limits { record: MAX_RECORD, head: HEAD, tail: TAIL };

/// Frames `input` in blocks of every size and compares with `expected`: one frame each, `~` before a fragment, `-` before
/// an item of a list.
fn check(input: &str, expected: &[&str]) {
    for size in 1..=input.len().max(1) {
        let records = frames(&blocks(input.as_bytes(), size), FULL);
        let shown: Vec<String> = records
            .iter()
            .map(|record| {
                let text = String::from_utf8_lossy(&record.bytes);
                assert_eq!(&input.as_bytes()[record.offset as usize..][..record.bytes.len()], record.bytes);
                let listed = if record.listed { "-" } else { "" };
                let cut = if record.extent == Extent::Fragment { "~" } else { "" };
                format!("{listed}{cut}{text}")
            })
            .collect();
        assert_eq!(shown, expected, "in blocks of {size}");
    }
}

#[test]
fn values_over_lines_and_on_one() {
    check("{\"a\":1}\n{\"b\":2}\n", &["{\"a\":1}", "{\"b\":2}"]);
    check("{\"a\":1} {\"b\":2},{\"c\":3}", &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    check(
        "{\n  \"a\": {\n    \"b\": [1, 2]\n  }\n}\n{\n}\n",
        &["{\n  \"a\": {\n    \"b\": [1, 2]\n  }\n}", "{\n}"],
    );
    check("{\"a\":\"}\\\"{\\\\\"}{\"b\":\"[\"}", &["{\"a\":\"}\\\"{\\\\\"}", "{\"b\":\"[\"}"]);
    check("", &[]);
    check("\r\n \n", &[]);
}

#[test]
fn text_lines_are_records() {
    check("oops\n{\"a\":1}\n", &["oops", "{\"a\":1}"]);
    check("2026 stdout F {\"a\":1}\n", &["2026 stdout F {\"a\":1}"]);
    check("{\"a\":1} trailing {\n{\"b\":2}", &["{\"a\":1}", "trailing {", "{\"b\":2}"]);
    check("[INFO] ready\n[12] x\n", &["[INFO] ready", "[12] x"]);
    check("}\n{\"a\":1}\n", &["}", "{\"a\":1}"]);
    check("\"text\"\n", &["\"text\""]);
}

#[test]
fn lists_are_streamed() {
    check("[{\"a\":1},{\"b\":[2]}]", &["-{\"a\":1}", "-{\"b\":[2]}"]);
    check("[\n{\"a\":1},\n{\"b\":2}\n]\n{\"c\":3}", &["-{\"a\":1}", "-{\"b\":2}", "{\"c\":3}"]);
    check("[]\n[[1],\"]\",2]", &["-[1]", "-\"]\"", "-2"]);
    check(
        "{\"kind\":\"EventList\",\"items\":[{\"a\":1},{\"items\":[1]}],\"x\":{\"y\":[]}}\n{\"c\":3}",
        &["-{\"a\":1}", "-{\"items\":[1]}", "{\"c\":3}"],
    );
    check("{\n \"Items\" : \n [\n  {\n  }\n ]\n}\n{}", &["-{\n  }", "{}"]);
    check("{\"items\":{\"a\":1}}{\"itemz\":[1]}", &["{\"items\":{\"a\":1}}", "{\"itemz\":[1]}"]);
    check("{\"items\":[1],\"Items\":[2],\"ITEMS\":[{}]}", &["-1", "-2", "-{}"]);
    check("{\"a\":{\"items\":[1]}}", &["{\"a\":{\"items\":[1]}}"]);
    check("{\"a\":\"items\",\"b\":[1]}", &["{\"a\":\"items\",\"b\":[1]}"]);
}

#[test]
fn a_bracket_where_no_value_may_stand_ends_an_open_value() {
    check("{\"a\":\"torn\n{\"b\":2}\n{\"c\":3}\n", &["~{\"a\":\"torn", "{\"b\":2}", "{\"c\":3}"]);
    check("{\"a\":{\n{\"b\":2} \r\n}", &["~{\"a\":{", "{\"b\":2}", "}"]);
    check("{\"a\":{\n{\"b\":2}", &["~{\"a\":{", "{\"b\":2}"]);
    check("{\"a\":1,\n\n \n[\n{\n}\n]", &["~{\"a\":1,\n\n ", "-{\n}"]);
    check("{\"a\":\":\n\n{}\n", &["~{\"a\":\":\n", "{}"]);
    check("{\n{\n\"b\":[\n{},\n[]]}\n{}", &["~{", "{\n\"b\":[\n{},\n[]]}", "{}"]);
    // Where a value may stand, or not in the first column.
    for whole in [
        "{\"a\":[\n{\"b\":2},\n3]}",
        "{\"a\":[\n {\"b\":2}\n]}",
        "{\"a\":[\n{\"b\":2}\n]}",
        "{\"a\":\n{\"b\":\n[\n[\n2],\n\n[]]}}",
        "{\n\"a\":[\n{\n\"b\":2\n}\n]}",
        "{\n  \"a\": [\n    1,\n{\n  \"b\": 2\n}\n  ]}",
    ] {
        check(whole, &[whole]);
    }
}

#[test]
fn what_was_swallowed_is_read_again() {
    check("{\"a\":\n{\"b\":2}\n{\"c\":3}\n", &["~{\"a\":", "{\"b\":2}", "{\"c\":3}"]);
    check("{\"a\":[1,\n{\n}\n", &["~{\"a\":[1,", "{\n}"]);
    check("[{\"a\":\n[\n{\"b\":[\n{}]}\n]", &["-~{\"a\":", "-{\"b\":[\n{}]}"]);
    check("{\"a\":\n{\"b\":\n{\"c\":\n{}", &["~{\"a\":", "~{\"b\":", "~{\"c\":", "{}"]);
    check("{\"items\":[{}],\"a\":\n{\"b\":2}\n", &["-{}", "~", "{\"b\":2}"]);
    check("{\"items\":[{}],\"a\":\n{\"b\":2}}\n", &["-{}"]);
    check("{\"a\":\n{\"b\":2}\n\u{1e}{\"c\":3}", &["~{\"a\":", "{\"b\":2}", "{\"c\":3}"]);
    let hole = "\0".repeat(8);
    check(&format!("{{\"a\":\n{{\"b\":2}}\n{hole}"), &["~{\"a\":", "{\"b\":2}", &hole]);
}

#[test]
fn a_line_of_a_container_runtime_ends_everything() {
    let line = "2026-03-01T10:00:00.1Z stdout F {\"a\":1}";
    let plain = "2026-03-01T10:00:00.1Z stderr F it is \"plain\"";
    check(&format!("{{\n{line}\n{plain}\n"), &["~{", line, plain]);
    check(&format!("{{\"a\":\n{plain}"), &["~{\"a\":", plain]);
    check(&format!("[\n{line}\n{line}\n"), &[line, line, "~"]);
    check(&format!("[{{}},\n{plain}\n{line}\n"), &["-{}", plain, line, "~"]);
    check(&format!("{{\"items\":[],\n{line}\n"), &["~", line]);
    check(&format!("{{\"a\":\n{{}}\n{line}\n"), &["~{\"a\":", "{}", line]);
    check("{\"a\":[\n2026,\n3\n]}\n", &["{\"a\":[\n2026,\n3\n]}"]);
}

#[test]
fn record_separators() {
    check("\u{1e}{\n \"a\": 1\n}\n\u{1e}[{\"b\":2}]\n", &["{\n \"a\": 1\n}", "-{\"b\":2}"]);
    check("\u{1e}{\"a\":[\u{1e}{\n}\n\u{1e}{}", &["~{\"a\":[", "{\n}", "{}"]);
    check("\u{1e}{\"a\":[1,\n\u{1e}{\n}\n", &["~{\"a\":[1,", "{\n}"]);
    check("{\"a\":\"torn\u{1e}{\n \"b\":2}\n", &["~{\"a\":\"torn", "{\n \"b\":2}"]);
    check("[{},\n\u{1e}{\n}\n", &["-{}", "{\n}", "~"]);
}

#[test]
fn arrays_may_begin_with_scalars() {
    check("[1, -2.5e3,{\"a\":1}]", &["-1", "--2.5e3", "-{\"a\":1}"]);
    check("[ true ,null,[]]", &["-true", "-null", "-[]"]);
    for text in ["[a, b] {}", "[1 2, 3]", "[12] x", "[1", "[2026-03-01 10:00:00,123] {}", "[infinity,"] {
        check(text, &[if text == "[1" { "~[1" } else { text }]);
    }
}

#[test]
fn keys_may_be_escaped() {
    check(r#"{"\u0069tems":[1]}"#, &["-1"]);
    check(r#"{"\u0069\u0074\u0065\u006d\u0073":[1]}"#, &["-1"]);
    check(r#"{"\u0049TEM\u0053":[1]}"#, &["-1"]);
    check(r#"{"\u0069tem":[1]}"#, &[r#"{"\u0069tem":[1]}"#]);
}

#[test]
fn torn_lists() {
    check(
        "[\n{\"a\":1},\n{\"b\":{\n{\"c\":3},\n{\"d\":4}\n",
        &["-{\"a\":1}", "-~{\"b\":{", "{\"c\":3}", "{\"d\":4}"],
    );
    check("{\"items\":[{\"a\":1},{\"b\":\n{\"c\":3}\n", &["-{\"a\":1}", "-~{\"b\":", "{\"c\":3}"]);
    check("{\"items\":[{\"a\":1}],\"x\n{\"c\":3}\n", &["-{\"a\":1}", "~", "{\"c\":3}"]);
    check("[{\"a\":1},", &["-{\"a\":1}", "~"]);
    check("[{\"a\":1},{\"b\"", &["-{\"a\":1}", "-~{\"b\""]);
}

#[test]
fn items_in_the_first_column() {
    // Some writers indent everything but the items.
    check(
        "{\n  \"items\": [\n{\"a\":1},\n{\"b\":2}\n  ],\n  \"kind\": \"EventList\"\n}\n{\"c\":3}",
        &["-{\"a\":1}", "-{\"b\":2}", "{\"c\":3}"],
    );
    check(
        "{\n \"items\": [\n{\n \"a\": 1\n},\n{\n \"b\": 2\n}\n]\n}\n",
        &["-{\n \"a\": 1\n}", "-{\n \"b\": 2\n}"],
    );
    check("[\n{\n \"a\":1},\n{\n \"b\":2}\n]", &["-{\n \"a\":1}", "-{\n \"b\":2}"]);
    // Without a comma between them.
    check("[\n{\"a\":1}\n{\"b\":2}\n]\n{\"c\":3}", &["-{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    // The closing bracket never comes.
    check("{\n \"items\": [\n  {\n  },\n{\n \"b\": 2\n}", &["-{\n  }", "-{\n \"b\": 2\n}", "~"]);
    check("[\n{\"a\":1}\n[\n{\"b\":2}\n]", &["-{\"a\":1}", "~", "-{\"b\":2}"]);
    check("[\n{\"a\":1}\n{\"items\":[]}\n]", &["-{\"a\":1}", "~", "]"]);
}

#[test]
fn holes_end_everything() {
    let hole = "\0".repeat(9);
    check(&format!("{{\"a\":\"to{hole}{{\"b\":2}}\n"), &["~{\"a\":\"to", &hole, "{\"b\":2}"]);
    check(&format!("[{{\"a\":\\{hole}{{\"b\":2}}\n"), &["-~{\"a\":\\", &hole, "{\"b\":2}"]);
    check(&format!("text{hole}[{hole}\n"), &["text", &hole, "[", &hole]);
    check(&format!("{{\n{{\"b\":2}}{hole}"), &["~{", "{\"b\":2}", &hole]);
    check("{\"a\":\"\0\0\0\0\0\0\0\"}\0\n", &["{\"a\":\"\0\0\0\0\0\0\0\"}", "\0"]);
}

#[test]
fn the_end_of_the_input() {
    check("{\"a\":", &["~{\"a\":"]);
    check("{\"a\":\"x\\", &["~{\"a\":\"x\\"]);
    check("[", &["~["]);
    check("text", &["text"]);
    check("{\n", &["~{\n"]);
}

/// Frames `input` with the small limits in blocks of every size and compares bytes, extent and offset of each frame.
fn check_small(input: &[u8], expected: &[(u64, &[u8], Extent)]) {
    for size in 1..=input.len() {
        let records = frames(&blocks(input, size), SMALL);
        let records: Vec<_> = records.iter().map(|r| (r.offset, &r.bytes[..], r.extent)).collect();
        assert_eq!(records, expected, "in blocks of {size}");
    }
}

#[test]
fn oversize_records_keep_head_and_tail() {
    let oversize = |length| Extent::Oversize { tail: 16, length };
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
    let input = format!("{long}\n{{\"b\":2}}\n");
    check_small(
        input.as_bytes(),
        &[(0, b"{\"a\":\"xxxxxxxxxxxxxxxx\"}", oversize(108)), (109, b"{\"b\":2}", Extent::Whole)],
    );
    let fits = format!("{{\"a\":\"{}\"}}", "x".repeat(56));
    check_small(fits.as_bytes(), &[(0, fits.as_bytes(), Extent::Whole)]);
    // Text, an open value at the end, and an open value that a line ends.
    check_small("y".repeat(65).as_bytes(), &[(0, "y".repeat(24).as_bytes(), oversize(65))]);
    let open = format!("{{\"a\":\"{}", "x".repeat(100));
    check_small(open.as_bytes(), &[(0, b"{\"a\":\"xxxxxxxxxxxxxxxxxx", oversize(106))]);
    let torn = format!("{open}123\n{{\"b\":\"{}\"}}\n", "y".repeat(30));
    let line = format!("{{\"b\":\"{}\"}}", "y".repeat(30));
    check_small(
        torn.as_bytes(),
        &[(0, b"{\"a\":\"xxxxxxxxxxxxxxx123", oversize(109)), (110, line.as_bytes(), Extent::Whole)],
    );
}

#[test]
fn a_line_that_reaches_past_the_limit() {
    let line = format!("{{\"b\":\"{}\"}}", "y".repeat(30));
    // The open value and the line together are longer than the limit.
    let torn = format!("{{\"a\":\"{}\n{line}\n", "x".repeat(40));
    check_small(
        torn.as_bytes(),
        &[(0, &torn.as_bytes()[..46], Extent::Fragment), (47, line.as_bytes(), Extent::Whole)],
    );
    let line = format!("{{\"b\":\"{}\"}}", "y".repeat(50));
    let short = format!("{{\"a\":\"{}\n{line}\n", "x".repeat(10));
    check_small(
        short.as_bytes(),
        &[(0, b"{\"a\":\"xxxxxxxxxx", Extent::Fragment), (17, line.as_bytes(), Extent::Whole)],
    );
}

#[test]
fn lists_of_any_length_hold_items_of_limited_length() {
    let item = "{\"a\":1}";
    let list = format!("{{\"items\":[{}]}}", [item; 100].join(","));
    let records = frames(&blocks(list.as_bytes(), 10), SMALL);
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|r| r.bytes == item.as_bytes() && r.listed && r.extent == Extent::Whole));
}

#[test]
fn settles_at_lines() {
    let torn = "{\"a\":\"torn\n";
    let line = "{\"b\":2}\n";
    let input = format!("{torn}{}", line.repeat(200));
    for size in [1, 7, 100, 10_000] {
        for (after, lines) in [(0, 64), (1000, 124), (1_000_000, 200)] {
            let mut framer = Framer::new(0).until_lines_after(after);
            let mut count = 0;
            let mut offset = 0;
            for block in input.as_bytes().chunks(size) {
                if let Some(taken) = framer.feed(block, &mut |_| count += 1) {
                    offset += taken;
                    break;
                }
                offset += block.len();
            }
            assert_eq!(
                (count, offset),
                (lines + 1, torn.len() + lines * line.len()),
                "after {after} in {size}"
            );
        }
    }
}

#[test]
fn torture_is_linear_and_bounded() {
    let block = |byte: u8| vec![byte; 1 << 20];
    for byte in [b'{', b'[', b'x', 0, b'"', b'\\', b'\n', b' ', b']', b','] {
        let mut framer = Framer::new(0);
        let mut emitted = 0_u64;
        for _ in 0..40 {
            framer.feed(&block(byte), &mut |_| emitted += 1);
            assert!(framer.held() <= MAX_RECORD + (1 << 20));
        }
        framer.finish(&mut |_| emitted += 1);
        assert!(emitted <= 41, "{emitted} frames of {byte}");
    }
}

/// Lines that may each be a part of what is open or a record: they are read a bounded number of times.
#[test]
fn torture_by_lines_is_linear_and_bounded() {
    for line in [
        "{\n",
        "[\n",
        "[,\n",
        "{\"a\":\n",
        "{\"a\":[\n",
        "\"a\":{\n",
        "],\n{\"a\":[\n",
        "[\n{\"a\":\n",
        "2026T stdout F [\n",
        "\x1E{\"\n",
    ] {
        for first in ["", "[\n", "{\n\"b\":[\n", "{\"items\":["] {
            let limits = Limits { record: 1 << 16, head: 1 << 10, tail: 1 << 8 };
            let block = line.repeat((1 << 12) / line.len());
            let mut framer = Framer::with_limits(0, limits);
            let mut emitted = 0_usize;
            let mut count = |_: Frame<'_>| emitted += 1;
            framer.feed(first.as_bytes(), &mut count);
            for _ in 0..100 {
                framer.feed(block.as_bytes(), &mut count);
                assert!(framer.held() <= limits.record + block.len() + PREFIX);
            }
            framer.finish(&mut count);
            assert!(framer.again.bytes <= (REREADS + 1) * framer.base, "{line:?} after {first:?}");
            assert!(emitted <= 3 * 100 * block.len() / line.len() + 3, "{line:?} after {first:?}");
        }
    }
}

/// Records as `serde_json` finds them in a stream of values.
fn naive(input: &[u8]) -> Vec<serde_json::Value> {
    serde_json::Deserializer::from_slice(input).into_iter().map(Result::unwrap).collect()
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        "[a-z{}\\[\\]\"\\\\\n\t é]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof!["[a-z\"{}]{0,6}", Just("items".to_string()), Just("x\\".to_string())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object whose keys at the top do not make it a list.
fn record() -> impl Strategy<Value = serde_json::Value> {
    prop::collection::btree_map("[a-z]{1,4}", json(), 0..4)
        .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
}

/// How records are laid out: each pretty or on one line, with the separator after it.
fn layout() -> impl Strategy<Value = (Vec<(serde_json::Value, bool, &'static str)>, bool)> {
    let separator = prop_oneof![Just("\n"), Just(" "), Just(""), Just("\r\n"), Just(",\n"), Just("\n\n")];
    (prop::collection::vec((record(), any::<bool>(), separator), 0..8), any::<bool>())
}

fn cut(input: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut rest = input;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = (*sizes.next().expect("endless")).min(rest.len());
        blocks.push(rest[..size].to_vec());
        rest = &rest[size..];
    }
    blocks
}

fn framed(input: &[u8], sizes: &[usize], limits: Limits) -> Vec<Record> {
    let blocks = cut(input, sizes);
    frames(&blocks.iter().map(Vec::as_slice).collect::<Vec<_>>(), limits)
}

proptest! {
    #[test]
    fn agrees_with_serde_on_mixtures((values, _) in layout(), sizes in prop::collection::vec(1_usize..40, 1..6)) {
        let mut text = String::new();
        let mut plain = String::new();
        for (value, pretty, separator) in &values {
            let shown = if *pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
            plain.push_str(shown.as_ref().unwrap());
            text.push_str(&shown.unwrap());
            text.push_str(separator);
        }
        let records = framed(text.as_bytes(), &sizes, FULL);
        prop_assert!(records.iter().all(|r| r.extent == Extent::Whole && !r.listed));
        let parsed: Vec<serde_json::Value> =
            records.iter().map(|r| serde_json::from_slice(&r.bytes).unwrap()).collect();
        prop_assert_eq!(parsed, naive(plain.as_bytes()));
    }

    #[test]
    fn items_of_lists((values, pretty) in layout(), wrapped: bool, sizes in prop::collection::vec(1_usize..40, 1..6)) {
        let items: Vec<_> = values.into_iter().map(|(value, ..)| value).collect();
        let list = serde_json::Value::Array(items.clone());
        let whole = if wrapped {
            serde_json::json!({"apiVersion": "audit.k8s.io/v1", "items": list, "kind": "EventList", "metadata": {"items": [1]}})
        } else {
            list
        };
        let text = if pretty { serde_json::to_string_pretty(&whole) } else { serde_json::to_string(&whole) }.unwrap();
        let records = framed(text.as_bytes(), &sizes, FULL);
        prop_assert!(records.iter().all(|r| r.extent == Extent::Whole && r.listed));
        let parsed: Vec<serde_json::Value> =
            records.iter().map(|r| serde_json::from_slice(&r.bytes).unwrap()).collect();
        prop_assert_eq!(parsed, items);
    }

    #[test]
    fn blocks_do_not_matter(
        pieces in prop::collection::vec(
            prop_oneof![
                "[\\[\\]{}\",:a \n\\\\]{0,20}".prop_map(String::into_bytes),
                Just(b"\n{\"a\":1}\n".to_vec()),
                Just(b"\n{\"a\":1},\n".to_vec()),
                Just(b"\n[{\"a\":1}]\n".to_vec()),
                Just(b"{\"a\":[\n{\"b\":\n".to_vec()),
                Just(b"\n2026T stdout F {\"a\":\"}\"}\n".to_vec()),
                Just(b"[1, 2,".to_vec()),
                Just(b"\n\x1E{\n".to_vec()),
                Just(b"\n}\n".to_vec()),
                Just(b"\n],\n".to_vec()),
                Just(b"{\n  \"items\": [\n".to_vec()),
                Just(b"\"items\":[".to_vec()),
                Just(vec![0; 5]),
                Just(vec![0; 9]),
                Just(vec![b'x'; 70]),
                prop::collection::vec(any::<u8>(), 0..10),
            ],
            0..20,
        ),
        sizes in prop::collection::vec(1_usize..30, 1..6),
    ) {
        let input = pieces.concat();
        for limits in [FULL, SMALL] {
            let whole = frames(&[&input], limits);
            let mut end = 0;
            for record in &whole {
                prop_assert!(record.offset >= end, "records overlap");
                end = record.offset + match record.extent {
                    Extent::Oversize { length, .. } => length,
                    _ => record.bytes.len() as u64,
                };
            }
            prop_assert!(end <= input.len() as u64);
            prop_assert_eq!(&whole, &framed(&input, &sizes, limits), "{:?}", String::from_utf8_lossy(&input));
            prop_assert_eq!(&whole, &framed(&input, &[1], limits), "{:?}", String::from_utf8_lossy(&input));
        }
    }
}

/// An audit event in which brackets open and close in all ways, and its number.
fn audit_event(number: u64) -> serde_json::Value {
    serde_json::json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": number,
        "user": {"username": "a{\"[", "groups": ["g", "h"], "extra": {}},
        "sourceIPs": ["10.0.0.1"],
        "requestObject": {
            "spec": {"containers": [{"args": [], "ports": [{"port": 80}, {"port": 81}]}, {"name": "b"}]},
            "items": [[], [[1.5, -2]], true, null],
        },
        "annotations": {"decision": "allow"},
    })
}

/// How values are written.
const LAYOUTS: [&str; 5] = ["compact", "pretty", "tabs", "flush", "separated"];

fn write(value: &serde_json::Value, layout: &str) -> String {
    let pretty = serde_json::to_string_pretty(value).unwrap();
    match layout {
        "compact" => value.to_string(),
        "pretty" => pretty,
        "tabs" => pretty.replace("  ", "\t"),
        // As after a shipper that trims lines.
        "flush" => pretty.lines().map(|line| line.trim_start().to_owned() + "\n").collect(),
        "separated" => format!("\u{1e}{pretty}"),
        "cri" => format!("2026-03-01T10:00:00.1Z stdout F {value}"),
        _ => unreachable!(),
    }
}

/// The shapes of what is written: an event, or a list of two.
const SHAPES: [&str; 3] = ["event", "list", "array"];

fn shaped(number: u64, shape: &str) -> serde_json::Value {
    let (one, other) = (audit_event(number), audit_event(number + 1));
    match shape {
        "event" => one,
        "list" => serde_json::json!({
            "kind": "EventList", "metadata": {}, "items": [one, other], "more": {"x": [{"y": 1}]}
        }),
        _ => serde_json::json!([one, other]),
    }
}

/// The numbers of the events that come out whole, and how many records are bad.
fn toll(input: &[u8], size: usize, limits: Limits) -> (Vec<u64>, usize) {
    let (mut numbers, mut bad) = (Vec::new(), 0);
    for record in frames(&blocks(input, size), limits) {
        let text = record.bytes.strip_prefix(b"2026-03-01T10:00:00.1Z stdout F ").unwrap_or(&record.bytes);
        let value = serde_json::from_slice::<serde_json::Value>(text).ok();
        let Some(value) = value.filter(|_| record.extent == Extent::Whole) else {
            bad += 1;
            continue;
        };
        let list = value.as_array().or_else(|| value["items"].as_array());
        let before = numbers.len();
        for item in list.map_or(std::slice::from_ref(&value), Vec::as_slice) {
            numbers.extend(item["auditID"].as_u64());
        }
        bad += usize::from(numbers.len() == before);
    }
    (numbers, bad)
}

/// What follows what was torn.
const SEQUENCES: [[&str; 3]; 5] =
    [["event"; 3], ["list"; 3], ["array"; 3], ["event", "array", "list"], ["list", "event", "array"]];

/// Reads what follows `torn` in every layout: all of it must come out after what was whole before, with at most `most` bad
/// records.
fn check_torn(torn: &str, before: &[u64], most: usize, sequences: &[[&str; 3]]) {
    for layout in LAYOUTS.into_iter().chain(["cri"]) {
        for shapes in sequences {
            let mut input = torn.to_string() + "\n";
            let mut expected = before.to_vec();
            for (number, shape) in [10, 20, 30].into_iter().zip(shapes) {
                input += &write(&shaped(number, shape), layout);
                input += "\n";
                expected.extend(number..number + if *shape == "event" { 1 } else { 2 });
            }
            let (numbers, bad) = toll(input.as_bytes(), 1009, FULL);
            assert_eq!(numbers, expected, "{layout} {shapes:?} after {torn:?}");
            assert!(bad <= most, "{bad} bad: {layout} {shapes:?} after {torn:?}");
        }
    }
}

/// Whatever is torn wherever, what follows comes out, and what was whole in a torn list.
#[test]
fn nothing_is_lost_after_what_was_torn() {
    for layout in LAYOUTS {
        for shape in SHAPES {
            let text = write(&shaped(1, shape), layout);
            let ends = ends(&text);
            // Without indentation, a part of what was torn may look like a record of its own.
            let most = if layout == "flush" { 3 } else { 1 };
            for cut in 0..text.trim_end().len() {
                let whole = if shape == "event" { 0 } else { ends.iter().filter(|end| **end <= cut).count() };
                let sequence = &SEQUENCES[cut % SEQUENCES.len()];
                check_torn(&text[..cut], &[1, 2][..whole], most, std::slice::from_ref(sequence));
            }
            check_torn(&text, &[1, 2][..ends.len()], 0, &SEQUENCES);
        }
    }
}

/// Where the events of a text end.
fn ends(text: &str) -> Vec<usize> {
    let last = text.match_indices("\"username\"").map(|(at, _)| at);
    last.map(|at| at + 1 + text[at..].match_indices('}').nth(1).expect("the user ends, and the event").0)
        .collect()
}

#[test]
fn nothing_is_lost_after_a_stray_bracket() {
    for stray in
        ["{", "[", "  {", "{ ", "[ ", "[[", "{[", "[{", "{\"a\":", "{\"a\":[", "{\"items\":[", "{\"items\":"]
    {
        check_torn(stray, &[], 1, &SEQUENCES);
    }
}
