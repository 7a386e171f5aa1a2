//! Steps of single numbers that read each other are joined, so that what one hands to the next is never written to memory.
//!
//! A step is joined to the only one that reads it, where that takes no more memory: what it alone still read lives on instead of its
//! result.

use super::steps::{ChangesWith, PlannedStep, StridedView, TrainingStepKind};

/// The steps, but `None` for those that became part of another. Numbers of values stay.
pub fn joined(steps: Vec<PlannedStep>, outputs: &[StridedView]) -> Vec<Option<PlannedStep>> {
    let mut readers = vec![0usize; steps.len()];
    let mut last = vec![0usize; steps.len()];
    for (now, planned) in steps.iter().enumerate() {
        for value in values_read(planned) {
            readers[value] += 1;
            last[value] = now;
        }
    }
    outputs.iter().filter_map(StridedView::value).for_each(|value| readers[value] = usize::MAX);
    let numbers: Vec<usize> = steps.iter().map(|planned| planned.step.out.len()).collect();
    let always: Vec<bool> = steps.iter().map(|planned| planned.changes != ChangesWith::Window).collect();
    let mut steps: Vec<Option<PlannedStep>> = steps.into_iter().map(Some).collect();
    for at in 0..steps.len() {
        let Some(mut reader) = steps[at].take() else { continue };
        for value in values_read(&reader) {
            let Some(read) = &steps[value] else { continue };
            let end_here = |other: &usize| !always[*other] && last[*other] == value;
            let kept_longer: usize =
                values_read(read).iter().filter(|other| end_here(other)).map(|&other| numbers[other]).sum();
            if readers[value] == 1
                && kept_longer <= numbers[value]
                && let Some(both) = one_step(&reader, value, read)
            {
                for other in values_read(read) {
                    if last[other] == value {
                        last[other] = at;
                    }
                }
                steps[value] = None;
                reader = both;
            }
        }
        steps[at] = Some(reader);
    }
    steps
}

/// The values that a step reads, each once.
fn values_read(planned: &PlannedStep) -> Vec<usize> {
    let mut values: Vec<usize> = planned.step.inputs.iter().filter_map(StridedView::value).collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// A step that computes what it reads of `value` by itself, as the step `by` did.
fn one_step(reader: &PlannedStep, value: usize, by: &PlannedStep) -> Option<PlannedStep> {
    let (TrainingStepKind::Formula(formula), TrainingStepKind::Formula(inner)) = (&reader.step.kind, &by.step.kind)
    else {
        return None;
    };
    let inputs = &reader.step.inputs;
    let (computed, others): (Vec<usize>, Vec<usize>) =
        (0..inputs.len()).partition(|&input| inputs[input].value() == Some(value));
    let in_order = |&input: &usize| inputs[input].is_whole() && formula.is_in_order(input);
    if by.changes != reader.changes || !computed.iter().all(in_order) {
        return None;
    }
    let mut joined = reader.clone();
    joined.step.kind = TrainingStepKind::Formula(formula.with_computed(&computed, inner)?);
    joined.step.inputs =
        others.iter().map(|&input| inputs[input].clone()).chain(by.step.inputs.iter().cloned()).collect();
    Some(joined)
}
