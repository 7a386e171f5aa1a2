//! Documentation that the compiler and the tests hold: `missing_docs` is warned of, and examples in docs run.

use crate::Finding;
use crate::sources::Sources;
use std::collections::BTreeMap;
use syn::Meta;
use syn::visit::Visit;
use syn::{Attribute, Expr, Lit};

/// Doc-tests that the product's crates have at least, together.
pub const DOC_TESTS_MIN: usize = 30;

/// Packages whose doc-tests count.
fn is_product(package: &str) -> bool {
    !["tests", "tests/tidy", "examples"].contains(&package)
}

/// Libraries that do not warn of public items without docs.
pub fn missing_docs_lint(sources: &Sources) -> Vec<Finding> {
    let roots = sources.files.values().filter(|file| {
        let inside = file.path.strip_prefix(&format!("{}/", file.package)).unwrap_or("");
        inside == "src/lib.rs" || inside == "lib.rs"
    });
    let warns = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) => {
            ["warn", "deny", "forbid"].iter().any(|level| list.path.is_ident(level))
                && list.tokens.to_string().contains("missing_docs")
        }
        Meta::Path(_) | Meta::NameValue(_) => false,
    };
    roots
        .filter(|file| !file.tree.attrs.iter().any(warns))
        .map(|file| Finding::new(&file.path, 1, "add `#![warn(missing_docs)]`, and docs where it then warns".into()))
        .collect()
}

/// One finding where there are fewer doc-tests than [`DOC_TESTS_MIN`].
pub fn few_doc_tests(sources: &Sources) -> Vec<Finding> {
    let counts = doc_tests(sources);
    let all: usize = counts.values().sum();
    let message = || format!("{all} doc-tests, {DOC_TESTS_MIN} are wanted: {counts:?}");
    if all < DOC_TESTS_MIN { vec![Finding::new("Cargo.toml", 1, message())] } else { Vec::new() }
}

/// Doc-tests of each package that run: blocks of code in docs without `ignore`, `no_run` or another language.
fn doc_tests(sources: &Sources) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for file in sources.files.values().filter(|file| is_product(&file.package) && !file.is_test) {
        let mut texts = DocTexts(String::new());
        texts.visit_file(&file.tree);
        let mut open = false;
        for line in texts.0.lines().filter_map(|line| line.trim().strip_prefix("```")) {
            let runs = line.split(',').all(|word| ["", "rust", "should_panic"].contains(&word.trim()));
            *counts.entry(file.package.clone()).or_default() += usize::from(!open && runs);
            open = !open;
        }
    }
    counts
}

/// All doc comments of a file, one after another.
struct DocTexts(String);

impl<'ast> Visit<'ast> for DocTexts {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("doc")
            && let Meta::NameValue(meta) = &attribute.meta
            && let Expr::Lit(literal) = &meta.value
            && let Lit::Str(text) = &literal.lit
        {
            self.0 += &text.value();
            self.0 += "\n";
        }
    }
}
