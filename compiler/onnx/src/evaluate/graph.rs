//! A whole file on concrete inputs: what the network of the file gives, whatever the importer makes of it.

use super::call::{OnnxCall, axis, sizes_of};
use super::{evaluate, work};
use crate::model::{OnnxGraph, OnnxModel, OnnxNode};
use crate::tensor::OnnxArray;
use indexmap::IndexMap;
use snnc_ir::Diagnostic;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

/// The most elements of all values that are held at once beside the weights, for a file of few weights.
const HELD_MAX: usize = 1 << 27;

/// The same for each element of its weights: a file may first convert them all.
const HELD_BY_WEIGHT: usize = 4;

/// The most numbers that are read or multiplied in all: a minute's work.
const WORK_MAX: usize = 1 << 37;

/// What a run has used up.
struct EvalBudget {
    most: usize,
    held: Cell<usize>,
    work: Cell<usize>,
}

/// A value of a run.
#[derive(Clone, Debug)]
enum RunValue {
    One(Arc<OnnxArray>),
    Many(Vec<Arc<OnnxArray>>),
}

/// Names to values; a graph inside a node sees those outside.
struct Scope<'s> {
    budget: &'s EvalBudget,
    outer: Option<&'s Scope<'s>>,
    values: HashMap<String, RunValue>,
}

impl RunValue {
    fn len(&self) -> usize {
        match self {
            RunValue::One(array) => array.len(),
            RunValue::Many(arrays) => arrays.iter().map(|array| array.len()).sum(),
        }
    }
}

impl Scope<'_> {
    fn keep(&mut self, name: &str, value: RunValue) -> Result<(), String> {
        self.let_go(name);
        let total = self.budget.held.get() + value.len();
        if total > self.budget.most {
            return Err("the file asks for too much to be evaluated".into());
        }
        self.budget.held.set(total);
        self.values.insert(name.to_string(), value);
        Ok(())
    }

    fn let_go(&mut self, name: &str) {
        if let Some(value) = self.values.remove(name) {
            self.budget.held.set(self.budget.held.get().saturating_sub(value.len()));
        }
    }

    fn get(&self, name: &str) -> Option<&RunValue> {
        self.values.get(name).or_else(|| self.outer?.get(name))
    }
}

/// The outputs of the file that `wanted` names, where its inputs hold `inputs`. Only the nodes that they need are run.
///
/// ```
/// use snnc_onnx::evaluate::graph::run;
/// use snnc_onnx::model::{OnnxModel, OnnxNode};
/// use snnc_onnx::tensor::OnnxArray;
/// use std::collections::HashMap;
///
/// let mut model = OnnxModel::default();
/// let (inputs, outputs) = (vec!["x".into(), "x".into()], vec!["y".into()]);
/// model.graph.nodes.push(OnnxNode { op_type: "Mul".into(), inputs, outputs, ..OnnxNode::default() });
/// let given = HashMap::from([("x".to_string(), OnnxArray::f32(&[2], vec![3.0, 0.5]))]);
/// assert_eq!(*run(&model, given, &["y"])?["y"], OnnxArray::f32(&[2], vec![9.0, 0.25]));
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
///
/// # Errors
/// An input that is missing; a node that cannot be evaluated, by name.
pub fn run(
    model: &OnnxModel,
    inputs: HashMap<String, OnnxArray>,
    wanted: &[&str],
) -> Result<IndexMap<String, Arc<OnnxArray>>, Diagnostic> {
    let values = inputs.into_iter().map(|(name, array)| (name, RunValue::One(Arc::new(array)))).collect();
    let most = HELD_MAX.max(model.graph.elements().saturating_mul(HELD_BY_WEIGHT));
    let budget = EvalBudget { most, held: Cell::new(0), work: Cell::new(0) };
    let outputs = run_graph(&model.graph, model.opset(), Scope { budget: &budget, outer: None, values }, wanted)?;
    let one = |(name, value): (&&str, RunValue)| match value {
        RunValue::One(array) => Ok(((*name).to_string(), array)),
        RunValue::Many(_) => Err(Diagnostic::new(format!("output {name}"), "it is a sequence")),
    };
    wanted.iter().zip(outputs).map(one).collect()
}

fn run_graph(
    graph: &OnnxGraph,
    opset: i64,
    mut scope: Scope<'_>,
    wanted: &[&str],
) -> Result<Vec<RunValue>, Diagnostic> {
    for (name, array) in &graph.initializers {
        scope.values.insert(name.clone(), RunValue::One(array.clone()));
    }
    let live = graph.needed(wanted);
    // Where every value is used last, so that it can be let go.
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (i, node) in live.iter().enumerate() {
        last.extend(node.needs().into_iter().map(|name| (name, i)));
    }
    last.extend(wanted.iter().map(|&name| (name, live.len())));
    for (i, node) in live.iter().enumerate() {
        let outputs = run_node(node, opset, &scope)?;
        for (name, value) in node.outputs.iter().zip(outputs) {
            if !name.is_empty() && last.contains_key(name.as_str()) {
                scope.keep(name, value).map_err(|message| Diagnostic::new(node.label(), message))?;
            }
        }
        for name in node.needs() {
            if last.get(name) == Some(&i) {
                scope.let_go(name);
            }
        }
    }
    let output = |name: &&str| {
        scope.get(name).cloned().ok_or_else(|| Diagnostic::new(format!("output {name}"), "no node makes it"))
    };
    wanted.iter().map(output).collect()
}

