//! Lets the embedding of tokens read the head's weight, where both were one table before they were made int8.
//!
//! `E[id, c]` is close to `a_c * scale_id * w[c, id]`, with the head's weight `w`, its scales by output, and for each channel
//! the factor `a_c` that fits best: what was folded into the head's rows is divided out again. So a third of GPT-2 small is
//! stored once and in 8 bits. Nothing is assumed about where the head comes from: the error is measured, over all tokens
//! and for each channel, and where it is larger than int8 weights bring anyway the table stays as it was.
//!
//! Where the residual stream is rotated, a head with a norm's gain is no table of tokens any more. But the numbers of a row are alike there,
//! so the table's own rows in 8 bits with a scale each are as near as a head's would be.

use crate::context::Context;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Binary, Builder, Diagnostic, Graph, Op, Tensor, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// Whoever reads the head in finer levels than these, those of 8 bits, wants more than the embedding would then have: at T = 8
/// the centred cosine of a trained network is .999952 with a table of its own, .999949 without.
const LEVELS: i32 = 127;
/// Root mean square of the error over that of the table: rounding to 127 levels of a row's maximum makes .007 to .012 for
/// normally distributed rows of 256 to 1280 numbers.
const ERROR: f64 = 0.015;
/// The same for one channel: a channel that the head's scales make small has few levels left.
const CHANNEL_ERROR: f64 = 0.06;

/// The same program, with one table less where that is as good.
pub fn tie_embedding(graph: &Graph, context: &Context) -> Result<Graph, Diagnostics> {
    if context.own_embedding {
        return Ok(graph.clone());
    }
    let own = |value: Value| TiedTable::own(graph, value).filter(|_| context.rotations.residual);
    let tied = |value: Value| TiedTable::find(graph, value).or_else(|| own(value));
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        let new = match node.op {
            Op::Leaf(LeafOp::Weight(id)) => Ok(builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone())),
            Op::Dense(DenseOp::Embed) => match tied(value) {
                Some(tied) => tied.build(&mut builder, graph, value, args[0]),
                None => builder.add(node.op, &args, graph.origin(value)),
            },
            op => builder.add(op, &args, graph.origin(value)),
        };
        map.push(new?);
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    Ok(builder.finish(outputs))
}

/// A table of tokens as a weight of 8 bits.
struct TiedTable<'g> {
    /// The weight's name and its tensor, `i8[d, v]`.
    name: Cow<'g, str>,
    weight: Arc<Tensor>,
    /// By token.
    scale: Cow<'g, [f32]>,
    /// By channel.
    factor: Vec<f32>,
}

impl<'g> TiedTable<'g> {
    /// The head whose weight the table of this node is, nearly.
    fn find(graph: &'g Graph, embed: Value) -> Option<Self> {
        let node = graph.node(embed);
        if graph.node(node.args[0]).op != Op::Leaf(LeafOp::Tokens) {
            return None;
        }
        let table = &graph.constant(node.args[1])?.tensor;
        let (&[v, d], rows) = (table.sizes(), table.as_f32()?) else { return None };
        graph.iter().rev().filter(|(_, node)| node.op == Op::Level(LevelOp::ScaleShift)).find_map(|(_, affine)| {
            let decode = graph.node(affine.args[0]);
            let synapse = graph.node(*decode.args.first()?);
            let (code, steps) = graph.ty(*synapse.args.first()?).levels()?;
            if code.levels(steps) > LEVELS {
                return None;
            }
            let weight = graph.constant(*synapse.args.get(1).filter(|_| synapse.op == Op::Spike(SpikeOp::Synapse))?)?;
            let scale = graph.constant(affine.args[1])?.tensor.as_f32()?;
            let bytes = weight.tensor.as_i8().filter(|_| weight.tensor.sizes() == [d, v])?;
            let factor = factors(rows, bytes, scale)?;
            let (name, weight) = (Cow::from(&weight.name), weight.tensor.clone());
            Some(Self { name, weight, scale: scale.into(), factor })
        })
    }

    /// The table's own rows, each with the scale of its largest number.
    fn own(graph: &'g Graph, embed: Value) -> Option<Self> {
        let node = graph.node(embed);
        if graph.node(node.args[0]).op != Op::Leaf(LeafOp::Tokens) {
            return None;
        }
        let table = graph.constant(node.args[1])?;
        let (&[v, d], rows) = (table.tensor.sizes(), table.tensor.as_f32()?) else { return None };
        let largest = |row: &[f32]| row.iter().fold(0f32, |most, x| most.max(x.abs()));
        let scale: Vec<f32> = rows.chunks_exact(d.max(1)).map(|row| largest(row) / LEVELS as f32).collect();
        let mut bytes = vec![0i8; v * d];
        for (id, (row, scale)) in rows.chunks_exact(d.max(1)).zip(&scale).enumerate().filter(|(_, (_, s))| **s > 0.0) {
            row.iter().enumerate().for_each(|(c, x)| bytes[c * v + id] = (x / scale).round() as i8);
        }
        factors(rows, &bytes, &scale)?;
        let weight = Arc::new(Tensor::i8(&[d, v], bytes));
        Some(Self { name: format!("{}.rows", table.name).into(), weight, scale: scale.into(), factor: vec![1.0; d] })
    }

