//! snnc inside another program: compile a model, continue a text, and ask what its spikes cost.

use snnc::compile::{CompileOptions, compile};
use snnc::energy::run::{EnergyOptions, energy};
use snnc::energy::{Block, Phase};
use snnc::front::OnnxOptions;
use snnc::generate::{Request, generate};
use snnc::model::{EngineOptions, Loaded};
use snnc::progress::Silent;
use snnc::tokens::start::StartChoice;
use snnc_passes::cost::{Form, Number};
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    // Compile: whatever `snnc compile` can be told is a field of the options.
    let program_file = Path::new("embedded.snn");
    let mut options = CompileOptions::new(Path::new("model.onnx"));
    options.calibration_tokens = Some(512);
    compile(&options, &Silent, &mut |_, _| {})?.write(program_file)?;

    // Run: tokenizer and program are made once, and serve any number of texts.
    let loaded = Loaded::read(program_file, &OnnxOptions::default())?;
    let (tokens, program) = loaded.ready(&StartChoice::Auto, &EngineOptions::default(), None);
    let written = generate(&program?, &tokens?, &Request::new("The river", 20), &mut |_| Ok(()))?;
    writeln!(io::stdout(), "The river{}", written.text)?;

    // Count: the share of energy that the spiking network saves, by the first price list.
    let estimate = energy(&EnergyOptions::new(program_file), &Silent)?;
    let list = &estimate.lists[0];
    let dense = Form::Dense(Number::F32);
    let compared = estimate.compare(Block::Total, list, Phase::Prefill, dense, Form::Collapsed);
    match compared.saving() {
        Some(share) => writeln!(io::stdout(), "{} saves {:.1} %", list.name, 100.0 * share)?,
        None => writeln!(io::stdout(), "{} has no price for something", list.name)?,
    }
    Ok(())
}
