//! `snnc serve`: a model over HTTP, until Ctrl-C or SIGTERM.

use crate::args::{EngineArgs, OnnxArgs, StartArgs, ThreadArgs};
use crate::bar;
use crate::output::{LogLevel, is_said, say, status, warn};
use crate::sampling::context_in_words;
use clap::{Args, ValueEnum};
use serde_json::Value as Json;
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::OnnxOptions;
use snnc::model::Loaded;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode};
use snnc_serve::served::ServedModel;
use snnc_serve::{Keys, Listening, ServeOptions, serve};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Serve a model over HTTP, for clients of OpenAI's interface and for a browser
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc serve model.snn
  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"The river\", \"max_tokens\": 20}'
  snnc serve model.snn --host 0.0.0.0 --api-key-file keys.txt

A browser shows a page for conversations at http://127.0.0.1:8080. Ctrl-C and
SIGTERM end the server when open requests have their answers.")]
pub struct ServeCommand {
    /// The .snn or .onnx file, or a folder
    model: PathBuf,
    /// What clients call the model [default: the file's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The address to listen at
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// The port to listen at; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Ask every client for one of the keys in this file, one per line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Serve other machines without a key
    #[arg(long)]
    open: bool,
    /// Chat template, a Jinja file [default: the one that the program keeps, or that is beside the ONNX file]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Context in tokens, at most the program's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    #[command(flatten)]
    limits: LimitArgs,
    /// How the log is written: a line per request
    #[arg(long, value_name = "text|json|off", default_value = "text")]
    log: LogForm,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// What clients may take.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Sequences that are run at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Sequences that may wait for a place; more are refused with 429
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    queue: u32,
    /// New tokens of an answer, at most [default: the context]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// KiB of a request, at most
    #[arg(long, value_name = "KIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    max_body: u32,
    /// Seconds of a request, at most
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86400))]
    max_seconds: u32,
    /// Open connections, at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    connections: u32,
    /// Seconds that a client has to send a request, or to read a part of an answer
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    patience: u32,
    /// Seconds that open requests have when the server is to end
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3600))]
    drain: u32,
}

/// How the log is written.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum LogForm {
    /// Words.
    Text,
    /// JSON.
    Json,
    /// Not at all.
    Off,
}

impl ServeCommand {
    pub fn files(&self) -> FileUse {
        let used = self
            .onnx
            .files(FileUse::default())
            .reads_models("the model", [&self.model])
            .reads("--template", &self.template)
            .reads("--api-key-file", &self.api_key_file);
        self.engine.files(used)
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let keys = self.keys()?;
        let onnx = OnnxOptions { context: self.context, ..self.onnx.options()? };
        let loaded = Loaded::read(&self.model, &onnx)?;
        loaded.warnings.iter().chain(&loaded.lints()).for_each(|warning| warn(warning));
        let engine = self.threads.of(self.engine.options()?);
        let template = self.template.as_deref();
        let model = ServedModel::new(loaded, self.name, &self.start.start, &engine, self.context, template)?;
        status(&context_in_words(model.program.graph()));
        let seconds = |count: u32| Duration::from_secs(count.into());
        let limits = self.limits;
        let options = ServeOptions {
            address: SocketAddr::new(self.host, self.port),
            places: limits.batch as usize,
            queue: limits.queue as usize,
            body: limits.max_body as usize * 1024,
            tokens: limits.max_tokens.map(|tokens| tokens as usize),
            time: seconds(limits.max_seconds),
            connections: limits.connections as usize,
            patience: seconds(limits.patience),
            drain: seconds(limits.drain),
            keys,
        };
        bar::listen(true);
        let console = Console { log: self.log, name: model.name.clone() };
        serve(model, &options, Arc::new(console))?;
        status("the server has ended");
        Ok(())
    }

    /// The keys that clients need.
    ///
    /// # Errors
    /// The file has none; others than this machine could ask without one.
    fn keys(&self) -> Result<Keys, Diagnostics> {
        let Some(path) = &self.api_key_file else {
            if self.host.is_loopback() || self.open {
                return Ok(Keys::default());
            }
            let what = "other machines could ask without a key";
            let error = Diagnostic::new(format!("--host {}", self.host), what).code(ErrorCode::OPTION);
            return Err(error.note("--api-key-file FILE asks for one; --open serves everybody").into());
        };
        let keys = Keys::parse(&files::read_text(path)?);
        if keys.is_empty() {
            let error = Diagnostic::new(path.display().to_string(), "has no keys").code(ErrorCode::OPTION);
            return Err(error.note("write one per line").into());
        }
        Ok(keys)
    }
}

/// Standard error, which is told of what the server does.
struct Console {
    log: LogForm,
    name: String,
}

impl Listening for Console {
    fn ready(&self, address: SocketAddr) {
        status(&format!("{} is served at http://{address}; Ctrl-C ends", self.name));
    }

    fn log(&self, line: &Json) {
        if !is_said(LogLevel::Info) {
            return;
        }
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_string();
        match self.log {
            LogForm::Json => say(&line.to_string()),
            LogForm::Text => {
                let [time, method, path] = ["time", "method", "path"].map(text);
                let tokens = match (line["prompt_tokens"].as_u64(), line["completion_tokens"].as_u64()) {
                    (Some(prompt), Some(written)) => format!(", {prompt} prompt tokens, {written} written"),
                    _ => String::new(),
                };
                say(&format!("{time} {method} {path} {} {} s{tokens}", line["status"], line["seconds"]));
            }
            LogForm::Off => {}
        }
    }

    fn is_over(&self) -> bool {
        bar::was_interrupted()
    }
}
