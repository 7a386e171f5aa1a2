//! The count of one operation: the arms that `docs/energy.md` describes.

use super::parts::Part;
use super::tally::{Form, Number, Operation, Seen, Sharing, Tally, Traffic};
use Operation::{
    Accumulate, AddF32, AddInt32, Address, CompareF32, CompareInt32, DivF32, GroupMul, MacF32, MacInt8, Message,
    MulF32, NeuronActive, NeuronAdd, NeuronCompare, NeuronIdle, NeuronMul, NeuronReset, PhaseMul, Shift, SqrtF32,
};
use Traffic::{Activations, Membranes, Potentials, Spikes, State, Tables, Weights};
use snnc_ir::curve::TABLE_LEN;
use snnc_ir::hadamard::HadamardSize;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{ArrayOp, DenseOp, Heads, LeafOp, LevelOp, SpikeOp};
use snnc_ir::ssa::Output;
use snnc_ir::ssa::meaning::phase_weights;
use snnc_ir::tensor::stored_bytes;
use snnc_ir::{Binary, Code, Curve, Elem, Op, Ssa, Type};

/// Bytes of a membrane, of an accumulator, of a number that stays f32.
const WORD: u64 = 4;

/// What an operation does, by the part it belongs to: `part`, but for attention, which has three.
pub(super) fn count(seen: &Seen<'_>, part: Part, form: Form, sharing: Sharing) -> Vec<(Part, Tally)> {
    let one = |tally| vec![(part, tally)];
    match seen.op {
        Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse) => one(synapse(seen, form, sharing)),
        Op::Dense(DenseOp::Linear(_)) => one(dense_product(seen, dense_of(form), sharing)),
        Op::Level(LevelOp::Quant { code, steps, curve }) | Op::Spike(SpikeOp::Fire { code, steps, curve }) => {
            one(neurons(seen, code, steps, curve, form))
        }
        Op::Level(LevelOp::GatedQuant { code, steps, curve })
        | Op::Spike(SpikeOp::GatedFire { code, steps, curve }) => one(gated_neurons(seen, code, steps, curve, form)),
        Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) => {
            one(time_stepped_neurons(seen, membrane, steps, curve, form))
        }
        Op::Level(LevelOp::Ssa { heads, variant }) => match (form, variant) {
            (Form::Dense(_), _) => dense_attention(seen, heads, form, sharing),
            (Form::Skipping, Ssa::Ttfs { .. } | Ssa::TopK { .. }) => skipping_attention(seen, heads, sharing),
            // The dense network has a softmax there, of which nothing is skipped.
            (Form::Skipping, Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. }) => {
                dense_attention(seen, heads, form, sharing)
            }
            (Form::Stepped | Form::Collapsed, Ssa::Ttfs { phases }) => {
                timed_attention(seen, heads, phases, form, sharing)
            }
            (Form::Stepped | Form::Collapsed, Ssa::TopK { phases, .. }) => {
                let mut parts = timed_attention(seen, heads, phases, form, sharing);
                // Winners are found by one more comparison a key.
                parts[1].1.add(CompareInt32, seen.own.keys * u64::from(heads.query));
                parts
            }
            (Form::Stepped | Form::Collapsed, Ssa::Coincidence { squared }) => {
                fading_attention(seen, heads, squared, false, form, sharing)
            }
            (Form::Stepped | Form::Collapsed, Ssa::Lif { output }) => {
                fading_attention(seen, heads, false, output == Output::Spikes, form, sharing)
            }
            (Form::Stepped | Form::Collapsed, Ssa::Linear { .. }) => linear_attention(seen, heads),
        },
        Op::Level(LevelOp::HeadLinear) => one(head_linear(seen, form, sharing)),
        Op::Dense(DenseOp::Attention { heads, .. }) => {
            dense_attention(seen, heads, Form::Dense(dense_of(form)), sharing)
        }
        // A norm's gain and bias are multiplied and added in every form.
        Op::Level(LevelOp::ScaleShift) if part == Part::Norm => one(elementwise(seen, &[(MulF32, 1), (AddF32, 1)])),
        Op::Level(LevelOp::ScaleShift) => one(affine(seen, form)),
        Op::Array(ArrayOp::Binary(Binary::Add)) => one(residual(seen, form)),
        Op::Array(ArrayOp::Binary(Binary::Mul)) => one(elementwise(seen, &[(MulF32, 1)])),
        Op::Array(ArrayOp::Binary(Binary::Div)) => one(elementwise(seen, &[(DivF32, 1)])),
        Op::Level(LevelOp::RowMaxAbs { .. }) => one(Tally::with(&[(CompareF32, seen.tokens * width(seen.args[0]))])),
        Op::Dense(DenseOp::Curve(_)) => one(curve(seen.numbers(), AddF32, MulF32, CompareF32)),
        Op::Dense(DenseOp::Gated(bend)) => {
            let mut tally = elementwise(seen, &[(MulF32, 1)]);
            if bend != Curve::Identity {
                tally += &curve(seen.numbers(), AddF32, MulF32, CompareF32);
            }
            one(tally)
        }
        Op::Dense(DenseOp::Centre) => one(centre(seen, form)),
        Op::Dense(DenseOp::RmsNorm { heads, .. }) => one(rms_norm(seen, heads.into(), form)),
        Op::Dense(DenseOp::Hadamard(size)) => one(hadamard(seen, size, form)),
        Op::Dense(DenseOp::Rotary { heads, .. }) => one(rotary(seen, heads.into())),
        Op::Dense(DenseOp::Embed) => one(embed(seen, form)),
        // A decoded train is its synapse's sum; channels that are picked and the row at a start are only moved.
        Op::Leaf(LeafOp::Tokens)
        | Op::Leaf(LeafOp::Positions | LeafOp::Opening | LeafOp::Stream(_))
        | Op::Leaf(LeafOp::Weight(_))
        | Op::Spike(SpikeOp::Decode)
        | Op::Dense(DenseOp::AtStart)
        | Op::Level(LevelOp::GatherChannels) => one(Tally::default()),
        // Such a program is raised before it is run, or runs in training only.
        Op::Array(_) | Op::Training(_) => one(Tally::default()),
    }
}

