//! Time-stepped neurons: what a membrane does with one timestep's input.
//!
//! Unlike `fire`, which integrates the whole train before its first spike, such a neuron spikes before all of its input has
//! come. So its spikes depend on the order of its inputs, and time does not collapse. Potentials are in units of the
//! threshold. A membrane starts half-way, so that a constant input is rounded, not cut off. Signed values have two
//! membranes, one for each sign; with a ReLU there is one, which never spikes for what is negative: a plain IF layer.
//!
//! Neurons are data: a row of `table` has a name and a formula, which `formula` reads into a `Rule`. All engines, the cost
//! pass and training follow the rule.

mod formula;
mod rule;
mod table;

pub use rule::{Parameter, Relation, Rule, RuleTerm, StateVariable, TermId, UpdateWork};

use crate::curve::Curve;
use crate::real::Real;
use rule::UpdateContext;
use std::fmt;
use std::sync::LazyLock;

/// A kind of time-stepped neuron: a row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Membrane(u8);

/// The rules of all rows, in their order.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |row: &table::MembraneRow| {
        Rule::read(row.formula).unwrap_or_else(|why| panic!("the neuron `{}`: {why}", row.name))
    };
    table::ROWS.iter().map(rule).collect()
});

impl Membrane {
    /// Integrate-and-fire.
    pub const IF: Membrane = Membrane::named("if");
    /// Leaky integrate-and-fire, which LIF attention has.
    pub const LIF: Membrane = Membrane::named("lif");
    /// Bipolar with a tracer, which has a code's name of its own.
    pub const ST_BIF: Membrane = Membrane::named("st_bif");

    /// The row of this name, which there is.
    const fn named(name: &str) -> Self {
        let mut i = 0;
        while i < table::ROWS.len() {
            if equal(table::ROWS[i].name.as_bytes(), name.as_bytes()) {
                return Membrane(i as u8);
            }
            i += 1;
        }
        panic!("the table has no such neuron")
    }

    /// All of them, in the order of the table.
    pub fn all() -> impl Iterator<Item = Membrane> {
        (0..table::ROWS.len()).map(|i| Membrane(i as u8))
    }

    /// Their names, as messages list them.
    pub fn names() -> String {
        Self::all().map(Membrane::name).collect::<Vec<&str>>().join(", ")
    }

    fn row(self) -> &'static table::MembraneRow {
        &table::ROWS[usize::from(self.0)]
    }

    /// How the text form spells it.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it is, in a line.
    pub fn about(self) -> &'static str {
        self.row().about
    }

    /// What one timestep does, as the table has it: statements, one a line (`docs/ir.md`).
    pub fn formula(self) -> impl Iterator<Item = &'static str> {
        self.row().formula.lines().map(str::trim).filter(|line| !line.is_empty())
    }

    /// What one timestep does.
    pub fn rule(self) -> &'static Rule {
        &RULES[usize::from(self.0)]
    }

    /// What counts as one threshold where it trains.
    pub fn surrogate_width(self) -> f64 {
        self.row().surrogate_width
    }

    /// The membrane of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|membrane| membrane.name() == name)
    }

    /// The curves that such a neuron has by itself.
    pub fn has(curve: Curve) -> bool {
        matches!(curve, Curve::Identity | Curve::Relu)
    }

    /// The least sum of spikes that a curve allows.
    pub fn least(curve: Curve, timesteps: u16) -> i32 {
        if curve == Curve::Relu { 0 } else { -i32::from(timesteps) }
    }
}

impl fmt::Debug for Membrane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Some neurons of one kind between timesteps.
#[derive(Clone, Debug)]
pub struct MembraneLayer<R> {
    rule: &'static Rule,
    timesteps: u16,
    curve: Curve,
    /// `[neurons, membranes, state variables]`
    states: Vec<R>,
    values: Vec<R>,
}

impl<R: Real> MembraneLayer<R> {
    /// So many neurons before their first timestep.
    pub fn new(membrane: Membrane, timesteps: u16, curve: Curve, neurons: usize) -> Self {
        let rule = membrane.rule();
        let start: Vec<R> = rule.states.iter().map(|state| R::from_f64(state.start)).collect();
        let states = start.repeat(neurons * rule.membranes(curve == Curve::Relu));
        Self { rule, timesteps, curve, states, values: Vec::with_capacity(rule.terms.len()) }
    }

    /// The state variables of a neuron, `[membranes, state variables]`, as the last timestep left them.
    pub fn states(&self, neuron: usize) -> &[R] {
        let width = self.rule.states.len() * self.rule.membranes(self.curve == Curve::Relu);
        &self.states[neuron * width..][..width]
    }

