//! `snnc train`: a compiled program learns from the dense network it came from.

use crate::args::share;
use crate::bar::{Bar, listen};
use crate::output::{emit, status};
use crate::wishes::training_free;
use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};
use snnc::convert;
use snnc::evaluate::{Cut, evaluate};
use snnc::hybrid::Search;
use snnc::model::{Loaded, calibration_sample, threads_or_all};
use snnc::progress::{Progress, Workers};
use snnc::recall::{self, recall};
use snnc::tokens::Tokens;
use snnc::train::adamw::Schedule;
use snnc::train::checkpoint::{self, State};
use snnc::train::{Options, Trainer};
use snnc::{Complaints, files};
use snnc_ir::container::{self, File};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::training::Surrogate;
use snnc_ir::{Diagnostic, Graph, Stage, text};
use snnc_passes::apply_parameters::apply_parameters;
use snnc_passes::collapse;
use snnc_passes::relax::{Loss, Recipe, Trainable as Parameters};
use snnc_runtime::Program;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Train a compiled program to predict as the dense network it came from
#[derive(Args, Debug)]
pub struct Train {
    /// The .snn file
    program: PathBuf,
    /// The text to train on
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// The ONNX file that the program was compiled from, whose predictions it learns
    #[arg(long, value_name = "MODEL.onnx")]
    teacher: PathBuf,
    /// Where the trained program goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Text to validate on [default: the last twentieth of the text, which is then not trained on]
    #[arg(long, value_name = "FILE")]
    validate: Option<PathBuf>,
    /// What trains: `ssa` (attention's weights, maps, thresholds and halvings), `thresholds` (of all neurons, with biases,
    /// slopes, sinks and halvings, and no weights), `lora:R` (thresholds, and a product of rank R beside every weight), `all`
    #[arg(long, value_name = "WHAT", default_value = "ssa", value_parser = parameters)]
    train: Parameters,
    /// What is made small: `kl`, the divergence from the teacher's predictions; `ce`, the text's own cross-entropy; or
    /// `transfer`, every block's error given the teacher's input to it, all blocks at once: a start before `kl`
    #[arg(long, value_enum, default_value = "kl")]
    loss: LossName,
    /// What stands in for the derivative of a spike: arctan, fast_sigmoid, triangle or rectangle
    #[arg(long, value_name = "NAME", default_value = "arctan", value_parser = surrogate)]
    surrogate: Surrogate,
    /// How long to train; made a number of steps at the start, which is kept
    #[arg(long, value_name = "N", conflicts_with = "steps", value_parser = positive)]
    minutes: Option<f64>,
    /// Steps to train [default: 10 minutes' worth]; 0 trains nothing, for --hybrid of a program that was trained before
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Windows of text a step; their gradients are added up
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Tokens a window [default: the context's length, at most 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,
    /// The rate of learning at its height [default: 0.002 for `ssa` and `thresholds`, else 0.001]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f32>,
    /// How fast parameters decay, as a share of the rate
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = decay)]
    weight_decay: f32,
    /// The largest norm of a step's gradients
    #[arg(long, value_name = "NORM", default_value_t = 1.0, value_parser = rate)]
    clip: f32,
    /// Steps until the rate is at its height
    #[arg(long, value_name = "N", default_value_t = 30)]
    warm_up: u64,
    /// Seed of the windows' places
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Go on from the checkpoint beside the output
    #[arg(long)]
    resume: bool,
    /// Seconds between checkpoints
    #[arg(long, value_name = "N", default_value_t = 60)]
    checkpoint_seconds: u64,
    /// At the end, give layers back to attention by time to first spike until perplexity has risen by no more than this over
    /// the dense network's: those that lose most are given back first
    #[arg(long, value_name = "perplexity+2%", value_parser = hybrid_budget)]
    hybrid: Option<f64>,
    /// Windows to validate on
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    validation_windows: u32,
    /// Print a line of JSON for every step and every validation
    #[arg(long)]
    json: bool,
    /// Threads; the result does not depend on them
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum LossName {
    Kl,
    Ce,
    Transfer,
}

