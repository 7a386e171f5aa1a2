//! Sites: the values that a weight or attention reads, by layer and role. What becomes levels is chosen site by site.
//!
//! A site is called by a path, `h.0.attention.q` or `head`; a *selector* is such a path with words left out, and means
//! every site that has the words in that order: `attention`, `h.3`, `mlp.hidden`, `q`.

use indexmap::IndexMap;
use snnc_ir::op::{ArrayOp, DenseOp, LevelOp};
pub use snnc_ir::site::{Role, Site};
use snnc_ir::{Binary, Graph, Node, Op, Value};
use std::fmt;

/// A value of a Tensor graph that becomes levels, or is left dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteValue {
    /// The value that a weight or attention reads.
    pub value: Value,
    /// Its place.
    pub site: Site,
}

impl std::ops::Deref for SiteValue {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl fmt::Display for SiteValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.site.fmt(f)
    }
}

/// Whether the words of `selector` are among the words of `path`, in that order; `all` selects everything.
pub fn selects(selector: &str, path: &str) -> bool {
    let mut words = path.split('.');
    selector == "all" || selector.split('.').all(|word| words.any(|other| other == word))
}

/// The sites of a Tensor graph, in the order of its values.
pub fn sites(graph: &Graph) -> Vec<SiteValue> {
    let mut sites: IndexMap<Value, Site> = IndexMap::new();
    let mut add = |value: Value, layer, role| {
        sites.entry(value).or_insert_with(|| Site::new(layer, role));
    };
    for projection in projections(graph) {
        add(graph.node(projection.value).args[0], projection.site.layer, projection.site.role);
    }
    for (layer, (_, node)) in attentions(graph).enumerate() {
        for (&arg, role) in node.args.iter().zip([Role::Query, Role::Key, Role::Value]) {
            add(arg, Some(layer as u32), role);
        }
    }
    sites.sort_unstable_keys();
    sites.into_iter().map(|(value, site)| SiteValue { value, site }).collect()
}

fn attentions(graph: &Graph) -> impl Iterator<Item = (Value, &Node)> {
    graph.iter().filter(|(_, node)| matches!(node.op, Op::Dense(DenseOp::Attention { .. })))
}

/// The projections of a Tensor graph, by what they read.
pub fn projections(graph: &Graph) -> Vec<SiteValue> {
    let is_curve = |value: Value| matches!(graph.node(value).op, Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_)));
    let users = graph.users();
    let attended = attended(graph);
    let mut layer = 0;
    let mut found = Vec::new();
    for (value, node) in graph.iter() {
        match node.op {
            Op::Dense(DenseOp::Attention { .. }) => layer += 1,
            Op::Dense(DenseOp::Linear(_)) => {
                let block = Some(layer.max(1) - 1);
                let (layer, role) = match graph.node(node.args[0]).op {
                    _ if graph.outputs.iter().any(|(_, output)| *output == value) => (None, Role::Head),
                    _ if attended[value.index()] => (Some(layer), Role::AttentionIn),
                    Op::Dense(DenseOp::Attention { .. }) => (block, Role::AttentionOut),
                    Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_) | DenseOp::Hadamard(_)) => (block, Role::MlpHidden),
                    _ if users[value.index()].iter().any(|user| is_curve(*user)) => (block, Role::MlpIn),
                    Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                        (block, Role::Other)
                    }
                };
                found.push(SiteValue { value, site: Site::new(layer, role) });
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {}
        }
    }
    found
}

/// Whether what lies between a projection and the attention that reads it: a norm of queries or keys, its gain, their rotation, their
/// transform.
fn between(op: Op) -> bool {
    match op {
        Op::Dense(DenseOp::Rotary { .. } | DenseOp::RmsNorm { .. } | DenseOp::Hadamard(_))
        | Op::Level(LevelOp::ScaleShift) => true,
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
    }
}

/// The values from an operand of attention back to the projection that makes it, if one does.
fn way_back(graph: &Graph, operand: Value) -> Vec<Value> {
    let mut way = vec![operand];
    while let Some(&at) = way.last()
        && between(graph.node(at).op)
    {
        way.push(graph.node(at).args[0]);
    }
    let projected = way.last().is_some_and(|at| matches!(graph.node(*at).op, Op::Dense(DenseOp::Linear(_))));
    if projected { way } else { Vec::new() }
}

/// Which values attention reads, as they are or normalised and turned.
fn attended(graph: &Graph) -> Vec<bool> {
    let mut attended = vec![false; graph.nodes.len()];
    for (_, node) in attentions(graph) {
        for value in node.args.iter().flat_map(|arg| way_back(graph, *arg)) {
            attended[value.index()] = true;
        }
    }
    attended
}

