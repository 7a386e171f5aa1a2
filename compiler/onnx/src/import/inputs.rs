//! What a file's inputs are bound to: one fresh sequence. Ids stay open; masks are ones, positions count from zero, there
//! is no past and no cache branch.

use crate::evaluate::call::count;
use crate::model::Port;
use crate::tensor::{ArrayData, Element, OnnxArray, OnnxElem};

/// The input that takes the token ids.
pub fn ids(inputs: &[Port]) -> Option<&Port> {
    let others = ["mask", "position", "type", "segment", "past", "cache"];
    let is_other = |name: &str| others.iter().any(|word| name.contains(word));
    let is_ids = |port: &&Port| port.elem.is_some_and(OnnxElem::is_int) && !is_other(&port.name);
    inputs.iter().find(|port| port.name == "input_ids").or_else(|| inputs.iter().find(is_ids))
}

/// How many tokens the file takes, where it takes just one number of them.
pub fn fixed_tokens(inputs: &[Port]) -> Option<usize> {
    ids(inputs)?.sizes.last().copied().flatten()
}

/// What an input that is not the ids holds for a fresh sequence of `n` tokens.
///
/// # Errors
/// Inputs that no GPT-2 has.
pub fn fresh(port: &Port, n: usize) -> Result<OnnxArray, String> {
    let elem = port.elem.ok_or("its element type is not supported")?;
    let rank = port.sizes.len();
    let row = |n: usize| [vec![1; rank.saturating_sub(1)], vec![n]].concat();
    let (sizes, start, step) = match port.name.as_str() {
        name if name.contains("past") && rank < 2 => (vec![1; rank], 0, 0),
        name if name.contains("past") || elem == OnnxElem::F32 && rank >= 4 && !name.contains("mask") => {
            let batch = rank.checked_sub(4).ok_or("keys and values should have four axes")?;
            let size = |(i, size): (usize, &Option<usize>)| size.unwrap_or(usize::from(i <= batch));
            let sizes: Vec<usize> = port.sizes.iter().enumerate().map(size).collect();
            if count(&sizes)? != 0 {
                return Err(format!("its shape {sizes:?} is that of no past that could be empty"));
            }
            (sizes, 0, 0)
        }
        name if name.contains("mask") => (row(n), 1, 0),
        name if name.contains("position") => (row(n), 0, 1),
        name if name.contains("type") || name.contains("segment") => (row(n), 0, 0),
        name if name.contains("cache") => (vec![1; rank], 0, 0),
        _ => return Err("snnc does not know what to give this input".into()),
    };
    let numbers = (0..count(&sizes)?).map(|i| Element::Int(start + step * i as i64));
    Ok(OnnxArray::new(sizes, ArrayData::from_numbers(elem, numbers)))
}

/// Token ids as the ids' input takes them: a batch of one.
///
/// ```
/// use snnc_onnx::import::inputs;
/// use snnc_onnx::model::Port;
/// use snnc_onnx::tensor::{OnnxArray, OnnxElem};
///
/// let port = Port { name: "input_ids".into(), elem: Some(OnnxElem::I64), sizes: vec![None, None] };
/// assert_eq!(inputs::ids(std::slice::from_ref(&port)), Some(&port));
/// assert_eq!(inputs::tokens(&port, &[7, 8, 9]), Ok(OnnxArray::i64(&[1, 3], vec![7, 8, 9])));
/// ```
///
/// # Errors
/// The input's element type is not supported.
pub fn tokens(port: &Port, ids: &[u32]) -> Result<OnnxArray, String> {
    let elem = port.elem.ok_or("its element type is not supported")?;
    let sizes = [vec![1; port.sizes.len().max(1) - 1], vec![ids.len()]].concat();
    let sizes = if port.sizes.is_empty() { vec![1, ids.len()] } else { sizes };
    Ok(OnnxArray::new(sizes, ArrayData::from_numbers(elem, ids.iter().map(|&id| Element::Int(i64::from(id))))))
}
