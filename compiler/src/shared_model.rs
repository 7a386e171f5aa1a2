//! A model in memory that several callers share: its tokenizer, its program, and sequences that wait for ids. Each is made when
//! it is first needed.
//!
//! Law: after `fork` nothing of the parent's threads is waited for. A program with its threads belongs to the process that made
//! it; a child makes its own.

use crate::evaluate::logits_of;
use crate::generate::{Generated, Request, continue_ids, generate_ids, prompt_ids};
use crate::model::{EngineOptions, Loaded};
use crate::progress::{Progress, cancelled};
use crate::spikes::WatchedProgram;
use crate::tokens::Tokens;
use crate::tokens::start::StartChoice;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Stage};
use snnc_passes::collapse;
use snnc_runtime::{Options, Program, Rows, Session};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Sequences that wait for the next call, at most.
const IDLE: usize = 4;

/// What was made of a model in one process.
#[derive(Debug, Default)]
struct MadePrograms {
    program: Option<Arc<Program>>,
    watched: Option<(Vec<String>, bool, Arc<WatchedProgram>)>,
    sessions: Vec<Session>,
    /// Here, and not in a lock of its own, so that a fork never waits for a thread that was making it.
    tokens: Option<Result<Option<Arc<Tokens>>, Diagnostics>>,
}

/// What is continued.
#[derive(Clone, Debug)]
pub enum GivenPrompt {
    /// A text.
    Text(String),
    /// Ids, with the start token where the network wants one.
    Ids(Vec<u32>),
}

/// What was written behind a prompt.
#[derive(Debug)]
pub struct Continuation {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Ids of the new tokens.
    pub ids: Vec<u32>,
    /// The text and the speed; nothing where the model has no tokenizer.
    pub text: Option<Generated>,
}

/// A model with what is made of it when it is first needed.
#[derive(Debug)]
pub struct SharedModel {
    loaded: Loaded,
    start: StartChoice,
    engine: EngineOptions,
    context: Option<u32>,
    made: Mutex<MadePrograms>,
    process: AtomicU32,
    parameters: u64,
}

impl SharedModel {
    /// A model that was read, and how it is to be run: with the tokens in front of each text, the engine, and the context, if it
    /// is to be shorter than the network's.
    ///
    /// # Errors
    /// The network's context is shorter than the one asked for.
    pub fn new(
        loaded: Loaded,
        start: StartChoice,
        engine: EngineOptions,
        context: Option<u32>,
    ) -> Result<Self, Diagnostics> {
        let (made, process) = (Mutex::default(), AtomicU32::new(std::process::id()));
        let parameters = loaded.source.graph.parameters() as u64;
        let model = Self { loaded, start, engine, context, made, process, parameters };
        // A context beyond the network's is told now, not at the first call.
        if context.is_some() {
            model.program()?;
        }
        Ok(model)
    }

    /// The model as it was read.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Tokens that a sequence may have.
    pub fn context(&self) -> u32 {
        let most = self.loaded.source.graph.context;
        self.context.map_or(most, |context| context.min(most))
    }

    /// Numbers of its weights.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Whether the next call need not make the program first.
    ///
    /// # Errors
    /// The process is a fork, and another thread of its parent was at work with the model.
    pub fn is_ready(&self) -> Result<bool, Diagnostics> {
        Ok(self.made()?.program.is_some())
    }

