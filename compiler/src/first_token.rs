//! The token that texts begin with as a constant of the network.
//!
//! Attention of most language models rests on the first token, and its activations are a thousand times those of others (massive
//! activations: Sun et al. 2024). Nothing is before it, so what it makes of the residual stream is the same in every text. The dense
//! network computes that once; the program puts it where a sequence begins with that token (`at_start`). Ranges are then those of the other
//! tokens.
//!
//! A few tokens have massive activations right behind the first one as well, such as a full stop. Only the first token is before them, so
//! their rows are constants too.

use crate::calibrate::TokenWindows;
use crate::parallel::map_in_order;
use crate::progress::Workers;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::op::DenseOp;
use snnc_ir::tensor::Data;
use snnc_ir::{Builder, Diagnostic, Graph, Op};
use snnc_passes::StartRows;
use snnc_passes::options::{FirstToken, QuantOptions};
use snnc_passes::sites::streams;
use snnc_runtime::{Batch, Engine, Options, Outputs, Program};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tokens whose rows become constants: `start`, with which all texts of the sample begin, where it is asked for.
///
/// # Errors
/// It is asked for, and texts do not begin with one token, or the network has no sums to keep it in.
pub fn chosen(tensor: &Graph, start: Option<u32>, options: &QuantOptions) -> Result<Vec<u32>, Diagnostics> {
    let start = start.filter(|_| !streams(tensor).is_empty());
    match (options.first_token, start) {
        (FirstToken::Computed, _) | (FirstToken::Auto, None) => Ok(Vec::new()),
        (FirstToken::Auto, Some(_)) if !options.thresholds.are_fixed() => Ok(Vec::new()),
        (FirstToken::Auto | FirstToken::Constant, Some(start)) => Ok(vec![start]),
        (FirstToken::Constant, None) => {
            let message = "there is no token that all texts begin with, whose rows could be kept";
            let advice = "name one with --start TOKEN, or leave out --first-token";
            Err(Diagnostic::new("--first-token", message).code(ErrorCode::OPTION).note(advice).into())
        }
    }
}

/// Windows as long as before that begin with `start`. Those that are there for their start alone begin within a sentence, where the
/// second token may have massive activations as well (a full stop behind the start token has, in SmolLM2-135M); they are left out.
pub fn led_by(start: u32, mut windows: TokenWindows) -> TokenWindows {
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    windows.retain(|window| 2 * window.len() > longest);
    let led = |window: Vec<u32>| {
        if window.first() == Some(&start) {
            return window;
        }
        let rest = window.len().saturating_sub(1);
        std::iter::once(start).chain(window.into_iter().take(rest)).collect()
    };
    windows.into_iter().map(led).collect()
}

/// The token that texts begin with, where a program keeps its rows.
pub fn constant_start(program: &Graph) -> Option<u32> {
    let node = program.nodes.iter().find(|node| node.op == Op::Dense(DenseOp::AtStart))?;
    match program.constant(node.args[2])?.tensor.data() {
        Data::I32(pairs) => pairs.first().map(|&id| id as u32),
        _ => None,
    }
}

/// Tokens that are tried behind the first one, at most: the most frequent ones of the sample.
const TRIED: usize = 1024;

/// A token has massive activations where its row of the residual stream is so many times as large as the median of those tried.
const MASSIVE: f64 = 4.0;

/// Pairs of tokens that are kept, at most.
const PAIRS: usize = 64;

/// Sequences that run together.
const TOGETHER: usize = 64;

/// What is constant of texts' beginnings: each of `firsts` alone, and with each token of the sample that has massive activations right
/// behind it. Attention rests on such a token as on the first one, and only that is before it.
///
/// # Errors
/// The network cannot be run; a request to stop.
pub fn with_seconds(
    tensor: &Graph,
    firsts: &[u32],
    windows: &TokenWindows,
    workers: Workers<'_>,
) -> Result<Vec<Vec<u32>>, Diagnostics> {
    let mut starts: Vec<Vec<u32>> = firsts.iter().map(|&first| vec![first]).collect();
    let tried = most_frequent(windows);
    for &first in firsts.iter().filter(|_| tensor.context > 1) {
        let seconds = massive(tensor, first, &tried, workers)?;
        workers.progress.status(&line(seconds.len(), tried.len()));
        starts.extend(seconds.into_iter().map(|second| vec![first, second]));
    }
    Ok(starts)
}

/// For a person to read.
fn line(found: usize, tried: usize) -> String {
    let behind = match found {
        0 => format!("behind it none of the {tried} most frequent tokens has massive activations"),
        _ => {
            format!("so are {found} of the {tried} most frequent tokens behind it, whose activations are massive there")
        }
    };
    format!("the first token is a constant; {behind}")
}

