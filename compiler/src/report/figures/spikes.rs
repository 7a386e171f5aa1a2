//! Spikes by layer, by timestep, by token; the raster of one layer; keys of attention that fired.

use super::figure::{AxisScale, Cell, Figure, Mark, Paint, PlotAxis, Size, Stroke, TONES, Table};
use super::part::PagePart;
use crate::report::contents::Report;
use crate::report::raster::{ReportLayer, numbers};
use snnc_ir::Code;
use std::collections::BTreeMap;

/// All of them.
pub fn figures(report: &Report) -> Vec<Figure> {
    if report.layers.is_empty() {
        return Vec::new();
    }
    let tokens = report.predictions.len().max(1);
    let mut all = vec![by_layer(report, tokens), by_timestep(report, tokens), by_token(report, tokens)];
    all.extend(raster(report, tokens));
    all.extend(keys(report));
    all
}

/// Spikes per neuron and token.
pub fn rate(layer: &ReportLayer, tokens: usize) -> f64 {
    layer.spikes as f64 / (layer.width * tokens).max(1) as f64
}

fn by_layer(report: &Report, tokens: usize) -> Figure {
    let layers = &report.layers;
    let rates: Vec<f64> = layers.iter().map(|layer| rate(layer, tokens)).collect();
    let axes = [
        PlotAxis::from_zero("spikes per neuron and token", rates.iter().copied()),
        PlotAxis::names("site", layers.iter().map(|layer| layer.site.clone())),
    ];
    let boxes = (0..).zip(&rates).map(|(i, &rate)| [0.0, f64::from(i) + 0.2, rate, f64::from(i) + 0.8]).collect();
    let silent = |(i, layer): (i32, &ReportLayer)| {
        (layer.spikes == 0).then(|| (0.0, f64::from(i) + 0.5, "silent: a defect".to_string()))
    };
    let row = |(layer, rate): (&ReportLayer, &f64)| {
        let density = rate / f64::from(layer.timesteps);
        vec![
            layer.site.as_str().into(),
            i32::from(layer.timesteps).into(),
            layer.width.into(),
            layer.spikes.into(),
            (*rate).into(),
            density.into(),
        ]
    };
    let columns =
        ["site", "timesteps", "neurons", "spikes", "spikes per neuron and token", "share of timesteps with a spike"];
    Figure {
        caption: format!("Spikes per neuron and token of every layer of neurons, on {tokens} tokens."),
        marks: vec![
            Mark::Boxes(Paint::Spiking, boxes),
            Mark::Words(Paint::Bad, (0..).zip(layers).filter_map(silent).collect()),
        ],
        table: Table::with(&columns, layers.iter().zip(&rates).map(row)),
        ..Figure::new("spikes-by-layer", PagePart::Spikes, "Spikes by layer", axes)
    }
}

/// Layers of a kind with as many timesteps, added up.
#[derive(Default)]
struct KindRate {
    spikes: Vec<u64>,
    neurons: usize,
}

fn by_timestep(report: &Report, tokens: usize) -> Figure {
    let mut kinds: BTreeMap<(usize, u16), (String, KindRate)> = BTreeMap::new();
    let mut names: Vec<&str> = Vec::new();
    for layer in &report.layers {
        let kind = kind(layer);
        let place = names.iter().position(|name| *name == kind).unwrap_or(names.len());
        if place == names.len() {
            names.push(kind);
        }
        let (_, sum) = kinds.entry((place, layer.timesteps)).or_insert_with(|| (kind.to_string(), KindRate::default()));
        sum.spikes.resize(layer.by_timestep.len(), 0);
        sum.spikes.iter_mut().zip(&layer.by_timestep).for_each(|(sum, spikes)| *sum += spikes);
        sum.neurons += layer.width;
    }
    let most = kinds.keys().map(|(_, steps)| usize::from(*steps)).max().unwrap_or(1);
    let same = kinds.keys().all(|(_, steps)| usize::from(*steps) == most);
    let rate = |sum: &KindRate, spikes: u64| spikes as f64 / (sum.neurons * tokens).max(1) as f64;
    let highest = kinds.values().flat_map(|(_, sum)| sum.spikes.iter().map(|&spikes| rate(sum, spikes)));
    let axes = [
        PlotAxis::places("timestep", 1, most),
        PlotAxis::from_zero("firing rate, share of neurons with a spike", highest),
    ];
    let mut figure = Figure::new("rate-by-timestep", PagePart::Spikes, "Firing rate by timestep", axes);
    figure.table =
        Table::new(&["layers of the kind", "timesteps", "timestep", "spikes", "share of neurons with a spike"]);
    for (i, ((_, steps), (kind, sum))) in kinds.iter().enumerate() {
        let name = if same { kind.clone() } else { format!("{kind}, T = {steps}") };
        let points: Vec<(f64, f64)> =
            (0..).zip(&sum.spikes).map(|(t, &spikes)| (f64::from(t) + 0.5, rate(sum, spikes))).collect();
        for (t, &spikes) in (1..).zip(&sum.spikes) {
            let cells = vec![
                kind.as_str().into(),
                i32::from(*steps).into(),
                Cell::Count(t),
                spikes.into(),
                rate(sum, spikes).into(),
            ];
            figure.table.rows.push(cells);
        }
        // Lines of more kinds than can be told apart are in the table alone.
        if i < LINES {
            let stroke = if i < super::figure::SERIES { Stroke::Solid } else { Stroke::Dashed };
            figure.marks.push(Mark::Line(Paint::Series(i), stroke, points.clone()));
            figure.marks.push(Mark::Dots(Paint::Series(i), if most <= 32 { points } else { Vec::new() }));
            let dashed = if i < super::figure::SERIES { "" } else { " (dashed)" };
            figure.key.push((Paint::Series(i), format!("{name}{dashed}")));
        }
    }
    let binary = report.layers.iter().any(|layer| layer.code == "binary");
    let order = if binary {
        " In the binary code the first timestep weighs most, and each one half of the one before it."
    } else {
        ""
    };
    let more =
        if kinds.len() > LINES { format!(" The table has {} more.", kinds.len() - LINES) } else { String::new() };
    figure.caption = format!(
        "The share of neurons that fire at each timestep, a line per kind of layer, on {tokens} tokens.{order}{more}"
    );
    figure
}

