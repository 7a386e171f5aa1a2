//! `snnc demo`: the whole path on the model in the repository.

use super::run::{Request, generate};
use super::{EngineArgs, Input, Loaded, eval, note, print, program, threads};
use crate::convert::{self, BUILT_IN_TEXT, CALIBRATION_TOKENS, Recipe, Sample};
use crate::energy::{PriceList, Setting};
use crate::evaluate::{Cut, evaluate};
use crate::{Complaints, energy, files};
use clap::Args;
use snnc_ir::container::{self, File};
use snnc_passes::fit::{Levels, Wishes};
use snnc_runtime::SampleOptions;
use std::path::PathBuf;
use std::time::Instant;

/// Compile the model in the repository, let it write beside the dense network, and estimate its energy
#[derive(Args, Debug)]
pub struct Demo {
    /// The folder of model.onnx and tokenizer.json
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/wt2-gelu"))]
    model: PathBuf,
    /// Where the program goes [default: it is not kept]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the text begins
    #[arg(long, default_value = "The river")]
    prompt: String,
}

/// Windows of the built-in text that fidelity and energy are measured on.
const WINDOWS: usize = 4;

impl Demo {
    pub fn run(self) -> Result<(), Complaints> {
        let path = self.model.join("model.onnx");
        note(&format!("1. compile {}", path.display()));
        let start = Instant::now();
        let loaded = Loaded::read(&path)?;
        let tokens = loaded.tokens(&path)?;
        let sample = Sample::Text { name: "the built-in text".into(), text: BUILT_IN_TEXT.into(), tokens: &tokens };
        let levels = Levels::default();
        let recipe =
            Recipe { wishes: Wishes::uniform(levels), calibration_tokens: CALIBRATION_TOKENS, threads: threads(None) };
        let converted =
            convert::convert(loaded.input.graph.clone(), loaded.input.rounded, &sample, &recipe, &mut |_, _, _| {})?;
        note(&format!(
            "   {} code, {} timesteps, in {:.1} s; calibrated on {}",
            levels.code.name(),
            levels.steps,
            start.elapsed().as_secs_f64(),
            converted.calibration.source
        ));
        if let Some(output) = &self.output {
            let file = File {
                tokenizer: loaded.tokenizer.clone(),
                calibration: Some(converted.section.to_string().into_bytes()),
                ..File::new(converted.graph.clone())
            };
            files::write_whole(output, |out| container::write(&file, out))?;
            note(&format!("   kept as {}", output.display()));
        }
        let dense = program(loaded.input, &EngineArgs::default(), false)?;
        let spiking = program(Input { graph: converted.graph, rounded: false }, &EngineArgs::default(), true)?;

        note("2. let both networks continue a text, greedily");
        let request = Request { prompt: &self.prompt, most: 40, options: SampleOptions::default(), stop: &[] };
        for (name, program) in [("dense", &dense), ("spiking", &spiking)] {
            let done = generate(program, &tokens, &request, &mut |_| Ok(()))?;
            print(&format!("\n{name:>8}: {}{}\n", self.prompt, done.text))?;
        }

        note(
            "\n3. measure the spiking network beside the dense one (on the text that ranges were measured on; `eval` takes any)",
        );
        let ids = tokens.document(BUILT_IN_TEXT)?;
        let done = evaluate(
            &spiking,
            Some(&dense),
            &ids,
            Cut { length: None, stride: None, windows: WINDOWS },
            threads(None),
        )?;
        print(&format!("\n{}\n", eval::as_text(&done, true, None)))?;

        note("4. estimate the energy of that run");
        let context = u64::from(spiking.graph().context);
        let setting = Setting { context, batch: 1, span: spiking.options().chunk as u64 };
        let lists = PriceList::built_in();
        let shown = lists[0].clone();
        let estimate = energy::estimate(spiking.graph(), &done.activity(), setting, lists);
        print(&format!("\n{}", estimate.table(&shown)))
    }
}
