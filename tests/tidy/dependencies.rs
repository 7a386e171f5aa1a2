//! Dependencies are what `deny.toml` allows: licences, forbidden crates, and where they come from.
//!
//! Only what cargo knows of without a network is looked at. Advisories need one; `.ci/full` asks cargo-deny for them.

use crate::Finding;
use crate::sources::Sources;
use serde_json::Value as Json;
use spdx::{Expression, ParseMode};
use std::process::Command;

/// The registry that every dependency comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Dependencies that `deny.toml` does not allow.
pub fn denied(sources: &Sources) -> Vec<Finding> {
    let text = std::fs::read_to_string(sources.root.join("deny.toml")).expect("there is a deny.toml");
    let rules: toml::Table = text.parse().unwrap_or_else(|e| panic!("deny.toml: {e}"));
    let words = |table: &str, list: &str, key: Option<&str>| -> Vec<String> {
        let entries = rules[table][list].as_array().unwrap_or_else(|| panic!("deny.toml: {table}.{list} is a list"));
        let word = |entry: &toml::Value| key.map_or(entry.as_str(), |key| entry[key].as_str()).map(str::to_string);
        entries.iter().filter_map(word).collect()
    };
    let (licences, banned) = (words("licenses", "allow", None), words("bans", "deny", Some("crate")));
    let exceptions = rules["licenses"]["exceptions"].as_array().expect("deny.toml: licenses.exceptions is a list");
    // What is allowed for one crate alone, beside what is allowed for all.
    let allowed_for = |name: &str| -> Vec<String> {
        let own = exceptions.iter().filter(|exception| exception["crate"].as_str() == Some(name));
        let own = own.filter_map(|exception| exception["allow"].as_array()).flatten();
        licences.iter().cloned().chain(own.filter_map(|licence| licence.as_str()).map(str::to_string)).collect()
    };
    let mut findings = Vec::new();
    for package in packages(sources) {
        let name = format!("{} {}", text_of(&package["name"]), text_of(&package["version"]));
        let mut add = |message: String| findings.push(Finding::new("deny.toml", 1, message));
        let licence = text_of(&package["license"]);
        if !is_allowed(licence, &allowed_for(text_of(&package["name"]))) {
            add(format!(
                "{name} has the licence `{licence}`, which is not in the list: do without, or add it with its reason"
            ));
        }
        if banned.iter().any(|banned| banned == text_of(&package["name"])) {
            add(format!("{name} is banned; deny.toml says why"));
        }
        if text_of(&package["source"]) != REGISTRY {
            add(format!("{name} comes from `{}`: depend on a release of crates.io", text_of(&package["source"])));
        }
    }
    findings
}

fn text_of(value: &Json) -> &str {
    value.as_str().unwrap_or("")
}

/// Whether a choice of an expression's licences is in the list.
fn is_allowed(licence: &str, allowed: &[String]) -> bool {
    // Older manifests write `MIT/Apache-2.0` for a choice.
    Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|requirement| allowed.iter().any(|name| *name == requirement.to_string()))
    })
}

/// All packages of the graph on this host but the workspace's own.
fn packages(sources: &Sources) -> Vec<Json> {
    let rustc = Command::new("rustc").arg("-vV").output().expect("there is rustc");
    let about = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let arguments = ["metadata", "--format-version", "1", "--offline", "--filter-platform", host];
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(&sources.root).output().expect("there is cargo");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let graph: Json = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let all = graph["packages"].as_array().expect("a graph has packages");
    all.iter().filter(|package| !package["source"].is_null()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn a_choice_needs_one_licence_of_the_list_and_a_sum_all() {
        let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception"].map(str::to_string);
        for licence in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "Apache-2.0 WITH LLVM-exception"] {
            assert!(is_allowed(licence, &allowed), "{licence}");
        }
        for licence in ["", "GPL-3.0", "Apache-2.0", "MIT AND Unicode-3.0"] {
            assert!(!is_allowed(licence, &allowed), "{licence}");
        }
    }
}
