//! Observes what every site's channels hold on sample text, and which of them go together, by running the Tensor graph through the runtime.

use crate::parallel::pool;
use crate::progress::{Progress, Workers, cancelled};
use rayon::prelude::*;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Builder, Diagnostic, Graph, Value};
use snnc_passes::moments::{InputMoments, SiteMoments};
use snnc_passes::observed::{Observations, Observed};
use snnc_passes::sites::{Role, SiteValue, projections, sites};
use snnc_runtime::{Engine, Options, Program, Rows, Session};
use std::sync::Arc;

/// Rows of a site that are kept, at most: medians and least errors are taken from them.
const SAMPLE_ROWS: usize = 1024;

/// Numbers of all sites that are kept, at most: 256 MiB.
const SAMPLE_NUMBERS: usize = 1 << 26;

/// Sequences of token ids to run.
pub type TokenWindows = Vec<Vec<u32>>;

/// Tokens that moments are summed over, at most, by whether weights are of 4 bits. With 4096, the prototype's weights in 8 bits diverge by
/// 0.0011 nats on SmolLM2-135M, to nearest by 0.0041; with 16384 by no less. Weights of 4 bits raise perplexity by 7.9 % with 4096 tokens, by
/// 4.6 % with 16384.
pub fn moment_tokens(four_bits: bool) -> usize {
    if four_bits { 16384 } else { 4096 }
}

/// Sequences that run side by side, and tokens of each that go together: rows of all sites are held for so many.
const SIDE_BY_SIDE: usize = 8;
const CHUNK: usize = 32;

/// What every site of `graph` holds over `windows`; but rows of tokens that begin a window as one of `constants` does are left out where
/// they lead to what is a constant. Constants of two tokens are run besides, since what later tokens read of them is none. The result does
/// not depend on the number of threads.
///
/// # Errors
/// The graph cannot be run; a request to stop.
pub fn calibrate<'a>(
    graph: &Graph,
    windows: &TokenWindows,
    constants: &[Vec<u32>],
    workers: impl Into<Workers<'a>>,
) -> Result<Observations, Diagnostics> {
    Ok(observe(graph, windows, constants, None, workers.into())?.0)
}

/// The same, and the moments of what projections read over some of the windows, of at most `moment_tokens` tokens. Rows of constants
/// are left out of them. Bytes that are held in the end: see `moments_bytes`.
///
/// # Errors
/// As of `calibrate`.
pub fn calibrate_with_moments<'a>(
    graph: &Graph,
    windows: &TokenWindows,
    constants: &[Vec<u32>],
    moment_tokens: usize,
    workers: impl Into<Workers<'a>>,
) -> Result<(Observations, SiteMoments), Diagnostics> {
    observe(graph, windows, constants, Some(moment_tokens), workers.into())
}

/// What is observed of a site.
struct SiteWatch {
    value: Value,
    name: String,
    /// Whether rows of constants count: later tokens attend to them, and the head reads them.
    constants_count: bool,
    /// Whether a projection reads it.
    is_read: bool,
}

impl SiteWatch {
    fn all(graph: &Graph) -> Vec<Self> {
        let reads: Vec<Value> = projections(graph).iter().map(|read| graph.node(read.value).args[0]).collect();
        let counts = |role: Role| matches!(role, Role::AttentionIn | Role::Key | Role::Value | Role::Head);
        let watch = |site: SiteValue| Self {
            value: site.value,
            name: format!("site.{}", site.value.0),
            constants_count: counts(site.role),
            is_read: reads.contains(&site.value),
        };
        sites(graph).into_iter().map(watch).collect()
    }
}

/// A window that runs.
struct RunningWindow<'w> {
    session: Session,
    /// What is left of it.
    rest: std::slice::Chunks<'w, u32>,
    /// The token of all text that comes next.
    at: usize,
    seen: Vec<SiteRanges>,
}

