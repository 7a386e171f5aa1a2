//! Time-stepped neurons in training, every row of their table: against the rule itself, and gradients against a derivative of the
//! rule that is carried forward beside its numbers.

use super::*;
use crate::gradient::{LOSS, gradient};
use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::membrane::{Membrane, MembraneLayer, Parameter, Relation, Rule, RuleTerm};
use snnc_ir::verify;

/// Neurons of a layer.
const WIDTH: usize = 9;

/// A neuron in training: its graph, and spikes by timestep. Inputs and parameters are weights of it.
struct Unrolled {
    graph: Graph,
    inputs: Vec<String>,
    parameters: Vec<String>,
}

/// By timestep and neuron: of either sign, some of them large, none at a threshold.
fn currents(steps: usize) -> Vec<Vec<f32>> {
    let numbers: Vec<f32> = spread(steps * WIDTH).collect();
    let scale = |i: usize| [0.3, 0.7, 1.3, 2.5][i % WIDTH % 4];
    let at = |t: usize, i: usize| (numbers[t * WIDTH + i] + 0.4) * scale(i) + 0.001;
    (0..steps).map(|t| (0..WIDTH).map(|i| at(t, i)).collect()).collect()
}

/// Within the range of a parameter, other than its start, by channel.
fn within(range: &Parameter) -> Vec<f32> {
    let near = |i: usize| 0.05 + 0.9 * i as f64 / WIDTH as f64;
    (0..WIDTH).map(|i| (range.least + (range.most - range.least) * near(i)) as f32).collect()
}

/// The loss is the sum of all spikes, each with a weight of its own.
fn unrolled(rule: &Rule, threshold: f64, curve: Curve, inputs: &[Vec<f32>]) -> Unrolled {
    let mut relaxing = Relaxing::new([8, 8], Recipe::default());
    let names: Vec<String> = (0..inputs.len()).map(|t| format!("input {t}")).collect();
    let flows: Vec<Value> =
        names.iter().zip(inputs).map(|(name, x)| relaxing.numbers(name, &[WIDTH], x.clone())).collect();
    let ranges = &rule.parameters;
    let own: Vec<Value> = ranges.iter().map(|range| relaxing.numbers(&range.name, &[WIDTH], within(range))).collect();
    let neurons = relaxing.unrolled(&flows, (rule, threshold), curve, &own).expect("it is unrolled");
    let mut sum = None;
    for (t, &spikes) in neurons.spikes.iter().enumerate() {
        let weights = relaxing.numbers(&format!("weights {t}"), &[WIDTH], weights(t));
        let part = relaxing.two(Binary::Mul, spikes, weights).expect("it fits");
        sum = Some(sum.map_or(part, |sum| relaxing.two(Binary::Add, sum, part).expect("it fits")));
    }
    let loss = relaxing.training(TrainingOp::ReduceSum(Shape::fixed(&[1])), &[sum.expect("a timestep")]);
    let mut outputs = vec![(LOSS.to_string(), loss.expect("it fits"))];
    outputs.extend(neurons.spikes.iter().enumerate().map(|(t, &spikes)| (format!("spikes {t}"), spikes)));
    let parameters = ranges.iter().map(|range| range.name.clone()).collect();
    Unrolled { graph: relaxing.builder.finish(outputs), inputs: names, parameters }
}

fn weights(t: usize) -> Vec<f32> {
    (0..WIDTH).map(|i| 1.0 - 0.1 * t as f32 + 0.03 * i as f32).collect()
}

fn outputs(graph: &Graph) -> IndexMap<String, Vec<f64>> {
    let evaluator = Evaluator::<f64>::new(graph);
    let done = evaluator.run(&[0], &mut Memory::new(graph)).expect("it runs");
    let numbers = |value: Value| match &evaluator.get(&done, value).content {
        Content::Real(x) => x.clone(),
        Content::Int(_) | Content::Train(_) => unreachable!("reals"),
    };
    graph.outputs.iter().map(|(name, value)| (name.clone(), numbers(*value))).collect()
}

