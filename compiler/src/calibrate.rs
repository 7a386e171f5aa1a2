//! Observes what every site's channels hold on sample text, by running the Tensor graph through the runtime.

use crate::Complaints;
use crate::progress;
use snnc_ir::{Builder, Diagnostic, Graph, Value};
use snnc_passes::fit::{Observations, Observed};
use snnc_passes::sites::sites;
use snnc_runtime::{Engine, Options, Program, Rows, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of a site that are kept, at most: medians and least errors are taken from them.
const SAMPLE_ROWS: usize = 1024;

/// Numbers of all sites that are kept, at most: 512 MiB.
const SAMPLE_NUMBERS: usize = 1 << 27;

/// Sequences of token ids to run.
pub type Windows = Vec<Vec<u32>>;

/// What every site of `graph` holds over `windows`, on `threads` threads. The result does not depend on their number.
pub fn calibrate(graph: &Graph, windows: &Windows, threads: usize) -> Result<Observations, Complaints> {
    let sites: Vec<Value> = sites(graph).iter().map(|site| site.value).collect();
    // What only the logits need is then dead.
    let observed = Builder::with_outputs(graph, sites.iter().map(|site| (name(*site), *site)).collect());
    let options = Options { engine: Engine::Jit, count: false, ..Options::default() };
    let program = Arc::new(Program::new(Arc::new(observed), &options)?);
    let tokens: usize = windows.iter().map(Vec::len).sum();
    let bar = progress::bar(tokens as u64, "calibrating");
    let width: usize = sites.iter().filter_map(|site| graph.ty(*site).shape().width()).sum();
    let every = tokens.div_ceil(SAMPLE_ROWS.min(SAMPLE_NUMBERS / width.max(1)).max(1)).max(1);
    let next = AtomicUsize::new(0);
    let starts: Vec<usize> =
        windows.iter().scan(0, |start, window| Some(std::mem::replace(start, *start + window.len()))).collect();
    let work = || -> Result<Vec<(usize, Vec<Seen>)>, Diagnostic> {
        let mut session = Session::new(program.clone());
        let mut seen = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(window) = windows.get(i) else { return Ok(seen) };
            session.reset();
            let mut all: Vec<Seen> = sites.iter().map(|site| Seen::new(graph, *site)).collect();
            let mut at = starts[i];
            for chunk in window.chunks(options.chunk) {
                let outputs = session.forward(chunk, Rows::All)?;
                for (site, seen) in sites.iter().zip(&mut all) {
                    let rows = outputs.f32(&name(*site)).unwrap_or(&[]);
                    seen.add(rows, at, every);
                }
                at += chunk.len();
                bar.inc(chunk.len() as u64);
            }
            seen.push((i, all));
        }
    };
    let mut by_window = in_threads(threads.min(windows.len()).max(1), &work)?;
    bar.finish_and_clear();
    by_window.sort_by_key(|(i, _)| *i);
    let mut merged: Vec<Seen> = sites.iter().map(|site| Seen::new(graph, *site)).collect();
    for (_, window) in by_window {
        merged.iter_mut().zip(window).for_each(|(all, seen)| all.merge(seen));
    }
    Ok(sites.into_iter().zip(merged.into_iter().map(Seen::into_observed)).collect())
}

/// Runs `work` on several threads and gathers what they return.
pub fn in_threads<T: Send>(
    threads: usize,
    work: &(dyn Fn() -> Result<Vec<T>, Diagnostic> + Sync),
) -> Result<Vec<T>, Diagnostic> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for handle in handles {
            let part = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(part?);
        }
        Ok(all)
    })
}

fn name(site: Value) -> String {
    format!("site.{}", site.0)
}

/// What a site's channels held in some windows.
struct Seen {
    min: Vec<f32>,
    max: Vec<f32>,
    /// Rows kept, one after the other.
    kept: Vec<f32>,
    tokens: usize,
}

impl Seen {
    fn new(graph: &Graph, site: Value) -> Self {
        let width = graph.ty(site).shape().width().unwrap_or(0);
        Self { min: vec![f32::INFINITY; width], max: vec![f32::NEG_INFINITY; width], kept: Vec::new(), tokens: 0 }
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

    fn merge(&mut self, other: Seen) {
        self.min.iter_mut().zip(&other.min).for_each(|(a, &b)| *a = a.min(b));
        self.max.iter_mut().zip(&other.max).for_each(|(a, &b)| *a = a.max(b));
        self.kept.extend(other.kept);
        self.tokens += other.tokens;
    }

    fn into_observed(self) -> Observed {
        Observed { min: self.min, max: self.max, sample: self.kept, tokens: self.tokens }
    }
}
