//! A report's essentials as text for a terminal.

use crate::table::{lines, numbers};
use crate::units::{joules, si};
use console::{Style, style};
use indexmap::IndexMap;
use snnc::energy::json::SavingJson;
use snnc::ledger::LedgerSite;
use snnc::report::{Report, ReportBlock, ReportLayer, TokenRanking};
use std::fmt::Write;

/// Colours of the text; plain where standard output is no terminal or NO_COLOR is set.
fn heading(text: &str) -> String {
    format!("\n{}\n", style(text).bold())
}

/// The report as text, aligned, at most 80 columns wide.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    head(report, &mut text);
    warnings(report, &mut text);
    scores(report, &mut text);
    layers(report, &mut text);
    levels(report, &mut text);
    energy(report, &mut text);
    ledger(report, &mut text);
    predictions(report, &mut text);
    membrane(report, &mut text);
    blocks(report, &mut text);
    passes(report, &mut text);
    missing(report, &mut text);
    text
}

/// A line of a name and what it is.
fn row(text: &mut String, name: &str, value: &str) {
    put_wrapped(text, &format!("{name:<22} {value}"), 23);
}

/// Columns of the text.
const WIDTH: usize = 80;

/// A line, broken between words where it is too long; what follows is indented.
fn put_wrapped(text: &mut String, line: &str, indent: usize) {
    let indent = " ".repeat(indent);
    let options = textwrap::Options::new(WIDTH).subsequent_indent(&indent).break_words(false);
    for line in textwrap::wrap(line, options) {
        let _ = writeln!(text, "{line}");
    }
}

fn head(report: &Report, text: &mut String) {
    if let Some(worse) = &report.worse {
        let (what, why) = worse.split_once(": ").unwrap_or(("", worse));
        let _ = writeln!(text, "{} {why}", style(format!("{what}:")).red().bold());
    }
    let _ = writeln!(text, "{}", style(&report.title).bold());
    network(report, text);
    origin(report, text);
    let made = &report.provenance;
    if let Some(calibration) = &made.calibration {
        row(text, "calibrated on", &format!("{}, {} tokens", calibration.source, calibration.tokens));
    }
    if let Some(program) = &made.program {
        row(text, "file", &format!("{}, XXH3 {}", si(program.bytes as f64, "B"), program.xxh3));
    }
    if let (Some(file), Some([run, all])) = (&made.text, made.tokens) {
        row(text, "run on", &format!("the first {run} of {all} tokens of {}", file.name));
    }
    if let Some(dense) = &made.dense {
        let is = match made.dense_is_source {
            Some(true) => ", which it was compiled from",
            Some(false) => ", which it was not compiled from",
            None => "",
        };
        row(text, "beside", &format!("{}{is}", dense.name));
    }
}

fn network(report: &Report, text: &mut String) {
    let Some(facts) = &report.network else { return };
    let millions = facts.parameters as f64 / 1e6;
    row(text, "network", &format!("{} layers of width {}, {millions:.1} M parameters", facts.layers, facts.width));
    row(text, "vocabulary, context", &format!("{}, {} tokens", facts.vocabulary, facts.context));
    facts.architecture.iter().for_each(|part| row(text, part.name, &part.words));
    row(text, "neurons per token", &format!("{}: {}", facts.neurons, facts.kinds.join(", ")));
    let half_life = |&tokens: &i32| if tokens == 0 { "none".into() } else { tokens.to_string() };
    let layer = |heads: &Vec<i32>| heads.iter().map(half_life).collect::<Vec<String>>().join(" ");
    if !facts.half_lives.is_empty() {
        let layers = facts.half_lives.iter().map(layer).collect::<Vec<String>>().join("; ");
        row(text, "half-lives of heads", &format!("{layers} tokens, layer by layer"));
    }
}