    /// Takes one timestep's input of a neuron in and says the spike: -1, 0 or +1. `parameters` are its channel's.
    pub fn step(&mut self, neuron: usize, input: R, parameters: &[R]) -> i32 {
        let rule = self.rule;
        let width = rule.states.len();
        let membranes = rule.membranes(self.curve == Curve::Relu);
        let states = &mut self.states[neuron * membranes * width..][..membranes * width];
        let least = Membrane::least(self.curve, self.timesteps);
        let mut spike = 0;
        for (i, sign) in [1, -1].into_iter().enumerate().take(membranes) {
            let state = &mut states[i * width..][..width];
            let input = if sign == 1 { input } else { R::ZERO - input };
            let given = UpdateContext { input, timesteps: i32::from(self.timesteps), least, parameters };
            rule.evaluate(state, &given, &mut self.values);
            let holds = |id: TermId| i32::from(self.values[id.index()] > R::ZERO);
            spike += sign * holds(rule.up) - rule.down.map_or(0, holds);
        }
        spike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(name: &str, inputs: &[f64], curve: Curve) -> Vec<i32> {
        let membrane = Membrane::from_name(name).expect("a row");
        let parameters: Vec<f64> = membrane.rule().parameters.iter().map(|parameter| parameter.start).collect();
        let mut layer = MembraneLayer::new(membrane, inputs.len() as u16, curve, 1);
        inputs.iter().map(|&x| layer.step(0, x, &parameters)).collect()
    }

    #[test]
    fn every_row_is_sound() {
        for membrane in Membrane::all() {
            assert!(!membrane.about().is_empty() && membrane.surrogate_width() > 0.0, "{membrane:?}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let name = membrane.name();
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain), "`{name}`");
            assert!(name != "fire" && !membrane.about().ends_with('.'), "`{name}`");
            assert!(!membrane.rule().terms.is_empty(), "{membrane:?}");
            assert_eq!(Membrane::from_name(membrane.name()), Some(membrane), "names differ");
        }
    }

    /// Worked by hand: potentials .875, 1.25, .625, 1 and so on.
    #[test]
    fn a_constant_input_is_rounded() {
        assert_eq!(train("if", &[0.375; 8], Curve::Identity), [0, 1, 0, 1, 0, 0, 1, 0]);
        assert_eq!(train("if", &[-0.375; 8], Curve::Identity), [0, -1, 0, -1, 0, 0, -1, 0]);
        assert_eq!(train("if", &[-0.375; 8], Curve::Relu), [0; 8]);
        // .875, 1.25 and a spike, .375, .75, 1.125 and a spike.
        assert_eq!(train("if_hard", &[0.375; 8], Curve::Identity), [0, 1, 0, 0, 1, 0, 0, 1]);
    }

    /// 2.2 - 1 + .4 = 1.6, which rounds to 2.
    #[test]
    fn a_tracer_takes_back_what_was_too_much() {
        assert_eq!(train("st_bif", &[2.25, -1.0, 0.375, 0.0], Curve::Relu), [1, 0, 1, 0]);
        assert_eq!(train("st_bif", &[2.25, -2.0, 0.0, 0.0], Curve::Relu), [1, -1, 0, 0]);
        assert_eq!(train("st_bif", &[1.0, 1.0, -2.0, 0.0], Curve::Identity), [1, 1, -1, -1]);
    }

    #[test]
    fn a_leak_loses_charge() {
        let spikes = |name| train(name, &[0.25; 64], Curve::Identity).iter().sum::<i32>();
        assert_eq!((spikes("if"), spikes("lif") < 16), (16, true));
        assert_eq!(spikes("lif"), spikes("plif"));
    }

    /// Equal sums in another order: what cannot be taken back is said too early.
    #[test]
    fn order_matters() {
        let early = train("if", &[2.0, -2.0, 0.0, 0.0], Curve::Relu);
        let late = train("if", &[-2.0, 2.0, 0.0, 0.0], Curve::Relu);
        assert_ne!(early.iter().sum::<i32>(), late.iter().sum::<i32>());
    }

    /// Thresholds 1, 1.125 and 1.234375: potentials 1.5; .5 + 1; and 1.5 - 1.125 + 1 = 1.375.
    #[test]
    fn a_threshold_that_adapts_is_raised_by_spikes() {
        assert_eq!(train("alif", &[1.0; 4], Curve::Relu), [1, 1, 1, 0]);
    }

    /// After a spike one timestep's input is lost.
    #[test]
    fn a_neuron_that_rests_hears_nothing() {
        assert_eq!(train("if_rest", &[1.0, 1.0, 0.25, 0.25], Curve::Relu), [1, 0, 0, 1]);
    }

    #[test]
    fn work_is_counted_from_the_rule() {
        let work = |name| {
            let UpdateWork { multiplications, additions, comparisons } =
                Membrane::from_name(name).expect("a row").rule().work();
            [multiplications, additions, comparisons]
        };
        assert_eq!(["if", "if_hard", "lif", "st_bif"].map(work), [[0, 1, 1], [0, 1, 1], [1, 1, 1], [0, 2, 2]]);
        // The leak is as lif's. The threshold, the potential and its decay; what a spike does is not an update's.
        assert_eq!(["plif", "alif"].map(work), [[1, 1, 1], [1, 2, 2]]);
        // The input, the rest that ends; whether it rests, the threshold, and the end of the rest.
        assert_eq!(work("if_rest"), [0, 2, 3]);
        // v v / 256, 64 I, (v / 4 - w) / 16; sums, differences and three floors; the threshold and the least potential.
        assert_eq!(work("izhikevich"), [5, 8, 2]);
    }

    #[test]
    fn work_that_follows_a_reset_is_every_updates() {
        let work = |formula: &str| Rule::read(formula).expect("it is sound").work();
        let leak_last = "state v = 0\nu = v + input\nspike = u >= 1\nv = (u - spike) * 0.5";
        assert_eq!(work(leak_last), UpdateWork { multiplications: 1, additions: 1, comparisons: 1 });
        let nothing_needs_it = "state v = 0\nu = v + input\nw = u * u\nspike = u >= 1\nv = u - spike";
        assert_eq!(work(nothing_needs_it), UpdateWork { multiplications: 0, additions: 1, comparisons: 1 });
    }
}
