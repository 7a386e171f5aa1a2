//! Weights that are no finite numbers. They are refused by the name of the file's tensor, before anything is computed with them.
//!
//! Masks may hold infinities: those never become weights, so the network's own weights are looked at, and then the file's
//! tensors for the one that is to blame.

use crate::model::{Attribute, OnnxModel, OnnxNode};
use crate::tensor::OnnxArray;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph};
use std::collections::{HashMap, HashSet};

/// Where an array's first number is that is not finite, and that number.
fn first_bad(array: &OnnxArray) -> Option<(usize, f32)> {
    let all = array.as_f32()?;
    all.iter().position(|x| !x.is_finite()).map(|i| (i, all[i]))
}

/// Whether all weights of a graph that was imported are finite.
///
/// # Errors
/// Every weight that is not, by the tensor of the file that it comes from.
pub(crate) fn check(model: &OnnxModel, graph: &Graph, output: &str) -> Result<(), Diagnostics> {
    let bad = graph.weights.iter().filter_map(|weight| {
        let all = weight.tensor.as_f32()?;
        all.iter().find(|x| !x.is_finite()).map(|number| (weight.name.as_str(), *number))
    });
    let mut diagnostics = Diagnostics::new();
    let mut named = HashSet::new();
    for (name, number) in bad {
        let culprits = culprits(model, name, output);
        if culprits.is_empty() {
            let message = format!("it holds {}; the file computes it from finite numbers", spelled(number));
            diagnostics.push(Diagnostic::new(format!("value {name}"), message));
        }
        for (tensor, array) in culprits {
            let Some((i, number)) = first_bad(array).filter(|_| named.insert(tensor)) else { continue };
            let message = format!("it holds {} (element {i} of {})", spelled(number), array.len());
            diagnostics.push(
                Diagnostic::new(format!("tensor {tensor}"), message)
                    .note("a weight that is not finite makes every output NaN; export the network again"),
            );
        }
    }
    if diagnostics.is_empty() { Ok(()) } else { Err(diagnostics.or_code(ErrorCode::ONNX_FILE)) }
}

fn spelled(number: f32) -> &'static str {
    match number {
        number if number.is_nan() => "NaN",
        number if number > 0.0 => "infinity",
        _ => "minus infinity",
    }
}

/// Tensors of the file that are not finite and that the value `name` is made from; those that the output is made from, where
/// no value of the file has that name.
pub(crate) fn culprits<'m>(model: &'m OnnxModel, name: &str, output: &str) -> Vec<(&'m str, &'m OnnxArray)> {
    let graph = &model.graph;
    let makers: HashMap<&str, &OnnxNode> =
        graph.nodes.iter().flat_map(|node| node.outputs.iter().map(move |name| (name.as_str(), node))).collect();
    let known = |name: &str| {
        let weight = graph.initializers.get_key_value(name).map(|(name, _)| name.as_str());
        weight.or_else(|| makers.get_key_value(name).map(|(name, _)| *name))
    };
    let mut open: Vec<&'m str> = known(name).or_else(|| known(output)).into_iter().collect();
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        if let Some((name, array)) = graph.initializers.get_key_value(name)
            && first_bad(array).is_some()
        {
            found.push((name.as_str(), &**array));
        }
        let Some(node) = makers.get(name) else { continue };
        open.extend(node.needs());
        for attribute in node.attributes.values() {
            if let Attribute::Tensor(array) = attribute
                && first_bad(array).is_some()
            {
                found.push((node.label(), &**array));
            }
        }
    }
    found.reverse();
    found
}
