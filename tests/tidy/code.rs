//! Rules about the shape of code: sizes of crates and functions, names of types, where unsafe code and printing may be, and
//! what pure crates do not touch.

use crate::Finding;
use crate::sources::{SourceFile, Sources, is_for_tests};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeMap;
use syn::visit::{self, Visit};
use syn::{Block, Expr, Ident, ImplItemFn, ItemFn, ItemMod, Signature, Stmt, TraitItemFn, UseTree};

/// Most lines of a function that is not one table.
pub const FUNCTION_LINES_MAX: usize = 80;

/// Most lines of one arm, or element, of a table. A longer one is a function without a name.
const TABLE_ROW_LINES_MAX: usize = 30;

/// Most lines before the table in a function that is one.
const TABLE_PREFACE_LINES_MAX: usize = 12;

/// The largest crate's share of all lines of code.
pub const CRATE_SHARE_MAX: f64 = 0.35;

/// Packages that are no part of the product.
const NOT_PRODUCT: [&str; 3] = ["tests", "tests/tidy", "examples"];

/// Files, or folders where the name ends in `/`, that may have unsafe code, each block with its proof.
const UNSAFE_ALLOWED: [&str; 7] = [
    // Executable memory and calls into it.
    "runtime/src/jit/memory.rs",
    "runtime/src/jit/loop_call.rs",
    // Closures that threads borrow.
    "runtime/src/pool.rs",
    // Vector instructions.
    "runtime/src/kernels/",
    // Files mapped into memory.
    "compiler/src/files.rs",
    "compiler/onnx/src/mmap.rs",
    // Functions that C calls by name, and pointers that it passes.
    "compiler/c/src/",
];

/// Files, or folders, that may print.
const PRINT_ALLOWED: [&str; 4] = ["compiler/cli/", "compiler/build.rs", "tests/", "examples/"];

/// Packages that are functions from values to values.
const PURE: [&str; 2] = ["ir", "passes"];

/// Modules and crates that a pure package does not import: files, network, processes, threads, clocks, environment, chance.
const IMPURE: [&str; 12] =
    ["fs", "net", "process", "thread", "time", "env", "os", "rand", "getrandom", "rayon", "rustix", "memmap2"];

/// Crates of the product with more than [`CRATE_SHARE_MAX`] of its lines of code.
pub fn large_crates(sources: &Sources) -> Vec<Finding> {
    let large = crate_shares(sources).into_iter().filter(|(_, share)| *share > CRATE_SHARE_MAX);
    large
        .map(|(package, share)| {
            let (share, most) = (100.0 * share, 100.0 * CRATE_SHARE_MAX);
            let message = format!(
                "this crate has {share:.1} % of the code, {most:.0} % are allowed: move a folder of it into a crate of its own"
            );
            Finding::new(&format!("{package}/Cargo.toml"), 1, message)
        })
        .collect()
}

/// Each crate's share of the product's lines of code.
pub fn crate_shares(sources: &Sources) -> BTreeMap<String, f64> {
    let sizes = crate_sizes(sources);
    let all: usize = sizes.values().sum();
    sizes.into_iter().map(|(package, lines)| (package, lines as f64 / all as f64)).collect()
}

/// Lines of code of each crate of the product: neither blank, nor comments, nor for tests.
fn crate_sizes(sources: &Sources) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    for file in sources.files.values().filter(|file| !NOT_PRODUCT.contains(&file.package.as_str())) {
        if !file.is_test {
            *sizes.entry(file.package.clone()).or_default() += code_lines(file);
        }
    }
    sizes
}

/// Lines with a token on them, without those of inline test modules.
fn code_lines(file: &SourceFile) -> usize {
    let mut tested = TestLines(Vec::new());
    tested.visit_file(&file.tree);
    let is_code = |(i, line): &(usize, &str)| {
        let line = line.trim();
        !line.is_empty()
            && !line.starts_with("//")
            && !tested.0.iter().any(|&(from, to)| (from..=to).contains(&(i + 1)))
    };
    file.text.lines().enumerate().filter(is_code).count()
}

/// First and last lines of inline test modules.
struct TestLines(Vec<(usize, usize)>);

impl<'ast> Visit<'ast> for TestLines {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if let (true, Some((brace, _))) = (is_for_tests(&item.attrs), &item.content) {
            self.0.push((item.mod_token.span.start().line, brace.span.close().end().line));
        }
        visit::visit_item_mod(self, item);
    }
}

