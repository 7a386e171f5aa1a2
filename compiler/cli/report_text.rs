//! A report's essentials as text for a terminal.

use console::{Style, style};
use serde_json::Value as Json;
use snnc::report::{Block, Guesses, NeuronLayer, Report};
use std::fmt::Write;

/// Colours of the text; plain where standard output is no terminal or NO_COLOR is set.
fn heading(text: &str) -> String {
    format!("\n{}\n", style(text).bold())
}

/// The report as text, aligned, at most about a hundred columns wide.
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
    blocks(report, &mut text);
    passes(report, &mut text);
    missing(report, &mut text);
    text
}

/// A line of a name and what it is.
fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<22} {value}");
}

fn head(report: &Report, text: &mut String) {
    let _ = writeln!(text, "{}", style(&report.title).bold());
    if let Some(facts) = &report.network {
        let millions = facts.parameters as f64 / 1e6;
        row(text, "network", &format!("{} layers of width {}, {millions:.1} M parameters", facts.layers, facts.width));
        row(text, "vocabulary, context", &format!("{}, {} tokens", facts.vocabulary, facts.context));
        row(text, "neurons a token", &format!("{}: {}", facts.neurons, facts.kinds.join(", ")));
        let period = |&tokens: &i32| if tokens == 0 { "never".into() } else { tokens.to_string() };
        let layer = |heads: &Vec<i32>| heads.iter().map(period).collect::<Vec<String>>().join(" ");
        if !facts.halvings.is_empty() {
            let layers = facts.halvings.iter().map(layer).collect::<Vec<String>>().join("; ");
            row(text, "memory halves after", &format!("{layers} tokens, head by head; layer by layer"));
        }
    }
    let made = &report.provenance;
    if let Some(compiled) = &made.compiled {
        let said = |key: &str| compiled[key].as_str().unwrap_or("?").to_string();
        row(text, "compiled by", &format!("{}, {}", said("compiler"), said("options")));
        let from = &compiled["source"];
        if let (Some(bytes), Some(hash)) = (from["bytes"].as_u64(), from["xxh3"].as_str()) {
            row(text, "from", &format!("an ONNX file of {:.1} MB, XXH3 {hash}", bytes as f64 / 1e6));
        }
        // One run, or several one after the other.
        let trainings = &compiled["training"];
        let one = if trainings.is_object() { std::slice::from_ref(trainings) } else { &[] };
        for training in trainings.as_array().map_or(one, Vec::as_slice) {
            let run = &training["run"];
            let word = |key: &str| run[key].as_str().unwrap_or("?");
            let what = format!("{} by {}, {} steps", word("train"), word("loss"), training["steps"]);
            row(text, "trained", &format!("{what} of {} windows of {} tokens", run["batch"], run["window"]));
        }
        if let Some(layers) = compiled["hybrid"]["ttfs"].as_array() {
            let layers: Vec<String> = layers.iter().map(Json::to_string).collect();
            let none = layers.is_empty();
            row(text, "back to ttfs", &if none { "no layer".into() } else { format!("layers {}", layers.join(", ")) });
        }
    }
    if let Some(calibration) = &made.calibration {
        let source = calibration["source"].as_str().unwrap_or("?");
        row(text, "calibrated on", &format!("{source}, {} tokens", calibration["tokens"]));
    }
    if let Some(program) = &made.program {
        row(text, "file", &format!("{:.1} MB, XXH3 {}", program.bytes as f64 / 1e6, program.xxh3));
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

fn warnings(report: &Report, text: &mut String) {
    let all = report.findings.as_ref().and_then(|json| json["warnings"].as_array());
    let Some(all) = all.filter(|all| !all.is_empty()) else { return };
    *text += &heading("Warnings");
    for lint in all {
        let [kind, place, message] = ["kind", "place", "message"].map(|key| lint[key].as_str().unwrap_or(""));
        let silent = kind == "silent";
        let colour = if silent { Style::new().red() } else { Style::new().yellow() };
        let kind = if silent { "defect: silent" } else { kind };
        let _ = writeln!(text, "{} {place}: {message}", colour.apply_to(format!("{kind}:")));
    }
}

fn scores(report: &Report, text: &mut String) {
    let Some(found) = &report.findings else { return };
    let number = |key: &str| found[key].as_f64();
    *text += &heading("Scores");
    if let Some(own) = number("perplexity") {
        let beside = match (number("perplexity_dense"), number("perplexity_increase")) {
            (Some(dense), Some(more)) => format!("  (dense {dense:.3}, {:+.3} %)", 100.0 * more),
            _ => String::new(),
        };
        row(text, "perplexity", &format!("{own:.3}{beside}"));
    }
    if let Some(share) = number("top1_agreement") {
        row(text, "same best guess", &format!("{:.2} %", 100.0 * share));
    }
    if let Some(cosine) = number("cosine_centred") {
        row(text, "cosine of logits", &format!("{cosine:.6}, centred"));
    }
    if let Some(kl) = number("kl") {
        row(text, "KL from dense", &format!("{kl:.6} nats"));
    }
    if let (Some(rate), Some(steps)) = (number("spikes_per_neuron"), number("timesteps_mean")) {
        row(text, "spikes a neuron", &format!("{rate:.3} of {steps:.2} timesteps"));
    }
    if let Some(share) = found["coverage"]["share"].as_f64() {
        row(text, "driven by spikes", &format!("{:.1} % of the multiplications", 100.0 * share));
    }
}

/// Tokens that were run.
fn tokens(report: &Report) -> f64 {
    report.predictions.len().max(1) as f64
}

/// Spikes a neuron and token by block and by what the layer codes.
fn layers(report: &Report, text: &mut String) {
    if report.layers.is_empty() {
        return;
    }
    *text += &heading("Spikes a neuron and token");
    let column = |layer: &NeuronLayer| {
        let rest = layer.site.strip_prefix(&layer.block).and_then(|rest| rest.strip_prefix('.'));
        rest.unwrap_or(&layer.site).to_string()
    };
    let (mut columns, mut blocks): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for layer in &report.layers {
        if layer.site != layer.block && !columns.contains(&column(layer)) {
            columns.push(column(layer));
        }
        if !blocks.contains(&layer.block.as_str()) {
            blocks.push(&layer.block);
        }
    }
    let width = |name: &str| name.len().max(7);
    let _ = write!(text, "{:<10}", "");
    columns.iter().for_each(|name| *text += &format!(" {name:>width$}", width = width(name)));
    text.push('\n');
    let said = |layer: &NeuronLayer, width: usize| {
        if layer.spikes == 0 {
            return style(format!("{:>width$}", "silent")).red().to_string();
        }
        let rate = layer.spikes as f64 / (layer.width as f64 * tokens(report));
        // Louder where more of the timesteps have a spike.
        let share = rate / f64::from(layer.timesteps);
        let rate = style(format!("{rate:>width$.2}"));
        if share > 0.33 {
            rate.bold().to_string()
        } else if share < 0.15 {
            rate.dim().to_string()
        } else {
            rate.to_string()
        }
    };
    for block in blocks {
        let _ = write!(text, "{block:<10}");
        let own = || report.layers.iter().filter(|layer| layer.block == block);
        if own().count() == 1 {
            own()
                .for_each(|layer| *text += &format!(" {}", said(layer, columns.first().map_or(7, |name| width(name)))));
        } else {
            for name in &columns {
                let cell = own().find(|layer| column(layer) == *name);
                let blank = || format!("{:>width$}", "-", width = width(name));
                *text += &format!(" {}", cell.map_or_else(blank, |layer| said(layer, width(name))));
            }
        }
        text.push('\n');
    }
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
        "{:<20} {:>4} {:>7} {:>8} {:>10} {:>10} {:>7}  -most {:^7} +most",
        "layer", "T", "neurons", "density", "at largest", "usually", "silent", "0"
    );
    for layer in &report.layers {
        let slots = layer.width as f64 * tokens(report);
        let density = layer.spikes as f64 / slots / f64::from(layer.timesteps);
        let clipped = layer.saturated as f64 / slots;
        let line = format!(
            "{:<20} {:>4} {:>7} {:>6.1} % {:>8.3} % {:>8.3} % {:>7}  {}",
            layer.site,
            layer.timesteps,
            layer.width,
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
    *text += &heading("Energy a token");
    let _ = write!(text, "{:<18}", "prices");
    for name in ["dense f32", "spiking", "saved", "attention", "its core"] {
        let _ = write!(text, " {name:>14}");
    }
    text.push('\n');
    let lists = energy["total"].as_object().into_iter().flatten();
    for (list, total) in lists {
        let said = |x: &Json, least: &Json| match (x.as_f64(), least.as_f64()) {
            (Some(pj), _) => joules(pj),
            // What has a price is the least that it can be.
            (None, Some(pj)) if pj > 0.0 => format!("> {}", joules(pj)),
            (None, Some(_) | None) => "no price".into(),
        };
        let saved = |cost: &Json| match cost["saving"].as_f64() {
            _ if cost["silent"] == true => style(format!("{:>14}", "a defect")).red().to_string(),
            Some(share) => format!("{:>12.1} %", 100.0 * share),
            None => format!("{:>14}", "not priced"),
        };
        let _ = writeln!(
            text,
            "{list:<18} {:>14} {:>14} {} {} {}",
            said(&total["dense_pj"], &total["dense_partial_pj"]),
            said(&total["spiking_pj"], &total["spiking_partial_pj"]),
            saved(total),
            saved(&energy["attention_block"][list]),
            saved(&energy["attention_core"][list]),
        );
    }
    let _ = writeln!(text, "`snnc energy` has the rest: other dense forms, break-even, what is counted.");
}

/// Picojoules in the unit that suits them.
fn joules(pj: f64) -> String {
    let (scale, unit) = match pj {
        _ if pj >= 1e9 => (1e9, "mJ"),
        _ if pj >= 1e6 => (1e6, "uJ"),
        _ if pj >= 1e3 => (1e3, "nJ"),
        _ => (1.0, "pJ"),
    };
    format!("{:.2} {unit}", pj / scale)
}

/// Sites of the ledger that are named.
const RANKED: usize = 5;

fn ledger(report: &Report, text: &mut String) {
    let Some(ledger) = report.findings.as_ref().map(|json| &json["ledger"]).filter(|json| json.is_object()) else {
        return;
    };
    *text += &heading("Where the error comes from");
    let sites: Vec<&Json> = ledger["sites"].as_array().into_iter().flatten().collect();
    let of = |site: &Json| site["kl"].as_f64().unwrap_or(0.0);
    let sum: f64 = sites.iter().map(|site| of(site)).sum();
    for name in ledger["ranking"].as_array().into_iter().flatten().take(RANKED) {
        let Some(site) = sites.iter().find(|site| site["site"] == *name) else { continue };
        let [site_name, worst, remedy] = ["site", "worst", "remedy"].map(|key| site[key].as_str().unwrap_or(""));
        let share = if sum > 0.0 { 100.0 * of(site) / sum } else { 0.0 };
        let _ = writeln!(text, "{site_name:<22} {share:>5.1} %  {worst:<10} {remedy}");
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
    let perplexity = |nll: f64| format!("{:.1}", libm::exp(nll));
    let _ = write!(text, "{:>5}  {:<16} {:>12} {:<16}", "token", "text", "perplexity", "best guess");
    *text += if beside { "   dense: perplexity  best guess         KL, nats\n" } else { "\n" };
    for i in order.into_iter().take(LISTED) {
        let token = &report.predictions[i];
        let best = |guesses: &Guesses| guesses.best.first().map_or(String::new(), |guess| shown(&guess.text));
        let _ = write!(
            text,
            "{:>5}  {} {:>12} {}",
            i + 1,
            padded(&shown(&token.text)),
            perplexity(token.spiking.nll),
            padded(&best(&token.spiking))
        );
        if let (Some(dense), Some(kl)) = (&token.dense, token.kl) {
            let differs = best(dense) != best(&token.spiking);
            let guess = padded(&best(dense));
            let guess = if differs { style(guess).yellow().to_string() } else { guess };
            let _ = write!(text, "   {:>17}  {guess} {kl:>10.6}", perplexity(dense.nll));
        }
        text.push('\n');
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
    console::pad_str(&console::truncate_str(text, 16, "…"), 16, console::Alignment::Left, None).into_owned()
}

/// The first block as the model of all, and those that are unlike it.
fn blocks(report: &Report, text: &mut String) {
    let ops = |block: &Block| block.conversions.iter().map(|c| c.spiking.join(" ")).collect::<Vec<_>>();
    let Some(first) = report.blocks.iter().find(|block| block.name == "h.0") else { return };
    *text += &heading("Conversion");
    let like: Vec<&str> =
        report.blocks.iter().filter(|block| ops(block) == ops(first)).map(|block| block.name.as_str()).collect();
    for block in report.blocks.iter().filter(|block| block.name == first.name || ops(block) != ops(first)) {
        let name = if block.name == first.name { like.join(", ") } else { block.name.clone() };
        let _ = writeln!(text, "{}", style(name).underlined());
        for conversion in &block.conversions {
            let dense = conversion.dense.join(", ");
            let from = if dense.is_empty() { &conversion.origin } else { &dense };
            for (i, line) in wrapped(&conversion.spiking).iter().enumerate() {
                let _ = writeln!(text, "  {:<44} {line}", if i == 0 { from } else { "" });
            }
        }
    }
}

/// Columns of a line of operations.
const OPERATIONS: usize = 56;

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
        let _ = writeln!(text, "{}: {}", missing.part, missing.how);
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
