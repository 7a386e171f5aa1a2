//! `snnc run`: continues a text.

use crate::args::{BATCH_MAX, EngineArgs, OnnxArgs, StartArgs, ThreadArgs};
use crate::output::{emit, status, warn};
use crate::plan::PlanArgs;
use crate::prompts;
use crate::ranks::{Spread, world};
use crate::sampling::{EndArgs, MostTokens, SampleArgs, context_in_words, most_tokens};
use clap::Args;
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::OnnxOptions;
use snnc::generate::{Request, continue_sequence, generate, prompt_ids};
use snnc::model::{EngineOptions, Loaded};
use snnc::split_layers::{SplitNetwork, SplitSequence};
use snnc::tokens::Tokens;
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use std::io::Read;
use std::path::PathBuf;

/// Continue a text with a .snn program, or with the dense network of an ONNX file or a folder
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc run model.snn -p 'Once upon a time' -n 40 --temp 0.8 -s 17
  snnc run model.snn --prompts prompts.txt --json > texts.jsonl")]
pub struct RunCommand {
    /// The .snn or .onnx file
    model: PathBuf,
    /// Text to continue; - reads standard input
    #[arg(short, long, value_name = "TEXT", required_unless_present = "prompts", conflicts_with = "prompts")]
    prompt: Option<String>,
    /// Continue every line of a file; - reads standard input. Line N uses the seed --seed plus N
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Lines of --prompts that are decoded together. No text depends on the others
    #[arg(long, value_name = "N", default_value_t = 8, conflicts_with = "prompt", value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    batch: u32,
    /// Print one line of JSON per prompt
    #[arg(long, conflicts_with = "prompt")]
    json: bool,
    /// Most tokens to write per prompt; -1 writes until the text or the context ends
    #[arg(short = 'n', long, value_name = "N", default_value = "40", value_parser = most_tokens, allow_negative_numbers = true)]
    max_new_tokens: MostTokens,
    /// Read the names of special tokens in a prompt, such as <|im_start|>, as plain text
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    end: EndArgs,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Under mpirun, split the layers between the ranks: for a network that one rank cannot hold
    #[arg(long, conflicts_with_all = ["prompts", "explain_plan", "emit"], help_heading = "Engine")]
    split_layers: bool,
    #[command(flatten)]
    sample: SampleArgs,
}

impl RunCommand {
    pub fn files(&self) -> FileUse {
        let used = self
            .onnx
            .files(FileUse::default())
            .reads_models("the model", [&self.model])
            .reads("--prompts", &self.prompts);
        self.plan.files(self.engine.files(used))
    }

    /// What it does with several processes.
    pub fn spread(&self) -> Spread {
        if self.split_layers { Spread::Ranks } else { Spread::Alone }
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        self.end.check(self.max_new_tokens)?;
        let onnx = OnnxOptions { context: self.end.context, ..self.onnx.options()? };
        let loaded = Loaded::read(&self.model, &onnx)?;
        loaded.warnings.iter().for_each(|warning| warn(warning));
        let engine = self.threads.of(self.engine.options()?);
        if self.split_layers {
            return self.run_split(loaded, &engine);
        }
        let (tokens, program) = loaded.ready(&self.start.start, &engine, self.end.context);
        let tokens = self.read_as(tokens?);
        loaded.lints().iter().for_each(|lint| warn(lint));
        let (text, program) = (self.text()?, program?);
        if self.end.context.is_some() {
            status(&context_in_words(program.graph()));
        }
        let request = self.request(&text);
        if let Some(file) = &self.prompts {
            let file = if file.as_os_str() == "-" { "standard input".into() } else { file.display().to_string() };
            let setting = prompts::PromptFile { file: &file, request, batch: self.batch as usize, json: self.json };
            return prompts::continue_all(&program, &tokens, &setting, &text);
        }
        emit(&text)?;
        let done = generate(&program, &tokens, &request, &mut emit)?;
        emit("\n")?;
        let code = program.codegen_ms();
        let code = if code > 0.0 { format!("; machine code in {code:.1} ms") } else { String::new() };
        status(&format!("{}{code}", done.summary()));
        // Beside the text, which is the data.
        self.plan.show(&program, Some(&done.products), &mut |text| {
            status(text.trim_end());
            Ok(())
        })
    }
}

impl RunCommand {
    /// Continues the prompt by layers that the ranks share.
    fn run_split(&self, loaded: Loaded, engine: &EngineOptions) -> Result<(), Diagnostics> {
        let tokens = self.read_as(loaded.tokens(&self.start.start)?);
        loaded.lints().iter().for_each(|lint| warn(lint));
        let network = SplitNetwork::new(loaded.source, engine, self.end.context, world())?;
        let text = self.text()?;
        let request = self.request(&text);
        let context = network.whole.context as usize;
        let ids = prompt_ids(&tokens, &text, request.prompt_tokens_max(context), "--prompt")?;
        let mut sequence = SplitSequence::new(&network, world())?;
        emit(&text)?;
        let done = continue_sequence(&mut sequence, &tokens, &request, ids, &mut emit)?;
        emit("\n")?;
        status(&done.summary());
        Ok(())
    }

    fn read_as(&self, tokens: Tokens) -> Tokens {
        if self.plain { tokens.plain() } else { tokens }
    }

    fn request<'a>(&'a self, prompt: &'a str) -> Request<'a> {
        Request {
            prompt,
            most: self.max_new_tokens.0,
            options: self.sample.options(),
            stop: &self.end.stop,
            on_full: self.end.on_full,
        }
    }

    /// The prompt, or the file of prompts.
    fn text(&self) -> Result<String, Diagnostics> {
        match (&self.prompts, self.prompt.as_deref()) {
            (Some(file), _) if file.as_os_str() == "-" => standard_input(),
            (Some(file), _) => files::read_text(file).map_err(Diagnostics::from),
            (None, None | Some("-")) => standard_input(),
            (None, Some(text)) => Ok(text.to_string()),
        }
    }
}

fn standard_input() -> Result<String, Diagnostics> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().read_to_end(&mut bytes);
    let wrong = |what: String| Diagnostics::from(Diagnostic::new("standard input", what).code(ErrorCode::OPTION));
    read.map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".into()))?;
    Ok(files::without_mark(text).trim_end_matches('\n').to_string())
}
