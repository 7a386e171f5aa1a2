//! What one timestep of a neuron does, as a list of terms: every term reads earlier ones.
//!
//! The interpreter evaluates the list, machine code is made from it, training unrolls it, and the cost of an update is counted
//! from it. All numbers are f32, rounded after every operation, in the order of the list.

use crate::real::Real;

/// A term of a rule, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TermId(usize);

impl TermId {
    /// Its place in the list.
    pub fn index(self) -> usize {
        self.0
    }
}

/// How two numbers compare. What is not a number compares false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `a >= b`
    AtLeast,
    /// `a > b`
    Above,
}

/// One operation. Terms are numbers, or truths: of comparisons and what is made of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuleTerm {
    /// A constant number.
    Number(f64),
    /// What flows in at this timestep.
    Input,
    /// How many timesteps there are.
    Timesteps,
    /// The least sum of spikes that the curve allows: 0 with `relu`, else minus the timesteps.
    Least,
    /// A state variable, as the last timestep left it.
    State(usize),
    /// A parameter of the channel.
    Parameter(usize),
    /// `a + b`
    Add(TermId, TermId),
    /// `a - b`
    Sub(TermId, TermId),
    /// `a * b`
    Mul(TermId, TermId),
    /// The largest whole number that is not above it.
    Floor(TermId),
    /// A truth.
    Compare(Relation, TermId, TermId),
    /// Both truths.
    And(TermId, TermId),
    /// Either truth.
    Or(TermId, TermId),
    /// The opposite of a truth.
    Not(TermId),
    /// 1 for a truth that holds, else 0.
    One(TermId),
    /// `if truth then a else b`.
    Choose(TermId, TermId, TermId),
}

impl RuleTerm {
    /// Terms that it reads.
    pub fn operands(self) -> impl Iterator<Item = TermId> {
        let (a, b, c) = match self {
            RuleTerm::Number(_)
            | RuleTerm::Input
            | RuleTerm::Timesteps
            | RuleTerm::Least
            | RuleTerm::State(_)
            | RuleTerm::Parameter(_) => (None, None, None),
            RuleTerm::Floor(a) | RuleTerm::Not(a) | RuleTerm::One(a) => (Some(a), None, None),
            RuleTerm::Add(a, b) | RuleTerm::Sub(a, b) | RuleTerm::Mul(a, b) => (Some(a), Some(b), None),
            RuleTerm::Compare(_, a, b) | RuleTerm::And(a, b) | RuleTerm::Or(a, b) => (Some(a), Some(b), None),
            RuleTerm::Choose(a, b, c) => (Some(a), Some(b), Some(c)),
        };
        [a, b, c].into_iter().flatten()
    }

    /// Whether it is a truth, or else a number.
    pub fn is_truth(self) -> bool {
        matches!(self, RuleTerm::Compare(..) | RuleTerm::And(..) | RuleTerm::Or(..) | RuleTerm::Not(_))
    }
}

/// What a neuron keeps from one timestep to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct StateVariable {
    /// How the formula spells it.
    pub name: String,
    /// Before the first timestep.
    pub start: f64,
    /// What this timestep leaves of it.
    pub next: TermId,
}

/// A number that every channel has of its own, and that training moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// How the formula spells it.
    pub name: String,
    /// Before training.
    pub start: f64,
    /// The range in which it stays.
    pub least: f64,
    /// As above.
    pub most: f64,
}

/// What one timestep does.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// In their order.
    pub terms: Vec<RuleTerm>,
    /// What it keeps.
    pub states: Vec<StateVariable>,
    /// What a channel has of its own.
    pub parameters: Vec<Parameter>,
    /// Whether a spike is sent.
    pub up: TermId,
    /// Whether a spike of the opposite sign is sent. Without it, signed values have two membranes, one for each sign.
    pub down: Option<TermId>,
}

/// What one update of one membrane does, beside the spikes that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateWork {
    /// Products.
    pub multiplications: u64,
    /// Sums and differences.
    pub additions: u64,
    /// Comparisons with a threshold.
    pub comparisons: u64,
}

impl Rule {
    /// A term.
    pub fn term(&self, id: TermId) -> RuleTerm {
        self.terms[id.0]
    }

    /// All terms with their places, in order.
    pub fn iter(&self) -> impl Iterator<Item = (TermId, RuleTerm)> {
        self.terms.iter().enumerate().map(|(i, &term)| (TermId(i), term))
    }

    pub(super) fn at(index: usize) -> TermId {
        TermId(index)
    }

    /// The place of a term that is added now.
    pub(super) fn push(terms: &mut Vec<RuleTerm>, term: RuleTerm) -> TermId {
        terms.push(term);
        TermId(terms.len() - 1)
    }

    /// Membranes of a neuron: two where signed values have one for each sign, else one.
    pub fn membranes(&self, rectified: bool) -> usize {
        if self.down.is_some() || rectified { 1 } else { 2 }
    }

