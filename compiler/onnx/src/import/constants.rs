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

/// A mask with a row and a column for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CausalTable {
    /// Where a query may look.
    pub keep: f32,
    /// Where it may not.
    pub drop: f32,
    /// How many tokens it sees, itself among them, where that is less than all.
    pub window: Option<u32>,
}

/// A value that has a part for each token, and is known of every token by its position alone.
#[derive(Clone, Debug)]
pub(super) struct PositionTable {
    /// `[context, width]`.
    pub rows: OnnxArray,
    /// The axis of the tokens.
    pub axis: usize,
}

/// What a table that depends on the number of tokens may be, that no decoder has that is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusual {
    NotANumber,
    /// A bias by distance that does not fall evenly with it.
    ByDistance,
}

/// A bias of scores by head that is a sum of a number for the key's position and one for the query's, where a query may look.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PositionBias {
    /// By position and head, `[context, heads]`: what is added for the key, and what for the query.
    pub keys: OnnxArray,
    pub queries: OnnxArray,
    /// How many heads there are.
    pub heads: usize,
    /// Where a query may not look, if the bias hides it.
    pub mask: Option<CausalTable>,
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

    /// The same, shared.
    pub fn shared_at(&self, k: usize) -> &Arc<OnnxArray> {
        self.arrays.get(k).unwrap_or(&self.arrays[0])
    }

    /// Whether another is this one at every number of tokens.
    pub fn is_same(&self, other: &Constant) -> bool {
        let same = |(a, b): (&Arc<OnnxArray>, &Arc<OnnxArray>)| Arc::ptr_eq(a, b) || a == b;
        self.arrays.len() == other.arrays.len() && self.arrays.iter().zip(&other.arrays).all(same)
    }

    /// The array at the largest number of tokens.
    pub fn last(&self) -> Option<&Arc<OnnxArray>> {
        self.arrays.last()
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

    /// One number where a query may look, another elsewhere: at itself and what is before it, or at the last of those only.
    pub fn causal(&self, counts: &[usize]) -> Option<CausalTable> {
        if self.arrays.len() != counts.len() {
            return None;
        }
        let first = self.at(0).data();
        let (largest, n) = (self.arrays.last()?.data(), *counts.last()?);
        if first.len() < 2 || largest.len() < n * n {
            return None;
        }
        let (keep, drop) = (first.get(0).float(), first.get(1).float());
        // How far the last query sees.
        let back = (0..n).take_while(|back| largest.get(n * n - 1 - back).float() == keep).count();
        let window = Some(back).filter(|&back| back < n);
        let is_mask = |(array, &n): (&Arc<OnnxArray>, &usize)| {
            // Sizes of 1 between, and heads that all have the same mask.
            let (heads, square) = square_of(array.sizes(), n)?;
            let seen = |i: usize, j: usize| j <= i && window.is_none_or(|window| i - j < window);
            let expected = |i: usize| if seen(i % square / n, i % n) { keep } else { drop };
            (0..heads * square).all(|i| array.data().get(i).float() == expected(i)).then_some(())
        };
        let all = self.arrays.iter().zip(counts).all(|pair| is_mask(pair).is_some());
        all.then(|| CausalTable { keep, drop, window: window.and_then(|window| u32::try_from(window).ok()) })
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
        // Below the diagonal each number is that of the row before, one column before.
        let by_distance = |i: usize| {
            let (row, column) = (i / n % rows, i % n);
            row == 0 || column == 0 || column > row || x(i) == x(i - n - 1)
        };
        (rows == n && (0..array.len()).all(by_distance)).then_some(Unusual::ByDistance)
    }

    /// A bias that falls evenly with the distance, in every head by its own number, at every number of tokens (ALiBi).
    pub fn position_bias(&self, counts: &[usize]) -> Option<PositionBias> {
        let (last, &n) = (self.arrays.last()?, counts.last()?);
        if self.arrays.len() != counts.len() || n < 3 {
            return None;
        }
        let (heads, square) = square_of(last.sizes(), n)?;
        let at =
            |array: &OnnxArray, h: usize, i: usize, j: usize, n: usize| array.data().get((h * n + i) * n + j).float();
        // By key, from the last row, which sees all; by query, from the diagonal besides.
        let steps = (n - 1) as f32;
        let base = |h: usize| at(last, h, 0, 0, n);
        let by_key = |h: usize| (at(last, h, n - 1, n - 1, n) - at(last, h, n - 1, 0, n)) / steps;
        let by_query = |h: usize| (at(last, h, n - 1, n - 1, n) - base(h)) / steps - by_key(h);
        let lines: Vec<[f32; 3]> = (0..heads).map(|h| [base(h), by_key(h), by_query(h)]).collect();
        let seen = |h: usize, i: usize, j: usize| {
            let [base, by_key, by_query] = lines[h];
            base + by_key * j as f32 + by_query * i as f32
        };
        let near = |x: f32, h: usize, i: usize, j: usize| {
            let [_, by_key, by_query] = lines[h];
            (x - seen(h, i, j)).abs() <= STRAIGHT * (by_key.abs() * j as f32 + by_query.abs() * i as f32)
        };
        let drop = at(last, 0, 0, 1, n);
        let hides = drop <= at(last, 0, 0, 0, n) - HIDDEN;
        let fits = |(array, &own): (&Arc<OnnxArray>, &usize)| {
            let (found, _) = square_of(array.sizes(), own)?;
            let cell = |h: usize, i: usize, j: usize| {
                let x = at(array, h, i, j, own);
                if j <= i { near(x, h, i, j) } else { !hides || x <= drop.max(f32::MIN) + HIDDEN }
            };
            let all = (0..heads).all(|h| (0..own).all(|i| (0..own).all(|j| cell(h, i, j))));
            (found == heads && all).then_some(())
        };
        let finite = lines.iter().flatten().all(|x| x.is_finite());
        let straight = square > 0 && finite && lines.iter().any(|[_, by_key, _]| *by_key != 0.0);
        if !straight || !self.arrays.iter().zip(counts).all(|pair| fits(pair).is_some()) {
            return None;
        }
        let table = |number: &dyn Fn(usize, usize) -> f32| {
            OnnxArray::f32(&[n, heads], (0..n * heads).map(|i| number(i % heads, i / heads)).collect())
        };
        Some(PositionBias {
            keys: table(&|h, at| lines[h][1] * at as f32),
            queries: table(&|h, at| lines[h][0] + lines[h][2] * at as f32),
            heads,
            mask: hides.then_some(CausalTable { keep: 0.0, drop, window: None }),
        })
    }

    /// The table `[context, width]` whose first rows the value has, at every number of tokens, beside the tokens' axis.
    pub fn table_of_positions(&self, counts: &[usize]) -> Option<PositionTable> {
        let (last, &n) = (self.arrays.last()?, counts.last()?);
        if self.arrays.len() != counts.len() || counts.len() < 2 {
            return None;
        }
        let rank = last.rank();
        let along = |axis: &usize| {
            let fits = |(array, &n): (&Arc<OnnxArray>, &usize)| {
                let same = |i: usize| array.sizes()[i] == if i == *axis { n } else { last.sizes()[i] };
                array.rank() == rank && (0..rank).all(same)
            };
            self.arrays.iter().zip(counts).all(fits)
        };
        let axis = (0..rank).find(along)?;
        let outer: usize = last.sizes()[..axis].iter().product();
        let inner: usize = last.sizes()[axis + 1..].iter().product();
        let data = last.as_f32()?;
        // Row by row: what stands before the tokens, then what stands behind them.
        let at = |n: usize, row: usize, i: usize| (i / inner * n + row) * inner + i % inner;
        let width = outer * inner;
        let is_prefix = |(array, &own): (&Arc<OnnxArray>, &usize)| {
            let same = |i: usize| {
                array.as_f32().is_some_and(|x| {
                    x[at(own, i / width, i % width)].to_bits() == data[at(n, i / width, i % width)].to_bits()
                })
            };
            (0..own * width).all(same)
        };
        if !self.arrays.iter().zip(counts).all(is_prefix) {
            return None;
        }
        let rows = (0..n * width).map(|i| data[at(n, i / width, i % width)]).collect();
        Some(PositionTable { rows: OnnxArray::f32(&[n, width], rows), axis })
    }
}

