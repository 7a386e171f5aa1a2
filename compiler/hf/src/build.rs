//! The graph of a blueprint: ops of the Tensor stage over the weights of a checkpoint.

use crate::architecture::NormKind;
use crate::blueprint::{BlockPlan, Blueprint, NormPlan, PositionPlan, ProjectionPlan};
use crate::checkpoint::{FolderTensors, TensorPart};
use snnc_ir::diagnostic::{Diagnostic, Diagnostics};
use snnc_ir::op::{ArrayOp, Binary, DenseOp, Layout, LeafOp, LevelOp, Op, Pairs, Scalar};
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
    checkpoint: &'a FolderTensors<'a>,
    /// Constants that are the same in many places, by what they hold and how many.
    constants: BTreeMap<(String, usize), Arc<Tensor>>,
    /// Weights that cannot be used.
    found: Diagnostics,
}

impl NetworkBuilder<'_> {
    fn logits(&mut self, blueprint: &Blueprint) -> Result<Value, Diagnostic> {
        let ids = self.builder.add(LeafOp::Tokens, &[], "input_ids")?;
        let name = &blueprint.tokens.of.name;
        let table = self.weight(&blueprint.tokens);
        let rows = match blueprint.token_scale {
            1.0 => table,
            scale => self.scaled(&blueprint.tokens, scale),
        };
        let mut stream = self.builder.add(DenseOp::Embed, &[ids, rows], name)?;
        if let Some(project) = &blueprint.token_project {
            stream = self.project(project, stream)?;
        }
        if let Some(norm) = &blueprint.token_norm {
            stream = self.norm(norm, stream)?;
        }
        let (stream, positions) = self.positioned(blueprint, stream)?;
        let mut stream = stream;
        for block in &blueprint.blocks {
            stream = self.block(block, stream, positions)?;
        }
        if let Some(norm) = &blueprint.norm {
            stream = self.norm(norm, stream)?;
        }
        if let Some(project) = &blueprint.project {
            stream = self.project(project, stream)?;
        }
        stream = self.times(stream, blueprint.logit_scale, "logits")?;
        if let Some(head) = &blueprint.head {
            return self.project(head, stream);
        }
        let bias = match &blueprint.head_bias {
            Some(bias) => self.weight(bias),
            None => self.constant("zero", 0.0, blueprint.tokens.of.sizes[0]),
        };
        self.builder.add(DenseOp::Linear(Layout::OutputMajor), &[stream, table, bias], name)
    }

    /// Tokens with what tells where they are, and what blocks need of it.
    fn positioned(&mut self, blueprint: &Blueprint, stream: Value) -> Result<(Value, Positioned), Diagnostic> {
        let mut place = || self.builder.add(LeafOp::Positions, &[], "position_ids");
        match &blueprint.positions {
            PositionPlan::Unknown => Ok((stream, Positioned::Known)),
            PositionPlan::Stored(part) => {
                let place = place()?;
                let table = self.weight(part);
                let rows = self.builder.add(DenseOp::Embed, &[place, table], &part.of.name)?;
                Ok((self.add(stream, rows, &part.of.name)?, Positioned::Known))
            }
            PositionPlan::Sinusoidal(first) => {
                let place = place()?;
                let width = self.builder.ty(stream).shape().width().unwrap_or(0);
                let table = self.builder.weight("positions", Arc::new(sinusoids(*first, blueprint.context, width)));
                let rows = self.builder.add(DenseOp::Embed, &[place, table], "positions")?;
                Ok((self.add(stream, rows, "positions")?, Positioned::Known))
            }
            PositionPlan::Turned(rotary, pairs) => {
                let place = place()?;
                let table = self.builder.weight("rotary.turns", Arc::new(rotary.table(blueprint.context)));
                let turns = self.builder.add(DenseOp::Embed, &[place, table], "rotary")?;
                Ok((stream, Positioned::Turned(turns, *pairs)))
            }
            PositionPlan::Alibi(slopes) => {
                let slopes = Tensor::f32(&[slopes.len()], slopes.clone());
                Ok((stream, Positioned::Alibi(self.builder.weight("alibi", Arc::new(slopes)))))
            }
        }
    }

    fn block(&mut self, block: &BlockPlan, stream: Value, positions: Positioned) -> Result<Value, Diagnostic> {
        let before = |norm: &Option<NormPlan>| norm.clone().filter(|_| block.norms_first);
        let behind = |norm: &Option<NormPlan>| norm.clone().filter(|_| !block.norms_first);
        let normed = self.normed(before(&block.attention_norm).as_ref(), stream)?;
        let attended = self.attended(block, normed, positions)?;
        let attended = self.normed(block.attention_result_norm.as_ref(), attended)?;
        let attended = self.times(attended, block.result_scale, &block.out.name)?;
        if block.parallel {
            let normed = match before(&block.mlp_norm) {
                Some(norm) => self.norm(&norm, stream)?,
                None => normed,
            };
            let hidden = self.mlp(block, normed)?;
            let both = self.add(attended, hidden, &block.down.name)?;
            return self.add(stream, both, &block.down.name);
        }
        let stream = self.add(stream, attended, &block.out.name)?;
        let stream = self.normed(behind(&block.attention_norm).as_ref(), stream)?;
        let normed = self.normed(before(&block.mlp_norm).as_ref(), stream)?;
        let hidden = self.mlp(block, normed)?;
        let stream = self.add(stream, hidden, &block.down.name)?;
        self.normed(behind(&block.mlp_norm).as_ref(), stream)
    }

    /// The result of attention on what was normalised.
    fn attended(&mut self, block: &BlockPlan, x: Value, positions: Positioned) -> Result<Value, Diagnostic> {
        let turns = match positions {
            Positioned::Turned(turns, pairs) => Some((turns, pairs)).filter(|_| block.turned),
            Positioned::Known | Positioned::Alibi(_) => None,
        };
        let [q, k, v] = &block.projections;
        let [q_norm, k_norm] = &block.head_norms;
        let q = self.keyed(q, q_norm.as_ref(), x, turns, block.heads.query)?;
        let k = self.keyed(k, k_norm.as_ref(), x, turns, block.heads.kv)?;
        let mut args = vec![q, k, self.project(v, x)?];
        if let Positioned::Alibi(slopes) = positions {
            args.push(slopes);
        }
        let attention = DenseOp::Attention { heads: block.heads, scale: Scalar::new(block.scale) };
        let attended = self.builder.add(attention, &args, &block.out.name)?;
        self.project(&block.out, attended)
    }

    /// The result of the MLP on what was normalised.
    fn mlp(&mut self, block: &BlockPlan, x: Value) -> Result<Value, Diagnostic> {
        let up = self.project(&block.up, x)?;
        let hidden = match &block.gate {
            Some(gate) => {
                let gate = self.project(gate, x)?;
                self.builder.add(DenseOp::Gated(block.curve), &[gate, up], &block.up.name)?
            }
            None => self.builder.add(DenseOp::Curve(block.curve), &[up], &block.up.name)?,
        };
        let down = self.project(&block.down, hidden)?;
        let down = self.normed(block.mlp_result_norm.as_ref(), down)?;
        self.times(down, block.result_scale, &block.down.name)
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
        let x = self.project(projection, x)?;
        let x = self.normed(norm, x)?;
        match turns {
            Some((turns, pairs)) => self.builder.add(DenseOp::Rotary { heads, pairs }, &[x, turns], &projection.name),
            None => Ok(x),
        }
    }

    fn normed(&mut self, norm: Option<&NormPlan>, x: Value) -> Result<Value, Diagnostic> {
        norm.map_or(Ok(x), |norm| self.norm(norm, x))
    }

    fn norm(&mut self, norm: &NormPlan, x: Value) -> Result<Value, Diagnostic> {
        let x = match norm.kind {
            NormKind::Layer => self.builder.add(DenseOp::Centre, &[x], &norm.name)?,
            NormKind::Rms => x,
        };
        let op = DenseOp::RmsNorm { eps: Scalar::new(norm.eps), heads: norm.heads as u32 };
        let x = self.builder.add(op, &[x], &norm.name)?;
        let Some(gain) = &norm.gain else { return Ok(x) };
        let gain = self
            .made(gain, |all| all.iter().map(|gain| gain + norm.more_gain).collect::<Vec<f32>>().repeat(norm.heads));
        let bias = match &norm.bias {
            Some(bias) => self.weight(bias),
            None => self.constant("zero", 0.0, norm.width * norm.heads),
        };
        self.builder.add(LevelOp::ScaleShift, &[x, gain, bias], &norm.name)
    }

    /// Rows times a number.
    fn times(&mut self, x: Value, number: f32, name: &str) -> Result<Value, Diagnostic> {
        if number == 1.0 {
            return Ok(x);
        }
        let width = self.builder.ty(x).shape().width().unwrap_or(0);
        let (gain, zero) =
            (self.constant(&format!("times {number}"), number, width), self.constant("zero", 0.0, width));
        self.builder.add(LevelOp::ScaleShift, &[x, gain, zero], name)
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
        let tensor = self.taken(part);
        self.builder.weight(&part.of.name, Arc::new(tensor))
    }

    fn taken(&mut self, part: &TensorPart) -> Tensor {
        self.checkpoint.take(part).unwrap_or_else(|e| {
            self.found.push(e);
            let sizes = part.sizes();
            Tensor::f32(&sizes, vec![0.0; sizes.iter().product()])
        })
    }

    /// A vector made of a weight.
    fn made(&mut self, part: &TensorPart, make: impl Fn(&[f32]) -> Vec<f32>) -> Value {
        let tensor = self.taken(part);
        let made = make(tensor.as_f32().unwrap_or(&[]));
        self.builder.weight(&part.of.name, Arc::new(Tensor::f32(&[made.len()], made)))
    }

    /// A weight times a number.
    fn scaled(&mut self, part: &TensorPart, number: f32) -> Value {
        let tensor = self.taken(part);
        let scaled = tensor.as_f32().unwrap_or(&[]).iter().map(|x| x * number).collect();
        self.builder.weight(&format!("{}.scaled", part.of.name), Arc::new(Tensor::f32(&part.sizes(), scaled)))
    }

    /// A constant vector, one for all places that want it.
    fn constant(&mut self, name: &str, number: f32, len: usize) -> Value {
        let make = || Arc::new(Tensor::f32(&[len], vec![number; len]));
        let tensor = self.constants.entry((name.to_string(), len)).or_insert_with(make).clone();
        self.builder.weight(&format!("{name}.{len}"), tensor)
    }
}

/// What blocks need to know of positions.
#[derive(Clone, Copy)]
enum Positioned {
    /// Nothing: tokens know where they are.
    Known,
    /// Rows of turns.
    Turned(Value, Pairs),
    /// What scores lose with the distance.
    Alibi(Value),
}

/// Rows of sines, then cosines, of angles that grow with the position (Vaswani et al. 2017), from row `first` on; in f32, as in the
/// library.
fn sinusoids(first: usize, context: usize, width: usize) -> Tensor {
    let half = width / 2;
    let step = (10000f64.ln() / (half as f64 - 1.0).max(1.0)) as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| libm::exp(f64::from(i as f32 * -step)) as f32).collect();
    let mut rows = Vec::with_capacity(context * width);
    for position in first..first + context {
        let angle = |frequency: &f32| f64::from(position as f32 * frequency);
        rows.extend(frequencies.iter().map(|f| libm::sin(angle(f)) as f32));
        rows.extend(frequencies.iter().map(|f| libm::cos(angle(f)) as f32));
        rows.resize(rows.len() + width % 2, 0.0);
    }
    Tensor::f32(&[context, width], rows)
}
