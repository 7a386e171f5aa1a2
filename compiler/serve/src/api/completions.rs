//! `POST /v1/completions`: continues texts or token ids.

use super::answer::{TokenSpikes, Usage, finish_reason};
use super::ask::{PROMPTS_MAX, TextFields, TextSettings, top};
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
use snnc::generate::prompt_ids;
use snnc_runtime::SampleOptions;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc::unbounded_channel;

/// New tokens where no number is given.
const MOST: usize = 16;

/// What is asked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct CompletionRequest {
    /// What is continued.
    pub prompt: AskedPrompts,
    /// New tokens, at most [default: 16].
    #[schemars(range(min = 0))]
    pub max_tokens: Option<u64>,
    /// Tell the prompt as well, with its tokens' probabilities if those are asked for.
    pub echo: Option<bool>,
    /// Tell the probability of each token, and so many likeliest ones at its place.
    #[schemars(range(min = 0, max = 20))]
    pub logprobs: Option<u64>,
    /// Must be `n`, or absent.
    pub best_of: Option<u64>,
    /// The rest.
    #[serde(flatten)]
    pub fields: TextFields,
}

/// One text or several, as words or as token ids.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AskedPrompts {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Token ids.
    Ids(Vec<u32>),
    /// Several times token ids.
    ManyIds(Vec<Vec<u32>>),
}

/// What is answered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CompletionAnswer {
    /// The answer's name.
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
    /// The texts, `n` for each prompt.
    pub choices: Vec<CompletionChoice>,
    /// How many tokens there were.
    pub usage: Usage,
}

/// A text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CompletionChoice {
    /// The text.
    pub text: String,
    /// Its place.
    pub index: usize,
    /// Probabilities, if they were asked for.
    pub logprobs: Option<CompletionScores>,
    /// `stop` or `length`.
    pub finish_reason: Option<&'static str>,
}

/// Probabilities of tokens, as natural logarithms; one entry per token.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CompletionScores {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Of the tokens; null of a text's first.
    pub token_logprobs: Vec<Option<f64>>,
    /// Of the likeliest tokens, and of the token itself; null at a text's first.
    pub top_logprobs: Vec<Option<Map<String, Json>>>,
    /// Where each token begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

/// A prompt, ready to be run.
struct ReadyPrompt {
    ids: Vec<u32>,
    /// Its text, which stands before the answer with `echo`.
    text: String,
    /// Tokens in front that are no part of the text.
    unsaid: usize,
    begins: bool,
}

impl CompletionScores {
    /// `said`: the token is part of the text.
    fn add(&mut self, model: &ServedModel, scored: &ScoredToken, said: bool, offset: &mut usize) {
        let text = |id: u32| model.tokens.continuation(&[id]).unwrap_or_default();
        let word = if said { text(scored.id) } else { String::new() };
        self.text_offset.push(*offset);
        *offset += word.chars().count();
        self.tokens.push(word.clone());
        self.token_logprobs.push(scored.logprob);
        self.top_logprobs.push(scored.logprob.map(|logprob| {
            let mut likeliest = Map::new();
            // Of tokens with one text the likeliest is told.
            for (id, logprob) in &scored.top {
                likeliest.entry(text(*id)).or_insert_with(|| json!(logprob));
            }
            likeliest.entry(word).or_insert_with(|| json!(logprob));
            likeliest
        }));
    }
}

fn ready(model: &ServedModel, prompts: &AskedPrompts) -> Result<Vec<ReadyPrompt>, ApiError> {
    let context = model.context();
    let of_text = |text: &String| {
        let ids = prompt_ids(&model.tokens, text, context, "prompt").map_err(|error| {
            let error = ApiError::of("prompt", &error.into());
            error.code("context_length_exceeded")
        })?;
        let start = model.tokens.start();
        let unsaid = if ids.starts_with(start) && !text_begins(model, text, start) { start.len() } else { 0 };
        Ok(ReadyPrompt { ids, text: text.clone(), unsaid, begins: text.is_empty() })
    };
    let of_ids = |ids: &Vec<u32>| {
        let start = model.tokens.start();
        let own = ids.strip_prefix(start).unwrap_or(ids);
        let known = own.iter().all(|&id| (id as usize) < model.vocabulary);
        let text = if known { model.tokens.decode(own) } else { Ok(String::new()) };
        let text = text.map_err(|error| ApiError::of("prompt", &error.into()))?;
        Ok(ReadyPrompt { ids: ids.clone(), unsaid: ids.len() - own.len(), begins: own.is_empty(), text })
    };
    match prompts {
        AskedPrompts::Text(text) => Ok(vec![of_text(text)?]),
        AskedPrompts::Texts(texts) => texts.iter().map(of_text).collect(),
        AskedPrompts::Ids(ids) => Ok(vec![of_ids(ids)?]),
        AskedPrompts::ManyIds(all) => all.iter().map(of_ids).collect(),
    }
}