/// Lines of a plot, at most.
const LINES: usize = 12;

/// What a layer codes: its site without its block.
fn kind(layer: &ReportLayer) -> &str {
    layer.site.strip_prefix(&layer.block).and_then(|rest| rest.strip_prefix('.')).unwrap_or(&layer.site)
}

/// Columns of tokens that are drawn, at most.
const COLUMNS: usize = 128;

fn by_token(report: &Report, tokens: usize) -> Figure {
    let layers = &report.layers;
    let columns = tokens.min(COLUMNS);
    let part =
        |column: usize| column * tokens / columns..((column + 1) * tokens / columns).max(column * tokens / columns + 1);
    let density = |layer: &ReportLayer, column: usize| {
        let spikes: u64 = layer.by_token[part(column)].iter().sum();
        spikes as f64 / (part(column).len() * layer.width * usize::from(layer.timesteps)).max(1) as f64
    };
    let shares: Vec<Vec<f64>> =
        layers.iter().map(|layer| (0..columns).map(|column| density(layer, column)).collect()).collect();
    let (least, most) =
        shares.iter().flatten().fold((f64::INFINITY, 0.0f64), |(low, high), &x| (low.min(x), high.max(x)));
    let range = (most - least).max(f64::MIN_POSITIVE);
    let mut tones: BTreeMap<u8, Vec<[f64; 4]>> = BTreeMap::new();
    for (i, shares) in shares.iter().enumerate() {
        let tone = |share: f64| ((share - least) / range * f64::from(TONES - 1)).round() as u8;
        let mut start = 0;
        for column in 1..=columns {
            if column == columns || tone(shares[column]) != tone(shares[start]) {
                let (left, right) =
                    ((start * tokens) as f64 / columns as f64, (column * tokens) as f64 / columns as f64);
                tones.entry(tone(shares[start])).or_default().push([left, i as f64, right, i as f64 + 1.0]);
                start = column;
            }
        }
    }
    let axes = [
        PlotAxis::places("token that is read, from 0", 0, tokens),
        PlotAxis::names("site", layers.iter().map(|layer| layer.site.clone())),
    ];
    let head: Vec<String> =
        ["site".to_string()].into_iter().chain((0..tokens).map(|token| format!("token {token}, spikes"))).collect();
    let row = |layer: &ReportLayer| {
        [Cell::from(layer.site.as_str())].into_iter().chain(layer.by_token.iter().map(|&n| n.into())).collect()
    };
    let per = if columns < tokens {
        format!(" A column is the mean of some {} tokens.", tokens.div_ceil(columns))
    } else {
        String::new()
    };
    Figure {
        caption: format!("The share of timesteps with a spike, layer by layer and token by token.{per}"),
        key: [0, 4, 8]
            .map(|tone| (Paint::Tone(tone), format!("{:.1} %", 100.0 * (least + range * f64::from(tone) / 8.0))))
            .into(),
        marks: tones.into_iter().map(|(tone, boxes)| Mark::Boxes(Paint::Tone(tone), boxes)).collect(),
        table: Table { columns: head, rows: layers.iter().map(row).collect() },
        ..Figure::new("spikes-by-token", PagePart::Spikes, "Spikes by layer and token", axes)
    }
}

