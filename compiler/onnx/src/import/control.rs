//! What decides which nodes run: nodes that an output needs, branches of `If`, sequences of values.

use super::constants::Constant;
use super::importer::Importer;
use super::value::{ImportError, ImportValue};
use crate::evaluate::call::axis;
use crate::model::{OnnxGraph, OnnxNode};
use snnc_ir::types::Dim;

/// The operators of this file.
pub const CONTROL: [&str; 5] = ["If", "SequenceConstruct", "SplitToSequence", "SequenceAt", "ConcatFromSequence"];

impl<'m> Importer<'m> {
    /// Brings a graph's constants in, and gives the nodes that `outputs` need, in the file's order.
    pub(super) fn enter(&mut self, graph: &'m OnnxGraph, outputs: &[&'m str]) -> Vec<&'m OnnxNode> {
        let live = graph.needed(outputs);
        for name in live.iter().flat_map(|node| node.needs()).chain(outputs.iter().copied()) {
            *self.wanted.entry(name).or_default() += 1;
        }
        for (name, array) in &graph.initializers {
            self.values.insert(name, ImportValue::Constant(Constant::one(name, array.clone())));
        }
        live
    }

    /// `If`, and sequences. `None`: the node is another one.
    pub(super) fn control(
        &mut self,
        node: &'m OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Option<Vec<ImportValue>>, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        Ok(Some(match &*node.operator() {
            "If" => self.branch(node, at(0))?,
            "SequenceConstruct" => vec![ImportValue::Sequence(inputs.iter().flatten().cloned().collect())],
            "SplitToSequence" => match at(0) {
                Some(ImportValue::Live(_)) => vec![ImportValue::Sequence(self.split_to_sequence(node, inputs)?)],
                _ => return Ok(None),
            },
            "SequenceAt" => {
                let (Some(ImportValue::Sequence(parts)), Some(ImportValue::Constant(index))) = (at(0), at(1)) else {
                    return Ok(None);
                };
                let index = index.single().and_then(|index| index.number()).ok_or("its index should be a constant")?;
                vec![parts[axis(index.int(), parts.len())?].clone()]
            }
            "ConcatFromSequence" if node.int("new_axis").unwrap_or(0) == 0 => {
                let Some(ImportValue::Sequence(parts)) = at(0) else { return Ok(None) };
                let parts: Vec<Option<ImportValue>> = parts.iter().cloned().map(Some).collect();
                vec![ImportValue::Live(self.concat(node, &parts)?)]
            }
            _ => return Ok(None),
        }))
    }

    /// The branch that is taken where there is no past, as if its nodes stood in the outer graph.
    fn branch(&mut self, node: &'m OnnxNode, condition: Option<&ImportValue>) -> Result<Vec<ImportValue>, ImportError> {
        let Some(ImportValue::Constant(condition)) = condition else {
            return Err("which branch is taken depends on the token ids".into());
        };
        let condition = condition.uniform().ok_or("which branch is taken depends on the number of tokens")?;
        let name = if condition == 0.0 { "else_branch" } else { "then_branch" };
        let graph = node.graph(name).ok_or_else(|| format!("its {name} is missing"))?;
        if graph.outputs.len() != node.outputs.len() {
            return Err(format!("its {name} has {} outputs, it has {}", graph.outputs.len(), node.outputs.len()).into());
        }
        let both = node.outputs.iter().zip(&graph.outputs);
        let wanted: Vec<Option<&'m str>> = both
            .map(|(outer, inner)| self.wanted.contains_key(outer.as_str()).then_some(inner.name.as_str()))
            .collect();
        let outputs: Vec<&'m str> = wanted.iter().copied().flatten().collect();
        for inner in self.enter(graph, &outputs) {
            self.node(inner);
        }
        let value = |name: &&'m str| self.values.get(name).cloned().unwrap_or(ImportValue::Failed);
        let results = wanted.iter().map(|name| name.as_ref().map_or(ImportValue::Failed, value)).collect();
        for name in outputs {
            self.let_go(name);
            // Exporters give a branch's output the name of the node's.
            if node.outputs.iter().any(|outer| outer == name) {
                self.values.remove(name);
            }
        }
        Ok(results)
    }

    /// Parts of a fixed axis: of one size, or of a list of sizes.
    fn split_to_sequence(
        &mut self,
        node: &'m OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let axis = axis(node.int("axis").unwrap_or(0), x.dims.len())?;
        let Dim::Fixed(size) = x.dims[axis] else { return Err("it splits the tokens".into()) };
        let size = size as usize;
        let sizes: Vec<usize> = match inputs.get(1).and_then(Option::as_ref) {
            None => return Err("parts without their axis are not supported".into()),
            Some(ImportValue::Constant(sizes)) => {
                let sizes = sizes.single().ok_or("its sizes depend on the number of tokens")?;
                let ints = sizes.ints().unwrap_or_default();
                let ints: Vec<usize> = ints.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
                match (sizes.rank(), ints.as_slice()) {
                    (_, ints) if ints.contains(&0) => return Err("a part is empty".into()),
                    (0, &[each]) => (0..size).step_by(each).map(|start| each.min(size - start)).collect(),
                    _ => ints,
                }
            }
            Some(_) => return Err("its sizes depend on the token ids".into()),
        };
        if sizes.iter().sum::<usize>() != size {
            return Err(format!("its parts {sizes:?} are not those of {size}").into());
        }
        Ok(self.parts(node, &x, axis, &sizes)?.into_iter().map(ImportValue::Live).collect())
    }
}