/// Every row, curve and number of timesteps: spike for spike what the definition says.
#[test]
fn an_unrolled_neuron_spikes_as_its_rule_says() {
    for membrane in Membrane::all() {
        for (curve, steps) in [Curve::Identity, Curve::Relu].into_iter().flat_map(|c| [1, 2, 7, 24].map(|t| (c, t))) {
            let inputs = currents(steps);
            let Unrolled { graph, .. } = unrolled(membrane.rule(), membrane.surrogate_width(), curve, &inputs);
            assert_eq!(verify::verify(&graph), Ok(()), "{membrane:?}");
            let found = outputs(&graph);
            let own: Vec<Vec<f32>> = membrane.rule().parameters.iter().map(within).collect();
            let mut layer = MembraneLayer::<f64>::new(membrane, steps as u16, curve, WIDTH);
            let mut all = 0;
            for (t, input) in inputs.iter().enumerate() {
                let spike = |i: usize| {
                    let own: Vec<f64> = own.iter().map(|x| x[i].into()).collect();
                    layer.step(i, input[i].into(), &own)
                };
                let wanted: Vec<i32> = (0..WIDTH).map(spike).collect();
                all += wanted.iter().map(|spike| spike.abs()).sum::<i32>();
                let wanted: Vec<f64> = wanted.into_iter().map(f64::from).collect();
                assert_eq!(found[&format!("spikes {t}")], wanted, "{membrane:?}, {curve:?}, {t} of {steps}");
            }
            // Some neurons wait for a second input.
            assert!(all > 0 || steps < 3, "{membrane:?}, {curve:?}, {steps} timesteps: nothing spikes");
        }
    }
}

/// A number and its derivative by one of the inputs or parameters.
type Dual = [f64; 2];

/// One timestep of the rule with derivatives: a comparison has that of the surrogate, a truth that stands for a number none,
/// and rounding is passed over.
fn forward(rule: &Rule, width: f64, given: (Dual, f64, f64), own: &[Dual], states: &mut [Dual]) -> [Dual; 2] {
    let (input, timesteps, least) = given;
    let surrogate = Recipe::default().surrogate;
    let mut values: Vec<Dual> = Vec::new();
    for (_, term) in rule.iter() {
        let at = |id: snnc_ir::membrane::TermId| values[id.index()];
        values.push(match term {
            RuleTerm::Number(x) => [f64::from(x as f32), 0.0],
            RuleTerm::Input => input,
            RuleTerm::Timesteps => [timesteps, 0.0],
            RuleTerm::Least => [least, 0.0],
            RuleTerm::State(i) => states[i],
            RuleTerm::Parameter(i) => own[i],
            RuleTerm::Add(a, b) => [at(a)[0] + at(b)[0], at(a)[1] + at(b)[1]],
            RuleTerm::Sub(a, b) => [at(a)[0] - at(b)[0], at(a)[1] - at(b)[1]],
            RuleTerm::Mul(a, b) => [at(a)[0] * at(b)[0], at(a)[1] * at(b)[0] + at(a)[0] * at(b)[1]],
            RuleTerm::Floor(a) => [at(a)[0].floor(), at(a)[1]],
            RuleTerm::Compare(kind, a, b) => {
                let ([a, da], [b, db]) = (at(a), at(b));
                let holds = if kind == Relation::AtLeast { a >= b } else { a > b };
                [f64::from(u8::from(holds)), surrogate.at((a - b) / width) * (da - db) / width]
            }
            RuleTerm::And(a, b) => [at(a)[0] * at(b)[0], at(a)[1] * at(b)[0] + at(a)[0] * at(b)[1]],
            RuleTerm::Or(a, b) => {
                let ([a, da], [b, db]) = (at(a), at(b));
                [a.max(b), da * (1.0 - b) + db * (1.0 - a)]
            }
            RuleTerm::Not(a) => [1.0 - at(a)[0], -at(a)[1]],
            RuleTerm::One(a) => [at(a)[0], 0.0],
            RuleTerm::Choose(truth, a, b) => at(if at(truth)[0] > 0.0 { a } else { b }),
        });
    }
    let at = |id: snnc_ir::membrane::TermId| values[id.index()];
    states.iter_mut().zip(&rule.states).for_each(|(state, variable)| *state = at(variable.next));
    [at(rule.up), rule.down.map_or([0.0; 2], at)]
}

