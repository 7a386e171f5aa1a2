//! One neuron's membrane, timestep by timestep, for one token: what came in, the potential, and when it fired.
//!
//! Law: the trace is the program's own arithmetic, in its order, on what the engine recorded before the neuron. Its spikes are
//! those that the engine gave, or it is an error.

use crate::lints::name_of;
use crate::recording::Recording;
use crate::tokens::Tokens;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::eval::level;
use snnc_ir::membrane::{Membrane, MembraneLayer};
use snnc_ir::op::SpikeOp;
use snnc_ir::types::{Elem, Type};
use snnc_ir::{Code, Curve, Diagnostic, ErrorCode, Graph, Node, Op, Value};
use snnc_runtime::Options;
use std::fmt;

/// Which neuron is to be traced, at which token; what is not said is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceChoice {
    /// The site: `h.0.mlp.hidden`.
    pub site: Option<String>,
    /// The neuron's index in its layer.
    pub neuron: Option<usize>,
    /// The token's place in the run, from 0.
    pub token: Option<usize>,
}

impl fmt::Display for TraceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.site.as_deref().unwrap_or(""))?;
        self.neuron.iter().try_for_each(|neuron| write!(f, ":{neuron}"))?;
        self.token.iter().try_for_each(|token| write!(f, "@{token}"))
    }
}

/// A neuron's membrane for one token.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NeuronTrace {
    /// The site that the layer codes.
    pub site: String,
    /// The neuron's index in its layer.
    pub neuron: usize,
    /// The token's place in the run, from 0.
    pub token: usize,
    /// The token that was read, as text.
    pub text: String,
    /// The neuron, as the IR spells it.
    pub kind: String,
    /// How spikes spell the level.
    pub code: &'static str,
    /// The level that its spikes add up to.
    pub level: i32,
    /// Timestep by timestep.
    pub steps: Vec<TraceStep>,
}

/// One timestep of a membrane. Potentials of a neuron that integrates before it fires are in levels, those of a time-stepped
/// neuron in thresholds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TraceStep {
    /// `integrate`, `fire`, or `both` for a time-stepped neuron.
    pub phase: &'static str,
    /// The timestep, from 1.
    pub timestep: u16,
    /// What came in.
    pub input: Option<f64>,
    /// The potential after the timestep.
    pub potential: f64,
    /// The potential of the membrane for negative spikes, where a neuron has one.
    pub negative: Option<f64>,
    /// What the potential had to reach for a spike.
    pub threshold: Option<f64>,
    /// The spike: -1, 0 or 1.
    pub spike: i32,
}

/// Tokens among which one is chosen.
const TOKENS: usize = 16;

/// Where the sum that a neuron reads comes from.
#[derive(Clone, Copy, Debug)]
enum PotentialSource {
    /// Spikes that add rows of a weight.
    Spikes { train: Value, weight: Value },
    /// A row of numbers.
    Numbers(Value),
}

/// What was recorded before a neuron, for one token.
#[derive(Debug)]
enum Input {
    /// The current of every timestep, and what a timestep weighs.
    Currents(Vec<i32>, Vec<i32>),
    /// A number that is there at once.
    Number(f32),
}

