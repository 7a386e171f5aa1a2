//! A line of the log for every request, written when its answer is whole: of a stream, when its last event is sent or its client
//! has gone.

use crate::api::answer::Usage;
use crate::listening::Listening;
use serde_json::{Value as Json, json};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// The line of one request. Who answers it holds it, and when nobody does, it is written.
pub struct RequestLog {
    told: Arc<dyn Listening + Send>,
    began: Instant,
    line: Mutex<Json>,
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLog").field("line", &self.line).finish_non_exhaustive()
    }
}

impl RequestLog {
    /// Of a request that begins now.
    pub fn new(told: Arc<dyn Listening + Send>, method: &str, path: &str) -> Self {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let line = json!({ "time": time, "method": method, "path": path });
        Self { told, began: Instant::now(), line: Mutex::new(line) }
    }

    fn set(&self, name: &str, number: usize) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)[name] = Json::from(number);
    }

    /// What it is answered with.
    pub fn answered(&self, status: u16) {
        self.set("status", status.into());
    }

    /// Tokens of its prompts, those of them whose state was there, and those that were written.
    pub fn used(&self, usage: &Usage) {
        self.set("prompt_tokens", usage.prompt_tokens);
        self.set("cached_tokens", usage.prompt_tokens_details.cached_tokens);
        self.set("completion_tokens", usage.completion_tokens);
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let seconds = (self.began.elapsed().as_secs_f64() * 1e4).round() / 1e4;
        let line = self.line.get_mut().unwrap_or_else(PoisonError::into_inner);
        line["seconds"] = Json::from(seconds);
        self.told.log(line);
    }
}
