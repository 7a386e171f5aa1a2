//! ONNX files of anybody's making: nodes, attributes, constants and inputs change, or bytes do.

use crate::bytes;
use crate::chance::{NUMBERS, Verdict, below, corpus_files, pick};
use prost::Message;
use snnc::front::{self, DenseNetwork};
use snnc::proof;
use snnc_ir::random::SplitMix64;
use snnc_onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use snnc_onnx::{import_model, read};
use std::path::Path;

/// The corpus, and files that once fell.
pub fn seeds() -> Vec<Vec<u8>> {
    [corpus_files("onnx"), corpus_files("onnx-fallen")].concat()
}

/// A file with a few changes: of its structure, or of its bytes.
pub fn mutant(seeds: &[Vec<u8>], random: &mut SplitMix64) -> Vec<u8> {
    let mut mutant = pick(random, seeds).clone();
    let changes = 1 + below(random, 3);
    let structure = ModelProto::decode(mutant.as_slice()).ok().filter(|_| below(random, 8) > 0);
    match structure {
        Some(mut model) => {
            (0..changes).for_each(|_| change(&mut model, random));
            model.encode_to_vec()
        }
        None => {
            (0..changes).for_each(|_| bytes::change(&mut mutant, random));
            mutant
        }
    }
}

fn change(model: &mut ModelProto, random: &mut SplitMix64) {
    let Some(graph) = &mut model.graph else { return };
    if graph.node.is_empty() {
        return;
    }
    let i = below(random, graph.node.len());
    match below(random, 12) {
        0 => graph.node[i].op_type = pick(random, &graph.node).op_type.clone(),
        1 | 2 => rewire(graph, i, random),
        3 => {
            graph.node.remove(i);
        }
        4 => {
            let j = below(random, graph.node.len());
            graph.node.swap(i, j);
        }
        5 | 6 => attribute(&mut graph.node[i], random),
        7..=9 if !graph.initializer.is_empty() => {
            let j = below(random, graph.initializer.len());
            tensor(&mut graph.initializer[j], random);
        }
        10 => ports(graph, random),
        _ => {
            if let Some(opset) = model.opset_import.first_mut() {
                opset.version = *pick(random, &[1, 7, 9, 10, 11, 12, 13, 14, 15, 17, 18, 20, 21, 23, 24]);
            }
        }
    }
}

/// Gives a node another operand, its operands in another order, or one more or less.
fn rewire(graph: &mut GraphProto, i: usize, random: &mut SplitMix64) {
    let other = pick(random, &graph.node);
    let names = [&other.output, &other.input].map(|names| names.first().cloned().unwrap_or_default());
    let name = pick(random, &names).clone();
    let inputs = &mut graph.node[i].input;
    let count = inputs.len();
    match below(random, 4) {
        0 if count > 1 => inputs.swap(0, count - 1),
        1 => inputs.push(name),
        2 => drop(inputs.pop()),
        _ if count > 0 => {
            let at = below(random, count);
            inputs[at] = name;
        }
        _ => {}
    }
}

