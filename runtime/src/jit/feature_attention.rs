//! Attention whose memory fades: by coincidence, and linear; from a step's rows to the kernels, head by head.

use super::Compiled;
use super::dispatch::{SHARED, by_heads};
use super::host::{Fault, StepConstants, number, number_mut};
use crate::kernels::{CoincidenceCount, CoincidenceShape, ColumnRange, Kernels, LinearShape, StateSum, words};
use crate::kv_cache::{CacheEntry, CachedRows, StateSums};
use crate::plan::{StepKind, plane_bytes};
use snnc_ir::eval::spike_events;
use snnc_ir::events::Events;
use snnc_ir::membrane::Membrane;
use snnc_ir::ssa::meaning::first_key;
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Curve, Type};
use std::sync::{Mutex, PoisonError};

/// Rows of one sequence after `past` others.
pub fn attend(
    compiled: &Compiled,
    call: &StepConstants<'_>,
    entry: &mut CacheEntry,
    past: usize,
    rows: [&[u8]; 3],
    out: &mut [u8],
) -> Result<Events, Fault> {
    let memory = DecayMemory { sink: call.f32(0)?, half_life: call.i32(1)?, past };
    match call.step.kind {
        StepKind::Coincidence { heads, squared, steps, features, trains, emit, width } => {
            let shape = CoincidenceHeads { heads, squared, steps, features, width };
            let queries = out.len() / out_bytes(call, emit, width, steps);
            let [q, k] = [rows[0], rows[1]].map(|x| shape.words(compiled.kernels, x, trains, queries));
            let score_pairs = q.as_ref().map_or(0, |q| shape.one_sided(q, &memory));
            let entry = entry.rows().ok_or(Fault::Misfit)?;
            let mut events = if emit {
                let spelled = if trains { Vec::new() } else { shape.planes(rows[2], queries)? };
                let v = if trains { number(rows[2])? } else { &spelled };
                entry.append::<u64, i8>(past, &k?, v).ok_or(Fault::Misfit)?;
                let (CachedRows::Words(k), CachedRows::I8(v)) = (&entry.keys, &entry.values) else {
                    return Err(Fault::Misfit);
                };
                shape.emit(compiled, &memory, [&q?, k], v, call.f32(2)?, LifOutput { bytes: out, trains })?
            } else {
                entry.append_words(past, &k?, rows[2]).ok_or(Fault::Misfit)?;
                let (q, most, out) = (q?, most_of(call, 2), number_mut(out)?);
                let CachedRows::Words(k) = &entry.keys else { return Err(Fault::Misfit) };
                match &entry.values {
                    CachedRows::I8(v) => shape.mean(compiled, &memory, [&q, k], v, most, out),
                    CachedRows::I16(v) => shape.mean(compiled, &memory, [&q, k], v, most, out),
                    CachedRows::I32(v) => shape.mean(compiled, &memory, [&q, k], v, most, out),
                    CachedRows::F32(_) | CachedRows::Words(_) => return Err(Fault::Misfit),
                }
            };
            (events.keys, events.score_pairs) = (keys(past, queries), score_pairs);
            Ok(events)
        }
        StepKind::LinearAttention { heads, guard, codes, features, width } => {
            let tokens = out.len() / (4 * width);
            let [q, k] = [rows[0], rows[1]].map(|rows| levels(rows, tokens * heads * features));
            let v = levels(rows[2], tokens * width);
            let sums = entry.sums(past).ok_or(Fault::Misfit)?;
            let shape = LinearHeads { heads, guard, codes, features, width };
            let (rows, out) = ([&q?[..], &k?, &v?], number_mut(out)?);
            let score_additions = match sums {
                StateSums::I32(sums) => shape.run(compiled, &memory, rows, sums, out),
                StateSums::I64(sums) => shape.run(compiled, &memory, rows, sums, out),
            };
            Ok(Events { keys: keys(past, tokens), score_additions, ..Events::default() })
        }
        _ => Err(Fault::Misfit),
    }
}

