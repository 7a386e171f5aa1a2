//! Which kernel a product takes, and how threads share it. Nothing here changes a number.
//!
//! The rows of the channels that fired are read one by one, or all rows are, four at a time: whichever costs less for the
//! events at hand. Few tokens are shared by outputs, many by tokens.

use crate::kernels::{Kernels, Level, OUTPUTS, Panels, Scratch, Ssa, SsaCount};
use crate::pool::Pool;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// What a listed row of a panel costs, in rows of one token's walk over all of them: a walk reads memory in order.
const ROW_IN_WALKS: f64 = 3.3;
/// The same in rows of a tile, of which one serves six tokens.
const ROW_IN_TILES: f64 = 4.0;

/// Panels of a part of a few tokens' product: weights of 200 KB and up.
const PANELS: usize = 4;
/// Tokens from which a product is shared by tokens.
const TOKENS: usize = 32;
/// Events that are listed at a time: what the second-level cache holds beside a panel.
const EVENTS: usize = 1 << 17;

/// Spikes of some tokens: `steps` planes each, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Trains<'a> {
    pub planes: &'a [i8],
    pub stride: usize,
    pub steps: usize,
}

/// `y = x w` for levels of 8 bits.
pub fn product(kernels: Kernels, pool: &Pool, x: &[i8], w: Panels<'_>, y: &mut [i32]) {
    share(pool, x, w, y, |x, w, y| {
        let row = if x.len() == w.inputs() { ROW_IN_WALKS } else { ROW_IN_TILES };
        if kernels.fired(x) as f64 * row < x.len() as f64 {
            kernels.synapse(&kernels.listen(x, w.inputs(), w.inputs()), 1, 1, w, y);
        } else {
            kernels.product(x, &[], w, y);
        }
    });
}

/// `y = x w` for levels of more than 8 bits. Most need one byte only, so that the others are few events.
pub fn product_wide<L: Copy + Into<i32> + Sync>(kernels: Kernels, pool: &Pool, x: &[L], w: Panels<'_>, y: &mut [i32]) {
    share(pool, x, w, y, |x, w, y| {
        let mut rest: Vec<i32> = x.iter().map(|&x| x.into()).collect();
        let (mut low, mut higher) = (vec![0; x.len()], Vec::new());
        let mut more = kernels.split(&mut rest, &mut low);
        let mut byte = vec![0; x.len()];
        while more {
            more = kernels.split(&mut rest, &mut byte);
            higher.push(kernels.listen(&byte, w.inputs(), w.inputs()));
        }
        kernels.product(&low, &higher, w, y);
    });
}

/// `y[n, m]` from trains through a weight, Horner with `carry` over the timesteps; how many spikes there were.
pub fn synapse(kernels: Kernels, pool: &Pool, trains: Trains<'_>, carry: i32, w: Panels<'_>, y: &mut [i32]) -> u64 {
    let Trains { planes, stride, steps } = trains;
    let tokens = (EVENTS / (steps * w.inputs())).max(1);
    let mut count = 0;
    for (planes, y) in planes.chunks(tokens * steps * stride).zip(y.chunks_mut(tokens * w.outputs())) {
        let events = kernels.listen(planes, stride, w.inputs());
        count += events.count();
        by_outputs(pool, events.planes() / steps, w, y, |w, y| kernels.synapse(&events, steps, carry, w, y));
    }
    count
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
    // A multiple of the six tokens that a tile has, near an equal share.
    let part = rows.div_ceil(pool.threads()).next_multiple_of(6);
    let parts = x.chunks(part * w.inputs()).zip(y.chunks_mut(part * w.outputs())).collect();
    pool.each(parts, |(x, y)| work(x, w, y));
}

/// Shares `work(some panels, their sums)`. Sums of several tokens lie apart: a part has its own and copies them.
fn by_outputs(pool: &Pool, rows: usize, w: Panels<'_>, y: &mut [i32], work: impl Fn(Panels<'_>, &mut [i32]) + Sync) {
    if rows == 0 || pool.threads() == 1 || w.count() < 2 * PANELS {
        return work(w, y);
    }
    let some = |part: usize| w.some(part * PANELS..w.count().min((part + 1) * PANELS));
    if rows == 1 {
        let parts = y.chunks_mut(PANELS * OUTPUTS).enumerate().collect();
        return pool.each(parts, |(part, y): (usize, &mut [i32])| work(some(part), y));
    }
    let all = Mutex::new(y);
    pool.run(w.count().div_ceil(PANELS), |part| {
        let some = some(part);
        let mut sums = vec![0; rows * some.outputs()];
        work(some, &mut sums);
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        for (y, sums) in all.chunks_exact_mut(w.outputs()).zip(sums.chunks_exact(some.outputs())) {
            y[part * PANELS * OUTPUTS..][..sums.len()].copy_from_slice(sums);
        }
    });
}

/// Products of a query and a key, over heads, below which attention is not shared.
const SHARED: usize = 512;

thread_local! {
    /// A thread's results of attention, by head, and what attention works in.
    static ATTENTION: RefCell<(Vec<f32>, Scratch)> = RefCell::default();
}

/// Spiking attention of all heads, shared by heads.
pub fn attend<Q: Level + Sync, K: Level + Sync, V: Level + Sync>(
    kernels: Kernels,
    pool: &Pool,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &Ssa<'_>,
    out: &mut [f32],
) -> SsaCount {
    let (d, heads) = (shape.d, shape.slope.len());
    let width = d / heads;
    let rows = Mutex::new((out, SsaCount::default()));
    let work = |h: usize| {
        ATTENTION.with_borrow_mut(|(part, scratch)| {
            part.resize(q.len() / heads, 0.0);
            let count = kernels.ssa(q, k, v, shape, h, scratch, part);
            let (out, all) = &mut *rows.lock().unwrap_or_else(PoisonError::into_inner);
            all.score_additions += count.score_additions;
            all.value_keys += count.value_keys;
            for (out, part) in out.chunks_exact_mut(d).zip(part.chunks_exact(width)) {
                out[h * width..][..width].copy_from_slice(part);
            }
        });
    };
    if q.len() / d * (k.len() / d) * heads < SHARED {
        (0..heads).for_each(work);
    } else {
        pool.run(heads, work);
    }
    rows.into_inner().unwrap_or_else(PoisonError::into_inner).1
}
