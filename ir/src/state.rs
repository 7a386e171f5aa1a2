//! What a program keeps of a sequence, node by node.

use crate::bounds::narrow_sums;
use crate::graph::Graph;
use crate::op::{DenseOp, LevelOp, Op, SpikeOp};
use crate::ssa::StateType;
use crate::types::{Dim, Elem, Shape, Type};
use crate::value::Value;

impl Graph {
    /// What a node keeps of a sequence, if it keeps something.
    pub fn state(&self, value: Value) -> Option<StateType> {
        let node = self.node(value);
        let types = || [0, 1, 2].map(|i| self.ty(node.args[i]));
        match node.op {
            Op::Dense(DenseOp::Attention { .. }) => {
                let row = |ty: Type| {
                    let width = ty.shape().width().unwrap_or(0);
                    Type::tensor(Elem::F32, Shape::new(&[Dim::Context, Dim::Fixed(width as u32)]))
                };
                let [_, k, v] = types();
                Some(StateType::Rows { keys: row(k), values: row(v), thresholds: None })
            }
            Op::Level(LevelOp::Ssa { heads, variant }) => {
                Some(variant.state(heads.kv as usize, heads.thresholds, types(), narrow_sums(self, value)))
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
        }
    }
}

/// The neurons that emit a value, whether it comes as a train or was decoded.
pub fn neuron_of(graph: &Graph, value: Value) -> Value {
    match graph.node(value).op {
        Op::Spike(SpikeOp::Decode) => neuron_of(graph, graph.node(value).args[0]),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => value,
    }
}
