//! `snnc train`: a compiled program learns from the dense network it came from.

use crate::args::{OnnxArgs, StartArgs};
use crate::bar::{Bar, listen};
use crate::output::{emit_json_line, status};
use crate::ranks::world;
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use snnc::file_use::FileUse;
use snnc::front::OnnxOptions;
use snnc::model::threads_or_all;
use snnc::option_values::{
    STEPS_MAX, TRAIN_BATCH_MAX, decay, gradients, hybrid_budget, minutes, norm, parameters, rate, recompute, surrogate,
    text_or_ids, threads,
};
use snnc::train::events::TrainEvent;
use snnc::train::run::{GradientFormat, MINUTES, Recompute};
use snnc::train::{Outcome, TrainLength, TrainOptions, train};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::Surrogate;
use snnc_passes::relax::{Loss, Trainable as Parameters};
use std::path::PathBuf;
use std::time::Duration;

/// Train a compiled program to predict like the dense network it came from
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc compile model.onnx --attention linear -o linear.snn
  snnc train linear.snn --reference model.onnx --text train.txt --minutes 30 -o trained.snn")]
pub struct TrainCommand {
    /// The .snn file
    program: PathBuf,
    /// What the program learns to predict like: the ONNX file or folder that it was compiled from, or another program of it.
    ///
    /// A program with `ttfs` attention and 8 timesteps predicts nearly as the dense network, with integer products.
    #[arg(long, value_name = "MODEL")]
    reference: PathBuf,
    /// Output file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Parameters to train: `ssa`, `thresholds`, `lora:R` or `all`.
    ///
    /// `ssa` trains the weights, maps, thresholds and half-lives of attention.
    /// `thresholds` trains thresholds, biases, slopes, sinks and half-lives everywhere, and no weights.
    /// `lora:R` adds to these a product of rank R beside every weight.
    #[arg(long, value_name = "WHAT", default_value = "ssa", value_parser = parameters)]
    parameters: Parameters,
    /// Budget for a hybrid of trained layers and layers with `ttfs` attention.
    ///
    /// After training, layers that lose most return to `ttfs`, until perplexity is within this budget of the dense network's.
    #[arg(long, value_name = "perplexity+2%", value_parser = hybrid_budget)]
    hybrid: Option<f64>,
    /// Print one line of JSON per step and per validation
    #[arg(long)]
    json: bool,
    /// Text to train on: a file, a .jsonl file with a string "text" per line, or a folder of such files.
    ///
    /// Documents of a .jsonl file or a folder stand one after the other, with the tokens that end and begin a text between them.
    /// Windows are tokenised as they are drawn, so that texts may be larger than memory.
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "tokens", help_heading = "Text")]
    text: Option<PathBuf>,
    /// Token ids instead of a text: a .npy file of integers, [n] or [texts, n]. They are run as they are
    #[arg(long, value_name = "FILE.npy", conflicts_with = "text", help_heading = "Text")]
    tokens: Option<PathBuf>,
    /// Text, documents or .npy file of token ids to validate on [default: the last twentieth of --text, which is then not trained on].
    ///
    /// It may be given several times. The first text decides which step is the best, and the losses of the others are printed.
    #[arg(long, value_name = "FILE|DIR", help_heading = "Text")]
    validate: Vec<PathBuf>,
    /// Loss: `kl`, `ce` or `transfer`.
    ///
    /// `kl` is the divergence from the reference's predictions. `ce` is the cross-entropy of the text.
    /// `transfer` is the error of every block, given the reference's input to it. Use it as a start before `kl`.
    #[arg(long, value_enum, default_value = "kl", help_heading = "Optimiser")]
    loss: LossName,
    /// Surrogate for the derivative of a spike: arctan, fast_sigmoid, triangle or rectangle
    #[arg(long, value_name = "NAME", default_value = "arctan", value_parser = surrogate, help_heading = "Optimiser")]
    surrogate: Surrogate,
    /// Numbers that products of the backward pass multiply: f32, or bf16, to which operands are rounded.
    ///
    /// bf16 is faster and needs a processor with AMX-BF16 or AVX512-BF16. Gradients then differ by less than 1 %. The
    /// forward pass stays exact.
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = gradients, help_heading = "Optimiser")]
    gradients: GradientFormat,
    /// Compute values of the forward pass again in the backward pass: slower, with less memory, and the same result.
    ///
    /// `auto` does so where values would take more than an eighth of the memory that there is.
    #[arg(long, value_name = "auto|always|never", default_value = "auto", value_parser = recompute, help_heading = "Engine")]
    recompute: Recompute,
    /// Minutes to train. They are converted to a number of steps at the start
    #[arg(long, value_name = "N", conflicts_with = "steps", value_parser = minutes, help_heading = "Optimiser")]
    minutes: Option<f64>,
    /// Steps to train. [default: as many as 10 minutes hold]
    ///
    /// 0 trains nothing, for --hybrid on a program that was trained before.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=STEPS_MAX), help_heading = "Optimiser")]
    steps: Option<u64>,
    /// Windows of text per step
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=i64::from(TRAIN_BATCH_MAX)), help_heading = "Optimiser")]
    batch: u32,
    /// Tokens per window [default: the context's length, at most 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..), help_heading = "Text")]
    window_tokens: Option<u32>,
    /// Peak learning rate [default: 0.002 for `ssa` and `thresholds`, otherwise 0.001]
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Optimiser")]
    rate: Option<f32>,
    /// Weight decay of AdamW, as a share of the learning rate
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = decay, help_heading = "Optimiser")]
    weight_decay: f32,
    /// Largest norm of a step's gradients; larger ones are scaled down
    #[arg(long, value_name = "NORM", default_value_t = 1.0, value_parser = norm, help_heading = "Optimiser")]
    clip: f32,
    /// Steps until the learning rate is at its peak
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=STEPS_MAX), help_heading = "Optimiser")]
    warm_up: u64,
    /// Seed of the places that windows are taken from
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Optimiser")]
    seed: u64,
    /// Resume from the checkpoint beside the output
    #[arg(long, help_heading = "Checkpoints")]
    resume: bool,
    /// Begin anew although there is a checkpoint beside the output; what it holds is lost
    #[arg(long, conflicts_with = "resume", help_heading = "Checkpoints")]
    restart: bool,
    /// Seconds between checkpoints
    #[arg(long, value_name = "N", default_value_t = 60, help_heading = "Checkpoints")]
    checkpoint_seconds: u64,
    /// End after N validations in a row without improvement.
    ///
    /// A validation is an improvement if its windows are better than those of the last improvement by more than the 95 % interval of
    /// their differences. A run has ten validations.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Optimiser")]
    patience: Option<u32>,
    /// Windows to validate on, of each text
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Text")]
    validation_windows: u32,
    /// Threads; the result does not depend on them
    #[arg(short = 't', long, value_name = "N", value_parser = threads, help_heading = "Engine")]
    threads: Option<usize>,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum LossName {
    Kl,
    Ce,
    Transfer,
}

