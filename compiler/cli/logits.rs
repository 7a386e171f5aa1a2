//! `snnc logits`: raw predictions for given token ids, as a NumPy file.

use crate::args::{EngineArgs, OnnxArgs, ThreadArgs};
use crate::output::{emit_bytes, status, warn};
use clap::Args;
use snnc::evaluate::{best, logits_of};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::model::Loaded;
use snnc::npy;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_runtime::{Rows, Session};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Write the logits of given token ids as a NumPy file: f32 [tokens, vocabulary]
#[derive(Args, Debug)]
pub struct LogitsCommand {
    /// The .snn or .onnx file
    model: PathBuf,
    /// Token ids, as in 5,17,9
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
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
        used.writes("-o", is_file(&self.output).then_some(&self.output))
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        if !is_file(&self.output) && std::io::stdout().is_terminal() {
            let error = Diagnostic::new("-o -", "standard output is a terminal, which shows no numbers of a .npy file");
            return Err(error.code(ErrorCode::OPTION).note("name a file, or pipe it to another program").into());
        }
        let loaded = Loaded::read(&self.model, &self.onnx.options()?)?;
        loaded.warnings.iter().for_each(|warning| warn(warning));
        let program = loaded.source.program(&ThreadArgs::default().of(self.engine.options()?))?;
        let name = logits_of(program.graph())?;
        let mut session = Session::new(program)?;
        let outputs = session.forward(&self.tokens, Rows::All)?;
        let logits = outputs.f32(&name).unwrap_or(&[]);
        let sizes = [self.tokens.len(), logits.len() / self.tokens.len()];
        if is_file(&self.output) {
            files::write_whole(&self.output, |out| npy::write_f32(out, &sizes, logits))?;
        } else {
            let mut npy = Vec::new();
            // Memory takes all of it.
            let _ = npy::write_f32(&mut npy, &sizes, logits);
            emit_bytes(&npy)?;
        }
        let last = &logits[logits.len() - sizes[1]..];
        status(&format!(
            "{}: f32 {sizes:?}; after the last token, id {} is likeliest",
            self.output.display(),
            best(last)
        ));
        Ok(())
    }
}

/// Whether an output is a file, and not standard output.
fn is_file(output: &Path) -> bool {
    output.as_os_str() != "-"
}
