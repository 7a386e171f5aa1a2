//! Programs drawn at random, well typed, of every operation that is run: all engines must agree, and files must hold them.

use crate::chance::{Verdict, below, pick};
use crate::engines;
use crate::seal::AlignedBytes;
use snnc_ir::container::{self, File};
use snnc_ir::hadamard::HadamardSize;
use snnc_ir::membrane::{Membrane, Parameter};
use snnc_ir::op::{ArrayOp, DenseOp, Heads, Layout, LeafOp, LevelOp, Pairs, Scalar, SpikeOp};
use snnc_ir::random::SplitMix64;
use snnc_ir::ssa::Output;
use snnc_ir::{Binary, Builder, Code, Curve, Elem, Graph, Op, Shape, Ssa, Stage, Tensor, Type, Value, text, verify};
use std::sync::Arc;

/// Seeds of programs on which engines once differed.
const FALLEN: [u64; 4] = [0x1e5a_cb48_bf45_6e8a, 0x6e2b_3cb7_9584_3997, 0xd8ac_ab8d_ff61_b54d, 0xed2b_f064_ad40_3aaa];

/// Seeds of programs.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..4).chain(FALLEN).map(|seed: u64| seed.to_le_bytes().to_vec()).collect()
}

/// Another seed.
pub fn mutant(_: &[Vec<u8>], random: &mut SplitMix64) -> Vec<u8> {
    random.bits().to_le_bytes().to_vec()
}

/// Draws the program of a seed, writes and reads it, and runs it in all ways.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8]) -> Result<Verdict, String> {
    let mut seed = [0; 8];
    seed.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
    let Some(graph) = drawn(u64::from_le_bytes(seed)) else { return Ok(Verdict::Refused) };
    if verify::verify(&graph).is_err() {
        return Ok(Verdict::Refused);
    }
    let printed = text::print(&graph);
    let mut written = Vec::new();
    container::write(&File::new(graph.clone()), &mut written).map_err(|error| error.to_string())?;
    let read = container::read(Arc::new(AlignedBytes::new(&written)))
        .map_err(|errors| format!("a program that holds is refused in a file: {errors}\n{printed}"))?;
    if text::print(&read.graph) != printed {
        return Err(format!("the program is read as another one:\n{printed}"));
    }
    engines::agree(&graph).map_err(|found| format!("{found}\n{printed}"))
}

/// A program in the making.
struct Drawing {
    random: SplitMix64,
    builder: Builder,
    /// Values that further operations may take.
    pool: Vec<Value>,
    constants: usize,
}

/// The program of a seed; `None` where it came to nothing.
pub fn drawn(seed: u64) -> Option<Graph> {
    let mut random = SplitMix64(seed);
    let stage = *pick(&mut random, &[Stage::Tensor, Stage::Quantised, Stage::Spiking, Stage::Spiking]);
    let context = *pick(&mut random, &[1, 4, 8, 64]);
    let mut drawing = Drawing { builder: Builder::new(stage, context), random, pool: Vec::new(), constants: 0 };
    drawing.start()?;
    for _ in 0..4 + below(&mut drawing.random, 24) {
        drawing.grow();
    }
    drawing.finish()
}

impl Drawing {
    fn size(&mut self) -> usize {
        *pick(&mut self.random, &[1, 2, 3, 4, 8, 12, 16, 17, 63, 64, 65])
    }

    /// Numbers that are mostly ordinary.
    fn real(&mut self) -> f32 {
        match below(&mut self.random, 40) {
            0 => *pick(&mut self.random, &[0.0, -0.0, 1e30, -1e30, 1e-30, f32::MAX, f32::MIN_POSITIVE]),
            _ => (below(&mut self.random, 65) as f32 - 32.0) / 16.0,
        }
    }

    fn constant(&mut self, tensor: Tensor) -> Value {
        self.constants += 1;
        let name = format!("c{}", self.constants);
        self.builder.weight(&name, Arc::new(tensor))
    }

    fn reals(&mut self, sizes: &[usize]) -> Value {
        let numbers = (0..sizes.iter().product()).map(|_| self.real()).collect();
        self.constant(Tensor::f32(sizes, numbers))
    }

    /// Numbers that are not negative.
    fn positive(&mut self, sizes: &[usize]) -> Value {
        let numbers = (0..sizes.iter().product()).map(|_| self.real().abs().min(1e6)).collect();
        self.constant(Tensor::f32(sizes, numbers))
    }

