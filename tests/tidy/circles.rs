//! The files of a crate form a graph without circles.
//!
//! File A points to file B where A names an item of B's module by a path that begins with `crate`, `super`, `self` or one of
//! A's own modules. `mod b;` alone is no arrow. A path points to the deepest module that it names, so an item named through
//! a re-export points to the file with the re-export. Code for tests does not count.

use crate::Finding;
use crate::sources::{ModuleTree, Sources, is_for_tests};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};
use syn::{ImplItemFn, ItemFn, ItemMod, ItemUse, Macro, Path, UseTree, Visibility};

/// Arrows from file to file: the line of the first one, and what it names.
type Arrows = BTreeMap<String, BTreeMap<String, (usize, String)>>;

/// One finding for each set of files that reach each other.
pub fn circles(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for tree in &sources.crates {
        let arrows = arrows(sources, tree);
        for files in strongly_connected(&arrows) {
            let way = shortest_circle(&arrows, &files);
            let mut message =
                format!("a circle of {} files; take a part that two need into a file below both:", files.len());
            for (from, to) in way.iter().zip(way.iter().cycle().skip(1)) {
                let (line, named) = &arrows[from][to];
                message += &format!("\n    {from}:{line} names `{named}` of {to}");
            }
            if files.len() > way.len() {
                message += "\n    all arrows inside:";
                for from in &files {
                    for (to, (line, named)) in arrows[from].iter().filter(|(to, _)| files.contains(*to)) {
                        message += &format!("\n      {from}:{line} -> {to} (`{named}`)");
                    }
                }
            }
            let first = files.first().expect("a circle has files");
            findings.push(Finding::new(
                first,
                arrows[first].values().map(|(line, _)| *line).min().unwrap_or(1),
                message,
            ));
        }
    }
    findings
}

fn arrows(sources: &Sources, tree: &ModuleTree) -> Arrows {
    let mut arrows = Arrows::new();
    for (module, path) in &tree.modules {
        let file = &sources.files[path];
        arrows.entry(path.clone()).or_default();
        if file.is_test {
            continue;
        }
        let mut names = PathFinder { tree, module: module.clone(), found: Vec::new() };
        names.visit_file(&file.tree);
        for (to, line, named) in names.found {
            if to != *path && !sources.files[&to].is_test {
                arrows.entry(path.clone()).or_default().entry(to).or_insert((line, named));
            }
        }
    }
    arrows
}

/// Collects the files that a file's paths point to.
struct PathFinder<'a> {
    tree: &'a ModuleTree,
    /// Where the visitor is: the file's module and inline modules in it.
    module: Vec<String>,
    found: Vec<(String, usize, String)>,
}

impl PathFinder<'_> {
    /// Where a path leads from here, if it stays in the crate.
    fn resolve(&self, segments: &[String]) -> Option<(String, String)> {
        let mut at = self.module.clone();
        let mut rest = segments;
        match segments.first()?.as_str() {
            "crate" | "$crate" => {
                at.clear();
                rest = &segments[1..];
            }
            "self" => rest = &segments[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    at.pop()?;
                    rest = &rest[1..];
                }
            }
            first => {
                let child = [&at[..], &[first.to_string()]].concat();
                self.tree.modules.get(&child)?;
            }
        }
        while let Some(next) = rest.first() {
            let below = [&at[..], std::slice::from_ref(next)].concat();
            if !self.tree.modules.contains_key(&below) {
                break;
            }
            at = below;
            rest = &rest[1..];
        }
        // An inline module is in the file of the nearest module that is a file.
        while !self.tree.modules.contains_key(&at) {
            at.pop()?;
        }
        Some((self.tree.modules[&at].clone(), segments.join("::")))
    }

    fn add(&mut self, segments: &[String], line: usize) {
        if let Some((file, named)) = self.resolve(segments) {
            self.found.push((file, line, named));
        }
    }

    fn add_use(&mut self, tree: &UseTree, before: &[String]) {
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &[before, &[path.ident.to_string()]].concat()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, before)),
            UseTree::Name(name) if name.ident == "self" => self.add(before, name.ident.span().start().line),
            UseTree::Name(name) => {
                self.add(&[before, &[name.ident.to_string()]].concat(), name.ident.span().start().line);
            }
            UseTree::Rename(rename) => {
                self.add(&[before, &[rename.ident.to_string()]].concat(), rename.ident.span().start().line);
            }
            UseTree::Glob(glob) => self.add(before, glob.star_token.spans[0].start().line),
        }
    }

    /// Paths in what a macro is given, which is not parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match &token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        if path.len() > 1 {
                            self.add(&path, line);
                        }
                        path.clear();
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Punct(_) | TokenTree::Literal(_) | TokenTree::Group(_) => {
                    if path.len() > 1 {
                        self.add(&path, line);
                    }
                    path.clear();
                    colons = 0;
                }
            }
            if let TokenTree::Group(group) = token {
                self.scan(group.stream());
            }
        }
        if path.len() > 1 {
            self.add(&path, line);
        }
    }
}

impl<'ast> Visit<'ast> for PathFinder<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if is_for_tests(&item.attrs) || item.content.is_none() {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.add_use(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.add(&segments, path.segments[0].ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        visit::visit_macro(self, item);
        self.scan(item.tokens.clone());
    }

    // `pub(super)` says who may name an item; it names none.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Sets of two files and more that reach each other.
fn strongly_connected(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            for to in arrows[at].keys() {
                if seen.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = arrows.keys().map(|file| (file, reach(file))).collect();
    let mut sets = BTreeSet::new();
    for (file, below) in &reached {
        let set: BTreeSet<String> = below.iter().filter(|other| reached[other].contains(*file)).cloned().collect();
        if set.len() > 1 {
            sets.insert(set);
        }
    }
    sets.into_iter().collect()
}

/// The files of a shortest circle in a set, in order.
fn shortest_circle(arrows: &Arrows, files: &BTreeSet<String>) -> Vec<String> {
    let circle_from = |start: &String| -> Option<Vec<String>> {
        let mut ways = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in &ways {
                for to in arrows[way.last()?].keys().filter(|to| files.contains(*to)) {
                    if to == start {
                        return Some(way.clone());
                    }
                    if seen.insert(to.clone()) {
                        longer.push([&way[..], std::slice::from_ref(to)].concat());
                    }
                }
            }
            ways = longer;
        }
        None
    };
    files.iter().filter_map(circle_from).min_by_key(Vec::len).unwrap_or_default()
}
