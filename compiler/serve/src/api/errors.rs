//! Errors as clients of OpenAI's interface read them.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::diagnostic::Diagnostics;

/// Why a request has no answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    body: ErrorBody,
    retry_after: Option<u32>,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetails,
}

/// What is wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorDetails {
    /// In words.
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `overloaded_error`, `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field that is wrong.
    pub param: Option<String>,
    /// A code of snnc, or a word.
    pub code: Option<String>,
}

impl ApiError {
    /// An error of some kind.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let error = ErrorDetails { message: message.into(), kind, param: None, code: None };
        Self { status, body: ErrorBody { error }, retry_after: None }
    }

    /// A request that is wrong.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field that is wrong.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        let mut error = Self::wrong(format!("{field}: {}", message.into()));
        error.body.error.param = Some(field.into());
        error
    }

    /// The server is not to be had now; try again in so many seconds.
    pub fn busy(status: StatusCode, message: &str, seconds: u32) -> Self {
        let mut error = Self::new(status, "overloaded_error", message);
        error.retry_after = Some(seconds);
        error
    }

    /// With another status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With a word that programs read.
    pub fn code(mut self, code: &str) -> Self {
        self.body.error.code = Some(code.into());
        self
    }

    /// What went wrong with a prompt or while it was run.
    pub fn of(field: &str, diagnostics: &Diagnostics) -> Self {
        let words = |one: &snnc_ir::Diagnostic| {
            let place = one.place.to_string();
            let place = if place.is_empty() || place == field { String::new() } else { format!("{place} ") };
            format!("{place}{}", one.message)
        };
        let message = diagnostics.iter().map(words).collect::<Vec<String>>().join("; ");
        let code = diagnostics.iter().next().map(|one| one.code.to_string()).unwrap_or_default();
        Self::field(field, message).code(&code)
    }

    /// The body.
    pub fn body(&self) -> &ErrorBody {
        &self.body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let text = serde_json::to_string(&self.body).unwrap_or_default();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], text).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
