//! Programs whose weights are written down instead of stored: tests say how a weight's elements are made.
//!
//! ```text
//! weight @w : i8[4,4] = fill(seed=7)                  // any int8 weights
//! weight @n : i4<32>[64,4] = fill(seed=7)             // any levels and multipliers; with bounds all multipliers are 1
//! weight @x : f32[4] = fill(seed=3, low=0, high=1)    // numbers between two bounds, both included
//! weight @h : i32[2] = fill(seed=5, powers=4)         // powers of two, from 1 to 2^4
//! weight @gain : f32[4] = fill(value=0.5)             // one number
//! weight @bias : f32[3] = [1, -2, 0.5]                // these numbers, row by row
//! ```
//!
//! The numbers of a seed are the same everywhere. Those that are f32 lie on a grid of sixteen steps between the bounds, so
//! that they print short and their sums and products are exact. What follows `;` on a line is a comment.
//! No `.snn` file holds such a rule: only `parse_filled` reads them.

use crate::diagnostic::Diagnostics;
use crate::graph::{Graph, Weight};
use crate::nibbles::{GroupedSizes, LEVEL_LEAST, LEVEL_MOST};
use crate::random::SplitMix64;
use crate::tensor::{Data, Tensor};
use crate::text::name::hash;
use crate::text::parse::{Source, parse_hashed};
use crate::text::print::{hash_of, print_with};
use crate::types::Elem;
use std::cell::RefCell;
use std::sync::Arc;

/// Most elements that a rule makes.
const ELEMENTS_MAX: usize = 1 << 24;
/// Most elements that all rules of a program make together.
const ALL_ELEMENTS_MAX: usize = 1 << 26;
/// Steps between the bounds of f32 numbers.
const GRID: u64 = 16;
/// Bounds where a rule states none.
const REALS: [i64; 2] = [-1, 1];
const BYTES: [i64; 2] = [-127, 127];
const NIBBLES: [i64; 2] = [-8, 7];
const INTEGERS: [i64; 2] = [0, 7];
/// What is wrong with the type of a weight.
const WEIGHTS: &str = "weights are f32, i32, i8 or i4<32>";
/// Multipliers of weights in groups, and the least of them.
const MULTIPLIERS: [i64; 2] = [255, -127];
/// A constant that a pass has made is printed as numbers if it has at most this many.
const PRINTED_MAX: usize = 16;

/// A program that was read, and the rules by which its weights were made.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The program.
    pub graph: Graph,
    /// Tensors with the rules that made them, as a line spells them.
    pub rules: Vec<(Arc<Tensor>, String)>,
}

/// Reads a program that may have comments and rules for weights; `weights` gives the tensors of lines without a rule.
///
/// # Errors
/// Everything that is wrong with it, at `line:column`.
///
/// ```
/// let text = "snnc 3 tensor context=8
/// weight @table : f32[16,4] = fill(seed=1)
/// %0 = tokens : i32[tokens]
/// %1 = embed(%0, @table) : f32[tokens,4]   ; a row of the table for every token
/// output hidden = %1";
/// let filled = snnc_ir::text::parse_filled(text, &|name, _, _| Err(format!("no rule for @{name}"))).unwrap();
/// assert_eq!(filled.graph.weights[0].tensor.sizes(), [16, 4]);
/// ```
pub fn parse_filled(text: &str, weights: Source) -> Result<Filled, Diagnostics> {
    let plain: Vec<&str> = text.lines().map(without_comment).collect();
    let rules = RefCell::new(Vec::new());
    let graph = parse_hashed(&plain.join("\n"), &|name, elem, sizes, rule| {
        let made = match rule {
            Some(rule) => {
                let all =
                    rules.borrow().iter().map(|(tensor, _): &(Arc<Tensor>, String)| tensor.data().len()).sum::<usize>();
                if all > ALL_ELEMENTS_MAX {
                    return Err(format!("rules make at most {ALL_ELEMENTS_MAX} elements together"));
                }
                Arc::new(made(rule, elem, sizes)?)
            }
            None => weights(name, elem, sizes)?,
        };
        if let Some(rule) = rule {
            rules.borrow_mut().push((Arc::clone(&made), rule.to_string()));
        }
        let hash = hash(&made);
        Ok((made, hash))
    })?;
    Ok(Filled { graph, rules: rules.into_inner() })
}