    /// A parameter of neurons, mostly within its range.
    fn within(&mut self, channels: usize, range: &Parameter) -> Value {
        let [start, least, most] = [range.start, range.least, range.most].map(|x| x as f32);
        let kind = below(&mut self.random, 20);
        let mut number = || match kind {
            0 => self.real(),
            _ => *pick(&mut self.random, &[start, least, most, (least + most) / 2.0]),
        };
        let numbers = (0..channels).map(|_| number()).collect();
        self.constant(Tensor::f32(&[channels], numbers))
    }

    fn start(&mut self) -> Option<()> {
        let (rows, width) = (*pick(&mut self.random, &[1, 5, 40]), self.size());
        let tokens = self.builder.add(Op::Leaf(LeafOp::Tokens), &[], "").ok()?;
        let table = self.reals(&[rows, width]);
        let embedded = self.builder.add(Op::Dense(DenseOp::Embed), &[tokens, table], "").ok()?;
        self.pool.push(embedded);
        if below(&mut self.random, 2) == 0 {
            let positions = self.builder.add(Op::Leaf(LeafOp::Positions), &[], "").ok()?;
            let table = self.reals(&[self.builder.graph().context as usize, width]);
            let embedded = self.builder.add(Op::Dense(DenseOp::Embed), &[positions, table], "").ok()?;
            self.pool.push(embedded);
        }
        Some(())
    }

    /// A value of the pool whose type fits, the latest more often.
    fn operand(&mut self, fits: impl Fn(Type) -> bool) -> Option<Value> {
        let found: Vec<Value> = self.pool.iter().copied().filter(|&value| fits(self.builder.ty(value))).collect();
        let last = found.len().saturating_sub(4);
        match below(&mut self.random, 3) {
            _ if found.is_empty() => None,
            0 => Some(*pick(&mut self.random, &found)),
            _ => Some(*pick(&mut self.random, &found[last..])),
        }
    }

    fn width(&self, value: Value) -> usize {
        self.builder.ty(value).shape().row_width().unwrap_or(0)
    }

    /// Adds an operation, if one that was drawn fits something.
    fn grow(&mut self) {
        let stage = self.builder.graph().stage;
        let made = match (stage, below(&mut self.random, 8)) {
            (Stage::Tensor, 0..=5) => self.dense(),
            (Stage::Quantised, 0..=2) => self.levels(),
            (Stage::Spiking, 0..=2) => self.spikes(),
            (Stage::Quantised | Stage::Spiking, 3) => self.attention(),
            _ => self.reals_of_reals(),
        };
        self.pool.extend(made.filter(|&value| self.width(value) <= 256));
    }

    fn add(&mut self, op: impl Into<Op>, args: &[Value]) -> Option<Value> {
        self.builder.add(op, args, "").ok()
    }

    fn reals_of_reals(&mut self) -> Option<Value> {
        let x = self.operand(is_real)?;
        let d = self.width(x);
        match below(&mut self.random, 13) {
            0 | 1 => {
                let ty = self.builder.ty(x);
                let y = self.operand(|other| other == ty)?;
                self.add(ArrayOp::Binary(Binary::Add), &[x, y])
            }
            2 => {
                let peak = self.add(LevelOp::RowMaxAbs { heads: 1 }, &[x])?;
                let kind = *pick(&mut self.random, &[Binary::Mul, Binary::Div]);
                self.add(ArrayOp::Binary(kind), &[x, peak])
            }
            3 => {
                let (eps, heads) = (*pick(&mut self.random, &[1e-5, 0.0, 1.0]), *pick(&mut self.random, &[1, 1, 2, 4]));
                self.add(DenseOp::RmsNorm { eps: Scalar::new(eps), heads }, &[x])
            }
            4 => {
                let y = self
                    .operand(|ty| matches!(ty, Type::Tensor { elem: Elem::F32 | Elem::I32 | Elem::Level(..), .. }))?;
                let d = self.width(y);
                let [gain, offset] = [self.reals(&[d]), self.reals(&[d])];
                self.add(LevelOp::ScaleShift, &[y, gain, offset])
            }
            5 => {
                let count = self.size();
                let channels = (0..count).map(|_| below(&mut self.random, d) as i32).collect();
                let channels = self.constant(Tensor::i32(&[count], channels));
                self.add(LevelOp::GatherChannels, &[x, channels])
            }
            6 => {
                let heads = *pick(&mut self.random, &[1, 2, 4]);
                let m = self.size();
                let map = self.reals(&[heads, d / heads, m]);
                self.add(LevelOp::HeadLinear, &[x, map])
            }
            7 => self.add(DenseOp::Centre, &[x]),
            8 => self.rotary(x),
            9 => self.gated(x),
            10 => self.hadamard(x),
            11 => self.at_start(x),
            _ => self.linear(x),
        }
    }

