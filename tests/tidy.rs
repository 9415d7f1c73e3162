//! House rules, held by code: where `unsafe` may stand, what licences may come in, which pages are generated, how long a
//! function may be.
#![allow(clippy::unwrap_used)] // a test may fail

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the workspace.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "detectors/src", "detectors/tests"] {
        collect(&root().join(folder), &mut files);
    }
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn unsafe_stands_in_the_kernel_alone() {
    for file in
        sources().iter().filter(|file| !file.ends_with("scan/kernel.rs") && !file.ends_with("tidy.rs"))
    {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains("unsafe_code)"), "{} allows unsafe code", file.display());
    }
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for file in sources()
        .iter()
        .filter(|file| file.starts_with(root().join("src")) || file.starts_with(root().join("detectors/src")))
    {
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ")
                .trim_start_matches("async ");
            if !head.starts_with("fn ") && !head.starts_with("const fn ") {
                continue;
            }
            let close = format!("{}}}", " ".repeat(indent));
            let length = lines[at..].iter().position(|line| *line == close).unwrap_or(0);
            // One function is a table: the spelling of every key.
            if length > 70 && !line.contains("fn top_named") {
                long.push(format!("{}:{}: {length} lines", file.display(), at + 1));
            }
        }
    }
    assert!(long.is_empty(), "functions longer than a screen:\n{}", long.join("\n"));
}

/// Licences that may come in. An `OR` needs one of them, an `AND` all.
const ALLOWED: [&str; 9] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "0BSD",
];
/// More permissive than all of these.
const PUBLIC_DOMAIN: [&str; 3] = ["Unlicense", "CC0-1.0", "MIT-0"];

#[test]
fn every_dependency_has_a_licence_that_we_may_use() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let refused: BTreeSet<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| !is_allowed(package["license"].as_str().unwrap_or("none given")))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    let one = |licence: &str| {
        let licence = licence.trim();
        ALLOWED.contains(&licence) || PUBLIC_DOMAIN.contains(&licence)
    };
    expression.split(" AND ").all(|part| part.split(" OR ").any(one))
}

#[test]
fn the_reference_of_facts_is_up_to_date() {
    let written = std::fs::read_to_string(root().join("docs/facts.md")).unwrap_or_default();
    let fresh = "run `cargo run -- detectors facts --markdown > docs/facts.md`";
    assert!(written == detectors::facts::reference(), "docs/facts.md is stale: {fresh}");
}

#[test]
fn nothing_is_left_to_be_done() {
    let words = ["TODO", "FIXME", "todo!(", "unimplemented!("];
    for file in sources().iter().filter(|file| !file.ends_with("tidy.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for word in words {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}