impl LossName {
    fn name(self) -> &'static str {
        match self {
            LossName::Kl => "kl",
            LossName::Ce => "ce",
            LossName::Transfer => "transfer",
        }
    }
}

fn parameters(text: &str) -> Result<Parameters, String> {
    Ok(match text.split_once(':') {
        None if text == "ssa" => Parameters::Ssa,
        None if text == "thresholds" => Parameters::Thresholds,
        None if text == "all" => Parameters::All,
        Some(("lora", rank)) => {
            let rank = rank.parse::<u32>().ok().filter(|rank| (1..=4096).contains(rank));
            Parameters::Lora(rank.ok_or("a rank of 1 to 4096 was expected, such as lora:8")?)
        }
        _ => return Err(format!("there is no `{text}` to train; there are ssa, thresholds, lora:RANK, all")),
    })
}

fn surrogate(text: &str) -> Result<Surrogate, String> {
    let names = || Surrogate::ALL.map(Surrogate::name).join(", ");
    Surrogate::from_name(text).ok_or_else(|| format!("there is no surrogate `{text}`; there are {}", names()))
}

fn hybrid_budget(text: &str) -> Result<f64, String> {
    let rise = text.strip_prefix("perplexity+").ok_or("a budget is written perplexity+2%")?;
    share(rise).and_then(|rise| if rise > 0.0 { Ok(rise) } else { Err("a budget is more than 0".into()) })
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| format!("`{text}` is no number above 0"))
}

fn rate(text: &str) -> Result<f32, String> {
    positive(text).map(|x| x as f32)
}

fn decay(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|x| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| format!("`{text}` is no number from 0 on"))
}

/// Minutes that are trained where nothing is asked for.
const MINUTES: f64 = 10.0;

/// Steps that are timed to turn minutes into steps.
const TIMED: u64 = 3;

/// Validations of a run, the one before the first step not counted.
const VALIDATIONS: u64 = 10;

/// Tokens of a window where nothing is asked for, at most.
const WINDOW: usize = 1024;

/// Windows that program and teacher are compared on, before and after.
const COMPARED: usize = 32;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    Interrupted,
}

/// What a program learns from.
struct Corpus<'a> {
    ids: &'a [u32],
    /// Of its text.
    hash: u64,
    validation: &'a [u32],
    /// Tokens run together.
    window: usize,
}

impl Train {
    /// Whether training came to its end, and was not interrupted.
    ///
    /// # Errors
    /// What cannot be read, trained or written.
    pub fn run(self) -> Result<bool, Complaints> {
        if self.steps == Some(0) && self.hybrid.is_none() {
            let message = "0 steps train nothing; give it a number of steps, or --hybrid as well";
            return Err(Diagnostics::from(Diagnostic::new("--steps", message)));
        }
        let state_path = checkpoint_path(&self.output);
        files::check_writable(&self.output)?;
        files::check_writable(&state_path)?;
        let file = match files::load(&self.program)? {
            files::Model::Snn(file) => *file,
            files::Model::Onnx(_) => {
                let message = "is an ONNX file; compile it first, and train the program";
                return Err(Diagnostics::from(Diagnostic::new(self.program.display().to_string(), message)));
            }
        };
        let loaded = Loaded::read(&self.program)?;
        let tokens = loaded.tokens()?;
        let teacher = self.teacher(&file.graph)?;
        let read = |path: &Path| {
            let text = files::read_text(path)?;
            let ids = tokens.corpus(&text)?;
            Ok::<_, Complaints>((ids, xxh3_64(text.as_bytes())))
        };
        let (mut ids, hash) = read(&self.text)?;
        let other = match &self.validate {
            Some(path) => read(path)?.0,
            None => ids.split_off(ids.len() - ids.len() / 20),
        };
        let context = file.graph.context.min(teacher.context) as usize;
        let window = self.window.map_or(WINDOW, |n| n as usize).min(context);
        for (what, ids) in [("to train on", &ids), ("to validate on", &other)] {
            if ids.len() < window + 2 {
                let message = format!("{} tokens {what} are less than a window of {window} and one more", ids.len());
                let note = "use a longer text, or a smaller --window";
                return Err(Diagnostics::from(Diagnostic::new(self.text.display().to_string(), message).note(note)));
            }
        }
        let mut all = provenance(&file);
        let learned = if self.steps == Some(0) {
            Some(file.graph.clone())
        } else {
            self.learn(&file, &teacher, &Corpus { ids: &ids, hash, validation: &other, window }, &mut all)?
        };
        let Some(graph) = learned else { return Ok(false) };
        let graph = match self.hybrid {
            Some(budget) => self.hybrid_of(graph, &teacher, &other, budget, &tokens, &mut all)?,
            None => graph,
        };
        let after = self.compare(&graph, &teacher, &other)?;
        self.say(&json!({ "kind": "after", "program": after }), &format!("after: {}", words(&after)))?;
        all["measured"] = after;
        let written = File { graph, provenance: Some(all.to_string().into_bytes()), ..file };
        files::write_whole(&self.output, |out| container::write(&written, out))?;
        status(&format!("{}: written", self.output.display()));
        // The program is whole; what led to it is of no more use.
        let _ = std::fs::remove_file(&state_path);
        Ok(true)
    }

