//! Time-stepped neurons, unrolled: what flows in at each timestep, what membranes make of it.

use super::{Neurons, ParameterKind, Relaxing};
use snnc_ir::membrane::{Membrane, Parameter, Relation, Rule, RuleTerm, TermId};
use snnc_ir::op::{ArrayOp, LevelOp};
use snnc_ir::op::{Scalar, TrainingOp};
use snnc_ir::{Binary, Curve, Diagnostic, Op, Unary, Value, Weight};

/// What all timesteps of a layer share.
struct Unrolling<'a> {
    rule: &'a Rule,
    timesteps: f32,
    least: f32,
    /// What a distance from a threshold is multiplied by before its surrogate.
    per_threshold: f32,
    parameters: &'a [Value],
}

/// What flows into a membrane at a timestep.
#[derive(Clone, Copy)]
struct MembraneInput {
    input: Value,
    /// Whether it is the membrane for positive spikes.
    positive: bool,
}

impl Relaxing {
    /// An input for every timestep: `x gain + offset / timesteps`.
    pub(super) fn shares(
        &mut self,
        currents: &[Value],
        gain: &Weight,
        offset: &Weight,
    ) -> Result<Vec<Value>, Diagnostic> {
        let unit = self.unit(offset);
        let (gain, offset) = (self.factor(gain)?, self.offset_by(offset, unit)?);
        let timesteps = self.number(currents.len() as f32);
        let offset = self.two(Binary::Div, offset, timesteps)?;
        currents.iter().map(|&x| self.add(Op::Level(LevelOp::ScaleShift), &[x, gain, offset])).collect()
    }

    /// What a synapse carries at each timestep of a unary train.
    pub(super) fn currents(&mut self, neurons: &Neurons, weight: &Weight) -> Result<Vec<Value>, Diagnostic> {
        let w = self.stored(neurons.log, weight)?.1;
        let spikes = if neurons.spikes.is_empty() { self.spelled(neurons)? } else { neurons.spikes.clone() };
        spikes.into_iter().map(|spikes| self.add(Op::Array(ArrayOp::MatMul), &[spikes, w])).collect()
    }

    /// Levels of a unary code as spikes of the first timesteps: of `level`, one where `|level|` passes `t + 1/2`.
    fn spelled(&mut self, neurons: &Neurons) -> Result<Vec<Value>, Diagnostic> {
        let mut spikes = Vec::with_capacity(neurons.most as usize);
        for t in 0..neurons.most {
            let threshold = self.number(t as f32 + 0.5);
            let over = self.two(Binary::Sub, neurons.plain, threshold)?;
            let less = self.add(Op::Array(ArrayOp::Unary(Unary::Neg)), &[neurons.plain])?;
            let under = self.two(Binary::Sub, less, threshold)?;
            let step = TrainingOp::Step(self.recipe.surrogate);
            let (up, down) = (self.training(step, &[over])?, self.training(step, &[under])?);
            spikes.push(self.two(Binary::Sub, up, down)?);
        }
        Ok(spikes)
    }