/// Heads of an attention on trains.
pub(super) fn heads(op: Op) -> u64 {
    if let Op::Level(LevelOp::Ssa { heads, .. }) = op { heads.query.into() } else { 0 }
}

impl Tally {
    fn with(operations: &[(Operation, u64)]) -> Self {
        let mut tally = Self::default();
        operations.iter().for_each(|&(operation, count)| tally.add(operation, count));
        tally
    }
}

impl Seen<'_> {
    /// Numbers of its result.
    fn numbers(&self) -> u64 {
        self.tokens * width(self.ty)
    }
}

fn width(ty: Type) -> u64 {
    ty.shape().width().unwrap_or(0) as u64
}

/// The dense form of what stays dense: a spiking network leaves it in f32.
fn dense_of(form: Form) -> Number {
    match form {
        Form::Dense(number) => number,
        Form::Skipping => Number::Int8,
        Form::Stepped | Form::Collapsed => Number::F32,
    }
}

/// Bits of a level: its magnitude and its sign.
fn level_bits(code: Code, steps: u16) -> u64 {
    u64::from(i32::BITS - code.levels(steps).leading_zeros()) + 1
}

/// Bits of a channel's address.
fn address_bits(channels: u64) -> u64 {
    u64::from(u64::BITS - channels.saturating_sub(1).leading_zeros())
}

/// Bytes by which one layer's spikes are handed on: planes with a sign latch, or a list of addresses with signs.
fn spike_bytes(neurons: u64, channels: u64, steps: u16, spikes: u64) -> u64 {
    (neurons * (u64::from(steps) + 1)).min(spikes * (address_bits(channels) + 1)).div_ceil(8)
}

/// Bytes of levels: all of them, or a list of those that are not 0.
fn level_bytes(neurons: u64, channels: u64, bits: u64, active: u64) -> u64 {
    (neurons * bits).min(active * (bits + address_bits(channels))).div_ceil(8)
}

/// `[inputs, outputs]` and elements of a weight matrix.
fn matrix(seen: &Seen<'_>) -> [u64; 3] {
    let sizes = seen.args[1].shape().sizes().unwrap_or_default();
    [width(seen.args[0]), width(seen.ty), sizes.iter().product::<usize>() as u64]
}

fn dense_product(seen: &Seen<'_>, number: Number, sharing: Sharing) -> Tally {
    if seen.split {
        return Tally::default();
    }
    let (n, [k, m, weights]) = (seen.tokens, matrix(seen));
    let bytes = number.bytes();
    let mut tally = Tally::with(&[(number.mac(), n * weights), (Address, n * (k + m))]);
    tally.moves(Weights, weights * bytes, sharing.passes(n) * weights * bytes);
    tally.moves(Activations, k * bytes, n * k * bytes);
    // Sums of 8-bit products have 32 bits.
    let sum = if number == Number::Int8 { WORD } else { bytes };
    tally.moves(Activations, m * sum, n * m * sum);
    if matches!(seen.op, Op::Dense(DenseOp::Linear(_))) {
        tally.add(AddF32, n * m);
    }
    tally
}

