//! Left-hand sides: `(add (mul ?x ?g) ?b)`. Heads are operation names, `?x` is any class, `head:label` keeps the
//! operation found there so that the right-hand side can read its attributes. A variable that stands twice must be the
//! same class.

use super::{Term, Terms};
use egg::{Id, Language as _};
use snnc_ir::{Op, Type};

/// A parsed left-hand side.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    Any(String),
    Term { head: String, label: Option<String>, args: Vec<Pattern> },
}

impl Pattern {
    /// Panics on a malformed pattern: patterns are part of the program.
    pub fn parse(text: &str) -> Self {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let mut words = spaced.split_whitespace();
        let pattern = Self::parse_words(&mut words, text);
        assert!(words.next().is_none(), "pattern `{text}` goes on after its end");
        pattern
    }

    fn parse_words<'a>(words: &mut impl Iterator<Item = &'a str>, text: &str) -> Self {
        match words.next() {
            Some("(") => {
                let head = words.next().unwrap_or_else(|| panic!("pattern `{text}` ends early"));
                Self::parse_term(head, words, text)
            }
            Some(word) if word.starts_with('?') => Pattern::Any(word[1..].to_string()),
            other => panic!("pattern `{text}` has {other:?} where a term should stand"),
        }
    }

    fn parse_term<'a>(head: &str, words: &mut impl Iterator<Item = &'a str>, text: &str) -> Self {
        let (head, label) = match head.split_once(':') {
            Some((head, label)) => (head.to_string(), Some(label.to_string())),
            None => (head.to_string(), None),
        };
        let mut args = Vec::new();
        loop {
            match words.next() {
                Some(")") => return Pattern::Term { head, label, args },
                Some("(") => {
                    let inner = words.next().unwrap_or_else(|| panic!("pattern `{text}` ends early"));
                    args.push(Self::parse_term(inner, words, text));
                }
                Some(word) if word.starts_with('?') => args.push(Pattern::Any(word[1..].to_string())),
                other => panic!("pattern `{text}` has {other:?} where a term should stand"),
            }
        }
    }
}

/// One way in which a pattern fits a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub root: Id,
    classes: Vec<(String, Id)>,
    ops: Vec<(String, Op)>,
}

impl Match {
    /// The class that `?name` stands for.
    pub fn class(&self, name: &str) -> Id {
        let found = self.classes.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("the pattern has no ?{name}")).1
    }

    /// The operation that was labelled `name`.
    pub fn op(&self, name: &str) -> Op {
        let found = self.ops.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("the pattern has no label {name}")).1
    }

    /// The operation labelled `name`, if everything with that label is the same operation.
    pub fn same_ops(&self, name: &str) -> Option<Op> {
        let first = self.op(name);
        self.ops.iter().filter(|(n, _)| n == name).all(|(_, op)| *op == first).then_some(first)
    }

    /// Whether the pattern has a `?name`.
    pub fn left_has(&self, name: &str) -> bool {
        self.classes.iter().any(|(n, _)| n == name)
    }

    pub fn ty(&self, terms: &Terms, name: &str) -> Type {
        terms[self.class(name)].data.ty
    }

    pub fn scalar(&self, terms: &Terms, name: &str) -> Option<f32> {
        terms[self.class(name)].data.scalar
    }

    pub fn is_constant(&self, terms: &Terms, name: &str) -> bool {
        terms[self.class(name)].data.constant
    }
}

/// Ways in which `pattern` fits `class`, in the order of the class's terms.
pub fn search(terms: &Terms, pattern: &Pattern, class: Id) -> Vec<Match> {
    let start = Match { root: class, classes: Vec::new(), ops: Vec::new() };
    extend(terms, pattern, class, start)
}

fn extend(terms: &Terms, pattern: &Pattern, class: Id, so_far: Match) -> Vec<Match> {
    let class = terms.find(class);
    match pattern {
        Pattern::Any(name) => match so_far.classes.iter().find(|(n, _)| n == name) {
            Some((_, id)) if terms.find(*id) == class => vec![so_far],
            Some(_) => Vec::new(),
            None => {
                let mut next = so_far;
                next.classes.push((name.clone(), class));
                vec![next]
            }
        },
        Pattern::Term { head, label, args } => {
            let fits = |term: &&Term| term.op.name() == head && term.len() == args.len();
            let with_term = |term: &Term| {
                let mut start = so_far.clone();
                start.ops.extend(label.clone().map(|label| (label, term.op)));
                args.iter().zip(&term.args).fold(vec![start], |matches, (pattern, &arg)| {
                    matches.into_iter().flat_map(|m| extend(terms, pattern, arg, m)).collect()
                })
            };
            terms[class].nodes.iter().filter(fits).flat_map(with_term).collect()
        }
    }
}