/// Ids of the sample, the most frequent first.
fn most_frequent(windows: &TokenWindows) -> Vec<u32> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    windows.iter().flatten().for_each(|&id| *counts.entry(id).or_default() += 1);
    let mut ids: Vec<(u32, usize)> = counts.into_iter().collect();
    ids.sort_by_key(|&(id, count)| (Reverse(count), id));
    ids.into_iter().map(|(id, _)| id).take(TRIED).collect()
}

/// Those of `tried` that have massive activations right behind `first`, the largest first.
fn massive(tensor: &Graph, first: u32, tried: &[u32], workers: Workers<'_>) -> Result<Vec<u32>, Diagnostics> {
    let options = Options { engine: Engine::Jit, count: false, ..Options::default() };
    let program = Arc::new(Program::new(Arc::new(residual_stream(tensor)), &options)?);
    workers.progress.begin("looking for massive activations behind the first token", tried.len() as u64);
    let groups: Vec<&[u32]> = tried.chunks(TOGETHER).collect();
    let begun = || {
        let mut batch = Batch::new(program.clone(), TOGETHER.min(tried.len()))?;
        let all: Vec<(usize, u32)> = (0..batch.sequences()).map(|sequence| (sequence, first)).collect();
        batch.step(&all).into_iter().try_for_each(|done| done.map(drop))?;
        Ok(batch)
    };
    let sizes = |batch: &mut Batch, _: usize, group: &&[u32]| {
        let again = (0..batch.sequences()).all(|sequence| batch.shorten(sequence, 1));
        assert!(again, "a dense network keeps rows, which can be forgotten");
        let next: Vec<(usize, u32)> = group.iter().copied().enumerate().collect();
        let names = || program.graph().outputs.iter().map(|(name, _)| name);
        let of = |done: Outputs<'_>| names().map(|name| size(done.f32(name).unwrap_or(&[]))).collect();
        let done: Result<Vec<Vec<f64>>, Diagnostic> = batch.step(&next).into_iter().map(|done| done.map(of)).collect();
        workers.progress.advance(group.len() as u64);
        done
    };
    let (sizes, _) = map_in_order(workers, &groups, begun, sizes)?;
    workers.progress.end();
    let sizes: Vec<Vec<f64>> = sizes.into_iter().flatten().collect();
    let medians: Vec<f64> = (0..program.graph().outputs.len()).map(|stream| median(&sizes, stream)).collect();
    let share = |sizes: &Vec<f64>| {
        let shares = sizes.iter().zip(&medians).map(|(size, median)| if *median > 0.0 { size / median } else { 1.0 });
        shares.fold(0.0, f64::max)
    };
    let mut found: Vec<(u32, f64)> = tried.iter().copied().zip(sizes.iter().map(share)).collect();
    found.retain(|&(_, share)| share > MASSIVE);
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(found.into_iter().map(|(id, _)| id).take(PAIRS).collect())
}

/// The root of the mean square.
fn size(row: &[f32]) -> f64 {
    let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (squares / row.len().max(1) as f64).sqrt()
}

/// Of one stream's sizes.
fn median(sizes: &[Vec<f64>], stream: usize) -> f64 {
    let mut all: Vec<f64> = sizes.iter().map(|sizes| sizes[stream]).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

/// The network as far as its residual stream: an output for each value of `streams`.
fn residual_stream(tensor: &Graph) -> Graph {
    let outputs = streams(tensor).iter().map(|value| (format!("{}", value.0), *value)).collect();
    Builder::with_outputs(tensor, outputs)
}

/// Rows of the residual stream of the last token of each of `starts`, where they begin a sequence. `None` of none.
///
/// # Errors
/// The network cannot be run on one of them.
pub fn rows(tensor: &Graph, starts: &[Vec<u32>]) -> Result<Option<StartRows>, Diagnostics> {
    if starts.is_empty() {
        return Ok(None);
    }
    let streams = streams(tensor);
    let graph = residual_stream(tensor);
    let evaluator = Evaluator::<f32>::new(&graph);
    let mut all =
        StartRows { starts: starts.to_vec(), rows: streams.iter().map(|value| (*value, Vec::new())).collect() };
    for start in starts {
        let done = evaluator.run(start, &mut Memory::new(&graph))?;
        for (rows, (_, output)) in all.rows.values_mut().zip(&graph.outputs) {
            let all = evaluator.get(&done, *output).reals();
            rows.extend_from_slice(&all[all.len() - all.len() / start.len()..]);
        }
    }
    Ok(Some(all))
}
