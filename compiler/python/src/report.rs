//! A report of a run, as a page.

use crate::asked::{AskedOptions, Given, wrong};
use crate::commands::{Told, count, read, used_by};
use crate::work::work;
use pyo3::prelude::*;
use snnc::option_values::{neuron_choice, price_lists, whole};
use snnc::report::{Report, ReportOptions, build, figures, file_name, page};
use snnc::schema::document;
use snnc_ir::diagnostic::Diagnostics;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A report, made once.
#[derive(Debug)]
#[pyclass(frozen, module = "snnc._snnc")]
pub struct ReportCore {
    report: Arc<Report>,
}

#[pymethods]
impl ReportCore {
    /// The page.
    fn html(&self, py: Python<'_>) -> String {
        py.detach(|| page(&self.report))
    }

    /// The same as JSON: what `snnc inspect --json` prints.
    fn json(&self, py: Python<'_>) -> String {
        py.detach(|| document(&*self.report, None).to_string())
    }

    /// Writes every figure as SVG, PNG and CSV.
    fn figures(&self, py: Python<'_>, folder: PathBuf) -> PyResult<Vec<PathBuf>> {
        let report = Arc::clone(&self.report);
        work(py, None, move |watch| {
            let figures = figures::all(&report);
            figures::write(&figures, &folder, watch)?;
            Ok(figures.iter().flat_map(|figure| figures::paths(figure, &folder)).collect())
        })
    }
}

/// The call as a command, with file names alone.
fn command(asked: &AskedOptions) -> String {
    let name = |word: &String| if Path::new(word).exists() { file_name(Path::new(word)) } else { word.clone() };
    let words: Vec<String> = asked.arguments().iter().map(name).collect();
    format!("snnc {}", words.join(" "))
}

fn options(asked: &AskedOptions, model: &Path) -> Result<ReportOptions, Diagnostics> {
    let onnx = asked.onnx()?;
    let (text, tokens) = (asked.file("text")?, asked.one("tokens")?);
    let ids = tokens.as_ref().filter(|tokens| tokens.ends_with(".npy")).map(PathBuf::from);
    if text.is_some() && ids.is_some() {
        return Err(wrong("tokens", "names token ids and `text` a text; leave one of them out".into()));
    }
    let plain = ReportOptions::new(model);
    let number = match (&ids, &tokens) {
        (None, Some(number)) => Some(whole(number, 1..=u32::MAX.into()).map_err(|message| wrong("tokens", message))?),
        _ => None,
    };
    let (ledger, ledger_tokens) = (asked.flag("ledger")?, count(asked, "ledger_tokens")?);
    let neuron = asked.read("neuron", neuron_choice)?;
    let reference = asked.file("reference")?;
    let (runs, prices) = (text.is_some() || ids.is_some(), asked.all("prices")?);
    for (name, given) in [("ledger", ledger), ("neuron", neuron.is_some())] {
        if given && !runs {
            return Err(wrong(name, "needs a text to run: `text`".into()));
        }
    }
    if ledger && reference.is_none() {
        return Err(wrong("ledger", "needs `reference`".into()));
    }
    let options = ReportOptions {
        onnx,
        others: asked.all("others")?.into_iter().map(PathBuf::from).collect(),
        tune: asked.file("tune")?,
        training: asked.file("training")?,
        neuron: Some(neuron.unwrap_or_default()),
        text: ids.or(text),
        start: asked.start()?,
        tokens: number.map_or(plain.tokens, |number| number as usize),
        reference,
        ledger,
        ledger_tokens,
        lists: price_lists(&prices)?,
        engine: asked.engine()?,
        threads: asked.threads()?,
        ..plain
    };
    asked.finish()?;
    used_by(asked, &options.onnx).check()?;
    Ok(options)
}

/// A report of a program.
#[pyfunction]
pub fn report(py: Python<'_>, model: PathBuf, given: Given, progress: Told) -> PyResult<ReportCore> {
    let (options, command) = read(py, || {
        let asked = AskedOptions::new("report", vec![model.clone()], given);
        Ok((options(&asked, &model)?, command(&asked)))
    })?;
    let report = work(py, progress.as_ref(), move |watch| {
        let mut report = build(&options, watch)?;
        report.provenance.command = command;
        Ok(Arc::new(report))
    })?;
    Ok(ReportCore { report })
}
