//! An evaluation as figures: lines for a person, tables, rows; and its ledger as a table.

use crate::format::Figures;
use crate::table::{Grid, lines, numbers, words};
use serde_json::Value as Json;
use snnc::eval_report::{EvalReport, EvalsJson, ProgramEvalJson, ReferenceKind};
use snnc::evaluate::TextEvaluation;
use snnc::ledger::{Cause, Ledger};
use snnc::recall::Recalled;
use snnc::report::file_name;
use snnc::run_record::RunRecord;
use snnc::schema::document;
use snnc::score::{Intervals, Score};
use std::path::Path;

/// One network, and what was found of it.
#[derive(Debug)]
pub struct OneEval<'a> {
    pub name: String,
    pub found: &'a EvalReport,
}

/// Several programs of one network on the same text.
#[derive(Debug)]
pub struct SeveralEvals<'a>(pub Vec<(String, &'a EvalReport)>);

impl Figures for OneEval<'_> {
    fn json(&self, run: Option<&RunRecord>) -> Json {
        document(&self.found.json(), run)
    }

    fn text(&self) -> String {
        report(self.found)
    }

    fn grids(&self) -> Vec<Grid> {
        grid(&[(self.name.clone(), self.found)], true).into_iter().collect()
    }

    fn rows(&self, json: &Json) -> Vec<Json> {
        vec![json.clone()]
    }
}

impl Figures for SeveralEvals<'_> {
    fn json(&self, run: Option<&RunRecord>) -> Json {
        let of = |(program, report): &(String, &EvalReport)| ProgramEvalJson {
            program: program.clone(),
            evaluation: report.json(),
        };
        document(&EvalsJson { programs: self.0.iter().map(of).collect() }, run)
    }

    fn text(&self) -> String {
        reports(&self.0)
    }

    fn grids(&self) -> Vec<Grid> {
        grid(&self.0, true).into_iter().collect()
    }

    fn rows(&self, json: &Json) -> Vec<Json> {
        json["programs"].as_array().cloned().unwrap_or_default()
    }
}

/// A line of a name and what it is.
fn row(name: &str, value: &str) -> String {
    format!("{name:<29} {value}\n")
}

/// All that an evaluation found.
fn report(found: &EvalReport) -> String {
    let mut text = scores(&found.done, found.beside, found.tokens_per_word);
    if let Some(neurons) = &found.neurons {
        let value = format!("{:>10.3}  (of {:.2} timesteps)", neurons.rate(), neurons.mean_steps());
        text += &row("spikes per neuron", &value);
    }
    if let Some(coverage) = &found.coverage {
        text += &row("multiplications by spikes", &format!("{:>9.1} %", 100.0 * coverage.total.ratio()));
        if let Some((place, share)) = coverage.least().filter(|(_, share)| share.ratio() < coverage.total.ratio()) {
            text += &row("  least of them", &format!("{:>9.1} %  ({place})", 100.0 * share.ratio()));
        }
    }
    text + &recall_and_ledger(found)
}

/// What was asked for besides scores.
fn recall_and_ledger(found: &EvalReport) -> String {
    let mut text = String::new();
    if let Some((own, dense)) = &found.recalled {
        text += &recalled(own, dense.as_deref(), found.beside.map_or("dense", ReferenceKind::name));
    }
    if let Some(found) = &found.ledger {
        text += &format!("\n{}", ledger(found));
    }
    text
}

/// Several programs on the same text: a row per program, below one of the reference.
fn reports(all: &[(String, &EvalReport)]) -> String {
    let Some((_, first)) = all.first() else { return String::new() };
    let mut text = counts(&first.done) + &grid(all, false).map_or(String::new(), |grid| grid.text());
    for (name, found) in all {
        let more = recall_and_ledger(found);
        if !more.is_empty() {
            text += &format!("\n{name}\n{more}");
        }
    }
    text
}