/// What heads remember, and how many tokens were before.
struct DecayMemory<'a> {
    sink: &'a [f32],
    half_life: &'a [i32],
    past: usize,
}

/// Keys that queries meet, with and without weight.
fn keys(past: usize, tokens: usize) -> u64 {
    (past + 1..=past + tokens).map(|n| n as u64).sum()
}

/// The largest level of an operand.
fn most_of(call: &StepConstants<'_>, i: usize) -> i32 {
    let levels = call.graph.ty(call.graph.node(call.step.node).args[i]).levels();
    levels.map_or(i32::MAX, |(code, steps)| code.levels(steps))
}

/// Bytes of a row of results.
fn out_bytes(call: &StepConstants<'_>, emit: bool, width: usize, steps: u16) -> usize {
    match call.graph.ty(call.step.node) {
        Type::Train { .. } => plane_bytes(width) * usize::from(steps),
        Type::Tensor { .. } if emit => width * Elem::Level(Code::Unary, steps).bytes(),
        Type::Tensor { .. } => 4 * width,
    }
}

/// Attention by coincidence, of all heads.
struct CoincidenceHeads {
    heads: usize,
    squared: bool,
    steps: u16,
    features: usize,
    width: usize,
}

/// Where LIF neurons' spikes go: planes, or levels.
struct LifOutput<'a> {
    bytes: &'a mut [u8],
    trains: bool,
}

impl CoincidenceHeads {
    /// Features of some tokens as spike words.
    fn words(&self, kernels: Kernels, rows: &[u8], trains: bool, tokens: usize) -> Result<Vec<u64>, Fault> {
        let CoincidenceHeads { heads, features, steps, .. } = *self;
        let mut all = vec![0; tokens * heads * usize::from(steps) * words(features)];
        if trains {
            let stride = plane_bytes(heads * features);
            kernels.words_of_planes(number(rows)?, stride, heads, features, steps, &mut all);
        } else if rows.len() == tokens * heads * features {
            kernels.words_of_levels::<i8>(number(rows)?, heads, features, steps, &mut all);
        } else {
            kernels.words_of_levels::<i16>(number(rows)?, heads, features, steps, &mut all);
        }
        Ok(all)
    }

    /// Values that come as levels, as planes of their spikes.
    fn planes(&self, rows: &[u8], tokens: usize) -> Result<Vec<i8>, Fault> {
        let levels = levels(rows, tokens * self.width)?;
        let stride = plane_bytes(self.width);
        let mut planes = vec![0; tokens * usize::from(self.steps) * stride];
        for (train, levels) in planes.chunks_exact_mut(usize::from(self.steps) * stride).zip(levels.chunks(self.width))
        {
            for (t, plane) in (0..).zip(train.chunks_exact_mut(stride)) {
                plane.iter_mut().zip(levels).for_each(|(spike, &x)| *spike = Code::Unary.spike(x, t, self.steps) as i8);
            }
        }
        Ok(planes)
    }

    /// Spikes of all queries, each once for every key that has not faded.
    fn one_sided(&self, q: &[u64], memory: &DecayMemory<'_>) -> u64 {
        let ColumnRange { stride, len, .. } = self.of_head(0);
        let mut pairs = 0;
        for (at, q) in (memory.past..).zip(q.chunks_exact(stride)) {
            for (words, &every) in q.chunks_exact(len).zip(memory.half_life) {
                let spikes = words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
                pairs += spikes * (at + 1 - first_key(at, every)) as u64;
            }
        }
        pairs
    }

    /// ColumnRange of head `h` in rows of words, of all timesteps.
    fn of_head(&self, h: usize) -> ColumnRange {
        let len = usize::from(self.steps) * words(self.features);
        ColumnRange { stride: self.heads * len, from: h * len, len }
    }

    fn small(&self, tokens: usize, past: usize) -> bool {
        tokens * (past + tokens) * self.heads < SHARED
    }

