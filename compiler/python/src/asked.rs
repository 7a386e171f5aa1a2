//! Options that a Python caller names: those of the commands, with underscores instead of dashes, and with values as text.

use snnc::file_use::FileUse;
use snnc::front::{InputBindings, OnnxOptions};
use snnc::kernel_costs;
use snnc::model::{EngineOptions, threads_or_all};
use snnc::option_values::{import_tolerance, threads};
use snnc::run_record::RunRecord;
use snnc::tokens::start::StartChoice;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_runtime::Engine;
use std::cell::RefCell;
use std::path::PathBuf;

/// How near a name has to be to be suggested, from 0 to 1.
const NEAR: f64 = 0.75;

/// A name with its value; a flag has none.
pub type Given = Vec<(String, Option<String>)>;

/// The options of a call. Every option that is looked at is known from then on; `finish` refuses the others.
#[derive(Debug)]
pub struct AskedOptions {
    command: &'static str,
    models: Vec<PathBuf>,
    given: Given,
    known: RefCell<Vec<&'static str>>,
}

impl AskedOptions {
    /// Options of a command on these models.
    pub fn new(command: &'static str, models: Vec<PathBuf>, given: Given) -> Self {
        Self { command, models, given, known: RefCell::default() }
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &Option<String>> {
        self.known.borrow_mut().push(name);
        self.given.iter().filter(move |(given, _)| given == name).map(|(_, value)| value)
    }

    /// All values of an option.
    ///
    /// # Errors
    /// One without a value.
    pub fn all(&self, name: &'static str) -> Result<Vec<String>, Diagnostics> {
        let none = || wrong(name, "needs a value".into());
        self.values(name).map(|value| value.clone().ok_or_else(none)).collect()
    }

    /// The value of an option.
    ///
    /// # Errors
    /// It is given without one, or twice.
    pub fn one(&self, name: &'static str) -> Result<Option<String>, Diagnostics> {
        let mut all = self.all(name)?;
        if all.len() > 1 { Err(wrong(name, "takes one value".into())) } else { Ok(all.pop()) }
    }

    /// The value of an option, read.
    ///
    /// # Errors
    /// It is none.
    pub fn read<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Diagnostics> {
        self.one(name)?.map(|text| read(&text).map_err(|message| wrong(name, message))).transpose()
    }

    /// The file of an option.
    ///
    /// # Errors
    /// As of `one`.
    pub fn file(&self, name: &'static str) -> Result<Option<PathBuf>, Diagnostics> {
        Ok(self.one(name)?.map(PathBuf::from))
    }

    /// Whether a flag is set.
    ///
    /// # Errors
    /// It has a value.
    pub fn flag(&self, name: &'static str) -> Result<bool, Diagnostics> {
        let values: Vec<_> = self.values(name).collect();
        match values.iter().any(|value| value.is_some()) {
            true => Err(wrong(name, "is True or False".into())),
            false => Ok(!values.is_empty()),
        }
    }

    /// Whether an option is given at all.
    pub fn has(&self, name: &'static str) -> bool {
        self.values(name).next().is_some()
    }

    /// Refuses two options that exclude each other.
    ///
    /// # Errors
    /// Both are given.
    pub fn excludes(&self, one: &'static str, other: &'static str) -> Result<(), Diagnostics> {
        match self.has(one) && self.has(other) {
            true => Err(wrong(one, format!("cannot be used with `{other}`"))),
            false => Ok(()),
        }
    }

    /// Refuses options that nobody has looked at.
    ///
    /// # Errors
    /// Every such option, with the nearest one that there is.
    pub fn finish(&self) -> Result<(), Diagnostics> {
        let mut known = self.known.borrow().clone();
        known.sort_unstable();
        known.dedup();
        let mut refused = Diagnostics::new();
        for (name, _) in self.given.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let near = |other: &&str| strsim::jaro_winkler(name, other);
            let nearest = known.iter().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|other| near(other) >= NEAR);
            let error = Diagnostic::new(name, format!("is no option of {}", self.command)).code(ErrorCode::OPTION);
            let error = match nearest {
                Some(nearest) => error.note(format!("did you mean `{nearest}`?")),
                None => error,
            };
            refused.push(error.note(format!("there are {}", known.join(", "))));
        }
        refused.or_else(())
    }

    /// What the same call is on the command line.
    pub fn arguments(&self) -> Vec<String> {
        let models = self.models.iter().map(|path| path.display().to_string());
        let options = self.given.iter().flat_map(|(name, value)| {
            let value = value.iter().cloned();
            std::iter::once(format!("--{}", name.replace('_', "-"))).chain(value)
        });
        std::iter::once(self.command.to_string()).chain(models).chain(options).collect()
    }

    /// The record of the call: the command that gives the same, which `snnc verify` repeats.
    pub fn record(&self, used: &FileUse) -> RunRecord {
        let json = std::iter::once("--json".to_string());
        RunRecord::of(self.arguments().into_iter().chain(json).collect(), used)
    }

    /// What is said of an ONNX file or a folder.
    ///
    /// # Errors
    /// A value that an option does not take.
    pub fn onnx(&self) -> Result<OnnxOptions, Diagnostics> {
        let inputs = InputBindings::parse(&self.all("input")?).map_err(|message| wrong("input", message))?;
        let import_tolerance = self.read("import_tolerance", import_tolerance)?;
        Ok(OnnxOptions { inputs, import_tolerance, architectures: self.file("architecture")?, context: None })
    }

    /// What stands before a text.
    ///
    /// # Errors
    /// An empty token.
    pub fn start(&self) -> Result<StartChoice, Diagnostics> {
        Ok(self.read("start", str::parse)?.unwrap_or_default())
    }

    /// Which engine runs a program, on one thread.
    ///
    /// # Errors
    /// Two engines.
    pub fn engine(&self) -> Result<EngineOptions, Diagnostics> {
        self.excludes("jit", "interpret")?;
        self.flag("jit")?;
        let engine = if self.flag("interpret")? { Engine::Interpreter } else { Engine::Jit };
        Ok(EngineOptions { engine, stepped: self.flag("stepped")?, ..EngineOptions::default() })
    }

    /// The same with the costs of this machine, where a file of them is named.
    ///
    /// # Errors
    /// Two engines; a file that is none.
    pub fn engine_with_costs(&self) -> Result<EngineOptions, Diagnostics> {
        let kernel_costs = self.file("kernel_costs")?.as_deref().map(kernel_costs::read).transpose()?;
        Ok(EngineOptions { kernel_costs, ..self.engine()? })
    }

    /// Threads, all without a number.
    ///
    /// # Errors
    /// No number of threads.
    pub fn threads(&self) -> Result<usize, Diagnostics> {
        Ok(threads_or_all(self.read("threads", threads)?))
    }
}

/// What is said of an option's value.
pub fn wrong(name: &str, message: String) -> Diagnostics {
    Diagnostic::new(name, message).code(ErrorCode::OPTION).into()
}