/// Neurons and tokens of a raster, at most; what can be told apart on paper.
const RASTER: [usize; 2] = [64, 16];

/// Single spikes of the layer whose neuron is traced, or of the first.
fn raster(report: &Report, tokens: usize) -> Option<Figure> {
    let traced = report.neuron.as_ref();
    let layer = traced
        .and_then(|trace| report.layers.iter().find(|layer| layer.site == trace.site))
        .or(report.layers.first())?;
    let (numbers, kept) = (numbers(&layer.raster)?, layer.raster.neurons.len());
    let (neurons, tokens) = (kept.min(RASTER[0]), tokens.min(RASTER[1]));
    let (steps, planes) = (layer.timesteps, layer.raster.planes);
    let code = Code::from_name(layer.code)?;
    let spike = |token: usize, neuron: usize, t: u16| match planes {
        1 => code.spike(numbers[token * kept + neuron], t, steps),
        _ => numbers[(token * planes + usize::from(t)) * kept + neuron],
    };
    let (mut up, mut down, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for token in 0..tokens {
        for neuron in 0..neurons {
            for t in 0..steps {
                let spike = spike(token, neuron, t);
                let at = (token * usize::from(steps) + usize::from(t)) as f64;
                let bar = [at + 0.1, neuron as f64 + 0.1, at + 0.9, neuron as f64 + 0.9];
                match spike.signum() {
                    1 => up.push(bar),
                    -1 => down.push(bar),
                    _ => continue,
                }
                let index = layer.raster.neurons[neuron];
                rows.push(vec![
                    u64::from(index).into(),
                    token.into(),
                    (i32::from(t) + 1).into(),
                    spike.signum().into(),
                ]);
            }
        }
    }
    let places = tokens * usize::from(steps);
    let every = usize::max(1, tokens / 8);
    let ticks = (0..tokens).step_by(every).map(|token| ((token * usize::from(steps)) as f64, token.to_string()));
    let labels = (0..neurons).step_by(usize::max(1, neurons / 8));
    let labels = labels.map(|i| (i as f64 + 0.5, layer.raster.neurons[i].to_string())).collect();
    let axes = [
        PlotAxis::new(
            &format!("token that is read, from 0, of {steps} timesteps each"),
            AxisScale::Slots(places, ticks.collect()),
        ),
        PlotAxis::new("neuron", AxisScale::Slots(neurons, labels)),
    ];
    let order = if code == Code::Binary { " The first timestep of a token weighs most." } else { "" };
    Some(Figure {
        of: Some(layer.site.clone()),
        caption: format!(
            "Single spikes of {}: {neurons} of {} neurons and the first {tokens} tokens.{order}",
            layer.site, layer.width
        ),
        key: vec![(Paint::Spiking, "spike +1".into()), (Paint::Negative, "spike −1".into())],
        marks: vec![Mark::Boxes(Paint::Spiking, up), Mark::Boxes(Paint::Negative, down)],
        table: Table::with(&["neuron", "token, from 0", "timestep", "spike"], rows),
        ..Figure::new("raster", PagePart::Spikes, &format!("Spike raster of {}", layer.site), axes)
    })
}

fn keys(report: &Report) -> Option<Figure> {
    let all = &report.attention;
    if all.is_empty() {
        return None;
    }
    let share = |fired: u64, keys: u64| 100.0 * fired as f64 / keys.max(1) as f64;
    let axes = [
        PlotAxis::from_zero("keys that fired, %", all.iter().map(|site| share(site.fired, site.keys))),
        PlotAxis::names("site", all.iter().map(|site| site.site.clone())),
    ];
    let boxes = (0..).map(f64::from).zip(all).map(|(i, site)| [0.0, i + 0.2, share(site.fired, site.keys), i + 0.8]);
    let row = |site: &crate::report::contents::AttentionKeys| {
        vec![site.site.as_str().into(), site.keys.into(), site.fired.into(), share(site.fired, site.keys).into()]
    };
    Some(Figure {
        size: Size::Full,
        caption: "Of the keys that queries met, those that fired within the window of time to first spike, over all heads. Values of \
                  the others are not read."
            .into(),
        marks: vec![Mark::Boxes(Paint::Spiking, boxes.collect())],
        table: Table::with(&["attention", "keys met", "keys that fired", "share, %"], all.iter().map(row)),
        ..Figure::new("attention-keys", PagePart::Spikes, "Keys that fired in attention", axes)
    })
}
