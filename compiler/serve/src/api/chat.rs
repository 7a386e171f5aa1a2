//! `POST /v1/chat/completions`: answers a conversation, as the model's chat template writes it.

use super::answer::{TokenSpikes, Usage, finish_reason};
use super::ask::{TextFields, TextSettings, top};
use super::errors::ApiError;
use super::stream::{StreamForm, respond};
use crate::app::{App, Collected, seconds_of};
use crate::job::{Job, JobEvent, ScoredToken};
use crate::request_log::RequestLog;
use crate::served::ServedModel;
use axum::Extension;
use axum::Json as JsonBody;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use snnc::chat::find::no_template;
use snnc::chat::python::Moment;
use snnc::chat::spoken::SpokenWords;
use snnc::chat::template::{ChatTemplate, Message, TemplateValues};
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::SampleOptions;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc::unbounded_channel;

/// What is asked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<ChatMessage>,
    /// New tokens, at most [default: until the answer or the context ends].
    #[schemars(range(min = 0))]
    pub max_tokens: Option<u64>,
    /// The same by its newer name.
    #[schemars(range(min = 0))]
    pub max_completion_tokens: Option<u64>,
    /// Tell the probability of each token.
    pub logprobs: Option<bool>,
    /// And of so many likeliest ones at its place.
    #[schemars(range(min = 0, max = 20))]
    pub top_logprobs: Option<u64>,
    /// Names that the template asks for.
    pub chat_template_kwargs: Option<Map<String, Json>>,
    /// The rest.
    #[serde(flatten)]
    pub fields: TextFields,
}

/// A message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: MessageContent,
}

/// A text, whole or in parts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MessageContent {
    /// Whole.
    Text(String),
    /// In parts, each of the type `text`.
    Parts(Vec<MessagePart>),
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct MessagePart {
    /// `text`
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChatAnswer {
    /// The answer's name.
    pub id: String,
    /// `chat.completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// How many tokens there were.
    pub usage: Usage,
}

/// An answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChatChoice {
    /// Its place.
    pub index: usize,
    /// What is said.
    pub message: SaidMessage,
    /// Probabilities, if they were asked for.
    pub logprobs: Option<ChatScores>,
    /// `stop` or `length`.
    pub finish_reason: Option<&'static str>,
}

/// What the network says.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SaidMessage {
    /// `assistant`
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// Null: the network refuses nothing.
    pub refusal: Option<String>,
}

/// Probabilities of an answer's tokens.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ChatScores {
    /// By token.
    pub content: Vec<ChatToken>,
}

/// A token with its probability.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChatToken {
    /// Its text.
    pub token: String,
    /// The natural logarithm of its probability.
    pub logprob: f64,
    /// Its text's bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens at its place.
    pub top_logprobs: Vec<LikelyToken>,
}

/// One of the likeliest tokens.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LikelyToken {
    /// Its text.
    pub token: String,
    /// The natural logarithm of its probability.
    pub logprob: f64,
    /// Its text's bytes.
    pub bytes: Vec<u8>,
}

impl ChatToken {
    fn of(model: &ServedModel, scored: &ScoredToken) -> Self {
        let text = |id: u32| model.tokens.continuation(&[id]).unwrap_or_default();
        let likely = |&(id, logprob): &(u32, f64)| {
            let token = text(id);
            LikelyToken { bytes: token.clone().into_bytes(), token, logprob }
        };
        let token = text(scored.id);
        let top_logprobs = scored.top.iter().map(likely).collect();
        Self { bytes: token.clone().into_bytes(), token, logprob: scored.logprob.unwrap_or_default(), top_logprobs }
    }
}

fn role(role: &str) -> Result<&'static str, ApiError> {
    match role {
        "system" | "developer" => Ok("system"),
        "user" => Ok("user"),
        "assistant" => Ok("assistant"),
        other => Err(ApiError::field("messages", format!("the role {other:?} is none of system, user, assistant"))),
    }
}

fn content(content: &MessageContent) -> Result<String, ApiError> {
    match content {
        MessageContent::Text(text) => Ok(text.clone()),
        MessageContent::Parts(parts) => parts
            .iter()
            .map(|part| {
                let text = part.text.as_deref().filter(|_| part.kind == "text");
                text.ok_or_else(|| ApiError::field("messages", format!("this network reads text, no {:?}", part.kind)))
            })
            .collect(),
    }
}

/// The ids of a conversation up to where the answer begins.
fn ready(model: &ServedModel, request: &ChatRequest) -> Result<Vec<u32>, ApiError> {
    let words = SpokenWords::new(&model.tokens);
    let message =
        |one: &ChatMessage| Ok(Message { role: role(&one.role)?, content: words.marked(&content(&one.content)?) });
    let messages = request.messages.iter().map(message).collect::<Result<Vec<Message>, ApiError>>()?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "there are none"));
    }
    let wrong = |diagnostics: Diagnostics| ApiError::of("messages", &diagnostics);
    let Some((source, place)) = &model.template else { return Err(wrong(no_template(&model.name).into())) };
    let named = request.chat_template_kwargs.iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
    let values = TemplateValues { now: Moment::now(), named: named.collect() };
    let ids = || -> Result<Vec<u32>, Diagnostics> {
        let template = ChatTemplate::new(source, place, model.tokens.language(), values)?;
        Ok(words.encode(&template.render(&messages, true)?, true)?)
    };
    ids().map_err(wrong)
}

