//! The kernels' side of the trampoline: from a step and its rows to the kernel that does it.

use super::Compiled;
use super::dispatch;
use super::feature_attention;
use super::memory::Plain;
use super::memory::{ForwardPass, Operands, cast, cast_mut};
use crate::kernels::{self, Isa, Kernels, Panels};
use crate::kv_cache::{CacheElement, CacheEntry, KeyValueRows};
use crate::plan::{NeuronLayer, Plan, Step, StepKind, level_bytes, plane_bytes};
use crate::pool::Pool;
use crate::program::Options;
use snnc_ir::events::Events;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::Layout;
use snnc_ir::ssa::meaning::phase_weights;
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Curve, Diagnostic, Graph, Type};

/// Why a kernel stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotFinite,
    /// Lengths or types do not fit: an error of the plan.
    Misfit,
}

impl Fault {
    pub fn code(self) -> i32 {
        match self {
            Fault::NotFinite => 1,
            Fault::Misfit => 2,
        }
    }

    pub fn from_code(code: i32) -> Self {
        if code == 1 { Fault::NotFinite } else { Fault::Misfit }
    }
}

/// What a step's kernel wants beside the graph's constants.
#[derive(Debug)]
pub enum Prepared {
    Nothing,
    /// Weights of the phases of spiking attention.
    Phases(Vec<i32>),
}

/// The kernels of the wanted instruction set: `options.isa`, or what `SNNC_ISA` says, or the best there is.
pub fn kernels(options: &Options) -> Result<Kernels, Diagnostic> {
    let isa = options.isa.map_or_else(Isa::detect, Ok);
    isa.and_then(Kernels::new).map_err(|message| Diagnostic::new("", message))
}

pub fn prepare(plan: &Plan) -> Vec<Prepared> {
    let one = |step: &Step| match step.kind {
        StepKind::TtfsAttention { phases, .. } => Prepared::Phases(phase_weights(phases)),
        _ => Prepared::Nothing,
    };
    plan.steps.iter().map(one).collect()
}

