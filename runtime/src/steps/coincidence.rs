//! Attention by coincidence of unary features, with a memory that fades; LIF neurons may stand behind it.

use crate::jit::dispatch::{SHARED, by_heads};
use crate::jit::emit::Emitter;
use crate::jit::loop_call::LoopCode;
use crate::jit::neuron_loop::{LoopInput, NeuronLoop};
use crate::kernels::{CoincidenceCount, CoincidenceShape, ColumnRange, Kernels, SpikeCount, words};
use crate::kv_cache::CachedRows;
use crate::layout::{plane_bytes, row_bytes};
use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{AttentionCall, Fault, Resources, StepForm, StepKind, keys_met, levels, numbers, numbers_mut};
use crate::steps::decode::decode_train;
use crate::steps::heads::{DecayMemory, put};
use crate::steps::time_stepped::{Layer, LayerConstants};
use snnc_ir::events::Events;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::Heads;
use snnc_ir::ssa::Output;
use snnc_ir::ssa::meaning::first_key;
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Curve, Diagnostic, Value};
use std::sync::{Mutex, PoisonError};

/// Attention whose scores are coincidences of spikes.
#[derive(Debug)]
struct CoincidenceStep {
    heads: CoincidenceHeads,
    /// Whether features come as spikes, or as levels.
    trains: bool,
    /// Whether LIF neurons stand behind it.
    emit: bool,
    /// The largest level of a value.
    most: i32,
    /// Bytes of a row of results.
    row_bytes: usize,
}

/// `lif`: what LIF attention gives, if it is that.
///
/// # Errors
/// Operands are neither levels nor spikes.
pub fn plan(
    p: &mut Planner<'_>,
    at: Value,
    heads: Heads,
    squared: bool,
    lif: Option<Output>,
) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let (_, steps) = p.levels(args[0])?;
    let (code, value_steps) = p.levels(args[2])?;
    let emit = lif == Some(Output::Spikes);
    if !emit {
        decode_train(p, at, args[2])?;
    }
    let features = p.width(args[0])? / heads.query as usize;
    let width = p.width(at)?;
    let row_bytes = row_bytes(p.graph.ty(at)).ok_or_else(|| p.misfit(at, "its results are not rows, one per token"))?;
    let kind = CoincidenceStep {
        heads: CoincidenceHeads { heads, squared, steps, features, width },
        trains: p.is_train(args[0]),
        emit,
        most: code.levels(value_steps),
        row_bytes,
    };
    p.step(at, kind, &args[..3], &args[3..])
}

impl StepKind for CoincidenceStep {
    fn name(&self) -> String {
        "coincidence".into()
    }

    fn form(&self, _: bool) -> StepForm {
        if self.emit { StepForm::Loop } else { StepForm::Kernel }
    }

    fn neuron_loop(&self) -> Option<NeuronLoop> {
        self.emit.then(|| self.heads.neurons())
    }

    fn function(&self) -> String {
        format!("attention_{}", self.heads.neurons().name())
    }

    fn emit(&self, e: &mut Emitter<'_>, _: bool) {
        self.heads.neurons().emit(e, true);
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn reads_levels(&self, i: usize) -> bool {
        i == 2 && !self.emit
    }

    fn executed(&self, _: usize, events: &Events, _: &MatmulCounts) -> Executed {
        let head = self.heads.head() as u64;
        Executed { macs: events.value_keys * head, additions: events.score_additions, bytes: 0 }
    }

    fn attend(&self, call: AttentionCall<'_>) -> Result<Events, Fault> {
        let AttentionCall { resources, constants, code, entry, past, rows, out, .. } = call;
        let memory = DecayMemory { sink: constants.f32(0)?, half_life: constants.i32(1)?, past };
        let (heads, trains) = (&self.heads, self.trains);
        let queries = out.len() / self.row_bytes;
        let Heads { query, kv, .. } = heads.heads;
        let q = heads.words(resources.kernels, rows[0], query as usize, trains, queries);
        let k = heads.words(resources.kernels, rows[1], kv as usize, trains, queries);
        let (q, k) = (q?, k?);
        let score_pairs = heads.one_sided(&q, &memory);
        let cache = entry.rows().ok_or(Fault::Misfit)?;
        let events = if self.emit {
            let spelled = if trains { Vec::new() } else { heads.planes(rows[2], queries)? };
            let v = if trains { numbers(rows[2])? } else { &spelled };
            let (k, v) = cache.extend::<u64, i8>(past, &k, v).ok_or(Fault::Misfit)?;
            heads.emit(
                code.ok_or(Fault::Misfit)?,
                resources,
                &memory,
                [&q, k],
                v,
                constants.f32(2)?,
                LifOutput { bytes: out, trains },
            )?
        } else {
            cache.append_words(past, &k, rows[2]).ok_or(Fault::Misfit)?;
            let (most, out) = (self.most, numbers_mut(out)?);
            let CachedRows::Words(k) = &cache.keys else { return Err(Fault::Misfit) };
            match &cache.values {
                CachedRows::I8(v) => heads.mean(resources, &memory, [&q, k], v, most, out),
                CachedRows::I16(v) => heads.mean(resources, &memory, [&q, k], v, most, out),
                CachedRows::I32(v) => heads.mean(resources, &memory, [&q, k], v, most, out),
                CachedRows::F32(_) | CachedRows::Words(_) => return Err(Fault::Misfit),
            }
        };
        Ok(Events { keys: keys_met(past, queries), score_pairs, ..events })
    }
}

/// Attention by coincidence, of all heads.
#[derive(Debug)]
struct CoincidenceHeads {
    heads: Heads,
    squared: bool,
    steps: u16,
    /// Of a head.
    features: usize,
    /// Of a row of results.
    width: usize,
}

/// Where LIF neurons' spikes go: planes, or levels.
struct LifOutput<'a> {
    bytes: &'a mut [u8],
    trains: bool,
}

