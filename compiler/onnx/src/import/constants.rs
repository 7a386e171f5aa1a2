//! Values that do not depend on the token ids, and what they are measured to be.
//!
//! A table that depends on the number of tokens is examined number by number at every count, the last of which is the
//! longest sequence there can be: a window that would cut off the far past cannot hide.

use super::shapes::{fixed, unify};
use crate::tensor::{ArrayData, OnnxArray};
use snnc_ir::op::ArrayOp;
use snnc_ir::op::Scalar;
use snnc_ir::types::Dim;
use snnc_ir::{Op, tensor};
use std::sync::Arc;

/// An array for every number of tokens; one where they are all equal.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    name: Arc<str>,
    arrays: Vec<Arc<OnnxArray>>,
}

/// What a table that depends on the number of tokens may be, that GPT-2 has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusual {
    NotANumber,
    /// A causal mask that hides what is further back than this.
    Window(usize),
    /// A bias that falls evenly with the distance.
    Slopes,
    /// Another bias by distance.
    ByDistance,
}

impl Constant {
    pub fn one(name: &str, array: Arc<OnnxArray>) -> Self {
        Self { name: name.into(), arrays: vec![array] }
    }

    /// Panics without arrays: a precondition of the caller.
    pub fn of(name: &str, mut arrays: Vec<Arc<OnnxArray>>) -> Self {
        assert!(!arrays.is_empty(), "there is an array for every number of tokens");
        if arrays.iter().all(|array| same_bits(array, &arrays[0])) {
            arrays.truncate(1);
        }
        Self { name: name.into(), arrays }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The array, where it does not depend on the number of tokens.
    pub fn single(&self) -> Option<&Arc<OnnxArray>> {
        match self.arrays.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The array at the `k`-th number of tokens.
    pub fn at(&self, k: usize) -> &OnnxArray {
        self.arrays.get(k).unwrap_or(&self.arrays[0])
    }

    /// Elements of all arrays together.
    pub fn elements(&self) -> usize {
        self.arrays.iter().map(|array| array.len()).sum()
    }

    pub fn dims(&self, counts: &[usize]) -> Result<Vec<Dim>, String> {
        if let Some(one) = self.single() {
            return one.sizes().iter().map(|&n| fixed(n)).collect();
        }
        let all: Vec<Vec<usize>> = self.arrays.iter().map(|array| array.sizes().to_vec()).collect();
        unify(&all, counts)
    }

    /// The one number that all elements at all counts are.
    pub fn uniform(&self) -> Option<f32> {
        let first = self.arrays[0].uniform()?;
        self.arrays.iter().all(|array| array.uniform() == Some(first)).then(|| first.float())
    }

    /// Where it counts one by one, a number for each token: its first number.
    pub fn positions_from(&self, counts: &[usize]) -> Option<usize> {
        let start = *self.arrays[0].ints()?.first()?;
        let counts_up = |(array, &n): (&Arc<OnnxArray>, &usize)| {
            let number = |i: usize| start.checked_add(i as i64);
            array
                .ints()
                .is_some_and(|ints| ints.len() == n && ints.iter().enumerate().all(|(i, &x)| number(i) == Some(x)))
        };
        let fits = self.arrays.len() == counts.len() && self.arrays.iter().zip(counts).all(counts_up);
        usize::try_from(start).ok().filter(|_| fits)
    }

    /// One number on and below the diagonal, another above it.
    pub fn causal(&self, counts: &[usize]) -> Option<(f32, f32)> {
        if self.arrays.len() != counts.len() {
            return None;
        }
        let first = self.at(0).data();
        if first.len() < 2 {
            return None;
        }
        let (keep, drop) = (first.get(0).float(), first.get(1).float());
        let is_mask = |(array, &n): (&Arc<OnnxArray>, &usize)| {
            let (lead, square) = array.sizes().split_at(array.rank().saturating_sub(2));
            let expected = |i: usize| if i % n <= i / n { keep } else { drop };
            square == [n, n]
                && lead.iter().all(|&size| size == 1)
                && (0..n * n).all(|i| array.data().get(i).float() == expected(i))
        };
        self.arrays.iter().zip(counts).all(is_mask).then_some((keep, drop))
    }

    /// What a table that is neither a causal mask nor positions is instead, where it has a name.
    pub fn unusual(&self, counts: &[usize]) -> Option<Unusual> {
        let (array, &n) = (self.arrays.last()?, counts.last()?);
        let x = |i: usize| array.data().get(i).float();
        if (0..array.len()).any(|i| x(i).is_nan()) {
            return Some(Unusual::NotANumber);
        }
        let &[.., rows, columns] = array.sizes() else { return None };
        if columns != n || n < 3 || array.is_empty() {
            return None;
        }
        // How far a query sees, where that is less than all.
        let (keep, drop) = (x((rows - 1) * n + n - 1), x((rows - 1) * n));
        let width = (0..n).take_while(|back| x((rows - 1) * n + n - 1 - back) == keep).count();
        let windowed = |i: usize| if i % n <= i / n && i / n - i % n < width { keep } else { drop };
        if rows == n && width < n && (0..n * n).all(|i| x(i) == windowed(i)) {
            return Some(Unusual::Window(width));
        }
        let last = |head: usize, j: usize| x((head * rows + rows - 1) * n + j);
        let heads = array.len() / (rows * n);
        let slope = |head: usize| last(head, 1) - last(head, 0);
        let near = |a: f32, b: f32| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
        let is_straight =
            |head: usize| slope(head) != 0.0 && (1..n).all(|j| near(last(head, j) - last(head, j - 1), slope(head)));
        if (0..heads).all(is_straight) {
            return Some(Unusual::Slopes);
        }
        // Below the diagonal each number is that of the row before, one column before.
        let by_distance = |i: usize| {
            let (row, column) = (i / n % rows, i % n);
            row == 0 || column == 0 || column > row || x(i) == x(i - n - 1)
        };
        (rows == n && (0..array.len()).all(by_distance)).then_some(Unusual::ByDistance)
    }

    /// The table `[context, d]` whose first rows the value is, at every number of tokens.
    pub fn table_of_positions(&self, counts: &[usize]) -> Option<OnnxArray> {
        let last = self.arrays.last()?;
        let (&n, &width) = (counts.last()?, last.sizes().last()?);
        let table = last.as_f32()?;
        let is_prefix = |(array, &n): (&Arc<OnnxArray>, &usize)| {
            let (lead, rows) = array.sizes().split_at(array.rank().saturating_sub(2));
            rows == [n, width]
                && lead.iter().all(|&size| size == 1)
                && array.as_f32().is_some_and(|x| table.starts_with(x))
        };
        let fits = self.arrays.len() == counts.len() && self.arrays.iter().zip(counts).all(is_prefix);
        fits.then(|| OnnxArray::f32(&[n, width], table.to_vec()))
    }
}

fn same_bits(a: &OnnxArray, b: &OnnxArray) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// The mask as an operation. Minus infinity is said as the lowest finite number: a softmax gives exactly 0 for both.
pub(super) fn causal_op(keep: f32, drop: f32) -> Op {
    let finite = |x: f32| Scalar::new(x.max(f32::MIN));
    Op::Array(ArrayOp::CausalMask { keep: finite(keep), drop: finite(drop), window: None })
}

/// Elements as a program's constants: truth is 1 and 0.
pub(super) fn f32_data(array: &OnnxArray) -> Result<tensor::Data, String> {
    match array.data() {
        ArrayData::F32(buffer) => Ok(tensor::Data::F32(buffer.clone())),
        ArrayData::Bool(bits) => {
            Ok(tensor::Data::F32(bits.iter().map(|&b| f32::from(u8::from(b))).collect::<Vec<f32>>().into()))
        }
        ArrayData::I64(_) | ArrayData::I32(_) | ArrayData::I8(_) | ArrayData::U8(_) => {
            Err(format!("an array of {} is used where floats are wanted", array.elem().name()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: [usize; 3] = [5, 7, 9];

    fn tables(f: impl Fn(usize, usize) -> f32) -> Constant {
        let table = |&n: &usize| Arc::new(OnnxArray::f32(&[1, n, n], (0..n * n).map(|i| f(i / n, i % n)).collect()));
        Constant::of("m", COUNTS.iter().map(table).collect())
    }

    #[test]
    fn a_mask_is_causal_at_every_count_or_not_at_all() {
        assert_eq!(tables(|i, j| if j <= i { 0.0 } else { -1e4 }).causal(&COUNTS), Some((0.0, -1e4)));
        let window = |i: usize, j: usize| if j <= i && i - j < 8 { 1.0 } else { 0.0 };
        assert_eq!(tables(window).causal(&COUNTS), None, "a window of 8 shows at 9 tokens only");
        assert_eq!(tables(|i, j| if j < i { 1.0 } else { 0.0 }).causal(&COUNTS), None);
    }

    #[test]
    fn positions_count_from_any_row() {
        let counted = |start: i64| {
            let row = |&n: &usize| Arc::new(OnnxArray::i64(&[1, n], (0..n as i64).map(|i| i + start).collect()));
            Constant::of("p", COUNTS.iter().map(row).collect())
        };
        assert_eq!(counted(0).positions_from(&COUNTS), Some(0));
        assert_eq!(counted(2).positions_from(&COUNTS), Some(2), "tables may begin with rows for other uses");
        assert_eq!(counted(-1).positions_from(&COUNTS), None);
    }

    #[test]
    fn what_is_equal_at_every_count_is_a_constant() {
        let array = Arc::new(OnnxArray::vector(vec![1, 2]));
        assert!(Constant::of("c", vec![array.clone(), Arc::new((*array).clone())]).single().is_some());
    }

    #[test]
    fn rows_that_only_get_more_are_a_table() {
        let rows = |&n: &usize| Arc::new(OnnxArray::f32(&[1, n, 2], (0..2 * n).map(|i| i as f32).collect()));
        let constant = Constant::of("t", COUNTS.iter().map(rows).collect());
        assert_eq!(constant.table_of_positions(&COUNTS).map(|t| t.sizes().to_vec()), Some(vec![9, 2]));
    }
}