    /// What an update costs, terms that nothing needs left out. A state variable takes an addition and a comparison at least.
    /// What a spike alone drives, such as the threshold that it takes away, is counted by spike and not here; so is the right
    /// side of `and`, which decides only where the left side holds. A choice costs what its comparison does.
    pub fn work(&self) -> UpdateWork {
        let of_spikes = self.of_spikes();
        let driven = |id: TermId| of_spikes[id.0];
        let behind: Vec<TermId> =
            self.terms.iter().filter_map(|term| if let RuleTerm::And(_, b) = term { Some(*b) } else { None }).collect();
        let needed = self.needed_without_spikes();
        let mut work = UpdateWork { multiplications: 0, additions: 0, comparisons: 0 };
        for (id, term) in self.iter().filter(|(id, _)| needed[id.0]) {
            match term {
                RuleTerm::Mul(a, b) => work.multiplications += u64::from(!driven(a) && !driven(b)),
                RuleTerm::Add(a, b) | RuleTerm::Sub(a, b) => work.additions += u64::from(!driven(a) && !driven(b)),
                RuleTerm::Floor(a) => work.additions += u64::from(!driven(a)),
                RuleTerm::Compare(..) => work.comparisons += u64::from(!behind.contains(&id)),
                RuleTerm::Number(_)
                | RuleTerm::Input
                | RuleTerm::Timesteps
                | RuleTerm::Least
                | RuleTerm::State(_)
                | RuleTerm::Parameter(_)
                | RuleTerm::And(..)
                | RuleTerm::Or(..)
                | RuleTerm::Not(_)
                | RuleTerm::One(_)
                | RuleTerm::Choose(..) => {}
            }
        }
        let states = self.states.len() as u64;
        work.additions = work.additions.max(states);
        work.comparisons = work.comparisons.max(states);
        work
    }

    /// By term: whether it is a number that is 0 without a spike.
    fn of_spikes(&self) -> Vec<bool> {
        let mut found: Vec<bool> = Vec::with_capacity(self.terms.len());
        for &term in &self.terms {
            let driven = |id: TermId| found[id.0];
            found.push(match term {
                RuleTerm::One(truth) => self.is_spike(truth),
                RuleTerm::Mul(a, b) => driven(a) || driven(b),
                RuleTerm::Add(a, b) | RuleTerm::Sub(a, b) => driven(a) && driven(b),
                RuleTerm::Floor(a) => driven(a),
                RuleTerm::Choose(truth, _, b) => {
                    self.is_spike(truth) && (driven(b) || self.term(b) == RuleTerm::Number(0.0))
                }
                RuleTerm::Number(_)
                | RuleTerm::Input
                | RuleTerm::Timesteps
                | RuleTerm::Least
                | RuleTerm::State(_)
                | RuleTerm::Parameter(_)
                | RuleTerm::Compare(..)
                | RuleTerm::And(..)
                | RuleTerm::Or(..)
                | RuleTerm::Not(_) => false,
            });
        }
        found
    }

    /// By term: whether an update without a spike needs it.
    fn needed_without_spikes(&self) -> Vec<bool> {
        let mut needed = vec![false; self.terms.len()];
        let states = self.states.iter().map(|state| state.next);
        [self.up].into_iter().chain(self.down).chain(states).for_each(|id| needed[id.0] = true);
        for (i, term) in self.terms.iter().enumerate().rev() {
            if needed[i] {
                let skipped = |id: TermId| matches!(*term, RuleTerm::Choose(truth, a, b) if self.is_spike(truth) && id == a && id != b);
                term.operands().filter(|&id| !skipped(id)).for_each(|id| needed[id.0] = true);
            }
        }
        needed
    }

    fn is_spike(&self, truth: TermId) -> bool {
        truth == self.up || Some(truth) == self.down
    }

    /// Evaluates all terms into `values`, truths as 1 and 0, and moves the state on.
    pub(super) fn evaluate<R: Real>(&self, state: &mut [R], given: &UpdateContext<'_, R>, values: &mut Vec<R>) {
        let one = R::from_f64(1.0);
        let truth = |holds: bool| if holds { one } else { R::ZERO };
        values.clear();
        for &term in &self.terms {
            let at = |id: TermId| values[id.0];
            let holds = |id: TermId| values[id.0] > R::ZERO;
            let value = match term {
                RuleTerm::Number(x) => R::from_f64(x),
                RuleTerm::Input => given.input,
                RuleTerm::Timesteps => R::from_i32(given.timesteps),
                RuleTerm::Least => R::from_i32(given.least),
                RuleTerm::State(i) => state[i],
                RuleTerm::Parameter(i) => given.parameters[i],
                RuleTerm::Add(a, b) => at(a) + at(b),
                RuleTerm::Sub(a, b) => at(a) - at(b),
                RuleTerm::Mul(a, b) => at(a) * at(b),
                RuleTerm::Floor(a) => at(a).floor(),
                RuleTerm::Compare(Relation::AtLeast, a, b) => truth(at(a) >= at(b)),
                RuleTerm::Compare(Relation::Above, a, b) => truth(at(a) > at(b)),
                RuleTerm::And(a, b) => truth(holds(a) && holds(b)),
                RuleTerm::Or(a, b) => truth(holds(a) || holds(b)),
                RuleTerm::Not(a) => truth(!holds(a)),
                RuleTerm::One(a) => at(a),
                RuleTerm::Choose(truth, a, b) => at(if holds(truth) { a } else { b }),
            };
            values.push(value);
        }
        state.iter_mut().zip(&self.states).for_each(|(state, variable)| *state = values[variable.next.0]);
    }
}

/// What an update is given beside its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpdateContext<'a, R> {
    pub input: R,
    pub timesteps: i32,
    pub least: i32,
    pub parameters: &'a [R],
}
