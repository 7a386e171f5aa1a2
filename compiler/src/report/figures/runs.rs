//! Several programs side by side.

use super::energy::unit;
use super::figure::{Cell, Figure, Mark, Paint, PlotAxis, SERIES, Table};
use super::part::PagePart;
use super::scale::number;
use crate::report::contents::Report;
use crate::report::runs::{RunEnergy, RunSummary};

/// All of them; none of one program.
pub fn figures(report: &Report) -> Vec<Figure> {
    let runs = &report.runs[..];
    if runs.len() < 2 {
        return Vec::new();
    }
    let mut all = vec![perplexity(report)];
    all.extend(divergence(runs));
    all.push(spikes(runs));
    all.extend(runs[0].energy.iter().filter_map(|energy| by_part(runs, &energy.list)));
    all.push(layers(runs));
    all
}

fn names(runs: &[RunSummary]) -> PlotAxis {
    PlotAxis::names("program", runs.iter().map(|run| run.name.clone()))
}

/// The middles of bands.
fn middles() -> impl Iterator<Item = f64> {
    (0..).map(|i| f64::from(i) + 0.5)
}

/// A value per run with its interval.
fn with_intervals(values: &[(f64, Option<[f64; 2]>)], scale: f64) -> Vec<Mark> {
    let dots = values.iter().zip(middles()).map(|((x, _), y)| (scale * x, y)).collect();
    let spans = values
        .iter()
        .zip(middles())
        .filter_map(|((_, sure), y)| sure.map(|[low, high]| [scale * low, y, scale * high, y]));
    let words = values
        .iter()
        .zip(middles())
        .map(|((x, sure), y)| (scale * sure.map_or(*x, |[_, high]| high), y, number(scale * x)));
    vec![
        Mark::Whiskers(Paint::Ink, spans.collect()),
        Mark::Dots(Paint::Spiking, dots),
        Mark::Words(Paint::Ink, words.collect()),
    ]
}

fn ends(values: &[(f64, Option<[f64; 2]>)], scale: f64) -> Vec<f64> {
    values
        .iter()
        .flat_map(|(x, sure)| [*x].into_iter().chain(sure.iter().flatten().copied()))
        .map(|x| scale * x)
        .collect()
}

fn perplexity(report: &Report) -> Figure {
    let values: Vec<_> = report.runs.iter().map(|run| (run.perplexity, run.perplexity_95)).collect();
    let found = report.evaluation.as_ref();
    let dense = found.and_then(|found| found.beside.as_ref()).map(|beside| beside.perplexity_dense);
    let axes = [PlotAxis::around("perplexity", ends(&values, 1.0).into_iter().chain(dense)), names(&report.runs)];
    let over = found.and_then(|found| found.intervals_over).unwrap_or("tokens");
    let row = |run: &RunSummary| {
        let [low, high] = run.perplexity_95.map_or([None, None], |ends| ends.map(Some));
        vec![run.name.as_str().into(), run.perplexity.into(), low.into(), high.into(), run.options.clone().into()]
    };
    let mut figure = Figure::new("runs-perplexity", PagePart::Runs, "Perplexity of each program", axes);
    figure.caption = format!("Perplexity of the text with a 95 % confidence interval (bootstrap over {over}).");
    figure.table =
        Table::with(&["program", "perplexity", "95 % from", "95 % to", "options"], report.runs.iter().map(row));
    if let Some(dense) = dense {
        figure.marks.push(Mark::Border(Paint::Dense, dense));
        figure.key = vec![(Paint::Spiking, "spiking".into()), (Paint::Dense, format!("dense, {}", number(dense)))];
        figure.table.rows.push(vec!["dense network".into(), dense.into(), Cell::Empty, Cell::Empty, Cell::Empty]);
    }
    figure.marks.extend(with_intervals(&values, 1.0));
    figure
}

fn divergence(runs: &[RunSummary]) -> Option<Figure> {
    let values: Option<Vec<_>> = runs.iter().map(|run| Some((run.kl?, run.kl_95))).collect();
    let values = values?;
    let axes = [
        PlotAxis::with_zero("KL divergence from the dense network, thousandths of a nat per token", ends(&values, 1e3)),
        names(runs),
    ];
    let row = |run: &RunSummary| {
        let [low, high] = run.kl_95.map_or([None, None], |ends| ends.map(Some));
        vec![run.name.as_str().into(), run.kl.into(), low.into(), high.into()]
    };
    Some(Figure {
        caption:
            "Kullback-Leibler divergence of the predictions from the dense network's, with a 95 % confidence interval."
                .into(),
        marks: with_intervals(&values, 1e3),
        table: Table::with(&["program", "KL, nats per token", "95 % from", "95 % to"], runs.iter().map(row)),
        ..Figure::new("runs-kl", PagePart::Runs, "Divergence of each program from the dense network", axes)
    })
}

