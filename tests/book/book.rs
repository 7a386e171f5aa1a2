//! The book can be built, and every reference in it and in the pages beside it leads somewhere.

#![allow(clippy::unwrap_used)]

use snnc_book::{BrokenLink, build, html, markdown, repository};
use std::fs;
use std::path::Path;

fn told(findings: &[BrokenLink]) -> String {
    findings.iter().map(BrokenLink::to_string).collect::<Vec<_>>().join("\n")
}

/// The pages in `docs`, from the repository's root, sorted.
fn pages() -> Vec<String> {
    let names = fs::read_dir(repository().join("docs")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut pages: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.sort();
    pages
}

#[test]
fn every_link_of_the_book_leads_somewhere() {
    let folder = repository().join("target/book");
    build(&repository().join("docs"), &folder).unwrap();
    assert!(folder.join("index.html").is_file() && folder.join("how-it-works.html").is_file());
    let findings = html::broken(&folder).unwrap();
    assert!(findings.is_empty(), "{}", told(&findings));
}

#[test]
fn every_link_of_the_repository_leads_somewhere() {
    let mut all = pages();
    all.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_string));
    let findings = markdown::broken(&repository(), &all).unwrap();
    assert!(findings.is_empty(), "{}", told(&findings));
}

/// A page that the list of pages leaves out would be in no book.
#[test]
fn every_page_is_in_the_book() {
    let summary = fs::read_to_string(repository().join("docs/SUMMARY.md")).unwrap();
    for page in pages().iter().filter(|page| *page != "docs/SUMMARY.md") {
        let name = page.strip_prefix("docs/").unwrap();
        assert!(summary.contains(&format!("({name})")), "docs/SUMMARY.md leaves out {name}");
    }
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(repository().join("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "README.md has {lines} lines, 150 are allowed: move tables to docs");
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn broken_links_of_html_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(
        at,
        "b/page.html",
        "<h1 id=\"top\">Top</h1>\n<a href=\"../a.html#here\">a</a><a href=\"https://x.y/z\">z</a>",
    );
    write(at, "a.html", "<p id=\"here\"><a href=\"b/page.html#top\">b</a><img src=\"data:image/png;base64,\"></p>");
    assert_eq!(html::broken(at).unwrap(), []);
    write(
        at,
        "a.html",
        "<script>if (1 < 2) '<a href=\"none.html\">'</script>\n<a href=\"none.html\"></a>\n<a href=\"b/page.html#no\"></a>\n\
         <img src=\"https://x.y/z.png\">\n<a href=\"../../out.html\"></a>",
    );
    let findings = html::broken(at).unwrap();
    let lines: Vec<String> = findings.iter().map(|finding| format!("{}:{}", finding.file, finding.line)).collect();
    assert_eq!(lines, ["a.html:2", "a.html:3", "a.html:4", "a.html:5", "b/page.html:2"], "{}", told(&findings));
    write(at, "a.html", "<p id=\"here\"></p>");
    write(at, "a.css", "a { color: red }\nb { background: url(https://x.y/z.png) }");
    assert_eq!(html::broken(at).unwrap().len(), 1);
}

#[test]
fn broken_links_of_markdown_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let pages = ["README.md", "docs/page.md"].map(str::to_string);
    write(at, "README.md", "# One `two`, three\n\n[a](docs/page.md#head) [b](#one-two-three) [c](https://x.y#z)\n");
    write(at, "docs/page.md", "# Head\n\n## Head\n\n| a |\n|---|\n| [a](../README.md) [b](#head-1) [c](.) |\n");
    assert_eq!(markdown::broken(at, &pages).unwrap(), []);
    write(at, "docs/page.md", "# Other\n\n[a](none.md)\n![b](b.svg)\n");
    let findings = markdown::broken(at, &pages).unwrap();
    let lines: Vec<String> = findings.iter().map(|finding| format!("{}:{}", finding.file, finding.line)).collect();
    assert_eq!(lines, ["README.md:3", "docs/page.md:3", "docs/page.md:4"], "{}", told(&findings));
}
