//! From files to what the page shows.

use crate::explore::code::{ExploredProgram, explored};
use crate::explore::contents::{Exploration, LeftOutLayers};
use crate::explore::stages::{IrStage, LayerFilter, NodeFacts, Places, lines};
use crate::front::OnnxOptions;
use crate::model::Loaded;
use crate::record::ProgramRecord;
use crate::report::{file_name, run_again};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode, Graph, Stage};
use snnc_passes::collapse;
use snnc_runtime::{Isa, Options, Program};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an exploration is told.
#[derive(Clone, Debug)]
pub struct ExploreOptions {
    /// The `.snn` file.
    pub model: PathBuf,
    /// What the user says of an ONNX file.
    pub onnx: OnnxOptions,
    /// The ONNX file or folder that the program came from.
    pub reference: Option<PathBuf>,
    /// Layers to show, from 0; all without it, as long as the page is not too large.
    pub layers: Option<RangeInclusive<u32>>,
    /// Instructions that kernels may use; `None` takes the variable `SNNC_ISA`, or the best that the machine has.
    pub isa: Option<Isa>,
    /// The command that makes the page again.
    pub command: String,
}

impl ExploreOptions {
    /// Of the program alone.
    pub fn new(model: &Path) -> Self {
        Self {
            model: model.to_path_buf(),
            onnx: OnnxOptions::default(),
            reference: None,
            layers: None,
            isa: None,
            command: String::new(),
        }
    }
}

/// Bytes of data beyond which a page shows only some layers: more is slow to open on a phone.
const BYTES_MAX: usize = 7_500_000;

/// Layers that a page of a large network shows.
const LAYERS_OF_LARGE: RangeInclusive<u32> = 0..=1;

/// A program from its IR to machine code.
///
/// # Errors
/// What cannot be read, is no compiled program, or does not belong to its reference; layers that the network does not have.
pub fn build(options: &ExploreOptions) -> Result<Exploration, Diagnostics> {
    let model = Loaded::read(&options.model, &options.onnx)?;
    if model.source.graph.stage != Stage::Spiking {
        let message = "is a dense network: it has not been through the passes";
        let e = Diagnostic::new(options.model.display().to_string(), message).code(ErrorCode::OPTION);
        return Err(e.note("compile it first: snnc compile").into());
    }
    let network = network(options, model)?;
    let exploration = network.show(options, options.layers.clone())?;
    if options.layers.is_some() || exploration.layers <= LAYERS_OF_LARGE.end() + 1 || size(&exploration) <= BYTES_MAX {
        return Ok(exploration);
    }
    let mut exploration = network.show(options, Some(LAYERS_OF_LARGE))?;
    exploration.left_out = exploration.left_out.map(|left_out| LeftOutLayers { for_size: true, ..left_out });
    Ok(exploration)
}

fn size(exploration: &Exploration) -> usize {
    serde_json::to_vec(exploration).map_or(0, |bytes| bytes.len())
}