/// Runs the kernel of a step on its operands' rows, which begin at row `first` of the chunk.
pub fn run(run: &mut ForwardPass<'_>, i: usize, operands: Operands<'_>, first: usize) -> Result<(), Fault> {
    let compiled = run.compiled;
    let step = &compiled.plan.steps[i];
    let call = StepConstants { graph: &compiled.graph, step };
    let kernels = compiled.kernels;
    if operands.out.is_empty() {
        // Of this step's rows none are wanted.
        return Ok(());
    }
    if step.kind.keeps_state() {
        return if first == 0 { attention(run, i, operands) } else { Err(Fault::Misfit) };
    }
    let Operands { inputs: [a, b, _], out } = operands;
    match step.kind {
        StepKind::Embed { width, .. } => {
            let known = kernels.embed(number(a)?, call.f32(0)?, width, number_mut(out)?);
            if known { Ok(()) } else { Err(Fault::Misfit) }
        }
        StepKind::EmbedColumns { inputs, outputs } => {
            let known = kernels.embed_columns(number(a)?, call.panels(0, inputs, outputs)?, number_mut(out)?);
            if known { Ok(()) } else { Err(Fault::Misfit) }
        }
        StepKind::LayerNormNoGain { eps, width } => {
            finite(kernels.layer_norm_no_gain(number(a)?, width, eps.get(), number_mut(out)?))
        }
        StepKind::LayerNorm { eps, .. } => {
            finite(kernels.layer_norm(number(a)?, call.f32(0)?, call.f32(1)?, eps.get(), number_mut(out)?))
        }
        StepKind::Linear { layout, inputs, outputs } => {
            let (x, w, bias, y) = (number(a)?, call.f32(0)?, Some(call.f32(1)?), number_mut(out)?);
            match layout {
                Layout::InputMajor => kernels.linear_f32(x, w, bias, inputs, outputs, y),
                Layout::OutputMajor => kernels.linear_f32_output_major(x, w, bias, inputs, outputs, y),
            }
            Ok(())
        }
        StepKind::Curve { curve, .. } => {
            kernels.curve_f32(dense_curve(curve), number(a)?, number_mut(out)?);
            Ok(())
        }
        StepKind::MatMulInt { code, steps, inputs, outputs } => {
            let (w, y) = (call.panels(0, inputs, outputs)?, number_mut(out)?);
            // Where neurons have counted what they emit, `Jit::record` knows.
            if compiled.count && compiled.emitters[i].is_none() {
                let spikes = match level_bytes(code, steps) {
                    1 => kernels.count_spikes(number::<i8>(a)?, spelling(code)),
                    2 => kernels.count_spikes(number::<i16>(a)?, spelling(code)),
                    _ => number::<i32>(a)?.iter().map(|&level| u64::from(code.spikes(level))).sum(),
                };
                run.events[i].additions += spikes * outputs as u64;
            }
            run.products[i] += match level_bytes(code, steps) {
                1 => dispatch::matmul_int(kernels, &compiled.costs, &compiled.pool, number(a)?, w, y),
                2 if code.levels(steps) <= kernels::MOST_IN_TWO => {
                    dispatch::matmul_int_wide(kernels, &compiled.pool, number(a)?, w, y)
                }
                2 => dispatch::matmul_int_widest(kernels, &compiled.pool, number::<i16>(a)?, w, y),
                _ => dispatch::matmul_int_widest(kernels, &compiled.pool, number::<i32>(a)?, w, y),
            };
            Ok(())
        }
        StepKind::Synapse { code, steps, inputs, outputs } => {
            let (w, y) = (call.panels(0, inputs, outputs)?, number_mut(out)?);
            let trains = dispatch::SpikePlanes { planes: number(a)?, stride: plane_bytes(inputs), steps: steps.into() };
            run.taken[i] += dispatch::synapse(kernels, &compiled.pool, trains, code.carry(), w, y);
            Ok(())
        }
        StepKind::Currents { steps, inputs, outputs } => {
            let (w, y) = (call.panels(0, inputs, outputs)?, number_mut(out)?);
            let planes: &[i8] = number(a)?;
            debug_assert_eq!(planes.len() / plane_bytes(inputs) % usize::from(steps), 0, "whole trains");
            let trains = dispatch::SpikePlanes { planes, stride: plane_bytes(inputs), steps: 1 };
            run.taken[i] += dispatch::synapse(kernels, &compiled.pool, trains, 1, w, y);
            Ok(())
        }
        StepKind::Neuron(layer) => {
            run.events[i] += call.neuron(compiled, &layer, a, out)?;
            Ok(())
        }
        StepKind::TimeStepped { membrane, steps, curve, from, width } => {
            let layer = TimeSteppedNeuron { membrane, steps, curve, gain: call.f32(0)?, offset: call.f32(1)? };
            let events = match from {
                None => layer.run(
                    number::<i32>(a)?,
                    width * usize::from(steps),
                    |x, row, t, c| {
                        layer.of_current(x[row * width * usize::from(steps) + usize::from(t) * width + c], c)
                    },
                    number_mut(out)?,
                ),
                Some(Elem::F32) => layer.run(
                    number::<f32>(a)?,
                    width,
                    |x, row, _, c| layer.of_still(x[row * width + c], c),
                    number_mut(out)?,
                ),
                Some(_) => layer.run(
                    number::<i32>(a)?,
                    width,
                    |x, row, _, c| layer.of_still(x[row * width + c] as f32, c),
                    number_mut(out)?,
                ),
            };
            if compiled.count {
                run.events[i] += events;
            }
            Ok(())
        }
        StepKind::RowMaxAbs { width } => finite(kernels.row_max_abs(number(a)?, width, number_mut(out)?)),
        StepKind::Scale { divide, width } => {
            kernels.scale_rows(number(a)?, number(b)?, width, divide, number_mut(out)?);
            Ok(())
        }
        StepKind::GatherChannels { inputs, .. } => {
            kernels.gather_channels(number(a)?, inputs, call.i32(0)?, number_mut(out)?);
            Ok(())
        }
        StepKind::HeadLinear { inputs, outputs, .. } => {
            kernels.head_linear(number(a)?, call.f32(0)?, inputs, outputs, number_mut(out)?);
            Ok(())
        }
        StepKind::Attention { .. }
        | StepKind::TtfsAttention { .. }
        | StepKind::Coincidence { .. }
        | StepKind::LinearAttention { .. }
        | StepKind::Decode { .. }
        | StepKind::ScaleShift { .. }
        | StepKind::Add { .. } => Err(Fault::Misfit),
    }
}

