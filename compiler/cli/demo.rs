//! `snnc demo`: the whole path on the model in the repository.

use crate::bar::Bar;
use crate::output::{emit, status};
use crate::{energy_table, eval_table};
use clap::Args;
use snnc::convert::{self, BUILT_IN_TEXT, CALIBRATION_TOKENS, ConvertOptions, Sample};
use snnc::energy;
use snnc::energy::{PriceList, Setting};
use snnc::eval_report::ReferenceKind;
use snnc::evaluate::{Cut, evaluate};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::OnnxOptions;
use snnc::generate::{Request, generate};
use snnc::model::{EngineOptions, Loaded, ModelSource, threads_or_all};
use snnc::progress::Workers;
use snnc::record::ProgramRecord;
use snnc::tokens::start::StartChoice;
use snnc_ir::container::{self, File};
use snnc_ir::diagnostic::Diagnostics;
use snnc_passes::levels::Levels;
use snnc_passes::options::QuantOptions;
use std::path::PathBuf;
use std::time::Instant;

/// Compile the model in the repository, let it write beside the dense network, and estimate its energy
#[derive(Args, Debug)]
pub struct DemoCommand {
    /// The folder of model.onnx and tokenizer.json
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/wt2-gelu"))]
    model: PathBuf,
    /// Output file [default: the program is not kept]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the text begins
    #[arg(long, default_value = "The river")]
    prompt: String,
}

/// Windows of the built-in text that fidelity and energy are measured on.
const WINDOWS: usize = 4;

impl DemoCommand {
    pub fn files(&self) -> FileUse {
        FileUse::default().reads_models("the model", [self.model.join("model.onnx")]).writes("-o", &self.output)
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let path = self.model.join("model.onnx");
        status(&format!("1. compile {}", path.display()));
        let start = Instant::now();
        let bar = Bar::default();
        let loaded = Loaded::read(&path, &OnnxOptions::default())?;
        let tokens = loaded.tokens(&StartChoice::Auto)?;
        let sample = Sample::Text { name: "the built-in text".into(), text: BUILT_IN_TEXT.into(), tokens: &tokens };
        let levels = Levels::default();
        let recipe = ConvertOptions {
            quant: QuantOptions::uniform(levels),
            calibration_tokens: CALIBRATION_TOKENS,
            threads: threads_or_all(None),
        };
        let converted = convert::convert_watched(
            loaded.source.graph.clone(),
            loaded.source.rounded,
            &sample,
            &recipe,
            &bar,
            &mut |_, _, _| {},
        )?;
        status(&format!(
            "   {} code, {} timesteps, in {:.1} s; calibrated on {}",
            levels.code.name(),
            levels.steps,
            start.elapsed().as_secs_f64(),
            converted.calibration.source
        ));
        if let Some(output) = &self.output {
            let file = File {
                tokenizer: loaded.tokenizer.clone().map(|file| file.json),
                language: Some(tokens.language().clone()),
                provenance: Some(ProgramRecord::default().to_bytes()),
                calibration: Some(converted.section.to_string().into_bytes()),
                ..File::new(converted.graph.clone())
            };
            files::write_whole(output, |out| container::write(&file, out))?;
            status(&format!("   kept as {}", output.display()));
        }
        let dense = loaded.source.program(&EngineOptions::default())?;
        let spiking = ModelSource { graph: converted.graph, rounded: false }
            .program(&EngineOptions { count: true, ..EngineOptions::default() })?;

        status("2. let both networks continue a text, greedily");
        let request = Request::new(&self.prompt, 40);
        for (name, program) in [("dense", &dense), ("spiking", &spiking)] {
            let done = generate(program, &tokens, &request, &mut |_| Ok(()))?;
            emit(&format!("\n{name:>8}: {}{}\n", self.prompt, done.text))?;
        }

        status(
            "\n3. measure the spiking network beside the dense one (on the text that ranges were measured on; `eval` takes any)",
        );
        let ids = tokens.document(BUILT_IN_TEXT)?;
        let done = evaluate(
            &spiking,
            Some(&dense),
            &ids,
            Cut { length: None, stride: None, windows: WINDOWS },
            Workers { threads: threads_or_all(None), progress: &bar },
        )?;
        emit(&format!("\n{}\n", eval_table::scores(&done, Some(ReferenceKind::Dense), None)))?;

        status("4. estimate the energy of that run");
        let context = u64::from(spiking.graph().context);
        let setting = Setting { context, batch: 1, span: spiking.options().chunk as u64 };
        let lists = PriceList::built_in();
        let shown = lists[0].clone();
        let estimate = energy::estimate(spiking.graph(), &done.activity(), setting, lists);
        emit(&format!("\n{}", energy_table::tables(&estimate, &shown)))
    }
}