fn synapse(seen: &Seen<'_>, form: Form, sharing: Sharing) -> Tally {
    let (n, [k, m, weights]) = (seen.tokens, matrix(seen));
    let (spikes, active) = (seen.inputs[0].spikes, seen.inputs[0].active);
    let (code, steps) = seen.args[0].levels().unwrap_or((Code::Binary, 1));
    let passes = sharing.passes(n);
    let mut tally = Tally::default();
    let bytes = if form.is_spiking() { weight_bytes(seen, weights) } else { weights };
    let read = |rows: u64| (u128::from(rows) * u128::from(bytes)).div_ceil(u128::from(weights.max(1))) as u64;
    match form {
        Form::Dense(number) => return dense_product(seen, number, sharing),
        Form::Skipping => {
            tally.add(MacInt8, active * m);
            tally.add(Address, active * m);
            tally.moves(Weights, weights, (active * m).min(passes * weights));
            tally.moves(Activations, k, n * k);
            tally.moves(Activations, m * WORD, n * m * WORD);
        }
        Form::Stepped => {
            tally.add(Accumulate, spikes * m);
            tally.add(Shift, doublings(code, steps) * n * m);
            tally.add(Address, spikes * m);
            tally.add(Message, spikes);
            tally.moves(Weights, bytes, read((spikes * m).min(passes * u64::from(steps) * weights)));
            add_groups(&mut tally, seen, n * u64::from(steps) * m);
            tally.moves(Membranes, m * WORD, 2 * WORD * n * m * u64::from(steps));
            tally.moves(Potentials, m * WORD, 2 * WORD * spikes * m);
            tally.moves(Spikes, (k * (u64::from(steps) + 1)).div_ceil(8), spike_bytes(n * k, k, steps, spikes));
        }
        Form::Collapsed => {
            let bits = level_bits(code, steps);
            tally.add(Accumulate, spikes * m);
            tally.add(Shift, doublings(code, steps) * n * m);
            tally.add(Address, active * m);
            tally.add(Message, active);
            tally.moves(Weights, bytes, read((active * m).min(passes * weights)));
            add_groups(&mut tally, seen, n * m);
            tally.moves(Membranes, m * WORD, 2 * WORD * n * m);
            tally.moves(Potentials, m * WORD, 2 * WORD * active * m);
            tally.moves(Spikes, (k * bits).div_ceil(8), level_bytes(n * k, k, bits, active));
        }
    }
    tally
}

/// Bytes that so many weights take as they are stored.
fn weight_bytes(seen: &Seen<'_>, weights: u64) -> u64 {
    let sizes = seen.args[1].shape().sizes().unwrap_or_default();
    let stored = seen.args[1].elem().and_then(|elem| stored_bytes(elem, &sizes));
    stored.map_or(weights, |bytes| bytes as u64)
}

/// Weights of 4 bits: `sums` sums of every group are multiplied and added.
fn add_groups(tally: &mut Tally, seen: &Seen<'_>, sums: u64) {
    if let Some(Elem::I4(group)) = seen.args[1].elem() {
        let groups = width(seen.args[0]).div_ceil(group.into());
        tally.add(GroupMul, groups * sums);
        tally.add(AddInt32, groups * sums);
    }
}

/// Times that a sum doubles while a token's timesteps come in.
fn doublings(code: Code, steps: u16) -> u64 {
    match code {
        Code::Binary => u64::from(steps) - 1,
        Code::Unary => 0,
    }
}

/// A curve by table: one multiplication, three additions and a comparison a number, and two samples.
fn curve(numbers: u64, add: Operation, mul: Operation, compare: Operation) -> Tally {
    let mut tally = Tally::with(&[(mul, numbers), (add, 3 * numbers), (compare, numbers)]);
    tally.moves(Tables, WORD * TABLE_LEN as u64, 2 * WORD * numbers);
    tally
}

/// What a layer of neurons computes before it compares, for each number: affine maps in a dense network of int8 and in neurons, and
/// products of what two projections give.
struct NeuronMaps {
    dense: u64,
    spiking: u64,
    products: u64,
}

