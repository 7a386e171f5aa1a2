//! What an engine gives at some places of a program, for every token of a text: spikes by timestep, levels, reals.

use crate::spikes::{opened, output_of};
use snnc_ir::{Diagnostic, Graph, Value};
use snnc_runtime::{Options, Program, Rows, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Values of a run, row by row: a token's first, in a train a timestep's first.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    ints: BTreeMap<u32, Vec<i32>>,
    numbers: BTreeMap<u32, Vec<f32>>,
    tokens: usize,
}

impl Recording {
    /// Runs a program on a text, and keeps `values`.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn run(program: &Graph, values: &[Value], ids: &[u32], options: &Options) -> Result<Self, Diagnostic> {
        let values: BTreeSet<Value> = values.iter().copied().collect();
        let open = opened(program, values.iter().copied());
        let mut session = Session::new(Arc::new(Program::new(Arc::new(open), &Options { count: false, ..*options })?))?;
        let mut recorded = Self { tokens: ids.len(), ..Self::default() };
        // Token by token: few rows are held.
        for id in ids {
            let outputs = session.forward(&[*id], Rows::All)?;
            for value in &values {
                if let Some(ints) = outputs.levels(&output_of(*value)) {
                    recorded.ints.entry(value.0).or_default().extend(ints);
                }
                if let Some(numbers) = outputs.f32(&output_of(*value)) {
                    recorded.numbers.entry(value.0).or_default().extend(numbers);
                }
            }
        }
        Ok(recorded)
    }

    /// Tokens that were run.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Spikes of a train, `[tokens, timesteps, width]`, or levels, `[tokens, width]`; empty of what was not kept, or is neither.
    pub fn ints(&self, value: Value) -> &[i32] {
        self.ints.get(&value.0).map_or(&[], Vec::as_slice)
    }

    /// Reals, `[tokens, width]`; empty of what was not kept, or is none.
    pub fn numbers(&self, value: Value) -> &[f32] {
        self.numbers.get(&value.0).map_or(&[], Vec::as_slice)
    }

    /// Of what was kept, the part of a token.
    pub fn token<T>(&self, all: &[T], token: usize) -> std::ops::Range<usize> {
        let each = all.len() / self.tokens.max(1);
        token * each..(token + 1) * each
    }
}