/// Whether a text is written with the start tokens in front.
fn text_begins(model: &ServedModel, text: &str, start: &[u32]) -> bool {
    model.tokens.encode(text).is_ok_and(|ids| !start.is_empty() && ids.starts_with(start))
}

/// What is the same for all sequences of a request.
struct Wanted {
    settings: TextSettings,
    most: usize,
    echo: bool,
    top: Option<usize>,
}

impl CompletionRequest {
    fn check(&self, app: &App) -> Result<Wanted, ApiError> {
        let settings = self.fields.check(&app.model.name, app.model.counting.is_some())?;
        let count = match &self.prompt {
            AskedPrompts::Text(_) | AskedPrompts::Ids(_) => 1,
            AskedPrompts::Texts(texts) => texts.len(),
            AskedPrompts::ManyIds(all) => all.len(),
        };
        if !(1..=PROMPTS_MAX).contains(&count) {
            return Err(ApiError::field("prompt", format!("there are 1 to {PROMPTS_MAX} prompts in a request")));
        }
        if self.best_of.is_some_and(|best| best as usize != settings.answers) {
            return Err(ApiError::field("best_of", "this server writes `n` answers and tells all of them"));
        }
        let most = app.most("max_tokens", self.max_tokens, MOST)?;
        let top = self.logprobs.map(|asked| top("logprobs", asked as usize)).transpose()?;
        Ok(Wanted { most, echo: self.echo.unwrap_or(false), top, settings })
    }
}

