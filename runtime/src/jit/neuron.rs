//! Element by element: the neuron update, the emission of spikes, their decoding, and scale and shift with its residual.
//!
//! Floats are strict: the operations and comparisons of `snnc_ir::eval::level`, on four lanes at once.

use super::emit::{Emitter, GROUP, Stream, StreamRole};
use super::memory::{StepRecord, StepTally};
use crate::plan::{NeuronLayer, level_bytes, plane_bytes};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::Ieee32;
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};
use snnc_ir::Curve;
use snnc_ir::curve::{TABLE_DENSITY, TABLE_LEN, TABLE_REACH};
use snnc_ir::types::{Code, Elem};
use std::mem::offset_of;

const F32: Type = types::F32X4;
const I32: Type = types::I32X4;
const I16: Type = types::I16X8;
const I8: Type = types::I8X16;
const LANES: usize = 4;

/// 16 levels: in one vector of bytes, in two of 16-bit lanes or in four of 32-bit lanes.
type LevelVectors = Vec<Value>;

/// A vector of levels that take so many bytes.
fn levels_of(bytes: usize) -> Type {
    match bytes {
        1 => I8,
        2 => I16,
        _ => I32,
    }
}

/// `(potential, constants...) -> levels` or, where the layer emits, `-> spikes`.
pub fn neuron(e: &mut Emitter<'_>, n: &NeuronLayer, count: bool) {
    let bytes = level_bytes(n.code, n.steps);
    let plane = plane_bytes(n.width);
    let constants = if n.curve == Curve::Identity { 2 } else { 4 };
    let mut streams =
        vec![Stream { base: e.input(0, 4 * n.width), row_bytes: 4 * n.width, lane_bytes: 4, role: StreamRole::In }];
    for i in 0..constants {
        streams.push(Stream { base: e.constant(i), row_bytes: 0, lane_bytes: 4, role: StreamRole::In });
    }
    let (lane_bytes, row_bytes) = if n.emit { (1, plane * usize::from(n.steps)) } else { (bytes, bytes * n.width) };
    let role = if n.emit { StreamRole::Padded } else { StreamRole::Out };
    streams.push(Stream { base: e.out(row_bytes), row_bytes, lane_bytes, role });
    let table = e.of_record(offset_of!(StepRecord, table));
    let zero = splat_int(e, I32, 0);
    let counters = [offset_of!(StepTally, spikes), offset_of!(StepTally, active), offset_of!(StepTally, saturated)]
        .map(|tally| (tally, e.variable(zero)));
    e.sweep(n.width, &streams, |e, at| {
        let quarter = |q: usize| LANES * 4 * q;
        let levels: Vec<Value> = (0..GROUP / LANES)
            .map(|q| {
                let constant = |e: &mut Emitter<'_>, i: usize| e.load(F32, at[1 + i], quarter(q));
                let mut x = potential(e, n.from, at[0], quarter(q));
                if n.curve != Curve::Identity {
                    x = scale_shift_of(e, x, &constant, 0);
                    x = look_up(e, table, x);
                }
                let p = scale_shift_of(e, x, &constant, constants - 2);
                level(e, p, n.code.levels(n.steps))
            })
            .collect();
        let levels = narrow(e, &levels, bytes);
        if count {
            let spikes = spikes_of(e, n.code, &levels, bytes);
            let active = magnitudes_that(e, IntCC::NotEqual, 0, &levels, bytes);
            let saturated = magnitudes_that(e, IntCC::Equal, n.code.levels(n.steps), &levels, bytes);
            for ((_, counter), more) in counters.into_iter().zip([spikes, active, saturated]) {
                let sum = e.b.use_var(counter);
                let sum = e.b.ins().iadd(sum, more);
                e.b.def_var(counter, sum);
            }
        }
        let out = at[at.len() - 1];
        if n.emit {
            emit(e, n, &levels, out, plane);
        } else {
            levels.iter().enumerate().for_each(|(i, &part)| e.store(part, out, 16 * i));
        }
    });
    if count {
        for (tally, counter) in counters {
            let sum = e.b.use_var(counter);
            let sum = total(e, sum);
            e.tally(tally, sum);
        }
    }
}