/// Answers a conversation.
pub async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(log): Extension<Arc<RequestLog>>,
    body: Body,
) -> Response {
    answer(&app, &log, body).await.unwrap_or_else(IntoResponse::into_response)
}

fn check(app: &App, request: &ChatRequest) -> Result<(TextSettings, Option<u64>, Option<usize>), ApiError> {
    let settings = request.fields.check(&app.model.name, app.model.counting.is_some())?;
    let most = match (request.max_tokens, request.max_completion_tokens) {
        (Some(a), Some(b)) if a != b => {
            return Err(ApiError::field("max_tokens", "max_completion_tokens says something else"));
        }
        (a, b) => a.or(b),
    };
    let scored = request.logprobs.unwrap_or(false);
    if request.top_logprobs.is_some() && !scored {
        return Err(ApiError::field("top_logprobs", "it is told with `logprobs` alone"));
    }
    let count = request.top_logprobs.unwrap_or(0) as usize;
    let top = scored.then(|| top("top_logprobs", count)).transpose()?;
    Ok((settings, most, top))
}

async fn answer(app: &Arc<App>, log: &Arc<RequestLog>, body: Body) -> Result<Response, ApiError> {
    let request: ChatRequest = app.json(body).await?;
    let (settings, most, top) = check(app, &request)?;
    let model = Arc::clone(&app.model);
    let ids = tokio::task::spawn_blocking(move || ready(&model, &request)).await;
    let ids = ids.map_err(|_| ApiError::wrong("the conversation cannot be read"))??;
    app.check_prompt("messages", &ids)?;
    let most = app.most("max_tokens", most, app.model.context())?;
    let (events, received) = unbounded_channel();
    let job = |index: usize| Job {
        index,
        ids: ids.clone(),
        begins: false,
        most,
        options: SampleOptions { seed: settings.options.seed.wrapping_add(index as u64), ..settings.options },
        stop: settings.stop.clone(),
        top,
        echo: false,
        counted: settings.counted,
        events: events.clone(),
    };
    let jobs: Vec<Job> = (0..settings.answers).map(job).collect();
    drop(events);
    let working = app.submit(jobs, received)?;
    let (id, created) = (app.answer_name("chatcmpl"), seconds_of(SystemTime::now()));
    if settings.stream {
        let form = ChatStream {
            app: Arc::clone(app),
            id,
            created,
            begun: vec![false; settings.answers],
            scored: top.is_some(),
        };
        return Ok(respond(app, log, working, form, settings.answers, settings.answers, settings.include_usage));
    }
    let all = app.collect(working, settings.answers).await?;
    let usage = Usage::of(&all, settings.answers);
    log.used(&usage);
    let choices = all.iter().enumerate().map(|(index, one)| choice(&app.model, index, one, top.is_some())).collect();
    let answer = ChatAnswer { id, object: "chat.completion", created, model: app.model.name.clone(), choices, usage };
    Ok(JsonBody(answer).into_response())
}

fn choice(model: &ServedModel, index: usize, one: &Collected, scored: bool) -> ChatChoice {
    let written = one.written.iter().filter_map(|token| token.scored.as_ref());
    let logprobs = scored.then(|| ChatScores { content: written.map(|token| ChatToken::of(model, token)).collect() });
    let message = SaidMessage { role: "assistant", content: one.text.clone(), refusal: None };
    let finish_reason = one.end.as_ref().map(|end| finish_reason(end.stopped));
    ChatChoice { index, message, logprobs, finish_reason }
}

struct ChatStream {
    app: Arc<App>,
    id: String,
    created: u64,
    /// Whether the role was told, by answer.
    begun: Vec<bool>,
    scored: bool,
}

impl ChatStream {
    fn chunk(&self, choices: &Json) -> Json {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.app.model.name,
            "choices": choices,
        })
    }

    fn piece(
        &mut self,
        index: usize,
        text: &str,
        scored: Option<&ScoredToken>,
        finish_reason: Option<&'static str>,
    ) -> Json {
        let mut delta = Map::new();
        if !std::mem::replace(&mut self.begun[index], true) {
            delta.insert("role".into(), "assistant".into());
        }
        if !text.is_empty() || delta.contains_key("role") {
            delta.insert("content".into(), text.into());
        }
        let tokens = scored.map(|token| vec![ChatToken::of(&self.app.model, token)]);
        let logprobs = self.scored.then(|| ChatScores { content: tokens.unwrap_or_default() });
        self.chunk(&json!([{ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason }]))
    }
}

impl StreamForm for ChatStream {
    fn event(&mut self, index: usize, event: &JobEvent) -> Vec<Json> {
        match event {
            JobEvent::Prompt(_) | JobEvent::Failed(_) => Vec::new(),
            JobEvent::Written(token) => {
                if token.text.is_empty() && token.scored.is_none() && token.spikes.is_none() {
                    return Vec::new();
                }
                let mut chunk = self.piece(index, &token.text, token.scored.as_ref(), None);
                if let Some(spikes) = &token.spikes {
                    chunk["snn"] = json!(TokenSpikes::of(spikes));
                }
                vec![chunk]
            }
            JobEvent::End(end) => {
                let mut chunks = Vec::new();
                if !end.text.is_empty() {
                    chunks.push(self.piece(index, &end.text, None, None));
                }
                chunks.push(self.piece(index, "", None, Some(finish_reason(end.stopped))));
                chunks
            }
        }
    }

    fn usage(&self, usage: &Usage) -> Json {
        let mut chunk = self.chunk(&json!([]));
        chunk["usage"] = json!(usage);
        chunk
    }
}
