//! Passes on a program that is given as text: what `snnc opt` and the case files run.
//!
//! The text form holds no weights. Their tensors come from rules in the text (`snnc_ir::text::fill`), else from a model that
//! holds weights of the same names, sizes and hashes. What `snnc show` and `snnc compile --emit` print can be read so.

use crate::calibrate;
use crate::convert::{self, CALIBRATION_WINDOW, ConvertOptions, Sample, sample_windows};
use crate::files::Model;
use snnc_ir::diagnostic::{Diagnostics, Place};
use snnc_ir::text::{self, Filled};
use snnc_ir::verify::verify;
use snnc_ir::{Diagnostic, Graph, Stage, Value, Weight};
use snnc_passes::cost::parts;
use snnc_passes::fit::fit;
use snnc_passes::options::{QuantOptions, Rotate, Rotations};
use snnc_passes::relax::{Loss, Recipe, relax};
use snnc_passes::{Context, Pass, STANDARD, collapse, gradient, rotate};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// What a pass needs to know besides the program.
#[derive(Clone, Debug, Default)]
pub struct PassSettings {
    /// What `quantise` and `spike` are asked for.
    pub quant: QuantOptions,
    /// Whether the imported program's numbers are codes of eight bits: `raise` is then lenient about activation functions.
    pub rounded: bool,
    /// Weights that `gradient` differentiates by; if there are none named, all that the loss depends on.
    pub parameters: Vec<String>,
    /// What `relax` makes trainable. The loss is the cross entropy of the text: there is no other program to learn from.
    pub recipe: Recipe,
}

/// A pass as `snnc opt` runs it.
#[derive(Clone, Copy)]
pub struct NamedPass {
    /// Its name.
    pub name: &'static str,
    /// The stages of programs that it takes.
    pub needs: &'static [Stage],
    run: fn(Graph, &PassSettings) -> Result<Graph, Diagnostics>,
}

impl std::fmt::Debug for NamedPass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every pass, those of the standard order first.
pub const PASSES: &[NamedPass] = &[
    NamedPass { name: "raise", needs: &[Stage::Imported], run: |graph, settings| standard("raise", graph, settings) },
    NamedPass {
        name: "simplify",
        needs: &[Stage::Tensor],
        run: |graph, settings| standard("simplify", graph, settings),
    },
    NamedPass { name: "rotate", needs: &[Stage::Tensor], run: rotated },
    NamedPass { name: "quantise", needs: &[Stage::Tensor], run: quantise },
    NamedPass { name: "spike", needs: &[Stage::Quantised], run: |graph, settings| standard("spike", graph, settings) },
    NamedPass { name: "fold", needs: &[Stage::Spiking], run: |graph, settings| standard("fold", graph, settings) },
    NamedPass {
        name: "tie_embedding",
        needs: &[Stage::Spiking],
        run: |graph, settings| standard("tie_embedding", graph, settings),
    },
    NamedPass { name: "collapse", needs: &[Stage::Spiking], run: |graph, _| collapse::collapse(&graph) },
    NamedPass { name: "relax", needs: &[Stage::Quantised, Stage::Spiking], run: relaxed },
    NamedPass { name: "gradient", needs: &[Stage::Training], run: differentiated },
];

fn context(settings: &PassSettings) -> Context<'static> {
    let QuantOptions { membrane, own_embedding, .. } = settings.quant;
    let rotations = match settings.quant.rotate {
        Rotate::Auto => Rotations::default(),
        Rotate::These(rotations) => rotations,
    };
    Context { rotations, membrane, own_embedding, rounded: settings.rounded, ..Context::default() }
}

/// Rotates what the options name. Where they name nothing, it rotates all that can be.
fn rotated(graph: Graph, settings: &PassSettings) -> Result<Graph, Diagnostics> {
    let rotations = match settings.quant.rotate {
        Rotate::These(rotations) if rotations != Rotations::default() => rotations,
        Rotate::These(_) | Rotate::Auto => rotate::possible(&graph).0,
    };
    rotate::rotate(&graph, &Context { rotations, ..context(settings) })
}

fn standard(name: &str, graph: Graph, settings: &PassSettings) -> Result<Graph, Diagnostics> {
    pass(name).map_or(Ok(graph.clone()), |pass| (pass.run)(&graph, &context(settings)))
}

fn pass(name: &str) -> Option<&'static Pass> {
    STANDARD.iter().find(|pass| pass.name == name)
}

