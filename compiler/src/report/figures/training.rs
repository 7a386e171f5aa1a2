//! A training run: its losses, and the program before and after it.

use super::figure::{Cell, Figure, Mark, Paint, PlotAxis, Stroke, Table};
use super::part::PagePart;
use super::scale::number;
use crate::report::contents::Report;
use crate::report::inputs::TrainingCurve;
use crate::train::comparison::Comparison;

/// All of them.
pub fn figures(report: &Report) -> Vec<Figure> {
    let Some(curve) = &report.training else { return Vec::new() };
    let mut all: Vec<Figure> = losses(curve).into_iter().collect();
    let sides: Vec<(&str, &Comparison)> = [("before", &curve.before), ("after", &curve.after)]
        .into_iter()
        .filter_map(|(name, side)| Some((name, side.as_ref()?)))
        .collect();
    if !sides.is_empty() {
        all.extend([perplexity(&sides), agreement(&sides)]);
    }
    all
}

fn losses(curve: &TrainingCurve) -> Option<Figure> {
    let points = |of: &[(u64, f64)]| of.iter().map(|(step, loss)| (*step as f64, *loss)).collect::<Vec<_>>();
    let (steps, validation) = (points(&curve.steps), points(&curve.validation));
    let all = || steps.iter().chain(&validation);
    all().next()?;
    let axes = [
        PlotAxis::with_zero("step", all().map(|(step, _)| *step)),
        PlotAxis::log_around("loss, logarithmic", all().map(|(_, loss)| *loss)),
    ];
    let row = |kind: &'static str| move |(step, loss): &(u64, f64)| vec![kind.into(), (*step).into(), (*loss).into()];
    Some(Figure {
        caption: "The loss of each step's windows, and of the validation windows.".into(),
        key: vec![(Paint::Dense, "training".into()), (Paint::Spiking, "validation".into())],
        marks: vec![
            Mark::Line(Paint::Dense, Stroke::Solid, steps.clone()),
            Mark::Line(Paint::Spiking, Stroke::Solid, validation.clone()),
            Mark::Dots(Paint::Spiking, validation.clone()),
        ],
        table: Table::with(
            &["of", "step", "loss"],
            curve.steps.iter().map(row("training")).chain(curve.validation.iter().map(row("validation"))),
        ),
        ..Figure::new("training-loss", PagePart::Training, "Loss by training step", axes)
    })
}

/// The middles of bands.
fn middles() -> impl Iterator<Item = f64> {
    (0..).map(|i| f64::from(i) + 0.5)
}

fn perplexity(sides: &[(&str, &Comparison)]) -> Figure {
    let dense = sides.last().map_or(0.0, |(_, side)| side.perplexity_dense);
    let values: Vec<(String, f64)> =
        sides.iter().map(|(name, side)| (format!("{name} training"), side.perplexity)).collect();
    let axes = [
        PlotAxis::log_around("perplexity, logarithmic", values.iter().map(|(_, x)| *x).chain([dense])),
        PlotAxis::names("program", values.iter().map(|(name, _)| name.clone())),
    ];
    let dots = values.iter().zip(middles()).map(|((_, x), y)| (*x, y)).collect();
    let words = values.iter().zip(middles()).map(|((_, x), y)| (*x, y, number(*x))).collect();
    let row = |(name, side): &(&str, &Comparison)| {
        vec![(*name).into(), side.tokens.into(), side.perplexity.into(), side.perplexity_dense.into(), side.kl.into()]
    };
    Figure {
        caption: "Perplexity of the validation text before and after training, beside the dense network's.".into(),
        key: vec![(Paint::Spiking, "spiking".into()), (Paint::Dense, format!("dense, {}", number(dense)))],
        marks: vec![
            Mark::Border(Paint::Dense, dense),
            Mark::Dots(Paint::Spiking, dots),
            Mark::Words(Paint::Ink, words),
        ],
        table: Table::with(
            &["program", "tokens", "perplexity", "perplexity, dense", "KL from dense, nats per token"],
            sides.iter().map(row),
        ),
        ..Figure::new("training-perplexity", PagePart::Training, "Perplexity before and after training", axes)
    }
}

fn agreement(sides: &[(&str, &Comparison)]) -> Figure {
    let share = |side: &Comparison| 100.0 * side.top1_agreement;
    let axes = [
        PlotAxis::new("top-1 agreement with the dense network, %", super::figure::AxisScale::Linear(0.0, 100.0)),
        PlotAxis::names("program", sides.iter().map(|(name, _)| format!("{name} training"))),
    ];
    let boxes = sides.iter().zip(middles()).map(|((_, side), y)| [0.0, y - 0.3, share(side), y + 0.3]).collect();
    let words = sides.iter().zip(middles()).map(|((_, side), y)| (share(side), y, number(share(side)))).collect();
    let row = |(name, side): &(&str, &Comparison)| vec![Cell::from(*name), side.tokens.into(), share(side).into()];
    Figure {
        caption:
            "The share of tokens for which both networks hold the same token for likeliest, before and after training."
                .into(),
        marks: vec![Mark::Boxes(Paint::Spiking, boxes), Mark::Words(Paint::Ink, words)],
        table: Table::with(&["program", "tokens", "top-1 agreement, %"], sides.iter().map(row)),
        ..Figure::new("training-agreement", PagePart::Training, "Top-1 agreement before and after training", axes)
    }
}
