//! `snnc nir`: runs a NIR file by the letter of the format.

use crate::output::{emit, status};
use clap::Args;
use snnc::export::npz::{NpzArray, NpzFile};
use snnc::file_use::FileUse;
use snnc::nir::simulate::Simulation;
use snnc::nir::{NirNode, read};
use snnc::npy;
use snnc_ir::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use std::path::PathBuf;

/// Run a NIR file of any tool by the letter of the format, for comparison
///
/// A state moves by --dt times its derivative per timestep. A neuron above its threshold spikes, and is reset.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc nir network.nir
  snnc nir network.nir --input spikes.npy --dt 0.0001 -o run.npz")]
pub struct NirCommand {
    /// The NIR file
    file: PathBuf,
    /// A .npy file with what comes in: [timesteps, channels], or [samples, timesteps, channels]. Without it nodes are listed
    #[arg(long, value_name = "FILE.npy", requires = "output")]
    input: Option<PathBuf>,
    /// Seconds of a timestep
    #[arg(long, value_name = "SECONDS", default_value = "0.0001", value_parser = seconds)]
    dt: f64,
    /// The .npz file to write: what every node gives, [samples, timesteps, channels]
    #[arg(short, long, value_name = "FILE.npz", requires = "input")]
    output: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0 && *x <= 1e6);
    seconds.ok_or_else(|| "it is a number above 0 and at most 1e6".into())
}

impl NirCommand {
    pub fn files(&self) -> FileUse {
        FileUse::default().reads("the file", [&self.file]).reads("--input", &self.input).writes("-o", &self.output)
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let graph = read::read(&self.file)?;
        let (Some(input), Some(output)) = (&self.input, &self.output) else {
            return emit(&listing(&graph.nodes));
        };
        let mut simulation =
            Simulation::new(&graph, self.dt).map_err(|e| e.in_file(self.file.display().to_string()))?;
        let place = input.display().to_string();
        let wrong = |message: String| Diagnostic::new(place.clone(), message).code(ErrorCode::FILE);
        let array = npy::read_f32(input)?;
        let (samples, timesteps, channels) = match array.sizes[..] {
            [timesteps, channels] => (1, timesteps, channels),
            [samples, timesteps, channels] => (samples, timesteps, channels),
            _ => return Err(wrong(format!("has the sizes {:?}; two or three were expected", array.sizes)).into()),
        };
        if channels != simulation.inputs() {
            return Err(wrong(format!("has {channels} channels, and the network takes {}", simulation.inputs())).into());
        }
        let mut given: Vec<Vec<f32>> = vec![Vec::new(); graph.nodes.len()];
        for sample in array.data.chunks_exact((timesteps * channels).max(1)) {
            simulation.reset();
            for row in sample.chunks_exact(channels) {
                given.iter_mut().zip(simulation.step(row)).for_each(|(all, row)| all.extend(row));
            }
        }
        let mut file = NpzFile::default();
        for ((name, node), all) in graph.nodes.iter().zip(&given) {
            let width = all.len() / (samples * timesteps).max(1);
            file.add(name, NpzArray::new(&[samples, timesteps, width], all));
            if node.spikes() {
                let spikes = all.iter().filter(|x| **x != 0.0).count();
                status(&format!("{name}: {} of {width} neurons, {spikes} spikes", node.type_name()));
            }
        }
        file.write(output)?;
        status(&format!("{}: {} nodes, {samples} samples of {timesteps} timesteps", output.display(), file.len()));
        Ok(())
    }
}

/// Nodes with their types and widths.
fn listing(nodes: &[(String, NirNode)]) -> String {
    nodes.iter().map(|(name, node)| format!("{name}: {} of {} channels\n", node.type_name(), node.width())).collect()
}