impl TrainCommand {
    pub fn files(&self) -> FileUse {
        // Which files a run uses does not depend on what a network's inputs hold.
        self.onnx.files(self.options(OnnxOptions::default()).files())
    }

    /// Whether training came to its end, and was not interrupted.
    ///
    /// # Errors
    /// What cannot be read, trained or written.
    pub fn run(self) -> Result<bool, Diagnostics> {
        if self.steps == Some(0) && self.hybrid.is_none() {
            let message = "--steps 0 trains nothing; give it a number of steps, or --hybrid as well\n";
            clap::Error::raw(ErrorKind::ArgumentConflict, message).exit();
        }
        let bar = Bar::default();
        let mut watch = |event: &TrainEvent| {
            if self.json {
                return bar.suspend(|| emit_json_line(event));
            }
            event.words().iter().for_each(|words| bar.suspend(|| status(words)));
            Ok(())
        };
        text_or_ids(&self.text, &self.tokens)?;
        listen(true);
        let outcome = train(&self.options(self.onnx.options()?), &bar, &mut watch)?;
        listen(false);
        let Outcome::Interrupted { step, steps, checkpoint } = outcome else { return Ok(true) };
        status(&format!(
            "interrupted after step {step} of {steps}; {} has everything: go on with the same command and --resume",
            checkpoint.display()
        ));
        Ok(false)
    }

    fn options(&self, onnx: OnnxOptions) -> TrainOptions {
        TrainOptions {
            program: self.program.clone(),
            reference: self.reference.clone(),
            onnx,
            text: self.tokens.clone().or_else(|| self.text.clone()).unwrap_or_default(),
            validate: self.validate.clone(),
            start: self.start.start.clone(),
            output: self.output.clone(),
            parameters: self.parameters,
            loss: match self.loss {
                LossName::Kl => Loss::Divergence,
                LossName::Ce => Loss::CrossEntropy,
                LossName::Transfer => Loss::Transfer,
            },
            surrogate: self.surrogate,
            gradients: self.gradients,
            recompute: self.recompute,
            length: match (self.steps, self.minutes) {
                (Some(steps), _) => TrainLength::Steps(steps),
                (None, minutes) => TrainLength::Minutes(minutes.unwrap_or(MINUTES)),
            },
            batch: self.batch as usize,
            window_tokens: self.window_tokens.map(|n| n as usize),
            rate: self.rate,
            weight_decay: self.weight_decay,
            clip: self.clip,
            warm_up: self.warm_up,
            seed: self.seed,
            resume: self.resume,
            restart: self.restart,
            checkpoint_every: Duration::from_secs(self.checkpoint_seconds),
            hybrid: self.hybrid,
            validation_windows: self.validation_windows as usize,
            patience: self.patience,
            threads: threads_or_all(self.threads),
            ranks: world(),
        }
    }
}
