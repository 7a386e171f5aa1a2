//! Sentences that can be read aloud: at most 35 words, in the README, in `docs` and in the help of the command line.
//!
//! A sentence ends at `.`, `!` or `?` before a space, and with its paragraph, heading, item of a list or cell of a table.
//! Blocks of code do not count; `code` in a sentence is as many words as it has.

use crate::Finding;
use crate::sources::Sources;
use std::fs;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Lit, Meta};

/// Most words of a sentence.
pub const SENTENCE_WORDS_MAX: usize = 35;

/// Sentences of the README, of `docs` and of the command line's help that are too long.
pub fn long_sentences(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut pages = vec!["README.md".to_string()];
    let docs = fs::read_dir(sources.root.join("docs")).expect("there is a folder `docs`");
    let names = docs.map(|entry| entry.expect("a folder can be listed").file_name().to_string_lossy().into_owned());
    pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    pages.sort();
    for page in pages {
        let text = fs::read_to_string(sources.root.join(&page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        for (line, block) in blocks(&text) {
            look(&page, line, &block, &mut findings);
        }
    }
    for file in sources.files.values().filter(|file| file.package.starts_with("compiler")) {
        let mut help = HelpTexts(Vec::new());
        help.visit_file(&file.tree);
        for (line, text) in help.0 {
            for (offset, block) in blocks(&text) {
                look(&file.path, line + offset - 1, &block, &mut findings);
            }
        }
    }
    findings
}

fn look(file: &str, line: usize, block: &str, findings: &mut Vec<Finding>) {
    for sentence in sentences(block) {
        let words = sentence.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count();
        if words > SENTENCE_WORDS_MAX {
            let start: Vec<&str> = sentence.split_whitespace().take(8).collect();
            let message =
                format!("a sentence of {words} words, {SENTENCE_WORDS_MAX} are allowed: \"{} ...\"", start.join(" "));
            findings.push(Finding::new(file, line, message));
        }
    }
}

/// Paragraphs, headings, items and cells of a Markdown text, each with its first line.
pub fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    let mut fence: Option<String> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if let Some(mark) = &fence {
            if trimmed.starts_with(mark.as_str()) {
                fence = None;
            }
            continue;
        }
        if let Some(mark) = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark)) {
            (fence, open) = (Some(mark.to_string()), false);
            continue;
        }
        if trimmed.is_empty() || trimmed.starts_with("<!--") || trimmed.starts_with("![") {
            open = false;
        } else if trimmed.starts_with('|') {
            let cells = trimmed.trim_matches('|').replace("\\|", "/");
            found.extend(cells.split('|').map(|cell| (number, cell.trim().to_string())));
            open = false;
        } else if trimmed.starts_with('#') {
            found.push((number, trimmed.trim_start_matches('#').trim().to_string()));
            open = false;
        } else if let Some(item) = item_of(trimmed) {
            found.push((number, item.to_string()));
            open = true;
        } else if open && let Some((_, block)) = found.last_mut() {
            *block += " ";
            *block += trimmed.trim_start_matches("> ");
        } else if !line.starts_with("    ") {
            found.push((number, trimmed.trim_start_matches("> ").to_string()));
            open = true;
        }
    }
    found
}

/// The text of a list's item.
fn item_of(line: &str) -> Option<&str> {
    let bullet = ["- ", "* ", "+ "].into_iter().find_map(|mark| line.strip_prefix(mark));
    bullet.or_else(|| {
        let (number, rest) = line.split_once(". ")?;
        (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(rest)
    })
}

/// The sentences of a block, links as their text.
pub fn sentences(block: &str) -> Vec<String> {
    let text = without_links(block);
    let mut found = vec![String::new()];
    let mut code = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        code ^= c == '`';
        let last = found.last_mut().expect("there is one");
        last.push(c);
        // `.)` and `."` end one as well.
        let ends = |last: &str| last.trim_end_matches([')', '"', '*', '_']).ends_with(['.', '!', '?']);
        let gap = chars.peek().is_none_or(|next| next.is_whitespace());
        let abbreviated = ["e.g.", "i.e.", "vs.", "cf.", "et al."].iter().any(|short| last.ends_with(short));
        if gap && !code && ends(last) && !abbreviated {
            found.push(String::new());
        }
    }
    found.into_iter().map(|sentence| sentence.trim().to_string()).filter(|sentence| !sentence.is_empty()).collect()
}

/// `[text](address)` becomes `text`.
fn without_links(block: &str) -> String {
    let mut text = String::new();
    let mut rest = block;
    while let Some(at) = rest.find("](") {
        text += &rest[..at];
        rest = rest[at + 2..].split_once(')').map_or("", |(_, rest)| rest);
    }
    text + rest
}

/// What the command line says of its options: doc comments of types that clap derives, of their fields and variants.
struct HelpTexts(Vec<(usize, String)>);

impl HelpTexts {
    fn add(&mut self, attributes: &[Attribute]) {
        let mut lines: Vec<String> = Vec::new();
        let mut first = 0;
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
            if let Meta::NameValue(meta) = &attribute.meta
                && let Expr::Lit(literal) = &meta.value
                && let Lit::Str(text) = &literal.lit
            {
                if lines.is_empty() {
                    first = text.span().start().line;
                }
                lines.push(text.value().trim().to_string());
            }
        }
        if !lines.is_empty() {
            self.0.push((first, lines.join("\n")));
        }
    }
}

fn is_of_clap(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("derive")).any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        let derived = list.tokens.to_string();
        let words: Vec<&str> = derived.split(|c: char| !c.is_alphanumeric()).collect();
        ["Args", "Parser", "Subcommand", "ValueEnum"].iter().any(|name| words.contains(name))
    })
}

impl<'ast> Visit<'ast> for HelpTexts {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if is_of_clap(&item.attrs) {
            self.add(&item.attrs);
            item.fields.iter().for_each(|field| self.add(&field.attrs));
        }
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        if is_of_clap(&item.attrs) {
            self.add(&item.attrs);
            for variant in &item.variants {
                self.add(&variant.attrs);
                variant.fields.iter().for_each(|field| self.add(&field.attrs));
            }
        }
        visit::visit_item_enum(self, item);
    }
}