    /// The program after all steps, as it was best; `None` where the run was interrupted. What was done is added to what the
    /// program says of its making.
    fn learn(
        &self,
        file: &File,
        teacher: &Graph,
        &Corpus { ids, hash, validation, window }: &Corpus<'_>,
        all: &mut Json,
    ) -> Result<Option<Graph>, Complaints> {
        let state_path = checkpoint_path(&self.output);
        let options = self.options(window);
        let mut trainer = Trainer::new(&file.graph, teacher, options).map_err(|e| files::at(&self.program, e))?;
        let run = self.identity(&file.graph, teacher, hash, window);
        if self.resume {
            self.go_on(&mut trainer, &run, &state_path)?;
        } else {
            trainer.options.rates.steps = match (self.steps, self.minutes) {
                (Some(steps), _) => steps,
                (None, minutes) => steps_in(&trainer, ids, minutes.unwrap_or(MINUTES))?,
            };
        }
        let steps = trainer.options.rates.steps;
        let count: usize = trainer.parameters().map(|(_, count)| count).sum();
        status(&format!(
            "training {count} numbers in {} parameters, {steps} steps of {} windows of {window} tokens, {:.0} MB",
            trainer.parameters().count(),
            options.batch,
            trainer.bytes() as f64 / 1e6
        ));
        let most = (validation.len() - 1) / window;
        let some = (self.validation_windows as usize).min(most);
        let windows: Vec<&[u32]> =
            (0..some).map(|i| i * most / some * window).map(|at| &validation[at..=at + window]).collect();
        let before = if self.resume { None } else { Some(self.compare(&file.graph, teacher, validation)?) };
        if let Some(before) = &before {
            self.say(&json!({ "kind": "before", "program": before }), &format!("before: {}", words(before)))?;
        }
        if self.steps(&mut trainer, &run, ids, &windows, &state_path)? == Ended::Interrupted {
            status(&format!(
                "interrupted after step {} of {steps}; {} has everything: go on with the same command and --resume",
                trainer.step,
                state_path.display()
            ));
            return Ok(None);
        }
        let graph = apply_parameters(&file.graph, &trainer.constants()?)?;
        snnc_ir::verify::verify(&graph)?;
        status(&format!("best after step {}", trainer.best_step));
        let training = json!({
            "run": run, "steps": steps, "best_step": trainer.best_step, "losses": trainer.losses, "before": before,
        });
        // Runs one after the other, as of weights and then of thresholds.
        match &mut all["training"] {
            Json::Array(runs) => runs.push(training),
            known @ Json::Null => *known = json!([training]),
            known => *known = json!([known.take(), training]),
        }
        Ok(Some(graph))
    }

    /// What did well on networks of width 256; units of parameters follow the weights, so that wider ones need not differ much.
    fn rate(&self) -> f32 {
        self.rate.unwrap_or(match self.train {
            Parameters::Ssa | Parameters::Thresholds => 2e-3,
            Parameters::Lora(_) | Parameters::All => 1e-3,
        })
    }

