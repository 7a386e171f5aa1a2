//! Where training stands, as one file: what is needed to go on bit for bit.
//!
//! ```text
//! "SNNT"  length: u32  state: JSON, `length` bytes  parameters, two moments, best parameters: f32  XXH3-64 of all before
//! ```
//!
//! Numbers are little-endian. What the state says of program, text and options must be what `--resume` is given.

use super::adamw::Moments;
use super::comparison::Comparison;
use super::events::RunIdentity;
use super::stall::Stall;
use serde::{Deserialize, Serialize};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::io::{self, Write};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The version of what a checkpoint holds.
pub const VERSION: u32 = 3;

const MAGIC: [u8; 4] = *b"SNNT";

/// Most bytes of the state: it lists parameters by name.
const STATE_MAX: usize = 1 << 26;

/// All that is not numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The version of the format.
    pub version: u32,
    /// What is trained, on what and how: hashes and options.
    pub run: RunIdentity,
    /// What the program was before.
    pub before: Comparison,
    /// Timesteps.
    pub steps: u64,
    /// Steps done.
    pub step: u64,
    /// The step with the least validation loss.
    pub best_step: u64,
    /// Validation losses by step.
    pub losses: Vec<(u64, f64)>,
    /// Whether they still improve.
    #[serde(default)]
    pub stall: Stall,
    /// Names and lengths.
    pub parameters: Vec<(String, usize)>,
}

/// The numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Parameters.
    pub parameters: Vec<Vec<f32>>,
    /// Running means of the optimiser.
    pub moments: Moments,
    /// Parameters at the least validation loss.
    pub best: Vec<Vec<f32>>,
}

/// Writes a checkpoint.
///
/// # Errors
/// `out` cannot be written.
pub fn write(state: &State, numbers: &TrainState, out: &mut dyn Write) -> io::Result<()> {
    let json = serde_json::to_vec(state)?;
    let mut hash = Xxh3::new();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        out.write_all(bytes)
    };
    put(&MAGIC)?;
    put(&(json.len() as u32).to_le_bytes())?;
    put(&json)?;
    let TrainState { parameters, moments, best } = numbers;
    for array in [parameters, &moments.first, &moments.second, best].into_iter().flatten() {
        put(bytemuck::cast_slice(array))?;
    }
    let end = hash.digest();
    out.write_all(&end.to_le_bytes())
}

/// # Errors
/// Bytes that `write` did not write.
pub fn read(bytes: &[u8], place: &str) -> Result<(State, TrainState), Diagnostic> {
    let broken = |what: &str| {
        Diagnostic::new(place, format!("is not a whole checkpoint: {what}"))
            .code(ErrorCode::TRAINING)
            .code(ErrorCode::CHECKPOINT)
            .note("begin anew with --restart")
    };
    let (body, end) = bytes.split_last_chunk::<8>().ok_or_else(|| broken("it is too short"))?;
    let rest = body.strip_prefix(&MAGIC).ok_or_else(|| broken("it does not begin with SNNT"))?;
    if xxh3_64(body) != u64::from_le_bytes(*end) {
        return Err(broken("its checksum is another"));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| broken("it is too short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > STATE_MAX || length > rest.len() {
        return Err(broken("its state is longer than the file"));
    }
    let (json, mut rest) = rest.split_at(length);
    let state: serde_json::Value = serde_json::from_slice(json).map_err(|e| broken(&e.to_string()))?;
    if state["version"] != VERSION {
        return Err(broken(&format!("its version is {}, this snnc reads {VERSION}", state["version"])));
    }
    let state: State = serde_json::from_value(state).map_err(|e| broken(&e.to_string()))?;
    let all: Option<usize> = state.parameters.iter().try_fold(0usize, |sum, (_, length)| sum.checked_add(*length));
    if all.and_then(|all| all.checked_mul(16)) != Some(rest.len()) {
        return Err(broken("its numbers are not as many as it says"));
    }
    let mut arrays = || {
        let one = |(_, length): &(String, usize)| {
            let (bytes, after) = rest.split_at(4 * length);
            rest = after;
            bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
        };
        state.parameters.iter().map(one).collect::<Vec<Vec<f32>>>()
    };
    let parameters = arrays();
    let moments = Moments { first: arrays(), second: arrays() };
    let best = arrays();
    Ok((state, TrainState { parameters, moments, best }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let state = State {
            version: VERSION,
            run: RunIdentity { seed: 7, ..RunIdentity::default() },
            before: Comparison {
                recall: Vec::new(),
                recall_dense: Vec::new(),
                tokens: 3,
                perplexity: 1.0 / 3.0,
                perplexity_dense: 0.1,
                kl: 1e-300,
                top1_agreement: 0.7,
            },
            steps: 9,
            step: 4,
            best_step: 2,
            losses: vec![(2, 0.5)],
            stall: Stall { losses: vec![2.5], validations: 1 },
            parameters: vec![("a".into(), 2), ("b".into(), 1)],
        };
        let array = |x: f32| vec![vec![x, -x], vec![2.0 * x]];
        let moments = Moments { first: array(2.0), second: array(3.0) };
        let numbers = TrainState { parameters: array(1.0), moments, best: array(4.0) };
        let mut bytes = Vec::new();
        write(&state, &numbers, &mut bytes).expect("memory takes it");
        assert_eq!(read(&bytes, "x").expect("it was written"), (state, numbers));
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 4;
            assert!(read(&damaged, "x").is_err(), "byte {i}");
            assert!(read(&bytes[..i], "x").is_err(), "{i} bytes");
        }
    }
}
