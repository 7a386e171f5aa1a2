//! Recognises LayerNorm and RMSNorm by what they compute, whatever algebra an exporter wrote them in.
//!
//! What is computed of one row alone is evaluated on rows that are drawn, in f64. Where the result is `gain * n + bias` by
//! channel, `n` being the row over the root of its mean square, it is that RMSNorm; where `n` is so of the row less its mean, it
//! is that LayerNorm. The variance may be a mean of squares less a square, the gain a part of the reciprocal root, the mean a
//! part of the bias. Heads that are normalised each on its own are rows too. Activation functions are told in the same way
//! (`sampling`).

use super::views;
use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp, Perm, Scalar, TrainingOp};
use snnc_ir::origin::NodeOrigin;
use snnc_ir::random::SplitMix64;
use snnc_ir::{Binary, Builder, Diagnostic, Dim, Graph, Op, Shape, Stage, Tensor, Unary, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Operations of one row's normalisation, at most. The longest that was met has 15.
const REGION_MAX: usize = 48;

/// Scale and mean of the rows that are drawn: large and small against any epsilon.
const ROWS: [(f32, f32); 10] = [
    (1.0, 0.0),
    (1.0, 0.5),
    (2.0, -0.7),
    (1.0, 0.2),
    (0.1, 0.03),
    (1e-2, 1e-2),
    (3e-3, 0.0),
    (1e-3, -1e-3),
    (1e-5, 0.0),
    (8.0, 3.0),
];

const SEED: u64 = 0x1a7e_2905;

/// A gain or bias this near to 1 or 0 is that.
const NEAR: f64 = 1e-6;

/// A norm that was found.
struct NormFit {
    /// Whether the mean is taken from the row first: LayerNorm.
    centred: bool,
    eps: f32,
    /// Gain and bias of every channel, where they say something.
    affine: Option<[Vec<f32>; 2]>,
}

/// The same graph with each LayerNorm as one operation. `tolerance`: how far constants of the file are rounded.
///
/// # Errors
/// None, for a graph that was verified.
pub(super) fn recognised(graph: &Graph, tolerance: f64) -> Result<Graph, Diagnostic> {
    let found = find(graph, tolerance);
    if found.is_empty() {
        return Ok(graph.clone());
    }
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let origin = graph.origin(value);
        let new = match (found.get(&value), graph.constant(value)) {
            (Some((x, norm)), _) => written(&mut builder, map[x.index()], norm, origin)?,
            (None, Some(weight)) => builder.weight(&weight.name, weight.tensor.clone()),
            (None, None) => {
                let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
                builder.add(node.op, &args, origin)?
            }
        };
        map.push(new);
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    Ok(builder.finish(outputs))
}

/// A norm as operations on rows; heads are put side by side for it.
fn written(builder: &mut Builder, x: Value, norm: &NormFit, origin: &NodeOrigin) -> Result<Value, Diagnostic> {
    let shape = builder.ty(x).shape();
    let (Some((axis, sizes)), Some(width)) = (views::by_token(shape), shape.width()) else {
        return Err(Diagnostic::new(origin, "a norm is of rows"));
    };
    let heads = sizes.iter().product::<usize>() / width;
    let (rows, back) = as_rows(builder, x, axis, origin)?;
    let mut y = rows;
    if norm.centred {
        y = builder.add(Op::Dense(DenseOp::Centre), &[y], origin)?;
    }
    let heads_here = u32::try_from(heads).map_err(|_| Diagnostic::new(origin, "there are too many heads"))?;
    let op = Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(norm.eps), heads: heads_here });
    y = builder.add(op, &[y], origin)?;
    if let Some([gain, bias]) = &norm.affine {
        let mut vector = |name: &str, data: &[f32]| {
            let tensor = Tensor::f32(&[width * heads], data.repeat(heads));
            builder.weight(&format!("{origin}.{name}"), Arc::new(tensor))
        };
        let (gain, bias) = (vector("gain", gain), vector("bias", bias));
        y = builder.add(Op::Level(LevelOp::ScaleShift), &[y, gain, bias], origin)?;
    }
    match back {
        None => Ok(y),
        Some((apart, perm)) => {
            y = builder.add(Op::Array(ArrayOp::Reshape(apart)), &[y], origin)?;
            if perm.is_identity() { Ok(y) } else { builder.add(Op::Array(ArrayOp::Transpose(perm)), &[y], origin) }
        }
    }
}

