//! Several functions of single numbers at once, tile by tile: what one hands to the next stays in the first-level cache.
//!
//! Law: every number passes the same functions in the same order as if each function passed over all numbers on its own, so the bits
//! are the same.

use super::training::{Map, Zip, map, zip};

/// Numbers that pass all functions before the next ones do.
const TILE: usize = 512;

/// Functions of a formula, at most: with its inputs their tiles stay in the first-level cache.
const STEPS_MAX: usize = 16;

/// What a function reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormulaOperand {
    /// An input of the formula, by its place.
    Input(usize),
    /// What an earlier function gave, by its place.
    Step(usize),
}

/// A function of single numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FormulaStep {
    Map(Map, FormulaOperand),
    Zip(Zip, [FormulaOperand; 2]),
}

impl FormulaStep {
    fn renamed(self, name: impl Fn(FormulaOperand) -> FormulaOperand) -> Self {
        match self {
            Self::Map(kind, x) => Self::Map(kind, name(x)),
            Self::Zip(kind, both) => Self::Zip(kind, both.map(name)),
        }
    }
}

/// Functions of single numbers, over axes along which inputs may be spread. The last function gives the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Formula {
    /// Sizes of the axes, outermost first; at least one.
    sizes: Vec<usize>,
    /// By input: how far apart its elements are along each axis, 0 where it is spread.
    inputs: Vec<Vec<usize>>,
    steps: Vec<FormulaStep>,
}

impl Formula {
    /// Of results of these sizes, and inputs whose elements lie so far apart along each axis.
    pub fn new(sizes: &[usize], inputs: Vec<Vec<usize>>, steps: Vec<FormulaStep>) -> Self {
        assert!(
            !steps.is_empty() && inputs.iter().all(|input| input.len() == sizes.len()),
            "a step; a stride per axis"
        );
        let (mut sizes, mut inputs) = (sizes.to_vec(), inputs);
        // A number that has no axes is a row of one.
        if sizes.is_empty() {
            sizes.push(1);
            inputs.iter_mut().for_each(|input| input.push(0));
        }
        Self { sizes, inputs, steps }.with_joined_axes()
    }

    /// How many numbers it gives.
    pub fn len(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Neighbouring axes along which every input lies as along one are made one.
    fn with_joined_axes(mut self) -> Self {
        let mut axis = self.sizes.len();
        while axis > 0 {
            axis -= 1;
            if self.sizes[axis] == 1 && self.sizes.len() > 1 {
                self.sizes.remove(axis);
                self.remove_step(axis);
            }
        }
        for axis in (1..self.sizes.len()).rev() {
            let size = self.sizes[axis];
            if self.inputs.iter().all(|input| input[axis - 1] == size * input[axis]) {
                self.sizes[axis - 1] *= size;
                self.sizes.remove(axis);
                self.remove_step(axis - 1);
            }
        }
        self
    }

    fn remove_step(&mut self, axis: usize) {
        for input in &mut self.inputs {
            input.remove(axis);
        }
    }

    /// Whether an input lies as the result does.
    pub fn is_in_order(&self, input: usize) -> bool {
        let mut step = 1;
        let axes = self.sizes.iter().zip(&self.inputs[input]).rev();
        axes.fold(true, |all, (&size, &own)| {
            let usual = size == 1 || own == step;
            step *= size;
            all && usual
        })
    }

    /// The formula that computes `computed` inputs, which are one value and lie as the result does, by another formula. Its inputs are
    /// its others, then those of the other formula. `None` where there would be too many functions, or axes do not fit each other.
    pub fn with_computed(&self, computed: &[usize], by: &Formula) -> Option<Self> {
        let count = by.steps.len();
        if count + self.steps.len() > STEPS_MAX || self.len() != by.len() {
            return None;
        }
        let others: Vec<usize> = (0..self.inputs.len()).filter(|input| !computed.contains(input)).collect();
        let sizes = common_axes(&self.sizes, &by.sizes)?;
        let inputs = others.iter().map(|&input| split_steps(&self.sizes, &self.inputs[input], &sizes));
        let inputs = inputs.chain(by.inputs.iter().map(|input| split_steps(&by.sizes, input, &sizes)));
        let first = by.steps.iter().map(|step| {
            step.renamed(|operand| match operand {
                FormulaOperand::Input(input) => FormulaOperand::Input(others.len() + input),
                FormulaOperand::Step(step) => FormulaOperand::Step(step),
            })
        });
        let then = self.steps.iter().map(|step| {
            step.renamed(|operand| match operand {
                FormulaOperand::Input(input) => match others.binary_search(&input) {
                    Ok(place) => FormulaOperand::Input(place),
                    Err(_) => FormulaOperand::Step(count - 1),
                },
                FormulaOperand::Step(step) => FormulaOperand::Step(count + step),
            })
        });
        Some(
            Self { sizes: sizes.clone(), inputs: inputs.collect(), steps: first.chain(then).collect() }
                .with_joined_axes(),
        )
    }
}

/// The finest axes that two ways to split as many numbers have in common; `None` where one does not split the other.
fn common_axes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    let mut sizes = Vec::new();
    while let (Some(x), Some(y)) = (a.pop(), b.pop()) {
        let (small, large) = (x.min(y), x.max(y));
        if large % small != 0 {
            return None;
        }
        sizes.push(small);
        if x != y {
            let longer = if x > y { &mut a } else { &mut b };
            longer.push(large / small);
        }
    }
    // Axes of one element may be left.
    sizes.reverse();
    Some(sizes)
}

