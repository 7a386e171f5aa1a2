//! One neuron's membrane by timestep.

use super::figure::{AxisScale, Figure, Mark, Paint, PlotAxis, Stroke, Table};
use super::part::PagePart;
use crate::report::contents::Report;
use crate::report::trace::{NeuronTrace, TraceStep};

/// The traced neuron; `None` where none is.
pub fn figure(report: &Report) -> Option<Figure> {
    report.neuron.as_ref().map(of)
}

fn of(trace: &NeuronTrace) -> Figure {
    let steps = &trace.steps;
    let stepped = steps.iter().all(|step| step.phase == "both");
    let first_fire = steps.iter().position(|step| step.phase == "fire").unwrap_or(0);
    let place = |i: usize| i as f64 + 0.5;
    let line = |of: &dyn Fn(&TraceStep) -> Option<f64>| -> Vec<(f64, f64)> {
        steps.iter().enumerate().filter_map(|(i, step)| Some((place(i), of(step)?))).collect()
    };
    let potential = line(&|step| Some(step.potential));
    let negative = line(&|step| step.negative);
    let threshold = line(&|step| step.threshold);
    let all = || potential.iter().chain(&negative).chain(&threshold).map(|(_, y)| *y);
    let every = usize::max(1, steps.len() / 16);
    let label = |(i, step): (usize, &TraceStep)| (place(i), step.timestep.to_string());
    let ticks = steps.iter().enumerate().filter(|(i, _)| i % every == 0).map(label).collect();
    let when = if stepped { "timestep" } else { "timestep: the input comes in, then the neuron fires" };
    let unit = if stepped { "thresholds" } else { "levels" };
    let axes = [
        PlotAxis::new(when, AxisScale::Slots(steps.len(), ticks)),
        PlotAxis::with_zero(&format!("membrane potential after the timestep, {unit}"), all()),
    ];
    let fired = |sign: i32| -> Vec<(f64, f64)> {
        steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.spike == sign)
            .map(|(i, step)| (place(i), step.potential))
            .collect()
    };
    let mut marks = vec![Mark::Level(Paint::Muted, 0.0)];
    if !stepped {
        marks.push(Mark::Border(Paint::Muted, first_fire as f64));
    }
    marks.extend([
        Mark::Line(Paint::Series(4), Stroke::Dashed, threshold.clone()),
        Mark::Line(Paint::Spiking, Stroke::Solid, potential),
        Mark::Line(Paint::Negative, Stroke::Solid, negative.clone()),
        Mark::Dots(Paint::Ink, fired(1)),
        Mark::Dots(Paint::Bad, fired(-1)),
    ]);
    let key = key(!negative.is_empty(), !threshold.is_empty());
    let how = if stepped {
        "It fires while its input comes in."
    } else {
        "It integrates all of its input before its first spike; each spike then takes its weight away."
    };
    Figure {
        of: Some(trace.site.clone()),
        caption: format!(
            "Neuron {} of {} ({}) at token {}, ‘{}’. {how} Its level is {}.",
            trace.neuron,
            trace.site,
            trace.kind,
            trace.token,
            trace.text.trim(),
            trace.level
        ),
        key,
        marks,
        table: numbers(steps, unit),
        ..Figure::new(
            "membrane",
            PagePart::Spikes,
            &format!("Membrane of neuron {} of {}", trace.neuron, trace.site),
            axes,
        )
    }
}

fn key(has_negative: bool, has_threshold: bool) -> Vec<(Paint, String)> {
    let mut key = vec![(Paint::Spiking, "potential".to_string())];
    if has_negative {
        key[0].1 = "membrane for positive input".into();
        key.push((Paint::Negative, "membrane for negative input".into()));
    }
    if has_threshold {
        key.push((Paint::Series(4), "threshold (dashed)".into()));
    }
    key.extend([(Paint::Ink, "spike +1".into()), (Paint::Bad, "spike −1".into())]);
    key
}

fn numbers(steps: &[TraceStep], unit: &str) -> Table {
    let row = |step: &TraceStep| {
        vec![
            step.phase.into(),
            i32::from(step.timestep).into(),
            step.input.into(),
            step.potential.into(),
            step.negative.into(),
            step.threshold.into(),
            step.spike.into(),
        ]
    };
    let potential = format!("potential, {unit}");
    let columns = [
        "phase",
        "timestep",
        "input",
        &potential,
        "potential of the membrane for negative input",
        "threshold",
        "spike",
    ];
    Table::with(&columns, steps.iter().map(row))
}
