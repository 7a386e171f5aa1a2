//! Whether a product is dense or sparse, and how threads share it. Nothing here changes a number.
//!
//! A sparse product reads the rows of the channels that fired, one by one; a dense one reads all rows, four at a time:
//! whichever costs less by the kernel costs, for the events at hand. Few tokens are shared by outputs, many by tokens.

use crate::kernel_costs::KernelCosts;
use crate::kernels::{
    EventList, GatedParams, InputRows, Kernels, NeuronParams, OUTPUTS, Panels, Potential, Scratch, SpikeCount,
    SsaCount, SsaShape, StoredLevel, TrainRuns, multiplies_matrices,
};
use crate::meter::MatmulCounts;
use crate::pool::Pool;
use crate::step::Fault;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most panels of a part of a few tokens' product: a thread that comes late has little left to wait for.
const PANELS: usize = 16;
/// Weights of two parts that are worth a second thread.
const PARTS_BYTES: usize = 1 << 17;
/// Tokens from which a product is shared by tokens.
const TOKENS: usize = 32;
/// Events that are listed at a time: what the second-level cache holds beside a panel.
const EVENTS: usize = 1 << 17;

/// Spikes of some tokens: `steps` planes each, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct SpikePlanes<'a> {
    pub planes: &'a [i8],
    pub stride: usize,
    pub steps: usize,
}

