//! The IR after a pass, line by line: where each line comes from, and which steps of a plan run it.

use serde::{Serialize, Serializer};
use snnc_ir::op::{LeafOp, Op};
use snnc_ir::{Graph, Node, NodeOrigin, Value, text};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

/// Where a node comes from and stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct NodePlace {
    /// The ONNX node; empty for nowhere in particular.
    pub origin: String,
    /// The site, where it has one.
    pub site: Option<String>,
    /// The layer, where it belongs to one.
    pub layer: Option<u32>,
}

/// The graph after a pass.
#[derive(Debug, Serialize)]
pub struct IrStage {
    /// The pass.
    pub pass: String,
    /// The stage of the graph.
    pub stage: &'static str,
    /// The form of the program that runs it as it is, an index into the programs.
    pub program: Option<usize>,
    /// Its lines.
    pub lines: Vec<IrLine>,
}

/// A line of IR.
#[derive(Clone, Debug, Default)]
pub struct IrLine {
    /// The line as `snnc show` prints it, without its origin.
    pub text: String,
    /// Where its node comes from, an index into the places; `None` for what is no node.
    pub place: Option<u32>,
    /// Steps of the program that run it, in ascending order.
    pub steps: Vec<u32>,
    /// Where a pass has folded its node to, if no node of the program has its origin: the place of the first of its readers, of
    /// their readers and so on that has one.
    pub folded: Option<u32>,
}

impl Serialize for IrLine {
    /// A list, because there are thousands.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = |place: Option<u32>| place.map_or(-1, i64::from);
        (&self.text, number(self.place), &self.steps, number(self.folded)).serialize(serializer)
    }
}

/// Places by number.
#[derive(Debug, Default)]
pub struct Places {
    /// Those that there are.
    pub all: Vec<NodePlace>,
    known: HashMap<NodePlace, u32>,
    /// By origin: the layer of its nodes that have a site.
    layers: HashMap<String, u32>,
}

impl Places {
    /// Places of networks of which these are stages. What has no site is in the layer in which its origin's other nodes stand.
    pub fn of(stages: &[(String, Graph)]) -> Self {
        let mut votes: BTreeMap<&str, BTreeMap<u32, usize>> = BTreeMap::new();
        for (value, graph) in stages.iter().flat_map(|(_, graph)| graph.iter().map(move |(value, _)| (value, graph))) {
            let origin = graph.origin(value);
            if let Some(layer) = origin.site.and_then(|site| site.layer) {
                *votes.entry(origin.name.as_str()).or_default().entry(layer).or_default() += 1;
            }
        }
        let most =
            |layers: BTreeMap<u32, usize>| layers.into_iter().max_by_key(|&(_, votes)| votes).map(|(layer, _)| layer);
        let layers = votes.into_iter().filter_map(|(origin, layers)| Some((origin.to_string(), most(layers)?)));
        Self { layers: layers.collect(), ..Self::default() }
    }

    /// By node: its place. What no site and no origin says stands where the first node that reads it does.
    pub fn of_nodes(&mut self, graph: &Graph) -> Vec<u32> {
        let users = graph.users();
        let mut layers: Vec<Option<u32>> = vec![None; graph.nodes.len()];
        for (value, _) in graph.iter().rev() {
            let origin = graph.origin(value);
            let known = match origin.site {
                Some(site) => Some(site.layer),
                None => self.layers.get(&origin.name).map(|&layer| Some(layer)),
            };
            let of_reader = || users[value.index()].first().and_then(|user| layers[user.index()]);
            layers[value.index()] = known.unwrap_or_else(of_reader);
        }
        graph.iter().map(|(value, node)| self.number(place(graph, value, node, layers[value.index()]))).collect()
    }

    /// By node of a stage whose nodes have these places: where a pass has folded it to. `program` has the origins that are left.
    pub fn folded(graph: &Graph, places: &[u32], program: &HashSet<String>) -> Vec<Option<u32>> {
        let users = graph.users();
        let mut folded: Vec<Option<u32>> = vec![None; graph.nodes.len()];
        for (value, _) in graph.iter().rev() {
            let at = value.index();
            let of_reader = || users[at].iter().find_map(|user| folded[user.index()]);
            folded[at] = if program.contains(&graph.origin(value).name) { Some(places[at]) } else { of_reader() };
        }
        let gone = |(folded, (value, _)): (Option<u32>, (Value, &Node))| {
            folded.filter(|_| !program.contains(&graph.origin(value).name))
        };
        folded.into_iter().zip(graph.iter()).map(gone).collect()
    }

    fn number(&mut self, place: NodePlace) -> u32 {
        let next = self.all.len() as u32;
        let number = *self.known.entry(place.clone()).or_insert(next);
        if number == next {
            self.all.push(place);
        }
        number
    }
}

fn place(graph: &Graph, value: Value, node: &Node, layer: Option<u32>) -> NodePlace {
    // Inputs are read by all layers.
    let layer = layer.filter(|_| !matches!(node.op, Op::Leaf(LeafOp::Tokens | LeafOp::Positions | LeafOp::Opening)));
    let origin = graph.origin(value);
    NodePlace { origin: origin.name.clone(), site: origin.site.map(|site| site.to_string()), layer }
}

/// Layers that are shown: all, or some.
#[derive(Clone, Debug, Default)]
pub struct LayerFilter(pub Option<RangeInclusive<u32>>);