/// Levels are chosen by what a few windows of seeded ids show.
fn quantise(graph: Graph, settings: &PassSettings) -> Result<Graph, Diagnostics> {
    let (windows, _) = sample_windows(&graph, &Sample::SeededIds, CALIBRATION_WINDOW)?;
    let seen = calibrate::calibrate(&graph, &windows, &[], 1)?;
    let quant_plan = fit(&graph, &seen, &settings.quant)?;
    snnc_passes::quantise::quantise(&graph, &Context { quant_plan, ..context(settings) })
}

fn relaxed(graph: Graph, settings: &PassSettings) -> Result<Graph, Diagnostics> {
    relax(&graph, &graph, Recipe { loss: Loss::CrossEntropy, ..settings.recipe }).map(|relaxed| relaxed.graph)
}

fn differentiated(graph: Graph, settings: &PassSettings) -> Result<Graph, Diagnostics> {
    let mut names = settings.parameters.clone();
    if names.is_empty() {
        names = trainable(&graph);
    }
    gradient::gradient(&graph, &names)
}

/// The f32 weights that the loss depends on.
fn trainable(graph: &Graph) -> Vec<String> {
    let Some(loss) = graph.output(gradient::LOSS) else { return Vec::new() };
    let mut needed = vec![false; graph.nodes.len()];
    needed[loss.index()] = true;
    for (value, node) in graph.iter().rev().filter(|(_, node)| !node.args.is_empty()) {
        if needed[value.index()] {
            node.args.iter().for_each(|arg| needed[arg.index()] = true);
        }
    }
    let weights =
        graph.iter().filter(|(value, _)| needed[value.index()]).filter_map(|(value, _)| graph.constant(value));
    weights.filter(|weight| weight.tensor.as_f32().is_some()).map(|weight| weight.name.clone()).collect()
}

/// Runs the passes of these names, one after the other, and verifies the program before the first and after each. `watch` is
/// shown the name of each, the program behind it and the time that it took.
///
/// # Errors
/// A name that no pass has; a pass at the wrong stage; what the verifier or a pass found wrong; what `watch` says.
pub fn run(
    names: &[String],
    graph: Graph,
    settings: &PassSettings,
    watch: &mut dyn FnMut(&str, &Graph, Duration) -> Result<(), Diagnostics>,
) -> Result<Graph, Diagnostics> {
    let passes = names.iter().map(|name| named(name)).collect::<Result<Vec<NamedPass>, Diagnostic>>()?;
    verify(&graph)?;
    let mut graph = graph;
    for pass in passes {
        check_stage(pass, graph.stage)?;
        let start = Instant::now();
        graph = (pass.run)(graph, settings)?;
        watch(pass.name, &graph, start.elapsed())?;
        verify(&graph)?;
    }
    Ok(graph)
}

fn named(name: &str) -> Result<NamedPass, Diagnostic> {
    let found = PASSES.iter().find(|pass| pass.name == name).copied();
    found.ok_or_else(|| {
        let names: Vec<&str> = PASSES.iter().map(|pass| pass.name).collect();
        Diagnostic::new("--passes", format!("there is no pass `{name}`; there are {}", names.join(", ")))
    })
}

fn check_stage(pass: NamedPass, stage: Stage) -> Result<(), Diagnostic> {
    if pass.needs.contains(&stage) {
        return Ok(());
    }
    let wanted: Vec<&str> = pass.needs.iter().map(|stage| stage.name()).collect();
    let message =
        format!("pass `{}` takes stage {}, the program is at {}", pass.name, wanted.join(" or "), stage.name());
    let order: Vec<&str> = STANDARD.iter().map(|pass| pass.name).collect();
    Err(Diagnostic::new("--passes", message).note(format!("the order is {}, then collapse or relax", order.join(", "))))
}

/// Reads a program; weights without a rule come from `models`. Where a line states a hash, the weight of that name and hash is
/// taken; else the first of that name.
///
/// # Errors
/// Everything that is wrong with the text, at `line:column`.
pub fn read(text: &str, models: &[&Graph]) -> Result<Filled, Diagnostics> {
    let mut known: HashMap<&str, Vec<&Weight>> = HashMap::new();
    for weight in models.iter().flat_map(|graph| &graph.weights) {
        known.entry(weight.name.as_str()).or_default().push(weight);
    }
    let stated = stated_hashes(text);
    text::parse_filled(text, &|name, _, _| {
        let Some(all) = known.get(name) else {
            return Err(match models {
                [] => format!("@{name} has no rule, and no model gives weights"),
                _ => format!("the model has no weight @{name}"),
            });
        };
        let fits = |weight: &&&Weight| stated.get(name).is_some_and(|hash| *hash == text::hash(&weight.tensor));
        let found = if all.len() > 1 { all.iter().find(fits) } else { None };
        Ok(found.unwrap_or(&all[0]).tensor.clone())
    })
}

