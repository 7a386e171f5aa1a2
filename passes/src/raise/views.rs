//! Values seen as what they hold of rows: whoever moves, copies, scales or turns channels, here is where each number comes from.
//!
//! A *view* names the channels of its *base*, a value that nothing here makes: every place of the view's fixed axes is a sum of
//! channels, each times a number and perhaps times a column of a table of positions. Reshapes, transposes, slices, joins and
//! copies only change which place has which sum, so that all ways to write heads, rotations and shared keys look alike.

use snnc_ir::op::{ArrayOp, DenseOp, LeafOp};
use snnc_ir::types::{Dim, Elem, Shape, Type};
use snnc_ir::{Binary, Graph, Op, Unary, Value};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Channels that one place is a sum of, at most.
const ADDENDS_MAX: usize = 4;

/// Places of a view, at most.
const PLACES_MAX: usize = 1 << 20;

/// A column of a table of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableColumn {
    /// The rows that positions pick.
    pub table: Value,
    pub column: u32,
}

/// `factor * by * base[channel]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Addend {
    pub channel: u32,
    pub factor: f64,
    pub by: Option<TableColumn>,
}

/// What one place holds.
pub(super) type ChannelSum = Vec<Addend>;

/// A value as sums of channels of its base.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub base: Value,
    /// By place of the fixed axes, the last axis fastest; none where every place is the channel of its number.
    entries: Option<Rc<Vec<ChannelSum>>>,
    places: usize,
}

impl View {
    /// By place of the fixed axes.
    pub fn entries(&self) -> Rc<Vec<ChannelSum>> {
        self.entries.clone().unwrap_or_else(|| {
            let own = |channel: usize| vec![Addend { channel: channel as u32, factor: 1.0, by: None }];
            Rc::new((0..self.places).map(own).collect())
        })
    }

    /// The channel of every place, where each is one channel as it is.
    pub fn channels(&self) -> Option<Vec<u32>> {
        let one = |entry: &ChannelSum| match entry.as_slice() {
            &[Addend { channel, factor: 1.0, by: None }] => Some(channel),
            _ => None,
        };
        self.entries().iter().map(one).collect()
    }

    fn with(&self, entries: Vec<ChannelSum>) -> Option<View> {
        let places = entries.len();
        (places <= PLACES_MAX).then(|| View { base: self.base, entries: Some(Rc::new(entries)), places })
    }

    fn map(&self, f: impl Fn(&Addend) -> Option<Addend>) -> Option<View> {
        let each = |entry: &ChannelSum| entry.iter().map(&f).collect::<Option<ChannelSum>>();
        self.with(self.entries().iter().map(each).collect::<Option<Vec<ChannelSum>>>()?)
    }

    /// The places that `at` names, in that order.
    fn at(&self, at: impl Iterator<Item = usize>) -> Option<View> {
        let own = self.entries();
        self.with(at.map(|place| own[place].clone()).collect())
    }
}

/// The one axis of tokens, and the sizes of the others.
pub(super) fn by_token(shape: Shape) -> Option<(usize, Vec<usize>)> {
    let dims = shape.dims();
    let axis = dims.iter().position(|dim| *dim == Dim::Tokens)?;
    let fixed: Vec<usize> =
        dims.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, dim)| dim.size(0, 0)).collect();
    (!dims[axis + 1..].contains(&Dim::Tokens)).then_some((axis, fixed))
}

/// Indices of a place, the last axis fastest.
pub(super) fn index(mut place: usize, sizes: &[usize]) -> Vec<usize> {
    let mut index = vec![0; sizes.len()];
    for axis in (0..sizes.len()).rev() {
        index[axis] = place % sizes[axis];
        place /= sizes[axis];
    }
    index
}

/// The place of indices; an axis of size 1 takes any.
fn place(index: &[usize], sizes: &[usize]) -> usize {
    index.iter().zip(sizes).fold(0, |place, (&i, &size)| place * size + if size == 1 { 0 } else { i })
}

