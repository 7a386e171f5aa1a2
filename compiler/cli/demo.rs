//! `snnc demo`: a language model becomes a spiking network, on one screen.

use crate::bar::Bar;
use crate::output::{emit, status};
use crate::table::{lines, numbers};
use crate::units::joules;
use clap::Args;
use snnc::convert::{self, BUILT_IN_TEXT, CALIBRATION_TOKENS, ConvertOptions, Sample};
use snnc::energy::{self, Block, Estimate, Phase, PriceList, Setting};
use snnc::evaluate::{Cut, NeuronTotals, TextEvaluation, evaluate};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::OnnxOptions;
use snnc::generate::{Generated, Request, generate};
use snnc::model::{EngineOptions, Loaded, ModelSource, threads_or_all};
use snnc::progress::Workers;
use snnc::record::ProgramRecord;
use snnc::report::{self, ReportOptions};
use snnc::tokens::Tokens;
use snnc::tokens::start::StartChoice;
use snnc_ir::container::{self, File};
use snnc_ir::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use snnc_ir::site::Role;
use snnc_ir::{Graph, Value};
use snnc_passes::cost::{Form, Number};
use snnc_passes::levels::Levels;
use snnc_passes::options::{QuantOptions, Rotate, Rotations};
use snnc_runtime::{Options, Program, Rows, SampleOptions, Session};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Compile a small model, let it tell a tale beside the dense network, and show what its neurons do
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc demo
  snnc demo --report
  snnc demo --prompt 'The old king' --seed 3")]
pub struct DemoCommand {
    /// A folder with model.onnx and tokenizer.json [default: the model that comes with snnc]
    ///
    /// Ranges are measured on its sample.txt, fidelity and energy on its story.txt, where it has them.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Output file [default: the program is not kept]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write a page about the run as well [default: demo.html]
    #[arg(long, value_name = "FILE.html", num_args = 0..=1, default_missing_value = "demo.html")]
    report: Option<PathBuf>,
    /// How the tale begins
    #[arg(long, default_value = "Once upon a time there was")]
    prompt: String,
    /// Seed of the drawing of tokens
    #[arg(long, value_name = "N", default_value_t = 17)]
    seed: u64,
}

/// Where the model lies: beside the binary, in a release or as it is installed; below it or the current folder in the repository.
const PLACES: [&str; 3] = ["tales", "share/snnc/models/tales", "examples/models/tales"];

/// Columns of the screen.
const COLUMNS: usize = 80;

/// Lines of a tale.
const TALE_LINES: usize = 3;

/// Tokens of a window of the story: so short that the story has enough of them for an interval.
const WINDOW: usize = 96;

impl DemoCommand {
    pub fn files(&self) -> FileUse {
        let model = self.model.as_ref().map(|model| model.join("model.onnx"));
        FileUse::default().reads_models("the model", model).writes("-o", &self.output).writes("--report", &self.report)
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let folder = self.model.clone().map_or_else(found, Ok)?;
        let loaded = Loaded::read(&folder.join("model.onnx"), &OnnxOptions::default())?;
        let tokens = loaded.tokens(&StartChoice::Auto)?;
        let bar = Bar::default();
        let start = Instant::now();
        let (known, name) = text(&folder, "sample.txt")?;
        let sample = Sample::Text { name, text: known.as_str().into(), tokens: &tokens };
        let levels = Levels::default();
        let recipe = ConvertOptions {
            quant: QuantOptions { rotate: Rotate::These(Rotations::default()), ..QuantOptions::uniform(levels) },
            calibration_tokens: CALIBRATION_TOKENS,
            threads: threads_or_all(None),
        };
        let ModelSource { graph, rounded } = &loaded.source;
        let converted = convert::convert_watched(graph.clone(), *rounded, &sample, &recipe, &bar, &mut |_, _, _| {})?;
        let seconds = start.elapsed().as_secs_f64();
        let parameters = parameters(&loaded.source.graph);
        let program = File {
            tokenizer: loaded.tokenizer.clone().map(|file| file.json),
            language: Some(tokens.language().clone()),
            provenance: Some(ProgramRecord::default().to_bytes()),
            calibration: Some(converted.section.to_string().into_bytes()),
            ..File::new(converted.graph.clone())
        };
        let dense = loaded.source.program(&EngineOptions::default())?;
        let source = ModelSource { graph: converted.graph.clone(), rounded: false };
        let spiking = source.program(&EngineOptions { count: true, ..EngineOptions::default() })?;
        let name = folder.file_name().map_or("the model".into(), |name| name.to_string_lossy().into_owned());
        emit(&format!(
            "{name}: {parameters:.1} M parameters, compiled in {seconds:.1} s to spikes of {} timesteps\n\n",
            levels.steps
        ))?;
        let tales = [&dense, &spiking].map(|program| self.tale(program, &tokens));
        let [dense_tale, spiking_tale] = tales;
        let (dense_tale, spiking_tale) = (dense_tale?, spiking_tale?);
        emit(&told("dense", &self.prompt, &dense_tale.text))?;
        emit(&told("spiking", &self.prompt, &spiking_tale.text))?;
        let ids = tokens.document(&text(&folder, "story.txt")?.0)?;
        let cut = Cut { length: Some(WINDOW), stride: None, windows: usize::MAX };
        let workers = Workers::alone(threads_or_all(None), &bar);
        let done = evaluate(&spiking, Some(&dense), &ids, cut, workers)?;
        emit(&figures(spiking.graph(), &done, [&dense_tale, &spiking_tale]))?;
        emit(&raster(spiking.graph(), &tokens, &self.prompt)?)?;
        self.kept(&program, &folder)?;
        emit("\nNext: snnc demo --report; snnc check MODEL; snnc compile MODEL -o model.snn\n")
    }