/// The trace of the chosen neuron of `program`, which is run on `ids` timestep by timestep.
///
/// # Errors
/// There is no such site, neuron or token; the program cannot be run; what the neuron reads is not recorded.
pub fn trace(
    program: &Graph,
    ids: &[u32],
    choice: &TraceChoice,
    tokens: Option<&Tokens>,
    options: &Options,
) -> Result<NeuronTrace, Diagnostic> {
    let inputs = ids.len().saturating_sub(1);
    let value = neurons_of(program, choice.site.as_deref())?;
    let node = program.node(value);
    let site = name_of(program, value);
    let refused = |message: String| Diagnostic::new("--neuron", message).code(ErrorCode::OPTION);
    let ((code, steps), width) = match (node.ty.levels(), node.ty.shape().row_width()) {
        (Some(levels), Some(width)) => (levels, width),
        _ => return Err(refused(format!("{site} has no neurons in rows"))),
    };
    if let Some(neuron) = choice.neuron.filter(|neuron| *neuron >= width) {
        return Err(refused(format!("{site} has neurons 0 to {}, and {neuron} is asked for", width - 1)));
    }
    if let Some(token) = choice.token.filter(|token| *token >= inputs) {
        return Err(refused(format!("tokens 0 to {} are run, and {token} is asked for", inputs.saturating_sub(1))));
    }
    let sources = sources(program, node).map_err(|why| refused(format!("{site} cannot be traced: {why}")))?;
    let recorded =
        Recorded::run(program, value, &sources, &ids[..choice.token.map_or(inputs.min(TOKENS), |t| t + 1)], options)?;
    let (token, neuron) = chosen(recorded.spikes(), usize::from(steps), width, choice);
    let spikes: Vec<i32> =
        recorded.row(usize::from(steps), width, token).iter().skip(neuron).step_by(width).copied().collect();
    let read = sources.iter().map(|source| recorded.input(program, *source, token, neuron)).collect::<Option<Vec<_>>>();
    let constants = constants(program, node, neuron);
    let steps = match (read, constants) {
        (Some(read), Some(constants)) => membrane(node.op, &read, &constants),
        _ => return Err(refused(format!("{site} cannot be traced: its threshold is made anew for every token"))),
    };
    let fired: Vec<i32> = steps.iter().filter(|step| step.phase != "integrate").map(|step| step.spike).collect();
    if fired != spikes {
        let message =
            format!("neuron {neuron} of {site}, token {token}: the trace gives {fired:?}, the engine {spikes:?}");
        return Err(Diagnostic::new("", message)
            .code(ErrorCode::RUN)
            .note("this is a mistake of snnc; please report it"));
    }
    let weighed = (0..).zip(&spikes).map(|(t, spike)| spike * code.weight(t, spikes.len() as u16));
    Ok(NeuronTrace {
        neuron,
        token,
        text: tokens.map_or_else(|| Ok(format!("<{}>", ids[token])), |tokens| tokens.decode(&[ids[token]]))?,
        kind: node.op.to_string(),
        code: code.name(),
        level: weighed.sum(),
        steps,
        site,
    })
}

/// The neurons of a site; without one those of the first MLP, else the first.
fn neurons_of(program: &Graph, site: Option<&str>) -> Result<Value, Diagnostic> {
    let neurons = || program.iter().filter(|(_, node)| node.op.is_neuron()).map(|(value, _)| value);
    let named = |wanted: &str| neurons().find(|value| name_of(program, *value) == wanted);
    let found = match site {
        Some(site) => named(site),
        None => neurons().find(|value| name_of(program, *value).ends_with("mlp.hidden")).or_else(|| neurons().next()),
    };
    found.ok_or_else(|| {
        let names: Vec<String> = neurons().take(8).map(|value| name_of(program, value)).collect();
        let message = format!("there is no site `{}`; there are {}, ...", site.unwrap_or(""), names.join(", "));
        Diagnostic::new("--neuron", message).code(ErrorCode::OPTION)
    })
}

/// Where what the neurons of a node read comes from: of gated ones the gate, then what it multiplies.
fn sources(program: &Graph, node: &Node) -> Result<Vec<PotentialSource>, String> {
    let read = if matches!(node.op, Op::Spike(SpikeOp::GatedFire { .. })) { 2 } else { 1 };
    node.args[..read].iter().map(|&arg| source(program, arg)).collect()
}

fn source(program: &Graph, value: Value) -> Result<PotentialSource, String> {
    let node = program.node(value);
    match node.op {
        Op::Spike(SpikeOp::Decode) => source(program, node.args[0]),
        Op::Spike(SpikeOp::Synapse) => Ok(PotentialSource::Spikes { train: node.args[0], weight: node.args[1] }),
        op => match node.ty {
            Type::Tensor { elem: Elem::F32, shape } if shape.row_width().is_some() => {
                Ok(PotentialSource::Numbers(value))
            }
            _ => Err(format!("it reads what `{op}` gives, a {}", node.ty)),
        },
    }
}

/// What the engine gave, all tokens after each other.
struct Recorded {
    recording: Recording,
    neurons: Value,
}

impl Recorded {
    fn run(
        program: &Graph,
        value: Value,
        sources: &[PotentialSource],
        ids: &[u32],
        options: &Options,
    ) -> Result<Self, Diagnostic> {
        let read = sources.iter().map(|source| match source {
            PotentialSource::Spikes { train, .. } => *train,
            PotentialSource::Numbers(value) => *value,
        });
        let values: Vec<Value> = read.chain([value]).collect();
        Ok(Self { recording: Recording::run(program, &values, ids, options)?, neurons: value })
    }

