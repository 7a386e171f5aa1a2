//! The text, token by token: how surprising each token was to both networks, and how far apart they are.

use super::figure::{Cell, Figure, Mark, Paint, PlotAxis, Stroke, Table};
use super::part::PagePart;
use crate::report::contents::Report;
use crate::report::run::Prediction;

/// Nats to bits.
pub fn bits(nats: f64) -> f64 {
    nats / std::f64::consts::LN_2
}

/// All of them.
pub fn figures(report: &Report) -> Vec<Figure> {
    let all = &report.predictions;
    if all.is_empty() {
        return Vec::new();
    }
    let mut figures = vec![surprisal(all)];
    figures.extend(divergence(all));
    figures
}

fn places(numbers: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
    (0..).map(|i| f64::from(i) + 0.5).zip(numbers).collect()
}

fn surprisal(all: &[Prediction]) -> Figure {
    let spiking: Vec<f64> = all.iter().map(|token| bits(token.spiking.nll)).collect();
    let dense: Vec<f64> = all.iter().filter_map(|token| token.dense.as_ref()).map(|dense| bits(dense.nll)).collect();
    let axes = [
        PlotAxis::places("token that is predicted", 1, all.len()),
        PlotAxis::from_zero("surprisal, bits", spiking.iter().chain(&dense).copied()),
    ];
    let beside = dense.len() == all.len();
    let row = |(i, token): (usize, &Prediction)| {
        let dense = token.dense.as_ref().map(|dense| bits(dense.nll));
        vec![i.into(), token.text.as_str().into(), bits(token.spiking.nll).into(), dense.into(), token.kl.into()]
    };
    let mut figure = Figure::new("surprisal-by-token", PagePart::Text, "Surprisal, token by token", axes);
    figure.caption = "How little each token was expected: the negative binary logarithm of its probability. 1 bit more is half as likely. \
                      Perplexity is 2 to the mean."
        .into();
    figure.table = Table::with(
        &["token", "text", "surprisal, spiking, bits", "surprisal, dense, bits", "KL divergence, nats"],
        (1..).zip(all).map(row),
    );
    if beside {
        figure.marks.push(Mark::Line(Paint::Dense, Stroke::Broad, places(dense.into_iter())));
        figure.key = vec![(Paint::Dense, "dense".into()), (Paint::Spiking, "spiking".into())];
    }
    figure.marks.push(Mark::Line(Paint::Spiking, Stroke::Solid, places(spiking.into_iter())));
    figure
}

fn divergence(all: &[Prediction]) -> Option<Figure> {
    let kl: Vec<f64> = all.iter().filter_map(|token| token.kl).map(|kl| 1000.0 * kl).collect();
    if kl.len() != all.len() {
        return None;
    }
    let axes = [
        PlotAxis::places("token that is predicted", 1, all.len()),
        PlotAxis::from_zero("KL divergence from the dense prediction, thousandths of a nat", kl.iter().copied()),
    ];
    let bar = |(i, kl): (u32, f64)| [f64::from(i) + 0.1, 0.0, f64::from(i) + 0.9, kl.max(0.0)];
    let row = |(i, token): (usize, &Prediction)| vec![Cell::from(i), token.text.as_str().into(), token.kl.into()];
    Some(Figure {
        caption: "How far the spiking network's prediction of each token is from the dense network's.".into(),
        marks: vec![Mark::Boxes(Paint::Spiking, (0..).zip(kl).map(bar).collect())],
        table: Table::with(&["token", "text", "KL divergence, nats"], (1..).zip(all).map(row)),
        ..Figure::new("kl-by-token", PagePart::Text, "Divergence from the dense network, token by token", axes)
    })
}
