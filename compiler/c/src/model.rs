//! A model: its facts, its logits, its text.

use crate::pointers::{free, give_all, handle, lend, numbers, text};
use crate::status::{Ending, SnncStatus, call, wrong};
use snnc::convert::vocabulary;
use snnc::front::OnnxOptions;
use snnc::generate::Request;
use snnc::model::{EngineOptions, Loaded, threads_or_all};
use snnc::option_values;
use snnc::progress::Silent;
use snnc::shared_model::{GivenPrompt, SharedModel};
use snnc::sliding::OnFull;
use snnc::tokens::start::StartChoice;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::{Rows, SampleOptions};
use std::ffi::{c_char, c_void};
use std::path::Path;

/// A model in memory. Several threads may use one at once.
#[derive(Debug)]
pub struct SnncModel {
    pub(crate) shared: SharedModel,
    vocabulary: usize,
}

/// How a model is run. No result depends on the threads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SnncLoadOptions {
    /// Threads of one call; 0 takes one per core.
    pub threads: u32,
    /// Tokens that a sequence may have; 0 takes the network's context.
    pub context: u32,
    /// Run every timestep, spike by spike, which is slower and gives the same bits.
    pub stepped: bool,
}

/// How tokens are drawn.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SnncGenerateOptions {
    /// New tokens, at most.
    pub max_new_tokens: usize,
    /// What logits are divided by; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only so many likeliest tokens take part; 0 is all of them.
    pub top_k: usize,
    /// Only the likeliest tokens that have this probability together take part; 1 is all of them.
    pub top_p: f32,
    /// Only tokens at least so many times as probable as the likeliest take part; 0 is all of them.
    pub min_p: f32,
    /// What divides the logits of tokens that were there lately; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Equal seeds draw equal tokens.
    pub seed: u64,
    /// Drop the oldest half where the context is full, instead of stopping.
    pub slide: bool,
}

/// One thread per core, the network's context, time collapsed.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_load_options() -> SnncLoadOptions {
    SnncLoadOptions { threads: 0, context: 0, stepped: false }
}

/// The likeliest 40 tokens.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_generate_options() -> SnncGenerateOptions {
    let SampleOptions { temperature, top_k, top_p, min_p, repeat_penalty, seed, .. } = SampleOptions::default();
    let (max_new_tokens, slide) = (40, false);
    SnncGenerateOptions { max_new_tokens, temperature, top_k, top_p, min_p, repeat_penalty, seed, slide }
}

/// Loads a .snn file, an ONNX file or a Hugging Face folder. `options` may be null. The model is freed with snnc_free.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_load(
    path: *const c_char,
    options: *const SnncLoadOptions,
    model: *mut *mut SnncModel,
) -> SnncStatus {
    call(|| {
        let path = text(path, "path")?;
        let plain = snnc_load_options();
        let asked = if options.is_null() { &plain } else { handle(options, "options")? };
        let checked = |name, value: u32, what: Result<(), String>| {
            if value == 0 { Ok(None) } else { what.map(|()| Some(value)).map_err(|message| wrong(name, message)) }
        };
        let context =
            checked("context", asked.context, option_values::context(&asked.context.to_string()).map(|_| ()))?;
        let threads =
            checked("threads", asked.threads, option_values::threads(&asked.threads.to_string()).map(|_| ()))?;
        let threads = threads_or_all(threads.map(|threads| threads as usize));
        let engine = EngineOptions { threads, stepped: asked.stepped, ..EngineOptions::default() };
        let loaded = Loaded::read(Path::new(path), &OnnxOptions { context, ..OnnxOptions::default() })?;
        let vocabulary = vocabulary(&loaded.source.graph)?;
        let shared = SharedModel::new(loaded, StartChoice::Auto, engine, context)?;
        // What cannot be run is told here, not at the first call.
        shared.program()?;
        Ok(lend(SnncModel { shared, vocabulary }, model, "model")?)
    })
}

/// Frees a model; null is nothing to free. No other thread may be using it.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_free(model: *mut SnncModel) {
    let _ = call(|| {
        free(model);
        Ok(())
    });
}

/// Tokens that a sequence may have; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_context(model: *const SnncModel) -> usize {
    handle(model, "model").map_or(0, |model| model.shared.context() as usize)
}

/// Logits per token; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_vocabulary(model: *const SnncModel) -> usize {
    handle(model, "model").map_or(0, |model| model.vocabulary)
}

