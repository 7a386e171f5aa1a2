//! A model that Python holds: its numbers as arrays, its text as a stream.

use crate::asked::{AskedOptions, Given, wrong};
use crate::commands::{Told, read};
use crate::errors::exception;
use crate::stream::PieceStream;
use crate::work::work;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use serde_json::{Value as Json, json};
use snnc::convert::vocabulary;
use snnc::describe::Network;
use snnc::export::nir::dialect::Dialect;
use snnc::export::nir::{self, NirOptions};
use snnc::export::sana_fe::{self, ChipPlacement, SanaFeOptions};
use snnc::export::{onnx, record};
use snnc::front::OnnxOptions;
use snnc::generate::{Generated, Request, Stopped};
use snnc::model::{EngineOptions, Loaded};
use snnc::option_values::{context, min_p, most_tokens, repeat_penalty, temperature, top_p, whole};
use snnc::progress::{Progress, Silent};
use snnc::shared_model::{GivenPrompt, SharedModel};
use snnc::sliding::OnFull;
use snnc::spikes::{LayerSpikes, WatchedLayer};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_runtime::{Options, Rows, SampleOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Products of a weight and a token that take less than a few looks for Ctrl-C: such work stays on the caller's thread.
const QUICK: u64 = 1 << 30;

/// A model.
#[derive(Debug)]
#[pyclass(frozen, module = "snnc._snnc")]
pub struct Core {
    kept: Arc<SharedModel>,
}

impl Core {
    /// Does what is quick on this thread, and what is not on one of its own.
    fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        tokens: usize,
        progress: &Told,
        job: impl FnOnce(&SharedModel, &dyn Progress) -> Result<T, Diagnostics> + Send + 'static,
    ) -> PyResult<T> {
        let kept = Arc::clone(&self.kept);
        let products = (tokens as u64).saturating_mul(kept.parameters());
        let is_ready = py.detach(|| kept.is_ready());
        let is_ready = is_ready.map_err(|diagnostics| exception(py, &diagnostics))?;
        if products < QUICK && is_ready && progress.is_none() {
            let done = py.detach(|| job(&kept, &Silent)).map_err(|diagnostics| exception(py, &diagnostics));
            py.check_signals()?;
            return done;
        }
        work(py, progress.as_ref(), move |watch| job(&kept, watch))
    }
}

/// Ids of an array, which the caller has made one of u32.
fn ids_of(ids: &PyReadonlyArrayDyn<'_, u32>) -> Vec<u32> {
    ids.as_slice().map_or_else(|_| ids.as_array().iter().copied().collect(), <[u32]>::to_vec)
}

/// A model of a `.snn`, an ONNX file or a folder. `quiet`: its user was warned when it was compiled.
#[pyfunction]
pub fn load(py: Python<'_>, path: PathBuf, given: Given, progress: Told, quiet: bool) -> PyResult<Core> {
    let (onnx, start, engine, context) = read(py, || {
        let asked = AskedOptions::new("load", vec![path.clone()], given);
        let context = asked.read("context", context)?;
        let onnx = OnnxOptions { context, ..asked.onnx()? };
        let start = asked.start()?;
        let engine = EngineOptions { threads: asked.threads()?, pin: asked.flag("pin")?, ..asked.engine_with_costs()? };
        asked.finish()?;
        Ok((onnx, start, engine, context))
    })?;
    let kept = work(py, progress.as_ref(), move |watch| {
        let loaded = Loaded::read(&path, &onnx)?;
        let lints = if quiet || loaded.source.is_dense() { Vec::new() } else { loaded.lints() };
        loaded.warnings.iter().chain(&lints).for_each(|warning| watch.warn(warning));
        Ok(Arc::new(SharedModel::new(loaded, start, engine, context)?))
    })?;
    Ok(Core { kept })
}

/// What of a generation its options say.
struct WritingOptions {
    most: Option<usize>,
    options: SampleOptions,
    stop: Vec<String>,
    on_full: OnFull,
    plain: bool,
}

