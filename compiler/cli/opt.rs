//! `snnc opt`: passes on a program that is given as text.

use crate::output::{emit, status};
use crate::quant_args::QuantArgs;
use clap::Args;
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::{self, OnnxOptions};
use snnc::opt::{self, Omit, PassSettings};
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_passes::relax::{Recipe, Trainable};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Run passes on a program in the text form, as `snnc show` prints it
///
/// Weights come from rules in the text (`= fill(seed=1)`), or from the model that --model names.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc show model.onnx --until raise > layer.ir
  snnc opt layer.ir --passes simplify")]
pub struct OptCommand {
    /// The program's text
    program: PathBuf,
    /// The passes, one after the other: raise, simplify, rotate, quantise, spike, fold, tie_embedding, collapse, relax, gradient.
    /// Without any, the program is checked and printed
    #[arg(long, value_name = "PASS[,PASS...]", value_delimiter = ',')]
    passes: Vec<String>,
    /// A .snn or .onnx file that has the program's weights; of several, the first that has a weight gives it
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,
    /// Write the program here instead of printing it; - prints it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the program after each pass into this folder: `1-raise.ir`, `2-simplify.ir`, ...
    #[arg(long, value_name = "DIR")]
    dump_to: Option<PathBuf>,
    /// Leave out the lines of weights
    #[arg(long)]
    no_weights: bool,
    /// Print only the nodes of these layers, counted from 0: `2`, or `0-1`
    #[arg(long, value_name = "N[-M]", value_parser = layers)]
    layers: Option<RangeInclusive<u32>>,
    /// Say on standard error how many milliseconds each pass took
    #[arg(long)]
    timing: bool,
    /// The weights that `gradient` differentiates by [default: all f32 weights that the loss depends on]
    #[arg(long, value_name = "NAME[,NAME...]", value_delimiter = ',')]
    parameters: Vec<String>,
    #[command(flatten)]
    quant: QuantArgs,
}

fn layers(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("layers are like 2 or 0-1".into()),
    }
}

impl OptCommand {
    pub fn files(&self) -> FileUse {
        let used = FileUse::default().reads("the program", [&self.program]).reads_models("--model", &self.model);
        let output = self.output.as_ref().filter(|path| path.as_os_str() != "-");
        let dump = |(folder, (number, pass)): (&PathBuf, (usize, &String))| dumped(folder, number, pass);
        let passes = || (1..).zip(&self.passes);
        let dumps = self.dump_to.iter().flat_map(|folder| passes().map(move |pass| dump((folder, pass))));
        used.writes_in_folder("-o", output).writes_in_folder("--dump-to", dumps)
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let text = files::read_text(&self.program)?;
        let name = self.program.display().to_string();
        let at_lines = |errors| opt::with_lines(&name, &text, errors);
        let mut graphs = Vec::new();
        for path in &self.model {
            graphs.extend(opt::weights_of(front::load(path, &OnnxOptions::default())?, &text)?);
        }
        let read = opt::read(&text, &graphs.iter().collect::<Vec<_>>()).map_err(at_lines)?;
        let omit = Omit { weights: self.no_weights, but_layers: self.layers.clone() };
        let settings = PassSettings {
            quant: self.quant.options()?,
            parameters: self.parameters.clone(),
            recipe: Recipe { train: Trainable::All, ..Recipe::default() },
            ..PassSettings::default()
        };
        let mut done = 0;
        let graph = opt::run(&self.passes, read.graph.clone(), &settings, &mut |pass, graph, time| {
            done += 1;
            if self.timing {
                status(&format!("{pass:<14} {:>9.3} ms", time.as_secs_f64() * 1e3));
            }
            match &self.dump_to {
                Some(folder) => write(&dumped(folder, done, pass), &opt::print(&read, graph, &omit)),
                None => Ok(()),
            }
        });
        let printed = opt::print(&read, &graph.map_err(at_lines)?, &omit);
        match &self.output {
            Some(path) if path.as_os_str() != "-" => write(path, &printed),
            _ => emit(&printed),
        }
    }
}

/// The file that the program after a pass is written to.
fn dumped(folder: &Path, number: usize, pass: &str) -> PathBuf {
    folder.join(format!("{number}-{pass}.ir"))
}

fn write(path: &Path, text: &str) -> Result<(), Diagnostics> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| {
            Diagnostic::new(folder.display().to_string(), format!("cannot be made: {e}")).code(ErrorCode::OPTION)
        })?;
    }
    files::write_whole(path, |out| out.write_all(text.as_bytes())).map_err(Diagnostics::from)
}
