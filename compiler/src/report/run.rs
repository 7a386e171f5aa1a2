//! One run of a program on a text, with everything kept that is to be seen: what neurons said and what was predicted.

use super::raster::{LayerRun, RASTER_BYTES, ReportLayer};
use crate::evaluate::{CHUNK, TextEvaluation, logits_of};
use crate::lints::name_of;
use crate::progress::Progress;
use crate::score::{Intervals, Score, divergence, log_sum_exp, percentile_99, score_rows};
use crate::spikes::{opened, output_of};
use crate::tokens::Tokens;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;
use snnc_ir::site::Site;
use snnc_ir::{Diagnostic, Graph, Node, Value};
use snnc_runtime::{Options, Program, Rows, Session};
use std::sync::Arc;

/// A token that was run, and what was predicted to follow it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Prediction {
    /// The text of the token that follows.
    pub text: String,
    /// Its id.
    pub id: u32,
    /// The spiking network.
    pub spiking: TokenRanking,
    /// The dense network.
    pub dense: Option<TokenRanking>,
    /// Kullback-Leibler divergence of the dense prediction from the spiking one, in nats.
    pub kl: Option<f64>,
}

/// One network's prediction.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenRanking {
    /// Negative log likelihood of the token that follows, in nats.
    pub nll: f64,
    /// The likeliest tokens.
    pub best: Vec<RankedToken>,
}

/// A token, and how likely it was.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RankedToken {
    /// The text.
    pub text: String,
    /// Its id.
    pub id: u32,
    /// How likely it was.
    pub probability: f64,
}

/// What a run gave.
#[derive(Debug)]
pub struct Gathered {
    /// Scores and spikes.
    pub done: TextEvaluation,
    /// By token.
    pub predictions: Vec<Prediction>,
    /// Transformer blocks.
    pub layers: Vec<ReportLayer>,
}

/// Numbers of neurons that are held at a time, at most: levels, or spikes by timestep.
const NUMBERS: usize = 1 << 25;

/// Tokens that are named as likeliest.
const BEST: usize = 3;

