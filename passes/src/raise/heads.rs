//! Brings the heads of attention into one form, whoever split, turned, repeated and merged them.
//!
//! Scores are products of two values that both depend on tokens. What these are of their rows is seen as views; scores are then
//! made anew of rows: `split_heads` of queries and keys that are turned by `rotary` where they are turned, in the order in which
//! heads that share keys stand together. What is done to scores on their way to the values is followed. The rules of `raise` say
//! what an attention is; they find it in this one form.

use super::distances;
use super::rotary::TurnedHeads;
use super::views::{ChannelSum, Views, index, stretched};
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, Perm, TrainingOp};
use snnc_ir::types::{Dim, Shape};
use snnc_ir::{Binary, Builder, Diagnostic, Graph, Node, Op, Tensor, Value};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Heads that are compared with each other, at most.
const HEADS_MAX: usize = 1024;

/// Scores, or what was computed of them, in the one form.
#[derive(Clone)]
struct ScoreView {
    /// `[heads, tokens, tokens]`, or `[kv, group, tokens, tokens]` where heads share keys; 1 key where rows were summed.
    value: Value,
    /// By place of the fixed axes of the file's value: the head.
    order: Rc<Vec<u32>>,
    /// Heads of keys.
    kv: u32,
    /// Whether all scores of a query may have the same number more than the file's: softmax does not notice.
    shifted: bool,
}

impl ScoreView {
    fn heads(&self) -> u32 {
        self.order.len() as u32
    }
}

/// The same graph with heads in one form.
///
/// # Errors
/// None, for a graph that was verified.
pub(super) fn in_one_form(graph: &Graph) -> Result<Graph, Diagnostic> {
    let builder = Builder::new(graph.stage, graph.context);
    let views = Views::of(graph);
    let mut heads = HeadForms {
        graph,
        views,
        builder,
        map: Vec::with_capacity(graph.nodes.len()),
        rows: BTreeMap::new(),
        scores: BTreeMap::new(),
        turns: BTreeMap::new(),
    };
    for (value, _) in graph.iter() {
        heads.node(value)?;
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), heads.map[value.index()])).collect();
    Ok(heads.builder.finish(outputs))
}

pub(super) struct HeadForms<'a> {
    pub graph: &'a Graph,
    pub views: Views<'a>,
    pub builder: Builder,
    /// Every value in the new graph.
    pub map: Vec<Value>,
    /// Rows of results of attention, and where each channel of the file's value stands in them.
    pub rows: BTreeMap<Value, (Value, Vec<u32>)>,
    scores: BTreeMap<Value, ScoreView>,
    /// Tables of cosines and sines, by their numbers: layers share them.
    turns: BTreeMap<Vec<u32>, Value>,
}