    /// What was made in this process.
    ///
    /// # Errors
    /// The process is a fork, and another thread of its parent was at work with the model.
    fn made(&self) -> Result<MutexGuard<'_, MadePrograms>, Diagnostics> {
        let process = std::process::id();
        if self.process.load(Ordering::SeqCst) != process {
            let mut made = match self.made.try_lock() {
                Ok(made) => made,
                Err(TryLockError::Poisoned(made)) => made.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    let message = "this model was in use when the process was forked";
                    let error = Diagnostic::new("", message).code(ErrorCode::RUN);
                    return Err(error.note("load it again in this process").into());
                }
            };
            // Its threads are not here, and whoever drops it would wait for them.
            std::mem::forget(std::mem::take(&mut *made));
            self.process.store(process, Ordering::SeqCst);
        }
        Ok(self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The program that its engine runs.
    ///
    /// # Errors
    /// A graph that cannot be planned; a fork of a process in which the model was in use.
    pub fn program(&self) -> Result<Arc<Program>, Diagnostics> {
        let mut made = self.made()?;
        if let Some(program) = &made.program {
            return Ok(Arc::clone(program));
        }
        let program = self.loaded.source.clone().program_within(&self.engine, self.context)?;
        made.program = Some(Arc::clone(&program));
        Ok(program)
    }

    /// A program whose neurons are watched: of the last selectors it is kept.
    ///
    /// # Errors
    /// A dense network; a selector that means no layer; a graph that cannot be planned.
    pub fn watched(&self, selectors: &[String], stepped: bool) -> Result<Arc<WatchedProgram>, Diagnostics> {
        let mut made = self.made()?;
        if let Some((known, how, program)) = &made.watched
            && known == selectors
            && *how == stepped
        {
            return Ok(Arc::clone(program));
        }
        let graph = &self.loaded.source.graph;
        let collapsed = graph.stage == Stage::Spiking && !stepped && !collapse::depends_on_order(graph);
        let collapsed = if collapsed { Some(collapse::collapse(graph)?) } else { None };
        let EngineOptions { engine, threads, pin, kernel_costs, .. } = self.engine;
        let options = Options { engine, threads, pin, kernel_costs, ..Options::default() };
        let program = Arc::new(WatchedProgram::new(collapsed.as_ref().unwrap_or(graph), selectors, &options)?);
        made.watched = Some((selectors.to_vec(), stepped, Arc::clone(&program)));
        Ok(program)
    }

    /// A sequence without tokens: one that was given back, or a new one.
    ///
    /// # Errors
    /// As of `program`.
    pub fn session(&self) -> Result<Session, Diagnostics> {
        let program = self.program()?;
        let idle = self.made()?.sessions.pop();
        match idle {
            Some(mut session) => {
                session.reset();
                Ok(session)
            }
            None => Ok(Session::new(program)?),
        }
    }

    /// Takes a sequence back, for the next caller.
    pub fn give_back(&self, session: Session) {
        if let Ok(mut made) = self.made()
            && made.sessions.len() < IDLE
        {
            made.sessions.push(session);
        }
    }

    /// The tokenizer, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or does not fit the network.
    pub fn tokens_if_any(&self) -> Result<Option<Arc<Tokens>>, Diagnostics> {
        let mut made = self.made()?;
        let make = || -> Result<_, Diagnostics> { Ok(self.loaded.tokens_if_any(&self.start)?.map(Arc::new)) };
        made.tokens.get_or_insert_with(make).clone()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// There is none; it cannot be read, or does not fit the network.
    pub fn tokens(&self) -> Result<Arc<Tokens>, Diagnostics> {
        self.tokens_if_any()?.ok_or_else(|| self.loaded.no_tokenizer().into())
    }

    /// Logits of texts of `length` ids each, one after the other: `[texts, length, vocabulary]`, or `[texts, vocabulary]` of their
    /// last tokens.
    ///
    /// # Errors
    /// Ids that the network does not have, or more than its context; a request to stop.
    pub fn logits(
        &self,
        ids: &[u32],
        length: usize,
        rows: Rows,
        watch: &dyn Progress,
    ) -> Result<Vec<f32>, Diagnostics> {
        let mut session = self.session()?;
        let name = logits_of(self.program()?.graph())?;
        let mut all = Vec::new();
        for text in ids.chunks_exact(length.max(1)) {
            if watch.is_cancelled() {
                return Err(cancelled().into());
            }
            session.reset();
            session.forward(text, rows)?;
            let logits = session.take_f32(&name).unwrap_or_default();
            if all.is_empty() {
                all = logits;
            } else {
                all.extend_from_slice(&logits);
            }
        }
        self.give_back(session);
        Ok(all)
    }

    /// Writes what `snnc run` writes. `plain`: special tokens in a prompt are text. `show` is given the text piece by piece, or an
    /// empty piece per token where there is no tokenizer.
    ///
    /// # Errors
    /// A prompt that the network cannot take; a text without a tokenizer; what `show` refuses.
    pub fn write(
        &self,
        prompt: GivenPrompt,
        request: &Request<'_>,
        plain: bool,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<Continuation, Diagnostics> {
        let program = self.program()?;
        let tokens = match (self.tokens_if_any()?, &prompt) {
            (Some(tokens), _) => tokens,
            (None, GivenPrompt::Text(_)) => return Err(self.loaded.no_tokenizer().into()),
            (None, GivenPrompt::Ids(given)) => {
                let ids = generate_ids(&program, request, given, &mut |_| show(""))?;
                return Ok(Continuation { prompt_tokens: given.len(), ids, text: None });
            }
        };
        let tokens = if plain { Arc::new(self.loaded.tokens(&self.start)?.plain()) } else { tokens };
        let (text, ids) = match prompt {
            GivenPrompt::Text(text) => {
                let most = request.prompt_tokens_max(program.graph().context as usize);
                let ids = prompt_ids(&tokens, &text, most, "prompt")?;
                (text, ids)
            }
            GivenPrompt::Ids(ids) => {
                let start = tokens.start();
                (tokens.decode(ids.strip_prefix(start).unwrap_or(&ids))?, ids)
            }
        };
        let request = Request { prompt: &text, ..*request };
        let mut done = continue_ids(&program, &tokens, &request, ids, show)?;
        Ok(Continuation { prompt_tokens: done.prompt_tokens, ids: std::mem::take(&mut done.ids), text: Some(done) })
    }
}

impl Drop for SharedModel {
    fn drop(&mut self) {
        if self.process.load(Ordering::SeqCst) != std::process::id() {
            let made = self.made.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::take(made));
        }
    }
}
