//! Shapes at several numbers of tokens, as one.

use snnc_ir::types::{Dim, Shape};

/// The shape that `from` is given: sizes that depend on the number of tokens where that tells them apart; for a file of
/// one number of tokens, the axis that holds what the axis of tokens held.
pub(super) fn reshaped_dims(from: &[Dim], all: &[Vec<usize>], counts: &[usize]) -> Result<Vec<Dim>, String> {
    let mut dims = unify(all, counts)?;
    let ([n], [sizes]) = (counts, all) else { return Ok(dims) };
    for axis in (0..from.len()).filter(|&axis| from[axis] == Dim::Tokens) {
        let before: usize = from[..axis].iter().map(|dim| dim.size(*n, 0)).product();
        let mut product = 1;
        let place = sizes.iter().position(|&size| {
            let here = product == before && size == *n;
            product *= size;
            here
        });
        match place {
            Some(place) => dims[place] = Dim::Tokens,
            None => return Err("it mixes tokens with other axes".into()),
        }
    }
    Ok(dims)
}

/// Shapes at all numbers of tokens as one.
pub(super) fn unify(all: &[Vec<usize>], counts: &[usize]) -> Result<Vec<Dim>, String> {
    let rank = all.first().map_or(0, Vec::len);
    if all.iter().any(|sizes| sizes.len() != rank) {
        return Err("the number of axes depends on the number of tokens".into());
    }
    let dim = |axis: usize| {
        let sizes: Vec<usize> = all.iter().map(|sizes| sizes[axis]).collect();
        match sizes.as_slice() {
            sizes if sizes.iter().all(|&n| n == sizes[0]) => fixed(sizes[0]),
            sizes if sizes == counts => Ok(Dim::Tokens),
            sizes => {
                Err(format!("a size is {sizes:?} for {counts:?} tokens; only fixed sizes and `tokens` are possible"))
            }
        }
    };
    (0..rank).map(dim).collect()
}

pub(super) fn fixed(size: usize) -> Result<Dim, String> {
    match u32::try_from(size) {
        Ok(0) => Err("a size is 0".into()),
        Ok(size) => Ok(Dim::Fixed(size)),
        Err(_) => Err(format!("a size of {size} is too large")),
    }
}

/// The axes of an ONNX shape that the IR keeps: not the leading ones, and not a batch of 1 behind the tokens.
pub(super) fn kept_axes(dims: &[Dim]) -> Vec<usize> {
    let one = Dim::Fixed(1);
    let lead = dims.iter().take_while(|&&dim| dim == one).count();
    let behind_tokens = |axis: usize| dims[..axis].iter().rev().find(|&&dim| dim != one) == Some(&Dim::Tokens);
    let is_batch = |axis: usize| axis + 1 < dims.len() && dims[axis] == one && behind_tokens(axis);
    (lead..dims.len()).filter(|&axis| !is_batch(axis)).collect()
}

/// The shape in the IR of an ONNX shape.
pub(super) fn ir_shape(dims: &[Dim]) -> Result<Shape, String> {
    let dims: Vec<Dim> = kept_axes(dims).into_iter().map(|axis| dims[axis]).collect();
    if dims.len() > Shape::MAX_RANK {
        return Err(format!("a value has {} axes; {} are possible", dims.len(), Shape::MAX_RANK));
    }
    Ok(Shape::new(&dims))
}
