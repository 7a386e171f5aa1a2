//! Measures what every site's channels hold on sample text, by running the Tensor graph through the runtime.

use crate::Complaints;
use crate::progress;
use snnc_ir::{Builder, Diagnostic, Graph, Op, Value};
use snnc_passes::quantise::{self, Range, Ranges};
use snnc_runtime::{Engine, Options, Program, Rows, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples of a channel that its median is taken from, at most.
const MEDIAN_SAMPLES: usize = 1024;

/// Sequences of token ids to run.
pub type Windows = Vec<Vec<u32>>;

/// Ranges of every site of `graph` over `windows`, on `threads` threads. The result does not depend on their number.
pub fn calibrate(graph: &Graph, windows: &Windows, threads: usize) -> Result<Ranges, Complaints> {
    let sites = quantise::sites(graph);
    let observed = observe(graph, &sites);
    let options = Options { engine: Engine::Jit, count: false, ..Options::default() };
    let program = Arc::new(Program::new(Arc::new(observed), &options).map_err(|e| vec![e])?);
    let tokens: usize = windows.iter().map(Vec::len).sum();
    let bar = progress::bar(tokens as u64, "calibrating");
    let every = tokens.div_ceil(MEDIAN_SAMPLES).max(1);
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
    let mut by_window = in_threads(threads.min(windows.len()).max(1), &work).map_err(|e| vec![e])?;
    bar.finish_and_clear();
    by_window.sort_by_key(|(i, _)| *i);
    let mut merged: Vec<Seen> = sites.iter().map(|site| Seen::new(graph, *site)).collect();
    for (_, window) in by_window {
        merged.iter_mut().zip(window).for_each(|(all, seen)| all.merge(seen));
    }
    Ok(sites.into_iter().zip(merged.into_iter().map(Seen::into_range)).collect())
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

/// The same graph with its sites as outputs. What only the logits need is then dead.
fn observe(graph: &Graph, sites: &[Value]) -> Graph {
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let args: Vec<Value> = node.args.iter().map(|arg: &Value| map[arg.index()]).collect();
        map.push(match node.op {
            Op::Weight(id) => builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone()),
            op => {
                let new = builder.add(op, &args, graph.origin(value));
                new.unwrap_or_else(|e| unreachable!("a verified graph is well-typed: {e}"))
            }
        });
    }
    builder.finish(sites.iter().map(|site| (name(*site), map[site.index()])).collect())
}

/// What a site's channels held in some windows.
struct Seen {
    min: Vec<f32>,
    max: Vec<f32>,
    /// Rows kept for the median, one after the other; only where a median is wanted.
    kept: Option<Vec<f32>>,
}

impl Seen {
    fn new(graph: &Graph, site: Value) -> Self {
        let width = graph.ty(site).shape().width().unwrap_or(0);
        let kept = quantise::is_centred(graph, site).then(Vec::new);
        Self { min: vec![f32::INFINITY; width], max: vec![f32::NEG_INFINITY; width], kept }
    }

    /// Adds rows that begin at token `at` of all text; one row in `every` is kept for the median.
    fn add(&mut self, rows: &[f32], at: usize, every: usize) {
        for (i, row) in rows.chunks_exact(self.min.len().max(1)).enumerate() {
            self.min.iter_mut().zip(row).for_each(|(min, &x)| *min = if x < *min { x } else { *min });
            self.max.iter_mut().zip(row).for_each(|(max, &x)| *max = if x > *max { x } else { *max });
            if let Some(kept) = &mut self.kept
                && (at + i).is_multiple_of(every)
            {
                kept.extend_from_slice(row);
            }
        }
    }

    fn merge(&mut self, other: Seen) {
        self.min.iter_mut().zip(&other.min).for_each(|(a, &b)| *a = a.min(b));
        self.max.iter_mut().zip(&other.max).for_each(|(a, &b)| *a = a.max(b));
        if let (Some(kept), Some(more)) = (&mut self.kept, other.kept) {
            kept.extend(more);
        }
    }

    fn into_range(self) -> Range {
        let width = self.min.len();
        let median = match &self.kept {
            None => vec![0.0; width],
            Some(kept) => (0..width).map(|c| median(kept.iter().skip(c).step_by(width).copied().collect())).collect(),
        };
        Range { min: self.min, max: self.max, median }
    }
}

/// The middle value, 0 of none.
fn median(mut values: Vec<f32>) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}
