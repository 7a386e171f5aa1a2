//! Builds a graph node by node: infers types, shares equal nodes, removes what is trivially nothing, drops what is dead.

use crate::diagnostic::{Diagnostic, ErrorCode};
use crate::graph::{Graph, Node, Weight};
use crate::op::{ArrayOp, LeafOp, Op};
use crate::origin::NodeOrigin;
use crate::stage::Stage;
use crate::tensor::Tensor;
use crate::types::{Shape, Type};
use crate::value::{Value, WeightId};
use indexmap::{IndexMap, IndexSet};
use std::sync::Arc;

/// A graph in the making. Every value it hands out is one of its own.
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    known: IndexMap<(Op, Vec<Value>), Value>,
    names: IndexMap<String, WeightId>,
}

impl Builder {
    /// An empty graph of a stage, for sequences of at most `context` tokens.
    pub fn new(stage: Stage, context: u32) -> Self {
        let graph = Graph {
            stage,
            context,
            nodes: Vec::new(),
            weights: Vec::new(),
            origins: IndexSet::from([NodeOrigin::default()]),
            outputs: Vec::new(),
        };
        Self { graph, known: IndexMap::new(), names: IndexMap::new() }
    }

    /// The same graph with other outputs, of which it drops what they do not need.
    pub fn with_outputs(graph: &Graph, outputs: Vec<(String, Value)>) -> Graph {
        Self { graph: graph.clone(), known: IndexMap::new(), names: IndexMap::new() }.finish(outputs)
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The type of a value that it handed out.
    pub fn ty(&self, value: Value) -> Type {
        self.graph.ty(value)
    }

    /// A constant. A name that is taken by the same tensor is shared; by another one, the new name gets a suffix.
    pub fn weight(&mut self, name: &str, tensor: Arc<Tensor>) -> Value {
        let mut unique = name.to_string();
        for n in 2.. {
            match self.names.get(&unique) {
                Some(&id) if Arc::ptr_eq(&self.graph.weight(id).tensor, &tensor) => return self.weight_value(id),
                Some(_) => unique = format!("{name}.{n}"),
                None => break,
            }
        }
        let id = WeightId(self.graph.weights.len() as u32);
        self.names.insert(unique.clone(), id);
        self.graph.weights.push(Weight { name: unique, tensor });
        self.weight_value(id)
    }

    fn weight_value(&mut self, id: WeightId) -> Value {
        let op = Op::Leaf(LeafOp::Weight(id));
        if let Some(&value) = self.known.get(&(op, Vec::new())) {
            return value;
        }
        let tensor = &self.graph.weight(id).tensor;
        let ty = Type::tensor(tensor.elem(), Shape::fixed(tensor.sizes()));
        self.push(Node { op, args: Vec::new(), ty, origin: 0 })
    }

    /// Adds `op(args)`, or returns the value that already is it. Errors say which operand does not fit.
    pub fn add(
        &mut self,
        op: impl Into<Op>,
        args: &[Value],
        origin: impl Into<NodeOrigin>,
    ) -> Result<Value, Diagnostic> {
        let (op, origin) = (op.into(), origin.into());
        let types: Vec<Type> = args.iter().map(|&arg| self.ty(arg)).collect();
        let ty = op.infer(&types).map_err(|message| {
            Diagnostic::new(&origin, format!("`{op}` does not fit its operands: {message}")).code(ErrorCode::OPERANDS)
        })?;
        if let Some(same) = self.nothing(&op, args, ty) {
            return Ok(same);
        }
        let key = (op, args.to_vec());
        if let Some(&value) = self.known.get(&key) {
            return Ok(value);
        }
        let origin = self.graph.origins.insert_full(origin).0 as u32;
        Ok(self.push(Node { op, args: key.1, ty, origin }))
    }

    /// The operand itself where the operation does nothing to it.
    fn nothing(&self, op: &Op, args: &[Value], ty: Type) -> Option<Value> {
        let idle = match op {
            Op::Array(ArrayOp::Transpose(perm)) => perm.is_identity(),
            Op::Array(ArrayOp::Reshape(_) | ArrayOp::Slice { .. }) => ty == self.ty(args[0]),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
        };
        idle.then(|| args[0])
    }

    fn push(&mut self, node: Node) -> Value {
        let value = Value(self.graph.nodes.len() as u32);
        self.known.insert((node.op, node.args.clone()), value);
        self.graph.nodes.push(node);
        value
    }

    /// The finished graph: what the outputs need, constants first, else in the order in which it was added.
    pub fn finish(self, outputs: Vec<(String, Value)>) -> Graph {
        let source = self.graph;
        let mut live = vec![false; source.nodes.len()];
        for (_, value) in &outputs {
            live[value.index()] = true;
        }
        for i in (0..source.nodes.len()).rev() {
            if live[i] {
                source.nodes[i].args.iter().for_each(|arg| live[arg.index()] = true);
            }
        }
        let mut map = vec![Value(0); source.nodes.len()];
        let mut graph = Graph {
            stage: source.stage,
            context: source.context,
            nodes: Vec::new(),
            weights: Vec::new(),
            origins: IndexSet::from([NodeOrigin::default()]),
            outputs: Vec::new(),
        };
        let nodes = source.nodes.iter().enumerate().filter(|(i, _)| live[*i]);
        let (constants, rest): (Vec<_>, Vec<_>) =
            nodes.partition(|(_, node)| matches!(node.op, Op::Leaf(LeafOp::Weight(_))));
        for (i, node) in constants.into_iter().chain(rest) {
            let op = match node.op {
                Op::Leaf(LeafOp::Weight(id)) => {
                    graph.weights.push(source.weights[id.0 as usize].clone());
                    Op::Leaf(LeafOp::Weight(WeightId(graph.weights.len() as u32 - 1)))
                }
                op => op,
            };
            let origin = source.origins.get_index(node.origin as usize).cloned().unwrap_or_default();
            let origin = graph.origins.insert_full(origin).0 as u32;
            let args = node.args.iter().map(|arg| map[arg.index()]).collect();
            map[i] = Value(graph.nodes.len() as u32);
            graph.nodes.push(Node { op, args, ty: node.ty, origin });
        }
        graph.outputs = outputs.into_iter().map(|(name, value)| (name, map[value.index()])).collect();
        graph
    }
}
