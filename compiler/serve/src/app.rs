//! What all handlers share: the model, the engine, limits, and the way of a request from its body to its jobs and back.

use crate::access::Keys;
use crate::api::errors::ApiError;
use crate::engine::EngineHandle;
use crate::figures::ServerFigures;
use crate::job::ScoredToken;
use crate::job::{Job, JobEnd, JobEvent, WrittenToken};
use crate::served::ServedModel;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedReceiver;

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of a body.
    pub body: usize,
    /// New tokens of an answer; the context without a number.
    pub tokens: Option<usize>,
    /// Time of a request.
    pub time: Duration,
    /// Open connections.
    pub connections: usize,
    /// Time in which a client has to send a request, or to read what was sent.
    pub patience: Duration,
}

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    /// The model.
    pub model: Arc<ServedModel>,
    /// What runs it.
    pub engine: EngineHandle,
    /// ServerFigures.
    pub figures: Arc<ServerFigures>,
    /// RequestLimits.
    pub limits: RequestLimits,
    /// Who may ask.
    pub keys: Keys,
    /// Whether only this machine can reach it.
    pub local: bool,
    /// Whether it takes no more requests.
    pub draining: AtomicBool,
    /// Requests so far.
    pub requests: AtomicU64,
    /// When it began.
    pub started: SystemTime,
}

/// What became of a sequence.
#[derive(Debug, Default)]
pub struct Collected {
    /// Tokens of the prompt, scored, if that was asked for.
    pub prompt: Vec<ScoredToken>,
    /// Tokens that were written.
    pub written: Vec<WrittenToken>,
    /// The text.
    pub text: String,
    /// How it ended.
    pub end: Option<JobEnd>,
}

/// Jobs at work, and what they tell.
#[derive(Debug)]
pub struct Working {
    /// What they tell.
    pub events: UnboundedReceiver<(usize, JobEvent)>,
    /// When they have to be done.
    pub until: tokio::time::Instant,
    /// When they were asked for.
    pub asked: Instant,
}

/// Seconds since 1970.
pub fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

impl App {
    /// A name for an answer.
    pub fn answer_name(&self, kind: &str) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{:x}-{number}", seconds_of(self.started))
    }

    /// The body of a request as JSON.
    ///
    /// # Errors
    /// It is too large, does not come in time, or is not such JSON.
    pub async fn json<T: DeserializeOwned>(&self, body: Body) -> Result<T, ApiError> {
        let bytes = self.body(body).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::wrong(format!("the body is not JSON as it is asked for: {e}")))
    }

    async fn body(&self, body: Body) -> Result<Bytes, ApiError> {
        let most = self.limits.body;
        let read = tokio::time::timeout(self.limits.patience, to_bytes(body, most)).await;
        let late =
            |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "the body did not come in time");
        read.map_err(late)?.map_err(|error| {
            let is_large = error.source().is_some_and(|cause| cause.to_string().contains("length limit"));
            match is_large {
                true => {
                    let message = format!("the body has more than {most} bytes; --max-body says how many it may have");
                    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
                }
                false => ApiError::wrong(format!("the body cannot be read: {error}")),
            }
        })
    }

    /// New tokens of an answer: what is asked for, or `plain`.
    ///
    /// # Errors
    /// More than the server gives.
    pub fn most(&self, field: &str, asked: Option<u64>, plain: usize) -> Result<usize, ApiError> {
        let cap = self.limits.tokens.unwrap_or(usize::MAX);
        match asked {
            None => Ok(plain.min(cap)),
            Some(asked) if asked as usize > cap => {
                Err(ApiError::field(field, format!("{asked} is more than this server writes, which is {cap}")))
            }
            Some(asked) => Ok(asked as usize),
        }
    }

    /// Checks the ids of a prompt.
    ///
    /// # Errors
    /// There are none, too many, or some that the network does not have.
    pub fn check_prompt(&self, field: &str, ids: &[u32]) -> Result<(), ApiError> {
        let context = self.model.context();
        if ids.is_empty() {
            return Err(ApiError::field(field, "it has no tokens"));
        }
        if ids.len() > context {
            let message = format!("it is {} tokens long, the network's context is {context}", ids.len());
            return Err(ApiError::field(field, message).code("context_length_exceeded"));
        }
        match ids.iter().find(|&&id| id as usize >= self.model.vocabulary) {
            Some(id) => Err(ApiError::field(field, format!("token {id} is none of {}", self.model.vocabulary))),
            None => Ok(()),
        }
    }

    /// Hands jobs to the engine.
    ///
    /// # Errors
    /// The queue is full, or the server is about to end.
    pub fn submit(&self, jobs: Vec<Job>, events: UnboundedReceiver<(usize, JobEvent)>) -> Result<Working, ApiError> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, "the server is about to end", 5));
        }
        let asked = Instant::now();
        let until = tokio::time::Instant::now() + self.limits.time;
        if !self.engine.submit(jobs) {
            let message = "the queue has no room for this request; --queue says how many sequences may wait";
            return Err(ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message, 1));
        }
        Ok(Working { events, until, asked })
    }

    /// What is said of a request that took too long.
    pub fn late(&self) -> ApiError {
        let message = format!("the answer took more than {} s", self.limits.time.as_secs());
        ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &message, 1).code("timeout")
    }

    /// Waits until all jobs are done.
    ///
    /// # Errors
    /// One cannot go on, or they take too long.
    pub async fn collect(&self, mut working: Working, count: usize) -> Result<Vec<Collected>, ApiError> {
        let mut all: Vec<Collected> = (0..count).map(|_| Collected::default()).collect();
        let mut is_first = true;
        loop {
            let event = tokio::time::timeout_at(working.until, working.events.recv()).await.map_err(|_| self.late())?;
            let Some((index, event)) = event else { break };
            if std::mem::take(&mut is_first) {
                self.figures.first_token.observe(working.asked.elapsed().as_secs_f64());
            }
            let one = &mut all[index];
            match event {
                JobEvent::Prompt(scores) => one.prompt = scores,
                JobEvent::Written(token) => {
                    one.text += &token.text;
                    one.written.push(token);
                }
                JobEvent::End(end) => {
                    one.text += &end.text;
                    one.end = Some(end);
                }
                JobEvent::Failed(diagnostics) => return Err(ApiError::of("prompt", &diagnostics)),
            }
        }
        self.figures.whole.observe(working.asked.elapsed().as_secs_f64());
        if all.iter().any(|one| one.end.is_none()) {
            return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the engine has ended"));
        }
        Ok(all)
    }
}
