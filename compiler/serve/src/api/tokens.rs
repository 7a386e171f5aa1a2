//! `/tokenize`, `/detokenize`, `/v1/models`, `/health`, `/metrics`.

use super::errors::ApiError;
use crate::app::{App, seconds_of};
use axum::Json as JsonBody;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A text to cut into tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct TokenizeRequest {
    /// The text.
    #[serde(alias = "content")]
    pub prompt: String,
    /// Put the tokens in front that stand before every text of this network [default: yes].
    #[serde(alias = "add_special")]
    pub add_special_tokens: Option<bool>,
}

/// Its tokens.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenizeAnswer {
    /// Ids.
    pub tokens: Vec<u32>,
    /// How many.
    pub count: usize,
    /// Tokens that a sequence may have.
    pub max_model_len: usize,
}

/// Token ids to make a text of.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct DetokenizeRequest {
    /// Ids.
    pub tokens: Vec<u32>,
}

/// Their text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DetokenizeAnswer {
    /// The text.
    pub prompt: String,
}

/// The models of this server.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ModelList {
    /// `list`
    pub object: &'static str,
    /// The one.
    pub data: Vec<ModelCard>,
}

/// A model.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ModelCard {
    /// Its name.
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// Seconds since 1970 at which the server began.
    pub created: u64,
    /// `snnc`
    pub owned_by: &'static str,
    /// Tokens that a sequence may have.
    pub max_model_len: usize,
    /// Whether it spikes.
    pub spiking: bool,
}

/// What is known of the tokenizer, as lm-evaluation-harness asks for it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenizerInfo {
    /// The token that stands before a text, if there is one.
    pub bos_token: Option<String>,
    /// The token that ends a text, if there is one.
    pub eos_token: Option<String>,
    /// The token of empty places, if it has a name.
    pub pad_token: Option<String>,
    /// The chat template.
    pub chat_template: Option<String>,
}

/// Whether the server is well.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Health {
    /// `ok`, or `draining` where it is about to end.
    pub status: &'static str,
}

fn card(app: &App) -> ModelCard {
    ModelCard {
        id: app.model.name.clone(),
        object: "model",
        created: seconds_of(app.started),
        owned_by: "snnc",
        max_model_len: app.model.context(),
        spiking: app.model.counting.is_some(),
    }
}

/// The models.
pub async fn models(State(app): State<Arc<App>>) -> Response {
    JsonBody(ModelList { object: "list", data: vec![card(&app)] }).into_response()
}

/// One model.
pub async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    if name == app.model.name {
        return JsonBody(card(&app)).into_response();
    }
    let message = format!("there is no model {name:?}; this server has {:?}", app.model.name);
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("model_not_found").into_response()
}

/// What is known of the tokenizer.
pub async fn tokenizer_info(State(app): State<Arc<App>>) -> Response {
    let tokens = &app.model.tokens;
    let special = &tokens.language().special_tokens;
    let named = |name: &str| special.iter().find(|token| token.name == name).map(|token| token.text.clone());
    let [bos_token, eos_token, pad_token] = ["bos_token", "eos_token", "pad_token"].map(named);
    // Where files name none: those that stand before a text, and end it.
    let text = |id: u32| tokens.continuation(&[id]).ok();
    let bos_token = bos_token.or_else(|| tokens.start().first().and_then(|&id| text(id)));
    let ends = || (0..app.model.vocabulary as u32).find(|&id| tokens.ends(id));
    let eos_token = eos_token.or_else(|| ends().and_then(text));
    let chat_template = app.model.template.as_ref().map(|(source, _)| source.clone());
    JsonBody(TokenizerInfo { bos_token, eos_token, pad_token, chat_template }).into_response()
}

/// Ids of a text.
pub async fn tokenize(State(app): State<Arc<App>>, body: Body) -> Response {
    let answer = async {
        let asked: TokenizeRequest = app.json(body).await?;
        let model = Arc::clone(&app.model);
        let cut = move || {
            let ids = model.tokens.document(&asked.prompt)?;
            let start = model.tokens.start().len();
            Ok(if asked.add_special_tokens.unwrap_or(true) { ids } else { ids[start.min(ids.len())..].to_vec() })
        };
        let cut = tokio::task::spawn_blocking(cut).await.map_err(|_| ApiError::wrong("the text cannot be read"))?;
        let tokens = cut.map_err(|error: snnc_ir::Diagnostic| ApiError::of("prompt", &error.into()))?;
        let (count, max_model_len) = (tokens.len(), app.model.context());
        Ok::<Response, ApiError>(JsonBody(TokenizeAnswer { tokens, count, max_model_len }).into_response())
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// The text of ids.
pub async fn detokenize(State(app): State<Arc<App>>, body: Body) -> Response {
    let answer = async {
        let asked: DetokenizeRequest = app.json(body).await?;
        if let Some(id) = asked.tokens.iter().find(|&&id| id as usize >= app.model.vocabulary) {
            return Err(ApiError::field("tokens", format!("token {id} is none of {}", app.model.vocabulary)));
        }
        let prompt = app.model.tokens.decode(&asked.tokens);
        let prompt = prompt.map_err(|error| ApiError::of("tokens", &error.into()))?;
        Ok(JsonBody(DetokenizeAnswer { prompt }).into_response())
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// Whether the server is well.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let draining = app.draining.load(Ordering::SeqCst);
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, JsonBody(Health { status: if draining { "draining" } else { "ok" } })).into_response()
}

/// Figures, as Prometheus reads them.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.figures.text()).into_response()
}
