//! A network of which every rank holds some of the layers: texts pass through the ranks, one behind the other.
//!
//! For networks that one machine cannot hold. While a rank runs some tokens, the rank before it runs the tokens behind them. Law: what
//! is computed is what one process computes, to the bit; every rank has all results.

use crate::evaluate::{
    Window, WindowResults, WindowScore, add_events, check_windows, chunks, event_counts, events_of, hash_of_program,
    hash_of_windows, logits_of, score_rows_of,
};
use crate::files;
use crate::generate::Predicting;
use crate::model::{EngineOptions, ModelSource};
use crate::progress::{Workers, cancelled};
use crate::ranks::{self, Ranks};
use serde_json::json;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::events::Events;
use snnc_ir::{Diagnostic, ErrorCode, Graph, Value};
use snnc_passes::segments::{STREAM, Segment, segments};
use snnc_runtime::{MatmulCounts, Program, Rows, Session};
use std::sync::Arc;

/// The layers of a network that this rank runs.
#[derive(Clone, Debug)]
pub struct SplitNetwork {
    /// The whole network, of which other ranks run the rest.
    pub whole: Arc<Graph>,
    program: Arc<Program>,
    /// By node of the program: the node of the network that it alone is.
    nodes: Vec<Option<Value>>,
    /// The output that is handed over, or on the last rank the network's prediction.
    output: String,
}

impl SplitNetwork {
    /// Cuts the program that an engine would take into as many segments as there are ranks, and prepares this rank's. `context`: a
    /// shorter one than the network's.
    ///
    /// # Errors
    /// The network cannot be cut into so many, or predicts no tokens; what cannot be run.
    pub fn new(
        source: ModelSource,
        options: &EngineOptions,
        context: Option<u32>,
        ranks: &dyn Ranks,
    ) -> Result<Self, Diagnostics> {
        let whole = source.graph_to_run(options, context)?;
        let predicts = logits_of(&whole)?;
        let is_last = ranks.rank() + 1 == ranks.count();
        let own = segments(&whole, ranks.count())?.into_iter().nth(ranks.rank());
        let Some(Segment { graph, nodes }) = own else { unreachable!("there is a segment for every rank") };
        let program = Arc::new(Program::new(Arc::new(graph), &options.of_engine())?);
        let output = if is_last { predicts } else { STREAM.to_string() };
        Ok(Self { whole: Arc::new(whole), program, nodes, output })
    }

    /// Nodes of the network that this rank runs.
    pub fn own_nodes(&self) -> impl Iterator<Item = Value> + '_ {
        self.nodes.iter().flatten().copied()
    }

    /// What this rank's nodes did, by node of the whole network.
    fn events(&self, own: &[Events]) -> Vec<Events> {
        let mut all = vec![Events::default(); self.whole.nodes.len()];
        for (node, events) in self.nodes.iter().zip(own) {
            if let Some(node) = node {
                all[node.index()] = *events;
            }
        }
        all
    }

    /// Numbers of a token's row that the rank before hands over.
    fn width(&self) -> usize {
        self.program.graph().stream_width().unwrap_or(0)
    }
}

/// Some pieces of work, each of which passes all ranks, first to last. `step` does this rank's part of piece `i`, from what the rank
/// before made of it, and gives what the next one needs.
///
/// # Errors
/// As of `step`; a rank cannot be reached.
fn pass_ranks(
    ranks: &dyn Ranks,
    pieces: usize,
    mut step: impl FnMut(usize, &[u8]) -> Result<Vec<u8>, Diagnostic>,
) -> Result<(), Diagnostic> {
    let (rank, count) = (ranks.rank(), ranks.count());
    let mut received = Vec::new();
    for tick in 0..pieces + count - 1 {
        let mut messages = vec![Vec::new(); count];
        if let Some(piece) = tick.checked_sub(rank).filter(|&piece| piece < pieces) {
            let made = step(piece, &received)?;
            if let Some(next) = messages.get_mut(rank + 1) {
                *next = made;
            }
        }
        let mut all = ranks.exchange(messages)?;
        received = rank.checked_sub(1).map_or(Vec::new(), |before| all.swap_remove(before));
    }
    Ok(())
}