    /// A tale, drawn as the other network's was.
    fn tale(&self, program: &Arc<Program>, tokens: &Tokens) -> Result<Generated, Diagnostics> {
        let options = SampleOptions { temperature: 0.7, top_k: 40, seed: self.seed, ..SampleOptions::default() };
        let request = Request { options, ..Request::new(&self.prompt, 64) };
        generate(program, tokens, &request, &mut |_| Ok(()))
    }

    /// Writes what was asked for.
    fn kept(&self, program: &File, folder: &Path) -> Result<(), Diagnostics> {
        if let Some(output) = &self.output {
            files::write_whole(output, |out| container::write(program, out))?;
            status(&format!("{}: the program", output.display()));
        }
        if let Some(page) = &self.report {
            let made = tempfile::NamedTempFile::with_suffix(".snn").map_err(|e| failed(&e))?;
            container::write(program, &mut made.as_file()).map_err(|e| failed(&e))?;
            let story = folder.join("story.txt");
            let options = ReportOptions {
                text: story.is_file().then_some(story),
                reference: Some(folder.join("model.onnx")),
                ..ReportOptions::new(made.path())
            };
            let mut report = report::build(&options, &Bar::default())?;
            report.provenance.command = "snnc demo --report".into();
            files::write_whole(page, |out| out.write_all(report::page(&report).as_bytes()))?;
            status(&format!("{}: a page about the run", page.display()));
        }
        Ok(())
    }
}

fn failed(e: &std::io::Error) -> Diagnostic {
    Diagnostic::new("the program", format!("cannot be kept for the report: {e}")).code(ErrorCode::FILE)
}

/// The folder of the model that comes with snnc.
fn found() -> Result<PathBuf, Diagnostic> {
    let binary = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let here = std::env::current_dir().ok();
    let roots = binary.iter().chain(&here).flat_map(|path| path.ancestors());
    let all = roots.flat_map(|root| PLACES.map(|place| root.join(place)));
    all.into_iter().find(|folder| folder.join("model.onnx").is_file()).ok_or_else(|| {
        let message = "the demo's model is neither beside the binary nor in a repository around it";
        let e = Diagnostic::new("demo", message).code(ErrorCode::FILE);
        e.note("name a folder with model.onnx and tokenizer.json: snnc demo --model DIR")
    })
}

/// A text of the folder and its name; the built-in text where the folder has none.
fn text(folder: &Path, name: &str) -> Result<(String, String), Diagnostic> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok((BUILT_IN_TEXT.into(), "the built-in text".into()));
    }
    let unread = |e| Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}")).code(ErrorCode::FILE);
    std::fs::read_to_string(&path).map_err(unread).map(|text| (text, name.into()))
}

/// Millions of numbers that a network's weights hold.
fn parameters(graph: &Graph) -> f64 {
    graph.weights.iter().map(|weight| weight.tensor.sizes().iter().product::<usize>()).sum::<usize>() as f64 / 1e6
}

/// A tale behind a name, in lines of the screen; it ends with a whole sentence where there is one.
fn told(name: &str, prompt: &str, text: &str) -> String {
    const INDENT: usize = 9;
    let mut rows = vec![String::new()];
    for word in format!("{prompt}{text}").split_whitespace() {
        let row = &rows[rows.len() - 1];
        if !row.is_empty() && row.chars().count() + 1 + word.chars().count() > COLUMNS - INDENT {
            if rows.len() == TALE_LINES {
                break;
            }
            rows.push(String::new());
        }
        if let Some(row) = rows.last_mut() {
            row.push_str(if row.is_empty() { "" } else { " " });
            row.push_str(word);
        }
    }
    // A sentence that is cut off is left out, where there is one before it.
    let whole = rows.join(" ").rfind(['.', '!', '?']);
    if let (Some(end), true) = (whole, rows.len() == TALE_LINES) {
        let before: usize = rows[..TALE_LINES - 1].iter().map(|row| row.len() + 1).sum();
        if end >= before {
            rows[TALE_LINES - 1].truncate(end + 1 - before);
        }
    }
    let indented = |(i, row): (usize, &String)| format!("{:<INDENT$}{row}\n", if i == 0 { name } else { "" });
    rows.iter().filter(|row| !row.is_empty()).enumerate().map(indented).collect()
}