/// Continues texts.
pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(log): Extension<Arc<RequestLog>>,
    body: Body,
) -> Response {
    answer(&app, &log, body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &Arc<App>, log: &Arc<RequestLog>, body: Body) -> Result<Response, ApiError> {
    let request: CompletionRequest = app.json(body).await?;
    let wanted = request.check(app)?;
    let model = Arc::clone(&app.model);
    let prompts = tokio::task::spawn_blocking(move || ready(&model, &request.prompt)).await;
    let prompts = prompts.map_err(|_| ApiError::wrong("the prompt cannot be read"))??;
    prompts.iter().try_for_each(|prompt| app.check_prompt("prompt", &prompt.ids))?;

    let answers = wanted.settings.answers;
    let (events, received) = unbounded_channel();
    let mut jobs = Vec::new();
    for prompt in &prompts {
        for answer in 0..answers as u64 {
            let seed = wanted.settings.options.seed.wrapping_add(answer);
            jobs.push(Job {
                index: jobs.len(),
                ids: prompt.ids.clone(),
                begins: prompt.begins,
                most: wanted.most,
                options: SampleOptions { seed, ..wanted.settings.options },
                stop: wanted.settings.stop.clone(),
                top: wanted.top,
                echo: wanted.echo,
                counted: wanted.settings.counted,
                events: events.clone(),
            });
        }
    }
    drop(events);
    let count = jobs.len();
    let working = app.submit(jobs, received)?;
    let head = AnswerHead { id: app.answer_name("cmpl"), created: seconds_of(SystemTime::now()), app: Arc::clone(app) };
    let texts: Vec<String> = (0..count).map(|i| prompts[i / answers].text.clone()).collect();
    let unsaid: Vec<usize> = (0..count).map(|i| prompts[i / answers].unsaid).collect();
    if wanted.settings.stream {
        let include_usage = wanted.settings.include_usage;
        let texts = if wanted.echo { texts } else { vec![String::new(); count] };
        let form = CompletionStream { head, offsets: vec![0; count], texts, unsaid, scored: wanted.top.is_some() };
        return Ok(respond(app, log, working, form, count, answers, include_usage));
    }
    let all = app.collect(working, count).await?;
    let usage = Usage::of(&all, answers);
    log.used(&usage);
    let choice = |(index, (one, text)): (usize, (&Collected, &String))| {
        let text = if wanted.echo { text.as_str() } else { "" };
        choice(&app.model, index, one, text, wanted.top.is_some().then_some(unsaid[index]))
    };
    let choices = all.iter().zip(&texts).enumerate().map(choice).collect();
    let AnswerHead { id, created, .. } = head;
    let model = app.model.name.clone();
    Ok(JsonBody(CompletionAnswer { id, object: "text_completion", created, model, choices, usage }).into_response())
}

/// `scored`: probabilities are told, and so many tokens in front are no part of the text.
fn choice(model: &ServedModel, index: usize, one: &Collected, before: &str, scored: Option<usize>) -> CompletionChoice {
    let logprobs = scored.map(|unsaid| {
        let mut scores = CompletionScores::default();
        let mut offset = 0;
        let written = one.written.iter().filter_map(|token| token.scored.as_ref());
        let prompt = one.prompt.iter().enumerate();
        prompt.for_each(|(i, token)| scores.add(model, token, i >= unsaid, &mut offset));
        written.for_each(|token| scores.add(model, token, true, &mut offset));
        scores
    });
    let finish_reason = one.end.as_ref().map(|end| finish_reason(end.stopped));
    CompletionChoice { text: format!("{before}{}", one.text), index, logprobs, finish_reason }
}

/// What all events of an answer begin with.
struct AnswerHead {
    app: Arc<App>,
    id: String,
    created: u64,
}

struct CompletionStream {
    head: AnswerHead,
    offsets: Vec<usize>,
    /// AskedPrompts that are told before their answers.
    texts: Vec<String>,
    /// Tokens in front of prompts that are no part of their texts, as long as they were not told.
    unsaid: Vec<usize>,
    scored: bool,
}

impl CompletionStream {
    fn chunk(&self, choices: &[CompletionChoice]) -> Json {
        let AnswerHead { app, id, created } = &self.head;
        json!({
            "id": id, "object": "text_completion", "created": created, "model": app.model.name, "choices": choices,
        })
    }

    fn choice(
        &mut self,
        index: usize,
        text: String,
        scored: &[ScoredToken],
        is_prompt: bool,
        finish_reason: Option<&'static str>,
    ) -> CompletionChoice {
        let logprobs = self.scored.then(|| {
            let mut scores = CompletionScores::default();
            let (model, offset) = (&self.head.app.model, &mut self.offsets[index]);
            let unsaid = if is_prompt { std::mem::take(&mut self.unsaid[index]) } else { 0 };
            scored.iter().enumerate().for_each(|(i, token)| scores.add(model, token, i >= unsaid, offset));
            scores
        });
        CompletionChoice { text, index, logprobs, finish_reason }
    }
}

impl StreamForm for CompletionStream {
    fn event(&mut self, index: usize, event: &JobEvent) -> Vec<Json> {
        let before = std::mem::take(&mut self.texts[index]);
        let choice = match event {
            JobEvent::Prompt(scores) => self.choice(index, before, scores, true, None),
            JobEvent::Written(token) => {
                let text = before + &token.text;
                if text.is_empty() && token.scored.is_none() && token.spikes.is_none() {
                    return Vec::new();
                }
                let choice = self.choice(index, text, token.scored.as_slice(), false, None);
                let mut chunk = self.chunk(&[choice]);
                if let Some(spikes) = &token.spikes {
                    chunk["snn"] = json!(TokenSpikes::of(spikes));
                }
                return vec![chunk];
            }
            JobEvent::End(end) => self.choice(index, before + &end.text, &[], false, Some(finish_reason(end.stopped))),
            JobEvent::Failed(_) => return Vec::new(),
        };
        vec![self.chunk(&[choice])]
    }

    fn usage(&self, usage: &Usage) -> Json {
        let mut chunk = self.chunk(&[]);
        chunk["usage"] = json!(usage);
        chunk
    }
}
