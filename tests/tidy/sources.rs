//! All sources of the workspace: which files there are, which crate and module each belongs to, and their syntax trees.
//!
//! Modules that only tests compile (`#[cfg(test)]`) are known as such; `vendor`, `target` and hidden folders are not looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, Item};

/// A Rust file.
pub struct SourceFile {
    /// From the repository's root, with `/`.
    pub path: String,
    /// Of the folder that has its crate's manifest.
    pub package: String,
    /// The whole text.
    pub text: String,
    /// Its tree.
    pub tree: syn::File,
    /// Only tests compile it.
    pub is_test: bool,
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A crate: a root file and the modules below it.
#[derive(Debug)]
pub struct ModuleTree {
    /// Modules by their path from the root, such as `["jit", "memory"]`, with the file that defines each.
    pub modules: BTreeMap<Vec<String>, String>,
}

/// Everything that rules read.
#[derive(Debug)]
pub struct Sources {
    /// The repository.
    pub root: PathBuf,
    /// Folders of the workspace's packages.
    pub packages: Vec<String>,
    /// All Rust files, by path.
    pub files: BTreeMap<String, SourceFile>,
    /// One tree for each library, program, test and example.
    pub crates: Vec<ModuleTree>,
}

impl Sources {
    /// Reads a repository. Panics with a sentence where a file cannot be read or parsed.
    pub fn read(root: &Path) -> Self {
        let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace has a manifest");
        let manifest: toml::Table = manifest.parse().expect("the manifest is TOML");
        let members = manifest["workspace"]["members"].as_array().expect("the workspace has members");
        let packages: Vec<String> = members.iter().filter_map(|m| m.as_str()).map(str::to_string).collect();
        let mut files = BTreeMap::new();
        for package in &packages {
            for path in rust_files(root, package, &packages) {
                let text = fs::read_to_string(root.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
                let tree = syn::parse_file(&text).unwrap_or_else(|e| panic!("{path}:{}: {e}", e.span().start().line));
                files.insert(path.clone(), SourceFile { path, package: package.clone(), text, tree, is_test: false });
            }
        }
        let mut sources = Self { root: root.to_path_buf(), packages, files, crates: Vec::new() };
        for file in sources.roots() {
            let mut tree = ModuleTree { modules: BTreeMap::new() };
            let mut tested = Vec::new();
            sources.descend(&file, &file, Vec::new(), false, &mut tree, &mut tested);
            sources.crates.push(tree);
            for path in tested {
                sources.files.get_mut(&path).expect("a module's file is a file").is_test = true;
            }
        }
        sources
    }

    /// Files that are no module of another file: each is the root of a crate.
    fn roots(&self) -> Vec<String> {
        let mut children = Vec::new();
        for file in self.files.values() {
            for item in &file.tree.items {
                children.extend(self.children(&file.path, &file.path, item).into_iter().map(|(_, path, _)| path));
            }
        }
        self.files.keys().filter(|path| !children.contains(path)).cloned().collect()
    }

    /// The modules that an item declares in files of their own: name, file, and whether only tests compile it.
    fn children(&self, file: &str, at: &str, item: &Item) -> Vec<(String, String, bool)> {
        let Item::Mod(module) = item else { return Vec::new() };
        if module.content.is_some() {
            return Vec::new();
        }
        let name = module.ident.to_string();
        // `mod.rs`, `lib.rs`, `main.rs` and other roots own their folder; `x.rs` owns the folder `x`.
        let path = Path::new(at);
        let folder = path.parent().unwrap_or(Path::new(""));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let below = folder.join(&stem);
        let candidates = [folder, &below].map(|folder| {
            [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")]
                .map(|path| path.to_string_lossy().replace('\\', "/"))
        });
        // A file that is neither a root nor a `mod.rs` looks below itself first.
        let own = ["mod", "lib", "main"].contains(&stem.as_str());
        let [folder, below] = candidates;
        let order = if own { [folder, below] } else { [below, folder] };
        let found = order.concat().into_iter().find(|path| self.files.contains_key(path) && path != file);
        found.map(|path| (name, path, is_for_tests(&module.attrs))).into_iter().collect()
    }

    fn descend(
        &self,
        root: &str,
        file: &str,
        module: Vec<String>,
        tested: bool,
        tree: &mut ModuleTree,
        tests: &mut Vec<String>,
    ) {
        tree.modules.insert(module.clone(), file.to_string());
        if tested {
            tests.push(file.to_string());
        }
        for item in &self.files[file].tree.items {
            for (name, path, for_tests) in self.children(root, file, item) {
                let below = [&module[..], &[name]].concat();
                self.descend(root, &path, below, tested || for_tests, tree, tests);
            }
        }
    }
}

/// `#[cfg(test)]`, alone or in a condition.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let words = list.tokens.to_string();
            words.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "test") && !words.contains("not")
        }
        _ => false,
    })
}

/// All `.rs` files of a package, without those of packages inside it.
fn rust_files(root: &Path, package: &str, packages: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![package.to_string()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        for entry in entries {
            let entry = entry.expect("a folder can be listed");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/{name}");
            if entry.path().is_dir() {
                let skipped = name.starts_with('.') || name == "target" || packages.contains(&path);
                // The fuzz targets are a workspace of their own.
                if !skipped && !entry.path().join("Cargo.toml").is_file() {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
