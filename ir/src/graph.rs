//! A program: nodes in an order where operands come before users, the constants they name, and the outputs.
//!
//! A node is never changed: passes build new graphs (`build`). Constants are shared between graphs.

use crate::op::Op;
use crate::op::{DenseOp, LeafOp, LevelOp};
use crate::ssa::State;
use crate::tensor::Tensor;
use crate::types::{Dim, Elem, Shape, Type};
use crate::verify::narrow_sums;
use indexmap::IndexSet;
use std::sync::Arc;

/// A value of a graph: the result of the node with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A constant of a graph, by index into `Graph::weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// A named constant.
#[derive(Clone, Debug)]
pub struct Weight {
    pub name: String,
    pub tensor: Arc<Tensor>,
}

/// A named set of legal operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// What the file says, shape arithmetic evaluated away.
    Imported,
    /// A transformer in its own words.
    Tensor,
    /// Between LayerNorms, levels and integer products.
    Quantised,
    /// Levels spread over timesteps.
    Spiking,
    /// With losses, and gradients by weights: run whole, on one window at a time.
    Training,
}

impl Stage {
    pub const ALL: [Stage; 5] = [Stage::Imported, Stage::Tensor, Stage::Quantised, Stage::Spiking, Stage::Training];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Imported => "imported",
            Stage::Tensor => "tensor",
            Stage::Quantised => "quantised",
            Stage::Spiking => "spiking",
            Stage::Training => "training",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// One operation applied to operands.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub args: Vec<Value>,
    pub ty: Type,
    /// Index into `Graph::origins`: the ONNX node that this one comes from. 0 is "nowhere in particular".
    pub origin: u32,
}

/// A program from token ids to named outputs.
#[derive(Clone, Debug)]
pub struct Graph {
    pub stage: Stage,
    /// The most tokens that a sequence may have.
    pub context: u32,
    pub nodes: Vec<Node>,
    pub weights: Vec<Weight>,
    pub origins: IndexSet<String>,
    pub outputs: Vec<(String, Value)>,
}

impl Graph {
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.index()]
    }

    pub fn ty(&self, value: Value) -> Type {
        self.node(value).ty
    }

    /// Nodes with their values, operands before users.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Value, &Node)> {
        self.nodes.iter().enumerate().map(|(i, node)| (Value(i as u32), node))
    }

    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0 as usize]
    }

    /// The constant that `value` is, if it is one.
    pub fn constant(&self, value: Value) -> Option<&Weight> {
        match self.node(value).op {
            Op::Leaf(LeafOp::Weight(id)) => Some(self.weight(id)),
            _ => None,
        }
    }

    pub fn origin(&self, value: Value) -> &str {
        self.origins.get_index(self.node(value).origin as usize).map_or("", String::as_str)
    }

    pub fn output(&self, name: &str) -> Option<Value> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// How many rows the table of an `embed` has: of a weight, its columns are looked up.
    pub fn table_rows(&self, table: Value) -> Option<usize> {
        let ty = self.ty(table);
        let sizes = ty.shape().sizes()?;
        sizes.get(usize::from(ty.elem() == Some(crate::types::Elem::I8))).copied()
    }

    /// Users of every value, in order.
    pub fn users(&self) -> Vec<Vec<Value>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for (value, node) in self.iter() {
            for arg in &node.args {
                users[arg.index()].push(value);
            }
        }
        users
    }

    /// What a node keeps of a sequence, if it keeps something.
    pub fn state(&self, value: Value) -> Option<State> {
        let node = self.node(value);
        let types = || [0, 1, 2].map(|i| self.ty(node.args[i]));
        match node.op {
            Op::Dense(DenseOp::Attention { .. }) => {
                let row = |ty: Type| {
                    let width = ty.shape().width().unwrap_or(0);
                    Type::tensor(Elem::F32, Shape::new(&[Dim::Context, Dim::Fixed(width as u32)]))
                };
                let [_, k, v] = types();
                Some(State::Rows { keys: row(k), values: row(v) })
            }
            Op::Level(LevelOp::Ssa { heads, variant }) => {
                Some(variant.state(heads as usize, types(), narrow_sums(self, value)))
            }
            _ => None,
        }
    }

    /// Number of parameters: elements of all constants.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|weight| weight.tensor.sizes().iter().product::<usize>()).sum()
    }

    /// The same program with all matrices of 8-bit weights in panels, as kernels walk them and files store them.
    pub fn in_panels(mut self) -> Self {
        for weight in &mut self.weights {
            if let Some(panels) = weight.tensor.to_panels() {
                weight.tensor = Arc::new(panels);
            }
        }
        self
    }
}
