//! Pages that point to files point to files that are there: links, and paths in `code`.
//!
//! A path in `code` is checked if it begins with a folder of the repository. `*` stands for any name in a folder.

use crate::Finding;
use crate::prose;
use crate::sources::Sources;
use std::fs;
use std::path::Path;

/// Folders whose paths are checked.
const FOLDERS: [&str; 8] = ["ir", "passes", "runtime", "compiler", "tests", "examples", "docs", ".ci"];

/// Links and paths of the README, `docs` and the pages beside the README that lead nowhere.
pub fn dead_paths(sources: &Sources) -> Vec<Finding> {
    let mut pages: Vec<String> = [".", "docs"].into_iter().flat_map(|folder| pages_in(&sources.root, folder)).collect();
    pages.sort();
    let mut findings = Vec::new();
    for page in pages {
        let text = fs::read_to_string(sources.root.join(&page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        let beside = Path::new(&page).parent().unwrap_or(Path::new("")).to_path_buf();
        for (line, block) in prose::blocks(&text) {
            // Without what stands between backticks: `op[1](x)` is no link.
            let plain: String = block.split('`').step_by(2).collect();
            let links = links(&plain).map(|link| beside.join(link));
            let paths = code(&block).filter(|code| is_path(code)).map(|path| Path::new(path).to_path_buf());
            for path in links.chain(paths).filter(|path| !exists(&sources.root, path)) {
                findings.push(Finding::new(&page, line, format!("there is no `{}`", path.display())));
            }
        }
    }
    findings
}

fn pages_in(root: &Path, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let names = entries.map(|entry| entry.expect("a folder can be listed").file_name().to_string_lossy().into_owned());
    let place = |name: String| if folder == "." { name } else { format!("{folder}/{name}") };
    names.filter(|name| name.ends_with(".md")).map(place).collect()
}

/// Targets of `[text](target)` that are files.
fn links(block: &str) -> impl Iterator<Item = &str> {
    let targets = block.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// What stands between backticks.
fn code(block: &str) -> impl Iterator<Item = &str> {
    block.split('`').skip(1).step_by(2)
}

fn is_path(code: &str) -> bool {
    let (folder, rest) = code.split_once('/').unwrap_or((code, ""));
    FOLDERS.contains(&folder) && code.contains('/') && !rest.contains([' ', '{', '<'])
}

fn exists(root: &Path, path: &Path) -> bool {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return true };
    let Some((before, after)) = name.split_once('*') else { return root.join(path).exists() };
    let folder = root.join(path.parent().unwrap_or(Path::new("")));
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with(before) && name.ends_with(after)
    })
}
