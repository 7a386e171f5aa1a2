//! Linear attention: a state of fixed size is all that is kept of a sequence.

use crate::jit::dispatch::{SHARED, by_heads};
use crate::kernels::{LinearShape, StateSum};
use crate::kv_cache::StateSums;
use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{AttentionCall, Fault, Resources, StepKind, keys_met, levels, numbers_mut};
use crate::steps::decode::decode_train;
use crate::steps::heads::{DecayMemory, put, take};
use snnc_ir::events::Events;
use snnc_ir::op::Heads;
use snnc_ir::types::Code;
use snnc_ir::{Diagnostic, Value};
use std::sync::{Mutex, PoisonError};

/// Sums of products of features and values, of all heads.
#[derive(Debug)]
struct LinearAttentionStep {
    heads: Heads,
    guard: u8,
    /// Of queries and of keys.
    codes: [Code; 2],
    /// Of a head.
    features: usize,
    /// Of a row of results.
    width: usize,
}

/// # Errors
/// Operands are neither levels nor spikes.
pub fn plan(p: &mut Planner<'_>, at: Value, heads: Heads, guard: u8) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let codes = [p.levels(args[0])?.0, p.levels(args[1])?.0];
    for &arg in &args[..3] {
        decode_train(p, at, arg)?;
    }
    let kind = LinearAttentionStep {
        heads,
        guard,
        codes,
        features: p.width(args[0])? / heads.query as usize,
        width: p.width(at)?,
    };
    p.step(at, kind, &args[..3], &args[3..])
}

impl StepKind for LinearAttentionStep {
    fn name(&self) -> String {
        "linear_attention".into()
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn reads_levels(&self, _: usize) -> bool {
        true
    }

    fn executed(&self, rows: usize, _: &Events, _: &MatmulCounts) -> Executed {
        Executed::dense(rows, 2 * self.features * self.width, 0)
    }

    fn attend(&self, call: AttentionCall<'_>) -> Result<Events, Fault> {
        let AttentionCall { resources, constants, entry, past, rows, out, .. } = call;
        let memory = DecayMemory { sink: constants.f32(0)?, half_life: constants.i32(1)?, past };
        let tokens = out.len() / (4 * self.width);
        let (query, kv) = (self.heads.query as usize, self.heads.kv as usize);
        let q = levels(rows[0], tokens * query * self.features);
        let k = levels(rows[1], tokens * kv * self.features);
        let v = levels(rows[2], tokens * (self.width / self.heads.group()));
        let sums = entry.sums(past).ok_or(Fault::Misfit)?;
        let (rows, out) = ([&q?[..], &k?, &v?], numbers_mut(out)?);
        let score_additions = match sums {
            StateSums::I32(sums) => self.run_heads(resources, &memory, rows, sums, out),
            StateSums::I64(sums) => self.run_heads(resources, &memory, rows, sums, out),
        };
        Ok(Events { keys: keys_met(past, tokens), score_additions, ..Events::default() })
    }
}

impl LinearAttentionStep {
    /// Results, and additions that spikes drove. `sums`: of all heads.
    fn run_heads<S: StateSum + Send>(
        &self,
        resources: Resources<'_>,
        memory: &DecayMemory<'_>,
        [q, k, v]: [&[i32]; 3],
        sums: &mut [S],
        out: &mut [f32],
    ) -> u64 {
        let LinearAttentionStep { heads, guard, codes, features, width } = *self;
        let (kv, group) = (heads.kv as usize, heads.group());
        let (head, tokens) = (width / heads.query as usize, out.len() / width);
        let shape = |h: usize| {
            let (sinks, half_life) = (&memory.sink[h * group..(h + 1) * group], memory.half_life[h]);
            LinearShape { past: memory.past, features, width: head, guard, sinks, half_life }
        };
        let sums: Vec<Mutex<&mut [S]>> = sums.chunks_exact_mut(shape(0).numbers()).map(Mutex::new).collect();
        let out = Mutex::new(out);
        by_heads(resources.pool, kv, tokens * heads.query as usize * shape(0).numbers() < SHARED, |h| {
            let q = take(q, kv * group * features, h * group * features, group * features);
            let k = take(k, kv * features, h * features, features);
            let v = take(v, kv * head, h * head, head);
            let mut part = vec![0.0; tokens * group * head];
            let mut sums = sums[h].lock().unwrap_or_else(PoisonError::into_inner);
            resources.kernels.linear_attention(&q, &k, &v, &shape(h), &mut sums, &mut part);
            put(&mut out.lock().unwrap_or_else(PoisonError::into_inner), &part, width, h * group * head);
        });
        let spikes = |code: Code, x: &[i32]| x.iter().map(|&x| u64::from(code.spikes(x))).sum::<u64>();
        (spikes(codes[0], q) + spikes(codes[1], k)) * (head as u64 + 1)
    }
}