impl NeuronMaps {
    /// A curve lies between two maps.
    fn plain(curved: bool) -> Self {
        let maps = if curved { 2 } else { 1 };
        Self { dense: maps, spiking: maps, products: 0 }
    }

    /// Of the gate and of what it multiplies. What makes levels of the product is in the second in a neuron.
    const GATED: Self = Self { dense: 3, spiking: 2, products: 1 };
}

fn neurons(seen: &Seen<'_>, code: Code, steps: u16, bend: Curve, form: Form) -> Tally {
    mapped_neurons(seen, code, steps, bend, form, &NeuronMaps::plain(bend != Curve::Identity))
}

/// Neurons with a multiplicative input: a product more.
fn gated_neurons(seen: &Seen<'_>, code: Code, steps: u16, bend: Curve, form: Form) -> Tally {
    mapped_neurons(seen, code, steps, bend, form, &NeuronMaps::GATED)
}

fn mapped_neurons(seen: &Seen<'_>, code: Code, steps: u16, bend: Curve, form: Form, maps: &NeuronMaps) -> Tally {
    let (numbers, d) = (seen.numbers(), width(seen.ty));
    let curved = bend != Curve::Identity;
    let sums = |ty: &&Type| ty.elem() == Some(Elem::I32) || matches!(ty, Type::Train { .. });
    match form {
        // The dense network has a bias and a curve here; quantised to int8, it makes levels by the same affine map.
        Form::Dense(Number::F32 | Number::F16) => {
            let mut tally = if curved { curve(numbers, AddF32, MulF32, CompareF32) } else { Tally::default() };
            tally.add(AddF32, seen.args.iter().filter(sums).count() as u64 * numbers);
            tally.add(MulF32, maps.products * numbers);
            tally
        }
        Form::Dense(Number::Int8) | Form::Skipping => {
            let mut tally = if curved { curve(numbers, AddF32, MulF32, CompareF32) } else { Tally::default() };
            tally.add(AddF32, maps.dense * numbers);
            tally.add(MulF32, (maps.dense + maps.products) * numbers);
            tally.add(CompareF32, 2 * numbers);
            tally.moves(Activations, d, numbers);
            tally
        }
        Form::Stepped | Form::Collapsed => {
            let mut tally = if curved { curve(numbers, NeuronAdd, NeuronMul, NeuronCompare) } else { Tally::default() };
            tally.add(NeuronAdd, maps.spiking * numbers);
            tally.add(NeuronMul, (maps.spiking + maps.products) * numbers);
            let (spikes, active) = (seen.own.spikes, seen.own.active);
            if form == Form::Stepped {
                let times = numbers * u64::from(steps);
                tally.add(NeuronCompare, times);
                tally.add(NeuronReset, spikes);
                tally.add(NeuronActive, spikes);
                tally.add(NeuronIdle, times - spikes);
                tally.moves(Membranes, d * WORD, 2 * WORD * times);
                tally.moves(Spikes, (d * (u64::from(steps) + 1)).div_ceil(8), spike_bytes(numbers, d, steps, spikes));
            } else {
                let bits = level_bits(code, steps);
                tally.add(NeuronCompare, 2 * numbers);
                tally.add(NeuronActive, active);
                tally.add(NeuronIdle, numbers - active);
                tally.moves(Membranes, d * WORD, 2 * WORD * numbers);
                tally.moves(Spikes, (d * bits).div_ceil(8), level_bytes(numbers, d, bits, active));
            }
            tally
        }
    }
}

/// Time-stepped neurons: time does not collapse, so both spiking forms run every one.
fn time_stepped_neurons(seen: &Seen<'_>, membrane: Membrane, steps: u16, bend: Curve, form: Form) -> Tally {
    if !form.is_spiking() {
        // The dense network has a bias, and ReLU is a comparison.
        let mut tally = neurons(seen, Code::Unary, steps, Curve::Identity, form);
        tally.add(CompareF32, if bend == Curve::Identity { 0 } else { seen.numbers() });
        return tally;
    }
    let (numbers, d, spikes) = (seen.numbers(), width(seen.ty), seen.own.spikes);
    let times = numbers * u64::from(steps);
    let rule = membrane.rule();
    let (membranes, work) = (rule.membranes(bend == Curve::Relu) as u64, rule.work());
    let states = membranes * rule.states.len() as u64;
    let mut tally = Tally::with(&[
        (NeuronMul, times),
        (NeuronAdd, (1 + membranes * work.additions) * times),
        (NeuronCompare, membranes * work.comparisons * times),
        (NeuronReset, spikes),
        (NeuronActive, spikes),
        (NeuronIdle, times - spikes),
    ]);
    tally.add(NeuronMul, membranes * work.multiplications * times);
    tally.moves(Membranes, states * d * WORD, 2 * WORD * states * times);
    tally.moves(Spikes, (d * (u64::from(steps) + 1)).div_ceil(8), spike_bytes(numbers, d, steps, spikes));
    tally
}