    fn options(&self, window: usize) -> Options {
        let loss = match self.loss {
            LossName::Kl => Loss::Divergence,
            LossName::Ce => Loss::CrossEntropy,
            LossName::Transfer => Loss::Transfer,
        };
        Options {
            recipe: Recipe { train: self.train, loss, surrogate: self.surrogate },
            rates: Schedule {
                rate: self.rate(),
                weight_decay: self.weight_decay,
                clip: self.clip,
                warm_up: self.warm_up,
                steps: 1,
            },
            batch: self.batch as usize,
            window,
            seed: self.seed,
            threads: threads_or_all(self.threads),
        }
    }

    /// The dense network, which must be of the program's vocabulary.
    fn teacher(&self, program: &Graph) -> Result<Graph, Complaints> {
        let input = Loaded::read(&self.teacher)?.source;
        let place = self.teacher.display().to_string();
        if input.graph.stage != Stage::Imported {
            let note = "name the ONNX file that the program was compiled from";
            return Err(Diagnostic::new(place, "is a compiled program, not a dense network").note(note).into());
        }
        let tensor = convert::dense(input.graph, input.rounded, &mut |_, _, _| {})?;
        let width = |graph: &Graph| graph.outputs.first().and_then(|(_, value)| graph.ty(*value).shape().width());
        if width(&tensor) != width(program) {
            let note = "name the ONNX file that the program was compiled from";
            return Err(Diagnostic::new(place, "predicts another vocabulary than the program").note(note).into());
        }
        Ok(tensor)
    }

    /// What a checkpoint belongs to. The number of threads is no part of it.
    fn identity(&self, program: &Graph, teacher: &Graph, text: u64, window: usize) -> Json {
        let hash = |graph: &Graph| format!("{:016x}", xxh3_64(text::print(graph).as_bytes()));
        json!({
            "program": hash(program), "teacher": hash(teacher), "text": format!("{text:016x}"),
            "train": self.train.to_string(), "loss": self.loss.name(), "surrogate": self.surrogate.name(),
            "batch": self.batch, "window": window, "rate": self.rate(), "weight_decay": self.weight_decay,
            "clip": self.clip, "warm_up": self.warm_up, "seed": self.seed,
            "isa": snnc_runtime::Isa::detect().map_or("unknown", snnc_runtime::Isa::name),
        })
    }

    fn go_on(&self, trainer: &mut Trainer, run: &Json, path: &Path) -> Result<(), Complaints> {
        let place = path.display().to_string();
        let bytes = files::read_bytes(path).map_err(|e| e.note("there is nothing to resume; leave out --resume"))?;
        let (state, numbers) = checkpoint::read(&bytes, &place)?;
        let differs = |(key, value): (&String, &Json)| (state.run.get(key) != Some(value)).then(|| key.clone());
        let others: Vec<String> = run.as_object().into_iter().flatten().filter_map(differs).collect();
        let names: Vec<(String, usize)> = trainer.parameters().map(|(name, count)| (name.clone(), count)).collect();
        if !others.is_empty() || names != state.parameters {
            let message = format!("belongs to another run: these differ: {}", others.join(", "));
            return Err(Diagnostics::from(
                Diagnostic::new(place, message).note("give the options of that run, or leave out --resume"),
            ));
        }
        trainer.options.rates.steps = state.steps;
        trainer.numbers = numbers;
        (trainer.step, trainer.best_step, trainer.losses) = (state.step, state.best_step, state.losses);
        status(&format!("going on after step {} of {}", state.step, state.steps));
        Ok(())
    }