/// How near both networks are, and what they cost.
fn figures(graph: &Graph, done: &TextEvaluation, tales: [&Generated; 2]) -> String {
    let score = &done.score;
    let setting = Setting { context: WINDOW as u64, batch: 1, span: WINDOW as u64 };
    let estimate = energy::estimate(graph, &done.activity(), setting, PriceList::built_in());
    let mut table = numbers(&["", "dense f32", "int8", "spiking", ""]);
    let interval = done
        .intervals
        .as_ref()
        .map_or(String::new(), |all| format!(" ({:+.1} to {:+.1})", 100.0 * all.increase[0], 100.0 * all.increase[1]));
    let rise = format!("{:+.1} %{interval}", 100.0 * score.increase());
    let perplexity = |x: f64| format!("{x:.2}");
    table.add_row(["perplexity", &perplexity(score.perplexity_dense()), "", &perplexity(score.perplexity()), &rise]);
    let agreed = format!("{:.1} %", 100.0 * score.agreed as f64 / score.tokens.max(1) as f64);
    table.add_row(["same next token", "", "", &agreed, ""]);
    let rate = format!("{:.2}", NeuronTotals::of(graph, done).rate());
    table.add_row(["spikes per neuron", "", "", &rate, ""]);
    for name in ["paper45", "int45"] {
        table.add_row(energy_row(&estimate, name));
    }
    let speeds = tales.map(|tale| format!("{:.0}", tale.new_per_second()));
    table.add_row(["tokens per second", &speeds[0], "", &speeds[1], ""]);
    format!("\n{}", lines(&table))
}

/// Energy per token of the whole network by a list.
fn energy_row(estimate: &Estimate, name: &str) -> [String; 5] {
    let int8 = Form::Dense(Number::Int8);
    let f32 = Form::Dense(Number::F32);
    let Some(list) = estimate.lists.iter().find(|list| list.name == name) else { return Default::default() };
    let cost = |form| {
        let priced = estimate.counts(Phase::Prefill, form).price(Block::Total, list);
        priced.pj().map_or("-".into(), |pj| joules(pj / estimate.tokens.max(1) as f64))
    };
    let below = |dense, name: &str| {
        let saving = estimate.compare(Block::Total, list, Phase::Prefill, dense, Form::Collapsed).saving();
        saving.map(|saving| format!("{:.0} % ({name})", 100.0 * saving))
    };
    let words: Vec<String> = [below(f32, "f32"), below(int8, "int8")].into_iter().flatten().collect();
    [format!("energy, {name}"), cost(f32), cost(int8), cost(Form::Collapsed), format!("saves {}", words.join(", "))]
}

/// Spikes of some neurons of a hidden layer for the prompt's last token: time runs down, two timesteps per line.
fn raster(program: &Graph, tokens: &Tokens, prompt: &str) -> Result<String, Diagnostics> {
    let site = |value| program.site(value).filter(|site| site.role == Role::MlpHidden);
    let layers: Vec<Value> = program
        .iter()
        .filter(|(value, node)| node.op.is_neuron() && site(*value).is_some())
        .map(|(value, _)| value)
        .collect();
    let Some(&layer) = layers.get(layers.len() / 2) else { return Ok(String::new()) };
    let Some((code, steps)) = program.ty(layer).levels() else { return Ok(String::new()) };
    let mut open = program.clone();
    open.outputs.push(("hidden".into(), layer));
    let ids = tokens.document(prompt)?;
    let mut session = Session::new(Arc::new(Program::new(Arc::new(open), &Options::default())?))?;
    let outputs = session.forward(&ids, Rows::Last)?;
    let levels = outputs.levels("hidden").unwrap_or(&[]);
    let width = program.ty(layer).shape().width().unwrap_or(1);
    let row = &levels[levels.len().saturating_sub(width)..];
    let shown: Vec<i32> = (0..COLUMNS).filter_map(|i| row.get(i * row.len() / COLUMNS).copied()).collect();
    let fires = |level: i32, t: u16| t < steps && code.spike(level, t, steps) != 0;
    let line = |t: u16| -> String {
        let glyph = |level: &i32| match (fires(*level, t), fires(*level, t + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        };
        shown.iter().map(glyph).collect::<String>().trim_end().to_string() + "\n"
    };
    let site = site(layer).map(|site| site.to_string()).unwrap_or_default();
    let title = format!("\n{COLUMNS} of {} neurons of {site}; {steps} timesteps, first at the top:\n", row.len());
    Ok(title + &(0..steps).step_by(2).map(line).collect::<String>())
}