    /// Some of each head's channels, turned by a table of positions.
    fn rotary(&mut self, x: Value) -> Option<Value> {
        let heads = *pick(&mut self.random, &[1, 2, 4]);
        let pairs = self.width(x) / heads / 2;
        let turned = 2 * below(&mut self.random, pairs.max(1)) + 2;
        let positions = self.add(LeafOp::Positions, &[])?;
        let table = self.reals(&[self.builder.graph().context as usize, turned]);
        let turns = self.add(DenseOp::Embed, &[positions, table])?;
        let pairs = *pick(&mut self.random, &Pairs::ALL);
        self.add(DenseOp::Rotary { heads: heads as u32, pairs }, &[x, turns])
    }

    /// Blocks that divide the width, where some do.
    fn hadamard(&mut self, x: Value) -> Option<Value> {
        let d = self.width(x);
        let orders = [1, 12, 20].into_iter().filter(|&order| d.is_multiple_of(order as usize));
        let sizes: Vec<HadamardSize> = orders
            .flat_map(|order| {
                (0..=(d / order as usize).trailing_zeros()).map(move |power| HadamardSize { order, power })
            })
            .filter(|size| size.is_sound())
            .collect();
        let size = if sizes.is_empty() { return None } else { *pick(&mut self.random, &sizes) };
        self.add(DenseOp::Hadamard(size), &[x])
    }

    /// Rows of their own where a sequence begins with small ids.
    fn at_start(&mut self, x: Value) -> Option<Value> {
        let opening = self.add(LeafOp::Opening, &[])?;
        let width = self.width(x);
        let rows = self.reals(&[2, width]);
        let first = below(&mut self.random, 4) as i32;
        let starts = vec![first, -1, first, below(&mut self.random, 4) as i32];
        let starts = self.constant(Tensor::i32(&[2, 2], starts));
        self.add(DenseOp::AtStart, &[x, opening, starts, rows])
    }

    fn gated(&mut self, x: Value) -> Option<Value> {
        let ty = self.builder.ty(x);
        let up = self.operand(|other| other == ty)?;
        let curve = *pick(&mut self.random, &Curve::ALL);
        self.add(DenseOp::Gated(curve), &[x, up])
    }

    fn linear(&mut self, x: Value) -> Option<Value> {
        let m = self.size();
        self.linear_to(x, m)
    }

    fn linear_to(&mut self, x: Value, m: usize) -> Option<Value> {
        let d = self.width(x);
        let layout = *pick(&mut self.random, &[Layout::InputMajor, Layout::OutputMajor]);
        let sizes = if layout == Layout::InputMajor { [d, m] } else { [m, d] };
        let [weight, bias] = [self.reals(&sizes), self.reals(&[m])];
        self.add(DenseOp::Linear(layout), &[x, weight, bias])
    }

    /// Heads, perhaps in groups, perhaps with a window or ALiBi.
    fn heads(&mut self, windows: bool) -> Heads {
        let query = *pick(&mut self.random, &[1, 2, 4]);
        let group: u32 = *pick(&mut self.random, &[1, 1, 2, 4]);
        let window = (windows && below(&mut self.random, 3) == 0).then(|| *pick(&mut self.random, &[1, 2, 5, 100]));
        let alibi = windows && below(&mut self.random, 3) == 0;
        Heads { window, alibi, kv: (query / group).max(1), ..Heads::equal(query) }
    }

    /// A row as wide as the keys of these heads, for queries that are as wide as `x`: `x` itself, or a projection of it.
    fn for_keys(&mut self, x: Value, heads: Heads) -> Option<Value> {
        let d = self.width(x);
        match (heads.kv == heads.query, d % heads.query as usize) {
            (true, _) => Some(x),
            (false, 0) => self.linear_to(x, d / heads.group()),
            (false, _) => None,
        }
    }

    fn dense(&mut self) -> Option<Value> {
        let x = self.operand(is_real)?;
        let d = self.width(x);
        match below(&mut self.random, 4) {
            0 => {
                let curve = *pick(&mut self.random, &Curve::ALL);
                self.add(DenseOp::Curve(curve), &[x])
            }
            1 => self.linear(x),
            2 => {
                let [gain, bias] = [self.reals(&[d]), self.reals(&[d])];
                self.add(LevelOp::ScaleShift, &[x, gain, bias])
            }
            _ => {
                let ty = self.builder.ty(x);
                let k = self.operand(|other| other == ty)?;
                let v = self.operand(|other| other == ty)?;
                let (heads, scale) = (self.heads(true), self.real());
                let (k, v) = (self.for_keys(k, heads)?, self.for_keys(v, heads)?);
                let mut args = vec![x, k, v];
                args.extend(heads.alibi.then(|| self.positive(&[heads.query as usize])));
                self.add(DenseOp::Attention { heads, scale: Scalar::new(scale) }, &args)
            }
        }
    }

