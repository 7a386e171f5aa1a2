//! The rules of the house hold: `cargo test --release -p snnc-tidy -- --nocapture` prints every finding with its place.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

use snnc_tidy::sources::Sources;
use snnc_tidy::{Finding, circles, code, dependencies, docs, ops, prose};
use std::path::Path;

/// A rule: what it is called, its findings, and how many there may be. The last goes down to 0, and never up.
type HouseRule = (&'static str, fn(&Sources) -> Vec<Finding>, usize);

#[rustfmt::skip]
const RULES: [HouseRule; 12] = [
    ("circles of files",           circles::circles,         8),
    ("large crates",               code::large_crates,       0),
    ("duplicate type names",       code::duplicate_types,   65),
    ("long functions",             code::long_functions,    10),
    ("unsafe code",                code::unsafe_code,        0),
    ("printing",                   code::printing,           0),
    ("impure imports",             code::impure_imports,     0),
    ("wildcards over operations",  ops::wildcards,          24),
    ("long sentences",             prose::long_sentences,   67),
    ("missing_docs",               docs::missing_docs_lint,  5),
    ("dependencies",               dependencies::denied,     0),
    ("doc-tests",                  docs::few_doc_tests,      1),
];

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let sources = Sources::read(&root);
    for (package, share) in code::crate_shares(&sources) {
        eprintln!("{package}: {:.1} % of the code", 100.0 * share);
    }
    let mut broken = Vec::new();
    let mut summary = String::new();
    for (rule, find, allowed) in RULES {
        let findings = find(&sources);
        eprintln!("\n--- {rule}");
        findings.iter().for_each(|finding| eprintln!("{finding}"));
        summary += &format!("{rule:<28} {:>4} of {allowed} allowed\n", findings.len());
        if findings.len() > allowed {
            broken.push(rule);
        }
    }
    eprintln!("\n{summary}");
    assert!(broken.is_empty(), "more findings than allowed: {}; they are listed above", broken.join(", "));
}

/// The rules find what they are for: each on the smallest text that breaks it.
mod rules {
    use super::prose;

    #[test]
    fn sentences_end_where_they_end() {
        let block = "One `a.b c` thing. Two, e.g. this (see [there](http://x.y/z)). Three!";
        assert_eq!(prose::sentences(block), ["One `a.b c` thing.", "Two, e.g. this (see [there).", "Three!"]);
    }

    #[test]
    fn blocks_are_paragraphs_items_and_cells() {
        let text = "# Head\n\nOne\ntwo.\n- item\n  more\n\n| a | b |\n\n```\ncode\n```\n";
        let blocks: Vec<String> = prose::blocks(text).into_iter().map(|(_, block)| block).collect();
        assert_eq!(blocks, ["Head", "One two.", "item more", "a", "b"]);
    }
}
