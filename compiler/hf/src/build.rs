//! The graph of a blueprint: ops of the Tensor stage over the weights of a checkpoint.

use crate::architecture::NormKind;
use crate::blueprint::{BlockPlan, Blueprint, NormPlan, ProjectionPlan};
use crate::checkpoint::{FolderTensors, TensorPart};
use snnc_ir::diagnostic::{Diagnostic, Diagnostics};
use snnc_ir::op::{ArrayOp, Binary, DenseOp, LeafOp, LevelOp, Op, Pairs, Scalar};
use snnc_ir::verify::LOGITS;
use snnc_ir::{Builder, Graph, Stage, Tensor, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The network, whose one output is `logits`.
///
/// # Errors
/// A weight that is not finite, or an op that does not fit its operands, which would be a defect.
pub fn build(blueprint: &Blueprint, checkpoint: &FolderTensors) -> Result<Graph, Diagnostics> {
    let builder = Builder::new(Stage::Tensor, blueprint.context as u32);
    let mut network = NetworkBuilder { builder, checkpoint, constants: BTreeMap::new(), found: Diagnostics::new() };
    let logits = network.logits(blueprint)?;
    let graph = network.builder.finish(vec![(LOGITS.into(), logits)]);
    network.found.or_else(graph)
}

/// A network in the making.
struct NetworkBuilder<'a> {
    builder: Builder,
    checkpoint: &'a FolderTensors,
    /// Constants that are the same in many places, by what they hold and how many.
    constants: BTreeMap<(String, usize), Arc<Tensor>>,
    /// Weights that cannot be used.
    found: Diagnostics,
}