impl HeadForms<'_> {
    fn node(&mut self, value: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(value);
        let new = match self.graph.constant(value) {
            Some(weight) => self.builder.weight(&weight.name, weight.tensor.clone()),
            None => {
                let args: Vec<Value> = node.args.iter().map(|arg| self.map[arg.index()]).collect();
                self.builder.add(node.op, &args, self.graph.origin(value))?
            }
        };
        self.map.push(new);
        if let Some(rows) = self.moved_rows(value)? {
            self.map[value.index()] = rows;
        } else if let Some(projected) = self.projected(value)? {
            self.map[value.index()] = projected;
        } else if self.reads_scores(value) {
            if node.op == Op::Array(ArrayOp::MatMul) {
                self.weighted(value)?;
            } else if let Some(scores) = self.followed(value)? {
                self.scores.insert(value, scores);
            }
        } else if let Some(scores) = self.scored(value)? {
            self.scores.insert(value, scores);
        }
        Ok(())
    }

    fn reads_scores(&self, value: Value) -> bool {
        self.graph.node(value).args.iter().any(|arg| self.scores.contains_key(arg))
    }

    pub fn add(&mut self, op: Op, args: &[Value], at: Value) -> Result<Value, Diagnostic> {
        self.builder.add(op, args, self.graph.origin(at))
    }

    pub fn reshaped(&mut self, x: Value, shape: Shape, at: Value) -> Result<Value, Diagnostic> {
        if self.builder.ty(x).shape() == shape { Ok(x) } else { self.add(Op::Array(ArrayOp::Reshape(shape)), &[x], at) }
    }

    /// A product of queries and keys, made anew of their rows.
    fn scored(&mut self, value: Value) -> Result<Option<ScoreView>, Diagnostic> {
        let node = self.graph.node(value);
        let (Op::Array(ArrayOp::MatMul), &[q, k]) = (node.op, node.args.as_slice()) else { return Ok(None) };
        let (Some(queries), Some(keys)) = (self.views.get(q).cloned(), self.views.get(k).cloned()) else {
            return Ok(None);
        };
        let shape = node.ty.shape();
        let [out @ .., _] = shape.dims() else { return Ok(None) };
        let (q_dims, k_dims) = (self.graph.ty(q).shape(), self.graph.ty(k).shape());
        let ([q_lead @ .., Dim::Fixed(width)], [k_lead @ .., Dim::Fixed(_), Dim::Tokens]) =
            (q_dims.dims(), k_dims.dims())
        else {
            return Ok(None);
        };
        // Keys are the same for all queries: their rows stand in one matrix for each place before them.
        let k_lead = [k_lead, &[Dim::Fixed(1)]].concat();
        let (Some(of_q), Some(of_k)) = (stretched(q_lead, out), stretched(&k_lead, out)) else { return Ok(None) };
        let width = *width as usize;
        let (q_entries, k_entries) = (queries.entries(), keys.entries());
        let q_heads: Vec<Vec<&ChannelSum>> =
            of_q.iter().map(|&i| q_entries[i * width..][..width].iter().collect()).collect();
        let k_heads: Vec<Vec<&ChannelSum>> =
            of_k.iter().map(|&i| k_entries[i * width..][..width].iter().collect()).collect();
        if k_heads.len() > HEADS_MAX {
            return Ok(None);
        }
        let Some((order, kv)) = grouped(&k_heads) else { return Ok(None) };
        let (q_heads, k_heads) = (in_order(&q_heads, &order), in_order(&k_heads, &order));
        let group = q_heads.len() / kv as usize;
        let k_heads: Vec<Vec<&ChannelSum>> = k_heads.into_iter().step_by(group).collect();
        let (Some(mut turned_q), Some(mut turned_k)) =
            (TurnedHeads::of(&mut self.views, &q_heads), TurnedHeads::of(&mut self.views, &k_heads))
        else {
            return Ok(None);
        };
        // A product over channels has no order: both sides take the same one.
        if turned_q.pairs().is_none() || turned_k.pairs().is_none() {
            let order = if turned_q.turns.is_empty() { turned_k.order() } else { turned_q.order() };
            turned_q.reordered(&order);
            turned_k.reordered(&order);
        }
        let heads = q_heads.len() as u32;
        let Some((q, q_scale)) = self.turned_rows(queries.base, &turned_q, value)? else { return Ok(None) };
        let Some((k, k_scale)) = self.turned_rows(keys.base, &turned_k, value)? else { return Ok(None) };
        let scores = self.product_of_rows(q, k, heads, kv, value)?;
        let scores = self.times(scores, q_scale * k_scale, value)?;
        Ok(Some(ScoreView { value: scores, order: Rc::new(order), kv, shifted: false }))
    }

    fn times(&mut self, x: Value, factor: f64, at: Value) -> Result<Value, Diagnostic> {
        if factor as f32 == 1.0 {
            return Ok(x);
        }
        let number = self.builder.weight("number", Arc::new(Tensor::f32(&[], vec![factor as f32])));
        self.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[x, number], at)
    }

    /// Rows of heads, turned; and what they are still to be multiplied by.
    fn turned_rows(&mut self, base: Value, heads: &TurnedHeads, at: Value) -> Result<Option<(Value, f64)>, Diagnostic> {
        let channels: Vec<u32> = heads.channels.concat();
        let Some(mut rows) = self.gathered(base, &channels, at)? else { return Ok(None) };
        let scale = heads.scale();
        if scale.is_none() {
            let factors: Vec<f32> = heads.factors.iter().flatten().map(|factor| *factor as f32).collect();
            let factors = Tensor::f32(&[factors.len()], factors);
            let factors = self.builder.weight(&format!("{}.factors", self.graph.origin(at)), Arc::new(factors));
            rows = self.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[rows, factors], at)?;
        }
        if !heads.turns.is_empty() {
            let (Some(pairs), Some(table)) = (heads.pairs(), heads.rows(&mut self.views)) else { return Ok(None) };
            let turns = self.turns(table, 2 * heads.turns.len(), at)?;
            let op = Op::Dense(DenseOp::Rotary { heads: heads.channels.len() as u32, pairs });
            rows = self.add(op, &[rows, turns], at)?;
        }
        Ok(Some((rows, scale.unwrap_or(1.0))))
    }

    /// Cosines and sines by position.
    fn turns(&mut self, table: Vec<f32>, width: usize, at: Value) -> Result<Value, Diagnostic> {
        let key: Vec<u32> = table.iter().map(|x| x.to_bits()).chain([width as u32]).collect();
        let weight = match self.turns.get(&key) {
            Some(weight) => *weight,
            None => {
                let tensor = Tensor::f32(&[table.len() / width, width], table);
                self.builder.weight("rotary.turns", Arc::new(tensor))
            }
        };
        self.turns.insert(key, weight);
        let positions = self.add(Op::Leaf(LeafOp::Positions), &[], at)?;
        self.add(Op::Dense(DenseOp::Embed), &[positions, weight], at)
    }

    /// Scores of queries and keys in the one form.
    fn product_of_rows(&mut self, q: Value, k: Value, heads: u32, kv: u32, at: Value) -> Result<Value, Diagnostic> {
        let mut q = self.add(Op::Array(ArrayOp::SplitHeads { heads }), &[q], at)?;
        let k = self.add(Op::Array(ArrayOp::SplitHeads { heads: kv }), &[k], at)?;
        let swap = Perm::new(&[0, 2, 1]).ok_or_else(|| Diagnostic::new(self.graph.origin(at), "keys can be turned"))?;
        let mut k = self.add(Op::Array(ArrayOp::Transpose(swap)), &[k], at)?;
        if kv != heads {
            q = self.with_groups(q, kv, at)?;
            k = self.with_groups(k, kv, at)?;
        }
        self.add(Op::Array(ArrayOp::MatMul), &[q, k], at)
    }

    /// `[heads, a, b]` as `[kv, group, a, b]`.
    fn with_groups(&mut self, x: Value, kv: u32, at: Value) -> Result<Value, Diagnostic> {
        let shape = self.builder.ty(x).shape();
        let &[Dim::Fixed(heads), a, b] = shape.dims() else { return Ok(x) };
        self.reshaped(x, Shape::new(&[Dim::Fixed(kv), Dim::Fixed(heads / kv), a, b]), at)
    }

    /// What an operation makes of scores, in the one form; none where it mixes heads or is not known.
    fn followed(&mut self, value: Value) -> Result<Option<ScoreView>, Diagnostic> {
        let node = self.graph.node(value);
        let Some(first) = node.args.iter().find_map(|arg| self.scores.get(arg)).cloned() else { return Ok(None) };
        let shape = node.ty.shape();
        let innermost = || shape.dims().last() == Some(&Dim::Tokens);
        let op = match node.op {
            Op::Array(ArrayOp::Reshape(to)) => {
                let from = self.graph.ty(node.args[0]).shape();
                return Ok(same_axes(from.dims(), to.dims()).then_some(first));
            }
            Op::Array(ArrayOp::Transpose(perm)) => {
                let from = self.graph.ty(node.args[0]).shape();
                let order = transposed_order(from.dims(), perm.axes(), &first.order);
                return Ok(order.map(|order| ScoreView { order: Rc::new(order), ..first }));
            }
            Op::Array(ArrayOp::Softmax) if innermost() => node.op,
            Op::Array(ArrayOp::Binary(Binary::Add)) if self.is_biased(node) => return self.biased(value, &first),
            Op::Training(TrainingOp::RowMax) => node.op,
            Op::Training(TrainingOp::ReduceSum(_)) => {
                let of = self.builder.ty(first.value).shape();
                let [lead @ .., _] = of.dims() else { return Ok(None) };
                if shape.dims().last() != Some(&Dim::Fixed(1)) {
                    return Ok(None);
                }
                Op::Training(TrainingOp::ReduceSum(Shape::new(&[lead, &[Dim::Fixed(1)]].concat())))
            }
            Op::Array(ArrayOp::Unary(_) | ArrayOp::Binary(_) | ArrayOp::Where) => node.op,
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                return Ok(None);
            }
        };
        let scores = node.args.iter().filter_map(|arg| self.scores.get(arg));
        let Some(shifted) = shift_after(node.op, &scores.map(|scores| scores.shifted).collect::<Vec<bool>>()) else {
            return Ok(None);
        };
        let mut args = Vec::with_capacity(node.args.len());
        for arg in &node.args {
            let new = match self.scores.get(arg) {
                Some(scores) if scores.order == first.order && scores.kv == first.kv => Some(scores.value),
                Some(_) => None,
                None => self.for_all_heads(*arg),
            };
            let Some(new) = new else { return Ok(None) };
            args.push(new);
        }
        let value = self.add(op, &args, value)?;
        Ok(Some(ScoreView { value, shifted, ..first }))
    }

    /// Whether a sum adds to scores what depends on positions and is not the same for all heads.
    fn is_biased(&self, node: &Node) -> bool {
        let is_bias =
            |arg: &Value| distances::is_bias(self.graph, &self.views, *arg) && self.for_all_heads(*arg).is_none();
        node.args.iter().any(is_bias)
    }

    /// Scores that fall with the distance, in the one form.
    fn biased(&mut self, value: Value, first: &ScoreView) -> Result<Option<ScoreView>, Diagnostic> {
        let node = self.graph.node(value);
        let Some(&bias) = node.args.iter().find(|arg| !self.scores.contains_key(arg)) else { return Ok(None) };
        let scores = node.ty.shape();
        let Some(bias) = distances::bias(self.graph, &mut self.views, bias, scores.dims()) else { return Ok(None) };
        let mut new = first.value;
        if bias.falls.iter().any(|fall| *fall > 0.0) {
            let mut falls = vec![0.0; bias.falls.len()];
            first.order.iter().zip(&bias.falls).for_each(|(&head, &fall)| falls[head as usize] = fall as f32);
            let alibi = Arc::new(Tensor::f32(&[falls.len()], falls));
            let alibi = self.builder.weight(&format!("{}.alibi", self.graph.origin(value)), alibi);
            new = self.add(Op::Array(ArrayOp::Alibi), &[new, alibi], value)?;
        }
        for mask in bias.masks {
            let mask = self.map[mask.index()];
            new = self.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[new, mask], value)?;
        }
        Ok(Some(ScoreView { value: new, shifted: true, ..first.clone() }))
    }

    /// A number, or a mask, that all heads share.
    fn for_all_heads(&self, mut value: Value) -> Option<Value> {
        while let Op::Array(ArrayOp::Reshape(_)) = self.graph.node(value).op {
            let of = self.graph.node(value).args[0];
            let (from, to) = (self.graph.ty(of).shape(), self.graph.ty(value).shape());
            if !same_axes(from.dims(), to.dims()) {
                return None;
            }
            value = of;
        }
        let is_mask = matches!(self.graph.node(value).op, Op::Array(ArrayOp::CausalMask { .. }));
        let is_number = self.graph.constant(value).is_some_and(|weight| weight.tensor.sizes().is_empty());
        (is_mask || is_number).then(|| self.map[value.index()])
    }

    /// A product of weights and values: rows of all heads side by side.
    fn weighted(&mut self, value: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(value);
        let &[p, v] = node.args.as_slice() else { return Ok(()) };
        let (Some(weights), Some(values)) = (self.scores.get(&p).cloned(), self.views.get(v).cloned()) else {
            return Ok(());
        };
        let (p_dims, v_dims) = (self.graph.ty(p).shape(), self.graph.ty(v).shape());
        let ([p_lead @ .., Dim::Tokens], [v_lead @ .., Dim::Tokens, Dim::Fixed(width)]) =
            (p_dims.dims(), v_dims.dims())
        else {
            return Ok(());
        };
        let shape = node.ty.shape();
        let [out @ .., _] = shape.dims() else { return Ok(()) };
        let v_lead = [v_lead, &[Dim::Fixed(1)]].concat();
        let (Some(of_p), Some(of_v)) = (stretched(p_lead, out), stretched(&v_lead, out)) else { return Ok(()) };
        let (width, kv, heads) = (*width as usize, weights.kv, weights.heads());
        let entries = values.entries();
        // By head in the one form: where it stands in the result.
        let mut place_of: Vec<Option<usize>> = vec![None; heads as usize];
        for (place, &i) in of_p.iter().enumerate() {
            let head = weights.order[i] as usize;
            if place_of[head].replace(place).is_some() {
                return Ok(());
            }
        }
        let Some(place_of) = place_of.into_iter().collect::<Option<Vec<usize>>>() else { return Ok(()) };
        let group = (heads / kv) as usize;
        let of_head = |head: usize| &entries[of_v[place_of[head]] * width..][..width];
        if (0..heads as usize).any(|head| of_head(head) != of_head(head / group * group)) {
            return Ok(());
        }
        let lists: Vec<Vec<&ChannelSum>> =
            (0..kv as usize).map(|head| of_head(head * group).iter().collect()).collect();
        let Some(turned) = TurnedHeads::of(&mut self.views, &lists).filter(|heads| heads.turns.is_empty()) else {
            return Ok(());
        };
        let Some((rows, scale)) = self.turned_rows(values.base, &turned, value)? else { return Ok(()) };
        let rows = self.times(rows, scale, value)?;
        let merged = self.weighted_rows(&weights, rows, value)?;
        let channel = |place: usize| {
            let head = weights.order[of_p[place]] as usize;
            (0..width).map(move |c| (head * width + c) as u32)
        };
        let places: Vec<u32> = (0..of_p.len()).flat_map(channel).collect();
        self.rows.insert(value, (merged, places));
        Ok(())
    }

    /// Rows of what weights make of values, heads side by side.
    fn weighted_rows(&mut self, weights: &ScoreView, rows: Value, at: Value) -> Result<Value, Diagnostic> {
        let (kv, heads) = (weights.kv, weights.heads());
        let mut v = self.add(Op::Array(ArrayOp::SplitHeads { heads: kv }), &[rows], at)?;
        if kv != heads {
            v = self.with_groups(v, kv, at)?;
        }
        let mut y = self.add(Op::Array(ArrayOp::MatMul), &[weights.value, v], at)?;
        if let &[Dim::Fixed(_), Dim::Fixed(_), tokens, width] = self.builder.ty(y).shape().dims() {
            y = self.reshaped(y, Shape::new(&[Dim::Fixed(heads), tokens, width]), at)?;
        }
        self.add(Op::Array(ArrayOp::MergeHeads), &[y], at)
    }
}

