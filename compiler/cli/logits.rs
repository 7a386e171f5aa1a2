//! `snnc logits`: raw predictions for given token ids, as a NumPy file.

use crate::args::{EngineArgs, ThreadArgs};
use crate::output::status;
use clap::Args;
use snnc::evaluate::{best, logits_of};
use snnc::files;
use snnc::model::Loaded;
use snnc::npy;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::{Rows, Session};
use std::path::PathBuf;

/// Write the logits of given token ids as a NumPy file: f32 [tokens, vocabulary]
#[derive(Args, Debug)]
pub struct LogitsCommand {
    /// The .snn or .onnx file
    model: PathBuf,
    /// Token ids, as in 5,17,9
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// The .npy file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
}

impl LogitsCommand {
    pub fn run(self) -> Result<(), Diagnostics> {
        files::check_writable(&self.output)?;
        let program = Loaded::read(&self.model)?.source.program(&ThreadArgs::default().of(self.engine.options()?))?;
        let name = logits_of(program.graph())?;
        let mut session = Session::new(program)?;
        let outputs = session.forward(&self.tokens, Rows::All)?;
        let logits = outputs.f32(&name).unwrap_or(&[]);
        let sizes = [self.tokens.len(), logits.len() / self.tokens.len()];
        files::write_whole(&self.output, |out| npy::write_f32(out, &sizes, logits))?;
        let last = &logits[logits.len() - sizes[1]..];
        status(&format!(
            "{}: f32 {sizes:?}; after the last token, id {} is likeliest",
            self.output.display(),
            best(last)
        ));
        Ok(())
    }
}
