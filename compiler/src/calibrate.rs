//! Observes what every site's channels hold on sample text, by running the Tensor graph through the runtime.

use crate::parallel::map_in_order;
use crate::progress::Workers;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Builder, Graph, Value};
use snnc_passes::observed::{Observations, Observed};
use snnc_passes::sites::{Role, sites};
use snnc_runtime::{Engine, Options, Program, Rows, Session};
use std::sync::Arc;

/// Rows of a site that are kept, at most: medians and least errors are taken from them.
const SAMPLE_ROWS: usize = 1024;

/// Numbers of all sites that are kept, at most: 256 MiB.
const SAMPLE_NUMBERS: usize = 1 << 26;

/// Sequences of token ids to run.
pub type TokenWindows = Vec<Vec<u32>>;

/// What every site of `graph` holds over `windows`; but rows of tokens of `constants` that begin a window are left out where they lead to
/// what is a constant. The result does not depend on the number of threads.
///
/// # Errors
/// The graph cannot be run; a request to stop.
pub fn calibrate<'a>(
    graph: &Graph,
    windows: &TokenWindows,
    constants: &[u32],
    workers: impl Into<Workers<'a>>,
) -> Result<Observations, Diagnostics> {
    let workers = workers.into();
    let named = sites(graph);
    let sites: Vec<Value> = named.iter().map(|site| site.value).collect();
    // Later tokens attend to the constants, and the head reads them.
    let counts = |role: Role| matches!(role, Role::AttentionIn | Role::Key | Role::Value | Role::Head);
    let constants_count: Vec<bool> = named.iter().map(|site| counts(site.role)).collect();
    // What only the logits need is then dead.
    let observed = Builder::with_outputs(graph, sites.iter().map(|site| (name(*site), *site)).collect());
    let options = Options { engine: Engine::Jit, count: false, ..Options::default() };
    let program = Arc::new(Program::new(Arc::new(observed), &options)?);
    let tokens: usize = windows.iter().map(Vec::len).sum();
    workers.progress.begin("calibrating", tokens as u64);
    let width: usize = sites.iter().filter_map(|site| graph.ty(*site).shape().width()).sum();
    let every = tokens.div_ceil(SAMPLE_ROWS.min(SAMPLE_NUMBERS / width.max(1)).max(1)).max(1);
    let starts: Vec<usize> =
        windows.iter().scan(0, |start, window| Some(std::mem::replace(start, *start + window.len()))).collect();
    let session = || Session::new(program.clone());
    let observe = |session: &mut Session, i: usize, window: &Vec<u32>| {
        session.reset();
        let rows = kept(starts[i], window.len(), every);
        let mut all: Vec<SiteRanges> = sites.iter().map(|site| SiteRanges::new(graph, *site, rows)).collect();
        let mut at = starts[i];
        for chunk in window.chunks(options.chunk) {
            let left_out = usize::from(at == starts[i] && constants.contains(&chunk[0]));
            let outputs = session.forward(chunk, Rows::All)?;
            for ((site, seen), counts) in sites.iter().zip(&mut all).zip(&constants_count) {
                let left_out = if *counts { 0 } else { left_out };
                let rows = outputs.f32(&name(*site)).unwrap_or(&[]);
                seen.add(&rows[left_out * rows.len() / chunk.len()..], at + left_out, every);
            }
            at += chunk.len();
            workers.progress.advance(chunk.len() as u64);
        }
        Ok(all)
    };
    let (by_window, _) = map_in_order(workers, windows, session, observe)?;
    workers.progress.end();
    // Site by site: what a window kept of it goes as its part of the whole comes.
    let mut by_window: Vec<_> = by_window.into_iter().map(Vec::into_iter).collect();
    let rows = kept(0, tokens, every);
    let merged = sites.iter().map(|site| {
        let mut all = SiteRanges::new(graph, *site, rows);
        by_window.iter_mut().filter_map(Iterator::next).for_each(|seen| all.merge(seen));
        all
    });
    let merged: Vec<SiteRanges> = merged.collect();
    Ok(sites.into_iter().zip(merged.into_iter().map(SiteRanges::into_observed)).collect())
}

/// How many of `tokens` tokens from `start` on are kept, if one in `every` is.
fn kept(start: usize, tokens: usize, every: usize) -> usize {
    (start + tokens).div_ceil(every) - start.div_ceil(every)
}

fn name(site: Value) -> String {
    format!("site.{}", site.0)
}

/// What a site's channels held in some windows.
struct SiteRanges {
    min: Vec<f32>,
    max: Vec<f32>,
    /// Rows kept, one after the other.
    kept: Vec<f32>,
    tokens: usize,
}

impl SiteRanges {
    /// Of nothing yet, with room for some rows.
    fn new(graph: &Graph, site: Value, rows: usize) -> Self {
        let width = graph.ty(site).shape().width().unwrap_or(0);
        let kept = Vec::with_capacity(rows * width);
        Self { min: vec![f32::INFINITY; width], max: vec![f32::NEG_INFINITY; width], kept, tokens: 0 }
    }

    /// Adds rows that begin at token `at` of all text; one row in `every` is kept.
    fn add(&mut self, rows: &[f32], at: usize, every: usize) {
        for (i, row) in rows.chunks_exact(self.min.len().max(1)).enumerate() {
            self.min.iter_mut().zip(row).for_each(|(min, &x)| *min = if x < *min { x } else { *min });
            self.max.iter_mut().zip(row).for_each(|(max, &x)| *max = if x > *max { x } else { *max });
            self.tokens += 1;
            if (at + i).is_multiple_of(every) {
                self.kept.extend_from_slice(row);
            }
        }
    }

    fn merge(&mut self, other: SiteRanges) {
        self.min.iter_mut().zip(&other.min).for_each(|(a, &b)| *a = a.min(b));
        self.max.iter_mut().zip(&other.max).for_each(|(a, &b)| *a = a.max(b));
        self.kept.extend(other.kept);
        self.tokens += other.tokens;
    }

    fn into_observed(self) -> Observed {
        Observed { min: self.min, max: self.max, sample: self.kept, tokens: self.tokens }
    }
}
