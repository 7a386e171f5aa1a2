//! What passes know besides the graph.

use crate::fit::QuantPlan;
use crate::moments::MomentSource;
use crate::options::Rotations;
use crate::side_by_side::SideBySide;
use indexmap::IndexMap;
use snnc_ir::membrane::Membrane;
use snnc_ir::site::Site;
use snnc_ir::{Tensor, Value, WeightStore};
use std::sync::Arc;

/// What tokens make of the residual stream where a sequence begins with them: constants of the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StartRows {
    /// Their ids: one, or two of which the second has the row.
    pub starts: Vec<Vec<u32>>,
    /// Row after row, by value of the simplified and rotated graph (`sites::streams`).
    pub rows: IndexMap<Value, Vec<f32>>,
}

/// What passes know besides the graph.
#[derive(Clone, Debug, Default)]
pub struct Context<'a> {
    /// What `rotate` turns.
    pub rotations: Rotations,
    /// The levels of every site, by value of the simplified and rotated graph.
    pub quant_plan: QuantPlan,
    /// Who knows second moments of what projections read, by value of the same graph: with them their weights are rounded so that errors
    /// compensate each other, without them to nearest.
    pub moments: Option<&'a dyn MomentSource>,
    /// Where large weights lie that passes make; in memory without one. It changes no result.
    pub store: Option<&'a dyn WeightStore>,
    /// How panels of weights are rounded. It changes no result.
    pub side_by_side: SideBySide,
    /// int8 weights that a program has already, by name: `rounded_weights` of it. They are taken instead of being rounded again.
    pub rounded_weights: IndexMap<String, Arc<Tensor>>,
    /// Time-stepped neurons take the place of integrate-then-fire neurons, where a unary code allows.
    pub membrane: Option<Membrane>,
    /// A site whose neurons integrate first all the same.
    pub integrates_first: Option<Site>,
    /// What tokens that texts begin with make of the residual stream.
    pub start: Option<Arc<StartRows>>,
    /// Whether the numbers of the imported graph were rounded to codes of eight bits, those of activation functions too.
    pub rounded: bool,
    /// Whether the embedding keeps its table where it might read a tied head's weight.
    pub own_embedding: bool,
}
