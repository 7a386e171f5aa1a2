//! Spiking attention by time to first spike: all keys fire, or only the best.

use crate::jit::dispatch;
use crate::kernels::{Kernels, SsaCount, SsaShape, StoredLevel, TokenThresholds};
use crate::kv_cache::{CacheElement, KeyValueRows};
use crate::layout::level_bytes;
use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::pool::Pool;
use crate::step::{AttentionCall, Fault, StepKind, levels, numbers, numbers_mut};
use crate::steps::decode::decode_train;
use bytemuck::Pod;
use snnc_ir::events::Events;
use snnc_ir::op::Heads;
use snnc_ir::ssa::meaning::phase_weights;
use snnc_ir::types::Code;
use snnc_ir::{Diagnostic, Value, bounds};

/// Attention whose keys fire the later, the less they score.
#[derive(Debug)]
struct TtfsStep {
    heads: Heads,
    /// By phase.
    weights: Vec<i32>,
    /// How many keys may fire, if not all.
    keys: Option<u32>,
    /// The queries'.
    code: Code,
    /// Timesteps of the queries, where they come as spike trains: these drive the scores one timestep at a time.
    steps: Option<u16>,
    /// Whether queries, keys and values take 16 bits.
    wide: [bool; 3],
    /// Whether sums may leave 32 bits, or levels take 32.
    long: bool,
    /// Of a row of queries.
    width: usize,
}

/// # Errors
/// Operands are neither levels nor spikes.
pub fn plan(p: &mut Planner<'_>, at: Value, heads: Heads, phases: u32, keys: Option<u32>) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let (code, steps) = p.levels(args[0])?;
    let steps = p.is_train(args[0]).then_some(steps);
    let width = p.width(at)?;
    let (mut wide, mut long) = ([false; 3], !bounds::narrow_attention(p.graph, at));
    for (wide, &arg) in wide.iter_mut().zip(args) {
        let (code, steps) = p.levels(arg)?;
        *wide = level_bytes(code, steps) > 1;
        long |= level_bytes(code, steps) > 2;
    }
    for &arg in &args[..3] {
        decode_train(p, at, arg)?;
    }
    let first = heads.first_constant();
    let kind = TtfsStep { heads, weights: phase_weights(phases), keys, code, steps, wide, long, width };
    p.step(at, kind, &args[..first], &args[first..])
}

impl StepKind for TtfsStep {
    fn name(&self) -> String {
        if self.keys.is_some() { "ttfs_topk" } else { "ttfs" }.into()
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn reads_levels(&self, i: usize) -> bool {
        i < 3
    }

    fn executed(&self, _: usize, events: &Events, _: &MatmulCounts) -> Executed {
        let head = self.width as u64 / u64::from(self.heads.query);
        let macs = events.keys * self.width as u64 + events.value_keys * head;
        Executed { macs, ..Executed::default() }
    }

    fn attend(&self, call: AttentionCall<'_>) -> Result<Events, Fault> {
        let AttentionCall { resources, constants, entry, past, rows: [q, k, v, thresholds @ ..], soon, out, .. } = call;
        let out = numbers_mut::<f32>(out)?;
        let keys = self.heads.keys(past, out.len() / self.width);
        let cache = entry.rows().ok_or(Fault::Misfit)?;
        let own = if self.heads.thresholds {
            let [q, k, v] = thresholds.map(numbers::<f32>);
            cache.append_thresholds(past, [k?, v?]).ok_or(Fault::Misfit)?;
            Some(q?)
        } else {
            None
        };
        let shape = SsaShape {
            heads: self.heads,
            width: self.width / self.heads.query as usize,
            slope: constants.f32(0)?,
            alibi: if self.heads.alibi { constants.f32(1)? } else { &[] },
            weights: &self.weights,
            code: self.code,
            steps: self.steps,
            keys: self.keys.map(|most| most as usize),
            soon,
            thresholds: own.map(|queries| TokenThresholds { queries, keys: &[], values: &[] }),
        };
        let attend = match self.wide {
            _ if self.long => attend_long,
            [false, false, false] => attend::<i8, i8, i8>,
            [false, false, true] => attend::<i8, i8, i16>,
            [false, true, false] => attend::<i8, i16, i8>,
            [false, true, true] => attend::<i8, i16, i16>,
            [true, false, false] => attend::<i16, i8, i8>,
            [true, false, true] => attend::<i16, i8, i16>,
            [true, true, false] => attend::<i16, i16, i8>,
            [true, true, true] => attend::<i16, i16, i16>,
        };
        let counts = attend(resources.kernels, resources.pool, cache, past, [q, k, v], &shape, out)?;
        let SsaCount { score_pairs, score_additions, value_keys } = counts;
        Ok(Events { keys, score_pairs, score_additions, value_keys, ..Events::default() })
    }
}

/// Attention of queries, keys and values stored in `Q`, `K` and `V`.
fn attend<Q, K, V>(
    kernels: Kernels,
    pool: &Pool,
    cache: &mut KeyValueRows,
    past: usize,
    [q, k, v]: [&[u8]; 3],
    shape: &SsaShape<'_>,
    out: &mut [f32],
) -> Result<SsaCount, Fault>
where
    Q: Pod + StoredLevel + Sync,
    K: Pod + StoredLevel + CacheElement + Sync,
    V: Pod + StoredLevel + CacheElement + Sync,
{
    cache.extend::<K, V>(past, numbers(k)?, numbers(v)?).ok_or(Fault::Misfit)?;
    let (k, v) = cache.view::<K, V>().ok_or(Fault::Misfit)?;
    Ok(dispatch::attend(kernels, pool, numbers::<Q>(q)?, k, v, &with_kept(shape, cache), out))
}

/// With the thresholds of all keys and values of the sequence.
fn with_kept<'a>(shape: &SsaShape<'a>, cache: &'a KeyValueRows) -> SsaShape<'a> {
    let [keys, values] = &cache.thresholds;
    let thresholds = shape.thresholds.map(|own| TokenThresholds { keys, values, ..own });
    SsaShape { thresholds, ..*shape }
}

/// The same in 64 bits, of levels stored in any way; the lengths of their rows tell which.
fn attend_long(
    kernels: Kernels,
    _: &Pool,
    cache: &mut KeyValueRows,
    past: usize,
    [q, k, v]: [&[u8]; 3],
    shape: &SsaShape<'_>,
    out: &mut [f32],
) -> Result<SsaCount, Fault> {
    cache.append_levels(past, k, v).ok_or(Fault::Misfit)?;
    let q = levels(q, out.len())?;
    let [keys, values] = [&cache.keys, &cache.values].map(|rows| rows.levels().ok_or(Fault::Misfit));
    Ok(kernels.ssa_long(&q, &keys?, &values?, &with_kept(shape, cache), out))
}
