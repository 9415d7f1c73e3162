//! Tells the program what it was built from, for `lapwing_build_info`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LAPWING_REVISION");
    // Whoever builds a release says which revision it is; a folder of sources does not always know.
    let revision = env::var("LAPWING_REVISION").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=LAPWING_REVISION={revision}");
    println!("cargo::rustc-env=LAPWING_RUSTC={}", compiler().unwrap_or_else(|| "unknown".to_owned()));
}

/// The version of the compiler: the second word of what it says.
fn compiler() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1).map(str::to_owned)
}