fn run_node(node: &OnnxNode, opset: i64, scope: &Scope<'_>) -> Result<Vec<RunValue>, Diagnostic> {
    let failed = |message: String| Diagnostic::new(node.label(), format!("{}: {message}", node.operator()));
    let mut inputs: Vec<Option<&RunValue>> = Vec::with_capacity(node.inputs.len());
    for name in &node.inputs {
        match scope.get(name) {
            Some(value) => inputs.push(Some(value)),
            None if name.is_empty() => inputs.push(None),
            None => return Err(failed(format!("its input {name} is not given"))),
        }
    }
    if &*node.operator() == "If" {
        return branch(node, opset, scope, &inputs);
    }
    if let Some(outputs) = sequence(node, opset, &inputs).map_err(failed)? {
        return Ok(outputs);
    }
    let arrays: Option<Vec<Option<&OnnxArray>>> = inputs
        .iter()
        .map(|value| match value {
            None => Some(None),
            Some(RunValue::One(array)) => Some(Some(&**array)),
            Some(RunValue::Many(_)) => None,
        })
        .collect();
    let arrays = arrays.ok_or_else(|| failed("it takes a sequence".into()))?;
    let budget = &scope.budget.work;
    budget.set(budget.get().saturating_add(work(node, &arrays)));
    if budget.get() > WORK_MAX {
        return Err(failed("the file asks for too much to be evaluated".into()));
    }
    match evaluate(node, opset, &arrays) {
        Ok(outputs) => Ok(outputs.into_iter().map(|array| RunValue::One(Arc::new(array))).collect()),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn branch(
    node: &OnnxNode,
    opset: i64,
    scope: &Scope<'_>,
    inputs: &[Option<&RunValue>],
) -> Result<Vec<RunValue>, Diagnostic> {
    let failed = |message: &str| Diagnostic::new(node.label(), format!("If: {message}"));
    let condition = match inputs.first() {
        Some(Some(RunValue::One(array))) => {
            array.number().ok_or_else(|| failed("its condition should be one number"))?
        }
        _ => return Err(failed("its condition is missing")),
    };
    let name = if condition.is_zero() { "else_branch" } else { "then_branch" };
    let graph = node.graph(name).ok_or_else(|| failed("a branch is missing"))?;
    let wanted: Vec<&str> = graph.outputs.iter().map(|port| port.name.as_str()).collect();
    run_graph(graph, opset, Scope { budget: scope.budget, outer: Some(scope), values: HashMap::new() }, &wanted)
}

/// Operators on sequences. `None`: the node is another one.
fn sequence(node: &OnnxNode, opset: i64, inputs: &[Option<&RunValue>]) -> Result<Option<Vec<RunValue>>, String> {
    let array = |i: usize| match inputs.get(i) {
        Some(Some(RunValue::One(array))) => Ok(array),
        _ => Err(format!("input {} should be an array", i + 1)),
    };
    let many = |i: usize| match inputs.get(i) {
        Some(Some(RunValue::Many(arrays))) => Ok(arrays),
        _ => Err(format!("input {} should be a sequence", i + 1)),
    };
    let place = |i: usize, size: usize| -> Result<usize, String> {
        let index = array(i)?.number().ok_or("an index should be one number")?;
        axis(index.int(), size)
    };
    let value = match &*node.operator() {
        "SequenceEmpty" => RunValue::Many(Vec::new()),
        "SequenceConstruct" => {
            RunValue::Many((0..inputs.len()).map(|i| array(i).cloned()).collect::<Result<_, String>>()?)
        }
        "SequenceAt" => {
            let parts = many(0)?;
            RunValue::One(parts[place(1, parts.len())?].clone())
        }
        "SequenceLength" => RunValue::One(Arc::new(OnnxArray::i64(&[], vec![many(0)?.len() as i64]))),
        "SequenceInsert" => {
            let mut parts = many(0)?.clone();
            let at = if inputs.len() > 2 { place(2, parts.len() + 1)? } else { parts.len() };
            parts.insert(at, array(1)?.clone());
            RunValue::Many(parts)
        }
        "ConcatFromSequence" => {
            if node.int("new_axis").unwrap_or(0) != 0 {
                return Err("a new axis is not supported".into());
            }
            let parts: Vec<Option<&OnnxArray>> = many(0)?.iter().map(|array| Some(&**array)).collect();
            RunValue::One(Arc::new(OnnxCall { node, opset, inputs: &parts }.concat()?))
        }
        "SplitToSequence" => RunValue::Many(parts(node, opset, array(0)?, inputs.get(1).copied().flatten())?),
        _ => return Ok(None),
    };
    Ok(Some(vec![value]))
}

fn parts(node: &OnnxNode, opset: i64, x: &OnnxArray, sizes: Option<&RunValue>) -> Result<Vec<Arc<OnnxArray>>, String> {
    let along = axis(node.int("axis").unwrap_or(0), x.rank())?;
    let size = x.sizes()[along];
    let sizes = match sizes {
        None => return Err("parts without their axis are not supported".into()),
        Some(RunValue::One(array)) => match (array.rank(), sizes_of(&array.ints().unwrap_or_default())?.as_slice()) {
            (0, &[each]) if each > 0 => (0..size).step_by(each).map(|start| each.min(size - start)).collect(),
            (_, sizes) => sizes.to_vec(),
        },
        Some(RunValue::Many(_)) => return Err("its sizes should be an array".into()),
    };
    let split = OnnxArray::vector(sizes.iter().map(|&n| n as i64).collect());
    let alone = OnnxNode {
        op_type: "Split".into(),
        outputs: sizes.iter().map(|_| "part".to_string()).collect(),
        attributes: node.attributes.clone(),
        ..OnnxNode::default()
    };
    let parts = OnnxCall { node: &alone, opset: opset.max(13), inputs: &[Some(x), Some(&split)] }.split()?;
    Ok(parts.into_iter().map(Arc::new).collect())
}
