//! Pages for people, their blocks of code, and the commands in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file.
pub struct Page {
    /// From the repository's root.
    pub path: String,
    pub text: String,
}

/// A block of code.
#[derive(Debug)]
pub struct Fence {
    /// Of its first mark, from 1.
    pub line: usize,
    pub language: String,
    /// Without the indent of its first mark.
    pub body: Vec<String>,
    /// What the section around it waits for.
    pub needs: Option<String>,
}

/// A command and what it prints.
#[derive(Debug)]
pub struct ConsoleCommand {
    /// In its page, from 1.
    pub line: usize,
    pub command: String,
    /// Empty where the page shows nothing.
    pub expected: String,
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The README, what contributors read, and all pages of `docs`, by path.
pub fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".to_string(), "CONTRIBUTING.md".to_string()];
    let mut folders = vec!["docs".to_string()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let page = |path: String| Page { text: fs::read_to_string(root().join(&path)).unwrap(), path };
    paths.into_iter().map(page).collect()
}

/// The blocks of a page that marks of three backticks enclose, in order.
pub fn fences(text: &str) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    let mut open: Option<usize> = None;
    let mut needs: Option<String> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        match open {
            Some(_) if trimmed.trim_end() == "```" => open = None,
            Some(outer) => {
                let blank = line.bytes().take(outer).take_while(|&b| b == b' ').count();
                found.last_mut().unwrap().body.push(line[blank..].to_string());
            }
            None => {
                if let Some(language) = trimmed.strip_prefix("```") {
                    let language = language.trim().to_string();
                    found.push(Fence { line: number, language, body: Vec::new(), needs: needs.clone() });
                    open = Some(indent);
                } else if let Some(mark) = trimmed.strip_prefix("<!-- needs: ") {
                    let name = mark.trim_end_matches("-->").trim();
                    needs = (name != "end").then(|| name.to_string());
                }
            }
        }
    }
    found
}

/// The commands of a `console` block. An error says what is no command.
pub fn steps(fence: &Fence) -> Result<Vec<ConsoleCommand>, String> {
    let mut found: Vec<ConsoleCommand> = Vec::new();
    let mut lines = (fence.line + 1..).zip(&fence.body).peekable();
    while let Some((line, text)) = lines.next() {
        if let Some(command) = text.strip_prefix("$ ") {
            let mut command = command.to_string();
            while command.ends_with('\\')
                && let Some((_, more)) = lines.next()
            {
                command.truncate(command.len() - 1);
                command += more.trim_start_matches("> ").trim_start();
            }
            found.push(ConsoleCommand { line, command, expected: String::new() });
        } else {
            let step = found.last_mut().ok_or("a `console` block begins with `$ ` and a command")?;
            step.expected += text;
            step.expected.push('\n');
        }
    }
    Ok(found)
}

/// Calls of snnc in an `sh` block: the line in its page, and the words from the subcommand on.
pub fn calls(fence: &Fence) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut lines = (fence.line + 1..).zip(&fence.body);
    while let Some((line, text)) = lines.next() {
        let mut text = text.trim_end().to_string();
        while text.ends_with('\\')
            && let Some((_, more)) = lines.next()
        {
            text.truncate(text.len() - 1);
            text += more.trim();
        }
        let text = text.split(" #").next().unwrap_or("").trim();
        let call = ["snnc ", "cargo run --release -- "].iter().find_map(|name| text.strip_prefix(name));
        if let Some(call) = call {
            let words = call.split_whitespace().take_while(|word| !["|", ">", "&&", ";"].contains(word));
            found.push((line, words.map(str::to_string).collect()));
        }
    }
    found
}

/// Names of the examples that `console` blocks run.
pub fn examples(pages: &[Page]) -> Vec<String> {
    let mut found = Vec::new();
    for fence in pages.iter().flat_map(|page| fences(&page.text)).filter(|fence| fence.language == "console") {
        let named = fence.body.iter().filter_map(|line| line.split_once(" --example "));
        found.extend(named.filter_map(|(_, rest)| rest.split_whitespace().next().map(str::to_string)));
    }
    found
}
