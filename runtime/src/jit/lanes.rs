//! What machine code does with the 16 channels of a group: levels, spikes and reals in vectors of 128 bits.
//!
//! Floats are strict: the operations and comparisons of `snnc_ir::eval::level`, on four lanes at once.

use crate::jit::emit::Emitter;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::Ieee32;
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};
use snnc_ir::curve::{TABLE_DENSITY, TABLE_LEN, TABLE_REACH};
use snnc_ir::types::{Code, Elem};

pub const F32: Type = types::F32X4;
pub const I32: Type = types::I32X4;
pub const I16: Type = types::I16X8;
pub const I8: Type = types::I8X16;
/// Numbers of a vector of 32-bit lanes.
pub const LANES: usize = 4;

/// 16 levels: in one vector of bytes, in two of 16-bit lanes or in four of 32-bit lanes.
pub type LevelVectors = Vec<Value>;

/// A vector of levels that take so many bytes.
pub fn levels_of(bytes: usize) -> Type {
    match bytes {
        1 => I8,
        2 => I16,
        _ => I32,
    }
}

/// 16 sums, levels or reals, as four vectors of reals.
pub fn reals(e: &mut Emitter<'_>, from: Elem, at: Value) -> Vec<Value> {
    if from == Elem::F32 {
        return (0..4).map(|i| e.load(F32, at, 16 * i)).collect();
    }
    integers(e, from, at).into_iter().map(|x| e.b.ins().fcvt_from_sint(F32, x)).collect()
}

/// 16 sums or levels, in four vectors of 32-bit lanes.
fn integers(e: &mut Emitter<'_>, from: Elem, at: Value) -> Vec<Value> {
    let bytes = match from {
        Elem::Level(..) => from.bytes(),
        Elem::F32 | Elem::I32 | Elem::I8 | Elem::I4(_) => 4,
    };
    let parts = (0..bytes).map(|i| e.load(levels_of(bytes), at, 16 * i)).collect();
    (bytes.ilog2()..2).fold(parts, |parts: LevelVectors, _| widened(e, &parts))
}

/// The same levels in lanes twice as wide, and twice as many vectors.
pub fn widened(e: &mut Emitter<'_>, parts: &[Value]) -> LevelVectors {
    parts.iter().flat_map(|&x| [e.b.ins().swiden_low(x), e.b.ins().swiden_high(x)]).collect()
}

/// The same levels, which fit, in lanes half as wide, and half as many vectors.
fn narrowed(e: &mut Emitter<'_>, parts: &[Value]) -> LevelVectors {
    parts.chunks_exact(2).map(|pair| e.b.ins().snarrow(pair[0], pair[1])).collect()
}

pub fn potential(e: &mut Emitter<'_>, from: Elem, at: Value, offset: usize) -> Value {
    if from == Elem::I32 {
        let x = e.load(I32, at, offset);
        e.b.ins().fcvt_from_sint(F32, x)
    } else {
        e.load(F32, at, offset)
    }
}

/// `x * constant(i) + constant(i + 1)`
pub fn scale_shift_of(
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
pub fn level(e: &mut Emitter<'_>, p: Value, most: i32) -> Value {
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
pub fn look_up(e: &mut Emitter<'_>, table: Value, h: Value) -> Value {
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
pub fn narrow(e: &mut Emitter<'_>, levels: &[Value], bytes: usize) -> LevelVectors {
    (bytes.ilog2()..2).fold(levels.to_vec(), |levels, _| narrowed(e, &levels))
}

/// Emits the spikes of 16 levels, timestep by timestep, by comparing what is left of the magnitude with a threshold.
/// Binary: thresholds halve, and a spike takes its threshold away. Unary: a spike takes 1, so `t < |n|` is what is left.
pub fn emit_spikes(e: &mut Emitter<'_>, (code, steps): (Code, u16), levels: &[Value], out: Value, plane: usize) {
    let bytes = Elem::Level(code, steps).bytes();
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
    let first = e.b.ins().iconst(types::I32, i64::from(code.weight(0, steps)));
    let threshold = e.variable(first);
    let end = e.int(plane * usize::from(steps));
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
        if code == Code::Binary {
            let by = e.b.ins().iconst(types::I32, 1);
            let next = e.b.ins().ushr(weight, by);
            e.b.def_var(threshold, next);
        }
    });
}

/// Spikes of 16 levels, in four lanes of 32 bits.
pub fn spikes_of(e: &mut Emitter<'_>, code: Code, levels: &[Value], bytes: usize) -> Value {
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
pub fn magnitudes_that(e: &mut Emitter<'_>, compares: IntCC, than: i32, levels: &[Value], bytes: usize) -> Value {
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
pub fn folded(e: &mut Emitter<'_>, counts: &[Value]) -> Value {
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
pub fn total(e: &mut Emitter<'_>, x: Value) -> Value {
    let lanes: Vec<Value> = (0..4u8)
        .map(|i| {
            let lane = e.b.ins().extractlane(x, i);
            e.b.ins().uextend(types::I64, lane)
        })
        .collect();
    sum(e, &lanes)
}

/// Lanes of `a` where the mask is all ones, of `b` where it is zero.
pub fn select(e: &mut Emitter<'_>, mask: Value, a: Value, b: Value) -> Value {
    let mask = e.cast(F32, mask);
    e.b.ins().bitselect(mask, a, b)
}

/// Toward zero, of values that fit.
fn truncate(e: &mut Emitter<'_>, x: Value) -> Value {
    if e.x86 { e.b.ins().x86_cvtt2dq(I32, x) } else { e.b.ins().fcvt_to_sint_sat(I32, x) }
}

pub fn splat_float(e: &mut Emitter<'_>, x: f32) -> Value {
    let x = e.b.ins().f32const(Ieee32::with_float(x));
    e.b.ins().splat(F32, x)
}

pub fn splat_int(e: &mut Emitter<'_>, ty: Type, n: i64) -> Value {
    let n = e.b.ins().iconst(ty.lane_type(), n);
    e.b.ins().splat(ty, n)
}