/// Spikes of every timestep to the level they denote: Horner over the planes of a row.
pub fn decode(e: &mut Emitter<'_>, code: Code, steps: u16, width: usize) {
    let (plane, bytes) = (plane_bytes(width), level_bytes(code, steps));
    let train = plane * usize::from(steps);
    let streams = [
        Stream { base: e.input(0, train), row_bytes: train, lane_bytes: 1, role: StreamRole::Padded },
        Stream { base: e.out(bytes * width), row_bytes: bytes * width, lane_bytes: bytes, role: StreamRole::Out },
    ];
    e.sweep(width, &streams, |e, at| {
        let zero = splat_int(e, levels_of(bytes), 0);
        let sums: Vec<_> = (0..bytes).map(|_| e.variable(zero)).collect();
        let end = e.int(train);
        e.count(end, plane, |e, offset| {
            let here = e.b.ins().iadd(at[0], offset);
            let spikes = e.load(I8, here, 0);
            let parts = (0..bytes.ilog2()).fold(vec![spikes], |parts, _| widened(e, &parts));
            for (&sum, part) in sums.iter().zip(parts) {
                let old = e.b.use_var(sum);
                let carried = if code.carry() == 2 { e.b.ins().iadd(old, old) } else { old };
                let new = e.b.ins().iadd(carried, part);
                e.b.def_var(sum, new);
            }
        });
        for (i, &sum) in sums.iter().enumerate() {
            let sum = e.b.use_var(sum);
            e.store(sum, at[1], 16 * i);
        }
    });
}

