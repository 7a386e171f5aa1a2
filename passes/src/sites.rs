//! Sites: the values that a weight or attention reads, by layer and role. What becomes levels is chosen site by site.
//!
//! A site is called by a path, `h.0.attention.q` or `head`; a *selector* is such a path with words left out, and means
//! every site that has the words in that order: `attention`, `h.3`, `mlp.hidden`, `q`.

use indexmap::IndexMap;
use snnc_ir::op::DenseOp;
use snnc_ir::{Graph, Node, Op, Value};
use std::fmt;

/// What a site is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The projections to queries, keys and values.
    AttentionIn,
    Query,
    Key,
    Value,
    /// The projection behind attention.
    AttentionOut,
    MlpIn,
    /// The projection behind an activation function.
    MlpHidden,
    Head,
    /// A projection of another kind.
    Other,
}

impl Role {
    fn path(self) -> &'static str {
        match self {
            Role::AttentionIn => "attention.in",
            Role::Query => "attention.q",
            Role::Key => "attention.k",
            Role::Value => "attention.v",
            Role::AttentionOut => "attention.out",
            Role::MlpIn => "mlp.in",
            Role::MlpHidden => "mlp.hidden",
            Role::Head => "head",
            Role::Other => "other",
        }
    }
}

/// A value that becomes levels, or is left dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    pub value: Value,
    /// `None` for what the logits are made of.
    pub layer: Option<u32>,
    pub role: Role,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "h.{layer}.")?;
        }
        f.write_str(self.role.path())
    }
}

/// Whether the words of `selector` are among the words of `path`, in that order; `all` selects everything.
pub fn selects(selector: &str, path: &str) -> bool {
    let mut words = path.split('.');
    selector == "all" || selector.split('.').all(|word| words.any(|other| other == word))
}

/// The sites of a Tensor graph, in the order of its values.
pub fn sites(graph: &Graph) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    let mut add = |value: Value, layer, role| {
        if !sites.iter().any(|site| site.value == value) {
            sites.push(Site { value, layer, role });
        }
    };
    for projection in projections(graph) {
        add(graph.node(projection.value).args[0], projection.layer, projection.role);
    }
    for (layer, (_, node)) in attentions(graph).enumerate() {
        for (&arg, role) in node.args.iter().zip([Role::Query, Role::Key, Role::Value]) {
            add(arg, Some(layer as u32), role);
        }
    }
    sites.sort_unstable_by_key(|site| site.value);
    sites
}

/// The path of the site whose neurons' constants are called `name.gain` and so on.
pub fn path_of(name: &str) -> String {
    let ends = [
        (".attn.in", ".attention.in"),
        (".attn.q", ".attention.q"),
        (".attn.k", ".attention.k"),
        (".attn.v", ".attention.v"),
        (".attn.out.in", ".attention.out"),
        (".mlp.up.in", ".mlp.in"),
        (".mlp.down.in", ".mlp.hidden"),
        (".linear.in", ".other"),
        ("head.in", "head"),
    ];
    let path = |(end, path): &(&str, &str)| Some(format!("{}{path}", name.strip_suffix(end)?));
    let name = name.trim_end_matches(".share").trim_end_matches(".outliers").trim_end_matches(".residual");
    ends.iter().find_map(path).unwrap_or_else(|| name.to_string())
}

fn attentions(graph: &Graph) -> impl Iterator<Item = (Value, &Node)> {
    graph.iter().filter(|(_, node)| matches!(node.op, Op::Dense(DenseOp::Attention { .. })))
}

/// The projections of a Tensor graph, by what they read.
pub fn projections(graph: &Graph) -> Vec<Site> {
    let is_curve = |value: Value| matches!(graph.node(value).op, Op::Dense(DenseOp::Curve(_)));
    let users = graph.users();
    let mut layer = 0;
    let mut found = Vec::new();
    for (value, node) in graph.iter() {
        match node.op {
            Op::Dense(DenseOp::Attention { .. }) => layer += 1,
            Op::Dense(DenseOp::Linear(_)) => {
                let block = Some(layer.max(1) - 1);
                let (layer, role) = match graph.node(node.args[0]).op {
                    _ if graph.outputs.iter().any(|(_, output)| *output == value) => (None, Role::Head),
                    _ if users[value.index()].iter().any(|user| graph.node(*user).op.has_state()) => {
                        (Some(layer), Role::AttentionIn)
                    }
                    Op::Dense(DenseOp::Attention { .. }) => (block, Role::AttentionOut),
                    Op::Dense(DenseOp::Curve(_)) => (block, Role::MlpHidden),
                    _ if users[value.index()].iter().any(|user| is_curve(*user)) => (block, Role::MlpIn),
                    _ => (block, Role::Other),
                };
                found.push(Site { value, layer, role });
            }
            _ => {}
        }
    }
    found
}

/// Names of projections and attentions, by which their constants are called.
pub fn names(graph: &Graph) -> IndexMap<Value, String> {
    let mut names = IndexMap::new();
    for projection in projections(graph) {
        let layer = projection.layer.unwrap_or(0);
        let name = match projection.role {
            Role::Head => "head".to_string(),
            Role::AttentionOut => format!("h.{layer}.attn.out"),
            Role::MlpHidden => format!("h.{layer}.mlp.down"),
            Role::MlpIn => format!("h.{layer}.mlp.up"),
            Role::AttentionIn | Role::Query | Role::Key | Role::Value | Role::Other => format!("h.{layer}.linear"),
        };
        names.insert(projection.value, name);
    }
    for (layer, (value, node)) in attentions(graph).enumerate() {
        for (part, arg) in ["q", "k", "v"].into_iter().zip(&node.args) {
            names.insert(*arg, format!("h.{layer}.attn.{part}"));
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
