//! Left-hand sides: `(add (mul ?x ?g) ?b)`. Heads are operation names, `?x` is any class, `head:label` keeps the
//! operation found there so that the right-hand side can read its attributes. A variable that stands twice must be the
//! same class; a label that stands twice must be the same operation.
//!
//! To egg a pattern is a `Searcher`. Its substitutions bind variables to classes and labels to numbers of operations, which
//! egg's own patterns cannot do: there an attribute is part of the operator's name.

use super::term::{Term, Terms};
use egg::{Id, Language as _, SearchMatches, Searcher, Subst, Var};
use snnc_ir::{Op, Type};

/// A parsed left-hand side.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    tree: Tree,
    /// What variables (`?x`) and labels (`:l`) are called, by the number of their `Var`.
    names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Any(Var),
    Term { head: &'static str, label: Option<Var>, args: Vec<Tree> },
}

/// Words and brackets of a pattern, and the names that were read so far.
struct PatternReader<W> {
    text: &'static str,
    words: W,
    names: Vec<String>,
}

impl<W: Iterator<Item = &'static str>> PatternReader<W> {
    /// What follows, up to and including `)`; `None` for `)` itself.
    fn tree(&mut self) -> Option<Tree> {
        match self.words.next() {
            Some("(") => Some(self.term()),
            Some(")") => None,
            Some(word) if word.len() > 1 && word.starts_with('?') => Some(Tree::Any(self.var(word))),
            other => panic!("pattern `{}` has {other:?} where a term should stand", self.text),
        }
    }

    fn term(&mut self) -> Tree {
        let text = self.text;
        let word = self.words.next().unwrap_or_else(|| panic!("pattern `{text}` ends early"));
        let (head, label) = word.split_once(':').map_or((word, None), |(head, label)| (head, Some(label)));
        let label = label.map(|label| self.var(&format!(":{label}")));
        let args = std::iter::from_fn(|| self.tree()).collect();
        Tree::Term { head, label, args }
    }

    fn var(&mut self, name: &str) -> Var {
        let known = self.names.iter().position(|other| other == name);
        let number = known.unwrap_or_else(|| {
            self.names.push(name.to_string());
            self.names.len() - 1
        });
        Var::from(number as u32)
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// ```
    /// use egg::Searcher as _;
    /// use snnc_passes::egraph::pattern::Pattern;
    ///
    /// // Two variables and a label.
    /// assert_eq!(Pattern::parse("(transpose:t (mul ?x ?s))").vars().len(), 3);
    /// ```
    ///
    /// # Panics
    /// On a malformed pattern: patterns are part of the program.
    pub fn parse(text: &'static str) -> Self {
        let mut reader = PatternReader { text, words: words(text), names: Vec::new() };
        let tree = reader.tree().unwrap_or_else(|| panic!("pattern `{text}` has no beginning"));
        assert!(reader.words.next().is_none(), "pattern `{text}` goes on after its end");
        Self { tree, names: reader.names }
    }

    /// The match that a substitution of this pattern stands for.
    pub fn matched<'a>(&'a self, terms: &'a Terms, root: Id, subst: &'a Subst) -> Match<'a> {
        Match { terms, root, pattern: self, subst }
    }

    #[cfg(test)]
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    fn get(&self, subst: &Subst, name: &str) -> Option<Id> {
        let number = self.names.iter().position(|other| other == name)?;
        subst.get(Var::from(number as u32)).copied()
    }
}

/// Brackets, and what stands between them and spaces.
fn words(text: &'static str) -> impl Iterator<Item = &'static str> {
    let pieces = text.split_inclusive(['(', ')', ' ']);
    let cut = |piece: &'static str| {
        let (word, bracket) = piece.split_at(piece.trim_end_matches(['(', ')']).len());
        [word.trim(), bracket]
    };
    pieces.flat_map(cut).filter(|word| !word.is_empty())
}