fn written(given: Given) -> Result<WritingOptions, Diagnostics> {
    let asked = AskedOptions::new("generate", Vec::new(), given);
    let plain = SampleOptions::default();
    let any = 0..=u64::MAX;
    let number = |name| asked.read(name, |text| whole(text, any.clone()));
    let options = SampleOptions {
        temperature: asked.read("temperature", temperature)?.unwrap_or(plain.temperature),
        top_k: number("top_k")?.map_or(plain.top_k, |number| number as usize),
        top_p: asked.read("top_p", top_p)?.unwrap_or(plain.top_p),
        min_p: asked.read("min_p", min_p)?.unwrap_or(plain.min_p),
        repeat_penalty: asked.read("repeat_penalty", repeat_penalty)?.unwrap_or(plain.repeat_penalty),
        repeat_window: number("repeat_window")?.map_or(plain.repeat_window, |number| number as usize),
        seed: number("seed")?.unwrap_or(plain.seed),
    };
    let most = asked.read("max_new_tokens", most_tokens)?.unwrap_or(Some(NEW_TOKENS));
    let on_full = asked.read("on_full", str::parse)?.unwrap_or(OnFull::Stop);
    if most.is_none() && on_full != OnFull::Stop {
        let error = wrong("max_new_tokens", "with on_full=\"slide\" a text may have no end".into());
        return Err(error.into_iter().map(|one| one.note("give a number of tokens")).collect());
    }
    let written = WritingOptions { most, options, stop: asked.all("stop")?, on_full, plain: asked.flag("plain")? };
    asked.finish()?;
    Ok(written)
}

/// Tokens that are written where no number is given, as `snnc run` does.
const NEW_TOKENS: usize = 40;

/// What `export` is told.
struct ExportAsked {
    to: String,
    output: PathBuf,
    ids: Option<Vec<u32>>,
    dialect: String,
    placement: String,
    opset: i64,
}

fn exported(loaded: &Loaded, asked: &ExportAsked) -> Result<Json, Diagnostics> {
    let graph = &loaded.source.graph;
    if loaded.source.is_dense() {
        let error = Diagnostic::new(loaded.path.display().to_string(), "is a dense network, which has no spikes");
        return Err(error.code(ErrorCode::EXPORT).note("compile it first").into());
    }
    let unknown =
        |option: &str, value: &str, known: &str| wrong(option, format!("`{value}` is none; there are {known}"));
    let json = |value: serde_json::Result<Json>| value.unwrap_or_default();
    match asked.to.as_str() {
        "onnx" => {
            let versions = onnx::OPSET..=onnx::OPSET_MAX;
            if !versions.contains(&asked.opset) {
                let known = format!("versions from {} to {}", onnx::OPSET, onnx::OPSET_MAX);
                return Err(unknown("opset", &asked.opset.to_string(), &known));
            }
            let made = onnx::export(graph, asked.opset)?;
            let proof = made.proof;
            let files = onnx::write(made, &asked.output)?;
            Ok(json!({
                "bytes": files.bytes,
                "difference": proof.difference,
                "range": proof.range,
                "tokens": proof.tokens,
                "same_top1": proof.same_top1,
            }))
        }
        "nir" => {
            let names = Dialect::ALL.map(Dialect::name).join(", ");
            let dialect =
                Dialect::from_name(&asked.dialect).ok_or_else(|| unknown("dialect", &asked.dialect, &names))?;
            let options = NirOptions { dialect, folder: &asked.output, trace: asked.ids.as_deref() };
            Ok(json(serde_json::to_value(nir::export(graph, &options)?)))
        }
        "sana-fe" => {
            let placement =
                [ChipPlacement::Layers, ChipPlacement::Packed].into_iter().find(|p| p.name() == asked.placement);
            let placement = placement.ok_or_else(|| unknown("placement", &asked.placement, "layers, packed"))?;
            let options = SanaFeOptions { placement, folder: &asked.output, trace: asked.ids.as_deref() };
            Ok(json(serde_json::to_value(sana_fe::export(graph, &options)?)))
        }
        "npz" => {
            let ids = asked
                .ids
                .as_deref()
                .ok_or_else(|| wrong("ids", "an npz file is of a run, which needs tokens".into()))?;
            let file = record::record(graph, ids, &Options::default())?;
            file.write(&asked.output)?;
            Ok(json!({ "arrays": file.len(), "tokens": ids.len() }))
        }
        other => Err(unknown("to", other, "onnx, nir, sana-fe, npz")),
    }
}