/// The derivative of the loss of `unrolled` by neuron `i`'s input at `by`, or else by its parameter of that place after the inputs.
fn derivative(membrane: Membrane, curve: Curve, inputs: &[Vec<f32>], i: usize, by: usize) -> f64 {
    let (rule, steps) = (membrane.rule(), inputs.len());
    let one = |holds: bool| f64::from(u8::from(holds));
    let mut loss = 0.0;
    for sign in [1.0, -1.0].into_iter().take(rule.membranes(curve == Curve::Relu)) {
        let own: Vec<Dual> = rule
            .parameters
            .iter()
            .enumerate()
            .map(|(p, range)| [within(range)[i].into(), one(by == steps + p)])
            .collect();
        let mut states: Vec<Dual> = rule.states.iter().map(|state| [state.start, 0.0]).collect();
        for (t, input) in inputs.iter().enumerate() {
            let input = [sign * f64::from(input[i]), sign * one(by == t)];
            let given = (input, steps as f64, Membrane::least(curve, steps as u16).into());
            let [up, down] = forward(rule, membrane.surrogate_width(), given, &own, &mut states);
            loss += sign * f64::from(weights(t)[i]) * (up[1] - down[1]);
        }
    }
    loss
}

#[test]
fn gradients_of_every_neuron_are_the_rules() {
    for membrane in Membrane::all() {
        for curve in [Curve::Identity, Curve::Relu] {
            let inputs = currents(6);
            let Unrolled { graph, inputs: names, parameters } =
                unrolled(membrane.rule(), membrane.surrogate_width(), curve, &inputs);
            let own = names.len();
            let mut reached = 0;
            for (by, name) in names.into_iter().chain(parameters).enumerate() {
                let wanted: Vec<f64> = (0..WIDTH).map(|i| derivative(membrane, curve, &inputs, i, by)).collect();
                // What comes last may be too late to lead to a spike.
                let Ok(back) = gradient(&graph, std::slice::from_ref(&name)) else {
                    assert!(by < own && wanted.iter().all(|&x| x == 0.0), "{membrane:?}, {name}: {wanted:?}");
                    continue;
                };
                assert_eq!(verify::verify(&back), Ok(()), "{membrane:?}");
                let found = outputs(&back)[&crate::gradient::gradient_of(&name)].clone();
                for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                    let near = (found - wanted).abs() <= 1e-9 * (1.0 + wanted.abs());
                    assert!(near, "{membrane:?}, {curve:?}, {name} of neuron {i}: {found}, not {wanted}");
                }
                let some = found.iter().any(|x| x.abs() > 1e-6);
                assert!(some || by < own, "{membrane:?}, {name}: all of it is 0");
                reached += usize::from(some);
            }
            assert!(reached > 0, "{membrane:?}, {curve:?}: no input leads to a spike");
        }
    }
}

/// Of a neuron that hears nothing before it speaks, the first spike is one for all channels.
#[test]
fn a_spike_that_no_input_has_reached_is_every_channels() {
    let rule = Rule::read("state v = 0\nspike = v >= 1\nv = input").expect("it is sound");
    let inputs = currents(3);
    let Unrolled { graph, inputs: names, .. } = unrolled(&rule, 1.0, Curve::Relu, &inputs);
    assert_eq!(verify::verify(&graph), Ok(()));
    let found = outputs(&graph);
    assert_eq!(found["spikes 0"], [0.0; WIDTH]);
    for t in [1, 2] {
        let wanted: Vec<f64> = inputs[t - 1].iter().map(|&x| f64::from(u8::from(x >= 1.0))).collect();
        assert_eq!(found[&format!("spikes {t}")], wanted);
    }
    assert_eq!(gradient(&graph, &names[..2]).map(|_| ()), Ok(()));
}