/// Numbers as ranks hand them over.
fn to_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The same back.
///
/// # Errors
/// They are no numbers.
fn to_numbers(bytes: &[u8]) -> Result<Vec<f32>, Diagnostic> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        return Ok(numbers.iter().map(|x| f32::from_le_bytes(*x)).collect());
    }
    let message = format!("{} bytes came from another rank, which are no numbers", bytes.len());
    Err(Diagnostic::new("", message).code(ErrorCode::RUN).note("start the same snnc on every rank"))
}

/// Networks and the windows of a text that they are run on, each beside one run of a dense network.
#[derive(Clone, Copy, Debug)]
pub struct SplitWork<'a> {
    /// The networks.
    pub networks: &'a [SplitNetwork],
    /// The dense network.
    pub dense: Option<&'a SplitNetwork>,
    /// The text.
    pub ids: &'a [u32],
    /// Windows of it.
    pub ranges: &'a [Window],
    /// The ranks, and who watches.
    pub workers: Workers<'a>,
}

impl SplitWork<'_> {
    /// Runs the windows. Every rank has the results of all.
    ///
    /// # Errors
    /// There are no windows, or too many; a network cannot be run; a request to stop; ranks of other texts or networks.
    pub fn run(&self) -> Result<WindowResults, Diagnostic> {
        check_windows(self.ranges.len())?;
        self.agree()?;
        // All of the files was read to be checked, and the layers of other ranks are not read again.
        files::release_pages();
        let &Self { networks, dense, ids, ranges, workers } = self;
        let all: Vec<&SplitNetwork> = networks.iter().chain(dense).collect();
        let mut sessions = all.iter().map(|one| Session::new(one.program.clone())).collect::<Result<Vec<_>, _>>()?;
        let pieces: Vec<_> = ranges
            .iter()
            .enumerate()
            .flat_map(|(at, window)| chunks(window.inputs.clone()).map(move |chunk| (at, chunk)))
            .collect();
        let is_last = workers.ranks.rank() + 1 == workers.ranks.count();
        let mut scores = vec![vec![WindowScore::default(); networks.len()]; ranges.len()];
        workers.progress.begin("evaluating", ranges.iter().map(|window| window.inputs.len() as u64).sum());
        pass_ranks(workers.ranks, pieces.len(), |piece, received| {
            if workers.progress.is_cancelled() {
                return Err(cancelled());
            }
            let (at, chunk) = pieces[piece].clone();
            let window = &ranges[at];
            if chunk.start == window.inputs.start {
                sessions.iter_mut().for_each(Session::reset);
            }
            let stream = to_numbers(received)?;
            let mut given = Vec::with_capacity(all.len());
            let mut from = 0;
            for (network, session) in all.iter().zip(&mut sessions) {
                let length = network.width() * chunk.len();
                // What is missing is told of by the session.
                let own = &stream[from.min(stream.len())..(from + length).min(stream.len())];
                from += length;
                let outputs = session.forward_behind(&ids[chunk.clone()], own, Rows::All)?;
                given.push(outputs.f32(&network.output).unwrap_or(&[]).to_vec());
            }
            workers.progress.advance(chunk.len() as u64);
            if !is_last {
                return Ok(to_bytes(&given.concat()));
            }
            let reference = dense.and_then(|_| given.last()).map(Vec::as_slice);
            for (logits, scored) in given.iter().zip(&mut scores[at]) {
                score_rows_of(window, &chunk, ids, logits, reference, scored);
            }
            Ok(Vec::new())
        })?;
        let scores = if is_last { scores } else { Vec::new() };
        let scores = ranks::gathered(workers.ranks, &scores)?.pop().unwrap_or_default();
        let events = self.all_events(&sessions)?;
        workers.progress.end();
        Ok(WindowResults { scores, events })
    }

    /// Refuses ranks with other networks, texts or windows.
    fn agree(&self) -> Result<(), Diagnostic> {
        let hash = |network: &SplitNetwork| hash_of_program(&network.whole);
        let networks: Vec<String> = self.networks.iter().map(hash).collect();
        let windows = hash_of_windows(self.ids, self.ranges, networks.len());
        let all = json!({ "windows": windows, "programs": networks, "reference": self.dense.map(hash) });
        ranks::agree(self.workers.ranks, &all)
    }

    /// What all ranks did, by network and node.
    fn all_events(&self, sessions: &[Session]) -> Result<Vec<Vec<Events>>, Diagnostic> {
        let own = self.networks.iter().zip(sessions).map(|(network, session)| network.events(session.events()));
        let own: Vec<Vec<Events>> = own.collect();
        let counts: Vec<Vec<[u64; 8]>> = own.iter().map(|events| events.iter().map(event_counts).collect()).collect();
        let mut all: Vec<Vec<Events>> = own.iter().map(|events| vec![Events::default(); events.len()]).collect();
        for of_rank in ranks::gathered(self.workers.ranks, &counts)? {
            for (all, events) in all.iter_mut().zip(of_rank) {
                add_events(all, &events.into_iter().map(events_of).collect::<Vec<Events>>());
            }
        }
        Ok(all)
    }
}