fn elementwise(seen: &Seen<'_>, operations: &[(Operation, u64)]) -> Tally {
    let all: Vec<_> = operations.iter().map(|&(operation, each)| (operation, each * seen.numbers())).collect();
    Tally::with(&all)
}

/// Scale and bias of sums. The dense network has the bias alone; in int8, the scale as well.
fn affine(seen: &Seen<'_>, form: Form) -> Tally {
    match form {
        _ if seen.split && !form.is_spiking() => Tally::default(),
        Form::Dense(Number::F32 | Number::F16) => elementwise(seen, &[(AddF32, 1)]),
        Form::Dense(Number::Int8) | Form::Skipping | Form::Stepped | Form::Collapsed => {
            elementwise(seen, &[(MulF32, 1), (AddF32, 1)])
        }
    }
}

/// Bytes of what stays real.
fn real_bytes(form: Form) -> u64 {
    if form == Form::Dense(Number::F16) { 2 } else { WORD }
}

fn residual(seen: &Seen<'_>, form: Form) -> Tally {
    let mut tally = elementwise(seen, &[(AddF32, 1)]);
    tally.moves(Activations, width(seen.ty) * real_bytes(form), 3 * seen.numbers() * real_bytes(form));
    tally
}

/// The mean, and what it is taken from.
fn centre(seen: &Seen<'_>, form: Form) -> Tally {
    let mut tally = elementwise(seen, &[(AddF32, 2)]);
    tally.add(DivF32, seen.tokens);
    tally.moves(Activations, width(seen.ty) * real_bytes(form), 2 * seen.numbers() * real_bytes(form));
    tally
}

/// Squares and their sum, the root, one reciprocal per head, which multiplies.
fn rms_norm(seen: &Seen<'_>, heads: u64, form: Form) -> Tally {
    let mut tally = elementwise(seen, &[(AddF32, 1), (MulF32, 2)]);
    tally.add(DivF32, seen.tokens * heads);
    tally.add(SqrtF32, seen.tokens * heads);
    tally.moves(Activations, width(seen.ty) * real_bytes(form), 2 * seen.numbers() * real_bytes(form));
    tally
}

/// Sums of parts, butterflies, and what divides by the root of the size. The dense network has none: it reads what is transformed.
fn hadamard(seen: &Seen<'_>, size: HadamardSize, form: Form) -> Tally {
    if !form.is_spiking() {
        return Tally::default();
    }
    let mut tally = elementwise(seen, &[(AddF32, size.additions().into()), (MulF32, 1)]);
    tally.moves(Activations, width(seen.ty) * WORD, 2 * seen.numbers() * WORD);
    tally
}

/// Four products and two sums for each pair of channels that is turned.
fn rotary(seen: &Seen<'_>, heads: u64) -> Tally {
    let turned = seen.tokens * heads * width(seen.args[1]);
    Tally::with(&[(MulF32, 2 * turned), (AddF32, turned)])
}

fn embed(seen: &Seen<'_>, form: Form) -> Tally {
    let elements = seen.args[1].shape().sizes().unwrap_or_default().iter().product::<usize>() as u64;
    let bytes = match form {
        Form::Dense(number) => number.bytes(),
        Form::Skipping => Number::Int8.bytes(),
        Form::Stepped | Form::Collapsed => seen.args[1].elem().map_or(WORD, |elem| elem.bytes() as u64),
    };
    let mut tally = Tally::with(&[(Address, seen.tokens)]);
    tally.moves(Weights, elements * bytes, seen.numbers() * bytes);
    tally
}

/// What scores, softmax and values do.
type Attention = [Tally; 3];

fn parted([scores, softmax, values]: Attention) -> Vec<(Part, Tally)> {
    vec![(Part::Scores, scores), (Part::Softmax, softmax), (Part::Values, values)]
}

/// Tokens whose keys and values are kept: no more than a window's.
fn kept_tokens(seen: &Seen<'_>, heads: Heads) -> u64 {
    heads.window.map_or(seen.context, |window| seen.context.min(window.into()))
}

