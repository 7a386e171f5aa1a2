//! No wildcard in a match over operations: who adds one is told every place to look at by the compiler.
//!
//! A match is over operations where an arm begins with `Op::` or an enum of a dialect, or with `Self::` in their own methods.
//! A wildcard is `_`, or a lone name that the arm does not use; `op => builder.add(op, ..)` copies through and is allowed.

use crate::Finding;
use crate::sources::{Sources, is_for_tests};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Arm, Expr, ExprMatch, ItemImpl, ItemMod, Macro, Pat, Path};

/// The enums of operations.
const OPS: [&str; 8] = ["Op", "LeafOp", "ArrayOp", "DenseOp", "LevelOp", "SpikeOp", "TrainingOp", "Training"];

/// Wildcard arms of matches over operations.
pub fn wildcards(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in sources.files.values().filter(|file| !file.is_test && !file.package.starts_with("tests")) {
        let mut arms = Wildcards { own: false, lines: Vec::new() };
        arms.visit_file(&file.tree);
        for line in arms.lines {
            let message =
                "a wildcard in a match over operations: list the others, or match by dialect (`Op::Level(_)`)";
            findings.push(Finding::new(&file.path, line, message.to_string()));
        }
    }
    findings
}

struct Wildcards {
    /// In an `impl` of an enum of operations, where `Self::` begins their names.
    own: bool,
    lines: Vec<usize>,
}

impl Wildcards {
    fn names_op(&self, pat: &Pat) -> bool {
        let of = |path: &Path| {
            // `Op::Leaf`, `snnc_ir::Op::Leaf`.
            let owner = path.segments.iter().rev().nth(1);
            owner.is_some_and(|owner| OPS.iter().any(|op| owner.ident == op) || self.own && owner.ident == "Self")
        };
        match pat {
            Pat::Path(pat) => of(&pat.path),
            Pat::Struct(pat) => of(&pat.path),
            Pat::TupleStruct(pat) => of(&pat.path),
            Pat::Or(pat) => pat.cases.iter().any(|case| self.names_op(case)),
            Pat::Guard(pat) => self.names_op(&pat.pat),
            Pat::Paren(pat) => self.names_op(&pat.pat),
            Pat::Reference(pat) => self.names_op(&pat.pat),
            Pat::Ident(pat) => pat.subpat.as_ref().is_some_and(|(_, pat)| self.names_op(pat)),
            _ => false,
        }
    }

    /// The line of a wildcard that is this arm.
    fn wildcard(arm: &Arm) -> Option<usize> {
        fn of(pat: &Pat, body: &Expr) -> Option<usize> {
            match pat {
                Pat::Wild(wild) => Some(wild.underscore_token.spans[0].start().line),
                Pat::Ident(name) if name.subpat.is_none() && !uses(body, &name.ident.to_string()) => {
                    Some(name.ident.span().start().line)
                }
                Pat::Or(pat) => pat.cases.iter().find_map(|case| of(case, body)),
                Pat::Paren(pat) => of(&pat.pat, body),
                Pat::Reference(pat) => of(&pat.pat, body),
                _ => None,
            }
        }
        of(&arm.pat, &arm.body)
    }
}

impl<'ast> Visit<'ast> for Wildcards {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let before = self.own;
        if let syn::Type::Path(path) = &*item.self_ty {
            self.own = path.path.segments.last().is_some_and(|last| OPS.iter().any(|op| last.ident == op));
        }
        visit::visit_item_impl(self, item);
        self.own = before;
    }

    fn visit_expr_match(&mut self, expr: &'ast ExprMatch) {
        if expr.arms.iter().any(|arm| self.names_op(&arm.pat)) {
            self.lines.extend(expr.arms.iter().filter_map(Self::wildcard));
        }
        visit::visit_expr_match(self, expr);
    }
}

/// Whether an expression says a name, in macros as well.
fn uses(body: &Expr, name: &str) -> bool {
    struct Uses<'a>(&'a str, bool);
    fn says(tokens: TokenStream, name: &str) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == name,
            TokenTree::Group(group) => says(group.stream(), name),
            TokenTree::Literal(literal) => literal.to_string().contains(&format!("{{{name}")),
            TokenTree::Punct(_) => false,
        })
    }
    impl<'ast> Visit<'ast> for Uses<'_> {
        fn visit_path(&mut self, path: &'ast Path) {
            self.1 |= path.is_ident(self.0);
            visit::visit_path(self, path);
        }

        fn visit_macro(&mut self, item: &'ast Macro) {
            self.1 |= says(item.tokens.clone(), self.0);
        }
    }
    let mut uses = Uses(name, false);
    uses.visit_expr(body);
    uses.1
}