impl CoincidenceHeads {
    /// Channels of a head.
    fn head(&self) -> usize {
        self.width / self.heads.query as usize
    }

    /// Width of a row of values.
    fn value_width(&self) -> usize {
        self.width / self.heads.group()
    }

    /// Features of some tokens, of so many heads, as spike words.
    fn words(
        &self,
        kernels: Kernels,
        rows: &[u8],
        heads: usize,
        trains: bool,
        tokens: usize,
    ) -> Result<Vec<u64>, Fault> {
        let CoincidenceHeads { features, steps, .. } = *self;
        let mut all = vec![0; tokens * heads * usize::from(steps) * words(features)];
        if trains {
            let stride = plane_bytes(heads * features);
            kernels.words_of_planes(numbers(rows)?, stride, heads, features, steps, &mut all);
        } else if rows.len() == tokens * heads * features {
            kernels.words_of_levels::<i8>(numbers(rows)?, heads, features, steps, &mut all);
        } else {
            kernels.words_of_levels::<i16>(numbers(rows)?, heads, features, steps, &mut all);
        }
        Ok(all)
    }

    /// Values that come as levels, as planes of their spikes.
    fn planes(&self, rows: &[u8], tokens: usize) -> Result<Vec<i8>, Fault> {
        let width = self.value_width();
        let levels = levels(rows, tokens * width)?;
        let stride = plane_bytes(width);
        let mut planes = vec![0; tokens * usize::from(self.steps) * stride];
        for (train, levels) in planes.chunks_exact_mut(usize::from(self.steps) * stride).zip(levels.chunks(width)) {
            for (t, plane) in (0..).zip(train.chunks_exact_mut(stride)) {
                plane.iter_mut().zip(levels).for_each(|(spike, &x)| *spike = Code::Unary.spike(x, t, self.steps) as i8);
            }
        }
        Ok(planes)
    }

    /// Spikes of all queries, each once for every key that has not faded.
    fn one_sided(&self, q: &[u64], memory: &DecayMemory<'_>) -> u64 {
        let [ColumnRange { stride, len, .. }, _] = self.of_head(0);
        let mut pairs = 0;
        for (at, q) in (memory.past..).zip(q.chunks_exact(stride)) {
            for (h, words) in q.chunks_exact(len).enumerate() {
                let every = memory.half_life[h / self.heads.group()];
                let spikes = words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
                pairs += spikes * (at + 1 - first_key(at, every)) as u64;
            }
        }
        pairs
    }

    /// Place of query head `h`, and of the head of keys that it reads, in rows of words of all timesteps.
    fn of_head(&self, h: usize) -> [ColumnRange; 2] {
        let len = usize::from(self.steps) * words(self.features);
        let range = |heads: u32, h: usize| ColumnRange { stride: heads as usize * len, from: h * len, len };
        [range(self.heads.query, h), range(self.heads.kv, h / self.heads.group())]
    }

    fn small(&self, tokens: usize, past: usize) -> bool {
        tokens * (past + tokens) * (self.heads.query as usize) < SHARED
    }