/// A value as rows, and the shape and the order of axes that it had; none where it is rows.
fn as_rows(
    builder: &mut Builder,
    x: Value,
    axis: usize,
    origin: &NodeOrigin,
) -> Result<(Value, Option<(Shape, Perm)>), Diagnostic> {
    let shape = builder.ty(x).shape();
    if shape.row_width().is_some() {
        return Ok((x, None));
    }
    let order: Vec<usize> = [axis].into_iter().chain((0..shape.rank()).filter(|other| *other != axis)).collect();
    let back: Vec<usize> = (0..shape.rank()).map(|i| order.iter().position(|&other| other == i).unwrap_or(i)).collect();
    let (Some(order), Some(back)) = (Perm::new(&order), Perm::new(&back)) else {
        return Err(Diagnostic::new(origin, "axes can be turned"));
    };
    let turned =
        if order.is_identity() { x } else { builder.add(Op::Array(ArrayOp::Transpose(order)), &[x], origin)? };
    let apart = builder.ty(turned).shape();
    let width: usize = apart.dims()[1..].iter().map(|dim| dim.size(0, 0)).product();
    let rows = builder.add(Op::Array(ArrayOp::Reshape(Shape::rows(width))), &[turned], origin)?;
    Ok((rows, Some((apart, back))))
}

/// By value: what it normalises, and how.
fn find(graph: &Graph, tolerance: f64) -> BTreeMap<Value, (Value, NormFit)> {
    let users = graph.users();
    let mut constant = vec![false; graph.nodes.len()];
    for (value, node) in graph.iter() {
        let of_constants = !node.args.is_empty() && node.args.iter().all(|arg| constant[arg.index()]);
        constant[value.index()] = of_constants || matches!(node.op, Op::Leaf(LeafOp::Weight(_)));
    }
    let search = NormSearch { graph, users: &users, constant: &constant, tolerance };
    let mut found = BTreeMap::new();
    // What is computed on the way to a LayerNorm is none of its own.
    let mut inside: BTreeSet<Value> = BTreeSet::new();
    for x in search.bases() {
        if inside.contains(&x) {
            continue;
        }
        let region = search.region(x);
        let norms = search.norms(x, &region);
        if !norms.is_empty() {
            inside.extend(region);
            found.extend(norms.into_iter().map(|(value, norm)| (value, (x, norm))));
        }
    }
    found
}

struct NormSearch<'a> {
    graph: &'a Graph,
    users: &'a [Vec<Value>],
    /// Whether a value depends on constants only.
    constant: &'a [bool],
    tolerance: f64,
}

