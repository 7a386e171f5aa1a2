//! What inference of types asks of operands, with the sentences that say which one does not fit.

use crate::curve::Curve;
use crate::types::{Dim, Elem, Shape, Type};

pub(super) fn f32_of(shape: Shape) -> Type {
    Type::tensor(Elem::F32, shape)
}

pub(super) fn f32_shape(args: &[Type], i: usize) -> Result<Shape, String> {
    match args[i] {
        Type::Tensor { elem: Elem::F32, shape } => Ok(shape),
        other => Err(format!("operand {} should be an f32 tensor, it is {other}", i + 1)),
    }
}

pub(super) fn row_width(shape: Shape) -> Result<usize, String> {
    shape.row_width().ok_or_else(|| format!("[tokens,width] was expected, here is {shape}"))
}

pub(super) fn matrix(shape: Shape) -> Result<(usize, usize), String> {
    match shape.dims() {
        [Dim::Fixed(rows), Dim::Fixed(columns)] => Ok((*rows as usize, *columns as usize)),
        _ => Err(format!("a matrix was expected, here is {shape}")),
    }
}

pub(super) fn per_channel(args: &[Type], i: usize, width: usize) -> Result<(), String> {
    if f32_shape(args, i)? == Shape::fixed(&[width]) {
        return Ok(());
    }
    Err(format!("operand {} should be f32[{width}], it is {}", i + 1, args[i]))
}

pub(super) fn same(args: &[Type], i: usize) -> Result<(), String> {
    if args[i] == args[0] {
        return Ok(());
    }
    Err(format!("operand {} should be {} like the first, it is {}", i + 1, args[0], args[i]))
}

pub(super) fn divides(heads: u32, width: usize) -> Result<(), String> {
    if heads == 0 || !width.is_multiple_of(heads as usize) {
        return Err(format!("{heads} heads do not divide a width of {width}"));
    }
    Ok(())
}

/// Operands of a neuron that integrates, then fires: without a curve `(x, gain, offset)`, with one two more before them.
pub(super) fn neuron_arity(curve: Curve) -> usize {
    if curve == Curve::Identity { 3 } else { 5 }
}

pub(super) fn neuron(args: &[Type], curve: Curve, max_steps: u16, steps: u16) -> Result<usize, String> {
    if steps == 0 || steps > max_steps {
        return Err(format!("1 to {max_steps} timesteps are possible, here are {steps}"));
    }
    let shape = match args[0] {
        Type::Tensor { elem: Elem::F32 | Elem::I32, shape } => shape,
        other => return Err(format!("a potential (f32 or i32 tensor) was expected, here is {other}")),
    };
    let d = row_width(shape)?;
    for i in 1..neuron_arity(curve) {
        per_channel(args, i, d)?;
    }
    Ok(d)
}

/// Width of neurons with a multiplicative input, `(gate, up, four constants per channel)`.
pub(super) fn gated_neuron(args: &[Type], max_steps: u16, steps: u16) -> Result<usize, String> {
    if steps == 0 || steps > max_steps {
        return Err(format!("1 to {max_steps} timesteps are possible, here are {steps}"));
    }
    let mut widths = [0; 2];
    for (width, arg) in widths.iter_mut().zip(args) {
        *width = match *arg {
            Type::Tensor { elem: Elem::F32 | Elem::I32, shape } => row_width(shape)?,
            other => return Err(format!("a potential (f32 or i32 tensor) was expected, here is {other}")),
        };
    }
    if widths[0] != widths[1] {
        return Err(format!("a gate and what it multiplies should be as wide, here are {} and {}", args[0], args[1]));
    }
    (2..args.len()).try_for_each(|i| per_channel(args, i, widths[0]))?;
    Ok(widths[0])
}

