//! What takes the time: matrix products, attention, row sums, potentials to levels. Slices in, slices out.
//!
//! Law: every kernel gives the same bits on every instruction set. Integers are exact; a sum of f32 has one stated order,
//! and no multiply-add is ever fused. So vectors lie across outputs, keys or channels, never along a sum. Training alone
//! (`training`) has a law of its own.
//!
//! Kernels know no graph: matrices are row-major slices, their widths are arguments, rows are tokens. A length that does not
//! fit is a mistake of the caller and panics. A body is written once and compiled for each instruction set (`kernels!`);
//! what a compiler does not find by itself is a method of `Vectors`.

#![allow(unsafe_code)]

mod activation;
mod attention;
mod bf16;
mod check;
mod coincidence;
mod elementwise;
mod event_list;
mod exponential;
mod float_lanes;
mod formula;
mod gated_neuron;
mod grouped;
mod hadamard;
mod level;
mod linear;
mod linear_attention;
mod listing;
mod matmul_int;
mod neuron;
mod norm;
mod pairs;
mod panel;
mod rotary;
mod ssa;
mod ssa_bytes;
mod ssa_head;
mod ssa_long;
mod synapse;
#[cfg(test)]
mod tests;
mod topk;
mod training;
mod vectors;

pub(crate) use activation::ActivationTable;
pub(crate) use attention::DenseShape;
pub use bf16::Bf16Unit;
pub(crate) use bf16::{Bf16Left, Bf16Panels, Bf16Rows, multiply_bf16};
pub(crate) use coincidence::{CoincidenceCount, CoincidenceShape, ColumnRange, words};
pub(crate) use elementwise::ScaledRows;
pub(crate) use event_list::{EventList, MOST_IN_TWO, TrainRuns};
pub(crate) use formula::{Formula, FormulaOperand, FormulaStep};
pub(crate) use gated_neuron::{GatedParams, InputRows};
pub(crate) use level::{Potential, StoredLevel};
pub(crate) use linear_attention::{LinearShape, StateSum};
pub(crate) use neuron::{NeuronParams, SpikeCount};
pub(crate) use panel::{OUTPUTS, Panels};
use snnc_ir::Curve;
use snnc_ir::hadamard::HadamardMatrix;
use snnc_ir::op::Pairs;
use snnc_ir::types::Code;
pub(crate) use ssa::{Scratch, SsaCount, SsaShape, TokenThresholds};
use std::ops::Range;
pub(crate) use synapse::PanelOf;
pub(crate) use training::{Axis, Map, StridedMatrix, Zip, multiply};

/// The environment variable that names the instruction set to use.
pub const ISA_VARIABLE: &str = "SNNC_ISA";

/// Instructions that kernels may use.
///
/// ```
/// use snnc_runtime::{ISAS, Isa};
///
/// assert_eq!(ISAS.map(Isa::name), ["portable", "avx2", "avx512"]);
/// assert!(Isa::Portable.is_available() && Isa::best().is_available());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// What the compiler may assume of every machine of this architecture.
    Portable,
    /// x86-64 with 256-bit integer vectors and `popcnt`.
    Avx2,
    /// x86-64 with 512-bit vectors and dot products of bytes (VNNI).
    Avx512,
}

/// From the least to the best.
pub const ISAS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

impl Isa {
    /// What `SNNC_ISA` asks for; the best that the machine has if it is unset or empty.
    ///
    /// # Errors
    /// The variable names no instruction set, or one that this machine does not have.
    pub fn detect() -> Result<Self, String> {
        match std::env::var(ISA_VARIABLE) {
            Ok(name) if !name.is_empty() => Self::from_name(&name).and_then(Self::check),
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(Self::best()),
            Err(std::env::VarError::NotUnicode(name)) => Self::from_name(&name.to_string_lossy()),
        }
    }