/// Logits of `count` ids: `[count, vocabulary]`, row by row, or `[vocabulary]` of the last id with `last_only`. `room` is how many
/// floats `logits` can take.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_logits(
    model: *const SnncModel,
    ids: *const u32,
    count: usize,
    last_only: bool,
    logits: *mut f32,
    room: usize,
) -> SnncStatus {
    call(|| {
        let model = handle(model, "model")?;
        let ids = numbers(ids, count, "ids")?;
        if ids.is_empty() {
            return Err(wrong("ids", "there are none").into());
        }
        let rows = if last_only { Rows::Last } else { Rows::All };
        let found = model.shared.logits(ids, ids.len(), rows, &Silent)?;
        give_all(&found, logits, room, std::ptr::null_mut(), "logits")
    })
}

/// Ids of a text, and how many there are. With `start`, the tokens that stand before every text of this network come first.
/// SNNC_NO_ROOM says that `ids` cannot take them; call again with room for `count`.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_encode(
    model: *const SnncModel,
    words: *const c_char,
    start: bool,
    ids: *mut u32,
    room: usize,
    count: *mut usize,
) -> SnncStatus {
    call(|| {
        let model = handle(model, "model")?;
        let tokens = model.shared.tokens()?;
        let mut found = tokens.document(text(words, "words")?)?;
        let found = if start { found } else { found.split_off(tokens.start().len()) };
        give_all(&found, ids, room, count, "ids")
    })
}

/// The text of ids as UTF-8 with a zero byte behind it, and its bytes with that one. SNNC_NO_ROOM says that `words` cannot take
/// them; call again with room for `bytes`.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_decode(
    model: *const SnncModel,
    ids: *const u32,
    count: usize,
    words: *mut c_char,
    room: usize,
    bytes: *mut usize,
) -> SnncStatus {
    call(|| {
        let model = handle(model, "model")?;
        let mut found = model.shared.tokens()?.decode(numbers(ids, count, "ids")?)?.into_bytes();
        found.push(0);
        give_all(&found, words.cast(), room, bytes, "words")
    })
}

/// Told of each piece of text as it is written: bytes of UTF-8, no zero byte behind them. Returns whether to go on.
pub type SnncShow = Option<extern "C" fn(piece: *const c_char, bytes: usize, data: *mut c_void) -> bool>;

/// Continues a text, and tells `show` of each piece. `options` may be null. `data` is passed on to `show`.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_generate(
    model: *const SnncModel,
    prompt: *const c_char,
    options: *const SnncGenerateOptions,
    show: SnncShow,
    data: *mut c_void,
) -> SnncStatus {
    call(|| {
        let model = handle(model, "model")?;
        let prompt = GivenPrompt::Text(text(prompt, "prompt")?.to_string());
        let plain = snnc_generate_options();
        let asked = if options.is_null() { &plain } else { handle(options, "options")? };
        let on_full = if asked.slide { OnFull::Slide } else { OnFull::Stop };
        let most = Some(asked.max_new_tokens);
        let request = Request { prompt: "", most, options: sampling(asked)?, stop: &[], on_full };
        let mut is_stopped = false;
        let written = model.shared.write(prompt, &request, false, &mut |piece| {
            let goes_on = show.is_none_or(|show| show(piece.as_ptr().cast(), piece.len(), data));
            is_stopped = !goes_on;
            if goes_on { Ok(()) } else { Err(snnc::progress::cancelled().into()) }
        });
        match written {
            _ if is_stopped => Err(Ending::Other(SnncStatus::SNNC_STOPPED)),
            written => Ok(written.map(drop)?),
        }
    })
}

fn sampling(asked: &SnncGenerateOptions) -> Result<SampleOptions, Diagnostics> {
    let number = |name: &str, value: f32, parse: fn(&str) -> Result<f32, String>| {
        parse(&value.to_string()).map_err(|message| wrong(name, format!("{message}, not {value}")))
    };
    Ok(SampleOptions {
        temperature: number("temperature", asked.temperature, option_values::temperature)?,
        top_k: asked.top_k,
        top_p: number("top_p", asked.top_p, option_values::top_p)?,
        min_p: number("min_p", asked.min_p, option_values::min_p)?,
        repeat_penalty: number("repeat_penalty", asked.repeat_penalty, option_values::repeat_penalty)?,
        seed: asked.seed,
        ..SampleOptions::default()
    })
}