/// `y = x w` for levels of 8 bits.
pub fn matmul_int(
    kernels: Kernels,
    costs: &KernelCosts,
    pool: &Pool,
    x: &[i8],
    w: Panels<'_>,
    y: &mut [i32],
) -> MatmulCounts {
    let rows = x.len() / w.inputs();
    if rows < TOKENS {
        let strategy = Strategy::cheapest(kernels, costs, x, w);
        by_outputs(pool, rows, w, y, |w, y| strategy.run(kernels, x, w, y));
        return strategy.done;
    }
    let done = Mutex::new(MatmulCounts::default());
    by_tokens(pool, x, w, y, |x, y| {
        let strategy = Strategy::cheapest(kernels, costs, x, w);
        strategy.run(kernels, x, w, y);
        *done.lock().unwrap_or_else(PoisonError::into_inner) += strategy.done;
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How the product of some tokens is done.
struct Strategy {
    /// What is read row by row; `None`: all rows are.
    sparse: Option<EventList>,
    done: MatmulCounts,
}

impl Strategy {
    /// Weights of 4 bits are read whole: eight inputs of an output lie together.
    fn cheapest(kernels: Kernels, costs: &KernelCosts, x: &[i8], w: Panels<'_>) -> Self {
        let inputs = w.inputs();
        let (tokens, fired) = (x.len() / inputs, kernels.count_nonzero(x));
        let prefers_sparse = w.grouped().is_none() && costs.prefers_sparse(tokens, inputs, fired);
        let sparse = prefers_sparse.then(|| kernels.event_list(x, inputs, inputs));
        let done = if sparse.is_some() {
            MatmulCounts { sparse: tokens as u64, fired: fired as u64, rows: fired as u64, ..MatmulCounts::default() }
        } else {
            MatmulCounts { dense: tokens as u64, fired: fired as u64, ..MatmulCounts::default() }
        };
        Self { sparse, done }
    }

    fn run(&self, kernels: Kernels, x: &[i8], w: Panels<'_>, y: &mut [i32]) {
        match &self.sparse {
            Some(events) => kernels.synapse(events, w, y),
            None => kernels.matmul_int(x, &[], w, y),
        }
    }
}

/// `y = x w` for levels of more than 8 bits and at most `MOST_IN_TWO`. Most need one byte only, so that the others are few
/// events.
pub fn matmul_int_wide(kernels: Kernels, pool: &Pool, x: &[i16], w: Panels<'_>, y: &mut [i32]) -> MatmulCounts {
    share(pool, x, w, y, |x, w, y| {
        let mut low = vec![0; x.len()];
        let higher = kernels.split_wide(x, w.inputs(), &mut low);
        kernels.matmul_int(&low, &[higher], w, y);
    });
    wide(x, w)
}

/// The same for levels of any size.
pub fn matmul_int_widest<L: Copy + Into<i32> + Sync>(
    kernels: Kernels,
    pool: &Pool,
    x: &[L],
    w: Panels<'_>,
    y: &mut [i32],
) -> MatmulCounts {
    share(pool, x, w, y, |x, w, y| {
        let mut rest: Vec<i32> = x.iter().map(|&x| x.into()).collect();
        let (mut low, mut higher) = (vec![0; x.len()], Vec::new());
        let mut more = kernels.split(&mut rest, &mut low);
        let mut byte = vec![0; x.len()];
        while more {
            more = kernels.split(&mut rest, &mut byte);
            higher.push(kernels.event_list(&byte, w.inputs(), w.inputs()));
        }
        kernels.matmul_int(&low, &higher, w, y);
    });
    wide(x, w)
}

fn wide<L: Copy + Into<i32>>(x: &[L], w: Panels<'_>) -> MatmulCounts {
    // Blocks whose counts fit 8 bits, which vectors count.
    let count = |x: &[L]| x.iter().map(|&x| u8::from(x.into() != 0)).sum::<u8>();
    let fired: usize = x.chunks(128).map(|x| usize::from(count(x))).sum();
    MatmulCounts { dense: (x.len() / w.inputs()) as u64, fired: fired as u64, ..MatmulCounts::default() }
}

thread_local! {
    /// What a thread lists events in.
    static EVENT_LISTS: RefCell<TrainRuns> = RefCell::default();
}

/// Tokens whose spikes are listed together, by those of every seventeenth token. These are different timesteps where a token has
/// one each. At most sixteen times as many as if all channels fired: what is no part of the sample may be less silent.
pub fn tokens_listed(kernels: Kernels, trains: SpikePlanes<'_>, inputs: usize) -> usize {
    const EVERY: usize = 17;
    let SpikePlanes { planes, stride, steps } = trains;
    let sample = planes.chunks(steps * stride).step_by(EVERY);
    let (tokens, fired) = (sample.len(), sample.map(|train| kernels.count_nonzero(train)).sum::<usize>());
    let most = (16 * EVENTS / (steps * inputs)).max(1);
    (EVENTS / (fired / tokens.max(1)).max(1)).clamp(1, most)
}

/// `y[n, m]` from trains through a weight, Horner with `carry` over the timesteps; how many spikes there were.
pub fn synapse(
    kernels: Kernels,
    pool: &Pool,
    trains: SpikePlanes<'_>,
    carry: i32,
    w: Panels<'_>,
    y: &mut [i32],
) -> u64 {
    let SpikePlanes { planes, stride, steps } = trains;
    let rows = y.len() / w.outputs();
    let tokens = tokens_listed(kernels, trains, w.inputs()).min(rows.div_ceil(pool.threads())).max(1);
    let count = AtomicU64::new(0);
    let parts = planes.chunks(tokens * steps * stride).zip(y.chunks_mut(tokens * w.outputs())).collect();
    let work = |(planes, y): (&[i8], &mut [i32])| {
        // Taken and put back, not borrowed: what a thread does while it waits for others may be another part.
        let mut events = EVENT_LISTS.take();
        kernels.list_trains(planes, stride, w.inputs(), steps, carry, &mut events);
        count.fetch_add(events.count(), Ordering::Relaxed);
        by_outputs(pool, events.tokens(), w, y, |w, y| kernels.trains(&events, w, y));
        EVENT_LISTS.set(events);
    };
    pool.each(parts, work);
    count.into_inner()
}

/// Shares `work(x, w, y)`: by outputs where there are few tokens, by tokens where there are many.
fn share<L: Sync>(
    pool: &Pool,
    x: &[L],
    w: Panels<'_>,
    y: &mut [i32],
    work: impl Fn(&[L], Panels<'_>, &mut [i32]) + Sync,
) {
    let rows = x.len() / w.inputs();
    if rows < TOKENS {
        return by_outputs(pool, rows, w, y, |w, y| work(x, w, y));
    }
    by_tokens(pool, x, w, y, |x, y| work(x, w, y));
}

/// Shares `work(some tokens, their sums)`.
fn by_tokens<L: Sync>(pool: &Pool, x: &[L], w: Panels<'_>, y: &mut [i32], work: impl Fn(&[L], &mut [i32]) + Sync) {
    // A multiple of the tokens that a tile has, near an equal share.
    let tile = if multiplies_matrices() { 16 } else { 6 };
    let part = (x.len() / w.inputs()).div_ceil(pool.threads()).next_multiple_of(tile);
    let parts = x.chunks(part * w.inputs()).zip(y.chunks_mut(part * w.outputs())).collect();
    pool.each(parts, |(x, y)| work(x, y));
}

/// Shares `work(some panels, their sums)`. Sums of several tokens lie apart: a part has its own and copies them.
fn by_outputs(pool: &Pool, rows: usize, w: Panels<'_>, y: &mut [i32], work: impl Fn(Panels<'_>, &mut [i32]) + Sync) {
    if rows == 0 || pool.threads() == 1 || w.count() < 2 || w.count() * w.inputs() * OUTPUTS < PARTS_BYTES {
        return work(w, y);
    }
    // Two parts per thread at least, so that no thread is left with half of the work of all.
    let panels = (w.count() / (2 * pool.threads())).clamp(1, PANELS);
    let some = |part: usize| w.some(part * panels..w.count().min((part + 1) * panels));
    if rows == 1 {
        let parts = y.chunks_mut(panels * OUTPUTS).enumerate().collect();
        return pool.each(parts, |(part, y): (usize, &mut [i32])| work(some(part), y));
    }
    let all = Mutex::new(y);
    pool.run(w.count().div_ceil(panels), |part| {
        let some = some(part);
        let mut sums = vec![0; rows * some.outputs()];
        work(some, &mut sums);
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        for (y, sums) in all.chunks_exact_mut(w.outputs()).zip(sums.chunks_exact(some.outputs())) {
            y[part * panels * OUTPUTS..][..sums.len()].copy_from_slice(sums);
        }
    });
}

/// Potentials to levels, shared by tokens.
pub fn neuron<X: Potential + Sync, L: StoredLevel + Send>(
    kernels: Kernels,
    pool: &Pool,
    x: &[X],
    neuron: &NeuronParams<'_>,
    y: &mut [L],
) -> SpikeCount {
    let width = neuron.gain.len();
    let work = |first: usize, y: &mut [L]| Ok(kernels.quantise(&x[first * width..][..y.len()], neuron, y));
    by_rows(pool, y, width, work).unwrap_or_default()
}

/// Shares `work(first row, some rows of results)` by tokens; what all neurons did.
///
/// # Errors
/// The first of any part.
pub fn by_rows<Y: Send>(
    pool: &Pool,
    y: &mut [Y],
    width: usize,
    work: impl Fn(usize, &mut [Y]) -> Result<SpikeCount, Fault> + Sync,
) -> Result<SpikeCount, Fault> {
    let nothing: &mut [u8] = &mut [];
    by_rows_of_two(pool, (y, width), (nothing, 0), |first, y, _| work(first, y))
}

/// The same with two results, each with the width of its rows.
///
/// # Errors
/// The first of any part.
pub fn by_rows_of_two<Y: Send, Z: Send>(
    pool: &Pool,
    (y, width): (&mut [Y], usize),
    (mut z, z_width): (&mut [Z], usize),
    work: impl Fn(usize, &mut [Y], &mut [Z]) -> Result<SpikeCount, Fault> + Sync,
) -> Result<SpikeCount, Fault> {
    let rows = y.len() / width;
    if rows < TOKENS || pool.threads() == 1 {
        return work(0, y, z);
    }
    let part = rows.div_ceil(pool.threads());
    let done = Mutex::new(Ok(SpikeCount::default()));
    let mut parts = Vec::with_capacity(pool.threads());
    for (i, y) in y.chunks_mut(part * width).enumerate() {
        let (mine, rest) = z.split_at_mut(y.len() / width * z_width);
        z = rest;
        parts.push((i * part, y, mine));
    }
    pool.each(parts, |(first, y, z): (usize, &mut [Y], &mut [Z])| {
        let more = work(first, y, z);
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = done.and_then(|mut all| {
            all += more?;
            Ok(all)
        });
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The same of neurons with a multiplicative input.
pub fn gated_neuron<L: StoredLevel + Send>(
    kernels: Kernels,
    pool: &Pool,
    gate: InputRows<'_>,
    up: InputRows<'_>,
    neuron: &GatedParams<'_>,
    y: &mut [L],
) -> SpikeCount {
    let width = neuron.gain.len();
    let work = |first: usize, y: &mut [L]| {
        let some = first * width..first * width + y.len();
        Ok(kernels.quantise_gated(gate.part(some.clone()), up.part(some), neuron, y))
    };
    by_rows(pool, y, width, work).unwrap_or_default()
}

/// Products of a query and a key, over heads, below which attention is not shared.
pub const SHARED: usize = 512;

thread_local! {
    /// A thread's results of attention, by head, and what attention works in.
    static ATTENTION: RefCell<(Vec<f32>, Scratch)> = RefCell::default();
}

/// Calls `work` for every head, shared by threads; `small`: it is not worth a second one.
pub fn by_heads(pool: &Pool, heads: usize, small: bool, work: impl Fn(usize) + Sync) {
    if small {
        (0..heads).for_each(work);
    } else {
        pool.run(heads, work);
    }
}

/// Spiking attention of all heads, shared by heads. Queries are in 16 bits unless all levels are in 8, so that there are five
/// kernels for each instruction set and not eight.
pub fn attend<Q: StoredLevel + Sync, K: StoredLevel + Sync, V: StoredLevel + Sync>(
    kernels: Kernels,
    pool: &Pool,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &SsaShape<'_>,
    out: &mut [f32],
) -> SsaCount {
    match (Q::narrow(q), K::narrow(k), V::narrow(v)) {
        (Some(q), Some(k), Some(v)) => attend_levels(kernels, pool, q, k, v, shape, out),
        _ => attend_levels(kernels, pool, &Q::wide(q), k, v, shape, out),
    }
}

fn attend_levels<Q: StoredLevel + Sync, K: StoredLevel + Sync, V: StoredLevel + Sync>(
    kernels: Kernels,
    pool: &Pool,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &SsaShape<'_>,
    out: &mut [f32],
) -> SsaCount {
    let [d, kd] = shape.row_widths();
    let (width, heads) = (shape.width, shape.heads.query as usize);
    // Heads that share their keys make them ready once, where each thread has as many such groups as the others.
    let part = if (heads / shape.heads.group()).is_multiple_of(pool.threads()) { shape.heads.group() } else { 1 };
    let rows = Mutex::new((out, SsaCount::default()));
    let work = |i: usize| {
        ATTENTION.with_borrow_mut(|(results, scratch)| {
            let some = i * part..(i + 1) * part;
            results.resize(q.len() / heads * part, 0.0);
            let count = kernels.ssa(q, k, v, shape, some.clone(), scratch, results);
            let (out, all) = &mut *rows.lock().unwrap_or_else(PoisonError::into_inner);
            all.score_pairs += count.score_pairs;
            all.score_additions += count.score_additions;
            all.value_keys += count.value_keys;
            for (out, results) in out.chunks_exact_mut(d).zip(results.chunks_exact(part * width)) {
                out[some.start * width..][..part * width].copy_from_slice(results);
            }
        });
    };
    by_heads(pool, heads / part, q.len() / d * (k.len() / kd) * heads < SHARED, work);
    rows.into_inner().unwrap_or_else(PoisonError::into_inner).1
}