/// Runs attention on the rows of each sequence, with what is kept of it.
fn attention(run: &mut ForwardPass<'_>, i: usize, operands: Operands<'_>) -> Result<(), Fault> {
    let node = run.compiled.plan.steps[i].node;
    let rows: usize = run.spans.iter().map(|span| span.tokens.len()).sum();
    let Operands { mut inputs, mut out } = operands;
    let bytes = inputs.map(|rows_of| rows_of.len() / rows);
    let out_bytes = out.len() / rows;
    for span in run.spans {
        let rows = span.tokens.len();
        let sequence = &mut run.sequences[span.sequence];
        let entry = sequence.entries[node.index()].as_mut().ok_or(Fault::Misfit)?;
        let mine = [0, 1, 2].map(|k| inputs[k].split_at(rows * bytes[k]));
        let (mine_out, rest) = out.split_at_mut(rows * out_bytes);
        run.events[i] += attend_span(run.compiled, i, entry, sequence.past, mine.map(|(mine, _)| mine), mine_out)?;
        (inputs, out) = (mine.map(|(_, rest)| rest), rest);
    }
    Ok(())
}

/// Attention of some rows of one sequence after `past` others.
fn attend_span(
    compiled: &Compiled,
    i: usize,
    entry: &mut CacheEntry,
    past: usize,
    [q, k, v]: [&[u8]; 3],
    out: &mut [u8],
) -> Result<Events, Fault> {
    let (kernels, step) = (compiled.kernels, &compiled.plan.steps[i]);
    let call = StepConstants { graph: &compiled.graph, step };
    if let StepKind::Coincidence { .. } | StepKind::LinearAttention { .. } = step.kind {
        return feature_attention::attend(compiled, &call, entry, past, [q, k, v], out);
    }
    let out = number_mut::<f32>(out)?;
    let keys = |width: usize| (past + 1..=past + out.len() / width).map(|n| n as u64).sum();
    match step.kind {
        StepKind::Attention { heads, scale, width } => {
            let events = Events { keys: keys(width), ..Events::default() };
            let entry = entry.rows().ok_or(Fault::Misfit)?;
            let (keys, values) = extend::<f32, f32>(entry, number(k)?, number(v)?, past)?;
            kernels.attention_f32(number(q)?, keys, values, width, heads, scale.get(), out);
            Ok(events)
        }
        StepKind::TtfsAttention { code, steps, width, wide, long, keys: most, .. } => {
            let Prepared::Phases(weights) = &compiled.prepared[i] else { return Err(Fault::Misfit) };
            let keys = keys(width);
            // Where the queries come as trains, their spikes drive the scores one timestep at a time.
            let stepped = matches!(call.graph.ty(call.graph.node(step.node).args[0]), Type::Train { .. });
            let (slope, code, steps) = (call.f32(0)?, spelling(code), stepped.then_some(steps));
            let shape =
                kernels::SsaShape { d: width, slope, weights, code, steps, keys: most.map(|most| most as usize) };
            let entry = entry.rows().ok_or(Fault::Misfit)?;
            let attend = match wide {
                _ if long => attend_long,
                [false, false, false] => attend::<i8, i8, i8>,
                [false, false, true] => attend::<i8, i8, i16>,
                [false, true, false] => attend::<i8, i16, i8>,
                [false, true, true] => attend::<i8, i16, i16>,
                [true, false, false] => attend::<i16, i8, i8>,
                [true, false, true] => attend::<i16, i8, i16>,
                [true, true, false] => attend::<i16, i16, i8>,
                [true, true, true] => attend::<i16, i16, i16>,
            };
            let counts = attend(kernels, &compiled.pool, entry, past, (q, k, v), &shape, out)?;
            let kernels::SsaCount { score_pairs, score_additions, value_keys } = counts;
            Ok(Events { keys, score_pairs, score_additions, value_keys, ..Events::default() })
        }
        _ => Err(Fault::Misfit),
    }
}