    /// `scale_id * (a_c * w[c, id])`
    fn build(self, builder: &mut Builder, graph: &Graph, embed: Value, ids: Value) -> Result<Value, Diagnostic> {
        let origin = graph.origin(embed);
        let (d, v) = (self.factor.len(), self.scale.len());
        let table = graph.constant(graph.node(embed).args[1]).map_or("table", |weight| &weight.name);
        let weight = builder.weight(&self.name, self.weight.clone());
        let column = builder.add(Op::Dense(DenseOp::Embed), &[ids, weight], origin)?;
        let gain = builder.weight(&format!("{table}.gain"), Arc::new(Tensor::f32(&[d], self.factor)));
        let offset = builder.weight(&format!("{table}.offset"), Arc::new(Tensor::f32(&[d], vec![0.0; d])));
        let scaled = builder.add(Op::Level(LevelOp::ScaleShift), &[column, gain, offset], origin)?;
        let scales = Arc::new(Tensor::f32(&[v, 1], self.scale.to_vec()));
        let scales = builder.weight(&format!("{table}.scale"), scales);
        let scale = builder.add(Op::Dense(DenseOp::Embed), &[ids, scales], origin)?;
        builder.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[scaled, scale], origin)
    }
}

/// Tokens whose columns are read at a time: a cache line of a row.
const TURN: usize = 64;

/// By channel `c` of `table[v, d]` the `a` for which `a * scale_v * w[c, v]` is nearest; `None` if that is not near enough.
fn factors(table: &[f32], w: &[i8], scale: &[f32]) -> Option<Vec<f32>> {
    let (v, d) = (scale.len(), table.len() / scale.len().max(1));
    let [mut dot, mut own, mut whole] = [0; 3].map(|_| vec![0f64; d]);
    for from in (0..v).step_by(TURN) {
        let tokens = from..(from + TURN).min(v);
        for c in 0..d {
            for id in tokens.clone() {
                let (t, e) = (f64::from(scale[id]) * f64::from(w[c * v + id]), f64::from(table[id * d + c]));
                dot[c] += t * e;
                own[c] += t * t;
                whole[c] += e * e;
            }
        }
    }
    let factor: Vec<f64> = dot.iter().zip(&own).map(|(&dot, &own)| if own > 0.0 { dot / own } else { 0.0 }).collect();
    let error: Vec<f64> = (0..d).map(|c| whole[c] - factor[c] * dot[c]).collect();
    let near = |error: f64, whole: f64, most: f64| error <= most * most * whole;
    let each = error.iter().zip(&whole).all(|(&error, &whole)| near(error, whole, CHANNEL_ERROR));
    (each && near(error.iter().sum(), whole.iter().sum(), ERROR)).then(|| factor.iter().map(|&a| a as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::factors;

    /// `table[v, d]` rounded as a head is, after its channels were multiplied by `gain`.
    fn rounded(table: &[f32], gain: &[f32]) -> (Vec<i8>, Vec<f32>) {
        let d = gain.len();
        let scaled: Vec<f32> = table.iter().enumerate().map(|(i, x)| x * gain[i % d]).collect();
        let scale: Vec<f32> =
            scaled.chunks(d).map(|row| row.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0).collect();
        let at = |i: usize| (scaled[i % scale.len() * d + i / scale.len()] / scale[i % scale.len()]).round() as i8;
        ((0..table.len()).map(at).collect(), scale)
    }

    #[test]
    fn a_table_is_shared_where_the_head_is_that_table() {
        let d = 48;
        let table: Vec<f32> = (0..70 * d).map(|i| ((i * i % 1013) as f32 / 500.0 - 1.0) * 0.1).collect();
        let gain: Vec<f32> = (0..d).map(|c| 0.7 + (c % 5) as f32 / 5.0).collect();
        let (w, scale) = rounded(&table, &gain);
        let found = factors(&table, &w, &scale).expect("it is the same table");
        assert!(found.iter().zip(&gain).all(|(a, g)| (a * g - 1.0).abs() < 0.01), "{found:?}");
        // A head of its own, and a head to which one channel hardly matters.
        let other: Vec<f32> = table.iter().rev().copied().collect();
        assert_eq!(factors(&other, &w, &scale), None);
        let mut gain = gain;
        gain[3] = 0.01;
        let (w, scale) = rounded(&table, &gain);
        assert_eq!(factors(&table, &w, &scale), None);
    }
}
