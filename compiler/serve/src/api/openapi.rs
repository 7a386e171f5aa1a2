//! The description of this interface, as OpenAPI 3.1, from the same structs that are read and written.

use super::chat::{ChatAnswer, ChatRequest};
use super::completions::{CompletionAnswer, CompletionRequest};
use super::errors::ErrorBody;
use super::tokens::{
    DetokenizeAnswer, DetokenizeRequest, Health, ModelCard, ModelList, TokenizeAnswer, TokenizeRequest, TokenizerInfo,
};
use crate::app::App;
use axum::Json as JsonBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

/// An operation that takes JSON and gives JSON.
fn post<A: JsonSchema, B: JsonSchema>(schemas: &mut SchemaGenerator, summary: &str, streams: bool) -> Json {
    let (asked, answered) = (schemas.subschema_for::<A>(), schemas.subschema_for::<B>());
    let mut content = json!({ "application/json": { "schema": answered } });
    if streams {
        content["text/event-stream"] = json!({ "schema": { "type": "string" } });
    }
    let mut responses = errors(schemas, &["400", "401", "403", "404", "408", "413", "415", "429", "500", "503"]);
    responses.insert("200".into(), json!({ "description": "The answer", "content": content }));
    json!({ "post": {
        "summary": summary,
        "requestBody": { "required": true, "content": { "application/json": { "schema": asked } } },
        "responses": responses,
    } })
}

/// An operation that gives JSON.
fn get<B: JsonSchema>(schemas: &mut SchemaGenerator, summary: &str, known: &[&str]) -> Json {
    let answered = schemas.subschema_for::<B>();
    let mut responses = errors(schemas, known);
    let content = json!({ "application/json": { "schema": answered } });
    responses.insert("200".into(), json!({ "description": "The answer", "content": content }));
    json!({ "get": { "summary": summary, "responses": responses } })
}

fn errors(schemas: &mut SchemaGenerator, statuses: &[&str]) -> Map<String, Json> {
    let body = schemas.subschema_for::<ErrorBody>();
    let error =
        json!({ "description": "Why there is no answer", "content": { "application/json": { "schema": body } } });
    statuses.iter().map(|status| (status.to_string(), error.clone())).collect()
}

/// The whole description.
pub fn document(needs_key: bool) -> Json {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let open = ["401", "403", "503"];
    let mut paths = Map::new();
    let all = &mut schemas;
    paths.insert(
        "/v1/completions".into(),
        post::<CompletionRequest, CompletionAnswer>(all, "Continue texts or token ids", true),
    );
    paths.insert("/v1/chat/completions".into(), post::<ChatRequest, ChatAnswer>(all, "Answer a conversation", true));
    paths.insert("/tokenize".into(), post::<TokenizeRequest, TokenizeAnswer>(all, "Token ids of a text", false));
    paths
        .insert("/detokenize".into(), post::<DetokenizeRequest, DetokenizeAnswer>(all, "The text of token ids", false));
    paths.insert("/v1/models".into(), get::<ModelList>(all, "The models of this server", &open));
    let info = get::<TokenizerInfo>(all, "What is known of the tokenizer", &open);
    paths.insert("/tokenizer_info".into(), info);
    let mut model = get::<ModelCard>(all, "One model", &["401", "403", "404", "503"]);
    model["get"]["parameters"] = json!([
        { "name": "model", "in": "path", "required": true, "schema": { "type": "string" } }
    ]);
    paths.insert("/v1/models/{model}".into(), model);
    let mut health = get::<Health>(all, "Whether the server is well", &["403"]);
    health["get"]["responses"]["503"] = health["get"]["responses"]["200"].clone();
    health["get"]["security"] = json!([]);
    paths.insert("/health".into(), health);
    let text = json!({ "description": "The answer", "content": { "application/openmetrics-text": { "schema": { "type": "string" } } } });
    let mut metrics =
        json!({ "get": { "summary": "Figures, as Prometheus reads them", "responses": errors(all, &open) } });
    metrics["get"]["responses"]["200"] = text;
    paths.insert("/metrics".into(), metrics);
    let schemas = schemas.take_definitions(true);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "snnc serve",
            "description": "One spiking language model, as clients of OpenAI's interface speak to it",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "paths": paths,
        "components": { "schemas": schemas },
    });
    if needs_key {
        document["components"]["securitySchemes"] = json!({ "key": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "key": [] }]);
    }
    document
}

/// The description of this server.
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    JsonBody(document(!app.keys.is_empty())).into_response()
}