/// Keys that are read, where the queries of one sequence in a pass share them.
fn keys_read(seen: &Seen<'_>, sharing: Sharing) -> u64 {
    seen.own.keys.div_ceil(sharing.span.clamp(1, seen.tokens.max(1)))
}

fn dense_attention(seen: &Seen<'_>, heads: Heads, form: Form, sharing: Sharing) -> Vec<(Part, Tally)> {
    let number = dense_of(form);
    let (d, keys) = (width(seen.ty), seen.own.keys);
    let products = Tally::with(&[(number.mac(), keys * d), (Address, seen.tokens * d + keys * u64::from(heads.query))]);
    let softmax = dense_softmax(seen, heads, number);
    parted(dense_traffic(seen, heads, number, sharing, [products.clone(), softmax, products]))
}

/// The largest score, exponentials of the distances from it, their sum, one reciprocal a head. ALiBi takes one product of each score.
fn dense_softmax(seen: &Seen<'_>, shape: Heads, number: Number) -> Tally {
    let heads = u64::from(shape.query);
    let scores = seen.own.keys * heads;
    let mut tally = curve(scores, AddF32, MulF32, CompareF32);
    [(MulF32, scores), (CompareF32, scores), (AddF32, 2 * scores)].into_iter().for_each(|(op, n)| tally.add(op, n));
    let faded = if shape.alibi { scores } else { 0 };
    [MulF32, AddF32].into_iter().for_each(|operation| tally.add(operation, faded));
    tally.add(DivF32, seen.tokens * heads);
    tally.add(MulF32, seen.numbers());
    // Probabilities become levels of 8 bits.
    let levels = if number == Number::Int8 { scores } else { 0 };
    [MulF32, CompareF32].into_iter().for_each(|operation| tally.add(operation, levels));
    // Written, read by the softmax, written and read by the values.
    tally.moves(Activations, kept_tokens(seen, shape) * heads * number.bytes(), 4 * scores * number.bytes());
    tally
}

fn dense_traffic(seen: &Seen<'_>, heads: Heads, number: Number, sharing: Sharing, attention: Attention) -> Attention {
    let [mut scores, softmax, mut values] = attention;
    let (d, bytes, tokens) = (width(seen.ty), number.bytes(), kept_tokens(seen, heads));
    for (tally, kept) in [(&mut scores, width(seen.args[1])), (&mut values, width(seen.args[2]))] {
        tally.moves(State, tokens * kept * bytes, (keys_read(seen, sharing) + seen.tokens) * kept * bytes);
        tally.moves(Activations, d * bytes, seen.numbers() * bytes);
    }
    [scores, softmax, values]
}

/// As dense int8, without the channels of queries that are 0 and the values of keys outside the window.
fn skipping_attention(seen: &Seen<'_>, heads: Heads, sharing: Sharing) -> Vec<(Part, Tally)> {
    let pairs = seen.own.score_pairs;
    let weighed = seen.own.value_keys * (width(seen.ty) / u64::from(heads.query));
    let scores = Tally::with(&[(MacInt8, pairs), (Address, pairs)]);
    let values = Tally::with(&[(MacInt8, weighed), (Address, weighed)]);
    let softmax = dense_softmax(seen, heads, Number::Int8);
    parted(dense_traffic(seen, heads, Number::Int8, sharing, [scores, softmax, values]))
}