/// `x * gain + offset`, and plus a residual with `add`.
pub fn scale_shift(e: &mut Emitter<'_>, from: Elem, width: usize, add: bool) {
    let row = |base| Stream { base, row_bytes: 4 * width, lane_bytes: 4, role: StreamRole::In };
    let lane_bytes = from.bytes();
    let first = e.input(0, lane_bytes * width);
    let mut streams = vec![Stream { row_bytes: lane_bytes * width, lane_bytes, ..row(first) }];
    for i in 0..2 {
        streams.push(Stream { base: e.constant(i), row_bytes: 0, lane_bytes: 4, role: StreamRole::In });
    }
    if add {
        streams.push(row(e.input(1, 4 * width)));
    }
    streams.push(Stream { role: StreamRole::Out, ..row(e.out(4 * width)) });
    e.sweep(width, &streams, |e, at| {
        for (x, offset) in reals(e, from, at[0]).into_iter().zip((0..).step_by(16)) {
            let y = scale_shift_of(e, x, &|e: &mut Emitter<'_>, i: usize| e.load(F32, at[1 + i], offset), 0);
            let y = if add {
                let residual = e.load(F32, at[3], offset);
                e.b.ins().fadd(y, residual)
            } else {
                y
            };
            e.store(y, at[at.len() - 1], offset);
        }
    });
}

/// The sum of two values, or of a value and one row.
pub fn add(e: &mut Emitter<'_>, width: usize, channel: bool) {
    let row = |base| Stream { base, row_bytes: 4 * width, lane_bytes: 4, role: StreamRole::In };
    let second = if channel { Stream { row_bytes: 0, ..row(e.constant(0)) } } else { row(e.input(1, 4 * width)) };
    let streams = [row(e.input(0, 4 * width)), second, Stream { role: StreamRole::Out, ..row(e.out(4 * width)) }];
    e.sweep(width, &streams, |e, at| {
        for offset in (0..4 * GROUP).step_by(16) {
            let (x, y) = (e.load(F32, at[0], offset), e.load(F32, at[1], offset));
            let sum = e.b.ins().fadd(x, y);
            e.store(sum, at[2], offset);
        }
    });
}

/// 16 sums, levels or reals, as four vectors of reals.
fn reals(e: &mut Emitter<'_>, from: Elem, at: Value) -> Vec<Value> {
    if from == Elem::F32 {
        return (0..4).map(|i| e.load(F32, at, 16 * i)).collect();
    }
    integers(e, from, at).into_iter().map(|x| e.b.ins().fcvt_from_sint(F32, x)).collect()
}

/// 16 sums or levels, in four vectors of 32-bit lanes.
fn integers(e: &mut Emitter<'_>, from: Elem, at: Value) -> Vec<Value> {
    let bytes = match from {
        Elem::Level(..) => from.bytes(),
        Elem::F32 | Elem::I32 | Elem::I8 => 4,
    };
    let parts = (0..bytes).map(|i| e.load(levels_of(bytes), at, 16 * i)).collect();
    (bytes.ilog2()..2).fold(parts, |parts: LevelVectors, _| widened(e, &parts))
}

/// The same levels in lanes twice as wide, and twice as many vectors.
fn widened(e: &mut Emitter<'_>, parts: &[Value]) -> LevelVectors {
    parts.iter().flat_map(|&x| [e.b.ins().swiden_low(x), e.b.ins().swiden_high(x)]).collect()
}

/// The same levels, which fit, in lanes half as wide, and half as many vectors.
fn narrowed(e: &mut Emitter<'_>, parts: &[Value]) -> LevelVectors {
    parts.chunks_exact(2).map(|pair| e.b.ins().snarrow(pair[0], pair[1])).collect()
}

fn potential(e: &mut Emitter<'_>, from: Elem, at: Value, offset: usize) -> Value {
    if from == Elem::I32 {
        let x = e.load(I32, at, offset);
        e.b.ins().fcvt_from_sint(F32, x)
    } else {
        e.load(F32, at, offset)
    }
}

/// `x * constant(i) + constant(i + 1)`
fn scale_shift_of(
    e: &mut Emitter<'_>,
    x: Value,
    constant: &impl Fn(&mut Emitter<'_>, usize) -> Value,
    i: usize,
) -> Value {
    let gain = constant(e, i);
    let scaled = e.b.ins().fmul(x, gain);
    let offset = constant(e, i + 1);
    e.b.ins().fadd(scaled, offset)
}

/// Four potentials to levels: `trunc(min(|p| + 0.5, most + 0.5))` with the sign of `p`. NaN compares false, as in the
/// oracle, and so gives `most`.
fn level(e: &mut Emitter<'_>, p: Value, most: i32) -> Value {
    let zero = splat_float(e, 0.0);
    let half = splat_float(e, 0.5);
    let limit = splat_float(e, most as f32 + 0.5);
    let negative = e.b.ins().fcmp(FloatCC::LessThan, p, zero);
    let magnitude = e.b.ins().fabs(p);
    let v = e.b.ins().fadd(magnitude, half);
    let below = e.b.ins().fcmp(FloatCC::LessThan, v, limit);
    let v = select(e, below, v, limit);
    let n = truncate(e, v);
    let flipped = e.b.ins().bxor(n, negative);
    e.b.ins().isub(flipped, negative)
}

/// The curve at four points, as `snnc_ir::curve::look_up` has it.
fn look_up(e: &mut Emitter<'_>, table: Value, h: Value) -> Value {
    let (reach, depth) = (splat_float(e, TABLE_REACH), splat_float(e, -TABLE_REACH));
    let density = splat_float(e, TABLE_DENSITY);
    let zero = splat_float(e, 0.0);
    // NaN is not inside: it takes index 0, and its fraction makes the result NaN.
    let (lower, upper) = (e.b.ins().fcmp(FloatCC::LessThan, h, reach), e.b.ins().fcmp(FloatCC::GreaterThan, h, depth));
    let inside = e.b.ins().band(lower, upper);
    let shifted = e.b.ins().fadd(h, reach);
    let s = e.b.ins().fmul(shifted, density);
    let safe = select(e, inside, s, zero);
    let index = truncate(e, safe);
    let whole = e.b.ins().fcvt_from_sint(F32, index);
    let fraction = e.b.ins().fsub(s, whole);
    let (left, right) = gather_pairs(e, table, index);
    let rise = e.b.ins().fsub(right, left);
    let part = e.b.ins().fmul(fraction, rise);
    let within = e.b.ins().fadd(left, part);
    let line = |e: &mut Emitter<'_>, slot: usize| {
        let slope = e.load(types::F32, table, 4 * slot);
        let slope = e.b.ins().splat(F32, slope);
        e.b.ins().fmul(h, slope)
    };
    let (below, above) = (line(e, TABLE_LEN - 2), line(e, TABLE_LEN - 1));
    let is_below = e.b.ins().fcmp(FloatCC::LessThanOrEqual, h, depth);
    let is_above = e.b.ins().fcmp(FloatCC::GreaterThanOrEqual, h, reach);
    let y = select(e, is_below, below, within);
    select(e, is_above, above, y)
}

/// `table[i]` and `table[i + 1]` for four indices: one load of both for each, then two shuffles.
fn gather_pairs(e: &mut Emitter<'_>, table: Value, index: Value) -> (Value, Value) {
    let pair = |e: &mut Emitter<'_>, lane: usize| {
        let i = e.b.ins().extractlane(index, lane as u8);
        let i = e.b.ins().uextend(types::I64, i);
        let two = e.b.ins().iconst(types::I64, 2);
        let offset = e.b.ins().ishl(i, two);
        let at = e.b.ins().iadd(table, offset);
        e.load(types::I64, at, 0)
    };
    let both = |e: &mut Emitter<'_>, lane: usize| {
        let (a, b) = (pair(e, lane), pair(e, lane + 1));
        let vector = e.b.ins().scalar_to_vector(types::I64X2, a);
        let vector = e.b.ins().insertlane(vector, b, 1);
        e.cast(I8, vector)
    };
    let (low, high) = (both(e, 0), both(e, 2));
    let pick = |e: &mut Emitter<'_>, first: u8| {
        let bytes: Vec<u8> = (0..4u8).flat_map(|lane| (0..4).map(move |byte| 8 * lane + first + byte)).collect();
        let mask = e.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        let picked = e.b.ins().shuffle(low, high, mask);
        e.cast(F32, picked)
    };
    (pick(e, 0), pick(e, 4))
}

