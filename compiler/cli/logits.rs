//! `snnc logits`: raw predictions for given token ids, as a NumPy file.

use crate::args::{EngineArgs, OnnxArgs, ThreadArgs};
use crate::output::{emit_bytes, status, warn};
use clap::Args;
use snnc::convert::vocabulary;
use snnc::evaluate::logits_of;
use snnc::file_use::FileUse;
use snnc::files;
use snnc::id_file::IdFile;
use snnc::model::Loaded;
use snnc::npy;
use snnc::score::best;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_runtime::{Rows, Session};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Ids to run.
#[derive(Clone, Debug)]
enum TokenIds {
    /// Those of the command line.
    Ids(Vec<u32>),
    /// Those of a file.
    File(PathBuf),
}

fn token_ids(text: &str) -> Result<TokenIds, String> {
    let ids: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    match ids {
        Ok(ids) => Ok(TokenIds::Ids(ids)),
        Err(_) if text.ends_with(".npy") => Ok(TokenIds::File(text.into())),
        Err(e) => Err(format!("{e}: ids are written as 5,17,9, or are in a file that ends in .npy")),
    }
}

/// Write the logits of given token ids as a NumPy file: f32 [tokens, vocabulary], or [texts, tokens, vocabulary]
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc logits model.snn --tokens 5,17,9 -o logits.npy")]
pub struct LogitsCommand {
    /// The .snn or .onnx file
    model: PathBuf,
    /// Token ids, as in 5,17,9; or a .npy file of integers, [n] or [texts, n]
    #[arg(long, value_name = "IDS|FILE.npy", value_parser = token_ids)]
    tokens: TokenIds,
    /// The .npy file to write; - writes standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

impl LogitsCommand {
    pub fn files(&self) -> FileUse {
        let used = self.engine.files(self.onnx.files(FileUse::default()).reads_models("the model", [&self.model]));
        let ids = if let TokenIds::File(path) = &self.tokens { Some(path) } else { None };
        let used = used.reads("--tokens", ids);
        used.writes("-o", is_file(&self.output).then_some(&self.output))
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        if !is_file(&self.output) && std::io::stdout().is_terminal() {
            let error = Diagnostic::new("-o -", "standard output is a terminal, which shows no numbers of a .npy file");
            return Err(error.code(ErrorCode::OPTION).note("name a file, or pipe it to another program").into());
        }
        let loaded = Loaded::read(&self.model, &self.onnx.options()?)?;
        loaded.warnings.iter().for_each(|warning| warn(warning));
        let (texts, sizes) = self.texts(&loaded)?;
        let program = loaded.source.program(&ThreadArgs::default().of(self.engine.options()?))?;
        let name = logits_of(program.graph())?;
        let mut session = Session::new(program)?;
        let mut logits = Vec::new();
        for ids in &texts {
            session.reset();
            let outputs = session.forward(ids, Rows::All)?;
            logits.extend_from_slice(outputs.f32(&name).unwrap_or(&[]));
        }
        let width = logits.len() / sizes.iter().product::<usize>().max(1);
        let sizes = [&sizes[..], &[width]].concat();
        if is_file(&self.output) {
            files::write_whole(&self.output, |out| npy::write_f32(out, &sizes, &logits))?;
        } else {
            let mut npy = Vec::new();
            // Memory takes all of it.
            let _ = npy::write_f32(&mut npy, &sizes, &logits);
            emit_bytes(&npy)?;
        }
        let last = &logits[logits.len() - width..];
        status(&format!(
            "{}: f32 {sizes:?}; after the last token, id {} is likeliest",
            self.output.display(),
            best(last)
        ));
        Ok(())
    }
}

impl LogitsCommand {
    /// The texts of ids, and their sizes without that of a row of logits.
    fn texts(&self, loaded: &Loaded) -> Result<(Vec<Vec<u32>>, Vec<usize>), Diagnostics> {
        let path = match &self.tokens {
            TokenIds::Ids(ids) => return Ok((vec![ids.clone()], vec![ids.len()])),
            TokenIds::File(path) => path,
        };
        let file = IdFile::open(path)?;
        file.check(vocabulary(&loaded.source.graph)?)?;
        if file.is_empty() {
            return Err(Diagnostic::new(file.place(), "holds no ids").code(ErrorCode::FILE).into());
        }
        let length = file.length();
        let sizes = if file.texts() == 1 { vec![length] } else { vec![file.texts(), length] };
        Ok(((0..file.texts()).map(|text| file.ids(text * length..(text + 1) * length)).collect(), sizes))
    }
}

/// Whether an output is a file, and not standard output.
fn is_file(output: &Path) -> bool {
    output.as_os_str() != "-"
}