impl NormSearch<'_> {
    /// Operands that depend on the tokens, each once.
    fn live(&self, value: Value) -> Vec<Value> {
        let mut live: Vec<Value> =
            self.graph.node(value).args.iter().copied().filter(|arg| !self.constant[arg.index()]).collect();
        live.dedup();
        live
    }

    /// Rows of which something is averaged, and what they are functions of.
    fn bases(&self) -> BTreeSet<Value> {
        let mut bases = BTreeSet::new();
        for (value, node) in self.graph.iter() {
            if !matches!(node.op, Op::Array(ArrayOp::Mean) | Op::Training(TrainingOp::ReduceSum(_))) {
                continue;
            }
            let mut at = value;
            for _ in 0..4 {
                let &[x] = self.live(at).as_slice() else { break };
                bases.insert(x);
                at = x;
            }
        }
        // Heads of one token are rows of their own.
        bases.retain(|&x| {
            let shape = self.graph.ty(x).shape();
            !self.constant[x.index()]
                && views::by_token(shape).is_some_and(|(axis, _)| axis + 1 < shape.rank())
                && shape.width().is_some_and(|width| width > 1)
        });
        bases
    }

    /// What is computed of each row of `x` alone, operands before users; nothing where that is too much.
    fn region(&self, x: Value) -> Vec<Value> {
        let mut region = Vec::new();
        let mut inside = BTreeSet::from([x]);
        let mut open: BTreeSet<Value> = self.users[x.index()].iter().copied().collect();
        while let Some(value) = open.pop_first() {
            let known = |arg: &Value| inside.contains(arg) || self.constant[arg.index()];
            if !self.is_of_rows(x, value) || !self.graph.node(value).args.iter().all(known) {
                continue;
            }
            region.push(value);
            inside.insert(value);
            open.extend(&self.users[value.index()]);
            if region.len() > REGION_MAX {
                return Vec::new();
            }
        }
        region
    }

    /// Whether an operation does to a row what it does to every row.
    fn is_of_rows(&self, x: Value, value: Value) -> bool {
        let all = |value: Value| {
            let dims = self.graph.ty(value).shape();
            dims.dims().iter().copied().filter(|dim| *dim != Dim::Fixed(1)).collect::<Vec<Dim>>()
        };
        let (dims, rows) = (all(value), all(x));
        let node = self.graph.node(value);
        let by_row = match node.op {
            Op::Array(ArrayOp::Unary(_) | ArrayOp::Binary(_) | ArrayOp::Reshape(_)) => true,
            Op::Array(ArrayOp::Mean) | Op::Training(TrainingOp::ReduceSum(_)) => {
                let width = self.graph.ty(node.args[0]).shape().dims().last().copied();
                width == rows.last().copied() && dims == rows[..rows.len() - 1]
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
        };
        by_row && (dims == rows || dims == rows[..rows.len() - 1])
    }

    /// The values of the region that are a norm of `x` and are not computed from another one of them alone.
    fn norms(&self, x: Value, region: &[Value]) -> Vec<(Value, NormFit)> {
        let is_root = |value: &Value| {
            matches!(self.graph.node(*value).op, Op::Array(ArrayOp::Unary(Unary::Sqrt) | ArrayOp::Binary(Binary::Pow)))
        };
        let Some(width) = self.graph.ty(x).shape().width().filter(|_| region.iter().any(is_root)) else {
            return Vec::new();
        };
        let is_row = self.graph.ty(x).shape().row_width().is_some();
        let rows = drawn(width);
        let Some(values) = self.evaluated(x, region, &rows) else { return Vec::new() };
        let all = self.epsilons(region, width);
        // A mean over one of several heads is no operation.
        let kinds = all.iter().flat_map(|&eps| [(false, eps), (true, eps)]).filter(|(centred, _)| is_row || !centred);
        let normal: Vec<((bool, f32), Vec<f64>)> = kinds
            .map(|(centred, eps)| {
                let all = rows.chunks_exact(width).flat_map(|row| normalised(row, eps, centred));
                ((centred, eps), all.collect())
            })
            .collect();
        let mut found: Vec<(Value, NormFit)> = Vec::new();
        let mut derived: BTreeSet<Value> = BTreeSet::new();
        for (&value, y) in region.iter().zip(&values) {
            let live = self.live(value);
            if !live.is_empty() && live.iter().all(|arg| derived.contains(arg)) {
                derived.insert(value);
                continue;
            }
            if y.len() != rows.len() || self.graph.ty(value) != self.graph.ty(x) {
                continue;
            }
            let fit = normal.iter().find_map(|&((centred, eps), ref n)| {
                let affine = fitted(y, n, width, self.tolerance)?;
                Some(NormFit { centred, eps, affine })
            });
            if let Some(norm) = fit {
                derived.insert(value);
                found.push((value, norm));
            }
        }
        found
    }

    /// What may stand beside the variance: the numbers of the region, as they are or where sums stand for means.
    fn epsilons(&self, region: &[Value], width: usize) -> Vec<f32> {
        let args = region.iter().flat_map(|&value| &self.graph.node(value).args);
        let numbers = args.filter_map(|arg| self.graph.constant(*arg)?.tensor.scalar());
        let mut all: Vec<f32> = Vec::new();
        for number in numbers.filter(|number| *number > 0.0 && *number < 0.1) {
            let (number, width) = (f64::from(number), width as f64);
            let ways = [number, number / width, number * (width - 1.0) / width];
            all.extend(ways.map(|eps| eps as f32));
        }
        let mut kept: Vec<f32> = Vec::new();
        all.retain(|eps| {
            let new = !kept.contains(eps);
            kept.push(*eps);
            new
        });
        all
    }

    /// The values of the region, where every head of `x` has these rows.
    fn evaluated(&self, x: Value, region: &[Value], rows: &[f32]) -> Option<Vec<Vec<f64>>> {
        let width = rows.len() / ROWS.len();
        let mut builder = Builder::new(Stage::Imported, ROWS.len() as u32);
        let mut map: BTreeMap<Value, Value> = BTreeMap::new();
        let tokens = builder.add(Op::Leaf(LeafOp::Tokens), &[], "").ok()?;
        let table = builder.weight("rows", Arc::new(Tensor::f32(&[ROWS.len(), width], rows.to_vec())));
        map.insert(x, builder.add(Op::Dense(DenseOp::Embed), &[tokens, table], "").ok()?);
        for &value in region {
            let new = self.copied(&mut builder, &mut map, value)?;
            map.insert(value, new);
        }
        let outputs = region.iter().map(|value| (String::new(), map[value])).collect();
        let graph = builder.finish(outputs);
        let evaluator = Evaluator::<f64>::new(&graph);
        let tokens: Vec<u32> = (0..ROWS.len() as u32).collect();
        let done = evaluator.run(&tokens, &mut Memory::new(&graph)).ok()?;
        let reals = |(_, value): &(String, Value)| match &evaluator.get(&done, *value).content {
            Content::Real(data) => Some(data.clone()),
            Content::Int(_) | Content::Train(_) => None,
        };
        graph.outputs.iter().map(reals).collect()
    }

    /// A value of the region in the small graph, with the constants that it is computed from.
    fn copied(&self, builder: &mut Builder, map: &mut BTreeMap<Value, Value>, value: Value) -> Option<Value> {
        let mut open = vec![value];
        while let Some(&at) = open.last() {
            let node = self.graph.node(at);
            let missing = node.args.iter().copied().find(|arg| !map.contains_key(arg));
            if let Some(arg) = missing {
                open.push(arg);
                continue;
            }
            let new = match self.graph.constant(at) {
                Some(weight) => builder.weight(&weight.name, weight.tensor.clone()),
                None => {
                    let args: Vec<Value> = node.args.iter().map(|arg| map[arg]).collect();
                    builder.add(of_one_head(node.op, self.graph.ty(value).shape())?, &args, "").ok()?
                }
            };
            map.insert(at, new);
            open.pop();
        }
        map.get(&value).copied()
    }
}