/// For every place of the fixed axes of `to`, that of an operand which broadcasts to it; none where its tokens stand elsewhere.
pub(super) fn stretched(own: &[Dim], to: &[Dim]) -> Option<Vec<usize>> {
    let ahead = to.len().checked_sub(own.len())?;
    let aligned = |(i, dim): (usize, &Dim)| *dim == to[ahead + i] || *dim == Dim::Fixed(1);
    if !own.iter().enumerate().all(aligned) {
        return None;
    }
    let fixed =
        |dims: &[Dim]| dims.iter().filter(|dim| **dim != Dim::Tokens).map(|dim| dim.size(0, 0)).collect::<Vec<usize>>();
    let sizes = fixed(to);
    // Of an index of `to`, the axes that the operand has: its tokens, or a 1 in their place, are no fixed axis of `to`.
    let (mut kept, mut at) = (Vec::new(), 0);
    for (i, dim) in to.iter().enumerate() {
        if *dim == Dim::Tokens {
            continue;
        }
        if i >= ahead {
            kept.push(at);
        }
        at += 1;
    }
    let own_sizes: Vec<usize> =
        own.iter().enumerate().filter(|(i, _)| to[ahead + i] != Dim::Tokens).map(|(_, dim)| dim.size(0, 0)).collect();
    let count: usize = sizes.iter().product();
    let at = |i: usize| {
        let index = index(i, &sizes);
        place(&kept.iter().map(|&axis| index[axis]).collect::<Vec<usize>>(), &own_sizes)
    };
    (count <= PLACES_MAX).then(|| (0..count).map(at).collect())
}

/// The views of all values of a graph.
pub(super) struct Views<'a> {
    graph: &'a Graph,
    views: Vec<Option<View>>,
    /// Which values depend on positions alone.
    positional: Vec<bool>,
    columns: BTreeMap<TableColumn, Rc<Vec<f64>>>,
}

impl<'a> Views<'a> {
    pub fn of(graph: &'a Graph) -> Self {
        let count = graph.nodes.len();
        let mut all =
            Views { graph, views: vec![None; count], positional: vec![false; count], columns: BTreeMap::new() };
        for (value, node) in graph.iter() {
            let of_positions = |arg: &Value| all.positional[arg.index()] || graph.constant(*arg).is_some();
            let moves = !node.args.is_empty() && node.args.iter().all(of_positions);
            let is_leaf = node.op == Op::Leaf(LeafOp::Positions);
            all.positional[value.index()] = is_leaf || moves && node.args.iter().any(|arg| all.positional[arg.index()]);
            all.views[value.index()] = all.made(value).or_else(|| all.base(value));
        }
        all
    }

    /// What a value is, seen so.
    pub fn get(&self, value: Value) -> Option<&View> {
        self.views[value.index()].as_ref()
    }

    /// Whether a value is not its own base.
    pub fn is_made(&self, value: Value) -> bool {
        self.get(value).is_some_and(|view| view.base != value)
    }

    /// Whether a value depends on positions alone.
    pub fn is_positional(&self, value: Value) -> bool {
        self.positional[value.index()]
    }

    /// A column of a table at all positions.
    pub fn column(&mut self, at: TableColumn) -> Option<Rc<Vec<f64>>> {
        if let Some(known) = self.columns.get(&at) {
            return Some(known.clone());
        }
        let node = self.graph.node(at.table);
        let table = self.graph.constant(*node.args.get(1).filter(|_| node.op == Op::Dense(DenseOp::Embed))?)?;
        let width = *table.tensor.sizes().get(1)?;
        let column = table.tensor.as_f32()?.iter().skip(at.column as usize).step_by(width);
        let column: Rc<Vec<f64>> = Rc::new(column.map(|x| f64::from(*x)).collect());
        self.columns.insert(at, column.clone());
        Some(column)
    }