impl Searcher<Term, super::term::Facts> for Pattern {
    /// Classes are tried in ascending order, so that the same e-graph gives the same matches in the same order.
    fn search_with_limit(&self, terms: &Terms, limit: usize) -> Vec<SearchMatches<'_, Term>> {
        let mut classes: Vec<Id> = match &self.tree {
            Tree::Any(_) => terms.classes().map(|class| class.id).collect(),
            Tree::Term { head, .. } => terms.classes_for_op(head).into_iter().flatten().collect(),
        };
        classes.sort_unstable();
        let mut left = limit;
        let mut found = Vec::new();
        for class in classes {
            let Some(matches) = self.search_eclass_with_limit(terms, class, left) else { continue };
            left -= matches.substs.len();
            found.push(matches);
            if left == 0 {
                break;
            }
        }
        found
    }

    fn search_eclass_with_limit(&self, terms: &Terms, eclass: Id, limit: usize) -> Option<SearchMatches<'_, Term>> {
        let mut substs = fits(terms, &self.tree, eclass, Subst::with_capacity(self.names.len()));
        substs.truncate(limit);
        (!substs.is_empty()).then_some(SearchMatches { eclass, substs, ast: None })
    }

    fn vars(&self) -> Vec<Var> {
        (0..self.names.len()).map(|number| Var::from(number as u32)).collect()
    }
}

/// Ways in which `tree` fits `class`, in the order of the class's terms.
fn fits(terms: &Terms, tree: &Tree, class: Id, known: Subst) -> Vec<Subst> {
    let class = terms.find(class);
    match tree {
        Tree::Any(var) => bound(*var, class, known).into_iter().collect(),
        Tree::Term { head, label, args } => {
            let candidates =
                terms[class].nodes.iter().filter(|term| term.op.name() == *head && term.len() == args.len());
            let with_term = |term: &Term| {
                let start = match label {
                    Some(label) => bound(*label, number_of(terms, term.op), known.clone()),
                    None => Some(known.clone()),
                };
                args.iter().zip(&term.args).fold(Vec::from_iter(start), |substs, (tree, &arg)| {
                    substs.into_iter().flat_map(|subst| fits(terms, tree, arg, subst)).collect()
                })
            };
            candidates.flat_map(with_term).collect()
        }
    }
}

/// The substitution with a variable more, unless that stands for something else already.
fn bound(var: Var, id: Id, mut subst: Subst) -> Option<Subst> {
    match subst.get(var) {
        Some(&known) => (known == id).then_some(subst),
        None => {
            subst.insert(var, id);
            Some(subst)
        }
    }
}

/// An operation as what a substitution can hold.
fn number_of(terms: &Terms, op: Op) -> Id {
    let number = terms.analysis.ops.get_index_of(&op);
    Id::from(number.unwrap_or_else(|| unreachable!("terms are added with their operations")))
}

/// One way in which a pattern fits a class.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// The e-graph.
    pub terms: &'a Terms,
    /// The class that matched.
    pub root: Id,
    pattern: &'a Pattern,
    subst: &'a Subst,
}

impl Match<'_> {
    /// The class that `?name` stands for.
    pub fn class(&self, name: &str) -> Id {
        self.pattern.get(self.subst, &format!("?{name}")).unwrap_or_else(|| panic!("the pattern has no ?{name}"))
    }

    /// The operation that was labelled `name`.
    pub fn op(&self, name: &str) -> Op {
        let number = self.pattern.get(self.subst, &format!(":{name}"));
        let number = number.unwrap_or_else(|| panic!("the pattern has no label {name}"));
        self.terms.analysis.ops[usize::from(number)]
    }

    /// Whether the pattern has a `?name`.
    pub fn has(&self, name: &str) -> bool {
        self.pattern.names.iter().any(|other| other.strip_prefix('?') == Some(name))
    }

    /// The type of `?name`.
    pub fn ty(&self, name: &str) -> Type {
        self.terms[self.class(name)].data.ty
    }

    /// The type of the value that matched.
    pub fn root_ty(&self) -> Type {
        self.terms[self.root].data.ty
    }

    /// The number that `?name` is, where that is known.
    pub fn scalar(&self, name: &str) -> Option<f32> {
        self.terms[self.class(name)].data.scalar
    }

    /// Whether `?name` depends on constants only.
    pub fn is_constant(&self, name: &str) -> bool {
        self.terms[self.class(name)].data.constant
    }

    /// Whether the value that matched depends on constants only.
    pub fn is_root_constant(&self) -> bool {
        self.terms[self.root].data.constant
    }
}
