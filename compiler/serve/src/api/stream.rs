//! Answers piece by piece: server-sent events.

use super::answer::Usage;
use super::errors::ApiError;
use crate::app::{App, Working};
use crate::job::{JobEnd, JobEvent};
use crate::request_log::RequestLog;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value as Json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How events become JSON.
pub trait StreamForm: Send + 'static {
    /// What is sent of a job's event, if anything.
    fn event(&mut self, index: usize, event: &JobEvent) -> Vec<Json>;
    /// The last event, with what was used.
    fn usage(&self, usage: &Usage) -> Json;
}

struct OpenStream<F> {
    app: Arc<App>,
    log: Arc<RequestLog>,
    working: Working,
    form: F,
    usage: Usage,
    include_usage: bool,
    answers: usize,
    is_first: bool,
    open: usize,
    ready: std::collections::VecDeque<String>,
    is_done: bool,
}

impl<F: StreamForm> OpenStream<F> {
    fn ends(&mut self, index: usize, end: &JobEnd) {
        self.usage.add(end, index.is_multiple_of(self.answers));
        self.log.used(&self.usage);
        self.open -= 1;
    }

    async fn advance(&mut self) {
        let event = tokio::time::timeout_at(self.working.until, self.working.events.recv()).await;
        let (index, event) = match event {
            Ok(Some(event)) => event,
            Ok(None) => {
                self.is_done = true;
                return;
            }
            Err(_) => return self.fail(&self.app.late()),
        };
        if std::mem::take(&mut self.is_first) {
            self.app.figures.first_token.observe(self.working.asked.elapsed().as_secs_f64());
        }
        if let JobEvent::Failed(diagnostics) = &event {
            return self.fail(&ApiError::of("prompt", diagnostics));
        }
        let sent = self.form.event(index, &event);
        self.ready.extend(sent.iter().map(Json::to_string));
        if let JobEvent::End(end) = &event {
            self.ends(index, end);
        }
        if self.open == 0 {
            if self.include_usage || self.usage.snn.is_some() {
                self.ready.push_back(self.form.usage(&self.usage).to_string());
            }
            self.ready.push_back("[DONE]".into());
            self.app.figures.whole.observe(self.working.asked.elapsed().as_secs_f64());
            self.is_done = true;
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(serde_json::to_string(error.body()).unwrap_or_default());
        self.is_done = true;
    }
}

/// Sends what `count` jobs tell, `answers` for each prompt.
pub fn respond<F: StreamForm>(
    app: &Arc<App>,
    log: &Arc<RequestLog>,
    working: Working,
    form: F,
    count: usize,
    answers: usize,
    include_usage: bool,
) -> Response {
    let open = OpenStream {
        app: Arc::clone(app),
        log: Arc::clone(log),
        working,
        form,
        usage: Usage::default(),
        include_usage,
        answers,
        is_first: true,
        open: count,
        ready: std::collections::VecDeque::new(),
        is_done: false,
    };
    let events = stream::unfold(open, |mut open| async move {
        while open.ready.is_empty() && !open.is_done {
            open.advance().await;
        }
        let text = open.ready.pop_front()?;
        Some((Ok::<Event, Infallible>(Event::default().data(text)), open))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))).into_response()
}