fn spikes(runs: &[RunSummary]) -> Figure {
    let axes =
        [PlotAxis::from_zero("spikes per neuron and token", runs.iter().map(|run| run.spikes_per_neuron)), names(runs)];
    let boxes = runs.iter().zip(middles()).map(|(run, y)| [0.0, y - 0.3, run.spikes_per_neuron, y + 0.3]).collect();
    let words =
        runs.iter().zip(middles()).map(|(run, y)| (run.spikes_per_neuron, y, number(run.spikes_per_neuron))).collect();
    let row =
        |run: &RunSummary| vec![run.name.as_str().into(), run.spikes_per_neuron.into(), run.timesteps_mean.into()];
    Figure {
        caption: "Spikes per neuron and token, over all neurons.".into(),
        marks: vec![Mark::Boxes(Paint::Spiking, boxes), Mark::Words(Paint::Ink, words)],
        table: Table::with(&["program", "spikes per neuron and token", "timesteps, mean"], runs.iter().map(row)),
        ..Figure::new("runs-spikes", PagePart::Runs, "Spikes of each program", axes)
    }
}

/// Energy of every program by part; `None` where a list has no price for all of it.
fn by_part(runs: &[RunSummary], list: &str) -> Option<Figure> {
    let of = |run: &'_ RunSummary| run.energy.iter().find(|energy| energy.list == list).cloned();
    let all: Vec<RunEnergy> = runs.iter().map(of).collect::<Option<_>>()?;
    if all.iter().any(|energy| energy.spiking_pj.is_none()) {
        return None;
    }
    let sums: Vec<f64> = all.iter().map(|energy| energy.parts.iter().map(|(_, pj)| pj).sum()).collect();
    let (name, scale) = unit(sums.iter().copied().fold(0.0, f64::max));
    let mut parts: Vec<&str> = Vec::new();
    for (part, pj) in all.iter().flat_map(|energy| &energy.parts) {
        if *pj != 0.0 && !parts.contains(&part.as_str()) {
            parts.push(part);
        }
    }
    let axes =
        [PlotAxis::from_zero(&format!("energy, {name} per token"), sums.iter().map(|pj| pj / scale)), names(runs)];
    let mut figure = Figure::new(
        &format!("runs-energy-{list}"),
        PagePart::Runs,
        &format!("Energy of each program by part, {list}"),
        axes,
    );
    figure.of = Some(list.into());
    figure.caption =
        format!("Energy per token of the spiking programs in prefill, time collapsed, by the price list {list}.");
    figure.table = Table::new(&["program", "part", "pJ per token"]);
    let mut starts = vec![0.0; all.len()];
    for (k, part) in parts.iter().enumerate() {
        let mut boxes = Vec::new();
        for ((energy, start), y) in all.iter().zip(&mut starts).zip(middles()) {
            let pj = energy.parts.iter().find(|(name, _)| name == part).map_or(0.0, |(_, pj)| *pj);
            boxes.push([*start / scale, y - 0.3, (*start + pj) / scale, y + 0.3]);
            *start += pj;
        }
        figure.marks.push(Mark::Boxes(Paint::Series(k), boxes));
        figure.key.push((Paint::Series(k), (*part).into()));
    }
    for (run, energy) in runs.iter().zip(&all) {
        figure.table.rows.extend(
            energy.parts.iter().map(|(part, pj)| vec![run.name.as_str().into(), part.as_str().into(), (*pj).into()]),
        );
    }
    Some(figure)
}

fn layers(runs: &[RunSummary]) -> Figure {
    let mut sites: Vec<&str> = Vec::new();
    for layer in runs.iter().flat_map(|run| &run.layers) {
        if !sites.contains(&layer.site.as_str()) {
            sites.push(&layer.site);
        }
    }
    let all = runs.iter().flat_map(|run| run.layers.iter().map(|layer| layer.spikes_per_neuron));
    let axes = [
        PlotAxis::from_zero("spikes per neuron and token", all),
        PlotAxis::names("site", sites.iter().map(ToString::to_string)),
    ];
    let series = |(i, run): (usize, &RunSummary)| {
        let at =
            |site: &&str| run.layers.iter().find(|layer| layer.site == **site).map(|layer| layer.spikes_per_neuron);
        let dots: Vec<(f64, f64)> = sites.iter().zip(middles()).filter_map(|(site, y)| Some((at(site)?, y))).collect();
        if i < SERIES { Mark::Dots(Paint::Series(i), dots) } else { Mark::Rings(Paint::Series(i), dots) }
    };
    let row = |site: &&str| {
        let of = |run: &RunSummary| {
            run.layers.iter().find(|layer| layer.site == **site).map(|layer| layer.spikes_per_neuron).into()
        };
        [Cell::from(*site)].into_iter().chain(runs.iter().map(of)).collect()
    };
    let heads: Vec<String> = runs.iter().map(|run| format!("{}, spikes per neuron and token", run.name)).collect();
    let columns: Vec<&str> = ["site"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    Figure {
        caption: "Spikes per neuron and token of every layer, a colour per program.".into(),
        key: runs.iter().enumerate().map(|(i, run)| (Paint::Series(i), run.name.clone())).collect(),
        marks: runs.iter().enumerate().map(series).collect(),
        table: Table::with(&columns, sites.iter().map(row)),
        ..Figure::new("runs-layers", PagePart::Runs, "Spikes by layer, program by program", axes)
    }
}
