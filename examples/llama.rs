//! Makes decoders of the Llama kind with random weights, as Tensor graphs: RMSNorm, rotary positions, grouped heads, gated MLPs.
//!
//! Law: the same configuration gives the same graph on every platform. Every weight is drawn from a generator of its own. Scales are
//! those that networks are initialised with, so activations look like a network's and not like noise.

use crate::gpt2::Normals;
use snnc_ir::op::{ArrayOp, Binary, DenseOp, Heads, Layout, LeafOp, LevelOp, Op, Pairs, Scalar};
use snnc_ir::{Builder, Curve, Diagnostic, Graph, Stage, Tensor, Value};
use std::sync::Arc;

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; they divide those of queries.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_width: usize,
    /// Channels of the MLPs.
    pub hidden: usize,
    /// Token ids.
    pub vocabulary: usize,
    /// The longest sequence.
    pub context: usize,
    /// Tokens that a query sees, itself among them; all before it where there is none.
    pub window: Option<u32>,
    /// Channels of a head that are turned; an even number, 0 for none.
    pub turned: usize,
    /// Which channels are turned together.
    pub pairs: Pairs,
    /// The base of the angles' periods.
    pub theta: f64,
    /// Whether every head of queries and keys is normalised, with a gain.
    pub qk_norm: bool,
    /// Whether projections to queries, keys and values have biases.
    pub bias: bool,
    /// Of the gate.
    pub curve: Curve,
    /// Whether MLPs have a gate; without one the curve stands between two projections.
    pub gated: bool,
    /// Whether the norm of each part comes behind it, on the residual stream, as LayerNorm.
    pub post_norm: bool,
    /// Whether the embedding is the head as well.
    pub tied: bool,
    /// Of the weights.
    pub seed: u64,
}

impl LlamaConfig {
    /// The shape of SmolLM2-135M.
    pub const SMOL: Self = Self {
        layers: 30,
        width: 576,
        heads: 9,
        kv_heads: 3,
        head_width: 64,
        hidden: 1536,
        vocabulary: 49152,
        context: 2048,
        window: None,
        turned: 64,
        pairs: Pairs::Half,
        theta: 100_000.0,
        qk_norm: false,
        bias: false,
        curve: Curve::Silu,
        gated: true,
        post_norm: false,
        tied: true,
        seed: 1,
    };
    /// For tests: made and run in milliseconds.
    pub const TINY: Self = Self {
        layers: 2,
        width: 48,
        heads: 4,
        kv_heads: 2,
        head_width: 12,
        hidden: 80,
        vocabulary: 200,
        context: 64,
        turned: 12,
        theta: 10_000.0,
        ..Self::SMOL
    };

    /// The configuration of a size: tiny or smol.
    ///
    /// # Errors
    /// There is no such size.
    pub fn named(size: &str) -> Result<Self, String> {
        match size {
            "tiny" => Ok(Self::TINY),
            "smol" => Ok(Self::SMOL),
            other => Err(format!("there is no size `{other}`; there are tiny, smol")),
        }
    }
}

/// The network as a Tensor graph, whose output is `logits`.
///
/// # Errors
/// Sizes that do not fit each other.
pub fn graph(config: &LlamaConfig) -> Result<Graph, Diagnostic> {
    let mut network = LlamaMaker { b: Builder::new(Stage::Tensor, config.context as u32), config, streams: 0 };
    let tokens = network.b.add(Op::Leaf(LeafOp::Tokens), &[], "/ids")?;
    let table = network.normal("embed_tokens.weight", &[config.vocabulary, config.width], 0.0, 0.4);
    let mut x = network.b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "/embed_tokens/Gather")?;
    let turns = if config.turned > 0 { Some(network.turns()?) } else { None };
    for layer in 0..config.layers {
        x = network.block(x, turns, layer)?;
    }
    if !config.post_norm {
        x = network.norm(x, "norm", config.width, 1)?;
    }
    let head = if config.tied {
        table
    } else {
        network.normal("lm_head.weight", &[config.vocabulary, config.width], 0.0, 0.05)
    };
    let none = network.constant("lm_head.bias", vec![0.0; config.vocabulary]);
    let logits = network.b.add(Op::Dense(DenseOp::Linear(Layout::OutputMajor)), &[x, head, none], "/lm_head/MatMul")?;
    Ok(network.b.finish(vec![("logits".to_string(), logits)]))
}