/// A row per program, below one of the reference. What is printed on paper has every interval; a screen is narrower.
fn grid(all: &[(String, &EvalReport)], on_paper: bool) -> Option<Grid> {
    let (_, first) = all.first()?;
    let mut header = vec!["network", "perplexity"];
    if first.beside.is_some() {
        header.extend(["rise, % (95 %)", "KL, nats"]);
        header.extend(if on_paper { &["(95 %)", "top-1, %", "(95 %)"][..] } else { &["top-1, %"] });
    }
    header.extend(if on_paper { &["accuracy, %", "spikes per neuron"][..] } else { &["spikes"] });
    let done = &first.done;
    let caption = format!(
        "Perplexity per token on {} tokens in {} windows; 95 % intervals by the bootstrap over windows; spikes per neuron and token.",
        done.score.tokens, done.windows
    );
    let mut grid = Grid::new(caption, &header);
    if let Some(reference) = first.beside {
        let mut cells = vec![reference.name().to_string(), format!("{:.4}", done.score.perplexity_dense())];
        cells.resize(header.len(), String::new());
        if on_paper && let Some(accuracy) = cells.iter_mut().rev().nth(1) {
            *accuracy = format!("{:.2}", percent(&done.score, done.score.right_dense));
        }
        grid.rows.push(cells);
    }
    for (name, found) in all {
        let score = &found.done.score;
        let mut cells = vec![file_name(Path::new(name)), format!("{:.4}", score.perplexity())];
        if found.beside.is_some() {
            let of = |write: fn(&Intervals) -> String| found.done.intervals.as_ref().map_or(String::new(), write);
            let interval = of(|all| format!(" ({:+.2} to {:+.2})", 100.0 * all.increase[0], 100.0 * all.increase[1]));
            cells.push(format!("{:+.3}{interval}", 100.0 * score.increase()));
            cells.push(format!("{:.6}", score.mean(score.kl)));
            let agreement = format!("{:.2}", percent(score, score.agreed));
            if on_paper {
                let ends = of(|all| format!("{:.2} to {:.2}", 100.0 * all.agreement[0], 100.0 * all.agreement[1]));
                cells.extend([of(|all| nats(all.kl)), agreement, ends]);
            } else {
                cells.push(agreement);
            }
        }
        if on_paper {
            cells.push(format!("{:.2}", percent(score, score.right)));
        }
        cells.push(found.neurons.map_or(String::new(), |neurons| format!("{:.3}", neurons.rate())));
        grid.rows.push(cells);
    }
    Some(grid)
}

/// An interval of changes.
fn shares([low, high]: [f64; 2]) -> String {
    format!("{:+.2} to {:+.2} %", 100.0 * low, 100.0 * high)
}

/// An interval of parts of a whole.
fn percents([low, high]: [f64; 2]) -> String {
    format!("{:.2} to {:.2} %", 100.0 * low, 100.0 * high)
}

/// An interval of divergences.
fn nats([low, high]: [f64; 2]) -> String {
    format!("{low:.6} to {high:.6}")
}

/// How much was run.
fn counts(done: &TextEvaluation) -> String {
    format!("{} tokens in {} windows\n", done.score.tokens, done.windows)
}

/// The scores; by word as well where it is known how many tokens a word has.
pub fn scores(done: &TextEvaluation, beside: Option<ReferenceKind>, tokens_per_word: Option<f64>) -> String {
    let score = &done.score;
    let tokens = score.tokens as f64;
    let text = counts(done);
    let by_word = |nll: f64| tokens_per_word.map(|ratio| libm::exp(nll / tokens * ratio));
    if let Some(reference) = beside {
        return text + &scores_beside(done, reference.name(), by_word);
    }
    let words = by_word(score.nll).map(|perplexity| row("perplexity by word", &format!("{perplexity:>10.3}")));
    text + &row("perplexity", &format!("{:>10.4}", score.perplexity()))
        + &words.unwrap_or_default()
        + &row("next-token accuracy", &format!("{:>9.2} %", percent(score, score.right)))
}

fn percent(score: &Score, n: usize) -> f64 {
    100.0 * n as f64 / score.tokens as f64
}