/// A layer of neurons that are time-stepped.
struct TimeSteppedNeuron<'a> {
    membrane: Membrane,
    steps: u16,
    curve: Curve,
    gain: &'a [f32],
    offset: &'a [f32],
}

impl TimeSteppedNeuron<'_> {
    /// A timestep's input from its current.
    fn of_current(&self, x: i32, c: usize) -> f32 {
        x as f32 * self.gain[c] + self.offset[c] / f32::from(self.steps)
    }

    /// A timestep's share of a tensor.
    fn of_still(&self, x: f32, c: usize) -> f32 {
        (x * self.gain[c] + self.offset[c]) / f32::from(self.steps)
    }

    /// Rows of `row` numbers to spikes, a plane a timestep; `input(x, row, timestep, channel)`.
    fn run<X>(&self, x: &[X], row: usize, input: impl Fn(&[X], usize, u16, usize) -> f32, planes: &mut [i8]) -> Events {
        let width = self.gain.len();
        let plane = plane_bytes(width);
        let mut events = Events::default();
        planes.fill(0);
        let trains = planes.chunks_exact_mut(plane * usize::from(self.steps));
        for (i, train) in trains.enumerate().take(x.len() / row.max(1)) {
            for c in 0..width {
                let mut state = Membrane::start();
                let mut fired = 0;
                for t in 0..self.steps {
                    let spike = self.membrane.step(&mut state, input(x, i, t, c), self.steps, self.curve);
                    train[usize::from(t) * plane + c] = spike as i8;
                    fired += u64::from(spike.unsigned_abs());
                }
                events.spikes += fired;
                events.active += u64::from(fired > 0);
                events.saturated += u64::from(fired == u64::from(self.steps));
            }
        }
        events
    }
}

/// A step with its graph.
pub(super) struct StepConstants<'a> {
    pub graph: &'a Graph,
    pub step: &'a Step,
}

impl<'a> StepConstants<'a> {
    pub fn f32(&self, i: usize) -> Result<&'a [f32], Fault> {
        let id = self.step.constants.get(i).ok_or(Fault::Misfit)?;
        self.graph.weight(*id).tensor.as_f32().ok_or(Fault::Misfit)
    }

    /// Potentials to levels.
    fn neuron(&self, compiled: &Compiled, layer: &NeuronLayer, x: &[u8], y: &mut [u8]) -> Result<Events, Fault> {
        let activation = match layer.curve {
            Curve::Identity => None,
            curve => {
                let table = compiled.tables.get(&curve).ok_or(Fault::Misfit)?;
                Some(kernels::ActivationTable { gain: self.f32(0)?, offset: self.f32(1)?, table })
            }
        };
        let last = if activation.is_some() { 2 } else { 0 };
        let neuron = kernels::NeuronParams {
            levels: layer.code.levels(layer.steps),
            activation,
            gain: self.f32(last)?,
            offset: self.f32(last + 1)?,
            count: compiled.count.then(|| spelling(layer.code)),
        };
        let (kernels, pool) = (compiled.kernels, &compiled.pool);
        let fired = match (layer.from, level_bytes(layer.code, layer.steps)) {
            (Elem::I32, 1) => dispatch::neuron::<i32, i8>(kernels, pool, number(x)?, &neuron, number_mut(y)?),
            (Elem::I32, 2) => dispatch::neuron::<i32, i16>(kernels, pool, number(x)?, &neuron, number_mut(y)?),
            (Elem::F32, 1) => dispatch::neuron::<f32, i8>(kernels, pool, number(x)?, &neuron, number_mut(y)?),
            (Elem::F32, 2) => dispatch::neuron::<f32, i16>(kernels, pool, number(x)?, &neuron, number_mut(y)?),
            _ => return Err(Fault::Misfit),
        };
        Ok(Events { spikes: fired.spikes, active: fired.active, saturated: fired.saturated, ..Events::default() })
    }

    pub fn i32(&self, i: usize) -> Result<&'a [i32], Fault> {
        let id = self.step.constants.get(i).ok_or(Fault::Misfit)?;
        self.graph.weight(*id).tensor.as_i32().ok_or(Fault::Misfit)
    }

    fn panels(&self, i: usize, inputs: usize, outputs: usize) -> Result<Panels<'a>, Fault> {
        let id = self.step.constants.get(i).ok_or(Fault::Misfit)?;
        let tensor = &self.graph.weight(*id).tensor;
        if tensor.sizes() != [inputs, outputs] {
            return Err(Fault::Misfit);
        }
        Ok(Panels::new(tensor.as_panels().ok_or(Fault::Misfit)?, inputs, outputs))
    }
}

