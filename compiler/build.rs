//! The commit that the command is built from, for `snnc --version --verbose` and the record of a run. A build without git says none.
//!
//! Every commit makes the crate anew. Who does not want that sets `SNNC_COMMIT` to a fixed word.

use std::path::Path;
use std::process::Command;

/// What decides whether sources are those of the commit.
const SOURCES: [&str; 6] = ["../Cargo.toml", "../Cargo.lock", "../ir", "../passes", "../runtime", "."];

fn main() {
    println!("cargo:rerun-if-env-changed=SNNC_COMMIT");
    println!("cargo:rustc-env=SNNC_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    if let Some(given) = std::env::var("SNNC_COMMIT").ok().filter(|given| !given.is_empty()) {
        println!("cargo:rustc-env=SNNC_COMMIT={given}");
        return;
    }
    // A path that is not there would run this script at every build.
    let watched = SOURCES.iter().chain(["../.git/logs/HEAD"].iter()).filter(|path| Path::new(path).exists());
    watched.for_each(|path| println!("cargo:rerun-if-changed={path}"));
    let git =
        |arguments: &[&str]| Command::new("git").args(arguments).output().ok().filter(|done| done.status.success());
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return };
    let commit = String::from_utf8_lossy(&commit.stdout).trim().to_string();
    let edited =
        if git(&[&["diff", "--quiet", "HEAD", "--"], &SOURCES[..]].concat()).is_some() { "" } else { "-edited" };
    println!("cargo:rustc-env=SNNC_COMMIT={commit}{edited}");
}