/// Four vectors of four levels to one of 16, to two of 8, or as they are.
fn narrow(e: &mut Emitter<'_>, levels: &[Value], bytes: usize) -> LevelVectors {
    (bytes.ilog2()..2).fold(levels.to_vec(), |levels, _| narrowed(e, &levels))
}

/// Emits the spikes of 16 levels, timestep by timestep, by comparing what is left of the magnitude with a threshold.
/// Binary: thresholds halve, and a spike takes its threshold away. Unary: a spike takes 1, so `t < |n|` is what is left.
fn emit(e: &mut Emitter<'_>, n: &NeuronLayer, levels: &[Value], out: Value, plane: usize) {
    let bytes = level_bytes(n.code, n.steps);
    let ty = levels_of(bytes);
    let lane = ty.lane_type();
    let (zero, one) = (splat_int(e, ty, 0), splat_int(e, ty, 1));
    // The sign of a level as a spike: -1, or +1.
    let signs: Vec<Value> = levels
        .iter()
        .map(|&level| {
            let sign = e.b.ins().icmp(IntCC::SignedLessThan, level, zero);
            e.b.ins().bor(sign, one)
        })
        .collect();
    let left: Vec<_> = levels
        .iter()
        .map(|&level| {
            let magnitude = e.b.ins().iabs(level);
            e.variable(magnitude)
        })
        .collect();
    let first = e.b.ins().iconst(types::I32, i64::from(n.code.weight(0, n.steps)));
    let threshold = e.variable(first);
    let end = e.int(plane * usize::from(n.steps));
    e.count(end, plane, |e, offset| {
        let weight = e.b.use_var(threshold);
        let weight_lane = if lane == types::I32 { weight } else { e.b.ins().ireduce(lane, weight) };
        let bar = e.b.ins().splat(ty, weight_lane);
        let fired: Vec<Value> = left
            .iter()
            .zip(&signs)
            .map(|(&left, &sign)| {
                let r = e.b.use_var(left);
                let fires = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, r, bar);
                let spent = e.b.ins().band(fires, bar);
                let rest = e.b.ins().isub(r, spent);
                e.b.def_var(left, rest);
                e.b.ins().band(fires, sign)
            })
            .collect();
        let spikes = (0..bytes.ilog2()).fold(fired, |fired, _| narrowed(e, &fired));
        let here = e.b.ins().iadd(out, offset);
        e.store(spikes[0], here, 0);
        if n.code == Code::Binary {
            let by = e.b.ins().iconst(types::I32, 1);
            let next = e.b.ins().ushr(weight, by);
            e.b.def_var(threshold, next);
        }
    });
}

