//! Measures which channels of a site go together on sample text, by running the Tensor graph through the runtime.

use crate::calibrate::TokenWindows;
use crate::parallel::pool;
use crate::progress::{Workers, cancelled};
use rayon::prelude::*;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Builder, Diagnostic, Graph, Value};
use snnc_passes::moments::{InputMoments, SiteMoments};
use snnc_passes::sites::projections;
use snnc_runtime::{Engine, Options, Program, Rows, Session};
use std::sync::Arc;

/// Tokens that moments are summed over, at most. With as many, the prototype's weights in 8 bits diverge by 0.0011 nats on
/// SmolLM2-135M, to nearest by 0.0041.
const TOKENS: usize = 4096;

/// Sequences that run side by side, and tokens of each that are summed together: rows of all sites are held for so many.
const SIDE_BY_SIDE: usize = 8;
const CHUNK: usize = 32;

/// The moments of what the projections of `graph` read over `windows`, or over some of them. Rows of tokens of
/// `constants` that begin a window are left out. The result does not depend on the number of threads. Bytes that are held in the end: see `moments_bytes`.
///
/// # Errors
/// The graph cannot be run; a request to stop.
pub fn moments<'a>(
    graph: &Graph,
    windows: &TokenWindows,
    constants: &[u32],
    workers: impl Into<Workers<'a>>,
) -> Result<SiteMoments, Diagnostics> {
    let workers = workers.into();
    let mut sites: Vec<Value> = projections(graph).iter().map(|read| graph.node(read.value).args[0]).collect();
    sites.sort_unstable();
    sites.dedup();
    let observed = Builder::with_outputs(graph, sites.iter().map(|site| (name(*site), *site)).collect());
    let options = Options { engine: Engine::Jit, count: false, chunk: CHUNK, ..Options::default() };
    let program = Arc::new(Program::new(Arc::new(observed), &options)?);
    let width = |site: &Value| graph.ty(*site).shape().width().unwrap_or(0);
    let mut all: Vec<InputMoments> = sites.iter().map(|site| InputMoments::new(width(site))).collect();
    let windows = some(windows);
    workers.progress.begin("measuring moments", windows.iter().map(|window| window.len() as u64).sum());
    let pool = pool(workers.threads)?;
    for windows in windows.chunks(SIDE_BY_SIDE) {
        let mut sessions = windows
            .iter()
            .map(|window| Ok((Session::new(program.clone())?, window.chunks(CHUNK))))
            .collect::<Result<Vec<_>, Diagnostic>>()?;
        while sessions.iter().any(|(_, rest)| rest.len() > 0) {
            if workers.progress.is_cancelled() {
                return Err(cancelled().into());
            }
            let run = |(session, rest): &mut (Session, std::slice::Chunks<'_, u32>)| {
                let Some(chunk) = rest.next() else { return Ok(Vec::new()) };
                let left_out = usize::from(session.past() == 0 && constants.contains(&chunk[0]));
                let outputs = session.forward(chunk, Rows::All)?;
                let rows = |site: &Value| outputs.f32(&name(*site)).unwrap_or(&[]);
                let own = |rows: &[f32]| rows[left_out * rows.len() / chunk.len()..].to_vec();
                let rows = sites.iter().map(|site| own(rows(site))).collect();
                workers.progress.advance(chunk.len() as u64);
                Ok(rows)
            };
            let rows: Result<Vec<Vec<Vec<f32>>>, Diagnostic> =
                pool.install(|| sessions.par_iter_mut().with_max_len(1).map(run).collect());
            let rows = rows?;
            pool.install(|| {
                all.par_iter_mut().enumerate().with_max_len(1).for_each(|(site, moments)| {
                    moments
                        .add(&rows.iter().filter_map(|rows| rows.get(site)).flatten().copied().collect::<Vec<f32>>());
                });
            });
        }
    }
    workers.progress.end();
    Ok(sites.into_iter().zip(all).collect())
}

/// Windows as long as most, evenly spread, of so many tokens at most: first tokens of texts are unlike others, so short windows,
/// which are there for them, would give them too much weight.
fn some(windows: &TokenWindows) -> Vec<&[u32]> {
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    let long: Vec<&[u32]> = windows.iter().filter(|window| 2 * window.len() > longest).map(Vec::as_slice).collect();
    let count = (TOKENS / longest.max(1)).clamp(1, long.len().max(1));
    (0..count.min(long.len())).map(|i| long[i * long.len() / count]).collect()
}

fn name(site: Value) -> String {
    format!("site.{}", site.0)
}