/// What hides a score, at least.
const HIDDEN: f32 = 1e4;

/// How far a bias may be from a straight line, as a share: numbers of bfloat16 are so rounded.
const STRAIGHT: f32 = 1.0 / 128.0;

/// How many squares of `n` by `n` an array holds that has axes for heads, then for queries and for keys; and their size.
fn square_of(sizes: &[usize], n: usize) -> Option<(usize, usize)> {
    let (&last, lead) = sizes.split_last()?;
    let rows = lead.iter().rposition(|&size| size != 1)?;
    (last == n && lead[rows] == n).then(|| (lead[..rows].iter().product(), n * n))
}

fn same_bits(a: &OnnxArray, b: &OnnxArray) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// The mask as an operation. Minus infinity is said as the lowest finite number: a softmax gives exactly 0 for both.
pub(super) fn causal_op(CausalTable { keep, drop, window }: CausalTable) -> Op {
    let finite = |x: f32| Scalar::new(x.max(f32::MIN));
    Op::Array(ArrayOp::CausalMask { keep: finite(keep), drop: finite(drop), window })
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
        let all = CausalTable { keep: 0.0, drop: -1e4, window: None };
        assert_eq!(tables(|i, j| if j <= i { 0.0 } else { -1e4 }).causal(&COUNTS), Some(all));
        let window = |i: usize, j: usize| if j <= i && i - j < 8 { 1.0 } else { 0.0 };
        let last = CausalTable { keep: 1.0, drop: 0.0, window: Some(8) };
        assert_eq!(tables(window).causal(&COUNTS), Some(last), "a window of 8 shows at 9 tokens only");
        assert_eq!(tables(|i, j| if j < i { 1.0 } else { 0.0 }).causal(&COUNTS), None);
    }

    /// Two heads: a fall by distance beside a mask, and a number by key.
    #[test]
    fn a_bias_by_distance_is_a_number_for_each_key_and_one_for_each_query() {
        let tables = |f: fn(usize, usize, usize) -> f32| {
            let table = |&n: &usize| {
                let cells = (0..2 * n * n).map(|i| f(i / n / n, i / n % n, i % n)).collect();
                Arc::new(OnnxArray::f32(&[1, 2, n, n], cells))
            };
            Constant::of("b", COUNTS.iter().map(table).collect())
        };
        let slope = |h: usize| 0.5 / (1 + h) as f32;
        fn falls(h: usize, i: usize, j: usize) -> f32 {
            if j <= i { -0.5 / (1 + h) as f32 * (i - j) as f32 } else { f32::MIN }
        }
        let found = tables(falls).position_bias(&COUNTS).expect("a bias");
        assert_eq!((found.heads, found.mask.is_some()), (2, true));
        let row = |array: &OnnxArray, at: usize| array.as_f32().expect("floats")[2 * at..][..2].to_vec();
        assert_eq!(row(&found.keys, 3), [3.0 * slope(0), 3.0 * slope(1)]);
        assert_eq!(row(&found.queries, 3), [-3.0 * slope(0), -3.0 * slope(1)]);
        let by_key = tables(|h, _, j| j as f32 / (1 + h) as f32).position_bias(&COUNTS).expect("a bias");
        assert_eq!((row(&by_key.queries, 4), by_key.mask), (vec![0.0, 0.0], None));
        assert_eq!(tables(|_, i, j| (j * j) as f32 - i as f32).position_bias(&COUNTS), None);
        assert_eq!(tables(|_, _, _| 1.0).position_bias(&COUNTS), None);
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
        let found = constant.table_of_positions(&COUNTS).map(|table| (table.rows.sizes().to_vec(), table.axis));
        assert_eq!(found, Some((vec![9, 2], 1)));
    }

    #[test]
    fn a_table_may_stand_on_its_side() {
        let columns = |&n: &usize| {
            let at = |i: usize| (10 * (i % n) + i / n) as f32;
            Arc::new(OnnxArray::f32(&[2, n], (0..2 * n).map(at).collect()))
        };
        let table =
            Constant::of("t", COUNTS.iter().map(columns).collect()).table_of_positions(&COUNTS).expect("a table");
        assert_eq!((table.axis, &table.rows.as_f32().expect("floats")[..4]), (1, &[0.0, 1.0, 10.0, 11.0][..]));
    }
}