/// How the program was compiled and trained.
fn origin(report: &Report, text: &mut String) {
    let Some(record) = &report.provenance.compiled else { return };
    let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
    row(text, "compiled by", &format!("{}, {}", said(&record.compiler), said(&record.options)));
    if let Some(source) = &record.source {
        let size = si(source.bytes as f64, "B");
        let what = source.architecture.as_ref().map(|name| format!("a Hugging Face folder of {name}"));
        let what = what.unwrap_or_else(|| "an ONNX file".into());
        row(text, "from", &format!("{what}, {size}, XXH3 {}", source.xxh3));
    }
    for training in &record.training {
        let run = &training.run;
        let what = format!("{} by {}, {} steps", run.parameters, run.loss, training.steps);
        row(text, "trained", &format!("{what} of {} windows of {} tokens", run.batch, run.window_tokens));
    }
    if let Some(hybrid) = &record.hybrid {
        let layers: Vec<String> = hybrid.ttfs.iter().map(usize::to_string).collect();
        let none = layers.is_empty();
        row(text, "back to ttfs", &if none { "no layer".into() } else { format!("layers {}", layers.join(", ")) });
    }
}

fn warnings(report: &Report, text: &mut String) {
    let Some(all) = report.evaluation.as_ref().map(|found| &found.warnings).filter(|all| !all.is_empty()) else {
        return;
    };
    *text += &heading("Warnings");
    for lint in all {
        let silent = lint.kind == "silent";
        let colour = if silent { Style::new().red() } else { Style::new().yellow() };
        let kind = if silent { "defect: silent" } else { lint.kind };
        put_wrapped(text, &format!("{} {}: {}", colour.apply_to(format!("{kind}:")), lint.place, lint.message), 4);
    }
}

fn scores(report: &Report, text: &mut String) {
    let Some(found) = &report.evaluation else { return };
    *text += &heading("Scores");
    let interval = |ends: Option<[f64; 2]>, decimals: usize| {
        ends.map_or(String::new(), |[low, high]| format!(", 95 % interval {low:.decimals$} to {high:.decimals$}"))
    };
    let over = found.intervals_over.map_or(String::new(), |over| format!(" over {over}"));
    row(text, "perplexity", &format!("{:.3}{}{over}", found.perplexity, interval(found.perplexity_95, 2)));
    if let Some(beside) = &found.beside {
        let dense = interval(beside.perplexity_dense_95, 2);
        row(text, "perplexity, dense", &format!("{:.3}{dense}", beside.perplexity_dense));
        let ends = beside.perplexity_increase_95.map(|ends| ends.map(|share| 100.0 * share));
        row(text, "rise of perplexity", &format!("{:+.3} %{}", 100.0 * beside.perplexity_increase, interval(ends, 2)));
        row(text, "top-1 agreement", &format!("{:.2} %", 100.0 * beside.top1_agreement));
        row(text, "cosine of logits", &format!("{:.6}, centred", beside.cosine_centred));
        row(text, "KL from dense", &format!("{:.6} nats", beside.kl));
    }
    if let (Some(rate), Some(steps)) = (found.spikes_per_neuron, found.timesteps_mean) {
        row(text, "spikes per neuron", &format!("{rate:.3} of {steps:.2} timesteps"));
    }
    if let Some(coverage) = &found.coverage {
        row(text, "driven by spikes", &format!("{:.1} % of the multiplications", 100.0 * coverage.share));
    }
}

/// Tokens that were run.
fn tokens(report: &Report) -> f64 {
    report.predictions.len().max(1) as f64
}

/// Blocks that a row of bars shows.
const BLOCKS: usize = 32;

/// Spikes per neuron and token, a row per site of a block, with a bar for every block.
fn layers(report: &Report, text: &mut String) {
    if report.layers.is_empty() {
        return;
    }
    *text += &heading("Spikes per neuron and token");
    let name = |layer: &ReportLayer| {
        let rest = layer.site.strip_prefix(&layer.block).and_then(|rest| rest.strip_prefix('.'));
        rest.unwrap_or(&layer.site).to_string()
    };
    let mut rows: IndexMap<String, Vec<&ReportLayer>> = IndexMap::new();
    report.layers.iter().for_each(|layer| rows.entry(name(layer)).or_default().push(layer));
    let rate = |layer: &ReportLayer| layer.spikes as f64 / (layer.width as f64 * tokens(report));
    let _ = writeln!(text, "{:<18} {:>3} {:>6} {:>6} {:>6}  by block, of T", "site", "T", "mean", "least", "most");
    for (name, layers) in &rows {
        let rates: Vec<f64> = layers.iter().map(|layer| rate(layer)).collect();
        let [least, most] = [rates.iter().copied().fold(f64::MAX, f64::min), rates.iter().copied().fold(0.0, f64::max)];
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let steps = layers.iter().map(|layer| layer.timesteps).max().unwrap_or(1);
        let bars: String =
            layers.iter().take(BLOCKS).map(|layer| bar(rate(layer) / f64::from(layer.timesteps))).collect();
        let more = if layers.len() > BLOCKS { "…" } else { "" };
        let _ = writeln!(text, "{name:<18} {steps:>3} {mean:>6.2} {least:>6.2} {most:>6.2}  {bars}{more}");
        for layer in layers.iter().filter(|layer| layer.spikes == 0) {
            let _ = writeln!(text, "{}", style(format!("  {} is silent: no neuron ever fires", layer.site)).red());
        }
    }
}

