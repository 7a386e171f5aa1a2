//! `snnc compile`: ONNX in, `.snn` out.

use crate::bar::Bar;
use crate::output::{emit, status};
use crate::wishes::{WishArgs, flags};
use clap::Args;
use serde_json::{Value as Json, json};
use snnc::Complaints;
use snnc::convert::{self, Converted, Recipe};
use snnc::describe::Network;
use snnc::energy::table::percent;
use snnc::energy::{self, Block, Phase, PriceList, Setting, measure};
use snnc::files::{self, Model};
use snnc::model::{calibration_sample, find_tokenizer, threads_or_all};
use snnc::proof;
use snnc::tokens::Tokens;
use snnc_ir::container::{self, File};
use snnc_ir::op::LevelOp;
use snnc_ir::{Diagnostic, Graph, Op, text};
use snnc_passes::cost::{Form, Number};
use snnc_passes::{Pass, STANDARD};
use snnc_runtime::Options;
use std::path::PathBuf;
use std::time::Instant;

/// Convert an ONNX GPT-2 to a spiking network
#[derive(Args, Debug)]
pub struct Compile {
    /// The ONNX file
    model: PathBuf,
    /// Where the program goes [default: the model's name with .snn, in this folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// tokenizer.json, kept in the program [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Text that the ranges of levels are measured on [default: a built-in one]
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Tokens of that text to run [default: 16384; fewer for networks of more than 90 M weights]
    #[arg(long, value_name = "N")]
    calibration_tokens: Option<usize>,
    #[command(flatten)]
    wishes: WishArgs,
    /// Print the IR after a pass: `ir=raise`; `ir=imported` is the graph before the first
    #[arg(long, value_name = "ir=PASS", value_parser = emitted)]
    emit: Vec<String>,
    /// Largest difference of the imported network's logits to the file's, as a share of their range [default: 0.001; 0.1
    /// for files that round activations]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    import_tolerance: Option<f32>,
    /// Threads for calibration; the result does not depend on them
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn emitted(text: &str) -> Result<String, String> {
    let known = || STANDARD.iter().map(|pass| pass.name).collect::<Vec<_>>().join(", ");
    let name = text.strip_prefix("ir=").ok_or("it is written ir=PASS")?;
    let fits = name == "imported" || STANDARD.iter().any(|pass| pass.name == name);
    if fits { Ok(name.to_string()) } else { Err(format!("there is no pass `{name}`; there are imported, {}", known())) }
}

fn share(text: &str) -> Result<f32, String> {
    let share = text.parse::<f32>().ok().filter(|share| share.is_finite() && *share >= 0.0);
    share.ok_or_else(|| "a number of 0 or more was expected".to_string())
}

impl Compile {
    pub fn run(self) -> Result<(), Complaints> {
        let start = Instant::now();
        let bar = Bar::default();
        let output = self
            .output
            .clone()
            .unwrap_or_else(|| PathBuf::from(self.model.file_stem().unwrap_or_default()).with_extension("snn"));
        files::check_writable(&output)?;
        let wishes = self.wishes.wishes()?;
        let Model::Onnx(import) = files::load(&self.model)? else {
            return Err(Diagnostic::new(self.model.display().to_string(), "is compiled already").into());
        };
        let (tokenizer, place) = find_tokenizer(&self.model, self.tokenizer.as_deref())?;
        let tokens = tokenizer.as_ref().map(|json| Tokens::new(json, &place)).transpose()?;
        check_vocabulary(&import.graph, tokens.as_ref(), &place)?;
        let sample = calibration_sample(tokens.as_ref(), self.calibrate.as_deref(), &bar)?;
        if self.emit.iter().any(|name| name == "imported") {
            emit(&text::print(&import.graph))?;
        }
        let mut dumps = String::new();
        let mut watch = |pass: &Pass, _: &Graph, after: &Graph| {
            if self.emit.iter().any(|name| name == pass.name) {
                dumps += &text::print(after);
            }
        };
        let tensor = match convert::dense(import.graph.clone(), import.rounds_activations, &mut watch) {
            Ok(tensor) => tensor,
            // A graph that was refused is worth seeing, so dumps come before the error.
            Err(complaints) => {
                emit(&dumps)?;
                return Err(files::at(&self.model, snnc_onnx::explained(&import.model, complaints)));
            }
        };
        let network = Network::of(&tensor).map_err(|e| files::at(&self.model, e.into()))?;
        let calibration_tokens =
            self.calibration_tokens.unwrap_or_else(|| convert::calibration_tokens(network.parameters)).max(1);
        let recipe = Recipe { wishes, calibration_tokens, threads: threads_or_all(self.threads) };
        let proof = proof::prove(&import, &tensor, self.import_tolerance);
        let proof = proof.map_err(|complaints| files::at(&self.model, complaints))?;
        status(&proof.line());
        let origin = import.origin.clone();
        drop(import);
        let converted = convert::spiking_watched(tensor, &sample, &recipe, &bar, &mut watch);
        emit(&dumps)?;
        let Converted { graph, calibration, section } = converted?;
        let provenance = json!({
            "compiler": format!("snnc {}", env!("CARGO_PKG_VERSION")),
            "source": { "bytes": origin.bytes, "xxh3": format!("{:016x}", origin.hash), "producer": origin.producer, "opset": origin.opset },
            "import": proof.json(),
            "options": flags(&recipe.wishes),
        });
        warn_of_training(&graph);
        let file = File {
            graph,
            tokenizer,
            calibration: Some(section.to_string().into_bytes()),
            provenance: Some(provenance.to_string().into_bytes()),
        };
        files::write_whole(&output, |out| container::write(&file, out))?;
        let bytes = std::fs::metadata(&output).map_or(0, |meta| meta.len());
        status(&format!(
            "{}: {:.1} MB, {}, calibrated on {}, in {:.1} s",
            output.display(),
            bytes as f64 / 1e6,
            flags(&recipe.wishes),
            calibration.source,
            start.elapsed().as_secs_f64()
        ));
        if let Some(savings) = expected_savings(&file.graph, &section) {
            status(&savings);
        }
        Ok(())
    }
}

/// What a prompt is expected to save by two price lists beside three dense networks, at the rates of the calibration text;
/// `None` where a layer has no rate.
fn expected_savings(graph: &Graph, section: &Json) -> Option<String> {
    let context = u64::from(graph.context);
    let activity = measure::expected(graph, Some(section), None, context).ok()?;
    let lists = ["paper45", "int45"].into_iter().filter_map(|name| PriceList::named(name).ok()).collect();
    let setting = Setting { context, batch: 1, span: Options::default().chunk as u64 };
    let estimate = energy::estimate(graph, &activity, setting, lists);
    let of = |list: &PriceList| {
        let beside = |(number, name)| {
            let compared = estimate.compare(Block::Total, list, Phase::Prefill, Form::Dense(number), Form::Collapsed);
            compared.saving().map(|share| format!("{} % against {name}", percent(Some(share))))
        };
        let all = [(Number::F32, "f32"), (Number::F16, "f16"), (Number::Int8, "int8")].into_iter().filter_map(beside);
        let all = all.collect::<Vec<String>>().join(", ");
        (!all.is_empty()).then(|| format!("{all} by `{}`", list.name))
    };
    let lists = estimate.lists.iter().filter_map(of).collect::<Vec<String>>().join("; ");
    (!lists.is_empty())
        .then(|| format!("expected saving of energy in a prompt: {lists}; `snnc energy` has what is counted"))
}

/// Attention that computes no softmax says little before it is trained.
fn warn_of_training(graph: &Graph) {
    let variants = graph.nodes.iter().filter_map(|node| match node.op {
        Op::Level(LevelOp::Ssa { variant, .. }) if variant.needs_training() => Some(variant.name()),
        _ => None,
    });
    let mut names: Vec<&str> = variants.collect();
    let layers = names.len();
    names.sort_unstable();
    names.dedup();
    if layers > 0 {
        status(&format!(
            "warning: attention of {layers} layer{} ({}) is not trained: it computes no softmax, so this network needs `snnc train`",
            if layers == 1 { "" } else { "s" },
            names.join(", ")
        ));
    }
}

/// A tokenizer that gives ids which the network has no row for belongs to another network.
fn check_vocabulary(graph: &Graph, tokens: Option<&Tokens>, place: &str) -> Result<(), Complaints> {
    let (Some(tokens), Ok(rows)) = (tokens, convert::vocabulary(graph)) else { return Ok(()) };
    if tokens.len() <= rows {
        return Ok(());
    }
    let message =
        format!("has {} entries, the network's embedding has {rows} rows; it belongs to another model", tokens.len());
    Err(Diagnostic::new(place, message).into())
}
