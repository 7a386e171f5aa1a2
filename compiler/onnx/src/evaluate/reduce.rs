//! Operators that run along axes: reductions, running sums, triangles, positions of what is not zero.

use super::call::{OnnxCall, axis, count, strides};
use crate::tensor::{ArrayData, Element, OnnxArray, OnnxElem};

impl OnnxCall<'_> {
    /// ReduceMean, ReduceSum, ReduceMax, ReduceMin, ReduceProd: one ascending chain for each result.
    pub(super) fn reduce(&self) -> Result<OnnxArray, String> {
        let axes = self.reduced_axes(self.arg(0)?.rank())?;
        let keep = self.node.int("keepdims").unwrap_or(1) != 0;
        self.reduce_over(self.node.op_type.as_str(), &axes, keep)
    }

    /// GlobalAveragePool: the mean over all axes but the first two.
    pub(super) fn pool(&self) -> Result<OnnxArray, String> {
        let axes: Vec<usize> = (2..self.arg(0)?.rank()).collect();
        self.reduce_over("ReduceMean", &axes, true)
    }

    fn reduce_over(&self, op: &str, axes: &[usize], keep: bool) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let kept: Vec<usize> = (0..x.rank()).map(|a| if axes.contains(&a) { 1 } else { x.sizes()[a] }).collect();
        let (from, to) = (strides(x.sizes()), strides(&kept));
        let mut sums: Vec<Option<Element>> = vec![None; count(&kept)?];
        for i in 0..x.len() {
            let place = |a: usize| if axes.contains(&a) { 0 } else { i / from[a] % x.sizes()[a] * to[a] };
            let sum = &mut sums[(0..x.rank()).map(place).sum::<usize>()];
            let next = x.data().get(i);
            *sum = Some(sum.map_or(next, |sum| combine(op, sum, next)));
        }
        let members = (x.len() / sums.len().max(1)) as f32;
        let finish = |sum: Option<Element>| match (op, sum) {
            ("ReduceMean", Some(Element::Float(sum))) => Ok(Element::Float(sum / members)),
            ("ReduceMean", Some(Element::Int(sum))) => Ok(Element::Int(sum / members as i64)),
            ("ReduceSum", None) => Ok(Element::Int(0)),
            ("ReduceProd", None) => Ok(Element::Int(1)),
            (_, None) => Err(format!("{op} of nothing")),
            (_, Some(sum)) => Ok(sum),
        };
        let numbers = sums.into_iter().map(finish).collect::<Result<Vec<Element>, String>>()?;
        let left = |a: &usize| keep || !axes.contains(a);
        let sizes = (0..x.rank()).filter(left).map(|a| kept[a]).collect();
        Ok(OnnxArray::new(sizes, ArrayData::from_numbers(x.elem(), numbers.into_iter())))
    }

    /// The axes to reduce: all where none are given, unless the node says that none then means none.
    pub fn reduced_axes(&self, rank: usize) -> Result<Vec<usize>, String> {
        let axes = self.ints_of("axes", 1)?.unwrap_or_default();
        if axes.is_empty() && self.node.int("noop_with_empty_axes").unwrap_or(0) == 0 {
            return Ok((0..rank).collect());
        }
        axes.iter().map(|&a| axis(a, rank)).collect()
    }

    /// The largest or smallest elements of an axis in order, the first of equal ones first, and their places.
    pub(super) fn top_k(&self) -> Result<Vec<OnnxArray>, String> {
        let x = self.arg(0)?;
        let along = self.node.int("axis").unwrap_or(-1);
        let along = axis(along, x.rank())?;
        let largest = self.node.int("largest").unwrap_or(1) != 0;
        let size = x.sizes()[along];
        let kept = self.ints(1)?.first().and_then(|&k| usize::try_from(k).ok()).filter(|&k| k <= size);
        let kept = kept.ok_or_else(|| format!("it keeps 0 to {size} elements of an axis of {size}"))?;
        let stride = strides(x.sizes())[along];
        let mut sizes = x.sizes().to_vec();
        sizes[along] = kept;
        let total = count(&sizes)?;
        let to = strides(&sizes)[along];
        let (mut numbers, mut places) = (vec![Element::Int(0); total], vec![0; total]);
        let lines = (0..x.len()).filter(|i| (i / stride).is_multiple_of(size));
        for (line, first) in lines.enumerate() {
            let at = |k: usize| x.data().get(first + k * stride);
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| {
                let order = match (at(a), at(b)) {
                    (Element::Int(a), Element::Int(b)) => a.cmp(&b),
                    (a, b) => a.float().total_cmp(&b.float()),
                };
                if largest { order.reverse() } else { order }
            });
            let start = line / to * to * kept + line % to;
            for (rank, &k) in order[..kept].iter().enumerate() {
                (numbers[start + rank * to], places[start + rank * to]) = (at(k), k as i64);
            }
        }
        let values = OnnxArray::new(sizes.clone(), ArrayData::from_numbers(x.elem(), numbers.into_iter()));
        Ok(vec![values, OnnxArray::i64(&sizes, places)])
    }

    pub(super) fn cum_sum(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let along = self.ints(1)?;
        let along = axis(*along.first().ok_or("the axis is missing")?, x.rank())?;
        let reverse = self.node.int("reverse").unwrap_or(0) != 0;
        let exclusive = self.node.int("exclusive").unwrap_or(0) != 0;
        let (stride, size) = (strides(x.sizes())[along], x.sizes()[along]);
        let mut numbers: Vec<Element> = (0..x.len()).map(|i| x.data().get(i)).collect();
        for first in (0..x.len()).filter(|i| i / stride % size == 0) {
            let mut sum = if x.elem() == OnnxElem::F32 { Element::Float(0.0) } else { Element::Int(0) };
            for k in 0..size {
                let k = if reverse { size - 1 - k } else { k };
                let here = &mut numbers[first + k * stride];
                let next = combine("ReduceSum", sum, *here);
                *here = if exclusive { sum } else { next };
                sum = next;
            }
        }
        Ok(OnnxArray::new(x.sizes().to_vec(), ArrayData::from_numbers(x.elem(), numbers.into_iter())))
    }

    pub(super) fn trilu(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let &[.., rows, columns] = x.sizes() else { return Err("a matrix is wanted".into()) };
        let k = match self.optional(1) {
            Some(k) => k.number().ok_or("the diagonal should be one number")?.int(),
            None => 0,
        };
        let upper = self.node.int("upper").unwrap_or(1) != 0;
        let number = |i: usize| {
            let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
            let diagonal = row.saturating_add(k);
            let inside = if upper { column >= diagonal } else { column <= diagonal };
            if inside { x.data().get(i) } else { Element::Int(0) }
        };
        Ok(OnnxArray::new(x.sizes().to_vec(), ArrayData::from_numbers(x.elem(), (0..x.len()).map(number))))
    }

    /// `[rank, n]`: the places of all elements that are not zero.
    pub(super) fn non_zero(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let places: Vec<usize> = (0..x.len()).filter(|&i| !x.data().get(i).is_zero()).collect();
        let from = strides(x.sizes());
        count(&[x.rank(), places.len()])?;
        let row = |a: usize| places.iter().map(move |&i| (a, i));
        let indices = (0..x.rank()).flat_map(row).map(|(a, i)| (i / from[a] % x.sizes()[a]) as i64).collect();
        Ok(OnnxArray::i64(&[x.rank(), places.len()], indices))
    }
}

fn combine(op: &str, a: Element, b: Element) -> Element {
    match (a, b) {
        (Element::Int(a), Element::Int(b)) => Element::Int(match op {
            "ReduceMax" => a.max(b),
            "ReduceMin" => a.min(b),
            "ReduceProd" => a.wrapping_mul(b),
            _ => a.wrapping_add(b),
        }),
        (a, b) => {
            let (a, b) = (a.float(), b.float());
            Element::Float(match op {
                "ReduceMax" => a.max(b),
                "ReduceMin" => a.min(b),
                "ReduceProd" => a * b,
                _ => a + b,
            })
        }
    }
}
