//! A program: nodes in an order where operands come before users, the constants they name, and the outputs.
//!
//! A node is never changed: passes build new graphs (`build`). Constants are shared between graphs.

use crate::op::{LeafOp, Op};
use crate::tensor::Tensor;
use crate::types::{Elem, Type};
use indexmap::IndexSet;
use std::sync::Arc;

pub use crate::stage::Stage;
pub use crate::value::{Value, WeightId};

/// A named constant.
#[derive(Clone, Debug)]
pub struct Weight {
    pub name: String,
    pub tensor: Arc<Tensor>,
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
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
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
        sizes.get(usize::from(ty.elem() == Some(Elem::I8))).copied()
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
