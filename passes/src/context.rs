//! What passes know besides the graph.

use crate::fit::QuantPlan;
use crate::moments::SiteMoments;
use snnc_ir::membrane::Membrane;
use snnc_ir::site::Site;

/// What passes know besides the graph.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The levels of every site, by value of the simplified graph.
    pub quant_plan: QuantPlan,
    /// Second moments of what projections read, by value of the same graph: with them their weights are rounded so that errors
    /// compensate each other, without them to nearest.
    pub moments: SiteMoments,
    /// Time-stepped neurons take the place of integrate-then-fire neurons, where a unary code allows.
    pub membrane: Option<Membrane>,
    /// A site whose neurons integrate first all the same.
    pub integrates_first: Option<Site>,
    /// Whether the numbers of the imported graph were rounded to codes of eight bits, those of activation functions too.
    pub rounded: bool,
    /// Whether the embedding keeps its table where it might read a tied head's weight.
    pub own_embedding: bool,
}