/// Whether scores are still shifted after an operation on some that are; none where it would show.
fn shift_after(op: Op, shifted: &[bool]) -> Option<bool> {
    if !shifted.contains(&true) {
        return Some(false);
    }
    match op {
        Op::Array(ArrayOp::Softmax) => Some(false),
        // Scores less the largest of their row.
        Op::Array(ArrayOp::Binary(Binary::Sub)) if shifted == [true, true] => Some(false),
        Op::Array(ArrayOp::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Div) | ArrayOp::Where)
        | Op::Training(TrainingOp::RowMax) => (shifted.len() == 1).then_some(true),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// For every place the number of its head, so that heads of the same keys stand together, and how many keys there are. None
/// where some keys serve more heads than others.
fn grouped(keys: &[Vec<&ChannelSum>]) -> Option<(Vec<u32>, u32)> {
    let mut kinds: Vec<usize> = Vec::new();
    let mut of: Vec<(usize, usize)> = Vec::new();
    let mut counts: Vec<usize> = Vec::new();
    for (i, head) in keys.iter().enumerate() {
        let kind = kinds.iter().position(|&first| keys[first] == *head).unwrap_or_else(|| {
            kinds.push(i);
            counts.push(0);
            kinds.len() - 1
        });
        of.push((kind, counts[kind]));
        counts[kind] += 1;
    }
    let group = *counts.first()?;
    let even = counts.iter().all(|&count| count == group);
    let order = of.into_iter().map(|(kind, i)| (kind * group + i) as u32).collect();
    even.then_some((order, kinds.len() as u32))
}

/// Heads by their number.
fn in_order<'e>(heads: &[Vec<&'e ChannelSum>], order: &[u32]) -> Vec<Vec<&'e ChannelSum>> {
    let mut all = vec![Vec::new(); heads.len()];
    for (head, &number) in heads.iter().zip(order) {
        all[number as usize].clone_from(head);
    }
    all
}

