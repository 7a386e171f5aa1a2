//! Training, event by event.

use crate::asked::{AskedOptions, Given, wrong};
use crate::commands::{Told, count, needs_text, read, text_of, used_by};
use crate::stream::PieceStream;
use pyo3::prelude::*;
use serde_json::json;
use snnc::file_use::FileUse;
use snnc::option_values::{
    STEPS_MAX, TRAIN_BATCH_MAX, decay, gradients, hybrid_budget, loss, minutes, norm, parameters, rate, recompute,
    surrogate, whole,
};
use snnc::run_record::RunRecord;
use snnc::schema::document;
use snnc::train::events::TrainEvent;
use snnc::train::{Outcome, TrainLength, TrainOptions, train as train_program};
use snnc_ir::diagnostic::Diagnostics;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn length(asked: &AskedOptions, plain: TrainLength) -> Result<TrainLength, Diagnostics> {
    asked.excludes("minutes", "steps")?;
    let steps = asked.read("steps", |text| whole(text, 0..=STEPS_MAX))?;
    let minutes = asked.read("minutes", minutes)?;
    if steps == Some(0) && !asked.has("hybrid") {
        return Err(wrong("steps", "0 trains nothing; give a number of steps, or `hybrid` as well".into()));
    }
    Ok(steps.map(TrainLength::Steps).or(minutes.map(TrainLength::Minutes)).unwrap_or(plain))
}

fn options(asked: &AskedOptions, program: &Path) -> Result<(TrainOptions, FileUse), Diagnostics> {
    let onnx = asked.onnx()?;
    let needed = |name| asked.file(name)?.ok_or_else(|| wrong(name, "is missing".into()));
    let (reference, output) = (needed("reference")?, needed("output")?);
    let (text, used) = text_of(asked, used_by(asked, &onnx))?;
    let plain = TrainOptions::new(program, &reference, &needs_text(text)?, &output);
    let batch = asked.read("batch", |text| whole(text, 1..=TRAIN_BATCH_MAX.into()))?;
    let window_tokens = asked.read("window_tokens", |text| whole(text, 2..=u32::MAX.into()))?;
    let seconds = asked.read("checkpoint_seconds", |text| whole(text, 0..=u64::MAX))?;
    asked.excludes("resume", "restart")?;
    let options = TrainOptions {
        onnx,
        validate: asked.all("validate")?.into_iter().map(PathBuf::from).collect(),
        patience: asked.read("patience", |text| whole(text, 1..=u32::MAX.into()))?.map(|number| number as u32),
        gradients: asked.read("gradients", gradients)?.unwrap_or(plain.gradients),
        recompute: asked.read("recompute", recompute)?.unwrap_or(plain.recompute),
        start: asked.start()?,
        parameters: asked.read("parameters", parameters)?.unwrap_or(plain.parameters),
        loss: asked.read("loss", loss)?.unwrap_or(plain.loss),
        surrogate: asked.read("surrogate", surrogate)?.unwrap_or(plain.surrogate),
        length: length(asked, plain.length)?,
        batch: batch.map_or(plain.batch, |number| number as usize),
        window_tokens: window_tokens.map(|number| number as usize),
        rate: asked.read("rate", rate)?,
        weight_decay: asked.read("weight_decay", decay)?.unwrap_or(plain.weight_decay),
        clip: asked.read("clip", norm)?.unwrap_or(plain.clip),
        warm_up: asked.read("warm_up", |text| whole(text, 0..=STEPS_MAX))?.unwrap_or(plain.warm_up),
        seed: asked.read("seed", |text| whole(text, 0..=u64::MAX))?.unwrap_or(plain.seed),
        resume: asked.flag("resume")?,
        restart: asked.flag("restart")?,
        checkpoint_every: seconds.map_or(plain.checkpoint_every, Duration::from_secs),
        hybrid: asked.read("hybrid", hybrid_budget)?,
        validation_windows: count(asked, "validation_windows")?.unwrap_or(plain.validation_windows),
        threads: asked.threads()?,
        ..plain
    };
    asked.finish()?;
    let files = options.files();
    files.check()?;
    Ok((options, used))
}

/// What happened, as a line of JSON. The first says what run it is of.
fn line(event: &TrainEvent, run: Option<RunRecord>) -> String {
    document(event, run.as_ref()).to_string()
}

/// Trains a program; a stream of events as JSON.
#[pyfunction]
pub fn train(py: Python<'_>, program: PathBuf, given: Given, progress: Told) -> PyResult<PieceStream> {
    let (options, record) = read(py, || {
        let asked = AskedOptions::new("train", vec![program.clone()], given);
        let (options, _) = options(&asked, &program)?;
        let record = asked.record(&options.files());
        Ok((options, record))
    })?;
    PieceStream::begin(py, true, progress, move |pieces, watch| {
        let mut record = Some(record);
        let outcome = train_program(&options, watch, &mut |event| pieces.send(line(event, record.take())))?;
        let json = match outcome {
            Outcome::Finished => json!({ "finished": true, "output": options.output }),
            Outcome::Interrupted { step, steps, checkpoint } => {
                json!({ "finished": false, "step": step, "steps": steps, "checkpoint": checkpoint })
            }
        };
        Ok(json.to_string())
    })
}