/// Runs `graph`, which is `program` or its collapse, on all of `ids` but the last, beside `dense` where there is one. `section` is what the program keeps of its
/// calibration.
///
/// # Errors
/// More ids than the context and one, or none; a network that cannot be run.
pub fn gather(
    program: &Graph,
    graph: &Graph,
    dense: Option<&Arc<Program>>,
    ids: &[u32],
    tokens: Option<&Tokens>,
    section: Option<&Json>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Gathered, Diagnostic> {
    let inputs = ids.len().saturating_sub(1);
    if inputs == 0 {
        return Err(Diagnostic::new("", "the text is empty: there is nothing to predict"));
    }
    let name = logits_of(graph)?;
    let neurons = graph.iter().filter(|(_, node)| node.op.is_neuron()).map(|(value, _)| value);
    let mut seen: Vec<LayerRun> = neurons.filter_map(|value| LayerRun::new(graph, value)).collect();
    let bytes: usize = seen.iter().map(|seen| inputs * seen.raster_bytes()).sum();
    seen.iter_mut().for_each(|seen| seen.draw((RASTER_BYTES as f64 / bytes.max(1) as f64).min(1.0)));
    // Long trains of many neurons are taken in a few tokens at a time.
    let numbers: usize = seen.iter().map(LayerRun::numbers).sum();
    let chunk = (NUMBERS / numbers.max(1)).clamp(1, CHUNK);
    // What is to be looked at is named as an output. Nodes keep their numbers.
    let open = opened(graph, seen.iter().map(|seen| seen.value));
    let mut session = Session::new(Arc::new(Program::new(Arc::new(open), &Options { chunk, ..*options })?))?;
    let mut beside = match dense {
        Some(dense) => Some((Session::new(dense.clone())?, logits_of(dense.graph())?)),
        None => None,
    };
    progress.begin("running", inputs as u64);
    let (mut scores, mut predictions) = (Vec::with_capacity(inputs), Vec::with_capacity(inputs));
    for start in (0..inputs).step_by(chunk) {
        let end = (start + chunk).min(inputs);
        let (now, next) = (&ids[start..end], &ids[start + 1..=end]);
        let outputs = session.forward(now, Rows::All)?;
        for seen in &mut seen {
            seen.add(outputs.levels(&output_of(seen.value)).unwrap_or(&[]));
        }
        let logits = outputs.f32(&name).unwrap_or(&[]);
        let reference = match &mut beside {
            Some((beside, name)) => Some(beside.forward(now, Rows::All)?.f32(name).unwrap_or(&[])),
            None => None,
        };
        let width = logits.len() / now.len();
        for (i, &id) in next.iter().enumerate() {
            let row = |logits: &'_ [f32]| i * width..((i + 1) * width).min(logits.len());
            let own = &logits[row(logits)];
            let other = reference.map(|logits| &logits[row(logits)]);
            scores.push(score_rows(own, other, &[id], 0, &mut Vec::new()));
            predictions.push(Prediction {
                text: text_of(tokens, id)?,
                id,
                spiking: ranking(own, id, tokens)?,
                dense: other.map(|row| ranking(row, id, tokens)).transpose()?,
                kl: other.map(|other| divergence([other, own], [log_sum_exp(other), log_sum_exp(own)])),
            });
        }
        progress.advance(now.len() as u64);
    }
    progress.end();
    let layers = named(seen, program, graph, section);
    let kl_99 = percentile_99(predictions.iter().filter_map(|prediction| prediction.kl).collect());
    let (windows, events) = (1, session.events().to_vec());
    let mut score = Score::default();
    scores.iter().for_each(|token| score.add(token));
    let intervals = Intervals::of(&scores, "tokens");
    let done = TextEvaluation { score, windows, events, run: inputs as u64, intervals, kl_99 };
    Ok(Gathered { done, predictions, layers })
}

/// Layers with their names: those of the program, and what calibration says of them.
fn named(seen: Vec<LayerRun>, program: &Graph, graph: &Graph, section: Option<&Json>) -> Vec<ReportLayer> {
    let mut layers: Vec<ReportLayer> = Vec::new();
    for seen in seen {
        let site = name_of(graph, seen.value);
        let usual = section.and_then(|section| section["sites"][&site]["saturated"].as_f64()).unwrap_or(0.0);
        let block = graph.site(seen.value).map_or_else(|| site.clone(), Site::block);
        // Neurons are called what they are in the program.
        let same = |(value, node): &(Value, &Node)| node.op.is_neuron() && name_of(program, *value) == site;
        let twins = layers.iter().filter(|layer| layer.site.split(' ').next() == Some(&site)).count();
        let own = program.iter().filter(same).nth(twins);
        let [neuron, origin] =
            own.map_or_else(Default::default, |(value, node)| [node.op.to_string(), program.origin(value).to_string()]);
        let site = if twins > 0 { format!("{site} ({})", twins + 1) } else { site };
        layers.push(seen.layer(site, block, [neuron, origin], usual));
    }
    layers
}

/// A token's text; without a tokenizer its id in brackets.
fn text_of(tokens: Option<&Tokens>, id: u32) -> Result<String, Diagnostic> {
    tokens.map_or_else(|| Ok(format!("<{id}>")), |tokens| tokens.decode(&[id]))
}

fn ranking(row: &[f32], id: u32, tokens: Option<&Tokens>) -> Result<TokenRanking, Diagnostic> {
    let log_sum = log_sum_exp(row);
    let nll = row.get(id as usize).map_or(f64::INFINITY, |&x| log_sum - f64::from(x));
    let mut best: Vec<u32> = Vec::new();
    for _ in 0..BEST.min(row.len()) {
        let left = (0..row.len() as u32).filter(|id| !best.contains(id));
        // The first of equals, as sampling takes it.
        best.extend(left.reduce(|a, b| if row[b as usize] > row[a as usize] { b } else { a }));
    }
    let guess = |&id: &u32| {
        let probability = libm::exp(f64::from(row[id as usize]) - log_sum);
        Ok(RankedToken { text: text_of(tokens, id)?, id, probability })
    };
    Ok(TokenRanking { nll, best: best.iter().map(guess).collect::<Result<_, Diagnostic>>()? })
}