/// The hashes that lines of weights state, by name. A name with unusual characters is not found.
fn stated_hashes(text: &str) -> HashMap<String, u64> {
    let one = |line: &str| {
        let (name, rest) = line.trim_start().strip_prefix("weight @")?.rsplit_once(" : ")?;
        let hash = u64::from_str_radix(rest.split_whitespace().last()?, 16).ok()?;
        Some((name.trim().trim_matches('"').to_string(), hash))
    };
    text.lines().filter_map(one).collect()
}

/// The graphs of a model that may hold the weights of the program in `text`: that of a `.snn` file; of an ONNX file or a folder the imported
/// one, or those behind the passes that lead to the stage of the program, as `snnc show` runs them.
///
/// # Errors
/// The model has parts that snnc does not know.
pub fn weights_of(model: Model, text: &str) -> Result<Vec<Graph>, Diagnostics> {
    let dense = match model {
        Model::Snn(file) => return Ok(vec![file.graph]),
        Model::Dense(dense) => dense,
    };
    let header = text.lines().find(|line| line.starts_with("snnc ")).unwrap_or("");
    let stage = header.split_whitespace().nth(2).and_then(Stage::from_name).unwrap_or(Stage::Imported);
    let mut all = vec![dense.graph().clone()];
    let rounded = dense.rounds_activations();
    let mut keep = |_: &Pass, _: &Graph, after: &Graph| all.push(after.clone());
    match stage {
        Stage::Imported => {}
        Stage::Tensor => drop(convert::dense(dense.into_graph(), rounded, &mut keep)?),
        Stage::Quantised | Stage::Spiking | Stage::Training => {
            let options =
                ConvertOptions { quant: QuantOptions::default(), calibration_tokens: CALIBRATION_WINDOW, threads: 1 };
            drop(convert::convert(dense.into_graph(), rounded, &Sample::SeededIds, &options, &mut keep)?);
        }
    }
    Ok(all)
}

/// What is left out of a printed program.
#[derive(Clone, Debug, Default)]
pub struct Omit {
    /// Lines of weights.
    pub weights: bool,
    /// Nodes outside these layers.
    pub but_layers: Option<RangeInclusive<u32>>,
}

/// `graph`, which was made from the program that was read, as text.
pub fn print(read: &Filled, graph: &Graph, omit: &Omit) -> String {
    let parts = parts(graph);
    let shown = |value: Value| match &omit.but_layers {
        Some(layers) => parts[value.index()].layer.is_some_and(|layer| layers.contains(&layer)),
        None => true,
    };
    text::print_with(graph, &|_, weight| (!omit.weights).then(|| read.line_end(weight)), &shown)
}

/// Errors at `line:column` of `text` as a person reads them: with the file, and the line and a mark below it.
pub fn with_lines(file: &str, text: &str, errors: Diagnostics) -> Diagnostics {
    let shown = |error: Diagnostic| {
        let Some((line, column)) = position(text, &error.place) else {
            return Diagnostic { place: Place::File(file.to_string(), Box::new(error.place)), ..error };
        };
        let source = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
        let mark = format!("     | {}^", " ".repeat(column.saturating_sub(1)));
        let notes = [format!("{line:>4} | {source}"), mark].into_iter().chain(error.notes).collect();
        Diagnostic { place: Place::Name(format!("{file}:{line}:{column}")), notes, ..error }
    };
    errors.into_iter().map(shown).collect()
}

/// The line and column of `text` that `place` speaks of: the line that gives a value, a weight or an output; the first for
/// the program as a whole. Places name a value as the text does, perhaps with its origin in parentheses.
pub fn position(text: &str, place: &Place) -> Option<(usize, usize)> {
    if let Place::Line(line, column) = place {
        return Some((*line, *column));
    }
    let place = place.to_string();
    let numbers = place.split_once(':').and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
    numbers.or_else(|| Some((line_of(text, &place)?, 1)))
}

fn line_of(text: &str, place: &str) -> Option<usize> {
    let label = place.split_once(" (").map_or(place, |(label, _)| label);
    let begins = |line: &str, words: &str| {
        line.trim_start()
            .strip_prefix(words)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || "_.".contains(c)))
    };
    let found = text.lines().position(|line| match label {
        "" | "outputs" | "weights" => begins(line, "snnc"),
        _ if label.starts_with('@') => begins(line, &format!("weight {label}")),
        _ => begins(line, label),
    });
    let by_origin =
        || text.lines().position(|line| line.split_once("// ").is_some_and(|(_, origin)| origin.trim() == place));
    found.or_else(by_origin).map(|i| i + 1)
}
