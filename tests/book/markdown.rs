//! References of Markdown pages as they lie in the repository, where a reader sees them without the book.
//!
//! A link leads to a file or a folder of the repository, and to a heading of a page. Names of headings are those that code hosts give
//! them.

use crate::BrokenLink;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// Whatever is wrong with these pages of a folder, sorted.
///
/// # Errors
/// A page that cannot be read.
pub fn broken(root: &Path, pages: &[String]) -> io::Result<Vec<BrokenLink>> {
    let mut headings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut links = Vec::new();
    for page in pages {
        let text = fs::read_to_string(root.join(page))?;
        headings.insert(plain(page), names(&text));
        links.extend(addresses(&text).into_iter().map(|(line, address)| (page, line, address)));
    }
    let mut findings = Vec::new();
    for (page, line, address) in links.iter().filter(|(_, _, address)| !address.contains("://")) {
        let (path, part) = address.split_once('#').unwrap_or((address, ""));
        let folder = page.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let target = if path.is_empty() { plain(page) } else { plain(&format!("{folder}{path}")) };
        let mut add = |message: String| findings.push(BrokenLink { file: (*page).clone(), line: *line, message });
        if !root.join(&target).exists() {
            add(format!("`{address}` leads to no file"));
        } else if !part.is_empty() && !headings.get(&target).is_some_and(|names| names.contains(part)) {
            add(format!("`{address}` leads to no heading"));
        }
    }
    findings.sort();
    Ok(findings)
}

/// Addresses of links and pictures, each with its line.
fn addresses(text: &str) -> Vec<(usize, String)> {
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter();
    let address = |(event, range): (Event<'_>, std::ops::Range<usize>)| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some((line(range.start), dest_url.to_string()))
        }
        _ => None,
    };
    events.filter_map(address).collect()
}

/// Names of a page's headings, and ids of HTML in it. Headings are named in small letters, with `-` for spaces and without signs; `-1` and so on where a name comes again.
fn names(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match (event, &mut heading) {
            (Event::Start(Tag::Heading { .. }), _) => heading = Some(String::new()),
            (Event::Text(text) | Event::Code(text), Some(heading)) => *heading += &text,
            // A place that a page names by itself.
            (Event::Html(html) | Event::InlineHtml(html), _) => {
                let id = html.split_once("id=\"").and_then(|(_, rest)| rest.split_once('"'));
                found.extend(id.map(|(id, _)| id.to_string()));
            }
            (Event::End(TagEnd::Heading(_)), _) => {
                let name = name(&heading.take().unwrap_or_default());
                let time = times.entry(name.clone()).or_default();
                found.insert(if *time == 0 { name } else { format!("{name}-{time}") });
                *time += 1;
            }
            _ => {}
        }
    }
    found
}

fn name(heading: &str) -> String {
    let letters = heading.trim().chars().flat_map(char::to_lowercase);
    let kept = letters.filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A path without `.` and `..`.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