/// Spikes of 16 levels, in four lanes of 32 bits.
fn spikes_of(e: &mut Emitter<'_>, code: Code, levels: &[Value], bytes: usize) -> Value {
    let counts: Vec<Value> = levels
        .iter()
        .flat_map(|&level| {
            let magnitude = e.b.ins().iabs(level);
            match (code, bytes) {
                (Code::Binary, _) => {
                    let bytes = e.cast(I8, magnitude);
                    let ones = e.b.ins().popcnt(bytes);
                    widen(e, ones).to_vec()
                }
                (Code::Unary, 1) => widen(e, magnitude).to_vec(),
                // At most 1024, so in 16 bits.
                (Code::Unary, _) => vec![magnitude],
            }
        })
        .collect();
    folded(e, &counts)
}

/// How many of 16 levels have a magnitude that compares so with `than`, in four lanes of 32 bits.
fn magnitudes_that(e: &mut Emitter<'_>, compares: IntCC, than: i32, levels: &[Value], bytes: usize) -> Value {
    let ty = levels_of(bytes);
    let (than, one) = (splat_int(e, ty, i64::from(than)), splat_int(e, ty, 1));
    let counts: Vec<Value> = levels
        .iter()
        .flat_map(|&level| {
            let magnitude = e.b.ins().iabs(level);
            let does = e.b.ins().icmp(compares, magnitude, than);
            let does = e.b.ins().band(does, one);
            // Two lanes of 16 bits have the count of one of 32.
            match bytes {
                1 => widen(e, does).to_vec(),
                2 => vec![does],
                _ => vec![e.cast(I16, does)],
            }
        })
        .collect();
    folded(e, &counts)
}

/// The sum of vectors of 16-bit lanes, of at most 1024 each, in four lanes of 32 bits.
fn folded(e: &mut Emitter<'_>, counts: &[Value]) -> Value {
    let sum = sum(e, counts);
    let [low, high] = widen(e, sum);
    e.b.ins().iadd(low, high)
}

fn widen(e: &mut Emitter<'_>, x: Value) -> [Value; 2] {
    [e.b.ins().uwiden_low(x), e.b.ins().uwiden_high(x)]
}

fn sum(e: &mut Emitter<'_>, values: &[Value]) -> Value {
    values.iter().copied().reduce(|a, b| e.b.ins().iadd(a, b)).unwrap_or_else(|| unreachable!("groups have levels"))
}

/// The sum of four lanes in 64 bits.
fn total(e: &mut Emitter<'_>, x: Value) -> Value {
    let lanes: Vec<Value> = (0..4u8)
        .map(|i| {
            let lane = e.b.ins().extractlane(x, i);
            e.b.ins().uextend(types::I64, lane)
        })
        .collect();
    sum(e, &lanes)
}

/// Lanes of `a` where the mask is all ones, of `b` where it is zero.
fn select(e: &mut Emitter<'_>, mask: Value, a: Value, b: Value) -> Value {
    let mask = e.cast(F32, mask);
    e.b.ins().bitselect(mask, a, b)
}

/// Toward zero, of values that fit.
fn truncate(e: &mut Emitter<'_>, x: Value) -> Value {
    if e.x86 { e.b.ins().x86_cvtt2dq(I32, x) } else { e.b.ins().fcvt_to_sint_sat(I32, x) }
}

fn splat_float(e: &mut Emitter<'_>, x: f32) -> Value {
    let x = e.b.ins().f32const(Ieee32::with_float(x));
    e.b.ins().splat(F32, x)
}

fn splat_int(e: &mut Emitter<'_>, ty: Type, n: i64) -> Value {
    let n = e.b.ins().iconst(ty.lane_type(), n);
    e.b.ins().splat(ty, n)
}
