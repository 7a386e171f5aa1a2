//! What tuning found: perplexity against energy, and against timesteps.

use super::figure::{Figure, Mark, Paint, PlotAxis, Stroke, Table};
use super::part::PagePart;
use crate::report::contents::Report;
use crate::tune::{TuneJson, TunePoint};

/// All of them.
pub fn figures(report: &Report) -> Vec<Figure> {
    let Some(front) = &report.front else { return Vec::new() };
    let spent = |saved: Option<f64>| saved.map(|saved| 100.0 * (1.0 - saved));
    let paper = |point: &TunePoint| spent(point.saving.paper45.total);
    let own = |point: &TunePoint| spent(point.saving.int45.total);
    let steps = |point: &TunePoint| Some(point.timesteps_mean);
    let plots = [
        plot(front, "front-energy-paper45", "energy", "energy per token, % of dense f32, by paper45", &paper),
        plot(front, "front-energy-int45", "energy", "energy per token, % of dense f32, by int45", &own),
        plot(front, "front-timesteps", "timesteps", "timesteps per neuron, mean", &steps),
    ];
    plots.into_iter().flatten().collect()
}

/// The rise of perplexity against a cost; `None` where no point has one.
fn plot(
    front: &TuneJson,
    id: &str,
    against: &str,
    title: &str,
    cost: &dyn Fn(&TunePoint) -> Option<f64>,
) -> Option<Figure> {
    let place = |point: &TunePoint| Some((cost(point)?, 100.0 * point.perplexity_increase));
    let of = |uniform: bool| -> Vec<(f64, f64)> {
        front.points.iter().filter(|point| point.uniform == uniform).filter_map(place).collect()
    };
    let (allocated, uniform) = (of(false), of(true));
    let all = || allocated.iter().chain(&uniform);
    all().next()?;
    let axes = [
        PlotAxis::around(title, all().map(|(x, _)| *x)),
        PlotAxis::with_zero("rise of perplexity over the dense network's, %", all().map(|(_, y)| *y)),
    ];
    let chosen: Vec<(f64, f64)> = front.chosen.iter().filter_map(place).collect();
    let mut key =
        vec![(Paint::Spiking, "timesteps by site".to_string()), (Paint::Dense, "the same timesteps everywhere".into())];
    if !chosen.is_empty() {
        key.push((Paint::Ink, format!("chosen: the least {} within {}", front.minimise, short(&front.budget))));
    }
    let row = |point: &TunePoint| {
        let kind = if point.uniform { "uniform" } else { "by site" };
        let picked = front.chosen.as_ref().is_some_and(|chosen| chosen.flags == point.flags);
        vec![
            cost(point).into(),
            (100.0 * point.perplexity_increase).into(),
            point.kl.into(),
            point.spikes_per_neuron.into(),
            point.timesteps_mean.into(),
            point.additions_per_token.into(),
            kind.into(),
            if picked { "chosen" } else { "" }.into(),
            point.flags.as_str().into(),
        ]
    };
    let columns = [
        title,
        "rise of perplexity, %",
        "KL, nats per token",
        "spikes per neuron and token",
        "timesteps, mean",
        "additions per token",
        "kind",
        "chosen",
        "options",
    ];
    Some(Figure {
        caption: format!(
            "What allocations of timesteps cost in perplexity and in {against}: the lower left is better. The line joins what no other point beats."
        ),
        key,
        marks: vec![
            Mark::Level(Paint::Muted, 0.0),
            Mark::Line(Paint::Spiking, Stroke::Dashed, best(all().copied().collect())),
            Mark::Dots(Paint::Dense, uniform.clone()),
            Mark::Dots(Paint::Spiking, allocated.clone()),
            Mark::Rings(Paint::Ink, chosen),
        ],
        table: Table::with(&columns, front.points.iter().map(row)),
        ..Figure::new(id, PagePart::Front, &format!("Perplexity against {against}"), axes)
    })
}

/// A budget without the zeros at its end: `perplexity+1%`.
fn short(budget: &str) -> String {
    match budget.strip_suffix('%') {
        Some(share) if share.contains('.') => format!("{}%", share.trim_end_matches('0').trim_end_matches('.')),
        _ => budget.into(),
    }
}

/// The points that no other beats in both, the cheapest first.
fn best(mut all: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut found: Vec<(f64, f64)> = Vec::new();
    for point in all {
        if found.last().is_none_or(|last| point.1 < last.1) {
            found.push(point);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{best, short};

    #[test]
    fn a_budget_is_short() {
        assert_eq!(
            ["perplexity+1.0000%", "perplexity+0.2500%", "timesteps=10"].map(short),
            ["perplexity+1%", "perplexity+0.25%", "timesteps=10"]
        );
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let all = vec![(3.0, 1.0), (1.0, 5.0), (2.0, 6.0), (2.0, 2.0), (4.0, 1.0)];
        assert_eq!(best(all), [(1.0, 5.0), (2.0, 2.0), (3.0, 1.0)]);
    }
}