fn attribute(node: &mut NodeProto, random: &mut SplitMix64) {
    let NodeProto { attribute: attributes, .. } = node;
    let number = *pick(random, &NUMBERS) as i64;
    let number = if below(random, 3) == 0 { number.wrapping_neg() } else { number };
    if attributes.is_empty() {
        let name = *pick(random, &["axis", "perm", "alpha", "epsilon", "keepdims", "to", "axes", "num_heads"]);
        attributes.push(AttributeProto { name: name.into(), i: Some(number), r#type: 2, ..AttributeProto::default() });
        return;
    }
    let at = below(random, attributes.len());
    let one = &mut attributes[at];
    match below(random, 4) {
        0 => drop(attributes.remove(at)),
        _ if one.i.is_some() => one.i = Some(number),
        _ if one.f.is_some() => one.f = Some(*pick(random, &[0.0, 0.5, -1.0, 1e30, f32::NAN, f32::INFINITY])),
        _ if !one.ints.is_empty() => {
            let j = below(random, one.ints.len());
            one.ints[j] = number;
        }
        _ => {
            if let Some(t) = &mut one.t {
                tensor(t, random);
            }
        }
    }
}

/// Changes sizes, the type or elements of a constant.
fn tensor(tensor: &mut TensorProto, random: &mut SplitMix64) {
    match below(random, 6) {
        0 if !tensor.dims.is_empty() => {
            let at = below(random, tensor.dims.len());
            tensor.dims[at] = *pick(random, &NUMBERS) as i64;
        }
        1 if tensor.dims.len() > 1 => tensor.dims.swap(0, 1),
        2 => tensor.data_type = below(random, 24) as i32,
        _ => elements(tensor, random),
    }
}

fn elements(tensor: &mut TensorProto, random: &mut SplitMix64) {
    let (size, element) = match tensor.data_type {
        1 => {
            let x: f32 = *pick(random, &[0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, f32::MAX, f32::NAN, f32::INFINITY]);
            (4, x.to_le_bytes().to_vec())
        }
        7 => {
            let x = *pick(random, &NUMBERS) as i64;
            (8, if below(random, 3) == 0 { x.wrapping_neg() } else { x }.to_le_bytes().to_vec())
        }
        6 => (4, (*pick(random, &NUMBERS) as i32).to_le_bytes().to_vec()),
        _ => (1, vec![*pick(random, &[0u8, 1, 0x7f, 0x80, 0xff])]),
    };
    let Some(raw) = &tensor.raw_data else { return };
    let mut raw = raw.to_vec();
    let count = raw.len() / size;
    if below(random, 4) == 0 {
        raw.chunks_exact_mut(size).for_each(|old| old.copy_from_slice(&element));
    } else if count > 0 {
        let at = below(random, count) * size;
        raw[at..at + size].copy_from_slice(&element);
    }
    tensor.raw_data = Some(raw.into());
}

/// Changes the inputs or outputs of the file.
fn ports(graph: &mut GraphProto, random: &mut SplitMix64) {
    let outputs: Vec<String> = graph.node.iter().flat_map(|node| node.output.clone()).collect();
    let name = pick(random, &outputs).clone();
    match below(random, 4) {
        0 => graph.output.reverse(),
        1 => graph.output.insert(0, snnc_onnx::proto::ValueInfoProto { name, ..Default::default() }),
        2 => {
            if let Some(output) = graph.output.first_mut() {
                output.name = name;
            }
        }
        _ => {
            let input = graph.input.first_mut().and_then(|port| port.r#type.as_mut()?.tensor_type.as_mut());
            let shape = input.and_then(|ty| ty.shape.as_mut());
            if let Some(dim) = shape.and_then(|shape| shape.dim.last_mut()) {
                dim.dim_value = Some(*pick(random, &NUMBERS) as i64);
                dim.dim_param = None;
            }
        }
    }
}

/// Seeds of the tokens that an accepted file is tried on.
const DRAWS: [u64; 3] = [1, 2, 3];

/// Reads, imports and raises a file; one that is taken must compute what its nodes do, on other tokens than its proof had.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8]) -> Result<Verdict, String> {
    let Ok(model) = read::read_bytes(bytes) else { return Ok(Verdict::Refused) };
    let import = match import_model(model) {
        Ok(import) => import,
        Err(errors) if errors.is_empty() => return Err("it is refused without a word".into()),
        Err(_) => return Ok(Verdict::Refused),
    };
    let DenseNetwork { tensor, proof, .. } =
        match front::onnx_network(Path::new("fuzz"), &import, None, None, &mut |_, _| {}) {
            Ok(network) => network,
            Err(errors) if errors.is_empty() => return Err("it is refused without a word".into()),
            Err(_) => return Ok(Verdict::Refused),
        };
    let Some(proof) = proof else { return Err("an ONNX file was not proved".into()) };
    for seed in DRAWS {
        // Tokens of which the file's own logits are not finite say nothing.
        let Ok(drawn) = proof::compare(&import, &tensor, None, seed) else { continue };
        if drawn.difference > 10.0 * drawn.tolerance * drawn.range.max(proof.range) {
            return Err(format!("it was proved ({}), and other tokens show: {}", proof.line(), drawn.line()));
        }
    }
    Ok(Verdict::Accepted)
}