impl NetworkBuilder<'_> {
    fn logits(&mut self, blueprint: &Blueprint) -> Result<Value, Diagnostic> {
        let ids = self.builder.add(LeafOp::Tokens, &[], "input_ids")?;
        let table = self.weight(&blueprint.tokens);
        let mut stream = self.builder.add(DenseOp::Embed, &[ids, table], &blueprint.tokens.of.name)?;
        let mut turns = None;
        if blueprint.positions.is_some() || blueprint.turns.is_some() {
            let places = self.builder.add(LeafOp::Positions, &[], "position_ids")?;
            if let Some(part) = &blueprint.positions {
                let table = self.weight(part);
                let rows = self.builder.add(DenseOp::Embed, &[places, table], &part.of.name)?;
                stream = self.add(stream, rows, &part.of.name)?;
            }
            if let Some((rotary, pairs)) = &blueprint.turns {
                let table = self.builder.weight("rotary.turns", Arc::new(rotary.table(blueprint.context)));
                turns = Some((self.builder.add(DenseOp::Embed, &[places, table], "rotary")?, *pairs));
            }
        }
        for block in &blueprint.blocks {
            stream = self.block(block, stream, turns)?;
        }
        let normed = self.norm(&blueprint.norm, stream)?;
        match &blueprint.head {
            Some(head) => self.project(head, normed),
            None => {
                let bias = self.constant("zero", 0.0, blueprint.tokens.of.sizes[0]);
                let op = DenseOp::Linear(snnc_ir::op::Layout::OutputMajor);
                self.builder.add(op, &[normed, table, bias], &blueprint.tokens.of.name)
            }
        }
    }

    fn block(&mut self, block: &BlockPlan, stream: Value, turns: Option<(Value, Pairs)>) -> Result<Value, Diagnostic> {
        let normed = self.norm(&block.attention_norm, stream)?;
        let [q, k, v] = &block.projections;
        let [q_norm, k_norm] = &block.head_norms;
        let q = self.keyed(q, q_norm.as_ref(), normed, turns, block.heads.query)?;
        let k = self.keyed(k, k_norm.as_ref(), normed, turns, block.heads.kv)?;
        let v = self.project(v, normed)?;
        let attention = DenseOp::Attention { heads: block.heads, scale: Scalar::new(block.scale) };
        let attended = self.builder.add(attention, &[q, k, v], &block.out.name)?;
        let out = self.project(&block.out, attended)?;
        let stream = self.add(stream, out, &block.out.name)?;
        let normed = self.norm(&block.mlp_norm, stream)?;
        let up = self.project(&block.up, normed)?;
        let hidden = match &block.gate {
            Some(gate) => {
                let gate = self.project(gate, normed)?;
                self.builder.add(DenseOp::Gated(block.curve), &[gate, up], &block.up.name)?
            }
            None => self.builder.add(DenseOp::Curve(block.curve), &[up], &block.up.name)?,
        };
        let down = self.project(&block.down, hidden)?;
        self.add(stream, down, &block.down.name)
    }

    /// Queries or keys: projected, normalised and turned, as far as the network does that.
    fn keyed(
        &mut self,
        projection: &ProjectionPlan,
        norm: Option<&NormPlan>,
        x: Value,
        turns: Option<(Value, Pairs)>,
        heads: u32,
    ) -> Result<Value, Diagnostic> {
        let mut x = self.project(projection, x)?;
        if let Some(norm) = norm {
            x = self.norm(norm, x)?;
        }
        match turns {
            Some((turns, pairs)) => self.builder.add(DenseOp::Rotary { heads, pairs }, &[x, turns], &projection.name),
            None => Ok(x),
        }
    }

    fn norm(&mut self, norm: &NormPlan, x: Value) -> Result<Value, Diagnostic> {
        let x = match norm.kind {
            NormKind::Layer => self.builder.add(DenseOp::Centre, &[x], &norm.name)?,
            NormKind::Rms => x,
        };
        let op = DenseOp::RmsNorm { eps: Scalar::new(norm.eps), heads: norm.heads as u32 };
        let x = self.builder.add(op, &[x], &norm.name)?;
        let gain = self.repeated(&norm.gain, norm.heads);
        let bias = match &norm.bias {
            Some(bias) => self.weight(bias),
            None => self.constant("zero", 0.0, norm.gain.of.sizes[0] * norm.heads),
        };
        self.builder.add(LevelOp::ScaleShift, &[x, gain, bias], &norm.name)
    }

    fn project(&mut self, projection: &ProjectionPlan, x: Value) -> Result<Value, Diagnostic> {
        let weight = self.weight(&projection.weight);
        let outputs = projection.weight.sizes()[projection.weight.axis];
        let bias = match &projection.bias {
            Some(bias) => self.weight(bias),
            None => self.constant("zero", 0.0, outputs),
        };
        self.builder.add(DenseOp::Linear(projection.layout), &[x, weight, bias], &projection.name)
    }

    fn add(&mut self, a: Value, b: Value, name: &str) -> Result<Value, Diagnostic> {
        self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[a, b], name)
    }

    /// The constant that a weight is. One that cannot be used is told of at the end, and is zeros until then.
    fn weight(&mut self, part: &TensorPart) -> Value {
        self.repeated(part, 1)
    }

    /// The same, `count` times one after the other.
    fn repeated(&mut self, part: &TensorPart, count: usize) -> Value {
        let tensor = self.checkpoint.take(part).unwrap_or_else(|e| {
            self.found.push(e);
            let sizes = part.sizes();
            Tensor::f32(&sizes, vec![0.0; sizes.iter().product()])
        });
        let tensor = match tensor.as_f32() {
            Some(all) if count > 1 => Tensor::f32(&[all.len() * count], all.repeat(count)),
            _ => tensor,
        };
        self.builder.weight(&part.of.name, Arc::new(tensor))
    }

    /// A constant vector, one for all places that want it.
    fn constant(&mut self, name: &str, number: f32, len: usize) -> Value {
        let make = || Arc::new(Tensor::f32(&[len], vec![number; len]));
        let tensor = self.constants.entry((name.to_string(), len)).or_insert_with(make).clone();
        self.builder.weight(&format!("{name}.{len}"), tensor)
    }
}