/// Time-to-first-spike attention. Queries' spikes drive additions of keys held as levels; a key inside the window is one
/// spike, which drives additions of its value's level, weighed by its phase.
fn timed_attention(seen: &Seen<'_>, heads: Heads, phases: u32, form: Form, sharing: Sharing) -> Vec<(Part, Tally)> {
    let (tokens, alibi, scaled, kv) = (kept_tokens(seen, heads), heads.alibi, heads.thresholds, u64::from(heads.kv));
    let (heads, d, n) = (u64::from(heads.query), width(seen.ty), seen.tokens);
    let [keys, kept] = [width(seen.args[1]), width(seen.args[2])];
    let own = seen.own;
    let [q, k, v] = [0, 1, 2].map(|i| seen.args[i].levels().unwrap_or((Code::Binary, 1)));
    let (neurons, weighed) = (own.keys * heads, own.value_keys * (d / heads));
    let stepped = form == Form::Stepped;
    let timesteps = if stepped { u64::from(q.1) } else { 1 };
    // An addition's address is computed each time, or once for all timesteps.
    let pairs = if stepped { own.score_additions } else { own.score_pairs };

    let [key_bits, value_bits] = [k, v].map(|(code, steps)| level_bits(code, steps));
    let state = |width: u64, bits: u64| (tokens * width * bits).div_ceil(8);
    let mut scores = Tally::with(&[(Accumulate, own.score_additions), (Address, pairs)]);
    scores.add(Shift, doublings(q.0, q.1) * neurons);
    scores.add(Message, if stepped { seen.inputs[0].spikes } else { seen.inputs[0].active });
    // Keys are read again for every timestep of the queries, where nothing holds them.
    let read = (keys_read(seen, sharing) * timesteps + n) * keys;
    scores.moves(State, state(keys, key_bits), (read * key_bits).div_ceil(8));
    scores.moves(Membranes, tokens * heads * WORD, 2 * WORD * neurons * timesteps);
    scores.moves(Potentials, tokens * heads * WORD, 2 * WORD * pairs);
    let (spikes, bits) = if stepped {
        (spike_bytes(n * d, d, q.1, seen.inputs[0].spikes), u64::from(q.1) + 1)
    } else {
        (level_bytes(n * d, d, level_bits(q.0, q.1), seen.inputs[0].active), level_bits(q.0, q.1))
    };
    scores.moves(Spikes, (d * bits).div_ceil(8), spikes);

    // The best score, then every key's phase: one comparison in each phase, or in closed form.
    let last = phase_weights(phases).len() as u64;
    let ramp = if stepped { last } else { 1 };
    let mut softmax = Tally::with(&[
        (CompareInt32, neurons + ramp * neurons),
        (NeuronActive, own.value_keys),
        (NeuronIdle, (ramp * neurons).saturating_sub(own.value_keys)),
        (AddInt32, own.value_keys),
        (DivF32, n * heads),
        (MulF32, n * d),
    ]);
    if !stepped {
        [MulF32, AddF32].into_iter().for_each(|operation| softmax.add(operation, neurons));
    }
    // A delay by the distance: a constant of the head and the distance.
    softmax.add(AddInt32, if alibi { neurons } else { 0 });
    softmax.moves(Membranes, tokens * heads * WORD, 2 * WORD * neurons);
    if scaled {
        // Of each key both thresholds and the product; of one that fires its value's share and its weight; the largest of these; then the
        // result.
        softmax.add(MulF32, 2 * neurons + 2 * own.value_keys + n * d);
        softmax.add(CompareF32, own.value_keys);
        softmax.add(DivF32, n * heads);
        softmax.moves(State, 2 * tokens * kv * WORD, 2 * (keys_read(seen, sharing) + n) * kv * WORD);
    }

    let mut values =
        Tally::with(&[(Accumulate, weighed), (PhaseMul, weighed), (Address, weighed), (Message, own.value_keys)]);
    let read = (keys_read(seen, sharing) * kept).min(weighed);
    values.moves(State, state(kept, value_bits), ((read + n * kept) * value_bits).div_ceil(8));
    values.moves(Membranes, d * WORD, 2 * WORD * n * d);
    values.moves(Potentials, d * WORD, 2 * WORD * weighed);
    values.moves(Activations, d * WORD, n * d * WORD);
    parted([scores, softmax, values])
}