fn stopped(why: Option<Stopped>) -> Json {
    why.map_or(Json::Null, |why| why.name().into())
}

/// Writes what `snnc run` writes; facts as JSON.
fn write_text(
    kept: &SharedModel,
    prompt: GivenPrompt,
    written: &WritingOptions,
    show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
) -> Result<Json, Diagnostics> {
    let done = kept.write(prompt, &request(written), written.plain, show)?;
    let text = done.text.as_ref();
    let mut facts = json!({
        "text": text.map(|written| &written.text),
        "ids": done.ids,
        "prompt_tokens": done.prompt_tokens,
        "stopped": stopped(text.and_then(Generated::stopped)),
    });
    if let Some(written) = text {
        facts["tokens_per_second"] = written.new_per_second().into();
    }
    Ok(facts)
}

fn request(written: &WritingOptions) -> Request<'_> {
    let &WritingOptions { most, options, ref stop, on_full, .. } = written;
    Request { prompt: "", most, options, stop, on_full }
}

#[pymethods]
impl Core {
    /// f32 `[texts, tokens, vocabulary]`, or `[texts, vocabulary]` with `last`.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        ids: PyReadonlyArrayDyn<'py, u32>,
        last: bool,
        progress: Told,
    ) -> PyResult<Bound<'py, PyAny>> {
        let length = ids.shape().last().copied().unwrap_or(0);
        let (ids, texts) = (ids_of(&ids), ids.shape().iter().rev().skip(1).product::<usize>());
        let rows = if last { Rows::Last } else { Rows::All };
        let tokens = ids.len();
        let logits = self.run(py, tokens, &progress, move |kept, watch| kept.logits(&ids, length, rows, watch))?;
        let count = if last { texts } else { tokens };
        let width = logits.len() / count.max(1);
        let array = PyArray1::from_vec(py, logits);
        Ok(match last {
            true => array.reshape([texts, width])?.into_any(),
            false => array.reshape([texts, length, width])?.into_any(),
        })
    }

    /// By layer: site, neurons, code, timesteps, weights of timesteps, levels, and the columns of its events.
    fn spikes<'py>(
        &self,
        py: Python<'py>,
        ids: PyReadonlyArrayDyn<'py, u32>,
        sites: Vec<String>,
        stepped: bool,
        progress: Told,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let ids = ids_of(&ids);
        let count = ids.len();
        let kept = Arc::clone(&self.kept);
        let (layers, seen) = work(py, progress.as_ref(), move |watch| {
            let program = kept.watched(&sites, stepped)?;
            let seen = program.run(&ids, watch)?;
            Ok((program.layers().to_vec(), seen))
        })?;
        let of = |(layer, seen): (WatchedLayer, LayerSpikes)| -> PyResult<Bound<'py, PyAny>> {
            let facts = (&layer.site, &layer.neuron, layer.code.name(), layer.timesteps, layer.weights());
            let levels = PyArray1::from_vec(py, seen.levels).reshape([count, layer.width])?;
            let columns = (
                PyArray1::from_vec(py, seen.tokens),
                PyArray1::from_vec(py, seen.timesteps),
                PyArray1::from_vec(py, seen.neurons),
                PyArray1::from_vec(py, seen.signs),
            );
            Ok((facts, levels, columns).into_pyobject(py)?.into_any())
        };
        layers.into_iter().zip(seen).map(of).collect()
    }

    /// Writes the program in the format of another tool. Gives what was made, as JSON.
    fn export(
        &self,
        py: Python<'_>,
        to: String,
        output: PathBuf,
        ids: Option<PyReadonlyArrayDyn<'_, u32>>,
        dialect: String,
        placement: String,
        opset: i64,
        progress: Told,
    ) -> PyResult<String> {
        let ids = ids.as_ref().map(ids_of);
        let kept = Arc::clone(&self.kept);
        let asked = ExportAsked { to, output, ids, dialect, placement, opset };
        Ok(work(py, progress.as_ref(), move |_| exported(kept.loaded(), &asked))?.to_string())
    }

    /// A stream of text. `prompt` is a text; without one, `ids` are continued.
    fn generate(
        &self,
        py: Python<'_>,
        prompt: Option<String>,
        ids: Option<PyReadonlyArrayDyn<'_, u32>>,
        given: Given,
        progress: Told,
    ) -> PyResult<PieceStream> {
        let written = read(py, || written(given))?;
        let prompt = match (prompt, &ids) {
            (Some(text), _) => GivenPrompt::Text(text),
            (None, ids) => GivenPrompt::Ids(ids.as_ref().map(ids_of).unwrap_or_default()),
        };
        let kept = Arc::clone(&self.kept);
        py.detach(|| kept.is_ready().map(drop)).map_err(|diagnostics| exception(py, &diagnostics))?;
        PieceStream::begin(py, false, progress, move |pieces, watch| {
            let mut show = |text: &str| -> Result<(), Diagnostics> {
                if watch.is_cancelled() {
                    return Err(snnc::progress::cancelled().into());
                }
                if text.is_empty() { Ok(()) } else { pieces.send(text.to_string()) }
            };
            Ok(write_text(&kept, prompt, &written, &mut show)?.to_string())
        })
    }

    /// Ids of a text, without the start token unless `start`.
    fn encode(&self, py: Python<'_>, text: &str, start: bool) -> PyResult<Vec<u32>> {
        let encode = || -> Result<Vec<u32>, Diagnostics> {
            let tokens = self.kept.tokens()?;
            let mut ids = tokens.document(text)?;
            Ok(if start { ids } else { ids.split_off(tokens.start().len()) })
        };
        py.detach(encode).map_err(|diagnostics| exception(py, &diagnostics))
    }

    /// The text of ids.
    fn decode(&self, py: Python<'_>, ids: PyReadonlyArrayDyn<'_, u32>) -> PyResult<String> {
        let ids = ids_of(&ids);
        let decode = || -> Result<String, Diagnostics> { Ok(self.kept.tokens()?.decode(&ids)?) };
        py.detach(decode).map_err(|diagnostics| exception(py, &diagnostics))
    }

    /// Seconds that the engine alone takes for ids, on this thread: what `logits` is compared with.
    fn engine_seconds(&self, py: Python<'_>, ids: PyReadonlyArrayDyn<'_, u32>) -> PyResult<f64> {
        let ids = ids_of(&ids);
        let timed = || -> Result<f64, Diagnostics> {
            let mut session = self.kept.session()?;
            let began = Instant::now();
            session.forward(&ids, Rows::All)?;
            let seconds = began.elapsed().as_secs_f64();
            self.kept.give_back(session);
            Ok(seconds)
        };
        py.detach(timed).map_err(|diagnostics| exception(py, &diagnostics))
    }

    /// What is known of the model, as JSON.
    fn facts(&self, py: Python<'_>) -> PyResult<String> {
        let facts = || -> Result<Json, Diagnostics> {
            let kept = &*self.kept;
            let graph = &kept.loaded().source.graph;
            let tokens = kept.tokens_if_any()?;
            let rows = vocabulary(graph)?;
            let ends: Vec<u32> = match &tokens {
                Some(tokens) => (0..rows as u32).filter(|&id| tokens.ends(id)).collect(),
                None => Vec::new(),
            };
            let neurons = graph.nodes.iter().filter(|node| node.op.is_neuron());
            let timesteps: Vec<u16> = neurons.filter_map(|node| Some(node.ty.levels()?.1)).collect();
            Ok(json!({
                "path": kept.loaded().path,
                "stage": graph.stage.name(),
                "dense": kept.loaded().source.is_dense(),
                "context": kept.context(),
                "vocabulary": rows,
                "parameters": graph.parameters(),
                "tokenizer": tokens.is_some(),
                "start": tokens.as_ref().map_or(&[][..], |tokens| tokens.start()),
                "end": ends,
                "timesteps": [timesteps.iter().min(), timesteps.iter().max()],
                "network": Network::of(graph).ok().map(|network| network.lines()),
                "compiled_from": kept.loaded().compiled_from(),
            }))
        };
        let facts = py.detach(facts);
        facts.map(|facts: Json| facts.to_string()).map_err(|diagnostics| exception(py, &diagnostics))
    }
}