    /// The weighted means of values.
    fn mean<V: Copy + Into<i32> + Sync>(
        &self,
        compiled: &Compiled,
        memory: &DecayMemory<'_>,
        [q, k]: [&[u64]; 2],
        v: &[V],
        most: i32,
        out: &mut [f32],
    ) -> Events {
        let CoincidenceHeads { heads, squared, width, .. } = *self;
        let (head, tokens) = (width / heads, out.len() / width);
        let rows = Mutex::new((out, CoincidenceCount::default()));
        by_heads(&compiled.pool, heads, self.small(tokens, memory.past), |h| {
            let values = ColumnRange { stride: width, from: h * head, len: head };
            let (sink, half_life) = (memory.sink[h], memory.half_life[h]);
            let shape =
                CoincidenceShape { past: memory.past, words: self.of_head(h), values, squared, most, sink, half_life };
            let mut part = vec![0.0; tokens * head];
            let done = compiled.kernels.coincidence(q, k, v, &shape, &mut part);
            let (out, all) = &mut *rows.lock().unwrap_or_else(PoisonError::into_inner);
            put(out, &part, width, h * head);
            *all = *all + done;
        });
        let (_, done) = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        Events { score_additions: done.pairs, value_keys: done.keys, ..Events::default() }
    }

    /// Spikes of LIF neurons that each timestep's weighted means of v's spikes flow into.
    fn emit(
        &self,
        compiled: &Compiled,
        memory: &DecayMemory<'_>,
        [q, k]: [&[u64]; 2],
        v: &[i8],
        gain: &[f32],
        out: LifOutput<'_>,
    ) -> Result<Events, Fault> {
        let CoincidenceHeads { heads, steps, width, .. } = *self;
        let (head, all) = (width / heads, self.of_head(0));
        let tokens = q.len() / all.stride;
        // By timestep, as the oracle says it.
        let parts = Mutex::new((vec![vec![0i32; tokens * width]; usize::from(steps)], CoincidenceCount::default()));
        by_heads(&compiled.pool, heads, self.small(tokens, memory.past), |h| {
            let mut neurons = vec![Membrane::start::<f32>(); tokens * head];
            let mut means = vec![0.0; tokens * head];
            for t in 0..usize::from(steps) {
                let len = words(self.features);
                let words = ColumnRange { stride: all.stride, from: self.of_head(h).from + t * len, len };
                let stride = plane_bytes(width);
                let values =
                    ColumnRange { stride: usize::from(steps) * stride, from: t * stride + h * head, len: head };
                let (sink, half_life) = (memory.sink[h], memory.half_life[h]);
                let shape =
                    CoincidenceShape { past: memory.past, words, values, squared: false, most: 1, sink, half_life };
                let done = compiled.kernels.coincidence(q, k, v, &shape, &mut means);
                let gains = gain[h * head..][..head].iter().cycle();
                let fire = |((neuron, &mean), &gain): ((&mut _, &f32), &f32)| {
                    Membrane::Lif.step(neuron, mean * gain, steps, Curve::Identity)
                };
                let part: Vec<i32> = neurons.iter_mut().zip(&means).zip(gains).map(fire).collect();
                let (parts, all) = &mut *parts.lock().unwrap_or_else(PoisonError::into_inner);
                put(&mut parts[t], &part, width, h * head);
                *all = *all + done;
            }
        });
        let (parts, done) = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        write(&parts, width, out)?;
        let events = Events { score_additions: done.pairs, value_keys: done.keys, ..spike_events(&parts) };
        Ok(events)
    }
}

/// LinearHeads attention, of all heads.
struct LinearHeads {
    heads: usize,
    guard: u8,
    codes: [Code; 2],
    features: usize,
    width: usize,
}

