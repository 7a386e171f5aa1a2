//! The type of every operation's result, from its operands' types; or a sentence that says which operand does not fit.

use crate::curve::Curve;
use crate::membrane::Membrane;
use crate::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp};
use crate::op::{Layout, Op};
use crate::ssa::{GUARD_MAX, Output, Ssa};
use crate::types::{Carrier, Code, Dim, Elem, Shape, Type};

/// The result's type. Errors name what was expected and what was found.
pub fn infer(op: &Op, args: &[Type]) -> Result<Type, String> {
    let want = arity(op);
    if args.len() != want {
        return Err(format!("it takes {want} operands, here are {}", args.len()));
    }
    let f32_of = |shape| Type::tensor(Elem::F32, shape);
    match *op {
        Op::Leaf(LeafOp::Tokens) | Op::Leaf(LeafOp::Positions) => {
            Ok(Type::tensor(Elem::I32, Shape::new(&[Dim::Tokens])))
        }
        Op::Leaf(LeafOp::Weight(_)) => Err("a constant's type is its tensor's".into()),
        Op::Array(ArrayOp::Unary(_)) => f32_shape(args, 0).map(f32_of),
        Op::Array(ArrayOp::Binary(_)) => broadcast(f32_shape(args, 0)?, f32_shape(args, 1)?).map(f32_of),
        Op::Array(ArrayOp::CausalMask { .. }) => Ok(f32_of(Shape::new(&[Dim::Tokens, Dim::Tokens]))),
        Op::Array(ArrayOp::Where) => {
            let values = broadcast(f32_shape(args, 1)?, f32_shape(args, 2)?)?;
            broadcast(f32_shape(args, 0)?, values).map(f32_of)
        }
        Op::Array(ArrayOp::MatMul) => matmul(f32_shape(args, 0)?, f32_shape(args, 1)?).map(f32_of),
        Op::Array(ArrayOp::Transpose(perm)) => {
            let shape = f32_shape(args, 0)?;
            if perm.axes().len() != shape.rank() {
                return Err(format!("the order {:?} does not fit shape {shape}", perm.axes()));
            }
            let dims: Vec<Dim> = perm.axes().iter().map(|&axis| shape.dims()[usize::from(axis)]).collect();
            Ok(f32_of(Shape::new(&dims)))
        }
        Op::Array(ArrayOp::Reshape(to)) => {
            let from = f32_shape(args, 0)?;
            if volume(from) != volume(to) {
                return Err(format!("{from} and {to} differ in their number of elements"));
            }
            Ok(f32_of(to))
        }
        Op::Array(ArrayOp::Slice { axis, start, len }) => slice(f32_shape(args, 0)?, axis, start, len).map(f32_of),
        Op::Array(ArrayOp::Mean) => {
            let shape = f32_shape(args, 0)?;
            let mut dims = shape.dims().to_vec();
            *dims.last_mut().ok_or("a scalar has no innermost axis")? = Dim::Fixed(1);
            Ok(f32_of(Shape::new(&dims)))
        }
        Op::Array(ArrayOp::Softmax) => {
            let shape = f32_shape(args, 0)?;
            if shape.rank() == 0 {
                return Err("a scalar has no innermost axis".into());
            }
            Ok(f32_of(shape))
        }
        Op::Array(ArrayOp::SplitHeads { heads }) => {
            let d = row_width(f32_shape(args, 0)?)?;
            divides(heads, d)?;
            Ok(f32_of(Shape::new(&[Dim::Fixed(heads), Dim::Tokens, Dim::Fixed(d as u32 / heads)])))
        }
        Op::Array(ArrayOp::MergeHeads) => match f32_shape(args, 0)?.dims() {
            [Dim::Fixed(heads), Dim::Tokens, Dim::Fixed(w)] => Ok(f32_of(Shape::rows(*heads as usize * *w as usize))),
            _ => Err(format!("[heads,tokens,width] was expected, here is {}", args[0])),
        },
        Op::Dense(DenseOp::Embed) => match (args[0], args[1].elem(), args[1].shape().dims()) {
            (
                Type::Tensor { elem: Elem::I32, shape },
                Some(elem @ (Elem::F32 | Elem::I8)),
                [Dim::Fixed(a), Dim::Fixed(b)],
            ) if shape == Shape::new(&[Dim::Tokens]) => {
                // Columns of a weight, rows of a table.
                let integers = elem == Elem::I8;
                let shape = Shape::rows(*if integers { a } else { b } as usize);
                Ok(if integers { Type::tensor(Elem::I32, shape) } else { f32_of(shape) })
            }
            _ => Err(format!("i32[tokens] and a table were expected, here are {} and {}", args[0], args[1])),
        },
        Op::Dense(DenseOp::LayerNorm { .. }) => {
            let shape = f32_shape(args, 0)?;
            let width = shape.width().ok_or_else(|| format!("{shape} has no fixed innermost size"))?;
            per_channel(args, 1, width)?;
            per_channel(args, 2, width)?;
            Ok(f32_of(shape))
        }
        Op::Dense(DenseOp::LayerNormNoGain { .. }) => {
            row_width(f32_shape(args, 0)?)?;
            Ok(args[0])
        }
        Op::Dense(DenseOp::Linear(layout)) => {
            let d = row_width(f32_shape(args, 0)?)?;
            let (rows, columns) = matrix(f32_shape(args, 1)?)?;
            let (inputs, outputs) = match layout {
                Layout::InputMajor => (rows, columns),
                Layout::OutputMajor => (columns, rows),
            };
            if inputs != d {
                return Err(format!("the weight takes {inputs} inputs, the value has {d}"));
            }
            per_channel(args, 2, outputs)?;
            Ok(f32_of(Shape::rows(outputs)))
        }
        Op::Dense(DenseOp::Curve(_)) => {
            row_width(f32_shape(args, 0)?)?;
            Ok(args[0])
        }
        Op::Dense(DenseOp::Attention { heads, .. }) => {
            let d = row_width(f32_shape(args, 0)?)?;
            same(args, 1)?;
            same(args, 2)?;
            divides(heads, d)?;
            Ok(args[0])
        }
        Op::Level(LevelOp::Quant { code, steps, curve }) => {
            let d = neuron(args, curve, code.max_steps(), steps)?;
            Ok(Type::tensor(Elem::Level(code, steps), Shape::rows(d)))
        }
        Op::Spike(SpikeOp::Fire { code, steps, curve }) => {
            let d = neuron(args, curve, code.max_steps(), steps)?;
            Ok(Type::Train { carrier: Carrier::Spike, code, steps, shape: Shape::rows(d) })
        }
        Op::Spike(SpikeOp::Integrate { steps, curve, .. }) => {
            let code = Code::Unary;
            if !Membrane::has(curve) {
                return Err(format!("a neuron that answers within the timestep has no curve `{}`", curve.name()));
            }
            if steps == 0 || steps > code.max_steps() {
                return Err(format!("1 to {} timesteps are possible, here are {steps}", code.max_steps()));
            }
            let shape = match args[0] {
                Type::Tensor { elem: Elem::F32 | Elem::I32, shape } => shape,
                Type::Train { carrier: Carrier::Current, code: Code::Unary, steps: own, shape } if own == steps => {
                    shape
                }
                other => {
                    return Err(format!(
                        "a potential, or a unary current of {steps} timesteps, was expected, here is {other}"
                    ));
                }
            };
            let d = row_width(shape)?;
            per_channel(args, 1, d)?;
            per_channel(args, 2, d)?;
            Ok(Type::Train { carrier: Carrier::Spike, code, steps, shape: Shape::rows(d) })
        }
        Op::Level(LevelOp::MatMulInt) => match args[0] {
            Type::Tensor { elem: Elem::Level(..), shape } => {
                let outputs = synapses(shape, args[1])?;
                Ok(Type::tensor(Elem::I32, Shape::rows(outputs)))
            }
            other => Err(format!("levels were expected, here is {other}")),
        },
        Op::Spike(SpikeOp::Synapse) => match args[0] {
            Type::Train { carrier: Carrier::Spike, code, steps, shape } => {
                let outputs = synapses(shape, args[1])?;
                Ok(Type::Train { carrier: Carrier::Current, code, steps, shape: Shape::rows(outputs) })
            }
            other => Err(format!("a spike train was expected, here is {other}")),
        },
        Op::Spike(SpikeOp::Decode) => match args[0] {
            Type::Train { carrier: Carrier::Spike, code, steps, shape } => {
                Ok(Type::tensor(Elem::Level(code, steps), shape))
            }
            Type::Train { carrier: Carrier::Current, shape, .. } => Ok(Type::tensor(Elem::I32, shape)),
            other => Err(format!("a train was expected, here is {other}")),
        },
        Op::Level(LevelOp::ScaleShift) => match args[0] {
            Type::Tensor { elem: Elem::F32 | Elem::I32 | Elem::Level(..), shape } => {
                let d = row_width(shape)?;
                per_channel(args, 1, d)?;
                per_channel(args, 2, d)?;
                Ok(f32_of(shape))
            }
            other => Err(format!("sums, levels or reals, [tokens,width], were expected, here is {other}")),
        },
        Op::Training(op) => crate::training::infer(op, args),
        Op::Level(LevelOp::RowMaxAbs) => {
            row_width(f32_shape(args, 0)?)?;
            Ok(f32_of(Shape::rows(1)))
        }
        Op::Level(LevelOp::GatherChannels) => {
            row_width(f32_shape(args, 0)?)?;
            match args[1] {
                Type::Tensor { elem: Elem::I32, shape } => match shape.dims() {
                    [Dim::Fixed(k)] => Ok(f32_of(Shape::rows(*k as usize))),
                    _ => Err(format!("channels, i32[k], were expected, here is {}", args[1])),
                },
                other => Err(format!("channels, i32[k], were expected, here is {other}")),
            }
        }
        Op::Level(LevelOp::HeadLinear) => {
            let d = row_width(f32_shape(args, 0)?)?;
            match f32_shape(args, 1)?.dims() {
                [Dim::Fixed(heads), Dim::Fixed(w), Dim::Fixed(m)] if *heads as usize * *w as usize == d => {
                    let width = (*heads as usize).checked_mul(*m as usize).filter(|&width| width <= i32::MAX as usize);
                    Ok(f32_of(Shape::rows(width.ok_or("its results are too wide")?)))
                }
                _ => {
                    Err(format!("maps of heads, f32[heads,width,m], of {d} inputs were expected, here is {}", args[1]))
                }
            }
        }
        Op::Level(LevelOp::Ssa { heads, variant }) => ssa(heads, variant, args),
    }
}