pub(super) fn synapses(shape: Shape, weight: Type) -> Result<usize, String> {
    let d = row_width(shape)?;
    match weight {
        Type::Tensor { elem: Elem::I8 | Elem::I4(_), shape } => match matrix(shape)? {
            (inputs, outputs) if inputs == d => Ok(outputs),
            (inputs, _) => Err(format!("the weight takes {inputs} inputs, the value has {d}")),
        },
        other => Err(format!("an i8 or i4 weight was expected, here is {other}")),
    }
}

/// NumPy's rule: align at the innermost size; sizes are equal, or one of them is 1 or missing.
pub fn broadcast(a: Shape, b: Shape) -> Result<Shape, String> {
    let rank = a.rank().max(b.rank());
    let at = |shape: &Shape, i: usize| {
        let missing = rank - shape.rank();
        if i < missing { Dim::Fixed(1) } else { shape.dims()[i - missing] }
    };
    let dims = (0..rank)
        .map(|i| match (at(&a, i), at(&b, i)) {
            (x, y) if x == y => Ok(x),
            (Dim::Fixed(1), y) => Ok(y),
            (x, Dim::Fixed(1)) => Ok(x),
            _ => Err(format!("{a} and {b} do not broadcast")),
        })
        .collect::<Result<Vec<Dim>, String>>()?;
    Ok(Shape::new(&dims))
}

pub(super) fn matmul(a: Shape, b: Shape) -> Result<Shape, String> {
    let split = |shape: &Shape| {
        let dims = shape.dims();
        let inner = dims.len().checked_sub(2)?;
        Some((Shape::new(&dims[..inner]), dims[inner], dims[inner + 1]))
    };
    let (Some((lead_a, n, k)), Some((lead_b, k2, m))) = (split(&a), split(&b)) else {
        return Err(format!("matrices were expected, here are {a} and {b}"));
    };
    if k != k2 {
        return Err(format!("the inner sizes of {a} and {b} differ"));
    }
    let mut dims = broadcast(lead_a, lead_b)?.dims().to_vec();
    dims.extend([n, m]);
    if dims.len() > Shape::MAX_RANK {
        return Err("shapes have at most five sizes".into());
    }
    Ok(Shape::new(&dims))
}

pub(super) fn slice(shape: Shape, axis: u8, start: u32, len: u32) -> Result<Shape, String> {
    let mut dims = shape.dims().to_vec();
    match dims.get_mut(usize::from(axis)) {
        Some(Dim::Fixed(n)) if start.checked_add(len).is_some_and(|end| end <= *n) => *n = len,
        _ => return Err(format!("{start}+{len} on axis {axis} is outside {shape}")),
    }
    Ok(Shape::new(&dims))
}

pub(super) fn concat(a: Shape, b: Shape, axis: u8) -> Result<Shape, String> {
    let mut dims = a.dims().to_vec();
    let (at, others) = (usize::from(axis), b.dims());
    let alike = |i: usize| i == at || others.get(i) == dims.get(i);
    match (dims.get(at), others.get(at)) {
        (Some(Dim::Fixed(x)), Some(Dim::Fixed(y))) if a.rank() == b.rank() && (0..a.rank()).all(alike) => {
            dims[at] = Dim::Fixed(x.checked_add(*y).ok_or_else(|| format!("{a} and {b} are too long together"))?);
            Ok(Shape::new(&dims))
        }
        _ => Err(format!("{a} and {b} do not lie side by side on axis {axis}")),
    }
}

/// Number of elements as a product of fixed sizes and powers of the symbolic ones.
pub(super) fn volume(shape: Shape) -> Result<(u128, u32, u32), String> {
    shape.dims().iter().try_fold((1u128, 0, 0), |(fixed, tokens, context), dim| match dim {
        Dim::Fixed(n) => match fixed.checked_mul(u128::from(*n)) {
            Some(fixed) => Ok((fixed, tokens, context)),
            None => Err(format!("{shape} has more elements than can be counted")),
        },
        Dim::Tokens => Ok((fixed, tokens + 1, context)),
        Dim::Context => Ok((fixed, tokens, context + 1)),
    })
}