    /// The weighted means of values.
    fn mean<V: Copy + Into<i32> + Sync>(
        &self,
        resources: Resources<'_>,
        memory: &DecayMemory<'_>,
        [q, k]: [&[u64]; 2],
        v: &[V],
        most: i32,
        out: &mut [f32],
    ) -> Events {
        let CoincidenceHeads { heads, squared, width, .. } = *self;
        let (head, tokens) = (self.head(), out.len() / width);
        let rows = Mutex::new((out, CoincidenceCount::default()));
        by_heads(resources.pool, heads.query as usize, self.small(tokens, memory.past), |h| {
            let shared = h / heads.group();
            let values = ColumnRange { stride: self.value_width(), from: shared * head, len: head };
            let (sink, half_life) = (memory.sink[h], memory.half_life[shared]);
            let shape =
                CoincidenceShape { past: memory.past, words: self.of_head(h), values, squared, most, sink, half_life };
            let mut part = vec![0.0; tokens * head];
            let done = resources.kernels.coincidence(q, k, v, &shape, &mut part);
            let (out, all) = &mut *rows.lock().unwrap_or_else(PoisonError::into_inner);
            put(out, &part, width, h * head);
            *all += done;
        });
        let (_, done) = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        Events { score_additions: done.pairs, value_keys: done.keys, ..Events::default() }
    }

    /// The loop of the LIF neurons behind it.
    fn neurons(&self) -> NeuronLoop {
        NeuronLoop {
            membrane: Membrane::LIF,
            steps: self.steps,
            curve: Curve::Identity,
            flow: LoopInput::Currents(Elem::F32),
            width: self.width,
        }
    }

    /// Spikes of LIF neurons that each timestep's weighted means of v's spikes flow into.
    fn emit(
        &self,
        neurons: &LoopCode,
        resources: Resources<'_>,
        memory: &DecayMemory<'_>,
        [q, k]: [&[u64]; 2],
        v: &[i8],
        gain: &[f32],
        out: LifOutput<'_>,
    ) -> Result<Events, Fault> {
        let (means, done) = self.means(resources, memory, [q, k], v);
        let shape = self.neurons();
        let none = vec![0.0; self.width];
        let constants = LayerConstants::of(&shape, &[gain, &none]);
        let layer = Layer { code: neurons, resources, constants };
        let means = bytemuck::cast_slice(&means);
        let fired = if out.trains {
            layer.run_rows(means, numbers_mut(out.bytes)?)
        } else {
            let mut planes =
                vec![0; q.len() / self.of_head(0)[0].stride * usize::from(self.steps) * plane_bytes(self.width)];
            let fired = layer.run_rows(means, &mut planes);
            self.add_up(&planes, out.bytes)?;
            fired
        };
        let SpikeCount { spikes, active, saturated } = fired;
        Ok(Events {
            score_additions: done.pairs,
            value_keys: done.keys,
            spikes,
            active,
            saturated,
            ..Events::default()
        })
    }

    /// Each timestep's weighted means of v's spikes, `[tokens, timesteps, width]`.
    fn means(
        &self,
        resources: Resources<'_>,
        memory: &DecayMemory<'_>,
        [q, k]: [&[u64]; 2],
        v: &[i8],
    ) -> (Vec<f32>, CoincidenceCount) {
        let CoincidenceHeads { heads, width, .. } = *self;
        let (head, steps) = (self.head(), usize::from(self.steps));
        let tokens = q.len() / self.of_head(0)[0].stride;
        let parts = Mutex::new((vec![0.0; tokens * steps * width], CoincidenceCount::default()));
        by_heads(resources.pool, heads.query as usize, self.small(tokens, memory.past), |h| {
            let shared = h / heads.group();
            let mut means = vec![0.0; tokens * head];
            for t in 0..steps {
                let len = words(self.features);
                let words = self.of_head(h).map(|all| ColumnRange { from: all.from + t * len, len, ..all });
                let stride = plane_bytes(self.value_width());
                let values = ColumnRange { stride: steps * stride, from: t * stride + shared * head, len: head };
                let (sink, half_life) = (memory.sink[h], memory.half_life[shared]);
                let shape =
                    CoincidenceShape { past: memory.past, words, values, squared: false, most: 1, sink, half_life };
                let done = resources.kernels.coincidence(q, k, v, &shape, &mut means);
                let (parts, all) = &mut *parts.lock().unwrap_or_else(PoisonError::into_inner);
                for (token, means) in means.chunks_exact(head).enumerate() {
                    parts[(token * steps + t) * width + h * head..][..head].copy_from_slice(means);
                }
                *all += done;
            }
        });
        parts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Planes of spikes to the levels that they add up to.
    fn add_up(&self, planes: &[i8], out: &mut [u8]) -> Result<(), Fault> {
        let (steps, stride) = (usize::from(self.steps), plane_bytes(self.width));
        let trains = planes.chunks_exact(steps * stride);
        let levels = trains.flat_map(|train| {
            (0..self.width).map(move |c| train[c..].iter().step_by(stride).map(|&spike| i32::from(spike)).sum::<i32>())
        });
        if out.len() == planes.len() / (steps * stride) * self.width {
            numbers_mut::<i8>(out)?.iter_mut().zip(levels).for_each(|(out, level)| *out = level as i8);
        } else {
            numbers_mut::<i16>(out)?.iter_mut().zip(levels).for_each(|(out, level)| *out = level as i16);
        }
        Ok(())
    }
}