/// All graphs of a network.
struct ExploredNetwork {
    /// The graph after every pass.
    stages: Vec<(String, Graph)>,
    gives_program: Option<bool>,
    /// Stages that run as they are, and what their form is called.
    forms: Vec<(usize, &'static str)>,
}

/// Runs the passes again where there is a reference.
fn network(options: &ExploreOptions, model: Loaded) -> Result<ExploredNetwork, Diagnostics> {
    let program = &model.source.graph;
    let mut stages: Vec<(String, Graph)> = Vec::new();
    let mut gives_program = None;
    if let Some(path) = &options.reference {
        let reference = Loaded::read(path, &options.onnx)?;
        let place = path.display().to_string();
        if reference.origin.is_none() {
            let message = "is a compiled program, where an ONNX file or a folder was expected";
            return Err(Diagnostic::new(place, message).code(ErrorCode::OPTION).into());
        }
        let Some(section) = model.calibration.as_deref() else {
            let message = "keeps no levels of its calibration, so its passes cannot be run again";
            let e = Diagnostic::new(options.model.display().to_string(), message).code(ErrorCode::OPTION);
            return Err(e.note("leave out --reference").into());
        };
        let record = ProgramRecord::of(model.provenance.as_deref());
        let own_embedding = record.options.is_some_and(|options| options.contains("--embedding own"));
        let dense = (reference.source.graph, reference.source.rounded);
        let mut watch = |pass: &str, graph: &Graph| stages.push((pass.to_string(), graph.clone()));
        let (_, same) = run_again(program, dense, section, own_embedding, &mut watch)?;
        gives_program = Some(same);
    }
    match (gives_program, stages.last_mut()) {
        // The same nodes, whose weights lie as engines read them.
        (Some(true), Some((_, last))) => *last = program.clone(),
        _ => stages.push(("program".into(), program.clone())),
    }
    let mut forms = vec![(stages.len() - 1, "stepped")];
    if !collapse::depends_on_order(program) {
        forms.insert(0, (stages.len(), "collapsed"));
        stages.push(("collapse".into(), collapse::collapse(program)?));
    }
    Ok(ExploredNetwork { stages, gives_program, forms })
}

/// The origins of a graph's nodes.
fn origins(graph: &Graph) -> impl Iterator<Item = String> + '_ {
    graph.iter().map(|(value, _)| graph.origin(value).name.clone()).filter(|name| !name.is_empty())
}

impl ExploredNetwork {
    fn show(&self, options: &ExploreOptions, layers: Option<RangeInclusive<u32>>) -> Result<Exploration, Diagnostics> {
        let mut places = Places::of(&self.stages);
        let of_nodes: Vec<Vec<u32>> = self.stages.iter().map(|(_, graph)| places.of_nodes(graph)).collect();
        let layers_of_all = places.all.iter().filter_map(|place| place.layer).max().map_or(0, |last| last + 1);
        if let Some(layers) = layers.as_ref().filter(|layers| *layers.end() >= layers_of_all) {
            let message = format!("there is no layer {}: the network has {layers_of_all}", layers.end());
            return Err(Diagnostic::new("--layers", message).code(ErrorCode::OPTION).into());
        }
        let filter = LayerFilter(layers.clone());
        let (mut programs, mut steps): (Vec<ExploredProgram>, _) = (Vec::new(), vec![Vec::new(); self.stages.len()]);
        let (mut left_out, mut isa) = (0, None);
        for &(stage, form) in &self.forms {
            let graph = Arc::new(self.stages[stage].1.clone());
            let engine = Options { count: false, isa: options.isa, ..Options::default() };
            let program = Program::new(graph, &engine)?;
            isa = isa.or(program.isa());
            let (shown, of_nodes, less) = explored(form, &program, &of_nodes[stage], &places, &filter)?;
            programs.push(shown);
            steps[stage] = of_nodes;
            left_out += less;
        }
        let origins: HashSet<String> =
            self.forms.iter().flat_map(|&(stage, _)| origins(&self.stages[stage].1)).collect();
        let mut stages = Vec::with_capacity(self.stages.len());
        for (i, (pass, graph)) in self.stages.iter().enumerate() {
            let folded = match steps[i].is_empty() {
                true => Places::folded(graph, &of_nodes[i], &origins),
                false => Vec::new(),
            };
            let facts = NodeFacts { places: &of_nodes[i], steps: &steps[i], folded: &folded };
            let (lines, less) = lines(graph, facts, &places, &filter);
            left_out += less;
            let program = self.forms.iter().position(|&(stage, _)| stage == i);
            stages.push(IrStage { pass: pass.clone(), stage: graph.stage.name(), program, lines });
        }
        let shown = layers.map(|layers| [*layers.start(), *layers.end()]);
        Ok(Exploration {
            title: file_name(&options.model),
            snnc: env!("CARGO_PKG_VERSION").into(),
            command: options.command.clone(),
            isa: isa.map_or("", Isa::name).into(),
            machine: std::env::consts::ARCH.into(),
            gives_program: self.gives_program,
            layers: layers_of_all,
            left_out: shown.map(|shown| LeftOutLayers { shown, lines: left_out, for_size: false }),
            places: places.all,
            stages,
            programs,
        })
    }
}
