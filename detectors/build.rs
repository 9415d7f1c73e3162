//! Embeds `catalog/`: every detector's text, and what judging needs of it as JSON, which is read at start in a tenth of the
//! time that YAML takes.

// What builds the core is no part of it.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use yaml_serde::Value;

/// The reader of documents is the one that the user's rules go through, so that both are read alike.
#[path = "src/sigma/document.rs"]
#[allow(dead_code)]
mod document;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=catalog");
    println!("cargo::rerun-if-changed=src/sigma/document.rs");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("catalog");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root).expect("it was found below the root").with_extension("");
        let text = fs::read_to_string(file)?;
        writeln!(
            table,
            "    Source {{ name: {:?}, text: include_str!({:?}), json: {:?} }},",
            name.display().to_string(),
            file.display().to_string(),
            json(file, &text)
        )
        .expect("writing to a string cannot fail");
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("catalog.rs"), table)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            println!("cargo::rerun-if-changed={}", path.display());
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "yml") {
            files.push(path);
        }
    }
    Ok(())
}

/// The documents of a file without tests and prose, as a list. The build fails where JSON would not say the same.
fn json(file: &Path, text: &str) -> String {
    let skip = [document::PROSE, document::TESTS].concat();
    let documents = document::read(text, &skip).into_iter().map(|read| match read {
        Ok(document) => Value::Mapping(document.root),
        Err(problem) => panic!("{}:{}: {}", file.display(), problem.line, problem.reason),
    });
    let documents: Vec<Value> = documents.collect();
    let json = serde_json::to_string(&documents).expect("a catalogue file has no keys that JSON lacks");
    let back: Vec<Value> = serde_json::from_str(&json).expect("it was just written");
    assert_eq!(format!("{back:?}"), format!("{documents:?}"), "{}: JSON says something else", file.display());
    json
}