/// The same Tensor graph with every node at its site. What the residual stream and the embedding are made of has none.
pub fn annotated(graph: Graph) -> Graph {
    let mut at: Vec<Option<Site>> = vec![None; graph.nodes.len()];
    for projection in projections(&graph) {
        at[projection.value.index()] = Some(projection.site);
    }
    for (layer, (value, node)) in attentions(&graph).enumerate() {
        let layer = Some(layer as u32);
        at[value.index()] = Some(Site::new(layer, Role::Attention));
        for (arg, role) in node.args.iter().zip([Role::Query, Role::Key, Role::Value]) {
            for value in way_back(&graph, *arg) {
                at[value.index()] = Some(Site::new(layer, role));
            }
        }
    }
    let users = graph.users();
    let parts = projected(&graph);
    for (value, node) in graph.iter().rev() {
        let served = || users[value.index()].iter().find_map(|user| at[user.index()]).map(input_of);
        let site = match node.op {
            Op::Dense(DenseOp::RmsNorm { .. } | DenseOp::Curve(_) | DenseOp::Gated(_)) => served(),
            Op::Dense(DenseOp::Centre | DenseOp::Hadamard(_)) | Op::Level(LevelOp::ScaleShift) => served(),
            Op::Array(ArrayOp::Binary(Binary::Add)) if parts[value.index()] => served(),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
        };
        at[value.index()] = at[value.index()].or(site);
    }
    graph.with_sites(&at)
}

/// The sums that norms before attention and before the head read: the residual stream between layers.
pub fn streams(graph: &Graph) -> Vec<Value> {
    let graph = annotated(graph.clone());
    let mut found = Vec::new();
    for (value, node) in graph.iter() {
        let role = graph.site(value).map(|site| site.role);
        let (Op::Dense(DenseOp::RmsNorm { .. }), Some(Role::AttentionIn | Role::Head)) = (node.op, role) else {
            continue;
        };
        let mut from = node.args[0];
        while let Op::Dense(DenseOp::Centre) = graph.node(from).op {
            from = graph.node(from).args[0];
        }
        if graph.node(from).op == Op::Array(ArrayOp::Binary(Binary::Add)) && !found.contains(&from) {
            found.push(from);
        }
    }
    found
}

/// The site that a projection reads, or that a node stands at which serves another.
pub fn input_of(site: Site) -> Site {
    match site.role {
        Role::Query | Role::Key | Role::Value | Role::Attention => site.role(Role::AttentionIn),
        Role::AttentionIn | Role::AttentionOut | Role::MlpIn | Role::MlpHidden | Role::Head | Role::Other => site,
    }
}

/// Which values of a Tensor graph are a part of what a projection gives, or the sum of parts; the residual stream is neither.
fn projected(graph: &Graph) -> Vec<bool> {
    let mut parts = vec![false; graph.nodes.len()];
    for (value, node) in graph.iter() {
        parts[value.index()] = matches!(node.op, Op::Dense(DenseOp::Linear(_)))
            || node.op == Op::Array(ArrayOp::Binary(Binary::Add)) && node.args.iter().all(|arg| parts[arg.index()]);
    }
    parts
}

/// Names of projections and attentions, by which their constants are called.
pub fn names(graph: &Graph) -> IndexMap<Value, String> {
    let mut names = IndexMap::new();
    for projection in projections(graph) {
        let layer = projection.site.layer.unwrap_or(0);
        let name = match projection.site.role {
            Role::Head => "head".to_string(),
            Role::AttentionOut => format!("h.{layer}.attn.out"),
            Role::MlpHidden => format!("h.{layer}.mlp.down"),
            Role::MlpIn => format!("h.{layer}.mlp.up"),
            Role::AttentionIn | Role::Query | Role::Key | Role::Value | Role::Attention | Role::Other => {
                format!("h.{layer}.linear")
            }
        };
        names.insert(projection.value, name);
    }
    for (layer, (value, node)) in attentions(graph).enumerate() {
        for (part, arg) in ["q", "k", "v"].into_iter().zip(&node.args) {
            let made = way_back(graph, *arg).last().copied().unwrap_or(*arg);
            names.insert(made, format!("h.{layer}.attn.{part}"));
        }
        names.insert(value, format!("h.{layer}.attn"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::selects;

    #[test]
    fn a_selector_is_a_path_with_words_left_out() {
        for (selector, path, wanted) in [
            ("all", "head", true),
            ("attention", "h.0.attention.q", true),
            ("q", "h.0.attention.q", true),
            ("h.1", "h.1.mlp.in", true),
            ("h.1", "h.11.mlp.in", false),
            ("h.1.in", "h.1.mlp.in", true),
            ("mlp.hidden", "h.1.mlp.in", false),
            ("in.mlp", "h.1.mlp.in", false),
            ("head", "h.1.mlp.in", false),
            ("", "head", false),
        ] {
            assert_eq!(selects(selector, path), wanted, "{selector} and {path}");
        }
    }
}