    /// Spikes of all tokens, `[tokens, timesteps, neurons]`.
    fn spikes(&self) -> &[i32] {
        self.recording.ints(self.neurons)
    }

    /// A token's spikes, `[timesteps, neurons]`.
    fn row(&self, steps: usize, width: usize, token: usize) -> &[i32] {
        &self.spikes()[token * steps * width..][..steps * width]
    }

    /// What one neuron read.
    fn input(&self, program: &Graph, source: PotentialSource, token: usize, neuron: usize) -> Option<Input> {
        match source {
            PotentialSource::Numbers(value) => {
                let numbers = self.recording.numbers(value);
                numbers[self.recording.token(numbers, token)].get(neuron).copied().map(Input::Number)
            }
            PotentialSource::Spikes { train, weight } => {
                let (code, steps) = program.ty(train).levels()?;
                let tensor = &program.constant(weight)?.tensor;
                let [rows, columns] = *tensor.sizes() else { return None };
                let weights = tensor.to_integers()?;
                let spikes = self.recording.ints(train);
                let spikes = &spikes[self.recording.token(spikes, token)];
                let added = |part: &[i32]| {
                    (0..).zip(part).map(|(k, spike): (usize, _)| spike * weights[k * columns + neuron]).sum()
                };
                let currents = spikes.chunks_exact(rows).map(added).collect();
                Some(Input::Currents(currents, (0..steps).map(|t| code.weight(t, steps)).collect()))
            }
        }
    }
}

/// The token and the neuron: as asked for, or the first that fires at about half of its timesteps.
fn chosen(spikes: &[i32], steps: usize, width: usize, choice: &TraceChoice) -> (usize, usize) {
    let mut best = (usize::MAX, 0, 0);
    for (token, row) in spikes.chunks_exact(steps * width).enumerate() {
        for neuron in 0..width {
            let fired = row[neuron..].iter().step_by(width).filter(|&&spike| spike != 0).count();
            let wanted = steps.div_ceil(2);
            let far = fired.abs_diff(wanted) + if fired == 0 { steps } else { 0 };
            // The first token has no past; another one says more.
            let usual = token > 0 || spikes.len() == steps * width;
            let asked = choice.token.map_or(usual, |t| t == token) && choice.neuron.is_none_or(|n| n == neuron);
            if asked && far < best.0 {
                best = (far, token, neuron);
            }
        }
    }
    (best.1, best.2)
}

/// A neuron's constants in the order of its operands; `None` where one is no constant.
fn constants(program: &Graph, node: &Node, neuron: usize) -> Option<Vec<f32>> {
    let read = if matches!(node.op, Op::Spike(SpikeOp::GatedFire { .. })) { 2 } else { 1 };
    let at = |arg: &Value| program.constant(*arg)?.tensor.as_f32()?.get(neuron).copied();
    node.args[read..].iter().map(at).collect()
}

/// The membrane's course.
fn membrane(op: Op, read: &[Input], constants: &[f32]) -> Vec<TraceStep> {
    match (op, read, constants) {
        (Op::Spike(SpikeOp::Fire { code, steps, curve: Curve::Identity }), [input], &[gain, offset]) => {
            integrated(&[input], (code, steps), |x| x[0] * gain + offset)
        }
        (Op::Spike(SpikeOp::Fire { code, steps, curve }), [input], &[pre_gain, pre_offset, gain, offset]) => {
            let table = curve.table();
            integrated(&[input], (code, steps), |x| {
                curve.by_table(&table, x[0] * pre_gain + pre_offset) * gain + offset
            })
        }
        (Op::Spike(SpikeOp::GatedFire { code, steps, curve }), [gate, up], &[pre_gain, pre_offset, gain, offset]) => {
            integrated(&[gate, up], (code, steps), |x| curve.at(x[0] * pre_gain + pre_offset) * (x[1] * gain + offset))
        }
        (Op::Spike(SpikeOp::Integrate { membrane, steps, curve }), [input], [gain, offset, parameters @ ..]) => {
            time_stepped(membrane, steps, curve, input, [*gain, *offset], parameters)
        }
        _ => Vec::new(),
    }
}

