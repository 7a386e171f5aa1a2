//! The rule of a neuron as machine code, four neurons at once: the operations of `snnc_ir::membrane::Rule`, in its order.

use crate::jit::emit::Emitter;
use crate::jit::lanes::{F32, I32, select, splat_float, splat_int};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Value as CodeValue};
use snnc_ir::membrane::{Relation, Rule, RuleTerm, TermId};

/// The bits of 1, which a truth as a number is.
const ONE: i64 = 0x3f80_0000;

/// What an update is given beside its state.
pub struct UpdateInputs<'a> {
    pub input: CodeValue,
    /// Whether the membrane is that of positive spikes; else it takes the opposite of the input.
    pub positive: bool,
    pub timesteps: i32,
    pub least: i32,
    pub states: &'a [CodeValue],
    pub parameters: &'a [CodeValue],
}

/// What an update gives: what is left of the state, and masks of the neurons that spike up and down.
pub struct Update {
    pub states: Vec<CodeValue>,
    pub up: CodeValue,
    pub down: Option<CodeValue>,
}

/// One update of four membranes.
pub fn update(e: &mut Emitter<'_>, rule: &Rule, given: &UpdateInputs<'_>) -> Update {
    let mut values: Vec<CodeValue> = Vec::with_capacity(rule.terms.len());
    for (_, term) in rule.iter() {
        let value = emit_term(e, rule, given, &values, term);
        values.push(value);
    }
    let at = |id: TermId| values[id.index()];
    let states = rule.states.iter().map(|state| at(state.next)).collect();
    Update { states, up: at(rule.up), down: rule.down.map(at) }
}

fn emit_term(
    e: &mut Emitter<'_>,
    rule: &Rule,
    given: &UpdateInputs<'_>,
    values: &[CodeValue],
    term: RuleTerm,
) -> CodeValue {
    let at = |id: TermId| values[id.index()];
    // A sum with the opposite of the input is a difference: the same number, but for the sign of a zero, which no comparison sees.
    let opposite = |id: TermId| !given.positive && rule.term(id) == RuleTerm::Input;
    match term {
        RuleTerm::Number(x) => splat_float(e, x as f32),
        RuleTerm::Input if given.positive => given.input,
        RuleTerm::Input => {
            let zero = splat_float(e, 0.0);
            e.b.ins().fsub(zero, given.input)
        }
        RuleTerm::Timesteps => splat_float(e, given.timesteps as f32),
        RuleTerm::Least => splat_float(e, given.least as f32),
        RuleTerm::State(i) => given.states[i],
        RuleTerm::Parameter(i) => given.parameters[i],
        RuleTerm::Add(a, b) if opposite(b) => e.b.ins().fsub(at(a), given.input),
        RuleTerm::Add(a, b) => e.b.ins().fadd(at(a), at(b)),
        RuleTerm::Sub(a, b) => match rule.term(b) {
            // `a - 1` is there before it is known whether it spikes; `a - 0` is `a`.
            RuleTerm::One(truth) => {
                let one = splat_float(e, 1.0);
                let less = e.b.ins().fsub(at(a), one);
                select(e, at(truth), less, at(a))
            }
            _ => e.b.ins().fsub(at(a), at(b)),
        },
        RuleTerm::Mul(a, b) => e.b.ins().fmul(at(a), at(b)),
        RuleTerm::Floor(a) => e.b.ins().floor(at(a)),
        RuleTerm::Compare(Relation::AtLeast, a, b) => e.b.ins().fcmp(FloatCC::GreaterThanOrEqual, at(a), at(b)),
        RuleTerm::Compare(Relation::Above, a, b) => e.b.ins().fcmp(FloatCC::GreaterThan, at(a), at(b)),
        RuleTerm::And(a, b) => e.b.ins().band(at(a), at(b)),
        RuleTerm::Or(a, b) => e.b.ins().bor(at(a), at(b)),
        RuleTerm::Not(a) => e.b.ins().bnot(at(a)),
        RuleTerm::One(a) => {
            let one = splat_int(e, I32, ONE);
            let number = e.b.ins().band(at(a), one);
            e.cast(F32, number)
        }
        RuleTerm::Choose(truth, a, b) if rule.term(a) == RuleTerm::Number(0.0) => {
            let number = e.cast(I32, at(b));
            let kept = e.b.ins().band_not(number, at(truth));
            e.cast(F32, kept)
        }
        RuleTerm::Choose(truth, a, b) => select(e, at(truth), at(a), at(b)),
    }
}