impl Filled {
    /// `graph`, which was made from this program, as text: weights by their rules where they still are what a rule made; as
    /// numbers where there are few; else by their hash.
    pub fn print(&self, graph: &Graph) -> String {
        print_with(graph, &|_, weight| Some(self.line_end(weight)), &|_| true)
    }

    /// What ends the line of a weight.
    pub fn line_end(&self, weight: &Weight) -> String {
        let rule = self.rules.iter().find(|(tensor, _)| Arc::ptr_eq(tensor, &weight.tensor));
        match rule {
            Some((_, rule)) => rule.trim_start_matches("panels").trim_start().to_string(),
            None => numbers(&weight.tensor).unwrap_or_else(|| hash_of(hash(&weight.tensor))),
        }
    }
}

/// The elements of a small tensor as a rule.
fn numbers(tensor: &Tensor) -> Option<String> {
    let all: Vec<String> = match tensor.data() {
        Data::F32(v) => v.iter().map(|x| format!("{x:?}")).collect(),
        Data::I32(v) => v.iter().map(i32::to_string).collect(),
        Data::I8(v) => v.iter().map(i8::to_string).collect(),
        Data::Panels(_) | Data::Groups { .. } => return None,
    };
    (all.len() <= PRINTED_MAX).then(|| format!("= [{}]", all.join(", ")))
}