fn ssa(heads: u32, variant: Ssa, args: &[Type]) -> Result<Type, String> {
    for arg in &args[..3] {
        if arg.levels().is_none() || matches!(arg, Type::Train { .. }) != matches!(args[0], Type::Train { .. }) {
            return Err(format!("levels or spikes, all three, were expected, here is {arg}"));
        }
        let alone = variant.has_features() && arg == &args[2];
        if arg.shape() != args[0].shape() && !alone {
            let what = if variant.has_features() { "queries and keys" } else { "queries, keys and values" };
            return Err(format!("{what} of one shape were expected, here are {} and {arg}", args[0]));
        }
    }
    let d = row_width(args[2].shape())?;
    divides(heads, d)?;
    divides(heads, row_width(args[0].shape())?)?;
    match variant {
        Ssa::Ttfs { phases } | Ssa::TopK { phases, .. } => {
            if !(1..=64).contains(&phases) {
                return Err(format!("1 to 64 phases an octave are possible, here are {phases}"));
            }
            if let Ssa::TopK { keys: 0, .. } = variant {
                return Err("one key at least should fire".into());
            }
            per_channel(args, 3, heads as usize)?;
        }
        Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. } => {
            per_channel(args, 3, heads as usize)?;
            if args[4] != Type::tensor(Elem::I32, Shape::fixed(&[heads as usize])) {
                return Err(format!("operand 5 should be i32[{heads}], it is {}", args[4]));
            }
        }
    }
    match variant {
        Ssa::Coincidence { .. } | Ssa::Lif { .. } => {
            let code = |i: usize| args[i].levels();
            if !matches!(code(0), Some((Code::Unary, _))) || code(0) != code(1) {
                return Err(format!(
                    "unary features of equal length were expected, here are {} and {}",
                    args[0], args[1]
                ));
            }
            let Ssa::Lif { output: Output::Spikes } = variant else {
                return Ok(Type::tensor(Elem::F32, Shape::rows(d)));
            };
            if code(2) != code(0) {
                return Err(format!(
                    "values as long as the features were expected, here are {} and {}",
                    args[0], args[2]
                ));
            }
            per_channel(args, 5, d)?;
            let steps = code(0).map_or(1, |(_, steps)| steps);
            Ok(match args[0] {
                Type::Train { .. } => {
                    Type::Train { carrier: Carrier::Spike, code: Code::Unary, steps, shape: Shape::rows(d) }
                }
                Type::Tensor { .. } => Type::tensor(Elem::Level(Code::Unary, steps), Shape::rows(d)),
            })
        }
        Ssa::Linear { guard } if guard > GUARD_MAX => {
            Err(format!("at most {GUARD_MAX} guard bits are possible, here are {guard}"))
        }
        Ssa::Ttfs { .. } | Ssa::TopK { .. } | Ssa::Linear { .. } => Ok(Type::tensor(Elem::F32, Shape::rows(d))),
    }
}

