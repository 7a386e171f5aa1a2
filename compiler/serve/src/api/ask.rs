//! What all requests for text have in common: how it is drawn, where it ends, and what is told of it.

use super::errors::ApiError;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use snnc::option_values;
use snnc_runtime::SampleOptions;

/// Most likeliest tokens that are told of each token.
pub const TOP_MAX: usize = 20;
/// Most texts that end an answer.
pub const STOPS_MAX: usize = 16;
/// Most bytes of one of them.
pub const STOP_BYTES_MAX: usize = 1024;
/// Most answers to one prompt.
pub const ANSWERS_MAX: usize = 16;
/// Most prompts of one request.
pub const PROMPTS_MAX: usize = 64;

/// How text is drawn, where it ends, and what is told of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct TextFields {
    /// The model's name; the server has one model, and any other name is refused.
    pub model: Option<String>,
    /// What logits are divided by, from 0 to 2; 0 takes the likeliest token.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f32>,
    /// The probability that the likeliest tokens have together which take part, above 0 and at most 1.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub top_p: Option<f32>,
    /// How many likeliest tokens take part; 0 is all of them.
    #[schemars(range(min = 0))]
    pub top_k: Option<u32>,
    /// The least probability of a token that takes part, as a share of the likeliest's.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f32>,
    /// What divides the logits of tokens that were there lately; 1 changes nothing.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub repeat_penalty: Option<f32>,
    /// Equal seeds draw equal tokens; without one, 0.
    pub seed: Option<i64>,
    /// Texts before which an answer ends.
    pub stop: Option<StopTexts>,
    /// Answers to each prompt.
    #[schemars(range(min = 1, max = 16))]
    pub n: Option<u32>,
    /// Send the answer piece by piece, as server-sent events.
    pub stream: Option<bool>,
    /// What a stream tells besides.
    pub stream_options: Option<StreamFields>,
    /// Count the spikes of the answer, and estimate its energy.
    pub snn: Option<bool>,
    /// What other servers know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: Map<String, Json>,
}

/// One text or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StopTexts {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// What a stream tells besides.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub struct StreamFields {
    /// How many tokens there were, in a last event.
    #[serde(default)]
    pub include_usage: bool,
}

/// Fields that would change an answer and that this server does not know, with the values that change nothing.
const UNKNOWN: [(&str, &[&str]); 13] = [
    ("suffix", &["null", "\"\""]),
    ("logit_bias", &["null", "{}"]),
    ("presence_penalty", &["null", "0", "0.0"]),
    ("frequency_penalty", &["null", "0", "0.0"]),
    ("tools", &["null", "[]"]),
    ("tool_choice", &["null", "\"none\"", "\"auto\""]),
    ("functions", &["null", "[]"]),
    ("function_call", &["null", "\"none\"", "\"auto\""]),
    ("response_format", &["null", "{\"type\":\"text\"}"]),
    ("modalities", &["null", "[\"text\"]"]),
    ("audio", &["null"]),
    ("web_search_options", &["null"]),
    ("prediction", &["null"]),
];

/// What was asked, checked.
#[derive(Clone, Debug)]
pub struct TextSettings {
    /// How tokens are drawn.
    pub options: SampleOptions,
    /// Texts before which an answer ends.
    pub stop: Vec<String>,
    /// Answers to each prompt.
    pub answers: usize,
    /// Piece by piece.
    pub stream: bool,
    /// Tell how many tokens a stream had.
    pub include_usage: bool,
    /// Count spikes.
    pub counted: bool,
}

impl TextFields {
    /// Checks every field. `temperature`: where none is given.
    ///
    /// # Errors
    /// A field that is out of range, or that this server does not know and that would change the answer.
    pub fn check(&self, name: &str, spiking: bool) -> Result<TextSettings, ApiError> {
        if let Some(asked) = self.model.as_deref().filter(|asked| *asked != name) {
            let message = format!("there is no model {asked:?}; this server has {name:?}");
            return Err(ApiError::field("model", message).code("model_not_found").status(StatusCode::NOT_FOUND));
        }
        for (field, plain) in UNKNOWN {
            if let Some(value) = self.others.get(field).filter(|value| !plain.contains(&value.to_string().as_str())) {
                let value: String = value.to_string().chars().take(60).collect();
                return Err(ApiError::field(field, format!("this server does not know it, so {value} cannot be kept")));
            }
        }
        let number = |field: &str, value: Option<f32>, plain: f32, parse: fn(&str) -> Result<f32, String>| {
            let parsed = value.map_or(Ok(plain), |value| parse(&value.to_string()));
            parsed.map_err(|message| ApiError::field(field, message))
        };
        let plain = SampleOptions::default();
        let temperature = number("temperature", self.temperature, 1.0, option_values::temperature)?;
        if temperature > 2.0 {
            return Err(ApiError::field("temperature", "it is a number from 0 to 2"));
        }
        let options = SampleOptions {
            temperature,
            top_k: self.top_k.map_or(plain.top_k, |number| number as usize),
            top_p: number("top_p", self.top_p, plain.top_p, option_values::top_p)?,
            min_p: number("min_p", self.min_p, plain.min_p, option_values::min_p)?,
            repeat_penalty: number(
                "repeat_penalty",
                self.repeat_penalty,
                plain.repeat_penalty,
                option_values::repeat_penalty,
            )?,
            seed: self.seed.unwrap_or(0) as u64,
            ..plain
        };
        let stop = match &self.stop {
            None => Vec::new(),
            Some(StopTexts::One(text)) => vec![text.clone()],
            Some(StopTexts::Several(texts)) => texts.clone(),
        };
        if stop.len() > STOPS_MAX || stop.iter().any(|text| text.is_empty() || text.len() > STOP_BYTES_MAX) {
            let message = format!("there are at most {STOPS_MAX} texts of 1 to {STOP_BYTES_MAX} bytes");
            return Err(ApiError::field("stop", message));
        }
        let answers = self.n.unwrap_or(1) as usize;
        if !(1..=ANSWERS_MAX).contains(&answers) {
            return Err(ApiError::field("n", format!("it is a whole number from 1 to {ANSWERS_MAX}")));
        }
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(ApiError::field("stream_options", "without `stream` there is no stream"));
        }
        let counted = self.snn.unwrap_or(false);
        if counted && !spiking {
            return Err(ApiError::field("snn", "this server runs a dense network, which has no spikes"));
        }
        let include_usage = self.stream_options.unwrap_or_default().include_usage;
        Ok(TextSettings { options, stop, answers, stream, include_usage, counted })
    }
}

/// Likeliest tokens to tell of each token.
///
/// # Errors
/// More than are told.
pub fn top(field: &str, asked: usize) -> Result<usize, ApiError> {
    let wrong = || ApiError::field(field, format!("it is a whole number from 0 to {TOP_MAX}"));
    (asked <= TOP_MAX).then_some(asked).ok_or_else(wrong)
}