fn scores_beside(done: &TextEvaluation, reference: &str, by_word: impl Fn(f64) -> Option<f64>) -> String {
    let score = &done.score;
    let increase = 100.0 * score.increase();
    let of = |write: fn(&Intervals) -> String| done.intervals.as_ref().map_or(String::new(), write);
    let interval = of(|all| format!("; 95 %: {}", shares(all.increase)));
    let agreement = of(|all| format!("  (95 %: {})", percents(all.agreement)));
    let sure = of(|all| format!("  (95 %: {})", nats(all.kl)));
    let high = done.kl_99.map(|kl| row("KL of 99 % of tokens, at most", &format!("{kl:>10.6}")));
    let words = by_word(score.nll).zip(by_word(score.nll_dense));
    let words = words.map(|(own, dense)| row("perplexity by word", &format!("{own:>10.3}  ({reference} {dense:.3})")));
    let [right, right_dense] = [score.right, score.right_dense].map(|n| percent(score, n));
    row(&format!("perplexity, {reference}"), &format!("{:>10.4}", score.perplexity_dense()))
        + &row("perplexity", &format!("{:>10.4}  ({increase:+.3} %{interval})", score.perplexity()))
        + &words.unwrap_or_default()
        + &row("cosine of logits, centred", &format!("{:>10.6}", score.mean(score.cosine_centred)))
        + &row("cosine of logits, raw", &format!("{:>10.6}", score.mean(score.cosine)))
        + &row("top-1 agreement", &format!("{:>9.2} %{agreement}", percent(score, score.agreed)))
        + &row("KL divergence, nats", &format!("{:>10.6}{sure}", score.mean(score.kl)))
        + &high.unwrap_or_default()
        + &row("next-token accuracy", &format!("{right:>9.2} %  ({reference} {right_dense:.2} %)"))
}

/// A line for every distance, beside the reference where there is one.
fn recalled(own: &[Recalled], dense: Option<&[Recalled]>, reference: &str) -> String {
    let gain = format!("{reference}: gain");
    let mut table = numbers(&["recall of a pair seen earlier", "gain, nats", "right", &gain, "right"]);
    for (i, recalled) in own.iter().enumerate() {
        let cells = |r: &Recalled| [format!("{:.3}", r.gain), format!("{:.1} %", 100.0 * r.right)];
        let dense = dense.and_then(|dense| dense.get(i)).map_or_else(Default::default, cells);
        let name = format!("{:>5} tokens ago", recalled.distance);
        table.add_row(std::iter::once(name).chain(cells(recalled)).chain(dense));
    }
    lines(&table)
}

/// Lines of the ranking.
const RANKED: usize = 5;

/// The ledger in micronats.
fn ledger(ledger: &Ledger) -> String {
    let micro = |x: Option<f64>| x.map_or(String::new(), |x| format!("{:.2}", 1e6 * x));
    let mut header = vec!["KL, 1e-6 nats", "T"];
    header.extend(Cause::ALL.map(Cause::name));
    header.extend(["isolated", "cumulative"]);
    let mut table = numbers(&header);
    for entry in &ledger.entries {
        let steps = if entry.isolated[Cause::Softmax as usize].is_some() { None } else { entry.steps };
        let mut cells = vec![entry.path.clone(), steps.map_or(String::new(), |steps| steps.to_string())];
        cells.extend(entry.isolated.map(micro));
        cells.extend([micro(Some(entry.sum())), micro(Some(entry.cumulative))]);
        table.add_row(cells);
    }
    let sum = ledger.explained() * ledger.total;
    let mut ranking = words(&["most damage", "share", "cause", "remedy"]);
    for entry in ledger.ranked().into_iter().take(RANKED) {
        let share = if sum > 0.0 { 100.0 * entry.sum() / sum } else { 0.0 };
        let share = format!("{share:>5.1} %");
        ranking.add_row([entry.path.clone(), share, entry.worst().name().into(), entry.remedy.clone()]);
    }
    format!(
        "{}\nthe whole network: {} e-6 nats; the isolated parts: {} e-6, {:.0} % of it ({} tokens)\n\n{}",
        lines(&table),
        micro(Some(ledger.total)),
        micro(Some(sum)),
        100.0 * ledger.explained(),
        ledger.tokens,
        lines(&ranking)
    )
}
