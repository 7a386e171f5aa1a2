//! References of a folder of HTML pages: each leads to a file of the folder, and to a part of it that exists.
//!
//! Only a link that a reader follows may lead to the network: a page fetches nothing by itself.

use crate::BrokenLink;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A reference of a page.
#[derive(Debug)]
struct PageReference {
    line: usize,
    /// Of the element, such as `a` or `img`.
    element: String,
    address: String,
}

/// What a page offers and what it asks for.
#[derive(Debug, Default)]
struct PageLinks {
    ids: BTreeSet<String>,
    references: Vec<PageReference>,
}

/// Whatever is wrong with a folder of pages, sorted.
///
/// # Errors
/// A file that cannot be read.
pub fn broken(folder: &Path) -> io::Result<Vec<BrokenLink>> {
    let files = files(folder)?;
    let mut pages = BTreeMap::new();
    let mut findings = Vec::new();
    for file in &files {
        let path = folder.join(file);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("html") => {
                pages.insert(file.clone(), read(&fs::read_to_string(path)?));
            }
            Some("css") => findings.extend(fetched(file, &fs::read_to_string(path)?)),
            _ => {}
        }
    }
    for (file, page) in &pages {
        for reference in &page.references {
            if let Err(message) = follow(file, reference, &files, &pages) {
                findings.push(BrokenLink { file: file.display().to_string(), line: reference.line, message });
            }
        }
    }
    findings.sort();
    Ok(findings)
}

fn follow(
    file: &Path,
    reference: &PageReference,
    files: &BTreeSet<PathBuf>,
    pages: &BTreeMap<PathBuf, PageLinks>,
) -> Result<(), String> {
    let PageReference { element, address, .. } = reference;
    if address.starts_with("data:") || (element == "a" && address.starts_with("mailto:")) {
        return Ok(());
    }
    if address.starts_with("//") || address.contains("://") {
        let followed = element == "a";
        return if followed { Ok(()) } else { Err(format!("<{element}> fetches `{address}` from the network")) };
    }
    let (path, part) = address.split_once('#').unwrap_or((address, ""));
    let path = path.split('?').next().unwrap_or(path);
    let folder = file.parent().unwrap_or(Path::new(""));
    let target = if path.is_empty() { Some(file.to_path_buf()) } else { inside(&folder.join(path)) };
    let target = target.ok_or_else(|| format!("`{address}` leads out of the book"))?;
    if !files.contains(&target) {
        return Err(format!("`{address}` leads to no file"));
    }
    let Some(target) = pages.get(&target) else { return Ok(()) };
    if part.is_empty() || target.ids.contains(part) { Ok(()) } else { Err(format!("`{address}` leads to no part")) }
}

/// A path without `.` and `..`; none if it leaves the folder.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => plain.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// Addresses in a style sheet that a browser would fetch from the network.
fn fetched(file: &Path, text: &str) -> Vec<BrokenLink> {
    let file = file.display().to_string();
    let fetches =
        |line: &str| ["url(http", "url(\"http", "url('http", "url(//"].iter().any(|start| line.contains(start));
    let lines = (1..).zip(text.lines()).filter(|(_, line)| fetches(line));
    lines
        .map(|(line, text)| BrokenLink { file: file.clone(), line, message: format!("fetches {}", text.trim()) })
        .collect()
}

/// All files below a folder, from it.
fn files(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// Ids and references of a page.
fn read(text: &str) -> PageLinks {
    let input = BufferQueue::default();
    input.push_back(StrTendril::from_slice(text));
    let tokenizer = Tokenizer::new(Collector::default(), TokenizerOpts::default());
    // Scripts are no part of what is read, so a tokenizer that stops for one goes on at once.
    while !input.is_empty() {
        let _ = tokenizer.feed(&input);
    }
    tokenizer.end();
    tokenizer.sink.0.into_inner()
}

#[derive(Debug, Default)]
struct Collector(RefCell<PageLinks>);

impl Collector {
    fn tag(&self, tag: &Tag, line: usize) {
        let mut page = self.0.borrow_mut();
        for attribute in &tag.attrs {
            let (name, value) = (&*attribute.name.local, attribute.value.to_string());
            match (name, &*tag.name) {
                ("id", _) | ("name", "a") => {
                    page.ids.insert(value);
                }
                ("href" | "src" | "data", element) => {
                    page.references.push(PageReference { line, element: element.to_string(), address: value });
                }
                _ => {}
            }
        }
    }
}

impl TokenSink for Collector {
    type Handle = ();

    fn process_token(&self, token: Token, line: u64) -> TokenSinkResult<()> {
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => {
                self.tag(&tag, line as usize);
                // What a script or a style holds are no tags.
                match &*tag.name {
                    "script" => TokenSinkResult::RawData(html5ever::tokenizer::states::RawKind::ScriptData),
                    "style" => TokenSinkResult::RawData(html5ever::tokenizer::states::RawKind::Rawtext),
                    _ => TokenSinkResult::Continue,
                }
            }
            _ => TokenSinkResult::Continue,
        }
    }
}