/// One sequence of tokens whose layers all ranks run together.
#[derive(Debug)]
pub struct SplitSequence<'a> {
    network: &'a SplitNetwork,
    session: Session,
    ranks: &'a dyn Ranks,
    logits: Vec<f32>,
}

impl<'a> SplitSequence<'a> {
    /// An empty sequence.
    ///
    /// # Errors
    /// There is not enough memory for the values of a pass; ranks of other networks.
    pub fn new(network: &'a SplitNetwork, ranks: &'a dyn Ranks) -> Result<Self, Diagnostic> {
        ranks::agree(ranks, &json!({ "program": hash_of_program(&network.whole) }))?;
        files::release_pages();
        Ok(Self { network, session: Session::new(network.program.clone())?, ranks, logits: Vec::new() })
    }
}

impl Predicting for SplitSequence<'_> {
    fn context(&self) -> usize {
        self.network.whole.context as usize
    }

    fn past(&self) -> usize {
        self.session.past()
    }

    fn reset(&mut self) {
        self.session.reset();
    }

    /// Every rank has the logits.
    fn last_logits(&mut self, tokens: &[u32]) -> Result<&[f32], Diagnostic> {
        let Self { network, session, ranks, logits } = self;
        ranks::agree(*ranks, &json!({ "tokens": tokens }))?;
        let (last, count) = (ranks.count() - 1, ranks.count());
        let pieces: Vec<_> = chunks(0..tokens.len()).collect();
        let mut own = Vec::new();
        pass_ranks(*ranks, pieces.len(), |piece, received| {
            let chunk = pieces[piece].clone();
            let rows = match (ranks.rank() == last, chunk.end == tokens.len()) {
                (false, _) => Rows::All,
                (true, true) => Rows::Last,
                (true, false) => Rows::None,
            };
            let outputs = session.forward_behind(&tokens[chunk], &to_numbers(received)?, rows)?;
            let given = to_bytes(outputs.f32(&network.output).unwrap_or(&[]));
            own.clone_from(&given);
            Ok(given)
        })?;
        let mut told = ranks.exchange(if ranks.rank() == last { vec![own; count] } else { vec![Vec::new(); count] })?;
        *logits = to_numbers(&told.swap_remove(last))?;
        Ok(logits)
    }

    /// Those of this rank's layers.
    fn products(&self) -> Vec<MatmulCounts> {
        let mut all = vec![MatmulCounts::default(); self.network.whole.nodes.len()];
        for (node, counts) in self.network.nodes.iter().zip(self.session.matmul_counts()) {
            if let Some(node) = node {
                all[node.index()] = *counts;
            }
        }
        all
    }
}