/// Whether two shapes differ only in how fixed axes before each axis of tokens are split or merged.
fn same_axes(from: &[Dim], to: &[Dim]) -> bool {
    let volumes = |dims: &[Dim]| -> Vec<usize> {
        dims.split(|dim| *dim == Dim::Tokens).map(|fixed| fixed.iter().map(|dim| dim.size(0, 0)).product()).collect()
    };
    volumes(from) == volumes(to)
}

/// The heads of scores whose axes are in another order; none where queries and keys change places.
fn transposed_order(from: &[Dim], perm: &[u8], order: &[u32]) -> Option<Vec<u32>> {
    let tokens: Vec<usize> = (0..from.len()).filter(|&axis| from[axis] == Dim::Tokens).collect();
    let moved: Vec<usize> = perm.iter().map(|&axis| usize::from(axis)).filter(|axis| tokens.contains(axis)).collect();
    if moved != tokens {
        return None;
    }
    let fixed: Vec<usize> = (0..from.len()).filter(|&axis| from[axis] != Dim::Tokens).collect();
    let sizes: Vec<usize> = fixed.iter().map(|&axis| from[axis].size(0, 0)).collect();
    let axes: Vec<usize> =
        perm.iter().filter_map(|&axis| fixed.iter().position(|&other| other == usize::from(axis))).collect();
    let own: Vec<usize> = axes.iter().map(|&axis| sizes[axis]).collect();
    let at = |i: usize| {
        let mut back = vec![0; sizes.len()];
        index(i, &own).into_iter().zip(&axes).for_each(|(i, &axis)| back[axis] = i);
        order[back.iter().zip(&sizes).fold(0, |place, (i, size)| place * size + i)]
    };
    Some((0..order.len()).map(at).collect())
}