    /// Every number of a row, where the value has rows.
    fn base(&self, value: Value) -> Option<View> {
        let Type::Tensor { elem: Elem::F32, shape } = self.graph.ty(value) else { return None };
        if self.graph.constant(value).is_some() {
            return None;
        }
        let places = by_token(shape)?.1.iter().product();
        (places <= PLACES_MAX).then_some(View { base: value, entries: None, places })
    }

    /// The view of a value that moves, scales or adds channels of another.
    fn made(&self, value: Value) -> Option<View> {
        let node = self.graph.node(value);
        let view = |i: usize| self.get(node.args[i]);
        let shape = |i: usize| self.graph.ty(node.args[i]).shape();
        match node.op {
            Op::Array(ArrayOp::Reshape(to)) => {
                let before =
                    |shape: Shape| by_token(shape).map(|(axis, sizes)| sizes[..axis].iter().product::<usize>());
                let same = before(shape(0))? == before(to)?;
                view(0).filter(|_| same).cloned()
            }
            Op::Array(ArrayOp::SplitHeads { heads }) => {
                // `[tokens, heads * w]` to `[heads, tokens, w]`: places keep their order.
                by_token(node.ty.shape()).and(view(0).cloned()).filter(|_| heads > 0)
            }
            Op::Array(ArrayOp::MergeHeads) => view(0).cloned(),
            Op::Array(ArrayOp::Transpose(perm)) => {
                let (from, to) = (shape(0), node.ty.shape());
                let (at, sizes) = by_token(from)?;
                let (_, own) = by_token(to)?;
                let fixed_axis = |axis: usize| if axis > at { axis - 1 } else { axis };
                let axes: Vec<usize> = perm
                    .axes()
                    .iter()
                    .map(|&axis| usize::from(axis))
                    .filter(|&axis| axis != at)
                    .map(fixed_axis)
                    .collect();
                let count: usize = own.iter().product();
                view(0)?.at((0..count).map(|i| {
                    let mut from = vec![0; sizes.len()];
                    index(i, &own).into_iter().zip(&axes).for_each(|(i, &axis)| from[axis] = i);
                    place(&from, &sizes)
                }))
            }
            Op::Array(ArrayOp::Slice { axis, start, .. }) => {
                let (at, sizes) = by_token(shape(0))?;
                let (_, own) = by_token(node.ty.shape())?;
                let axis = usize::from(axis);
                let axis = if axis > at { axis - 1 } else { axis };
                let count: usize = own.iter().product();
                view(0)?.at((0..count).map(|i| {
                    let mut index = index(i, &own);
                    index[axis] += start as usize;
                    index.iter().zip(&sizes).fold(0, |place, (&i, &size)| place * size + i)
                }))
            }
            Op::Array(ArrayOp::Concat { axis }) => self.joined(value, usize::from(axis)),
            Op::Array(ArrayOp::Unary(Unary::Neg)) => {
                view(0)?.map(|addend| Some(Addend { factor: -addend.factor, ..*addend }))
            }
            Op::Array(ArrayOp::Binary(Binary::Add)) => self.added(value, 1.0),
            Op::Array(ArrayOp::Binary(Binary::Sub)) => self.added(value, -1.0),
            Op::Array(ArrayOp::Binary(Binary::Mul)) => {
                self.scaled(value, 0, 1).or_else(|| self.scaled(value, 1, 0)).or_else(|| self.turned(value))
            }
            Op::Array(ArrayOp::Binary(Binary::Div)) => self.scaled(value, 0, 1),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
        }
    }

    fn joined(&self, value: Value, axis: usize) -> Option<View> {
        let &[a, b] = self.graph.node(value).args.as_slice() else { return None };
        let (first, second) = (self.get(a)?, self.get(b)?);
        let (at, sizes) = by_token(self.graph.ty(a).shape())?;
        let (_, other) = by_token(self.graph.ty(b).shape())?;
        let (_, own) = by_token(self.graph.ty(value).shape())?;
        if first.base != second.base || axis == at {
            return None;
        }
        let axis = if axis > at { axis - 1 } else { axis };
        let (first_entries, second_entries) = (first.entries(), second.entries());
        let one = |i: usize| {
            let mut index = index(i, &own);
            if index[axis] < sizes[axis] {
                return first_entries[place(&index, &sizes)].clone();
            }
            index[axis] -= sizes[axis];
            second_entries[place(&index, &other)].clone()
        };
        first.with((0..own.iter().product()).map(one).collect())
    }

