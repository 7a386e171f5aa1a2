//! `snnc explore`: a page of the IR after every pass, the plan, Cranelift's IR and machine code, linked by origin.

use crate::args::OnnxArgs;
use crate::opt::layers;
use crate::output::status;
use clap::Args;
use snnc::explore::{self, ExploreOptions};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::report::file_name;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::{ISAS, Isa};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Write a page of the IR by pass, the plan, Cranelift's IR and machine code, linked by origin
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc explore model.snn -o model.html
  snnc explore model.snn --reference model.onnx --layers 0-1 -o model.html

The page is one file. It opens in any browser, without a network.")]
pub struct ExploreCommand {
    /// The .snn file
    model: PathBuf,
    /// Output file [default: the program's name with .explore.html, in the current folder]
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// The ONNX file or folder that the program was compiled from. It adds the IR of the passes before the program
    #[arg(long, value_name = "MODEL.onnx")]
    reference: Option<PathBuf>,
    /// Show only these layers, counted from 0: `2`, or `0-1` [default: all; the first two where the page would be too large]
    #[arg(long, value_name = "N[-M]", value_parser = layers)]
    layers: Option<RangeInclusive<u32>>,
    /// Instructions that kernels may use: the fewer, the more is generated code [default: the best of this machine]
    #[arg(long, value_name = "portable|avx2|avx512", value_parser = isa)]
    isa: Option<Isa>,
    #[command(flatten)]
    onnx: OnnxArgs,
}

fn isa(name: &str) -> Result<Isa, String> {
    match ISAS.into_iter().find(|isa| isa.name() == name) {
        Some(isa) if isa.is_available() => Ok(isa),
        Some(_) => Err("this machine does not have it".into()),
        None => Err(format!("there are {}", ISAS.map(Isa::name).join(", "))),
    }
}

impl ExploreCommand {
    pub fn files(&self) -> FileUse {
        let used = self.onnx.files(FileUse::default()).reads_models("the model", [&self.model]);
        used.reads_models("--reference", &self.reference).writes("-o", [self.output()])
    }

    fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| files::default_output(&self.model, "explore.html"))
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let output = self.output();
        let command = self.command(&file_name(&output));
        let options = ExploreOptions {
            onnx: self.onnx.options()?,
            reference: self.reference,
            layers: self.layers,
            isa: self.isa,
            command,
            ..ExploreOptions::new(&self.model)
        };
        let exploration = explore::build(&options)?;
        let page = explore::page(&exploration);
        files::write_whole(&output, |out| out.write_all(page.as_bytes()))?;
        if let Some(left_out) = exploration.left_out.filter(|left_out| left_out.for_size) {
            let [first, last] = left_out.shown;
            let layers = exploration.layers;
            status(&format!("the page shows layers {first} to {last} of {layers}; --layers names others"));
        }
        status(&format!("{}: {:.2} MB", output.display(), page.len() as f64 / 1e6));
        Ok(())
    }

    /// The command with file names alone.
    fn command(&self, output: &str) -> String {
        let mut line = format!("snnc explore {}", file_name(&self.model));
        if let Some(reference) = &self.reference {
            line += &format!(" --reference {}", file_name(reference));
        }
        if let Some(layers) = &self.layers {
            line += &format!(" --layers {}-{}", layers.start(), layers.end());
        }
        if let Some(isa) = self.isa {
            line += &format!(" --isa {}", isa.name());
        }
        line + &format!(" -o {output}")
    }
}
