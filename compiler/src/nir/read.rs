//! Reads a NIR file. What is not understood is refused by the name of its node.

use super::graph::{Firing, Leak, NirGraph, NirNode};
use hdf5_pure::{Dataset, File, Group};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode};
use std::path::Path;

/// Numbers of a field, at most: a gigabyte of f32.
const NUMBERS_MAX: u64 = 1 << 28;

/// The graph of a file.
///
/// # Errors
/// The file cannot be read or is none of NIR's; each node that is not understood, with its name and its type.
pub fn read(path: &Path) -> Result<NirGraph, Diagnostics> {
    let place = path.display().to_string();
    let wrong = |message: String| Diagnostic::new(place.clone(), message).code(ErrorCode::FILE);
    let bytes = crate::files::read_bytes(path)?;
    let file = File::from_bytes(bytes).map_err(|e| wrong(format!("is no HDF5 file: {e}")))?;
    let root = file.group("node").map_err(|_| wrong("has no group `node`, so it is no NIR file".into()))?;
    let kind = text(&root, "type").map_err(&wrong)?;
    if kind != "NIRGraph" {
        return Err(wrong(format!("holds a `{kind}` where a graph was expected")).into());
    }
    let nodes = root.group("nodes").map_err(|_| wrong("its graph has no nodes".into()))?;
    let (mut graph, mut refused) = (NirGraph::default(), Vec::new());
    let mut names = nodes.groups().map_err(|e| wrong(format!("its nodes cannot be read: {e}")))?;
    names.sort();
    for name in names {
        let node = nodes.group(&name).map_err(|e| e.to_string()).and_then(|group| node(&group));
        match node {
            Ok(node) => graph.nodes.push((name, node)),
            Err(message) => {
                refused.push(Diagnostic::new(format!("{place}, node {name}"), message).code(ErrorCode::FILE))
            }
        }
    }
    let edges = texts(&root, "edges").map_err(&wrong)?;
    if !edges.len().is_multiple_of(2) {
        return Err(wrong("its edges are no pairs".into()).into());
    }
    for [from, to] in edges.as_chunks().0 {
        for end in [from, to] {
            if refused.is_empty() && graph.nodes.iter().all(|(name, _)| name != end) {
                return Err(wrong(format!("an edge names the node {end}, and there is none")).into());
            }
        }
        graph.edges.push([from.clone(), to.clone()]);
    }
    if refused.is_empty() { Ok(graph) } else { Err(refused.into()) }
}

fn texts(group: &Group, name: &str) -> Result<Vec<String>, String> {
    let data = group.dataset(name).map_err(|_| format!("it has no `{name}`"))?;
    bounded(&data, name)?;
    data.read_string().map_err(|e| format!("its `{name}` cannot be read: {e}"))
}

fn text(group: &Group, name: &str) -> Result<String, String> {
    texts(group, name)?.into_iter().next().ok_or_else(|| format!("its `{name}` is empty"))
}

fn bounded(data: &Dataset, name: &str) -> Result<Vec<u64>, String> {
    let shape = data.shape().map_err(|e| format!("its `{name}` cannot be read: {e}"))?;
    let count = shape.iter().try_fold(1u64, |count, size| count.checked_mul(*size));
    count
        .filter(|count| *count <= NUMBERS_MAX)
        .ok_or_else(|| format!("its `{name}` has too many elements: {shape:?}"))?;
    Ok(shape)
}

/// Numbers with their sizes.
fn numbers(group: &Group, name: &str) -> Result<(Vec<f32>, Vec<u64>), String> {
    let data = group.dataset(name).map_err(|_| format!("it has no `{name}`"))?;
    let shape = bounded(&data, name)?;
    let all = data.read_f64().map_err(|e| format!("its `{name}` cannot be read: {e}"))?;
    let all: Vec<f32> = all.into_iter().map(|x| x as f32).collect();
    match all.iter().find(|x| !x.is_finite()) {
        Some(bad) => Err(format!("its `{name}` has {bad}")),
        None => Ok((all, shape)),
    }
}