/// How many operands an operation takes.
pub fn arity(op: &Op) -> usize {
    match op {
        Op::Leaf(LeafOp::Tokens)
        | Op::Leaf(LeafOp::Positions)
        | Op::Leaf(LeafOp::Weight(_))
        | Op::Array(ArrayOp::CausalMask { .. }) => 0,
        Op::Array(ArrayOp::Unary(_))
        | Op::Array(ArrayOp::Transpose(_))
        | Op::Array(ArrayOp::Reshape(_))
        | Op::Array(ArrayOp::Slice { .. })
        | Op::Array(ArrayOp::Mean)
        | Op::Array(ArrayOp::Softmax)
        | Op::Array(ArrayOp::SplitHeads { .. })
        | Op::Array(ArrayOp::MergeHeads)
        | Op::Dense(DenseOp::LayerNormNoGain { .. })
        | Op::Dense(DenseOp::Curve(_))
        | Op::Level(LevelOp::RowMaxAbs)
        | Op::Spike(SpikeOp::Decode) => 1,
        Op::Array(ArrayOp::Binary(_))
        | Op::Array(ArrayOp::MatMul)
        | Op::Dense(DenseOp::Embed)
        | Op::Level(LevelOp::MatMulInt)
        | Op::Spike(SpikeOp::Synapse)
        | Op::Level(LevelOp::GatherChannels)
        | Op::Level(LevelOp::HeadLinear) => 2,
        Op::Array(ArrayOp::Where)
        | Op::Dense(DenseOp::LayerNorm { .. })
        | Op::Dense(DenseOp::Linear(_))
        | Op::Dense(DenseOp::Attention { .. })
        | Op::Level(LevelOp::ScaleShift)
        | Op::Spike(SpikeOp::Integrate { .. }) => 3,
        Op::Level(LevelOp::Quant { curve, .. }) | Op::Spike(SpikeOp::Fire { curve, .. }) => {
            if *curve == Curve::Identity { 3 } else { 5 }
        }
        Op::Level(LevelOp::Ssa { variant, .. }) => variant.arity(),
        Op::Training(op) => op.arity(),
    }
}

