//! The rules of the house hold: `cargo test --release -p snnc-tidy -- --nocapture` prints every finding with its place.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

use snnc_tidy::sources::Sources;
use snnc_tidy::{Finding, circles, code, dependencies, docs, ops, prose};
use std::path::Path;

/// A rule: what it is called, its findings, and how many there may be. The last goes down to 0, and never up.
type HouseRule = (&'static str, fn(&Sources) -> Vec<Finding>, usize);

#[rustfmt::skip]
const RULES: [HouseRule; 12] = [
    ("circles of files",           circles::circles,         0),
    ("large crates",               code::large_crates,       0),
    ("duplicate type names",       code::duplicate_types,    0),
    ("long functions",             code::long_functions,     0),
    ("unsafe code",                code::unsafe_code,        0),
    ("printing",                   code::printing,           0),
    ("impure imports",             code::impure_imports,     0),
    ("wildcards over operations",  ops::wildcards,           0),
    ("long sentences",             prose::long_sentences,     0),
    ("missing_docs",               docs::missing_docs_lint,  0),
    ("dependencies",               dependencies::denied,     0),
    ("doc-tests",                  docs::few_doc_tests,      0),
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
    use super::*;
    use std::fs;

    /// A workspace of one package `ir` with these files, and a page.
    fn workspace(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Cargo.toml", "[workspace]\nmembers = [\"ir\"]\n");
        write("ir/Cargo.toml", "");
        write("README.md", "");
        write("docs/page.md", "");
        files.iter().for_each(|(path, text)| write(path, text));
        let sources = Sources::read(folder.path());
        (folder, sources)
    }

    /// The lines of a rule's findings in these files.
    fn lines(rule: fn(&Sources) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, sources) = workspace(files);
        rule(&sources).iter().map(|finding| format!("{}:{}", finding.file, finding.line)).collect()
    }

    #[test]
    fn circles_of_files() {
        let lib = ("ir/src/lib.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod tests;");
        let test = ("ir/src/tests.rs", "use crate::a::A;");
        let to_b = ("ir/src/a.rs", "use crate::b::B;\npub struct A;");
        assert_eq!(lines(circles::circles, &[lib, test, to_b, ("ir/src/b.rs", "pub struct B;")]), [""; 0]);
        for back in ["use super::a::A;", "fn f() -> crate::a::A { todo() }", "fn f() { g!(1, crate::a::A); }"] {
            assert_eq!(lines(circles::circles, &[lib, test, to_b, ("ir/src/b.rs", back)]), ["ir/src/a.rs:1"], "{back}");
        }
        let child = ("ir/src/a.rs", "pub use b::B;\nmod b;\nstruct A;");
        let found = lines(circles::circles, &[("ir/src/lib.rs", "mod a;"), child, ("ir/src/a/b.rs", "use super::A;")]);
        assert_eq!(found, ["ir/src/a.rs:1"]);
    }

    /// A package of one file.
    fn lib(text: &str) -> [(&str, &str); 1] {
        [("ir/src/lib.rs", text)]
    }

    #[test]
    fn names_wildcards_and_places() {
        assert_eq!(lines(code::duplicate_types, &lib("struct A;\nmod m {\n  type A = u8; }")), ["ir/src/lib.rs:3"]);
        assert_eq!(lines(code::unsafe_code, &lib("// unsafe\nfn f() {\n unsafe { g() } }")), ["ir/src/lib.rs:3"]);
        assert_eq!(lines(code::printing, &lib("fn f() {\n println!() }")), ["ir/src/lib.rs:2"]);
        assert_eq!(lines(code::impure_imports, &lib("use std::{fmt,\n time};")), ["ir/src/lib.rs:1"]);
        assert_eq!(lines(docs::missing_docs_lint, &lib("")), ["ir/src/lib.rs:1"]);
        assert_eq!(lines(code::large_crates, &lib("fn f() {}")), ["ir/Cargo.toml:1"]);
        let arms = |last: &str| format!("fn f(op: Op) -> u8 {{ match op {{\n Op::A => 1,\n {last} }} }}");
        for (last, count) in [("_ => 2", 1), ("x => 2", 1), ("x => g(x)", 0), ("Op::B => 2", 0), ("Op::B | _ => 2", 1)]
        {
            assert_eq!(lines(ops::wildcards, &lib(&arms(last))).len(), count, "{last}");
        }
    }

    #[test]
    fn long_functions_and_tables() {
        let rows = "\n    1 => 2,".repeat(90);
        let table = format!("fn f(x: u8) -> u8 {{ let y = x; match y {{{rows}\n _ => 0 }} }}");
        assert_eq!(lines(code::long_functions, &lib(&table)), [""; 0]);
        let statements = format!("fn f() {{{} }}", "\n    g();".repeat(80));
        assert_eq!(lines(code::long_functions, &lib(&statements)), ["ir/src/lib.rs:1"]);
    }

    #[test]
    fn long_sentences() {
        let words = |n: usize| format!("# Head\n\n{}.\n", "word ".repeat(n).trim());
        assert_eq!(lines(prose::long_sentences, &[("docs/page.md", &words(35))]), [""; 0]);
        assert_eq!(lines(prose::long_sentences, &[("docs/page.md", &words(36))]), ["docs/page.md:3"]);
        let help = format!("#[derive(Args)]\nstruct A {{\n    /// {}\n    a: u8 }}", "word ".repeat(36));
        assert_eq!(lines(prose::long_sentences, &lib(&help)), [""; 0], "only the command has help");
    }

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