    /// A parameter of a neuron, `constant + shift * unit` within its range, where it trains. A unit is what a step is with a
    /// logistic map of the range: small near its ends, a 256th of it at least.
    pub(super) fn ranged(&mut self, weight: &Weight, range: &Parameter) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        if !self.trains(ParameterKind::Threshold) {
            return Ok(plain);
        }
        let width = range.most - range.least;
        let unit = |x: f32| {
            let x = f64::from(x);
            ((x - range.least) * (range.most - x) / width).max(width / 256.0) as f32
        };
        let data = weight.tensor.as_f32().unwrap_or(&[]);
        let units = data.iter().map(|&x| if width > 0.0 { unit(x) } else { 0.0 }).collect();
        let units = self.numbers(&format!("{}.unit", self.named(weight)), weight.tensor.sizes(), units);
        let shift = self.shift(weight, 1.0)?;
        let shift = self.two(Binary::Mul, shift, units)?;
        let moved = self.two(Binary::Add, plain, shift)?;
        let [least, most] = [range.least, range.most].map(|x| Scalar::new(x as f32));
        let value = self.training(TrainingOp::Clamp { least, most }, &[moved])?;
        Ok(self.becomes(weight, value))
    }

    /// Membranes given an input at every timestep: one of them, or one for each sign.
    pub(super) fn membranes(
        &mut self,
        inputs: &[Value],
        membrane: Membrane,
        curve: Curve,
        parameters: &[Value],
    ) -> Result<Neurons, Diagnostic> {
        self.unrolled(inputs, (membrane.rule(), membrane.surrogate_width()), curve, parameters)
    }

    /// The same of a rule, and what counts as one threshold.
    pub(super) fn unrolled(
        &mut self,
        inputs: &[Value],
        (rule, threshold): (&Rule, f64),
        curve: Curve,
        parameters: &[Value],
    ) -> Result<Neurons, Diagnostic> {
        let steps = inputs.len() as u16;
        let given = Unrolling {
            rule,
            timesteps: f32::from(steps),
            least: Membrane::least(curve, steps) as f32,
            per_threshold: 1.0 / threshold as f32,
            parameters,
        };
        let mut spikes: Vec<Value> = Vec::new();
        for positive in [true, false].into_iter().take(rule.membranes(curve == Curve::Relu)) {
            let mut states: Vec<Value> = rule.states.iter().map(|state| self.number(state.start as f32)).collect();
            for (t, &input) in inputs.iter().enumerate() {
                let flow = MembraneInput { input, positive };
                let mut spike = self.timestep(&given, flow, &mut states)?;
                // Before any input has reached it, a neuron's spike is one number for all.
                let shape = self.builder.ty(input).shape();
                if self.builder.ty(spike).shape() != shape {
                    spike = self.training(TrainingOp::BroadcastTo(shape), &[spike])?;
                }
                match spikes.get(t) {
                    Some(&up) => spikes[t] = self.two(Binary::Sub, up, spike)?,
                    None => spikes.push(spike),
                }
            }
        }
        self.emitting(spikes)
    }

    /// One timestep of a membrane: its spike, and its state moved on. Whether it spikes has a surrogate; a truth that enters a
    /// number, such as the spike that takes the threshold away, is taken to be a constant.
    fn timestep(
        &mut self,
        given: &Unrolling<'_>,
        flow: MembraneInput,
        states: &mut [Value],
    ) -> Result<Value, Diagnostic> {
        let rule = given.rule;
        let mut values: Vec<Value> = Vec::with_capacity(rule.terms.len());
        for (_, term) in rule.iter() {
            let value = self.term(given, flow, states, &values, term)?;
            values.push(value);
        }
        let at = |id: TermId| values[id.index()];
        states.iter_mut().zip(&rule.states).for_each(|(state, variable)| *state = at(variable.next));
        match rule.down {
            None => Ok(at(rule.up)),
            Some(down) => self.two(Binary::Sub, at(rule.up), at(down)),
        }
    }

    fn term(
        &mut self,
        given: &Unrolling<'_>,
        flow: MembraneInput,
        states: &[Value],
        values: &[Value],
        term: RuleTerm,
    ) -> Result<Value, Diagnostic> {
        let at = |id: TermId| values[id.index()];
        Ok(match term {
            RuleTerm::Number(x) => self.number(x as f32),
            RuleTerm::Input if flow.positive => flow.input,
            RuleTerm::Input => self.add(Op::Array(ArrayOp::Unary(Unary::Neg)), &[flow.input])?,
            RuleTerm::Timesteps => self.number(given.timesteps),
            RuleTerm::Least => self.number(given.least),
            RuleTerm::State(i) => states[i],
            RuleTerm::Parameter(i) => given.parameters[i],
            RuleTerm::Add(a, b) => self.two(Binary::Add, at(a), at(b))?,
            RuleTerm::Sub(a, b) => self.two(Binary::Sub, at(a), at(b))?,
            RuleTerm::Mul(a, b) => self.two(Binary::Mul, at(a), at(b))?,
            RuleTerm::Floor(a) => self.training(TrainingOp::Floor, &[at(a)])?,
            RuleTerm::Compare(Relation::AtLeast, a, b) => self.at_least(given, at(a), at(b))?,
            RuleTerm::Compare(Relation::Above, a, b) => {
                let not = self.at_least(given, at(b), at(a))?;
                self.opposite(not)?
            }
            RuleTerm::And(a, b) => self.two(Binary::Mul, at(a), at(b))?,
            RuleTerm::Or(a, b) => {
                let (a, b) = (self.opposite(at(a))?, self.opposite(at(b))?);
                let neither = self.two(Binary::Mul, a, b)?;
                self.opposite(neither)?
            }
            RuleTerm::Not(a) => self.opposite(at(a))?,
            RuleTerm::One(a) => self.training(TrainingOp::StopGradient, &[at(a)])?,
            RuleTerm::Choose(truth, a, b) => {
                let truth = self.training(TrainingOp::StopGradient, &[at(truth)])?;
                let otherwise = self.opposite(truth)?;
                let b = self.two(Binary::Mul, at(b), otherwise)?;
                if given.rule.term(a) == RuleTerm::Number(0.0) {
                    return Ok(b);
                }
                let a = self.two(Binary::Mul, at(a), truth)?;
                self.two(Binary::Add, a, b)?
            }
        })
    }

    /// 1 where `a >= b`, else 0, with a surrogate of the distance in thresholds.
    fn at_least(&mut self, given: &Unrolling<'_>, a: Value, b: Value) -> Result<Value, Diagnostic> {
        let mut over = self.two(Binary::Sub, a, b)?;
        if given.per_threshold != 1.0 {
            let unit = self.number(given.per_threshold);
            over = self.two(Binary::Mul, over, unit)?;
        }
        self.training(TrainingOp::Step(self.recipe.surrogate), &[over])
    }

    /// 1 for 0, and 0 for 1.
    fn opposite(&mut self, truth: Value) -> Result<Value, Diagnostic> {
        let one = self.number(1.0);
        self.two(Binary::Sub, one, truth)
    }

    /// Neurons by their spikes, one value a timestep.
    fn emitting(&mut self, spikes: Vec<Value>) -> Result<Neurons, Diagnostic> {
        let mut plain = spikes[0];
        for &spike in &spikes[1..] {
            plain = self.two(Binary::Add, plain, spike)?;
        }
        Ok(Neurons { plain, worth: plain, log: None, by_key: None, potential: None, most: spikes.len() as u32, spikes })
    }
}