fn f32_shape(args: &[Type], i: usize) -> Result<Shape, String> {
    match args[i] {
        Type::Tensor { elem: Elem::F32, shape } => Ok(shape),
        other => Err(format!("operand {} should be an f32 tensor, it is {other}", i + 1)),
    }
}

fn row_width(shape: Shape) -> Result<usize, String> {
    shape.row_width().ok_or_else(|| format!("[tokens,width] was expected, here is {shape}"))
}

fn matrix(shape: Shape) -> Result<(usize, usize), String> {
    match shape.dims() {
        [Dim::Fixed(rows), Dim::Fixed(columns)] => Ok((*rows as usize, *columns as usize)),
        _ => Err(format!("a matrix was expected, here is {shape}")),
    }
}

fn per_channel(args: &[Type], i: usize, width: usize) -> Result<(), String> {
    if f32_shape(args, i)? == Shape::fixed(&[width]) {
        return Ok(());
    }
    Err(format!("operand {} should be f32[{width}], it is {}", i + 1, args[i]))
}

fn same(args: &[Type], i: usize) -> Result<(), String> {
    if args[i] == args[0] {
        return Ok(());
    }
    Err(format!("operand {} should be {} like the first, it is {}", i + 1, args[0], args[i]))
}

fn divides(heads: u32, width: usize) -> Result<(), String> {
    if heads == 0 || !width.is_multiple_of(heads as usize) {
        return Err(format!("{heads} heads do not divide a width of {width}"));
    }
    Ok(())
}