/// Strides along axes that are split into finer ones.
fn split_steps(sizes: &[usize], steps: &[usize], finer: &[usize]) -> Vec<usize> {
    let mut axes = sizes.iter().zip(steps).rev();
    let (mut left, mut step) = (1, 0);
    let mut split: Vec<usize> = Vec::with_capacity(finer.len());
    for &size in finer.iter().rev() {
        while left == 1 {
            match axes.next() {
                Some((&next, &own)) => (left, step) = (next, own),
                None => break,
            }
        }
        split.push(step);
        left /= size.max(1);
        step *= size;
    }
    split.reverse();
    split
}

/// `y` in its usual order.
#[inline(always)]
pub(super) fn evaluate(formula: &Formula, inputs: &[&[f32]], y: &mut [f32]) {
    assert!(
        y.len() == formula.len() && inputs.len() == formula.inputs.len(),
        "as many numbers and inputs as the formula"
    );
    let Some((&n, outer)) = formula.sizes.split_last() else { return };
    let along: Vec<usize> = formula.inputs.iter().map(|steps| steps[outer.len()]).collect();
    let (last, earlier) = (formula.steps.len() - 1, (formula.steps.len() - 1) * TILE);
    // Results of all functions but the last, then inputs that lie apart.
    let mut memory = vec![0.0; earlier + inputs.len() * TILE];
    let (results, gathered) = memory.split_at_mut(earlier);
    let mut index = vec![0; outer.len()];
    let mut from = vec![0; inputs.len()];
    for row in y.chunks_exact_mut(n.max(1)) {
        for (tile, out) in row.chunks_mut(TILE).enumerate() {
            let (first, count) = (tile * TILE, out.len());
            for ((input, gathered), (&from, &step)) in inputs
                .iter()
                .zip(gathered.chunks_exact_mut(TILE))
                .zip(from.iter().zip(&along))
                .filter(|(_, (_, step))| **step > 1)
            {
                let numbers = input[from + first * step..].iter().step_by(step);
                gathered[..count].iter_mut().zip(numbers).for_each(|(to, &x)| *to = x);
            }
            for (at, step) in formula.steps.iter().enumerate() {
                let (before, rest) = results.split_at_mut(at.min(last) * TILE);
                let to: &mut [f32] = if at == last { out } else { &mut rest[..count] };
                // One number where an input is spread along the row.
                let operand = |operand| match operand {
                    FormulaOperand::Step(step) => &before[step * TILE..][..count],
                    FormulaOperand::Input(input) => match along[input] {
                        0 => &inputs[input][from[input]..][..1],
                        1 => &inputs[input][from[input] + first..][..count],
                        _ => &gathered[input * TILE..][..count],
                    },
                };
                match *step {
                    FormulaStep::Map(kind, x) => map(kind, operand(x), to),
                    FormulaStep::Zip(kind, [a, b]) => zip(kind, operand(a), operand(b), to),
                }
            }
        }
        for (axis, at) in index.iter_mut().enumerate().rev() {
            *at += 1;
            let size = outer[axis];
            let moved = if *at < size { 1 } else { 0 };
            for (from, steps) in from.iter_mut().zip(&formula.inputs) {
                *from = if moved == 1 { *from + steps[axis] } else { *from - (size - 1) * steps[axis] };
            }
            if moved == 1 {
                break;
            }
            *at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, Kernels};
    use super::*;

    const fn input(i: usize) -> FormulaOperand {
        FormulaOperand::Input(i)
    }

    fn run(formula: &Formula, inputs: &[&[f32]]) -> Vec<f32> {
        let mut y = vec![f32::NAN; formula.len()];
        Kernels::new(Isa::best()).expect("it is available").evaluate(formula, inputs, &mut y);
        y
    }

    #[test]
    fn inputs_are_spread_and_turned() {
        // A row per head, a number per row, a matrix that lies by columns.
        let (x, by, turned): (Vec<f32>, Vec<f32>, Vec<f32>) =
            ((0..1200).map(|i| i as f32).collect(), vec![2.0, -1.0], (0..1200).map(|i| 1000.0 * i as f32).collect());
        let steps = vec![
            FormulaStep::Zip(Zip::Mul, [input(0), input(1)]),
            FormulaStep::Map(Map::Neg, FormulaOperand::Step(0)),
            FormulaStep::Zip(Zip::Add, [FormulaOperand::Step(1), input(2)]),
        ];
        let formula = Formula::new(&[2, 600], vec![vec![600, 1], vec![1, 0], vec![1, 2]], steps);
        let want: Vec<f32> = (0..1200).map(|i| -(x[i] * by[i / 600]) + turned[i / 600 + 2 * (i % 600)]).collect();
        assert_eq!(run(&formula, &[&x, &by, &turned]), want);
        assert!(formula.is_in_order(0) && !formula.is_in_order(1) && !formula.is_in_order(2));
        let number = Formula::new(&[], vec![vec![]], vec![FormulaStep::Map(Map::Neg, input(0))]);
        assert_eq!(run(&number, &[&[3.0]]), [-3.0], "a number without axes");
    }

    /// One formula behind another gives what both give one after the other, whatever axes they have.
    #[test]
    fn a_formula_computes_the_input_of_another() {
        let x: Vec<f32> = (0..720).map(|i| i as f32 - 100.5).collect();
        let by_row: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let by_column: Vec<f32> = (0..30).map(|i| 0.5 * i as f32).collect();
        let by_head: Vec<f32> = (0..6).map(|i| 3.0 - i as f32).collect();
        let product = vec![FormulaStep::Zip(Zip::Mul, [input(0), input(1)])];
        let first = Formula::new(&[24, 30], vec![vec![30, 1], vec![1, 0]], product.clone());
        let twice = vec![FormulaStep::Zip(Zip::Add, [input(0), input(1)])];
        for (then, other) in [
            (Formula::new(&[24, 30], vec![vec![30, 1], vec![0, 1]], product.clone()), &by_column),
            (Formula::new(&[6, 4, 30], vec![vec![120, 30, 1], vec![1, 0, 0]], product.clone()), &by_head),
            (Formula::new(&[720], vec![vec![1], vec![1]], twice.clone()), &x),
        ] {
            let both = then.with_computed(&[0], &first).expect("axes fit");
            let alone = run(&then, &[&run(&first, &[&x, &by_row]), other]);
            assert_eq!(run(&both, &[other, &x, &by_row]), alone);
        }
        let doubled = Formula::new(&[720], vec![vec![1], vec![1]], twice);
        let both = doubled.with_computed(&[0, 1], &first).expect("axes fit");
        let product = run(&first, &[&x, &by_row]);
        assert_eq!(run(&both, &[&x, &by_row]), run(&doubled, &[&product, &product]));
        let odd = Formula::new(
            &[16, 45],
            vec![vec![45, 1], vec![1, 0]],
            vec![FormulaStep::Zip(Zip::Mul, [input(0), input(1)])],
        );
        assert!(odd.with_computed(&[0], &first).is_none(), "30 and 45 have no axes in common");
    }
}
