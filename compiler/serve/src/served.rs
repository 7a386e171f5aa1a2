//! The model that is served: its program, tokenizer and chat template, and what is told of it.

use snnc::chat::find::template_source;
use snnc::convert::vocabulary;
use snnc::energy::PriceList;
use snnc::evaluate::logits_of;
use snnc::model::{EngineOptions, Loaded};
use snnc::tokens::Tokens;
use snnc::tokens::start::StartChoice;
use snnc_ir::Stage;
use snnc_ir::diagnostic::Diagnostics;
use snnc_passes::cost::Form;
use snnc_runtime::Program;
use std::path::Path;
use std::sync::Arc;

/// A model, ready to be served.
#[derive(Debug)]
pub struct ServedModel {
    /// What clients call it.
    pub name: String,
    /// Its program.
    pub program: Arc<Program>,
    /// The same program, which counts spikes; a dense network has none.
    pub counting: Option<Arc<Program>>,
    /// Its tokenizer.
    pub tokens: Arc<Tokens>,
    /// A chat template and where it is from, if there is one.
    pub template: Option<(String, String)>,
    /// The output that has logits.
    pub output: String,
    /// Logits per token.
    pub vocabulary: usize,
    /// Price lists of the estimated energy.
    pub lists: Vec<PriceList>,
    /// How the program is run, for its energy.
    pub form: Form,
}

impl ServedModel {
    /// Makes a model ready. `name`: what clients call it, without one the file's.
    ///
    /// # Errors
    /// It has no tokenizer, predicts no tokens, or cannot be run; the template cannot be read.
    pub fn new(
        loaded: Loaded,
        name: Option<String>,
        start: &StartChoice,
        engine: &EngineOptions,
        context: Option<u32>,
        template: Option<&Path>,
    ) -> Result<Self, Diagnostics> {
        let (tokens, program) = loaded.ready(start, engine, context);
        let (tokens, program) = (Arc::new(tokens?), program?);
        let is_spiking = loaded.source.graph.stage == Stage::Spiking;
        let counted = EngineOptions { count: true, ..*engine };
        let counting = is_spiking.then(|| loaded.source.clone().program_within(&counted, context)).transpose()?;
        let stem = || loaded.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            name: name.unwrap_or_else(stem),
            output: logits_of(program.graph())?,
            vocabulary: vocabulary(program.graph())?,
            template: template_source(&loaded, tokens.language(), template)?,
            lists: PriceList::built_in(),
            form: if engine.stepped { Form::Stepped } else { Form::Collapsed },
            program,
            counting,
            tokens,
        })
    }

    /// Tokens that a sequence may have.
    pub fn context(&self) -> usize {
        self.program.graph().context as usize
    }
}