fn neuron(args: &[Type], curve: Curve, max_steps: u16, steps: u16) -> Result<usize, String> {
    if steps == 0 || steps > max_steps {
        return Err(format!("1 to {max_steps} timesteps are possible, here are {steps}"));
    }
    let shape = match args[0] {
        Type::Tensor { elem: Elem::F32 | Elem::I32, shape } => shape,
        other => return Err(format!("a potential (f32 or i32 tensor) was expected, here is {other}")),
    };
    let d = row_width(shape)?;
    for i in 1..arity(&Op::Level(LevelOp::Quant { code: crate::types::Code::Binary, steps, curve })) {
        per_channel(args, i, d)?;
    }
    Ok(d)
}

fn synapses(shape: Shape, weight: Type) -> Result<usize, String> {
    let d = row_width(shape)?;
    match weight {
        Type::Tensor { elem: Elem::I8, shape } => match matrix(shape)? {
            (inputs, outputs) if inputs == d => Ok(outputs),
            (inputs, _) => Err(format!("the weight takes {inputs} inputs, the value has {d}")),
        },
        other => Err(format!("an i8 weight was expected, here is {other}")),
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

fn matmul(a: Shape, b: Shape) -> Result<Shape, String> {
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

fn slice(shape: Shape, axis: u8, start: u32, len: u32) -> Result<Shape, String> {
    let mut dims = shape.dims().to_vec();
    match dims.get_mut(usize::from(axis)) {
        Some(Dim::Fixed(n)) if start.checked_add(len).is_some_and(|end| end <= *n) => *n = len,
        _ => return Err(format!("{start}+{len} on axis {axis} is outside {shape}")),
    }
    Ok(Shape::new(&dims))
}

/// Number of elements as a product of fixed sizes and powers of the symbolic ones.
fn volume(shape: Shape) -> (u128, u32, u32) {
    shape.dims().iter().fold((1, 0, 0), |(fixed, tokens, context), dim| match dim {
        Dim::Fixed(n) => (fixed * u128::from(*n), tokens, context),
        Dim::Tokens => (fixed, tokens + 1, context),
        Dim::Context => (fixed, tokens, context + 1),
    })
}
