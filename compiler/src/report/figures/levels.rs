//! How the levels of each layer are spread, and how much its neurons fire.

use super::figure::{AxisScale, Figure, Mark, Paint, PlotAxis, Size, Table};
use super::part::PagePart;
use crate::report::contents::Report;
use crate::report::raster::{ReportLayer, rates};

/// Two figures per layer.
pub fn figures(report: &Report) -> Vec<Figure> {
    report.layers.iter().flat_map(|layer| [histogram(layer), by_neuron(layer)]).collect()
}

fn histogram(layer: &ReportLayer) -> Figure {
    let (ranges, counts) = (&layer.histogram.ranges, &layer.histogram.counts);
    let (last, all) = (counts.len() - 1, counts.iter().sum::<u64>().max(1));
    let most = counts.iter().copied().max().unwrap_or(0).max(2) as f64;
    let bar = |(i, &count): (usize, &u64)| [i as f64 + 0.06, 0.5, i as f64 + 0.94, (count as f64).max(0.5)];
    let bars = |wanted: &dyn Fn(usize) -> bool| -> Vec<[f64; 4]> {
        counts.iter().enumerate().filter(|(i, count)| **count > 0 && wanted(*i)).map(bar).collect()
    };
    let ends = |i: usize| i == 0 || i == last;
    let zero = |i: usize| ranges[i] == [0, 0];
    let tick = |i: usize, text: String| (i as f64 + 0.5, text);
    let quarter = |i: usize| tick(i, super::scale::fixed(f64::from((ranges[i][0] + ranges[i][1]) / 2), 0));
    let ticks = vec![
        tick(0, format!("−{}", layer.most)),
        quarter(last / 4),
        tick(last / 2, "0".into()),
        quarter(last - last / 4),
        tick(last, format!("+{}", layer.most)),
    ];
    let axes = [
        PlotAxis::new(
            "level",
            AxisScale::Slots(
                counts.len(),
                if last < 8 {
                    ranges.iter().enumerate().map(|(i, r)| tick(i, r[0].to_string().replace('-', "−"))).collect()
                } else {
                    ticks
                },
            ),
        ),
        PlotAxis::new("levels counted, logarithmic", AxisScale::Log(0.5, most * 1.3)),
    ];
    let row = |([low, high], count): (&[i32; 2], &u64)| {
        vec![(*low).into(), (*high).into(), (*count).into(), (*count as f64 / all as f64).into()]
    };
    Figure {
        of: Some(layer.site.clone()),
        size: Size::Half,
        caption: format!(
            "Levels of {} over the run: {:.1} % are zero, {:.2} % are the largest, ±{}.",
            layer.site,
            100.0 * counts[last / 2] as f64 / all as f64,
            100.0 * (counts[0] + counts[last]) as f64 / all as f64,
            layer.most
        ),
        key: vec![
            (Paint::Spiking, "levels".into()),
            (Paint::Muted, "zero: no spike".into()),
            (Paint::Negative, "the largest: clipped, or just there".into()),
        ],
        marks: vec![
            Mark::Boxes(Paint::Spiking, bars(&|i| !ends(i) && !zero(i))),
            Mark::Boxes(Paint::Muted, bars(&|i| zero(i))),
            Mark::Boxes(Paint::Negative, bars(&|i| ends(i) && !zero(i))),
        ],
        table: Table::with(&["lowest level", "highest level", "count", "share"], ranges.iter().zip(counts).map(row)),
        ..Figure::new(&format!("levels-{}", layer.site), PagePart::Levels, &format!("Levels of {}", layer.site), axes)
    }
}

/// Points of a curve over neurons, at most.
const POINTS: usize = 64;

fn by_neuron(layer: &ReportLayer) -> Figure {
    let mut rates = rates(layer);
    rates.sort_by(|a, b| b.total_cmp(a));
    let count = rates.len();
    let points = count.min(POINTS);
    let place = |i: usize| if points > 1 { i * (count - 1) / (points - 1) } else { 0 };
    let curve: Vec<(f64, f64)> = (0..points).map(|i| ((place(i) + 1) as f64, 100.0 * rates[place(i)])).collect();
    let axes = [
        PlotAxis::new("neurons, the busiest first", AxisScale::Linear(1.0, count.max(2) as f64)),
        PlotAxis::new("timesteps with a spike, %", AxisScale::Linear(0.0, 100.0)),
    ];
    let some = if points < count { format!(" {points} of {count} neurons, evenly by rank.") } else { String::new() };
    Figure {
        of: Some(layer.site.clone()),
        size: Size::Half,
        caption: format!(
            "How much the neurons of {} fire: the busiest at {:.0} % of the timesteps, {} never.{some}",
            layer.site,
            100.0 * rates.first().copied().unwrap_or(0.0),
            layer.silent
        ),
        table: Table::with(
            &["rank of the neuron", "timesteps with a spike, %"],
            curve.iter().map(|&(x, y)| vec![(x as u64).into(), y.into()]),
        ),
        marks: vec![
            Mark::Ground(Paint::Spiking, curve.clone()),
            Mark::Line(Paint::Spiking, super::figure::Stroke::Solid, curve),
        ],
        ..Figure::new(
            &format!("firing-{}", layer.site),
            PagePart::Levels,
            &format!("Firing of neurons of {}", layer.site),
            axes,
        )
    }
}