    fn steps(
        &self,
        trainer: &mut Trainer,
        run: &Json,
        ids: &[u32],
        windows: &[&[u32]],
        path: &Path,
    ) -> Result<Ended, Complaints> {
        let steps = trainer.options.rates.steps;
        let bar = Bar::default();
        bar.begin("training", steps);
        bar.advance(trainer.step);
        let tokens = (trainer.options.batch * trainer.options.window) as u64;
        let (start, first) = (Instant::now(), trainer.step);
        let mut kept = Instant::now();
        let mut recent = 0.0;
        listen(true);
        if trainer.losses.is_empty() {
            self.validate(trainer, windows, &bar)?;
        }
        while trainer.step < steps {
            let done = trainer.advance(ids)?;
            recent = if recent == 0.0 { done.loss } else { 0.9 * recent + 0.1 * done.loss };
            let speed = tokens as f64 * (trainer.step - first) as f64 / start.elapsed().as_secs_f64();
            bar.advance(1);
            bar.message(&format!("loss {recent:.4}, {speed:.0} tokens/s"));
            if self.json {
                let line = json!({
                    "kind": "step", "step": trainer.step, "loss": done.loss, "norm": done.norm, "rate": done.rate,
                    "tokens": trainer.step * tokens, "tokens_a_second": speed,
                });
                emit(&format!("{line}\n"))?;
            }
            let every = (steps / VALIDATIONS).max(1);
            if trainer.step.is_multiple_of(every) || trainer.step == steps {
                self.validate(trainer, windows, &bar)?;
            }
            let stop = bar.is_cancelled();
            if stop || kept.elapsed() > Duration::from_secs(self.checkpoint_seconds) {
                keep(trainer, run, path)?;
                kept = Instant::now();
            }
            if stop && trainer.step < steps {
                bar.end();
                return Ok(Ended::Interrupted);
            }
        }
        listen(false);
        bar.end();
        // What follows may fail, as by a full disk: nothing that was learned is lost then.
        keep(trainer, run, path)?;
        Ok(Ended::Whole)
    }

    fn validate(&self, trainer: &mut Trainer, windows: &[&[u32]], bar: &Bar) -> Result<(), Complaints> {
        let loss = trainer.validate(windows)?;
        let (step, steps) = (trainer.step, trainer.options.rates.steps);
        let best = if trainer.best_step == step { ", the best so far" } else { "" };
        let line = json!({ "kind": "validation", "step": step, "loss": loss, "best": trainer.best_step == step });
        bar.suspend(|| self.say(&line, &format!("step {step} of {steps}: validation loss {loss:.5}{best}")))
    }

    /// A line for whoever reads JSON, or words.
    fn say(&self, line: &Json, words: &str) -> Result<(), Complaints> {
        if self.json {
            return emit(&format!("{line}\n"));
        }
        status(words);
        Ok(())
    }

    /// Perplexity, and nearness to the teacher, of the program itself.
    fn compare(&self, program: &Graph, teacher: &Graph, ids: &[u32]) -> Result<Json, Complaints> {
        let options = snnc_runtime::Options { count: false, ..snnc_runtime::Options::default() };
        let graph = if collapse::depends_on_order(program) { program.clone() } else { collapse::collapse(program)? };
        let program = Arc::new(Program::new(Arc::new(graph), &options)?);
        let dense = Arc::new(Program::new(Arc::new(teacher.clone()), &options)?);
        let cut = Cut { length: None, stride: None, windows: COMPARED };
        let score = evaluate(
            &program,
            Some(&dense),
            ids,
            cut,
            Workers { threads: threads_or_all(self.threads), progress: &Bar::default() },
        )?
        .score;
        let recalled = |program: &Arc<Program>| recall(program, ids).map(|recalled| recall::json(&recalled));
        Ok(json!({
            "recall": recalled(&program)?, "recall_dense": recalled(&dense)?,
            "tokens": score.tokens, "perplexity": score.perplexity(), "perplexity_dense": score.perplexity_dense(),
            "kl": score.mean(score.kl), "agreement": score.agreed as f64 / score.tokens as f64,
        }))
    }

