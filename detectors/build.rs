//! Embeds `catalog/`: every detector's text, and the same without its tests and prose for a fast start.

// What builds the core is no part of it.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Top-level keys that judging does not need.
const PROSE: [&str; 4] = ["tests:", "description:", "falsepositives:", "references:"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=catalog");
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
            "    Source {{ name: {:?}, text: include_str!({:?}), lean: {:?} }},",
            name.display().to_string(),
            file.display().to_string(),
            lean(&text)
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

/// The text without the blocks of prose: a block ends at the next line that begins a top-level key or document.
fn lean(text: &str) -> String {
    let mut kept = String::new();
    let mut skipping = false;
    for line in text.lines() {
        let inside =
            line.starts_with([' ', '#']) || line.is_empty() || (line.starts_with('-') && line != "---");
        if !inside {
            skipping = PROSE.iter().any(|key| line.starts_with(key));
        }
        if !skipping {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}
