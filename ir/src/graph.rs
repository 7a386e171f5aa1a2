//! A program: nodes in an order where operands come before users, the constants they name, and the outputs.
//!
//! A node is never changed: passes build new graphs (`build`). Constants are shared between graphs.

use crate::op::{LeafOp, Op};
use crate::origin::{NOWHERE, NodeOrigin};
use crate::site::Site;
use crate::tensor::Tensor;
use crate::types::{Elem, Type};
use indexmap::IndexSet;
use std::sync::Arc;

pub use crate::stage::Stage;
pub use crate::value::{Value, WeightId};

/// A named constant.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its name, which no other constant of the graph has.
    pub name: String,
    /// Its elements, shared between graphs.
    pub tensor: Arc<Tensor>,
}

/// One operation applied to operands.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// To what, in the order that the operation states.
    pub args: Vec<Value>,
    /// The result's type.
    pub ty: Type,
    /// Index into `Graph::origins`: the ONNX node that this one comes from, and its site. 0 is "nowhere in particular".
    pub origin: u32,
}

/// A program from token ids to named outputs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Which operations are legal.
    pub stage: Stage,
    /// The most tokens that a sequence may have.
    pub context: u32,
    /// Operands before users.
    pub nodes: Vec<Node>,
    /// Constants, by `WeightId`.
    pub weights: Vec<Weight>,
    /// Where nodes come from and stand, by `Node::origin`.
    pub origins: IndexSet<NodeOrigin>,
    /// What the program computes, by name.
    pub outputs: Vec<(String, Value)>,
}

impl Graph {
    /// The node whose result a value is.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.index()]
    }

    /// The type of a value.
    pub fn ty(&self, value: Value) -> Type {
        self.node(value).ty
    }

    /// Nodes with their values, operands before users.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Value, &Node)> {
        self.nodes.iter().enumerate().map(|(i, node)| (Value(i as u32), node))
    }

    /// A constant.
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

    /// Numbers of a token's row that another program hands over, where this one begins with such rows.
    pub fn stream_width(&self) -> Option<usize> {
        self.nodes.iter().find_map(|node| match node.op {
            Op::Leaf(LeafOp::Stream(width)) => Some(width as usize),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
        })
    }

    /// The ONNX node that a node comes from, and its site.
    pub fn origin(&self, value: Value) -> &NodeOrigin {
        self.origins.get_index(self.node(value).origin as usize).unwrap_or(&NOWHERE)
    }

    /// Where in the transformer a node stands, where that is known.
    pub fn site(&self, value: Value) -> Option<Site> {
        self.origin(value).site
    }

    /// The output of this name.
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

    /// The same program with its nodes at these sites, one for every node.
    pub fn with_sites(mut self, sites: &[Option<Site>]) -> Self {
        let old = std::mem::replace(&mut self.origins, IndexSet::from([NodeOrigin::default()]));
        for (node, site) in self.nodes.iter_mut().zip(sites) {
            let origin = old.get_index(node.origin as usize).unwrap_or(&NOWHERE).at(*site);
            node.origin = self.origins.insert_full(origin).0 as u32;
        }
        self
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
