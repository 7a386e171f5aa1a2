//! Observes what every site's channels hold on sample text, and which of them go together, by running the Tensor graph through the runtime.

use crate::parallel::pool;
use crate::progress::{Workers, cancelled};
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
    Ok(calibrate_with_moments(graph, MomentText { windows, constants, tokens: 0 }, &[], workers)?.0)
}

/// What moments are summed over: some windows of a text. Rows of constants are left out of them.
#[derive(Clone, Copy, Debug)]
pub struct MomentText<'a> {
    /// All windows of the text.
    pub windows: &'a TokenWindows,
    /// Tokens, one or two, whose rows are constants where they begin a window.
    pub constants: &'a [Vec<u32>],
    /// Tokens of the windows that are summed, at most.
    pub tokens: usize,
}

/// The same, and the moments of some of the sites that projections read. Bytes that are held in the end: see `moments_bytes`.
///
/// # Errors
/// As of `calibrate`.
pub fn calibrate_with_moments<'a>(
    graph: &Graph,
    text: MomentText<'_>,
    sites: &[Value],
    workers: impl Into<Workers<'a>>,
) -> Result<(Observations, SiteMoments), Diagnostics> {
    let workers = workers.into();
    let mut run = WatchedText::new(graph, SiteWatch::all(graph, sites), text, workers)?;
    let tokens: usize = run.windows.iter().map(|window| window.len()).sum();
    let width: usize = run.watched.iter().map(|site| site.width).sum();
    run.every = tokens.div_ceil(SAMPLE_ROWS.min(SAMPLE_NUMBERS / width.max(1)).max(1)).max(1);
    let summed = if sites.is_empty() { Vec::new() } else { evenly_long(&run.windows, text.tokens) };
    let others: Vec<usize> = (0..run.windows.len()).filter(|window| summed.binary_search(window).is_err()).collect();
    workers.progress.begin("calibrating", tokens as u64);
    let mut by_window: Vec<Vec<SiteRanges>> = run.windows.iter().map(|_| Vec::new()).collect();
    let mut moments = run.no_moments();
    for (windows, moments) in [(&summed, Some(&mut moments)), (&others, None)] {
        for (window, seen) in windows.iter().zip(run.over(windows, moments)?) {
            by_window[*window] = seen;
        }
    }
    workers.progress.end();
    // Site by site: what a window kept of it goes as its part of the whole comes.
    let mut by_window: Vec<_> = by_window.into_iter().map(Vec::into_iter).collect();
    let rows = kept(0, tokens, run.every);
    let merged = run.watched.iter().map(|site| {
        let mut all = SiteRanges::new(site.width, rows);
        by_window.iter_mut().filter_map(Iterator::next).for_each(|seen| all.merge(seen));
        (site.value, all.into_observed())
    });
    Ok((merged.collect(), run.site_moments(moments)))
}

/// The moments of some sites alone: the same that `calibrate_with_moments` gives. The network runs as far as these sites.
///
/// # Errors
/// As of `calibrate`.
pub fn moments_of(
    graph: &Graph,
    text: MomentText<'_>,
    sites: &[Value],
    stage: &str,
    workers: Workers<'_>,
) -> Result<SiteMoments, Diagnostics> {
    let watched = SiteWatch::all(graph, sites).into_iter().filter(|site| site.is_summed).collect();
    let run = WatchedText::new(graph, watched, text, workers)?;
    let summed = evenly_long(&run.windows, text.tokens);
    workers.progress.begin(stage, summed.iter().map(|&window| run.windows[window].len() as u64).sum());
    let mut moments = run.no_moments();
    run.over(&summed, Some(&mut moments))?;
    workers.progress.end();
    Ok(run.site_moments(moments))
}

/// The sites that projections read, in the order of the projections.
pub fn read_sites(graph: &Graph) -> Vec<Value> {
    projections(graph).iter().map(|read| graph.node(read.value).args[0]).collect()
}

/// What is observed of a site.
struct SiteWatch {
    value: Value,
    name: String,
    width: usize,
    /// Whether rows of constants count: later tokens attend to them, and the head reads them.
    constants_count: bool,
    /// Whether its moments are summed.
    is_summed: bool,
}