/// Names that two types of the workspace share.
pub fn duplicate_types(sources: &Sources) -> Vec<Finding> {
    let mut types: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    for file in sources.files.values() {
        let mut names = TypeNames(Vec::new());
        names.visit_file(&file.tree);
        for (name, line) in names.0 {
            types.entry(name).or_default().push((file.path.clone(), line));
        }
    }
    let shared = types.into_iter().filter(|(_, places)| places.len() > 1);
    shared
        .map(|(name, mut places)| {
            // The package that others build on keeps the name.
            places.sort_by_key(|(path, line)| (rank(sources, path), path.clone(), *line));
            let all: Vec<String> = places.iter().map(|(path, line)| format!("{path}:{line}")).collect();
            let (path, line) = places.last().expect("there are two");
            let message = format!(
                "the type name `{name}` has {} meanings ({}); rename all but the first",
                all.len(),
                all.join(", ")
            );
            Finding::new(path, *line, message)
        })
        .collect()
}

fn rank(sources: &Sources, path: &str) -> usize {
    const ORDER: [&str; 8] =
        ["ir", "passes", "runtime", "compiler/onnx", "compiler", "compiler/cli", "tests", "tests/tidy"];
    let package = sources.files[path].package.as_str();
    ORDER.iter().position(|&other| other == package).unwrap_or(ORDER.len())
}

/// Names of structs, enums, unions, traits and aliases, at whatever depth.
struct TypeNames(Vec<(String, usize)>);

impl TypeNames {
    fn add(&mut self, ident: &Ident) {
        self.0.push((ident.to_string(), ident.span().start().line));
    }
}

impl<'ast> Visit<'ast> for TypeNames {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add(&item.ident);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.add(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add(&item.ident);
    }
}