    fn code(&mut self) -> (Code, u16) {
        match below(&mut self.random, 3) {
            0 => (Code::Unary, *pick(&mut self.random, &[1, 2, 5, 16, 33, 200])),
            _ => (Code::Binary, *pick(&mut self.random, &[1, 2, 4, 7, 8, 12, 16])),
        }
    }

    /// Constants of neurons: with a curve, those before it too.
    fn neuron(&mut self, x: Value, curve: Curve, features: bool) -> Vec<Value> {
        let d = self.width(x);
        let count = if curve == Curve::Identity { 2 } else { 4 };
        let constants = (0..count).map(|i| if features && i >= 2 { self.positive(&[d]) } else { self.reals(&[d]) });
        std::iter::once(x).chain(constants.collect::<Vec<_>>()).collect()
    }

    /// A layer that integrates, then fires, as levels or as spikes.
    fn fire(&mut self, x: Value, (code, steps): (Code, u16), curve: Curve, features: bool) -> Option<Value> {
        let args = self.neuron(x, curve, features);
        match self.builder.graph().stage {
            Stage::Spiking => self.add(SpikeOp::Fire { code, steps, curve }, &args),
            Stage::Imported | Stage::Tensor | Stage::Quantised | Stage::Training => {
                self.add(LevelOp::Quant { code, steps, curve }, &args)
            }
        }
    }

    /// Neurons with a multiplicative input.
    fn gated_fire(&mut self) -> Option<Value> {
        let potential = |ty: Type| matches!(ty, Type::Tensor { elem: Elem::F32 | Elem::I32, .. }) && rows(ty);
        let gate = self.operand(potential)?;
        let d = self.width(gate);
        let up = self.operand(|ty| potential(ty) && ty.shape().row_width() == Some(d))?;
        let ((code, steps), curve) = (self.code(), *pick(&mut self.random, &Curve::ALL));
        let constants = [(); 4].map(|()| self.reals(&[d]));
        let args = [&[gate, up], &constants[..]].concat();
        match self.builder.graph().stage {
            Stage::Spiking => self.add(SpikeOp::GatedFire { code, steps, curve }, &args),
            Stage::Imported | Stage::Tensor | Stage::Quantised | Stage::Training => {
                self.add(LevelOp::GatedQuant { code, steps, curve }, &args)
            }
        }
    }

    fn levels(&mut self) -> Option<Value> {
        if below(&mut self.random, 4) == 0 {
            return self.gated_fire();
        }
        if below(&mut self.random, 2) == 0 {
            let x = self.operand(|ty| matches!(ty, Type::Tensor { elem: Elem::F32 | Elem::I32, .. }) && rows(ty))?;
            let (code, curve) = (self.code(), *pick(&mut self.random, &Curve::ALL));
            return self.fire(x, code, curve, false);
        }
        let x = self.operand(|ty| matches!(ty, Type::Tensor { elem: Elem::Level(..), .. }))?;
        let weight = self.bytes(x);
        self.add(LevelOp::MatMulInt, &[x, weight])
    }

    /// 8-bit weights of a projection.
    fn bytes(&mut self, x: Value) -> Value {
        let (d, m) = (self.width(x), self.size());
        let most = *pick(&mut self.random, &[1, 7, 127]);
        let weights = (0..d * m).map(|_| (below(&mut self.random, 2 * most + 1) as i32 - most as i32) as i8).collect();
        if below(&mut self.random, 4) > 0 {
            return self.constant(Tensor::i8(&[d, m], weights));
        }
        let group = *pick(&mut self.random, &[8, 16, 24, 32]);
        let levels: Vec<i8> = (0..d * m).map(|_| below(&mut self.random, 16) as i8 - 8).collect();
        let multipliers = d.div_ceil(usize::from(group)) * m;
        let multipliers: Vec<i8> =
            (0..multipliers).map(|_| (below(&mut self.random, 255) as i16 - 127) as i8).collect();
        self.constant(Tensor::i4([d, m], group, &levels, &multipliers))
    }