    /// As `SNNC_ISA` has it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// The best that this machine has.
    pub fn best() -> Self {
        ISAS.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Whether this machine has these instructions.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => false,
        }
    }

    /// What multiplies numbers of bf16 beside these instructions, if this machine has it.
    pub fn bf16_unit(self) -> Option<Bf16Unit> {
        Bf16Unit::best().filter(|_| self == Isa::Avx512)
    }

    fn from_name(name: &str) -> Result<Self, String> {
        ISAS.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let names = ISAS.map(|isa| format!("`{}`", isa.name()));
            format!("{ISA_VARIABLE} is `{name}`; it can be {}", names.join(", "))
        })
    }

    fn check(self) -> Result<Self, String> {
        if self.is_available() {
            Ok(self)
        } else {
            Err(format!("this machine does not have the instructions `{}`", self.name()))
        }
    }
}

/// Whether kernels for AVX-512 have a unit that multiplies matrices (AMX): it changes no result.
pub(crate) fn multiplies_matrices() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Isa::Avx512.is_available() && vectors::tiles::available();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Methods that run a body compiled for the instruction set at hand. The body and all it calls are `inline(always)`, or the
/// part that is not would be compiled for any machine. `with vectors`: the body's first argument is the `Vectors`.
macro_rules! kernels {
    ($($(#[$meta:meta])* fn $name:ident $([$($generic:tt)*])? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $($body:ident)::+ $(with $vectors:ident)?;)*) => {
        impl Kernels {$(
            $(#[$meta])*
            pub fn $name $(<$($generic)*>)? (self, $($arg: $ty),*) $(-> $ret)? {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,popcnt")]
                fn avx2 $(<$($generic)*>)? ($($arg: $ty),*) $(-> $ret)? {
                    $($body)::+ (
                        $(
                            // SAFETY: this function is compiled for these instructions.
                            unsafe { vectors::avx2::Avx2::$vectors() },
                        )? $($arg),*)
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
                fn avx512 $(<$($generic)*>)? ($($arg: $ty),*) $(-> $ret)? {
                    $($body)::+ (
                        $(
                            // SAFETY: this function is compiled for these instructions.
                            unsafe { vectors::avx512::Avx512::$vectors() },
                        )? $($arg),*)
                }
                match self.isa {
                    Isa::Portable => $($body)::+ ($(vectors::portable::Portable::$vectors(),)? $($arg),*),
                    // SAFETY: `new` has checked that the machine has these instructions.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => unsafe { avx512($($arg),*) },
                    #[cfg(not(target_arch = "x86_64"))]
                    Isa::Avx2 | Isa::Avx512 => unreachable!("`new` has refused it"),
                }
            }
        )*}
    };
}

/// The kernels for one instruction set, which the machine is known to have.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// The kernels of these instructions.
    ///
    /// # Errors
    /// This machine does not have them.
    pub fn new(isa: Isa) -> Result<Self, String> {
        Ok(Self { isa: isa.check()? })
    }

    /// The instructions that they use.
    pub fn isa(self) -> Isa {
        self.isa
    }
}

kernels! {
    // --- memory ---

    /// Reads all of it in order, prefetching as products do, and folds it: how fast weights can be read at best.
    #[must_use]
    fn read(x: &[u64]) -> u64 = elementwise::read with vectors;

    /// Prefetches weights.
    fn prefetch(lines: &[i8]) = elementwise::prefetch with vectors;

    // --- dense f32 ---

    /// `y[n, m] = x[n, k] w[k, m] + bias[m]`, one ascending chain over `k` for each output, the bias last.
    fn linear_f32(x: &[f32], w: &[f32], bias: Option<&[f32]>, k: usize, m: usize, y: &mut [f32]) = linear::input_major with vectors;

    /// `y[n, m] = x[n, k] w[m, k]^T + bias[m]`: the same bits as `linear_f32` on transposed weights.
    fn linear_f32_output_major(x: &[f32], w: &[f32], bias: Option<&[f32]>, k: usize, m: usize, y: &mut [f32]) = linear::output_major with vectors;

    /// Causal attention of `q[n, heads * w]` over `k` and `v`, `[past + n, kv_heads * w]` each.
    fn attention_f32(q: &[f32], k: &[f32], v: &[f32], shape: &DenseShape<'_>, out: &mut [f32]) = attention::causal with vectors;

    /// Rows of `table[v, d]`. False, and `y` in part unwritten, if an id is outside it.
    #[must_use]
    fn embed(ids: &[i32], table: &[f32], d: usize, y: &mut [f32]) -> bool = elementwise::embed;

    /// Each row of `x[n, d]` less its mean.
    fn centre(x: &[f32], d: usize, y: &mut [f32]) = norm::centre;

    /// Each row of `x[n, d]` over the root of its mean square plus `eps`. False if a mean square is not finite.
    #[must_use]
    fn rms_norm(x: &[f32], d: usize, eps: f32, y: &mut [f32]) -> bool = norm::rms_norm;

    /// Heads of each row of `x[n, d]` turned in pairs by `turns[n, r]`: cosines, then sines, of `r / 2` pairs.
    fn rotary(x: &[f32], turns: &[f32], d: usize, heads: usize, pairs: Pairs, y: &mut [f32]) = rotary::rotary;

    /// Blocks of `x`, each times the matrix over the root of its size.
    fn hadamard(x: &[f32], matrix: &HadamardMatrix, y: &mut [f32]) = hadamard::transform with vectors;

    /// Rows of `x`; but the row of an id of `ids` where its token is at position 0. `tokens` are their ids and positions.
    fn at_start(x: &[f32], opening: &[i32], starts: &[i32], rows: &[f32], y: &mut [f32]) = elementwise::at_start;

    /// A curve as `Curve::at_f32` has it, element by element.
    fn curve_f32(curve: Curve, x: &[f32], y: &mut [f32]) = elementwise::curve;

    /// The curve of `gate` times `up`, element by element.
    fn gated_f32(curve: Curve, gate: &[f32], up: &[f32], y: &mut [f32]) = elementwise::gated;

    /// The largest magnitude of each row of `x[n, d]`, 1 where all are 0. False if one is not finite.
    #[must_use]
    fn row_max_abs(x: &[f32], d: usize, y: &mut [f32]) -> bool = elementwise::row_max_abs;

    /// `y[n, d] = x[n, d] * gain[d] + offset[d]`, and then plus a residual `[n, d]`, if there is one.
    fn scale_shift[X: Potential](x: &[X], gain: &[f32], offset: &[f32], residual: Option<&[f32]>, y: &mut [f32]) = elementwise::scale_shift;

    /// `y[n, d] = (x[n, d] * gain[d] + offset[d]) * by[n]`, perhaps `* gain[d] + offset[d]`, and then plus a residual `[n, d]`, if
    /// there is one.
    fn scaled_sums(x: &[i32], rows: &ScaledRows<'_>, by: &[f32], residual: Option<&[f32]>, y: &mut [f32]) = elementwise::scaled_sums;

    /// `y[n, d] = x[n, d] * by[n]`, or over it.
    fn scale_rows(x: &[f32], by: &[f32], d: usize, divide: bool, y: &mut [f32]) = elementwise::scale_rows;

    /// `y[n, heads * m] = x[n, heads * k] w[heads, k, m]`, one ascending chain over a head's `k` for each output.
    fn head_linear(x: &[f32], w: &[f32], k: usize, m: usize, y: &mut [f32]) = linear::head_linear;

    /// `y[n, k] = x[n, channels[k]]`.
    fn gather_channels(x: &[f32], d: usize, channels: &[i32], y: &mut [f32]) = elementwise::gather_channels;

    // --- integers ---

    /// `y[n, m] = x[n, k] w[k, m]`, levels in -128 to 127. Levels of more than 8 bits are `x` and events, a plane per token, of
    /// their higher bytes in ascending order. Sums wrap.
    fn matmul_int(x: &[i8], higher: &[EventList], w: Panels<'_>, y: &mut [i32]) = matmul_int::matmul_int with vectors;

    /// Columns of a weight: `y[n, k] = w[k, ids[n]]`. False, and `y` in part unwritten, if an id is outside it.
    #[must_use]
    fn embed_columns(ids: &[i32], w: Panels<'_>, y: &mut [i32]) -> bool = matmul_int::embed_columns;

    /// How many are not zero.
    fn count_nonzero(x: &[i8]) -> usize = event_list::count_nonzero;

    /// The low byte of each level, with a sign, and what is left: `x = 256 * rest + byte`. Whether anything is left.
    fn split(x: &mut [i32], bytes: &mut [i8]) -> bool = matmul_int::split;

    /// The low byte of each level of rows of `inputs`, with a sign, and the events of what is left: `x = 256 * high + low`.
    /// Levels are at most `MOST_IN_TWO` either way.
    fn split_wide(x: &[i16], inputs: usize, low: &mut [i8]) -> EventList = synapse::split_wide with vectors;

    /// The events of planes of `inputs` numbers that lie `stride` apart.
    fn event_list(planes: &[i8], stride: usize, inputs: usize) -> EventList = listing::event_list with vectors;

    /// Lists the same in the memory of another list.
    fn list_events(planes: &[i8], stride: usize, inputs: usize, events: &mut EventList) = listing::list_events with vectors;

    /// The events of trains of `steps` planes each, for the sums of all timesteps; `carry` is 1 or 2. What the list had is gone.
    fn list_trains(planes: &[i8], stride: usize, inputs: usize, steps: usize, carry: i32, events: &mut TrainRuns) = listing::list_trains with vectors;

    /// `y[n, m] = sum over t of carry^(T - 1 - t) * (events of token and timestep t) w`. Only rows of channels that fired are read, one
    /// for each event. Sums wrap.
    fn trains(events: &TrainRuns, w: Panels<'_>, y: &mut [i32]) = synapse::trains with vectors;

    /// `y[n, m] = (events of token n) w`, for a plane per token. Only rows of channels that fired are read. Sums wrap.
    fn synapse(events: &EventList, w: Panels<'_>, y: &mut [i32]) = synapse::synapse with vectors;

    /// `y[i, 64] = (events of plane planes.start + i) w * gain[64] + offset[64]`, of the 64 outputs of one panel and all of its
    /// columns: every plane on its own. `prefetch`: the panel is not in a cache yet.
    fn tile_inputs(events: &EventList, planes: Range<usize>, panel: PanelOf<'_>, affine: [&[f32; OUTPUTS]; 2], prefetch: bool, y: &mut [f32]) = synapse::tile_inputs with vectors;

    // --- neurons ---

    /// Potentials `x[n, d]` to levels; what fired, or nothing where `neuron.count` is `None`.
    fn quantise[X: Potential, L: StoredLevel](x: &[X], neuron: &NeuronParams<'_>, y: &mut [L]) -> SpikeCount = neuron::quantise with vectors;

    /// Shares of a row's peak, `x[n, d] / peaks[n]`, to levels; what fired, or nothing where `neuron.count` is `None`. No curve.
    fn quantise_shares[L: StoredLevel](x: &[f32], peaks: &[f32], neuron: &NeuronParams<'_>, y: &mut [L]) -> SpikeCount = neuron::quantise_shares;

    /// Gates and what they multiply, `[n, d]` each, to levels; what fired, or nothing where `neuron.count` is `None`.
    fn quantise_gated[L: StoredLevel](gate: InputRows<'_>, up: InputRows<'_>, neuron: &GatedParams<'_>, y: &mut [L]) -> SpikeCount = gated_neuron::quantise;

    /// Levels `[n, d]` as the spikes that spell them: for each row a plane per timestep, `stride` apart.
    fn spell[L: StoredLevel](levels: &[L], d: usize, code: Code, steps: u16, stride: usize, planes: &mut [i8]) = gated_neuron::spell;

    /// How many spikes spell the levels.
    fn count_spikes[L: StoredLevel](levels: &[L], code: Code) -> u64 = neuron::count;

    // --- training ---

    /// Functions of single numbers, over inputs as the formula has them.
    fn evaluate(formula: &Formula, inputs: &[&[f32]], y: &mut [f32]) = formula::evaluate;

    /// `y = sum of x` over axes whose steps are those of `x` and `y`.
    fn sum(x: &[f32], axes: &[Axis], y: &mut [f32]) = training::sum;

    /// The largest of every row.
    fn row_max(x: &[f32], width: usize, y: &mut [f32]) = training::row_max;

    /// 1 for the `keys` largest of every row, of equal ones the latest, else 0.
    fn topk_mask(x: &[f32], width: usize, keys: usize, y: &mut [f32]) = training::topk_mask;

    /// Rows to probabilities.
    fn softmax(x: &[f32], width: usize, y: &mut [f32]) = training::softmax;

    /// The gradient of `rms_norm` by `x`.
    fn rms_norm_grad(x: &[f32], c: &[f32], width: usize, eps: f32, out: &mut [f32]) = training::rms_norm_grad;

    /// Mean Kullback-Leibler divergence of logits `q` from logits `p`, in nats.
    fn divergence(q: &[f32], p: &[f32], width: usize) -> f32 = training::divergence;

    /// Its gradient by `q`, times as many rows as there are and `scale`.
    fn divergence_grad(q: &[f32], p: &[f32], width: usize, scale: f32, out: &mut [f32]) = training::divergence_grad;

    /// Mean negative log likelihood of targets, in nats; NaN where one is outside.
    fn cross_entropy(logits: &[f32], targets: &[i32], width: usize) -> f32 = training::cross_entropy;

    /// Its gradient, times as many rows as there are and `scale`.
    fn cross_entropy_grad(logits: &[f32], targets: &[i32], width: usize, scale: f32, out: &mut [f32]) = training::cross_entropy_grad;

    /// A left operand of a product of bf16, into memory that is there.
    fn round_rows(x: StridedMatrix<'_>, to: &mut Bf16Rows) = bf16::round_rows;

    /// A right operand of a product of bf16, into memory that is there.
    fn round_panels(w: StridedMatrix<'_>, to: &mut Bf16Panels) = bf16::round_panels;

    // --- spiking attention ---

    /// Time-to-first-spike attention of some heads of `q[n, heads * w]`, which share a head of `k` and `v`, `[past + n, kv_heads * w]`
    /// each, all levels: `out[n, some * w]`. Where queries come as trains, their scores are summed timestep by timestep.
    fn ssa[Q: StoredLevel, K: StoredLevel, V: StoredLevel](q: &[Q], k: &[K], v: &[V], shape: &SsaShape<'_>, heads: Range<usize>, scratch: &mut Scratch, out: &mut [f32]) -> SsaCount = ssa::heads with vectors;

    /// Attention by coincidence of some columns of `q`, `k` and `v`; their rows are spike words and levels.
    fn coincidence[V: Copy + Into<i32>](q: &[u64], k: &[u64], v: &[V], shape: &CoincidenceShape, out: &mut [f32]) -> CoincidenceCount = coincidence::attend;

    /// Levels that are not negative as spike words, `[n, heads, steps, words]`: a level above `t` spikes at timestep `t`.
    fn words_of_levels[L: StoredLevel](levels: &[L], heads: usize, features: usize, steps: u16, rows: &mut [u64]) = coincidence::spell;

    /// Planes of spikes that are not negative, `stride` apart, as spike words.
    fn words_of_planes(planes: &[i8], stride: usize, heads: usize, features: usize, steps: u16, rows: &mut [u64]) = coincidence::pack;

    /// Linear attention of one head of keys and the heads of queries that share it; its sums go on.
    fn linear_attention[S: StateSum](q: &[i32], k: &[i32], v: &[i32], shape: &LinearShape<'_>, sums: &mut [S], out: &mut [f32]) = linear_attention::attend;

    /// Time-to-first-spike attention of all heads, `out[n, d]`, where sums may leave 32 bits.
    fn ssa_long(q: &[i32], k: &[i32], v: &[i32], shape: &SsaShape<'_>, out: &mut [f32]) -> SsaCount = ssa_long::attend;
}