/// Functions of more than [`FUNCTION_LINES_MAX`] lines that are not one table.
///
/// A table is a body whose last expression is one `match`, array, `vec![]` or `json!{}`, plain or as the only argument of a
/// call such as `Ok(...)`. Before it are only items and at most 12 lines of `let`; no arm has more than 30 lines.
pub fn long_functions(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in sources.files.values() {
        let mut functions = LongFunctions(Vec::new());
        functions.visit_file(&file.tree);
        for (line, message) in functions.0 {
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    findings
}

struct LongFunctions(Vec<(usize, String)>);

impl LongFunctions {
    fn look(&mut self, sig: &Signature, block: &Block) {
        let first = sig.fn_token.span.start().line;
        let lines = block.brace_token.span.close().end().line + 1 - first;
        if lines <= FUNCTION_LINES_MAX {
            return;
        }
        if let Err(why) = is_table(block) {
            let name = &sig.ident;
            let most = FUNCTION_LINES_MAX;
            let message = format!(
                "`{name}` has {lines} lines, {most} are allowed unless it is one table ({why}): name its parts"
            );
            self.0.push((first, message));
        }
    }
}

impl<'ast> Visit<'ast> for LongFunctions {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.look(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.look(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.look(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Whether a body is one table, or why it is none.
fn is_table(block: &Block) -> Result<(), String> {
    let Some((Stmt::Expr(last, None), before)) = block.stmts.split_last() else {
        return Err("it does not end with a `match` or an array".into());
    };
    if !before.iter().all(|stmt| matches!(stmt, Stmt::Local(_) | Stmt::Item(_))) {
        return Err("before the table are statements other than `let`".into());
    }
    let first = table_of(last)?;
    let items: usize = before.iter().map(item_lines).sum();
    let preface = (first - 1).saturating_sub(block.brace_token.span.open().start().line + items);
    if preface > TABLE_PREFACE_LINES_MAX {
        return Err(format!("{preface} lines of `let` before the table, {TABLE_PREFACE_LINES_MAX} are allowed"));
    }
    Ok(())
}

/// Lines of a function inside a function.
fn item_lines(stmt: &Stmt) -> usize {
    match stmt {
        Stmt::Item(syn::Item::Fn(item)) => {
            item.block.brace_token.span.close().end().line + 1 - item.sig.fn_token.span.start().line
        }
        _ => 0,
    }
}

/// The first line of a table with short rows, or why it is none.
fn table_of(expr: &Expr) -> Result<usize, String> {
    let none = || Err("it does not end with a `match` or an array".to_string());
    match expr {
        Expr::Match(table) => {
            for arm in &table.arms {
                let start = arm.fat_arrow_token.spans[0].start().line;
                let end = arm.comma.as_ref().map_or_else(|| end_of(&arm.body), |comma| comma.spans[0].start().line);
                let lines = (end + 1).saturating_sub(start);
                if lines > TABLE_ROW_LINES_MAX {
                    return Err(format!(
                        "the arm at line {start} has {lines} lines, {TABLE_ROW_LINES_MAX} are allowed"
                    ));
                }
            }
            Ok(table.match_token.span.start().line)
        }
        Expr::Array(table) => Ok(table.bracket_token.span.open().start().line),
        Expr::Macro(call) => match call.mac.path.segments.last() {
            Some(name) if name.ident == "vec" || name.ident == "json" => Ok(name.ident.span().start().line),
            _ => none(),
        },
        Expr::Call(call) if call.args.len() == 1 => table_of(&call.args[0]),
        Expr::Reference(reference) => table_of(&reference.expr),
        Expr::Try(tried) => table_of(&tried.expr),
        Expr::Paren(paren) => table_of(&paren.expr),
        _ => none(),
    }
}

/// The last line of an arm's body where it is a block; 0 where that is not known.
fn end_of(expr: &Expr) -> usize {
    match expr {
        Expr::Block(block) => block.block.brace_token.span.close().end().line,
        Expr::Match(table) => table.brace_token.span.close().end().line,
        _ => 0,
    }
}

/// `unsafe` in files that are not listed in `UNSAFE_ALLOWED`.
pub fn unsafe_code(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in sources.files.values().filter(|file| !is_among(&file.path, &UNSAFE_ALLOWED)) {
        for line in lines_of_idents(&file.text, &["unsafe"]) {
            let message = "unsafe code is allowed in few files, which tests/tidy/code.rs lists; do without".to_string();
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    findings
}

/// Printing outside the command line, tests and examples.
pub fn printing(sources: &Sources) -> Vec<Finding> {
    const MACROS: [&str; 7] = ["print", "println", "eprint", "eprintln", "dbg", "stdout", "stderr"];
    let mut findings = Vec::new();
    for file in sources.files.values().filter(|file| !is_among(&file.path, &PRINT_ALLOWED) && !file.is_test) {
        for (line, text) in (1..).zip(file.text.lines()) {
            let code = text.split("//").next().unwrap_or("");
            let printed = MACROS.iter().any(|name| {
                code.contains(&format!("{name}!(")) && !code.contains(&format!("_{name}!("))
                    || code.contains(&format!("io::{name}()"))
            });
            if printed {
                let message = "only the command line prints; return the text, or report it by a callback".to_string();
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

fn is_among(path: &str, names: &[&str]) -> bool {
    names.iter().any(|name| if name.ends_with('/') { path.starts_with(name) } else { path == *name })
}

/// Lines on which one of these words is a token, so neither a comment nor a part of a text.
fn lines_of_idents(text: &str, words: &[&str]) -> Vec<usize> {
    fn scan(tokens: TokenStream, words: &[&str], lines: &mut Vec<usize>) {
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if words.contains(&ident.to_string().as_str()) => {
                    lines.push(ident.span().start().line);
                }
                TokenTree::Group(group) => scan(group.stream(), words, lines),
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
    let mut lines = Vec::new();
    scan(text.parse().expect("the file was parsed before"), words, &mut lines);
    lines
}

/// Imports of files, clocks, threads and the like in packages that are functions from values to values.
pub fn impure_imports(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pure = sources.files.values().filter(|file| PURE.contains(&file.package.as_str()) && !file.is_test);
    for file in pure {
        let mut names = ImpureNames(Vec::new());
        names.visit_file(&file.tree);
        for (name, line) in names.0 {
            let message = format!(
                "`{name}` is not for `{}`, whose functions depend on their arguments alone; take the value as one",
                file.package
            );
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    findings
}

struct ImpureNames(Vec<(String, usize)>);

impl ImpureNames {
    fn add(&mut self, segments: &[&Ident]) {
        let words: Vec<String> = segments.iter().map(|ident| ident.to_string()).collect();
        // A length of time is a value; only a clock is none.
        let of_std = words[0] == "std"
            && words.get(1).is_some_and(|word| IMPURE.contains(&word.as_str()))
            && words[1..] != ["time", "Duration"];
        if of_std || IMPURE.contains(&words[0].as_str()) && words.len() > 1 {
            self.0.push((words.join("::"), segments[0].span().start().line));
        }
    }

    fn add_use<'a>(&mut self, tree: &'a UseTree, before: &[&'a Ident]) {
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &[before, &[&path.ident]].concat()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, before)),
            UseTree::Name(name) => self.add(&[before, &[&name.ident]].concat()),
            UseTree::Rename(rename) => self.add(&[before, &[&rename.ident]].concat()),
            UseTree::Glob(_) if !before.is_empty() => self.add(before),
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for ImpureNames {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments: Vec<&Ident> = path.segments.iter().map(|segment| &segment.ident).collect();
            self.add(&segments);
        }
        visit::visit_path(self, path);
    }
}