impl LinearHeads {
    /// Results, and additions that spikes drove. `sums`: of all heads.
    fn run<S: StateSum + Send>(
        &self,
        compiled: &Compiled,
        memory: &DecayMemory<'_>,
        [q, k, v]: [&[i32]; 3],
        sums: &mut [S],
        out: &mut [f32],
    ) -> u64 {
        let LinearHeads { heads, guard, codes, features, width } = *self;
        let (head, tokens) = (width / heads, out.len() / width);
        let shape = |h: usize| {
            let (sink, half_life) = (memory.sink[h], memory.half_life[h]);
            LinearShape { past: memory.past, features, width: head, guard, sink, half_life }
        };
        let sums: Vec<Mutex<&mut [S]>> = sums.chunks_exact_mut(shape(0).numbers()).map(Mutex::new).collect();
        let out = Mutex::new(out);
        by_heads(&compiled.pool, heads, tokens * heads * shape(0).numbers() < SHARED, |h| {
            let [q, k] = [q, k].map(|x| take(x, heads * features, h * features, features));
            let v = take(v, width, h * head, head);
            let mut part = vec![0.0; tokens * head];
            let mut sums = sums[h].lock().unwrap_or_else(PoisonError::into_inner);
            compiled.kernels.linear_attention(&q, &k, &v, &shape(h), &mut sums, &mut part);
            put(&mut out.lock().unwrap_or_else(PoisonError::into_inner), &part, width, h * head);
        });
        let spikes = |code: Code, x: &[i32]| x.iter().map(|&x| u64::from(code.spikes(x))).sum::<u64>();
        (spikes(codes[0], q) + spikes(codes[1], k)) * (head as u64 + 1)
    }
}

/// Some columns of rows of `width`.
fn take(rows: &[i32], width: usize, from: usize, len: usize) -> Vec<i32> {
    rows.chunks_exact(width).flat_map(|row| &row[from..from + len]).copied().collect()
}

/// So many levels, however they are stored, in 32 bits.
fn levels(bytes: &[u8], count: usize) -> Result<Vec<i32>, Fault> {
    Ok(match bytes.len().checked_div(count) {
        Some(1) => number::<i8>(bytes)?.iter().map(|&x| i32::from(x)).collect(),
        Some(2) => number::<i16>(bytes)?.iter().map(|&x| i32::from(x)).collect(),
        _ => number::<i32>(bytes)?.to_vec(),
    })
}

impl std::ops::Add for CoincidenceCount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { pairs: self.pairs + other.pairs, keys: self.keys + other.keys }
    }
}

/// A head's results into rows of `width`, from column `from` on.
fn put<T: Copy>(out: &mut [T], part: &[T], width: usize, from: usize) {
    let rows = out.len() / width;
    for (out, part) in out.chunks_exact_mut(width).zip(part.chunks_exact(part.len() / rows.max(1))) {
        out[from..from + part.len()].copy_from_slice(part);
    }
}

/// Spikes by timestep to planes, or to levels.
fn write(parts: &[Vec<i32>], width: usize, out: LifOutput<'_>) -> Result<(), Fault> {
    if out.trains {
        let planes: &mut [i8] = number_mut(out.bytes)?;
        planes.fill(0);
        let stride = plane_bytes(width);
        for (i, train) in planes.chunks_exact_mut(parts.len() * stride).enumerate() {
            for (part, plane) in parts.iter().zip(train.chunks_exact_mut(stride)) {
                plane.iter_mut().zip(&part[i * width..][..width]).for_each(|(spike, &x)| *spike = x as i8);
            }
        }
        return Ok(());
    }
    let neurons = parts.first().map_or(0, Vec::len);
    let levels = (0..neurons).map(|i| parts.iter().map(|part| part[i]).sum::<i32>());
    if out.bytes.len() == neurons {
        number_mut::<i8>(out.bytes)?.iter_mut().zip(levels).for_each(|(out, level)| *out = level as i8);
    } else {
        number_mut::<i16>(out.bytes)?.iter_mut().zip(levels).for_each(|(out, level)| *out = level as i16);
    }
    Ok(())
}
