//! What a file's inputs are bound to: one fresh sequence. Ids stay open; masks are ones, positions count from zero, there
//! is no past and no cache branch.

use crate::evaluate::call::count;
use crate::model::Port;
use crate::tensor::{ArrayData, Element, OnnxArray, OnnxElem};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::str::FromStr;

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

/// Opens sizes that say how a file is used and not what its network is: a batch of several texts, and one new token at a time where a
/// past of any length may be given. Says what was opened, in words. What inside the file insists on such a size is found on import.
pub fn open(inputs: &mut [Port]) -> Vec<String> {
    let Some(port) = ids(inputs) else { return Vec::new() };
    let (name, sizes) = (port.name.clone(), port.sizes.clone());
    let mut opened = Vec::new();
    if let [Some(batch), .., _] = sizes[..]
        && batch > 1
    {
        let of_batch = |port: &&mut Port| port.sizes.first() == Some(&Some(batch));
        inputs.iter_mut().filter(of_batch).for_each(|port| port.sizes[0] = None);
        opened.push(format!(
            "takes a batch of exactly {batch}; it is read for one text; export it with a dynamic batch size"
        ));
    }
    let is_past = |port: &Port| port.name.contains("past") && port.sizes.len() >= 4 && port.sizes[1..].contains(&None);
    if sizes.last() == Some(&Some(1)) && inputs.iter().any(is_past) {
        let of_tokens = |port: &&mut Port| port.name == name || port.name.contains("position");
        for size in inputs.iter_mut().filter(of_tokens).filter_map(|port| port.sizes.last_mut()) {
            *size = size.filter(|size| *size != 1);
        }
        opened.push(
            "takes one new token at a time; it is read for several; export it with a dynamic sequence length"
                .to_string(),
        );
    }
    opened
}

/// What a user says that an input holds (`--input NAME=...`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InputFill {
    /// One number everywhere.
    Number(f64),
    /// 0, 1, 2... along the last axis.
    Positions,
    /// 1 for every token that may be seen: the whole sequence; up to itself, where the last two axes are both open.
    Mask,
}

impl FromStr for InputFill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ones" => Ok(InputFill::Number(1.0)),
            "zeros" => Ok(InputFill::Number(0.0)),
            "positions" => Ok(InputFill::Positions),
            "mask" => Ok(InputFill::Mask),
            number => match number.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(InputFill::Number(number)),
                _ => Err(format!("`{text}` is none of ones, zeros, positions, mask, and no finite number")),
            },
        }
    }
}

/// What a user says that inputs hold, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputBindings(Vec<(String, InputFill)>);

impl InputBindings {
    /// Of texts `NAME=ones|zeros|NUMBER|positions|mask`.
    ///
    /// ```
    /// use snnc_onnx::import::inputs::{InputBindings, InputFill};
    ///
    /// let bindings = InputBindings::parse(&["args_1=ones".to_string(), "shift=0.5".to_string()])?;
    /// assert_eq!(bindings.get("shift"), Some(InputFill::Number(0.5)));
    /// assert!(InputBindings::parse(&["args_1".to_string()]).is_err());
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// A text that is no such pair, or a name that stands twice.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let mut bindings = Self::default();
        for text in texts {
            let pair = text.rsplit_once('=').filter(|(name, _)| !name.is_empty());
            let (name, fill) = pair.ok_or_else(|| format!("`{text}` is not written NAME=VALUE"))?;
            if bindings.get(name).is_some() {
                return Err(format!("input {name} is named twice"));
            }
            bindings.0.push((name.to_string(), fill.parse()?));
        }
        Ok(bindings)
    }

    /// What the input of this name holds, if a user says so.
    pub fn get(&self, name: &str) -> Option<InputFill> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, fill)| *fill)
    }

    /// Whether every name is that of an input that can be bound.
    ///
    /// # Errors
    /// A name that no input has, or that of the token ids.
    pub fn check(&self, ports: &[Port]) -> Result<(), Diagnostic> {
        let ids = ids(ports);
        for (name, _) in &self.0 {
            let failed = |what: String| Err(Diagnostic::new(format!("--input {name}"), what).code(ErrorCode::OPTION));
            if ids.is_some_and(|ids| ids.name == *name) {
                return failed("this input takes the token ids".into());
            }
            if !ports.iter().any(|port| port.name == *name) {
                let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
                return failed(format!("the file has no such input; its inputs are {}", names.join(", ")));
            }
        }
        Ok(())
    }
}