/// A line up to its comment. A `;` in a quoted name begins none.
fn without_comment(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (i, c) in line.char_indices() {
        match c {
            ';' if !quoted => return &line[..i],
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    line
}

/// The tensor that the end of a line makes: `= fill(seed=7)`, or `panels = fill(seed=7)` where elements are to lie so.
fn made(end: &str, elem: Elem, sizes: &[usize]) -> Result<Tensor, String> {
    let rows = |rule: &str| tensor(rule.trim_start().strip_prefix('=').unwrap_or(rule).trim_start(), elem, sizes);
    match end.strip_prefix("panels") {
        Some(rule) => rows(rule)?.to_panels().ok_or_else(|| "only matrices of i8 lie in panels".to_string()),
        None => rows(end),
    }
}

/// The tensor that a rule makes. Errors say what is wrong with the rule.
fn tensor(rule: &str, elem: Elem, sizes: &[usize]) -> Result<Tensor, String> {
    let count = sizes.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    let Some(count) = count.filter(|count| *count <= ELEMENTS_MAX) else {
        return Err(format!("a rule makes at most {ELEMENTS_MAX} elements, here are {sizes:?}"));
    };
    if let Some(list) = rule.strip_prefix('[') {
        let list = list.strip_suffix(']').ok_or("`]` is missing after the numbers")?;
        let numbers: Vec<&str> = list.split(',').map(str::trim).filter(|number| !number.is_empty()).collect();
        if numbers.len() != count {
            return Err(format!("{count} numbers were expected, here are {}", numbers.len()));
        }
        return listed(&numbers, elem, sizes);
    }
    let inner = rule.strip_prefix("fill(").and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or_else(|| format!("`fill(seed=1)` or `[1, 2]` was expected, here is `{rule}`"))?;
    let mut options = FillOptions::default();
    for option in inner.split(',').map(str::trim) {
        options.take(option)?;
    }
    options.tensor(elem, sizes, count)
}

fn listed(numbers: &[&str], elem: Elem, sizes: &[usize]) -> Result<Tensor, String> {
    fn all<N: std::str::FromStr>(numbers: &[&str], elem: Elem) -> Result<Vec<N>, String> {
        let one = |number: &&str| number.parse().map_err(|_| format!("`{number}` is no {elem}"));
        numbers.iter().map(one).collect()
    }
    Ok(match elem {
        Elem::F32 => Tensor::f32(sizes, all(numbers, elem)?),
        Elem::I32 => Tensor::i32(sizes, all(numbers, elem)?),
        Elem::I8 => Tensor::i8(sizes, all(numbers, elem)?),
        Elem::I4(_) => return typed(&all(numbers, elem)?, elem, sizes),
        Elem::Level(..) => return Err(WEIGHTS.into()),
    })
}

/// What stands between the parentheses of `fill`.
#[derive(Default)]
struct FillOptions<'a> {
    seed: Option<&'a str>,
    value: Option<&'a str>,
    low: Option<&'a str>,
    high: Option<&'a str>,
    powers: Option<&'a str>,
}

impl<'a> FillOptions<'a> {
    fn take(&mut self, option: &'a str) -> Result<(), String> {
        let (key, value) =
            option.split_once('=').ok_or_else(|| format!("`key=value` was expected, here is `{option}`"))?;
        let place = match key {
            "seed" => &mut self.seed,
            "value" => &mut self.value,
            "low" => &mut self.low,
            "high" => &mut self.high,
            "powers" => &mut self.powers,
            _ => return Err(format!("`{key}` is no option of fill: there are seed, low, high, powers, value")),
        };
        match place.replace(value) {
            Some(_) => Err(format!("`{key}` stands twice")),
            None => Ok(()),
        }
    }

    fn tensor(&self, elem: Elem, sizes: &[usize], count: usize) -> Result<Tensor, String> {
        match (self.seed, self.value, self.powers) {
            (None, Some(value), None) => listed(&vec![value; count], elem, sizes),
            (Some(seed), None, powers) => {
                let mut seeded = SplitMix64(number(seed)?);
                let draw: Vec<f64> = match powers {
                    Some(most) => {
                        let most: u64 = number(most)?;
                        if most > 30 || self.low.is_some() || self.high.is_some() {
                            return Err("powers go up to 30 and have no other bounds".into());
                        }
                        (0..count).map(|_| f64::from(1u32 << below(&mut seeded, most + 1))).collect()
                    }
                    None => self.drawn(elem, count, &mut seeded)?,
                };
                if let (Elem::I4(group), None, None, None) = (elem, powers, self.low, self.high) {
                    let multiplier = || (below(&mut seeded, MULTIPLIERS[0] as u64) as i64 + MULTIPLIERS[1]) as i8;
                    return in_groups(&draw, group, sizes, multiplier);
                }
                typed(&draw, elem, sizes)
            }
            _ => Err("fill has a seed, and perhaps low and high or powers; or it has a value".into()),
        }
    }

    /// Numbers between the bounds.
    fn drawn(&self, elem: Elem, count: usize, seeded: &mut SplitMix64) -> Result<Vec<f64>, String> {
        let [low, high] = match elem {
            Elem::F32 => REALS,
            Elem::I8 => BYTES,
            Elem::I4(_) => NIBBLES,
            Elem::I32 | Elem::Level(..) => INTEGERS,
        };
        let low = self.low.map_or(Ok(low as f64), number)?;
        let high = self.high.map_or(Ok(high as f64), number)?;
        if !(low.is_finite() && high.is_finite() && low <= high) {
            return Err(format!("no number lies between {low} and {high}"));
        }
        let steps = if elem == Elem::F32 { GRID } else { (high - low) as u64 };
        let step = if steps == 0 { 0.0 } else { (high - low) / steps as f64 };
        Ok((0..count).map(|_| low + step * below(seeded, steps + 1) as f64).collect())
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that fits here"))
}

fn typed(numbers: &[f64], elem: Elem, sizes: &[usize]) -> Result<Tensor, String> {
    let within = |low: f64, high: f64| match numbers.iter().find(|x| !(low..=high).contains(*x)) {
        Some(x) => Err(format!("{x} is no {elem}")),
        None => Ok(()),
    };
    Ok(match elem {
        Elem::F32 => Tensor::f32(sizes, numbers.iter().map(|&x| x as f32).collect()),
        Elem::I32 => {
            within(f64::from(i32::MIN), f64::from(i32::MAX))?;
            Tensor::i32(sizes, numbers.iter().map(|&x| x as i32).collect())
        }
        Elem::I8 => {
            within(f64::from(i8::MIN), f64::from(i8::MAX))?;
            Tensor::i8(sizes, numbers.iter().map(|&x| x as i8).collect())
        }
        Elem::I4(group) => {
            within(f64::from(LEVEL_LEAST), f64::from(LEVEL_MOST))?;
            in_groups(numbers, group, sizes, || 1)?
        }
        Elem::Level(..) => return Err(WEIGHTS.into()),
    })
}

/// Levels in groups, with these multipliers one after the other.
fn in_groups(levels: &[f64], group: u16, sizes: &[usize], mut next: impl FnMut() -> i8) -> Result<Tensor, String> {
    let grouped = GroupedSizes::new(sizes, group).ok_or("only matrices are of 4 bits in groups")?;
    let levels: Vec<i8> = levels.iter().map(|&level| level as i8).collect();
    let multipliers: Vec<i8> = (0..grouped.groups() * grouped.outputs()).map(|_| next()).collect();
    Ok(Tensor::i4([grouped.inputs(), grouped.outputs()], group, &levels, &multipliers))
}

/// A number below `end`, which is not 0; the bias of a modulus does not matter here.
fn below(seeded: &mut SplitMix64, end: u64) -> u64 {
    seeded.bits() % end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_seed_lie_between_the_bounds_and_are_the_same_everywhere() {
        let x = made("fill(seed=7)", Elem::F32, &[4]).expect("a rule");
        assert_eq!(numbers(&x).as_deref(), Some("= [-1.0, -0.125, 0.5, 0.375]"));
        let w = made("fill(seed=7)", Elem::I8, &[64, 64]).expect("a rule").to_rows().expect("int8");
        assert!(w.iter().all(|&w| w != i8::MIN) && w.contains(&-127) && w.contains(&127));
        let positive = made("fill(seed=7, low=0, high=1)", Elem::F32, &[64]).expect("a rule");
        assert!(positive.as_f32().expect("reals").iter().all(|x| (0.0..=1.0).contains(x)));
        let powers = made("fill(seed=7, powers=3)", Elem::I32, &[64]).expect("a rule");
        assert!(powers.as_i32().expect("integers").iter().all(|x| [1, 2, 4, 8].contains(x)));
        assert_eq!(made("fill(value=0.5)", Elem::F32, &[2]), Ok(Tensor::f32(&[2], vec![0.5; 2])));
        assert_eq!(made("[1, -2]", Elem::I8, &[2]), Ok(Tensor::i8(&[2], vec![1, -2])));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for (rule, message) in [
            ("[1]", "2 numbers were expected, here are 1"),
            ("[1, 2", "`]` is missing after the numbers"),
            ("[1, 0.5]", "`0.5` is no i32"),
            ("7", "`fill(seed=1)` or `[1, 2]` was expected, here is `7`"),
            ("fill(seed)", "`key=value` was expected, here is `seed`"),
            ("fill(sead=1)", "`sead` is no option of fill: there are seed, low, high, powers, value"),
            ("fill(seed=1, seed=2)", "`seed` stands twice"),
            ("fill(seed=1, value=2)", "fill has a seed, and perhaps low and high or powers; or it has a value"),
            ("fill(seed=x)", "`x` is no number that fits here"),
            ("fill(seed=1, low=2, high=1)", "no number lies between 2 and 1"),
            ("fill(seed=1, powers=31)", "powers go up to 30 and have no other bounds"),
        ] {
            assert_eq!(made(rule, Elem::I32, &[2]), Err(message.to_string()), "{rule}");
        }
        assert!(made("fill(seed=1, high=300)", Elem::I8, &[64]).is_err());
        assert!(
            made("panels = fill(seed=1)", Elem::I8, &[64]).is_err_and(|e| e == "only matrices of i8 lie in panels")
        );
        assert!(made("fill(value=0)", Elem::I8, &[1 << 13, 1 << 13]).is_err_and(|e| e.contains("at most 16777216")));
    }

    #[test]
    fn comments_end_lines_but_not_names() {
        assert_eq!(without_comment("%0 = tokens : i32[tokens] ; ids"), "%0 = tokens : i32[tokens] ");
        assert_eq!(without_comment("weight @\"a;\\\";b\" : f32[1] ; c"), "weight @\"a;\\\";b\" : f32[1] ");
        assert_eq!(without_comment("; all of it"), "");
    }

    #[test]
    fn what_a_rule_made_prints_as_that_rule_and_reads_back() {
        let text = "snnc 3 imported context=8\n\nweight @b : f32[4] = fill(seed=1)\nweight @t : f32[8,4] = fill(value=2.0)\n\n\
                    %0 = tokens : i32[tokens]\n%1 = embed(%0, @t) : f32[tokens,4]\n%2 = add(%1, @b) : f32[tokens,4]\n\noutput y = %2\n";
        let none = |_: &str, _: Elem, _: &[usize]| Err("there is no file".to_string());
        let filled = parse_filled(text, &none).expect("a program");
        assert_eq!(filled.print(&filled.graph), text);
        assert!(
            crate::text::parse::parse(text, &none)
                .is_err_and(|e| e[0].message.contains("only tests make weights by a rule"))
        );
    }
}