fn observe(
    graph: &Graph,
    windows: &TokenWindows,
    constants: &[Vec<u32>],
    moment_tokens: Option<usize>,
    workers: Workers<'_>,
) -> Result<(Observations, SiteMoments), Diagnostics> {
    let watched = SiteWatch::all(graph);
    let windows: Vec<&Vec<u32>> = windows.iter().chain(constants.iter().filter(|start| start.len() > 1)).collect();
    // What only the logits need is then dead.
    let outputs = watched.iter().map(|site| (site.name.clone(), site.value)).collect();
    let options = Options { engine: Engine::Jit, count: false, chunk: CHUNK, ..Options::default() };
    let program = Arc::new(Program::new(Arc::new(Builder::with_outputs(graph, outputs)), &options)?);
    let tokens: usize = windows.iter().map(|window| window.len()).sum();
    let width_of = |site: &SiteWatch| graph.ty(site.value).shape().width().unwrap_or(0);
    let width: usize = watched.iter().map(width_of).sum();
    let every = tokens.div_ceil(SAMPLE_ROWS.min(SAMPLE_NUMBERS / width.max(1)).max(1)).max(1);
    let starts: Vec<usize> =
        windows.iter().scan(0, |start, window| Some(std::mem::replace(start, *start + window.len()))).collect();
    let with_moments = moment_tokens.is_some();
    let for_moments = moment_tokens.map(|tokens| evenly_long(&windows, tokens)).unwrap_or_default();
    let others: Vec<usize> = (0..windows.len()).filter(|window| for_moments.binary_search(window).is_err()).collect();
    let read_width = |site: &SiteWatch| if with_moments && site.is_read { width_of(site) } else { 0 };
    let mut moments: Vec<InputMoments> = watched.iter().map(|site| InputMoments::new(read_width(site))).collect();
    let mut by_window: Vec<Vec<SiteRanges>> = windows.iter().map(|_| Vec::new()).collect();
    let mut idle: Vec<Session> = Vec::new();
    workers.progress.begin("calibrating", tokens as u64);
    let pool = pool(workers.threads)?;
    let groups = for_moments.chunks(SIDE_BY_SIDE).map(|group| (group, true));
    for (group, sums) in groups.chain(others.chunks(SIDE_BY_SIDE).map(|group| (group, false))) {
        let start = |&i: &usize| {
            let mut session = idle.pop().map_or_else(|| Session::new(program.clone()), Ok)?;
            session.reset();
            let rows = kept(starts[i], windows[i].len(), every);
            let seen = watched.iter().map(|site| SiteRanges::new(width_of(site), rows)).collect();
            Ok(RunningWindow { session, rest: windows[i].chunks(CHUNK), at: starts[i], seen })
        };
        let mut running = group.iter().map(start).collect::<Result<Vec<RunningWindow<'_>>, Diagnostic>>()?;
        while running.iter().any(|window| window.rest.len() > 0) {
            if workers.progress.is_cancelled() {
                return Err(cancelled().into());
            }
            let run = |window: &mut RunningWindow<'_>| window.run(&watched, constants, every, sums, workers.progress);
            let rows: Result<Vec<Vec<Vec<f32>>>, Diagnostic> =
                pool.install(|| running.par_iter_mut().with_max_len(1).map(run).collect());
            let rows = rows?;
            let add = |(site, moments): (usize, &mut InputMoments)| {
                moments.add(&rows.iter().filter_map(|rows| rows.get(site)).flatten().copied().collect::<Vec<f32>>());
            };
            pool.install(|| moments.par_iter_mut().enumerate().with_max_len(1).for_each(add));
        }
        for (window, running) in group.iter().zip(running) {
            by_window[*window] = running.seen;
            idle.push(running.session);
        }
    }
    workers.progress.end();
    // Site by site: what a window kept of it goes as its part of the whole comes.
    let mut by_window: Vec<_> = by_window.into_iter().map(Vec::into_iter).collect();
    let rows = kept(0, tokens, every);
    let merged = watched.iter().map(|site| {
        let mut all = SiteRanges::new(width_of(site), rows);
        by_window.iter_mut().filter_map(Iterator::next).for_each(|seen| all.merge(seen));
        (site.value, all.into_observed())
    });
    let seen = merged.collect();
    let read = watched.iter().zip(moments).filter(|(site, _)| with_moments && site.is_read);
    Ok((seen, read.map(|(site, moments)| (site.value, moments)).collect()))
}

impl RunningWindow<'_> {
    /// Runs the next chunk, if there is one. Where moments are summed: the rows of sites that projections read.
    fn run(
        &mut self,
        watched: &[SiteWatch],
        constants: &[Vec<u32>],
        every: usize,
        sums: bool,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<f32>>, Diagnostic> {
        let Some(chunk) = self.rest.next() else { return Ok(Vec::new()) };
        let begins = |start: &&Vec<u32>| self.session.past() == 0 && chunk.starts_with(start);
        let constant = constants.iter().filter(begins).map(Vec::len).max().unwrap_or(0);
        let outputs = self.session.forward(chunk, Rows::All)?;
        let mut read = Vec::with_capacity(watched.len());
        for (site, seen) in watched.iter().zip(&mut self.seen) {
            let rows = outputs.f32(&site.name).unwrap_or(&[]);
            let from = |row: usize| &rows[row * rows.len() / chunk.len()..];
            let left_out = if site.constants_count { 0 } else { constant };
            seen.add(from(left_out), self.at + left_out, every);
            if sums {
                read.push(if site.is_read { from(constant).to_vec() } else { Vec::new() });
            }
        }
        self.at += chunk.len();
        progress.advance(chunk.len() as u64);
        Ok(read)
    }
}

/// Windows as long as most, evenly spread, of so many tokens at most. First tokens of texts are unlike others,
/// so short windows, which are there for them, would give them too much weight.
fn evenly_long(windows: &[&Vec<u32>], tokens: usize) -> Vec<usize> {
    let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);
    let long: Vec<usize> = (0..windows.len()).filter(|&window| 2 * windows[window].len() > longest).collect();
    let count = (tokens / longest.max(1)).clamp(1, long.len().max(1)).min(long.len());
    (0..count).map(|i| long[i * long.len() / count]).collect()
}

/// How many of `tokens` tokens from `start` on are kept, if one in `every` is.
fn kept(start: usize, tokens: usize, every: usize) -> usize {
    (start + tokens).div_ceil(every) - start.div_ceil(every)
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
    fn new(width: usize, rows: usize) -> Self {
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