/// An operation on heads as one on a head, whose shape is `[tokens, width]`.
fn of_one_head(op: Op, shape: Shape) -> Option<Op> {
    let (Some((axis, sizes)), Some(width)) = (views::by_token(shape), shape.width()) else { return Some(op) };
    let alone = axis == 0 && sizes.len() == 1 || shape.rank() == 1;
    let rows = Shape::new(&[Dim::Tokens, Dim::Fixed(u32::try_from(width).ok()?)]);
    match op {
        _ if alone => Some(op),
        Op::Array(ArrayOp::Reshape(_)) => Some(Op::Array(ArrayOp::Reshape(rows))),
        Op::Training(TrainingOp::ReduceSum(_)) => Some(Op::Training(TrainingOp::ReduceSum(rows))),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => Some(op),
    }
}

/// Rows of every kind, the same for everybody.
fn drawn(width: usize) -> Vec<f32> {
    let mut random = SplitMix64(SEED);
    let mut number = || (random.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
    ROWS.iter().flat_map(|&(scale, mean)| (0..width).map(|_| scale * number() + mean).collect::<Vec<f32>>()).collect()
}

fn normalised(row: &[f32], eps: f32, centred: bool) -> Vec<f64> {
    let mean = |row: &[f64]| row.iter().sum::<f64>() / row.len() as f64;
    let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    let centre = if centred { mean(&row) } else { 0.0 };
    let row: Vec<f64> = row.iter().map(|x| x - centre).collect();
    let variance = mean(&row.iter().map(|x| x * x).collect::<Vec<f64>>());
    row.iter().map(|x| x / (variance + f64::from(eps)).sqrt()).collect()
}

/// Gain and bias by channel of `y = gain * n + bias`, where it is that; none inside where they change nothing.
fn fitted(y: &[f64], n: &[f64], width: usize, tolerance: f64) -> Option<Option<[Vec<f32>; 2]>> {
    let (mut gain, mut bias) = (Vec::with_capacity(width), Vec::with_capacity(width));
    for c in 0..width {
        let column = || n.iter().skip(c).step_by(width).zip(y.iter().skip(c).step_by(width));
        let most = column().fold(0f64, |most, (_, y)| most.max(y.abs()));
        let by_normal = |a: &(&f64, &f64), b: &(&f64, &f64)| a.0.total_cmp(b.0);
        let ((low, below), (high, above)) = (column().min_by(by_normal)?, column().max_by(by_normal)?);
        let g = (above - below) / (high - low);
        let b = below - g * low;
        // A difference that is no number is not near.
        let near = column().all(|(n, y)| (g * n + b - y).abs() <= tolerance * most);
        if !near {
            return None;
        }
        gain.push(g);
        bias.push(if b.abs() <= NEAR * NEAR * most { 0.0 } else { b });
    }
    if gain.iter().zip(&bias).all(|(g, b)| g.abs() <= NEAR * b.abs()) {
        return None;
    }
    let plain = gain.iter().all(|g| (g - 1.0).abs() < NEAR) && bias.iter().all(|b| b.abs() < NEAR);
    let rounded = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
    Some((!plain).then(|| [rounded(gain), rounded(bias)]))
}