impl SiteWatch {
    /// All sites; `summed` are those of moments.
    fn all(graph: &Graph, summed: &[Value]) -> Vec<Self> {
        let reads = read_sites(graph);
        let counts = |role: Role| matches!(role, Role::AttentionIn | Role::Key | Role::Value | Role::Head);
        let watch = |site: SiteValue| Self {
            value: site.value,
            name: format!("site.{}", site.value.0),
            width: graph.ty(site.value).shape().width().unwrap_or(0),
            constants_count: counts(site.role),
            is_summed: reads.contains(&site.value) && summed.contains(&site.value),
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

/// A network that runs over windows of a text while sites of it are watched.
struct WatchedText<'a> {
    program: Arc<Program>,
    watched: Vec<SiteWatch>,
    windows: Vec<&'a Vec<u32>>,
    /// By window: the token of all text that it begins with.
    starts: Vec<usize>,
    constants: &'a [Vec<u32>],
    /// One row in so many is kept.
    every: usize,
    workers: Workers<'a>,
    pool: rayon::ThreadPool,
}

impl<'a> WatchedText<'a> {
    fn new(
        graph: &Graph,
        watched: Vec<SiteWatch>,
        text: MomentText<'a>,
        workers: Workers<'a>,
    ) -> Result<Self, Diagnostics> {
        let constants = text.constants;
        let windows: Vec<&Vec<u32>> =
            text.windows.iter().chain(constants.iter().filter(|start| start.len() > 1)).collect();
        // What only the logits need is then dead.
        let outputs = watched.iter().map(|site| (site.name.clone(), site.value)).collect();
        let options = Options { engine: Engine::Jit, count: false, chunk: CHUNK, ..Options::default() };
        let program = Arc::new(Program::new(Arc::new(Builder::with_outputs(graph, outputs)), &options)?);
        let starts =
            windows.iter().scan(0, |start, window| Some(std::mem::replace(start, *start + window.len()))).collect();
        let pool = pool(workers.threads)?;
        Ok(Self { program, watched, windows, starts, constants, every: usize::MAX, workers, pool })
    }

    fn no_moments(&self) -> Vec<InputMoments> {
        self.watched.iter().map(|site| InputMoments::new(if site.is_summed { site.width } else { 0 })).collect()
    }

    fn site_moments(&self, moments: Vec<InputMoments>) -> SiteMoments {
        let summed = self.watched.iter().zip(moments).filter(|(site, _)| site.is_summed);
        summed.map(|(site, moments)| (site.value, Arc::new(moments))).collect()
    }

    /// Runs these windows, and adds to the moments of sites, where they are given. Rows are put together in one way, whatever is watched.
    fn over(
        &self,
        windows: &[usize],
        mut moments: Option<&mut Vec<InputMoments>>,
    ) -> Result<Vec<Vec<SiteRanges>>, Diagnostics> {
        let mut seen = Vec::with_capacity(windows.len());
        let mut idle: Vec<Session> = Vec::new();
        for together in windows.chunks(SIDE_BY_SIDE) {
            let mut running =
                together.iter().map(|&i| self.begun(i, idle.pop())).collect::<Result<Vec<_>, Diagnostic>>()?;
            while running.iter().any(|window| window.rest.len() > 0) {
                if self.workers.progress.is_cancelled() {
                    return Err(cancelled().into());
                }
                let sums = moments.is_some();
                let run = |window: &mut RunningWindow<'_>| window.run(self, sums);
                let rows: Result<Vec<Vec<Vec<f32>>>, Diagnostic> =
                    self.pool.install(|| running.par_iter_mut().with_max_len(1).map(run).collect());
                let rows = rows?;
                let Some(moments) = moments.as_deref_mut() else { continue };
                let add = |(site, moments): (usize, &mut InputMoments)| {
                    let rows = rows.iter().filter_map(|rows| rows.get(site)).flatten();
                    moments.add(&rows.copied().collect::<Vec<f32>>());
                };
                self.pool.install(|| moments.par_iter_mut().enumerate().with_max_len(1).for_each(add));
            }
            for running in running {
                seen.push(running.seen);
                idle.push(running.session);
            }
        }
        Ok(seen)
    }

    fn begun(&self, window: usize, idle: Option<Session>) -> Result<RunningWindow<'a>, Diagnostic> {
        let mut session = idle.map_or_else(|| Session::new(self.program.clone()), Ok)?;
        session.reset();
        let rows = kept(self.starts[window], self.windows[window].len(), self.every);
        let seen = self.watched.iter().map(|site| SiteRanges::new(site.width, rows)).collect();
        Ok(RunningWindow { session, rest: self.windows[window].chunks(CHUNK), at: self.starts[window], seen })
    }
}

impl RunningWindow<'_> {
    /// Runs the next chunk, if there is one. Where moments are summed: the rows of their sites.
    fn run(&mut self, text: &WatchedText<'_>, sums: bool) -> Result<Vec<Vec<f32>>, Diagnostic> {
        let Some(chunk) = self.rest.next() else { return Ok(Vec::new()) };
        let begins = |start: &&Vec<u32>| self.session.past() == 0 && chunk.starts_with(start);
        let constant = text.constants.iter().filter(begins).map(Vec::len).max().unwrap_or(0);
        let outputs = self.session.forward(chunk, Rows::All)?;
        let mut read = Vec::with_capacity(text.watched.len());
        for (site, seen) in text.watched.iter().zip(&mut self.seen) {
            let rows = outputs.f32(&site.name).unwrap_or(&[]);
            let from = |row: usize| &rows[row * rows.len() / chunk.len()..];
            let left_out = if site.constants_count { 0 } else { constant };
            seen.add(from(left_out), self.at + left_out, text.every);
            if sums {
                read.push(if site.is_summed { from(constant).to_vec() } else { Vec::new() });
            }
        }
        self.at += chunk.len();
        text.workers.progress.advance(chunk.len() as u64);
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