/// A neuron that integrates before it fires: the potential that its input so far would give, then what spikes leave of it.
fn integrated(read: &[&Input], (code, steps): (Code, u16), potential: impl Fn(&[f32]) -> f32) -> Vec<TraceStep> {
    let length = read.iter().map(|input| if let Input::Currents(parts, _) = input { parts.len() } else { 1 }).max();
    let mut course = Vec::new();
    let mut last = 0.0;
    for t in 0..length.unwrap_or(1) {
        let so_far: Vec<f32> = read.iter().map(|input| input.sum(t + 1)).collect();
        let current = match read[0] {
            Input::Currents(parts, weights) => {
                parts.get(t).zip(weights.get(t)).map(|(part, weight)| f64::from(part * weight))
            }
            Input::Number(x) => Some(f64::from(*x)),
        };
        last = potential(&so_far);
        course.push(TraceStep {
            phase: "integrate",
            timestep: t as u16 + 1,
            input: current,
            potential: f64::from(last),
            negative: None,
            threshold: None,
            spike: 0,
        });
    }
    let level = level(last, code.levels(steps));
    let mut left = f64::from(last);
    for t in 0..steps {
        let (spike, weight) = (code.spike(level, t, steps), code.weight(t, steps));
        // A level is the potential rounded: half a level less than the spike's weight is enough.
        let threshold = f64::from(level.signum()) * (f64::from(weight) - 0.5);
        left -= f64::from(spike * weight);
        let threshold = Some(threshold).filter(|_| level != 0);
        course.push(TraceStep {
            phase: "fire",
            timestep: t + 1,
            input: None,
            potential: left,
            negative: None,
            threshold,
            spike,
        });
    }
    course
}

impl Input {
    /// All that came in the first timesteps, as its train weighs it.
    fn sum(&self, steps: usize) -> f32 {
        match self {
            Input::Number(x) => *x,
            Input::Currents(parts, weights) => {
                parts.iter().zip(weights).take(steps).map(|(part, weight)| part * weight).sum::<i32>() as f32
            }
        }
    }
}

/// A neuron that fires while it integrates.
fn time_stepped(
    membrane: Membrane,
    steps: u16,
    curve: Curve,
    input: &Input,
    [gain, offset]: [f32; 2],
    parameters: &[f32],
) -> Vec<TraceStep> {
    let all = f32::from(steps);
    let inputs: Vec<f32> = match input {
        Input::Currents(parts, _) if parts.len() == usize::from(steps) => {
            parts.iter().map(|&x| x as f32 * gain + offset / all).collect()
        }
        Input::Currents(parts, _) => vec![(input.sum(parts.len()) * gain + offset) / all; usize::from(steps)],
        Input::Number(x) => vec![(x * gain + offset) / all; usize::from(steps)],
    };
    let mut layer = MembraneLayer::<f32>::new(membrane, steps, curve, 1);
    let width = membrane.rule().states.len();
    let step = |(t, input): (u16, f32)| {
        let spike = layer.step(0, input, parameters);
        let states = layer.states(0);
        TraceStep {
            phase: "both",
            timestep: t + 1,
            input: Some(f64::from(input)),
            potential: f64::from(states[0]),
            negative: states.get(width).map(|&v| f64::from(v)),
            threshold: Some(1.0),
            spike,
        }
    };
    (0..).zip(inputs).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5.3 levels in a binary code of four timesteps: 0101, and 0.3 are left.
    #[test]
    fn a_potential_is_spelled_from_the_top() {
        let input = Input::Currents(vec![1, 3], vec![2, 1]);
        let course = integrated(&[&input], (Code::Binary, 4), |x| x[0] + 0.3);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert_eq!(course.iter().map(|step| step.spike).collect::<Vec<_>>(), [0, 0, 0, 1, 0, 1]);
        assert!(near(course[0].potential, 2.3) && near(course[1].potential, 5.3) && near(course[5].potential, 0.3));
        assert_eq!(course[2].threshold, Some(7.5));
    }

    #[test]
    fn a_constant_input_is_rounded() {
        let course = time_stepped(Membrane::IF, 8, Curve::Identity, &Input::Number(3.0), [1.0, 0.0], &[]);
        assert_eq!(course.iter().map(|step| step.spike).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 0, 1, 0]);
        assert_eq!((course[0].potential, course[1].potential), (0.875, 0.25));
        assert_eq!(course[0].negative, Some(0.125));
    }
}