fn finite(yes: bool) -> Result<(), Fault> {
    if yes { Ok(()) } else { Err(Fault::NotFinite) }
}

/// The kernels know nothing of the IR, so they have names of their own for these.
pub(crate) fn dense_curve(curve: Curve) -> kernels::Curve {
    match curve {
        Curve::Identity => kernels::Curve::Identity,
        Curve::Relu => kernels::Curve::Relu,
        Curve::GeluTanh => kernels::Curve::GeluTanh,
        Curve::GeluErf => kernels::Curve::GeluErf,
        Curve::GeluQuick => kernels::Curve::GeluQuick,
        Curve::Silu => kernels::Curve::Silu,
    }
}

fn spelling(code: Code) -> kernels::Code {
    match code {
        Code::Binary => kernels::Code::Binary,
        Code::Unary => kernels::Code::Unary,
    }
}

/// Spiking attention of queries, keys and values stored in `Q`, `K` and `V`.
fn attend<Q, K, V>(
    kernels: Kernels,
    pool: &Pool,
    entry: &mut KeyValueRows,
    past: usize,
    (q, k, v): (&[u8], &[u8], &[u8]),
    shape: &kernels::SsaShape<'_>,
    out: &mut [f32],
) -> Result<kernels::SsaCount, Fault>
where
    Q: Plain + kernels::StoredLevel + Sync,
    K: Plain + kernels::StoredLevel + CacheElement + Sync,
    V: Plain + kernels::StoredLevel + CacheElement + Sync,
{
    let (k, v) = extend::<K, V>(entry, number(k)?, number(v)?, past)?;
    Ok(dispatch::attend(kernels, pool, number::<Q>(q)?, k, v, shape, out))
}

/// The same in 64 bits, of levels stored in any way; how is said by the lengths of their rows.
fn attend_long(
    kernels: Kernels,
    _: &Pool,
    entry: &mut KeyValueRows,
    past: usize,
    (q, k, v): (&[u8], &[u8], &[u8]),
    shape: &kernels::SsaShape<'_>,
    out: &mut [f32],
) -> Result<kernels::SsaCount, Fault> {
    entry.append_levels(past, k, v).ok_or(Fault::Misfit)?;
    let q = match q.len().checked_div(out.len()) {
        Some(1) => number::<i8>(q)?.iter().map(|&x| i32::from(x)).collect(),
        Some(2) => number::<i16>(q)?.iter().map(|&x| i32::from(x)).collect(),
        _ => number::<i32>(q)?.to_vec(),
    };
    let [keys, values] = [&entry.keys, &entry.values].map(|kept| kept.levels().ok_or(Fault::Misfit));
    Ok(kernels.ssa_long(&q, &keys?, &values?, shape, out))
}

/// Adds this call's keys and values to the state; all keys and values of the sequence.
fn extend<'s, K: CacheElement, V: CacheElement>(
    entry: &'s mut KeyValueRows,
    keys: &[K],
    values: &[V],
    past: usize,
) -> Result<(&'s [K], &'s [V]), Fault> {
    entry.append(past, keys, values).ok_or(Fault::Misfit)?;
    K::view(&entry.keys).zip(V::view(&entry.values)).ok_or(Fault::Misfit)
}

pub(super) fn number<T: Plain>(bytes: &[u8]) -> Result<&[T], Fault> {
    cast(bytes).ok_or(Fault::Misfit)
}

pub(super) fn number_mut<T: Plain>(bytes: &mut [u8]) -> Result<&mut [T], Fault> {
    cast_mut(bytes).ok_or(Fault::Misfit)
}