/// A share as a bar.
fn bar(share: f64) -> char {
    let height = (share * (BARS.len() - 1) as f64).ceil() as usize;
    BARS[height.min(BARS.len() - 1)]
}

/// Bars of eight heights.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Every layer's levels as a small histogram, logarithmic, from the smallest to the largest level.
fn levels(report: &Report, text: &mut String) {
    if report.layers.is_empty() {
        return;
    }
    *text += &heading("Levels");
    let _ = writeln!(
        text,
        "{:<18} {:>4} {:>8} {:>8} {:>8} {:>6} -most {:^7} +most",
        "layer, in %", "T", "density", "largest", "usually", "silent", "0"
    );
    for layer in &report.layers {
        let slots = layer.width as f64 * tokens(report);
        let density = layer.spikes as f64 / slots / f64::from(layer.timesteps);
        let clipped = layer.saturated as f64 / slots;
        let line = format!(
            "{:<18} {:>4} {:>8.1} {:>8.3} {:>8.3} {:>6} {}",
            layer.site,
            layer.timesteps,
            100.0 * density,
            100.0 * clipped,
            100.0 * layer.usually_saturated,
            layer.silent,
            bars(&layer.histogram.counts)
        );
        let _ = match layer.spikes {
            0 => writeln!(text, "{}", style(line).red()),
            _ => writeln!(text, "{line}"),
        };
    }
}

/// Columns of a small histogram; an odd number, so that 0 has one of its own.
const COLUMNS: usize = 21;

fn bars(counts: &[u64]) -> String {
    let half = counts.len() / 2;
    let sum = |column: usize| -> u64 {
        let half_columns = COLUMNS / 2;
        let part = |k: usize, n: usize| k * half / n..(k + 1) * half / n;
        match column {
            c if c < half_columns => counts[part(c, half_columns)].iter().sum(),
            c if c == half_columns => counts[half],
            c => {
                // Mirrored: both sides count from their ends.
                let far = part(COLUMNS - 1 - c, half_columns);
                counts[counts.len() - far.end..counts.len() - far.start].iter().sum()
            }
        }
    };
    let sums: Vec<u64> = (0..COLUMNS).map(sum).collect();
    let most = sums.iter().copied().max().unwrap_or(0).max(1);
    let height = |count: u64| match count {
        0 => 0,
        _ => 1 + (libm::log(count as f64) / libm::log(most as f64 + 1.0) * 7.0).round().clamp(0.0, 7.0) as usize,
    };
    sums.into_iter().map(|count| BARS[height(count)]).collect()
}

fn energy(report: &Report, text: &mut String) {
    let Some(energy) = &report.energy else { return };
    *text += &heading("Energy per token");
    let mut table = numbers(&["prices", "dense f32", "spiking", "saved", "attention", "its core"]);
    let joules_of = |total: Option<f64>, least: Option<f64>| match (total, least) {
        (Some(pj), _) => joules(pj),
        // What has a price is the least that it can be.
        (None, Some(pj)) if pj > 0.0 => format!("> {}", joules(pj)),
        (None, Some(_) | None) => "no price".into(),
    };
    let saved = |cost: &SavingJson| match cost.saving {
        _ if cost.silent => "a defect".into(),
        Some(share) => format!("{:.1} %", 100.0 * share),
        None => "not priced".into(),
    };
    for (list, total) in &energy.total {
        table.add_row([
            list.clone(),
            joules_of(total.dense_pj, total.dense_partial_pj),
            joules_of(total.spiking_pj, total.spiking_partial_pj),
            saved(total),
            saved(&energy.attention_block[list]),
            saved(&energy.attention_core[list]),
        ]);
    }
    *text += &lines(&table);
    let _ = writeln!(text, "`snnc energy` has the rest: other dense forms, break-even, what is counted.");
}