    fn added(&self, value: Value, sign: f64) -> Option<View> {
        let node = self.graph.node(value);
        let (a, b) = (self.get(node.args[0])?, self.get(node.args[1])?);
        let dims = |i: usize| self.graph.ty(node.args[i]).shape();
        if a.base != b.base {
            return None;
        }
        let shape = node.ty.shape();
        let (i, j) = (stretched(dims(0).dims(), shape.dims())?, stretched(dims(1).dims(), shape.dims())?);
        let (x, y) = (a.entries(), b.entries());
        let sum = |(i, j): (usize, usize)| {
            let mut sum = x[i].clone();
            for addend in &y[j] {
                let addend = Addend { factor: sign * addend.factor, ..*addend };
                match sum.iter_mut().find(|own| (own.channel, own.by) == (addend.channel, addend.by)) {
                    Some(own) => own.factor += addend.factor,
                    None => sum.push(addend),
                }
            }
            (sum.len() <= ADDENDS_MAX).then_some(sum)
        };
        a.with(i.into_iter().zip(j).map(sum).collect::<Option<Vec<ChannelSum>>>()?)
    }

    /// A view times, or over, a constant.
    fn scaled(&self, value: Value, live: usize, constant: usize) -> Option<View> {
        let node = self.graph.node(value);
        let tensor = &self.graph.constant(node.args[constant])?.tensor;
        let (view, numbers) = (self.get(node.args[live])?, tensor.as_f32()?);
        let dims = |i: usize| self.graph.ty(node.args[i]).shape();
        let shape = node.ty.shape();
        let (i, j) = (stretched(dims(live).dims(), shape.dims())?, stretched(dims(constant).dims(), shape.dims())?);
        let entries = view.entries();
        let divides = node.op == Op::Array(ArrayOp::Binary(Binary::Div));
        let one = |(i, j): (usize, usize)| {
            let number = f64::from(numbers[j]);
            let factor = if divides { 1.0 / number } else { number };
            let scaled = |addend: &Addend| Addend { factor: addend.factor * factor, ..*addend };
            factor.is_finite().then(|| entries[i].iter().map(scaled).collect::<ChannelSum>())
        };
        view.with(i.into_iter().zip(j).map(one).collect::<Option<Vec<ChannelSum>>>()?)
    }

    /// A view times what depends on positions alone.
    fn turned(&self, value: Value) -> Option<View> {
        let node = self.graph.node(value);
        let positional = |i: usize| self.positional[node.args[i].index()];
        let (live, table) = match (positional(0), positional(1)) {
            (false, true) => (0, 1),
            (true, false) => (1, 0),
            (true, true) | (false, false) => return None,
        };
        let (view, by) = (self.get(node.args[live])?, self.get(node.args[table])?);
        let dims = |i: usize| self.graph.ty(node.args[i]).shape();
        let shape = node.ty.shape();
        let (i, j) = (stretched(dims(live).dims(), shape.dims())?, stretched(dims(table).dims(), shape.dims())?);
        let (entries, columns) = (view.entries(), by.entries());
        let one = |(i, j): (usize, usize)| {
            let &[column] = columns[j].as_slice() else { return None };
            let at = TableColumn { table: by.base, column: column.channel };
            let turned = |addend: &Addend| match (addend.by, column.by) {
                (None, None) => Some(Addend { factor: addend.factor * column.factor, by: Some(at), ..*addend }),
                _ => None,
            };
            entries[i].iter().map(turned).collect::<Option<ChannelSum>>()
        };
        view.with(i.into_iter().zip(j).map(one).collect::<Option<Vec<ChannelSum>>>()?)
    }
}