impl LayerFilter {
    /// Whether what belongs to the layer is shown; what belongs to none is.
    pub fn shows(&self, layer: Option<u32>) -> bool {
        match (&self.0, layer) {
            (Some(some), Some(layer)) => some.contains(&layer),
            (None, _) | (_, None) => true,
        }
    }
}

/// What is known of a graph's nodes.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts<'a> {
    /// Their places.
    pub places: &'a [u32],
    /// Steps that run them; empty for a graph that is no program.
    pub steps: &'a [Vec<u32>],
    /// As `Places::folded` has it; empty for a program.
    pub folded: &'a [Option<u32>],
}

/// The lines of a graph, and how many lines the filter leaves out.
pub fn lines(graph: &Graph, facts: NodeFacts<'_>, all: &Places, filter: &LayerFilter) -> (Vec<IrLine>, usize) {
    let NodeFacts { places, steps, folded } = facts;
    let printed = text::print_with(&without_origins(graph), &|_, _| Some(String::new()), &|_| true);
    let of_weights = of_weights(graph);
    let mut weights = of_weights.iter().copied();
    let mut nodes = graph.iter().map(|(value, _)| value).filter(|&value| graph.constant(value).is_none());
    let mut outputs = graph.outputs.iter().map(|(_, value)| *value);
    let (mut lines, mut left_out, mut last) = (Vec::new(), 0, None);
    for line in printed.lines().filter(|line| !line.is_empty()) {
        let value = match line.split_once(' ').map_or(line, |(word, _)| word) {
            "weight" => weights.next().flatten(),
            "output" => outputs.next(),
            // What is known of the node above.
            "" => last,
            word if word.starts_with('%') => nodes.next(),
            _ => None,
        };
        last = value;
        if value.is_some_and(|value| !filter.shows(all.all[places[value.index()] as usize].layer)) {
            left_out += 1;
            continue;
        }
        lines.push(IrLine {
            text: line.to_string(),
            place: value.map(|value| places[value.index()]),
            steps: value.and_then(|value| steps.get(value.index()).cloned()).unwrap_or_default(),
            folded: value.and_then(|value| folded.get(value.index()).copied().flatten()),
        });
    }
    (lines, left_out)
}

/// The same graph with sites alone, so that lines do not end with origins.
fn without_origins(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let sites: Vec<_> = graph.iter().map(|(value, _)| graph.site(value)).collect();
    graph.origins = [NodeOrigin::default()].into_iter().collect();
    for (node, site) in graph.nodes.iter_mut().zip(sites) {
        node.origin = graph.origins.insert_full(NodeOrigin { name: String::new(), site }).0 as u32;
    }
    graph
}

/// By weight: the node that is it, if one is.
fn of_weights(graph: &Graph) -> Vec<Option<Value>> {
    let mut values = vec![None; graph.weights.len()];
    for (value, node) in graph.iter() {
        if let Op::Leaf(LeafOp::Weight(id)) = node.op {
            values[id.0 as usize] = Some(value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use snnc_ir::op::{ArrayOp, Binary};
    use snnc_ir::site::Role;
    use snnc_ir::{Builder, Site, Stage, Tensor};
    use std::sync::Arc;

    /// Two layers of a sum with a constant, whose names hold what ends a line.
    fn graph() -> Graph {
        let mut b = Builder::new(Stage::Tensor, 8);
        let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "tokens").expect("it fits");
        let table = b.weight("a // b", Arc::new(Tensor::f32(&[3, 2], vec![0.0; 6])));
        let mut x = b.add(Op::Dense(snnc_ir::op::DenseOp::Embed), &[tokens, table], "c // d").expect("it fits");
        for layer in 0..2 {
            let origin = NodeOrigin { name: "add".into(), site: Some(Site::new(Some(layer), Role::MlpIn)) };
            x = b.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, x], &origin).expect("it fits");
        }
        b.finish(vec![("rows".to_string(), x)])
    }

    #[test]
    fn lines_have_their_nodes_places_and_no_origins() {
        let graph = graph();
        let mut places = Places::of(&[("raise".to_string(), graph.clone())]);
        let of_nodes = places.of_nodes(&graph);
        let facts = NodeFacts { places: &of_nodes, steps: &[], folded: &[] };
        let (all, none) = lines(&graph, facts, &places, &LayerFilter::default());
        let texts: Vec<&str> = all.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(none, 0);
        assert_eq!(texts[1], "weight @\"a // b\" : f32[3,2]");
        assert_eq!(texts[3], "%1 = embed(%0, @\"a // b\") : f32[tokens,2]");
        assert_eq!(texts[5], "%3 = add(%2, %2) : f32[tokens,2] #h.1.mlp.in");
        assert_eq!(texts.last(), Some(&"output rows = %3"));
        let origin = |line: &IrLine| line.place.map(|place| places.all[place as usize].origin.as_str());
        assert_eq!(origin(&all[3]), Some("c // d"));
        assert_eq!(origin(&all[0]), None);
        // What the output names is in layer 1.
        let (first, others) = lines(&graph, facts, &places, &LayerFilter(Some(0..=0)));
        assert_eq!((first.len(), others), (all.len() - 2, 2));
        // Only `add` is left: what it reads has been folded into it.
        let left = Places::folded(&graph, &of_nodes, &["add".to_string()].into_iter().collect());
        let first_add = Some(of_nodes[of_nodes.len() - 2]);
        assert_eq!(left, [first_add, first_add, first_add, None, None]);
    }
}