/// Sites of the ledger that are named.
const RANKED: usize = 5;

fn ledger(report: &Report, text: &mut String) {
    let Some(ledger) = report.evaluation.as_ref().and_then(|found| found.ledger.as_ref()) else { return };
    *text += &heading("Where the error comes from");
    let sum: f64 = ledger.sites.iter().map(|site| site.kl_isolated).sum();
    for name in ledger.ranking.iter().take(RANKED) {
        let Some(site) = ledger.sites.iter().find(|site| site.site == *name) else { continue };
        let LedgerSite { site, worst, remedy, kl_isolated, .. } = site;
        let share = if sum > 0.0 { 100.0 * kl_isolated / sum } else { 0.0 };
        put_wrapped(text, &format!("{site:<22} {share:>5.1} %  {worst:<10} {remedy}"), 43);
    }
}

/// Tokens that are listed.
const LISTED: usize = 12;

/// The tokens that the spiking network changes most; without a dense network, the first ones.
fn predictions(report: &Report, text: &mut String) {
    if report.predictions.is_empty() {
        return;
    }
    let beside = report.predictions[0].dense.is_some();
    *text += &heading(if beside { "Predictions that differ most from the dense network's" } else { "Predictions" });
    let mut order: Vec<usize> = (0..report.predictions.len()).collect();
    let kl = |i: &usize| report.predictions[*i].kl.unwrap_or(0.0);
    if beside {
        order.sort_by(|a, b| kl(b).total_cmp(&kl(a)).then(a.cmp(b)));
    }
    let bits = |nll: f64| format!("{:.2} bits", nll / std::f64::consts::LN_2);
    let _ = write!(text, "{:>5}  {:<11} {:>11} {:<11}", "token", "text", "surprisal", "top-1");
    *text += if beside { "  dense: bits top-1        KL, nats\n" } else { "\n" };
    for i in order.into_iter().take(LISTED) {
        let token = &report.predictions[i];
        let best = |guesses: &TokenRanking| guesses.best.first().map_or(String::new(), |guess| shown(&guess.text));
        let _ = write!(
            text,
            "{:>5}  {} {:>11} {}",
            i + 1,
            padded(&shown(&token.text)),
            bits(token.spiking.nll),
            padded(&best(&token.spiking))
        );
        if let (Some(dense), Some(kl)) = (&token.dense, token.kl) {
            let differs = best(dense) != best(&token.spiking);
            let guess = padded(&best(dense));
            let guess = if differs { style(guess).yellow().to_string() } else { guess };
            let _ = write!(text, "  {:>11} {guess} {kl:>8.4}", bits(dense.nll));
        }
        text.push('\n');
    }
}

/// Timesteps of a membrane that are listed.
const TIMESTEPS: usize = 24;

/// One neuron's membrane by timestep.
fn membrane(report: &Report, text: &mut String) {
    let Some(trace) = &report.neuron else { return };
    *text += &heading("Membrane of one neuron");
    let (neuron, site, token) = (trace.neuron, &trace.site, trace.token);
    let _ = writeln!(text, "neuron {neuron} of {site}, token {token}, {}: level {}", shown(&trace.text), trace.level);
    let _ = writeln!(text, "{:<10} {:>8} {:>12} {:>10} {:>6}", "phase", "timestep", "potential", "threshold", "spike");
    for step in trace.steps.iter().take(TIMESTEPS) {
        let threshold = step.threshold.map_or(String::new(), |threshold| format!("{threshold:.2}"));
        let spike = if step.spike == 0 { String::new() } else { format!("{:+}", step.spike) };
        let (phase, timestep) = (step.phase, step.timestep);
        let _ = writeln!(text, "{phase:<10} {timestep:>8} {:>12.3} {threshold:>10} {spike:>6}", step.potential);
    }
    if trace.steps.len() > TIMESTEPS {
        let _ = writeln!(text, "... {} more; --json has all", trace.steps.len() - TIMESTEPS);
    }
}