    /// Some layers of the trained program, the others by time to first spike.
    fn hybrid_of(
        &self,
        trained: Graph,
        teacher: &Graph,
        ids: &[u32],
        budget: f64,
        tokens: &Tokens,
        all: &mut Json,
    ) -> Result<Graph, Complaints> {
        let options = snnc_runtime::Options { count: false, ..snnc_runtime::Options::default() };
        let dense = Program::new(Arc::new(teacher.clone()), &options)?;
        let wishes = all["options"].as_str().and_then(training_free);
        if wishes.is_none() {
            status(
                "warning: the program does not say how it was compiled; its layers by time to first spike have the default options",
            );
        }
        let recipe = convert::Recipe {
            wishes: wishes.unwrap_or_default(),
            calibration_tokens: convert::calibration_tokens(teacher.parameters()),
            threads: threads_or_all(self.threads),
        };
        let sample = calibration_sample(Some(tokens), Some(&self.text), &Bar::default())?;
        let ttfs =
            convert::spiking_watched(teacher.clone(), &sample, &recipe, &Bar::default(), &mut |_, _, _| {})?.graph;
        let bar = Bar::default();
        let search = Search {
            trained: &trained,
            ttfs: &ttfs,
            dense: &Arc::new(dense),
            ids,
            cut: Cut { length: None, stride: None, windows: COMPARED },
            threads: threads_or_all(self.threads),
            progress: &bar,
            budget,
        };
        let found = search.run()?;
        for choice in &found.measured {
            self.say(&json!({ "kind": "hybrid", "choice": choice.json() }), &choice.words())?;
        }
        match found.kept {
            Some((choice, graph)) => {
                status(&format!("kept: {}", choice.words()));
                all["hybrid"] = choice.json();
                Ok(graph)
            }
            None => {
                status("no layer keeps the budget: all stay with attention by time to first spike");
                let layers = (0..ttfs.nodes.iter().filter(|node| node.op.has_state()).count()).collect::<Vec<usize>>();
                all["hybrid"] = json!({ "ttfs": layers });
                Ok(ttfs)
            }
        }
    }
}

/// What a program says of its making.
fn provenance(file: &File) -> Json {
    let known = file.provenance.as_deref().and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
    known.filter(Json::is_object).unwrap_or_else(|| json!({}))
}

/// Where the state of a run lies: beside its output.
fn checkpoint_path(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".checkpoint");
    output.with_file_name(name)
}

fn keep(trainer: &Trainer, run: &Json, path: &Path) -> Result<(), Diagnostic> {
    let state = State {
        version: 1,
        run: run.clone(),
        steps: trainer.options.rates.steps,
        step: trainer.step,
        best_step: trainer.best_step,
        losses: trainer.losses.clone(),
        parameters: trainer.parameters().map(|(name, count)| (name.clone(), count)).collect(),
    };
    files::write_whole(path, |out| checkpoint::write(&state, &trainer.numbers, out))
        .map_err(|e| e.note("the checkpoint before this one, if there is one, is whole: --resume goes on from it"))
}

/// How many steps so many minutes hold, by timing some that change nothing.
fn steps_in(trainer: &Trainer, ids: &[u32], minutes: f64) -> Result<u64, Diagnostic> {
    trainer.gradients(ids, 0)?;
    let start = Instant::now();
    (1..=TIMED).try_for_each(|step| trainer.gradients(ids, step).map(drop))?;
    let a_step = start.elapsed().as_secs_f64() / TIMED as f64;
    Ok(((60.0 * minutes / a_step) as u64).max(1))
}

fn words(score: &Json) -> String {
    let number = |key: &str| score[key].as_f64().unwrap_or(f64::NAN);
    let (own, dense) = (number("perplexity"), number("perplexity_dense"));
    let recalled =
        score["recall"].as_array().into_iter().flatten().zip(score["recall_dense"].as_array().into_iter().flatten());
    let gain = |at: &Json| at["gain"].as_f64().unwrap_or(f64::NAN);
    let recalled =
        recalled.map(|(own, dense)| format!("{} ago {:.2} ({:.2})", own["distance"], gain(own), gain(dense)));
    format!(
        "perplexity {own:.3} (dense {dense:.3}, {:+.2} %), KL from dense {:.5}, same best guess {:.2} %; recall of a pair, nats \
         (dense): {}",
        100.0 * (own / dense - 1.0),
        number("kl"),
        100.0 * number("agreement"),
        recalled.collect::<Vec<String>>().join(", ")
    )
}
