//! Energy: from the dense network to the spiking one part by part, and by every price list.

use super::figure::{Cell, Figure, Mark, Paint, PlotAxis, Table};
use super::part::PagePart;
use super::scale::number;
use crate::energy::json::EnergyJson;
use crate::report::contents::Report;

/// All of them.
pub fn figures(report: &Report) -> Vec<Figure> {
    let Some(energy) = &report.energy else { return Vec::new() };
    let waterfalls = energy.total.keys().filter_map(|list| waterfall(energy, list));
    waterfalls.chain([lists(energy)]).collect()
}

/// A metric prefix for picojoules, and how many picojoules it stands for.
pub fn unit(most_pj: f64) -> (&'static str, f64) {
    let units = [("J", 1e12), ("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3)];
    units.into_iter().find(|(_, pj)| most_pj >= *pj).unwrap_or(("pJ", 1.0))
}

/// What each part adds to the energy of the dense network or takes from it.
fn waterfall(energy: &EnergyJson, list: &str) -> Option<Figure> {
    let total = &energy.total[list];
    let (dense, spiking) = (total.dense_pj?, total.spiking_pj?);
    let mut parts: Vec<(&str, f64, f64)> = Vec::new();
    for row in &energy.rows {
        let cost = row.prices.get(list)?;
        let (dense, spiking) = (cost.dense_pj?, cost.spiking_pj?);
        match parts.iter_mut().find(|(part, ..)| *part == row.part) {
            Some(sums) => (sums.1, sums.2) = (sums.1 + dense, sums.2 + spiking),
            None => parts.push((row.part, dense, spiking)),
        }
    }
    parts.retain(|(_, dense, spiking)| *dense != 0.0 || *spiking != 0.0);
    let (name, scale) = unit(dense.max(spiking));
    let bar = |i: usize, from: f64, to: f64| [from / scale, i as f64 + 0.2, to / scale, i as f64 + 0.8];
    let said = |i: usize, at: f64, words: String| (at / scale, i as f64 + 0.5, words);
    let (mut less, mut more, mut words) = (Vec::new(), Vec::new(), vec![said(0, dense, number(dense / scale))]);
    let (mut level, mut most) = (dense, dense.max(spiking));
    for (i, (_, dense, spiking)) in (1..).zip(&parts) {
        let next = level + spiking - dense;
        if next <= level {
            less.push(bar(i, next, level))
        } else {
            more.push(bar(i, level, next))
        }
        let change = (spiking - dense) / scale;
        words.push(said(i, next.max(level), format!("{}{}", if change > 0.0 { "+" } else { "" }, number(change))));
        most = most.max(next);
        level = next;
    }
    let last = parts.len() + 1;
    words.push(said(last, spiking, number(spiking / scale)));
    let names = ["dense, f32"].into_iter().chain(parts.iter().map(|(part, ..)| *part)).chain(["spiking, collapsed"]);
    let axes = [
        PlotAxis::from_zero(&format!("energy, {name} per token"), [most / scale]),
        PlotAxis::names("part", names.map(String::from)),
    ];
    let row = |(part, dense, spiking): &(&str, f64, f64)| {
        vec![(*part).into(), (*dense).into(), (*spiking).into(), (spiking - dense).into()]
    };
    let all: Vec<Vec<Cell>> = parts
        .iter()
        .map(row)
        .chain([vec!["all".into(), dense.into(), spiking.into(), (spiking - dense).into()]])
        .collect();
    let silent = if total.silent { " A layer is silent, which is a defect and no saving." } else { "" };
    Some(Figure {
        of: Some(list.into()),
        caption: format!(
            "Energy per token in prefill by the price list {list}: what each part, summed over layers, takes from the dense network \
             or adds to it.{silent}"
        ),
        key: vec![
            (Paint::Dense, "dense".into()),
            (Paint::Series(2), "saved".into()),
            (Paint::Negative, "added".into()),
            (Paint::Spiking, "spiking".into()),
        ],
        marks: vec![
            Mark::Boxes(Paint::Dense, vec![bar(0, 0.0, dense)]),
            Mark::Boxes(Paint::Series(2), less),
            Mark::Boxes(Paint::Negative, more),
            Mark::Boxes(Paint::Spiking, vec![bar(last, 0.0, spiking)]),
            Mark::Words(Paint::Ink, words),
        ],
        table: Table::with(&["part", "dense, pJ per token", "spiking, pJ per token", "change, pJ per token"], all),
        ..Figure::new(&format!("energy-by-part-{list}"), PagePart::Energy, &format!("Energy by part, {list}"), axes)
    })
}

/// Both networks by every list, on one axis.
fn lists(energy: &EnergyJson) -> Figure {
    let totals = || energy.total.values();
    let all = || totals().flat_map(|total| [total.dense_pj, total.spiking_pj]).flatten();
    let (name, scale) = unit(all().fold(0.0, f64::max));
    let priced = |total: Option<f64>| total.filter(|pj| *pj > 0.0).map(|pj| pj / scale);
    let both = totals().flat_map(|total| [total.dense_pj, total.spiking_pj]).filter_map(priced);
    let axes = [
        PlotAxis::log_around(&format!("energy, {name} per token, logarithmic"), both),
        PlotAxis::names("price list", energy.total.keys().cloned()),
    ];
    let (mut dense, mut spiking, mut between, mut words) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, total) in (0..).map(|i| f64::from(i) + 0.5).zip(totals()) {
        let ends = [priced(total.dense_pj), priced(total.spiking_pj)];
        dense.extend(ends[0].map(|energy| (energy, i)));
        spiking.extend(ends[1].map(|energy| (energy, i)));
        if let [Some(from), Some(to)] = ends {
            between.push([from.min(to), i - 0.04, from.max(to), i + 0.04]);
            let saved = if total.silent {
                "a defect".into()
            } else {
                total.saving.map_or(String::new(), |share| match share < 0.0 {
                    true => format!("costs {:.1} % more", -100.0 * share),
                    false => format!("saves {:.1} %", 100.0 * share),
                })
            };
            words.push((from.max(to), i, saved));
        } else {
            let none = match ends {
                [None, None] => "not all has a price",
                [None, Some(_)] => "dense: not all has a price",
                _ => "spiking: not all has a price",
            };
            let low = ends.into_iter().flatten().next().unwrap_or(f64::MIN_POSITIVE);
            words.push((low, i, none.into()));
        }
    }
    let row = |(list, total): (&String, &crate::energy::json::SavingJson)| {
        vec![list.as_str().into(), total.dense_pj.into(), total.spiking_pj.into(), total.saving.into()]
    };
    Figure {
        caption: "The whole network in prefill by every price list: dense in f32, and spiking with time collapsed. Lists differ by \
                  what they price."
            .into(),
        key: vec![(Paint::Dense, "dense, f32".into()), (Paint::Spiking, "spiking, collapsed".into())],
        marks: vec![
            Mark::Boxes(Paint::Muted, between),
            Mark::Dots(Paint::Dense, dense),
            Mark::Dots(Paint::Spiking, spiking),
            Mark::Words(Paint::Ink, words),
        ],
        table: Table::with(
            &["price list", "dense, pJ per token", "spiking, pJ per token", "saved, share"],
            energy.total.iter().map(row),
        ),
        ..Figure::new("energy-by-list", PagePart::Energy, "Energy by price list", axes)
    }
}