/// A token's text such that all of it shows, and nothing in it moves the cursor.
fn shown(text: &str) -> String {
    let one = |c: char| match c {
        ' ' => '·',
        '\n' => '↵',
        '\t' => '⇥',
        c if c.is_control() => '�',
        c => c,
    };
    text.chars().map(one).collect()
}

/// Cut or filled up to 16 columns, as wide characters are counted.
fn padded(text: &str) -> String {
    console::pad_str(&console::truncate_str(text, 11, "…"), 11, console::Alignment::Left, None).into_owned()
}

/// The first block as the model of all, and those that are unlike it.
fn blocks(report: &Report, text: &mut String) {
    let ops = |block: &ReportBlock| block.conversions.iter().map(|c| c.spiking.join(" ")).collect::<Vec<_>>();
    let Some(first) = report.blocks.iter().find(|block| block.name == "h.0") else { return };
    *text += &heading("Conversion");
    let like: Vec<&str> =
        report.blocks.iter().filter(|block| ops(block) == ops(first)).map(|block| block.name.as_str()).collect();
    for block in report.blocks.iter().filter(|block| block.name == first.name || ops(block) != ops(first)) {
        let name = if block.name == first.name { like.join(", ") } else { block.name.clone() };
        put_wrapped(text, &style(name).underlined().to_string(), 0);
        for conversion in &block.conversions {
            let dense = conversion.dense.join(", ");
            let from = if dense.is_empty() { &conversion.origin } else { &dense };
            for (i, line) in wrapped(&conversion.spiking).iter().enumerate() {
                let _ = writeln!(text, "  {:<29} {line}", if i == 0 { from } else { "" });
            }
        }
    }
}

/// Columns of a line of operations.
const OPERATIONS: usize = 48;

/// Operations one after the other, in lines.
fn wrapped(operations: &[String]) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (i, operation) in operations.iter().enumerate() {
        let word = if i == 0 { operation.clone() } else { format!("→ {operation}") };
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = word,
            Some(line) if line.chars().count() + word.chars().count() < OPERATIONS => *line += &format!(" {word}"),
            _ => lines.push(word),
        }
    }
    lines
}

fn passes(report: &Report, text: &mut String) {
    let Some(passes) = &report.passes else { return };
    *text += &heading("IR by pass");
    let _ = writeln!(
        text,
        "{:<10} {:<10} {:>10} {:>10} {:>10} {:>10}",
        "pass", "stage", "operations", "constants", "new lines", "gone"
    );
    for (i, stage) in passes.stages.iter().enumerate() {
        let count = |sign: i8| stage.changes.iter().filter(|(s, _)| *s == sign).count();
        let [new, gone] = [1, -1].map(|sign| if i == 0 { String::new() } else { count(sign).to_string() });
        let (nodes, weights) = (stage.nodes, stage.weights);
        let _ = writeln!(text, "{:<10} {:<10} {nodes:>10} {weights:>10} {new:>10} {gone:>10}", stage.pass, stage.stage);
    }
    if passes.gives_program == Some(false) {
        let note = "these passes do not give the very program of the file";
        let _ = writeln!(text, "{}", style(note).yellow());
    }
}

fn missing(report: &Report, text: &mut String) {
    if report.missing.is_empty() {
        return;
    }
    *text += &heading("Not shown");
    for missing in &report.missing {
        put_wrapped(text, &format!("{}: {}", missing.part, missing.how), 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_histogram_keeps_zero_apart() {
        let mut counts = vec![0; 67];
        counts[33] = 1000;
        counts[66] = 1;
        let bars: Vec<char> = bars(&counts).chars().collect();
        assert_eq!((bars.len(), bars[10], bars[20]), (COLUMNS, '█', '▁'));
        assert_eq!(bars.iter().filter(|&&c| c == ' ').count(), COLUMNS - 2);
        for few in [1, 3, 5] {
            assert_eq!(super::bars(&vec![1; few]).chars().count(), COLUMNS);
        }
    }

    #[test]
    fn no_token_moves_the_cursor() {
        assert_eq!(shown(" a\n\t\u{1b}[2J"), "·a↵⇥�[2J");
    }
}