/// Attention by coincidence of features. A query's spike drives an addition for every key that has not faded; of those, the
/// ones that coincide are needed. A weight that is squared is multiplied; one that has halved is shifted. Spikes of values,
/// at their layer's average rate, drive additions of the weights of the keys that have any.
fn fading_attention(
    seen: &Seen<'_>,
    heads: Heads,
    squared: bool,
    emits: bool,
    form: Form,
    sharing: Sharing,
) -> Vec<(Part, Tally)> {
    let kv_heads = u64::from(heads.kv);
    let (heads, d, n, own) = (u64::from(heads.query), width(seen.ty), seen.tokens, seen.own);
    let [f, keys, kept] = [0, 1, 2].map(|i| width(seen.args[i]));
    let (_, steps) = seen.args[0].levels().unwrap_or((Code::Unary, 1));
    let (code, value_steps) = seen.args[2].levels().unwrap_or((Code::Binary, 1));
    let timesteps = if form == Form::Stepped { u64::from(steps) } else { 1 };
    let weighed = own.value_keys * (d / heads);

    let mut scores = Tally::with(&[(Accumulate, own.score_pairs), (Address, own.score_pairs), (Shift, own.value_keys)]);
    scores.unmet = own.score_pairs - own.score_additions.min(own.score_pairs);
    scores.add(Message, seen.inputs[0].spikes);
    scores.add(MacF32, if squared { own.value_keys } else { 0 });
    let key_bits = u64::from(steps);
    let read = (keys_read(seen, sharing) + n) * keys;
    scores.moves(State, (seen.context * keys * key_bits).div_ceil(8), (read * key_bits).div_ceil(8));
    scores.moves(Membranes, seen.context * heads * WORD, 2 * WORD * own.keys * heads * timesteps);
    scores.moves(Potentials, seen.context * heads * WORD, 2 * WORD * own.score_pairs);
    scores.moves(Spikes, (f * key_bits).div_ceil(8), spike_bytes(n * f, f, steps, seen.inputs[0].spikes));

    // The row's sum, and one reciprocal a head.
    let rows = if emits { n * u64::from(steps) } else { n };
    let softmax =
        Tally::with(&[(AddInt32, own.value_keys), (AddF32, rows * heads), (DivF32, rows * heads), (MulF32, rows * d)]);

    let spikes = u128::from(seen.inputs[2].spikes) * u128::from(own.value_keys) / u128::from((n * kv_heads).max(1));
    let spikes = if emits { spikes / u128::from(steps.max(1)) } else { spikes } as u64;
    let mut values = Tally::with(&[(Accumulate, spikes), (Address, spikes), (Message, own.value_keys)]);
    values.add(Shift, if emits { 0 } else { doublings(code, value_steps) * n * d });
    let value_bits = level_bits(code, value_steps);
    let read = (keys_read(seen, sharing) * kept).min(weighed) + n * kept;
    values.moves(State, (seen.context * kept * value_bits).div_ceil(8), (read * value_bits).div_ceil(8));
    values.moves(Membranes, d * WORD, 2 * WORD * rows * d);
    values.moves(Potentials, d * WORD, 2 * WORD * spikes);
    if emits {
        let times = n * d * u64::from(steps);
        values += &Tally::with(&[
            (NeuronMul, 2 * times),
            (NeuronAdd, times),
            (NeuronCompare, times),
            (NeuronReset, own.spikes),
            (NeuronActive, own.spikes),
            (NeuronIdle, times - own.spikes),
        ]);
        values.moves(Spikes, (d * (u64::from(steps) + 1)).div_ceil(8), spike_bytes(n * d, d, steps, own.spikes));
    } else {
        values.moves(Activations, d * WORD, n * d * WORD);
    }
    parted([scores, softmax, values])
}

/// Linear attention: a key's spike adds its value to a row of the state, a query's spike adds a row of the state to the result.
/// How often heads halve their state is a constant of theirs, and not counted.
fn linear_attention(seen: &Seen<'_>, heads: Heads) -> Vec<(Part, Tally)> {
    /// Bytes of a sum of the state.
    const SUM: u64 = 8;
    let (heads, d, n, own) = (u64::from(heads.query), width(seen.ty), seen.tokens, seen.own);
    let row = d / heads + 1;
    let state = SUM * width(seen.args[1]) * row;
    let update = seen.inputs[1].spikes * row;
    let mut scores = Tally::with(&[(Accumulate, update), (Address, update), (Message, seen.inputs[1].spikes)]);
    let rows = seen.inputs[1].active * row;
    scores.moves(State, state, 2 * SUM * rows);
    let softmax = Tally::with(&[(AddF32, n * heads), (DivF32, n * heads), (MulF32, n * d)]);
    let read = own.score_additions - update.min(own.score_additions);
    let mut values = Tally::with(&[(Accumulate, read), (Address, read), (Message, seen.inputs[0].spikes)]);
    values.moves(State, state, SUM * seen.inputs[0].active * row);
    values.moves(Membranes, d * WORD, 2 * WORD * n * d);
    values.moves(Potentials, d * WORD, 2 * WORD * read);
    values.moves(Activations, d * WORD, n * d * WORD);
    parted([scores, softmax, values])
}

/// Learned maps of a head multiply; the dense network has none.
fn head_linear(seen: &Seen<'_>, form: Form, sharing: Sharing) -> Tally {
    if !form.is_spiking() {
        return Tally::default();
    }
    let weights = seen.args[1].shape().sizes().unwrap_or_default().iter().product::<usize>() as u64;
    let mut tally = Tally::with(&[(MacF32, seen.tokens * weights)]);
    tally.moves(Weights, weights * WORD, sharing.passes(seen.tokens) * weights * WORD);
    tally.moves(Activations, width(seen.ty) * WORD, seen.tokens * (width(seen.args[0]) + width(seen.ty)) * WORD);
    tally
}