/// A network in the making.
struct LlamaMaker<'a> {
    b: Builder,
    config: &'a LlamaConfig,
    /// Random sequences that were taken.
    streams: u64,
}

type MadeDecoder = Result<Value, Diagnostic>;

impl LlamaMaker<'_> {
    fn constant(&mut self, name: &str, numbers: Vec<f32>) -> Value {
        self.b.weight(name, Arc::new(Tensor::f32(&[numbers.len()], numbers)))
    }

    fn normal(&mut self, name: &str, sizes: &[usize], mean: f32, deviation: f32) -> Value {
        let mut normals = Normals::new(self.config.seed, self.streams);
        self.streams += 1;
        let numbers = (0..sizes.iter().product()).map(|_| mean + deviation * normals.next()).collect();
        self.b.weight(name, Arc::new(Tensor::f32(sizes, numbers)))
    }

    /// Cosines and sines of every position.
    fn turns(&mut self) -> MadeDecoder {
        let LlamaConfig { context, turned, theta, .. } = *self.config;
        let pairs = turned / 2;
        let angle = |at: usize, i: usize| at as f64 * libm::pow(theta, -2.0 * i as f64 / turned as f64);
        let row = |at: usize| {
            let angles = (0..pairs).map(move |i| angle(at, i));
            angles.clone().map(|a| libm::cos(a) as f32).chain(angles.map(|a| libm::sin(a) as f32))
        };
        let numbers: Vec<f32> = (0..context).flat_map(row).collect();
        let table = self.b.weight("rotary.table", Arc::new(Tensor::f32(&[context, 2 * pairs], numbers)));
        let positions = self.b.add(Op::Leaf(LeafOp::Positions), &[], "/position_ids")?;
        self.b.add(Op::Dense(DenseOp::Embed), &[positions, table], "/rotary_emb/Gather")
    }

    /// An RMSNorm of the row, or of each of some heads, with a gain.
    fn norm(&mut self, x: Value, name: &str, width: usize, heads: usize) -> MadeDecoder {
        let origin = format!("/{name}/Pow");
        let eps = Scalar::new(1e-5);
        let y = self.b.add(Op::Dense(DenseOp::RmsNorm { eps, heads: heads as u32 }), &[x], origin.as_str())?;
        let gain = self.normal(&format!("{name}.weight"), &[width], 1.0, 0.1);
        let offset = self.constant(&format!("{name}.offset"), vec![0.0; width]);
        self.b.add(Op::Level(LevelOp::ScaleShift), &[y, gain, offset], format!("/{name}/Mul").as_str())
    }

    /// A LayerNorm: less the mean, then as `norm`.
    fn layer_norm(&mut self, x: Value, name: &str) -> MadeDecoder {
        let y = self.b.add(Op::Dense(DenseOp::Centre), &[x], format!("/{name}/Sub").as_str())?;
        self.norm(y, name, self.config.width, 1)
    }

    fn linear(&mut self, x: Value, name: &str, sizes: [usize; 2], deviation: f32, bias: bool) -> MadeDecoder {
        let w = self.normal(&format!("{name}.weight"), &sizes, 0.0, deviation);
        let bias_name = format!("{name}.bias");
        let bias = if bias {
            self.normal(&bias_name, &[sizes[1]], 0.0, 0.1)
        } else {
            self.constant(&bias_name, vec![0.0; sizes[1]])
        };
        let origin = format!("/{name}/MatMul");
        self.b.add(Op::Dense(DenseOp::Linear(Layout::InputMajor)), &[x, w, bias], origin.as_str())
    }

    fn block(&mut self, x: Value, turns: Option<Value>, layer: usize) -> MadeDecoder {
        let name = format!("layers.{layer}");
        let post = self.config.post_norm;
        let y = if post { x } else { self.norm(x, &format!("{name}.input_layernorm"), self.config.width, 1)? };
        let y = self.attention(y, turns, &format!("{name}.self_attn"))?;
        let mut x = self.sum(x, y, &format!("/{name}/Add"))?;
        if post {
            x = self.layer_norm(x, &format!("{name}.input_layernorm"))?;
        }
        let norm = format!("{name}.post_attention_layernorm");
        let y = if post { x } else { self.norm(x, &norm, self.config.width, 1)? };
        let y = self.mlp(y, &format!("{name}.mlp"))?;
        let x = self.sum(x, y, &format!("/{name}/Add_1"))?;
        if post { self.layer_norm(x, &norm) } else { Ok(x) }
    }

    fn sum(&mut self, x: Value, y: Value, origin: &str) -> MadeDecoder {
        self.b.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, y], origin)
    }

    fn attention(&mut self, x: Value, turns: Option<Value>, name: &str) -> MadeDecoder {
        let LlamaConfig { width, heads, kv_heads, head_width, window, bias, layers, .. } = *self.config;
        let into = 1.0 / (width as f32).sqrt();
        let [mut q, mut k] = [x; 2];
        for (part, role, heads) in [(&mut q, "q", heads), (&mut k, "k", kv_heads)] {
            // Larger than values, so that attention is far from uniform.
            let sizes = [width, heads * head_width];
            *part = self.linear(x, &format!("{name}.{role}_proj"), sizes, 2.0 * into, bias)?;
            if self.config.qk_norm {
                *part = self.norm(*part, &format!("{name}.{role}_norm"), sizes[1], heads)?;
            }
            if let Some(turns) = turns {
                let rotary = DenseOp::Rotary { heads: heads as u32, pairs: self.config.pairs };
                *part = self.b.add(Op::Dense(rotary), &[*part, turns], format!("/{name}/{role}_rotary").as_str())?;
            }
        }
        let v = self.linear(x, &format!("{name}.v_proj"), [width, kv_heads * head_width], into, bias)?;
        let shape = Heads { kv: kv_heads as u32, window, ..Heads::equal(heads as u32) };
        let scale = Scalar::new(1.0 / (head_width as f32).sqrt());
        let attend = Op::Dense(DenseOp::Attention { heads: shape, scale });
        let y = self.b.add(attend, &[q, k, v], format!("/{name}/Softmax").as_str())?;
        let out = 1.0 / (heads as f32 * head_width as f32 * 2.0 * layers as f32).sqrt();
        self.linear(y, &format!("{name}.o_proj"), [heads * head_width, width], out, false)
    }

    fn mlp(&mut self, x: Value, name: &str) -> MadeDecoder {
        let LlamaConfig { width, hidden, curve, gated, layers, .. } = *self.config;
        let into = 1.0 / (width as f32).sqrt();
        let gate = self.linear(x, &format!("{name}.gate_proj"), [width, hidden], into, false)?;
        let origin = format!("/{name}/act_fn");
        let y = if gated {
            let up = self.linear(x, &format!("{name}.up_proj"), [width, hidden], into, false)?;
            self.b.add(Op::Dense(DenseOp::Gated(curve)), &[gate, up], origin.as_str())?
        } else {
            self.b.add(Op::Dense(DenseOp::Curve(curve)), &[gate], origin.as_str())?
        };
        let out = 1.0 / (hidden as f32 * 2.0 * layers as f32).sqrt();
        self.linear(y, &format!("{name}.down_proj"), [hidden, width], 2.0 * out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snnc_ir::verify::verify;

    #[test]
    fn networks_of_all_parts_are_sound() {
        let configs = [
            LlamaConfig::TINY,
            LlamaConfig { window: Some(8), pairs: Pairs::Interleaved, turned: 6, ..LlamaConfig::TINY },
            LlamaConfig { qk_norm: true, bias: true, curve: Curve::GeluTanh, tied: false, ..LlamaConfig::TINY },
            LlamaConfig { turned: 0, kv_heads: 1, gated: false, post_norm: true, ..LlamaConfig::TINY },
        ];
        for config in configs {
            let graph = graph(&config).expect("sizes fit");
            assert_eq!(verify(&graph), Ok(()), "{config:?}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(graph(&LlamaConfig { kv_heads: 3, ..LlamaConfig::TINY }).is_err());
        assert!(graph(&LlamaConfig { turned: 14, ..LlamaConfig::TINY }).is_err());
    }
}