    fn spikes(&mut self) -> Option<Value> {
        let train = |ty: Type| matches!(ty, Type::Train { .. });
        match below(&mut self.random, 6) {
            5 => self.gated_fire(),
            0 => {
                let x =
                    self.operand(|ty| matches!(ty, Type::Tensor { elem: Elem::F32 | Elem::I32, .. }) && rows(ty))?;
                let (code, curve) = (self.code(), *pick(&mut self.random, &Curve::ALL));
                self.fire(x, code, curve, false)
            }
            1 => {
                let x = self.operand(|ty| rows(ty) && ty.levels().is_none())?;
                let steps = match self.builder.ty(x) {
                    Type::Train { steps, .. } => steps,
                    Type::Tensor { .. } => *pick(&mut self.random, &[1, 3, 8, 40]),
                };
                let membrane = *pick(&mut self.random, &Membrane::all().collect::<Vec<Membrane>>());
                let curve = *pick(&mut self.random, &[Curve::Identity, Curve::Relu]);
                let d = self.width(x);
                let mut args = vec![x, self.reals(&[d]), self.reals(&[d])];
                args.extend(membrane.rule().parameters.iter().map(|range| self.within(d, range)));
                self.add(SpikeOp::Integrate { membrane, steps, curve }, &args)
            }
            2 | 3 => {
                let x = self.operand(|ty| train(ty) && ty.levels().is_some())?;
                let weight = self.bytes(x);
                self.add(SpikeOp::Synapse, &[x, weight])
            }
            _ => {
                let x = self.operand(train)?;
                self.add(SpikeOp::Decode, &[x])
            }
        }
    }

    fn attention(&mut self) -> Option<Value> {
        let x = self.operand(is_real)?;
        let variant = match below(&mut self.random, 6) {
            0 | 1 => Ssa::Ttfs { phases: *pick(&mut self.random, &[1, 4, 64]) },
            2 => Ssa::TopK { phases: 4, keys: *pick(&mut self.random, &[1, 2, 100]) },
            3 => Ssa::Coincidence { squared: below(&mut self.random, 2) == 0 },
            4 => Ssa::Linear { guard: *pick(&mut self.random, &[0, 4, 16]) },
            _ => Ssa::Lif { output: *pick(&mut self.random, &[Output::Mean, Output::Spikes]) },
        };
        let (code, curve) = match variant {
            Ssa::Ttfs { .. } | Ssa::TopK { .. } => (self.code(), Curve::Identity),
            Ssa::Linear { .. } => (self.code(), Curve::Relu),
            Ssa::Coincidence { .. } | Ssa::Lif { .. } => {
                ((Code::Unary, *pick(&mut self.random, &[1, 4, 9])), Curve::Relu)
            }
        };
        let features = variant.has_features();
        let thresholds = !features && below(&mut self.random, 3) == 0;
        let heads = Heads { thresholds, ..self.heads(!features) };
        let shared = self.for_keys(x, heads)?;
        let q = self.fire(x, code, curve, features)?;
        let k = self.fire(shared, code, curve, features)?;
        let v = self.fire(shared, code, Curve::Identity, false)?;
        let slope = self.positive(&[heads.query as usize]);
        let mut args = vec![q, k, v];
        if thresholds {
            for (x, heads) in [(x, heads.query), (shared, heads.kv), (shared, heads.kv)] {
                args.push(self.add(LevelOp::RowMaxAbs { heads }, &[x])?);
            }
        }
        args.push(slope);
        args.extend(heads.alibi.then(|| self.positive(&[heads.query as usize])));
        if features {
            let halves = (0..heads.kv).map(|_| *pick(&mut self.random, &[0, 1, 2, 64])).collect();
            args.push(self.constant(Tensor::i32(&[heads.kv as usize], halves)));
        }
        if variant == (Ssa::Lif { output: Output::Spikes }) {
            let d = self.width(q);
            args.push(self.positive(&[d]));
        }
        self.add(LevelOp::Ssa { heads, variant }, &args)
    }

    /// The graph of the latest value that may leave a program, and of some others.
    fn finish(mut self) -> Option<Graph> {
        let mut outputs = Vec::new();
        for i in (0..self.pool.len()).rev() {
            let value = self.pool[i];
            let value = match self.builder.ty(value) {
                Type::Train { .. } => self.add(SpikeOp::Decode, &[value])?,
                Type::Tensor { .. } => value,
            };
            let known = outputs.iter().any(|(_, other)| *other == value);
            if !known && (outputs.is_empty() || below(&mut self.random, 6) == 0) {
                outputs.push((format!("y{}", outputs.len()), value));
            }
        }
        (!outputs.is_empty()).then(|| self.builder.finish(outputs))
    }
}

fn rows(ty: Type) -> bool {
    ty.shape().row_width().is_some()
}

fn is_real(ty: Type) -> bool {
    rows(ty) && ty == Type::tensor(Elem::F32, Shape::rows(ty.shape().row_width().unwrap_or(0)))
}
