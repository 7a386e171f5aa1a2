//! Runs a NIR graph by the letter of the format, in f32: in a timestep `dt` every state moves by `dt` times its derivative
//! (Euler), a neuron above its threshold spikes, and is reset. What several nodes give to one is summed in the order of edges.

use super::graph::{Firing, Leak, NirGraph, NirNode};
use snnc_ir::{Diagnostic, ErrorCode};
use std::collections::BTreeMap;

/// A graph between timesteps. Every state is 0 at first.
#[derive(Debug)]
pub struct Simulation<'g> {
    graph: &'g NirGraph,
    dt: f64,
    /// Nodes in an order in which each comes after what it reads, with what they read.
    order: Vec<(usize, Vec<usize>)>,
    /// By node: potentials, and of `CubaLIF` currents behind them.
    states: Vec<Vec<f32>>,
}

impl<'g> Simulation<'g> {
    /// Prepares a graph, where a timestep is `dt` seconds.
    ///
    /// # Errors
    /// It has a cycle, of which the format does not say what comes first; no input or no output; widths that do not fit.
    pub fn new(graph: &'g NirGraph, dt: f64) -> Result<Self, Diagnostic> {
        let wrong = |node: &str, message: String| Diagnostic::new(format!("node {node}"), message).code(ErrorCode::RUN);
        let place: BTreeMap<&str, usize> = (0..).zip(&graph.nodes).map(|(i, (name, _))| (name.as_str(), i)).collect();
        let readers = |i: usize| {
            let to = graph.nodes[i].0.as_str();
            graph.edges.iter().filter(move |edge| edge[1] == to).filter_map(|edge| place.get(edge[0].as_str()).copied())
        };
        let mut order: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut done = vec![false; graph.nodes.len()];
        while order.len() < graph.nodes.len() {
            let ready = (0..graph.nodes.len()).find(|&i| !done[i] && readers(i).all(|from| done[from]));
            let Some(i) = ready else {
                let stuck = done.iter().position(|done| !done).unwrap_or(0);
                let message = "is in a cycle, and the format does not say what comes first in a timestep";
                return Err(wrong(&graph.nodes[stuck].0, message.into()));
            };
            done[i] = true;
            order.push((i, readers(i).collect()));
        }
        let mut widths = vec![0; graph.nodes.len()];
        for (i, from) in &order {
            let (name, node) = &graph.nodes[*i];
            if !matches!(node, NirNode::Input(_)) && from.is_empty() {
                return Err(wrong(name, "nothing leads to it".into()));
            }
            let (takes, gives) = widths_of(node);
            for from in from {
                if widths[*from] != takes {
                    let message =
                        format!("takes {takes} channels, and {} gives {}", graph.nodes[*from].0, widths[*from]);
                    return Err(wrong(name, message));
                }
            }
            widths[*i] = gives;
        }
        for kind in ["Input", "Output"] {
            let count = graph.nodes.iter().filter(|(_, node)| node.type_name() == kind).count();
            if count != 1 {
                return Err(wrong(kind, format!("there are {count} of them, and one was expected")));
            }
        }
        let states = graph.nodes.iter().map(|(_, node)| vec![0.0; states_of(node)]).collect();
        Ok(Self { graph, dt, order, states })
    }

    /// Channels that the input takes.
    pub fn inputs(&self) -> usize {
        let width = |(_, node): &(String, NirNode)| if let NirNode::Input(width) = node { Some(*width) } else { None };
        self.graph.nodes.iter().find_map(width).unwrap_or(0)
    }

    /// Forgets all that came in.
    pub fn reset(&mut self) {
        self.states.iter_mut().flatten().for_each(|state| *state = 0.0);
    }

