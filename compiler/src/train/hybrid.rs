//! Which layers attend without softmax, within a budget: in order of least damage, each measured alone, then together.

use crate::energy::{self, Block, Phase, PriceList, Setting};
use crate::evaluate::{Cut, evaluate};
use crate::progress::Workers;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::LevelOp;
use snnc_ir::{Graph, Op, Ssa};
use snnc_passes::collapse;
use snnc_passes::cost::Form;
use snnc_passes::hybrid::hybrid;
use snnc_runtime::{Options, Program};
use std::sync::Arc;

/// By which energy is given: every operation at the price of its own width.
const PRICES: &str = "int45";

/// One choice, measured.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HybridChoice {
    /// Layers that keep attention by time to first spike.
    pub ttfs: Vec<usize>,
    /// The exponential of the mean negative log likelihood.
    pub perplexity: f64,
    /// Rise over the dense network's perplexity, as a share.
    pub rise: f64,
    /// Energy of attention's cores and projections, and of all, in nanojoules per token, by the price list `int45`, time
    /// collapsed.
    pub attention_nj: f64,
    /// Energy in all, in nanojoules per token.
    pub total_nj: f64,
    /// Whether perplexity stays within the budget.
    pub within_budget: bool,
}

impl HybridChoice {
    /// One line for a person.
    pub fn words(&self) -> String {
        let kept = self.ttfs.iter().map(usize::to_string).collect::<Vec<String>>().join(",");
        format!(
            "ttfs in {:<12} perplexity {:.3} ({:+.2} %), attention {:.1} nJ per token, all {:.1} nJ{}",
            if kept.is_empty() { "no layer".into() } else { format!("layers {kept}") },
            self.perplexity,
            100.0 * self.rise,
            self.attention_nj,
            self.total_nj,
            if self.within_budget { "" } else { "; beyond the budget" }
        )
    }
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Found {
    /// All choices that were measured.
    pub measured: Vec<HybridChoice>,
    /// The last that keeps the budget, and its program. `None` where no layer keeps it.
    pub kept: Option<(HybridChoice, Graph)>,
}

/// What the search measures on.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Every layer trained, and every layer by time to first spike.
    pub trained: &'a Graph,
    /// Layers with attention by time to first spike.
    pub ttfs: &'a Graph,
    /// The dense network.
    pub dense: &'a Arc<Program>,
    /// The text.
    pub ids: &'a [u32],
    /// What of it is run.
    pub cut: Cut,
    /// How windows are run.
    pub workers: Workers<'a>,
    /// The largest rise of perplexity over the dense network's, as a share.
    pub budget: f64,
}

impl Search<'_> {
    /// # Errors
    /// Programs of different networks; what cannot be run.
    pub fn run(&self) -> Result<Found, Diagnostics> {
        let attentions = self.trained.nodes.iter().map(|node| node.op).filter(Op::has_state);
        let is_ttfs: Vec<bool> =
            attentions.map(|op| matches!(op, Op::Level(LevelOp::Ssa { variant: Ssa::Ttfs { .. }, .. }))).collect();
        let layers = is_ttfs.len();
        let mut alone = Vec::new();
        // Layers that attend by time to first spike already are kept in every choice.
        for layer in (0..layers).filter(|&layer| !is_ttfs[layer]) {
            let kept = (0..layers).filter(|&other| other != layer).collect::<Vec<usize>>();
            alone.push((layer, self.measure(&kept, layers)?.0));
        }
        alone.sort_by(|a, b| a.1.perplexity.total_cmp(&b.1.perplexity).then(a.0.cmp(&b.0)));
        let mut measured: Vec<HybridChoice> = Vec::new();
        let mut found = None;
        let mut replaced: Vec<usize> = Vec::new();
        for (layer, choice) in alone {
            replaced.push(layer);
            let kept: Vec<usize> = (0..layers).filter(|other| !replaced.contains(other)).collect();
            let (choice, graph) = match replaced.len() {
                // It was measured above.
                1 => (choice.clone(), self.graph(&choice.ttfs, layers)?),
                _ => self.measure(&kept, layers)?,
            };
            let keeps = choice.within_budget;
            measured.push(choice.clone());
            if !keeps {
                break;
            }
            found = Some((choice, graph));
        }
        Ok(Found { measured, kept: found })
    }

    fn graph(&self, kept: &[usize], layers: usize) -> Result<Graph, Diagnostics> {
        let take: Vec<bool> = (0..layers).map(|layer| kept.contains(&layer)).collect();
        let graph = hybrid(self.trained, self.ttfs, &take)?;
        snnc_ir::verify::verify(&graph)?;
        Ok(graph)
    }

    fn measure(&self, kept: &[usize], layers: usize) -> Result<(HybridChoice, Graph), Diagnostics> {
        let graph = self.graph(kept, layers)?;
        let run = if collapse::depends_on_order(&graph) { graph.clone() } else { collapse::collapse(&graph)? };
        let program = Arc::new(Program::new(Arc::new(run), &Options::default())?);
        let done = evaluate(&program, Some(self.dense), self.ids, self.cut, self.workers)?;
        let context = u64::from(program.graph().context);
        let setting = Setting { context, batch: 1, span: Options::default().chunk as u64 };
        let list = PriceList::named(PRICES)?;
        let estimate = energy::estimate(program.graph(), &done.activity(), setting, vec![list.clone()]);
        let counts = estimate.counts(Phase::Prefill, Form::Collapsed);
        let nj = |block| counts.price(block, &list).partial_pj() / estimate.tokens as f64 / 1e3;
        let rise = done.score.perplexity() / done.score.perplexity_dense() - 1.0;
        let choice = HybridChoice {
            ttfs: kept.to_vec(),
            perplexity: done.score.perplexity(),
            rise,
            attention_nj: nj(Block::Attention),
            total_nj: nj(Block::Total),
            within_budget: rise <= self.budget,
        };
        Ok((choice, graph))
    }
}