/// What an input that is not the ids holds for a fresh sequence of `n` tokens. Sizes that the file declares are kept.
///
/// # Errors
/// Inputs that no GPT-2 has, and that nobody says a thing of.
pub fn fresh(port: &Port, n: usize, bindings: &InputBindings) -> Result<OnnxArray, String> {
    let elem = port.elem.ok_or("its element type is not supported")?;
    let rank = port.sizes.len();
    let last = rank.saturating_sub(1);
    let sizes: Vec<usize> = (0..rank).map(|i| port.sizes[i].unwrap_or(if i == last { n } else { 1 })).collect();
    if let Some(fill) = bindings.get(&port.name) {
        return filled(port, n, sizes, fill);
    }
    let (sizes, fill) = match port.name.as_str() {
        name if name.contains("past") && rank < 2 => (vec![1; rank], InputFill::Number(0.0)),
        name if name.contains("past") || elem == OnnxElem::F32 && rank >= 4 && !name.contains("mask") => {
            let batch = rank.checked_sub(4).ok_or("keys and values should have four axes")?;
            let size = |(i, size): (usize, &Option<usize>)| size.unwrap_or(usize::from(i <= batch));
            let sizes: Vec<usize> = port.sizes.iter().enumerate().map(size).collect();
            if count(&sizes)? != 0 {
                return Err(format!("its shape {sizes:?} is that of no past that could be empty"));
            }
            (sizes, InputFill::Number(0.0))
        }
        name if name.contains("mask") => (sizes, InputFill::Number(1.0)),
        name if name.contains("position") => (sizes, InputFill::Positions),
        name if name.contains("type") || name.contains("segment") => (sizes, InputFill::Number(0.0)),
        name if name.contains("cache") => (vec![1; rank], InputFill::Number(0.0)),
        name => {
            return Err(format!(
                "snnc does not know what to give this input; say it with --input {name}=ones, or zeros, a number, \
                 positions or mask"
            ));
        }
    };
    filled(port, n, sizes, fill)
}

/// An array of `sizes`, but for a mask of two open axes, which has a row and a column for each token.
fn filled(port: &Port, n: usize, mut sizes: Vec<usize>, fill: InputFill) -> Result<OnnxArray, String> {
    let elem = port.elem.ok_or("its element type is not supported")?;
    if let InputFill::Number(number) = fill
        && !matches!(elem, OnnxElem::F32 | OnnxElem::Bool)
        && number.fract() != 0.0
    {
        return Err(format!("it holds whole numbers, and {number} is none"));
    }
    let is_square = fill == InputFill::Mask && matches!(port.sizes.as_slice(), [.., None, None]) && sizes.len() > 2;
    if is_square {
        let rows = sizes.len() - 2;
        sizes[rows] = n;
    }
    let width = sizes.last().copied().unwrap_or(1).max(1);
    let at = |i: usize| match fill {
        InputFill::Number(number) if elem == OnnxElem::F32 => Element::Float(number as f32),
        InputFill::Number(number) => Element::Int(number as i64),
        InputFill::Positions => Element::Int((i % width) as i64),
        InputFill::Mask if is_square => Element::Int(i64::from(i % n <= i / n % n)),
        InputFill::Mask => Element::Int(1),
    };
    Ok(OnnxArray::new(sizes.clone(), ArrayData::from_numbers(elem, (0..count(&sizes)?).map(at))))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, sizes: &[Option<usize>]) -> Port {
        let elem = if name.contains("past") { OnnxElem::F32 } else { OnnxElem::I64 };
        Port { name: name.into(), elem: Some(elem), sizes: sizes.to_vec() }
    }

    #[test]
    fn sizes_that_say_how_a_file_is_used_are_opened() {
        let past = |batch, length| port("past_key_values.0.key", &[batch, Some(2), length, Some(16)]);
        let mut one = [port("input_ids", &[None, Some(1)]), port("position_ids", &[None, Some(1)]), past(None, None)];
        assert_eq!(open(&mut one).len(), 1);
        assert!(one[..2].iter().all(|port| port.sizes == [None, None]), "{one:?}");
        let mut batch = [port("input_ids", &[Some(4), None]), port("attention_mask", &[Some(4), None])];
        assert!(open(&mut batch)[0].contains("batch of exactly 4"));
        assert!(batch.iter().all(|port| port.sizes == [None, None]), "{batch:?}");
        // Without a past there is nothing before the one token; a past of one length is no beginning.
        let mut alone = [port("input_ids", &[Some(1), Some(1)])];
        assert!(open(&mut alone).is_empty());
        let mut kept = [port("input_ids", &[Some(1), Some(1)]), past(Some(1), Some(64))];
        assert!(open(&mut kept).is_empty());
    }
}