    /// One timestep; what every node gives, in the order of the graph's nodes.
    pub fn step(&mut self, input: &[f32]) -> Vec<Vec<f32>> {
        let mut given: Vec<Vec<f32>> = vec![Vec::new(); self.graph.nodes.len()];
        for (i, from) in &self.order {
            let mut x = match from.first() {
                Some(first) => given[*first].clone(),
                None => input.to_vec(),
            };
            for other in from.iter().skip(1) {
                x.iter_mut().zip(&given[*other]).for_each(|(x, y)| *x += y);
            }
            given[*i] = run(&self.graph.nodes[*i].1, x, &mut self.states[*i], self.dt);
        }
        given
    }
}

/// Channels that a node takes, and that it gives.
fn widths_of(node: &NirNode) -> (usize, usize) {
    let gives = node.width();
    let takes = match node {
        NirNode::Linear { weight, .. } | NirNode::Affine { weight, .. } => weight.len() / gives.max(1),
        NirNode::Input(_)
        | NirNode::Output(_)
        | NirNode::Scale { .. }
        | NirNode::If { .. }
        | NirNode::Li { .. }
        | NirNode::Lif { .. }
        | NirNode::CubaLif { .. } => gives,
    };
    (takes, gives)
}

fn states_of(node: &NirNode) -> usize {
    match node {
        NirNode::Input(_)
        | NirNode::Output(_)
        | NirNode::Linear { .. }
        | NirNode::Affine { .. }
        | NirNode::Scale { .. } => 0,
        NirNode::If { r, .. } => r.len(),
        NirNode::Li { leak } | NirNode::Lif { leak, .. } => leak.r.len(),
        NirNode::CubaLif { leak, .. } => 2 * leak.r.len(),
    }
}

/// The share of the way to where it goes that a state moves in a timestep.
fn share(dt: f64, tau: f32) -> f32 {
    (dt / f64::from(tau)) as f32
}

fn product(weight: &[f32], x: &[f32]) -> Vec<f32> {
    weight.chunks_exact(x.len()).map(|row| row.iter().zip(x).fold(0.0, |sum, (w, x)| sum + w * x)).collect()
}

fn run(node: &NirNode, x: Vec<f32>, state: &mut [f32], dt: f64) -> Vec<f32> {
    match node {
        NirNode::Input(_) | NirNode::Output(_) => x,
        NirNode::Linear { weight, .. } => product(weight, &x),
        NirNode::Affine { weight, bias } => product(weight, &x).iter().zip(bias).map(|(y, b)| y + b).collect(),
        NirNode::Scale { scale } => x.iter().zip(scale).map(|(x, s)| x * s).collect(),
        NirNode::If { r, firing } => {
            for ((v, x), r) in state.iter_mut().zip(&x).zip(r) {
                *v += x * (f64::from(*r) * dt) as f32;
            }
            fired(state, firing)
        }
        NirNode::Li { leak } => {
            moved(state, &x, leak, dt);
            state.to_vec()
        }
        NirNode::Lif { leak, firing } => {
            moved(state, &x, leak, dt);
            fired(state, firing)
        }
        NirNode::CubaLif { tau_syn, w_in, leak, firing } => {
            let (v, current) = state.split_at_mut(leak.r.len());
            for (((i, x), w), tau) in current.iter_mut().zip(&x).zip(w_in).zip(tau_syn) {
                *i += share(dt, *tau) * (w * x - *i);
            }
            moved(v, current, leak, dt);
            fired(v, firing)
        }
    }
}

/// Potentials after a timestep.
fn moved(v: &mut [f32], x: &[f32], leak: &Leak, dt: f64) {
    for (((v, x), tau), (r, rest)) in v.iter_mut().zip(x).zip(&leak.tau).zip(leak.r.iter().zip(&leak.rest)) {
        *v += share(dt, *tau) * (rest - *v + x * r);
    }
}

/// Spikes of what is above its threshold, which is reset.
fn fired(v: &mut [f32], firing: &Firing) -> Vec<f32> {
    let neurons = v.iter_mut().zip(firing.threshold.iter().zip(&firing.reset));
    neurons
        .map(|(v, (threshold, reset))| {
            let spikes = *v > *threshold;
            if spikes {
                *v = *reset;
            }
            f32::from(u8::from(spikes))
        })
        .collect()
}