/// As many numbers as there are neurons; one number stands for all.
fn per_neuron(group: &Group, name: &str, neurons: usize) -> Result<Vec<f32>, String> {
    let (all, _) = numbers(group, name)?;
    match all.len() {
        1 => Ok(vec![all[0]; neurons]),
        count if count == neurons => Ok(all),
        count => Err(format!("its `{name}` has {count} numbers for {neurons} neurons")),
    }
}

fn optional(group: &Group, name: &str, neurons: usize, without: f32) -> Result<Vec<f32>, String> {
    match group.dataset(name) {
        Ok(_) => per_neuron(group, name, neurons),
        Err(_) => Ok(vec![without; neurons]),
    }
}

fn matrix(group: &Group) -> Result<(Vec<f32>, usize), String> {
    let (weight, shape) = numbers(group, "weight")?;
    match shape[..] {
        [rows, columns] if rows > 0 && columns > 0 => Ok((weight, rows as usize)),
        _ => Err(format!("its `weight` is no matrix: {shape:?}")),
    }
}

fn width(group: &Group) -> Result<usize, String> {
    let (shape, _) = numbers(group, "shape")?;
    match shape[..] {
        [width] if width >= 1.0 && width <= NUMBERS_MAX as f32 => Ok(width as usize),
        _ => Err(format!("its shape is {shape:?}; a row was expected")),
    }
}

/// How many neurons there are: what the largest of these fields says.
fn neurons(group: &Group, names: &[&str]) -> Result<usize, String> {
    let mut most = 0;
    for name in names {
        most = most.max(numbers(group, name)?.0.len());
    }
    Ok(most)
}

fn leak(group: &Group, tau: &str, neurons: usize) -> Result<Leak, String> {
    let tau_name = tau;
    let tau = per_neuron(group, tau_name, neurons)?;
    if let Some(bad) = tau.iter().find(|tau| **tau <= 0.0) {
        return Err(format!("its `{tau_name}` has {bad}: times are above 0"));
    }
    Ok(Leak { tau, r: per_neuron(group, "r", neurons)?, rest: per_neuron(group, "v_leak", neurons)? })
}

fn firing(group: &Group, neurons: usize) -> Result<Firing, String> {
    Ok(Firing {
        threshold: per_neuron(group, "v_threshold", neurons)?,
        reset: optional(group, "v_reset", neurons, 0.0)?,
    })
}

fn node(group: &Group) -> Result<NirNode, String> {
    let kind = text(group, "type")?;
    Ok(match kind.as_str() {
        "Input" => NirNode::Input(width(group)?),
        "Output" => NirNode::Output(width(group)?),
        "Linear" => {
            let (weight, outputs) = matrix(group)?;
            NirNode::Linear { weight, outputs }
        }
        "Affine" => {
            let (weight, outputs) = matrix(group)?;
            NirNode::Affine { weight, bias: per_neuron(group, "bias", outputs)? }
        }
        "Scale" => NirNode::Scale { scale: numbers(group, "scale")?.0 },
        "IF" => {
            let neurons = neurons(group, &["r", "v_threshold"])?;
            NirNode::If { r: per_neuron(group, "r", neurons)?, firing: firing(group, neurons)? }
        }
        "LI" => NirNode::Li { leak: leak(group, "tau", neurons(group, &["tau", "r", "v_leak"])?)? },
        "LIF" => {
            let neurons = neurons(group, &["tau", "r", "v_leak", "v_threshold"])?;
            NirNode::Lif { leak: leak(group, "tau", neurons)?, firing: firing(group, neurons)? }
        }
        "CubaLIF" => {
            let neurons = neurons(group, &["tau_syn", "tau_mem", "r", "v_leak", "v_threshold"])?;
            let tau_syn = per_neuron(group, "tau_syn", neurons)?;
            if let Some(bad) = tau_syn.iter().find(|tau| **tau <= 0.0) {
                return Err(format!("its `tau_syn` has {bad}: times are above 0"));
            }
            NirNode::CubaLif {
                tau_syn,
                w_in: optional(group, "w_in", neurons, 1.0)?,
                leak: leak(group, "tau_mem", neurons)?,
                firing: firing(group, neurons)?,
            }
        }
        other => {
            let known = "Input, Output, Linear, Affine, Scale, IF, LI, LIF and CubaLIF";
            return Err(format!("is of the type {other}, which does not run here; there are {known}"));
        }
    })
}
