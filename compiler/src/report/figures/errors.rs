//! The ledger: what every site loses, by cause, and what has been lost up to it.

use super::figure::{Figure, Mark, Paint, PlotAxis, Size, Table};
use super::part::PagePart;
use crate::ledger::{Cause, LedgerJson, LedgerSite};
use crate::report::contents::Report;

/// Nats to millionths.
const MICRO: f64 = 1e6;

/// All of them.
pub fn figures(report: &Report) -> Vec<Figure> {
    let ledger = report.evaluation.as_ref().and_then(|found| found.ledger.as_ref());
    ledger
        .filter(|ledger| !ledger.sites.is_empty())
        .map_or_else(Vec::new, |ledger| vec![by_cause(ledger), cumulative(ledger)])
}

/// The loss of a site by a cause, in nats.
fn lost(site: &LedgerSite, cause: Cause) -> Option<f64> {
    match cause {
        Cause::Clipping => site.clipping,
        Cause::Rounding => site.rounding,
        Cause::Time => site.time,
        Cause::Softmax => site.softmax,
        Cause::Weights => site.weights,
    }
}

/// The colour of a cause.
fn paint(cause: Cause) -> Paint {
    Paint::Series(match cause {
        Cause::Rounding => 0,
        Cause::Clipping => 1,
        Cause::Weights => 2,
        Cause::Softmax => 3,
        Cause::Time => 4,
    })
}

fn by_cause(ledger: &LedgerJson) -> Figure {
    // A cause that mends something is no bar.
    let bars: Vec<Vec<f64>> = ledger
        .sites
        .iter()
        .map(|site| Cause::ALL.map(|cause| MICRO * lost(site, cause).unwrap_or(0.0).max(0.0)).to_vec())
        .collect();
    let axes = [
        PlotAxis::from_zero(
            "isolated loss, KL divergence in millionths of a nat per token",
            bars.iter().map(|bars| bars.iter().sum()),
        ),
        PlotAxis::names("site", ledger.sites.iter().map(|site| site.site.clone())),
    ];
    let series = |(k, cause): (usize, Cause)| {
        let one = |(i, bars): (usize, &Vec<f64>)| {
            let start: f64 = bars[..k].iter().sum();
            (bars[k] > 0.0).then(|| [start, i as f64 + 0.2, start + bars[k], i as f64 + 0.8])
        };
        Mark::Boxes(paint(cause), bars.iter().enumerate().filter_map(one).collect())
    };
    // A cause that has no place in this network needs no colour.
    let found = |cause: &Cause| ledger.sites.iter().any(|site| lost(site, *cause).is_some_and(|nats| nats > 0.0));
    let row = |site: &LedgerSite| {
        let start = vec![site.site.as_str().into(), site.kl_isolated.into(), site.kl_cumulative.into()];
        start.into_iter().chain(Cause::ALL.map(|cause| lost(site, cause).into())).collect()
    };
    let causes = Cause::ALL.map(|cause| format!("{}, nats", cause.name()));
    let columns: Vec<&str> =
        ["site", "isolated, nats", "cumulative, nats"].into_iter().chain(causes.iter().map(String::as_str)).collect();
    Figure {
        caption: "What each site loses when all else is dense, by cause: Kullback-Leibler divergence of the logits from the dense \
                  network's."
            .into(),
        key: Cause::ALL.into_iter().filter(found).map(|cause| (paint(cause), cause.name().to_string())).collect(),
        marks: Cause::ALL.into_iter().enumerate().map(series).collect(),
        table: Table::with(&columns, ledger.sites.iter().map(row)),
        ..Figure::new("errors-by-site", PagePart::Errors, "Loss by site and cause", axes)
    }
}

fn cumulative(ledger: &LedgerJson) -> Figure {
    let so_far: Vec<f64> = ledger.sites.iter().map(|site| MICRO * site.kl_cumulative).collect();
    let axes = [
        PlotAxis::from_zero("cumulative loss, KL divergence in millionths of a nat per token", so_far.iter().copied()),
        PlotAxis::names("site", ledger.sites.iter().map(|site| site.site.clone())),
    ];
    let (mut more, mut less, mut last) = (Vec::new(), Vec::new(), 0.0);
    for (i, &now) in so_far.iter().enumerate() {
        let bar = [last, i as f64 + 0.2, now, i as f64 + 0.8];
        if now >= last {
            more.push(bar)
        } else {
            less.push(bar)
        }
        last = now;
    }
    let between = so_far.iter().enumerate().take(so_far.len().saturating_sub(1));
    let between = between.map(|(i, &x)| [x, i as f64 + 0.8, x, i as f64 + 1.2]).collect();
    let row = |site: &LedgerSite| vec![site.site.as_str().into(), site.kl_cumulative.into()];
    Figure {
        size: Size::Full,
        caption: "The network's divergence from the dense one when a site and all sites before it have their levels. A site can mend \
                  what earlier ones lost."
            .into(),
        key: vec![(Paint::Negative, "lost".into()), (Paint::Series(2), "mended".into())],
        marks: vec![
            Mark::Boxes(Paint::Muted, between),
            Mark::Boxes(Paint::Negative, more),
            Mark::Boxes(Paint::Series(2), less),
        ],
        table: Table::with(&["site", "cumulative, nats"], ledger.sites.iter().map(row)),
        ..Figure::new("errors-cumulative", PagePart::Errors, "Loss up to each site", axes)
    }
}
