//! JSON with the name of its schema, and the schemas themselves, which `docs/schemas` publishes.
//!
//! Law: what a command prints as JSON is one of `all`, so a reader can tell by `schema` what it holds.

use crate::bench::BenchJson;
use crate::check::CheckJson;
use crate::energy::json::EnergyJson;
use crate::eval_report::{EvalJson, EvalsJson};
use crate::export::nir::manifest::NirManifest;
use crate::export::sana_fe_manifest::SanaFeManifest;
use crate::generate::PromptJson;
use crate::part::PartJson;
use crate::report::Report;
use crate::run_record::RunRecord;
use crate::train::events::TrainEvent;
use crate::tune::run::TuneJson;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value as Json};

/// Something that a command prints as JSON.
pub trait Documented: Serialize + JsonSchema {
    /// The schema's name: `docs/schemas/NAME.json`.
    const NAME: &'static str;
}

macro_rules! documented {
    ($($type:ty => $name:literal),* $(,)?) => {
        $(impl Documented for $type {
            const NAME: &'static str = $name;
        })*

        /// All schemas by name.
        ///
        /// ```
        /// let schemas = snnc::schema::all();
        /// let eval = &schemas.iter().find(|(name, _)| *name == "eval").expect("eval prints JSON").1;
        /// assert_eq!(eval["properties"]["perplexity"]["type"], "number");
        /// ```
        pub fn all() -> Vec<(&'static str, Json)> {
            vec![$(($name, schema::<$type>())),*]
        }
    };
}

documented! {
    BenchJson => "bench",
    CheckJson => "check",
    EnergyJson => "energy",
    EvalJson => "eval",
    EvalsJson => "evals",
    NirManifest => "nir",
    PartJson => "part",
    PromptJson => "prompt",
    Report => "report",
    SanaFeManifest => "sana-fe",
    TrainEvent => "train",
    TuneJson => "tune",
}

/// The version of all schemas: it goes up when a key changes its name or its meaning.
pub const VERSION: u32 = 2;

/// What a document of this kind says of its schema.
pub(crate) fn tag<T: Documented>() -> String {
    format!("snnc.{}.v{VERSION}", T::NAME)
}

/// A value as JSON with the name of its schema as the first key, and what run it is of as the second. Of a stream of documents
/// only the first says what run it is of.
pub fn document<T: Documented>(value: &T, run: Option<&RunRecord>) -> Json {
    let body = serde_json::to_value(value).unwrap_or_default();
    let schema = std::iter::once(("schema".to_string(), Json::from(tag::<T>())));
    let run = run.map(|run| ("run".to_string(), serde_json::to_value(run).unwrap_or_default()));
    match body {
        Json::Object(body) => Json::Object(schema.chain(run).chain(body).collect()),
        other => other,
    }
}

/// The schema of what `document` gives.
fn schema<T: Documented>() -> Json {
    let mut schema = schemars::schema_for!(T).to_value();
    schema["$id"] = Json::from(tag::<T>());
    // Every document says which it is; so does every alternative of one.
    let constant = serde_json::json!({ "const": tag::<T>() });
    // What the record of a run is made of stands beside what the document is made of.
    let mut run = schemars::schema_for!(RunRecord).to_value();
    let parts = run.as_object_mut().and_then(|run| run.remove("$defs"));
    if let Some(Json::Object(run)) = Some(&mut run) {
        run.remove("$schema");
        run.remove("title");
    }
    if let (Some(Json::Object(parts)), Some(whole)) = (parts, schema.as_object_mut()) {
        let known = whole.entry("$defs").or_insert_with(|| Json::Object(Map::new()));
        known.as_object_mut().into_iter().for_each(|known| known.extend(parts.clone()));
    }
    let add = |schema: &mut Json| {
        if let Some(Json::Object(properties)) = schema.get_mut("properties") {
            let known = std::mem::take(properties);
            let first = [("schema".to_string(), constant.clone()), ("run".to_string(), run.clone())];
            *properties = first.into_iter().chain(known).collect::<Map<_, _>>();
        }
        if let Some(Json::Array(required)) = schema.get_mut("required") {
            required.insert(0, Json::from("schema"));
        }
    };
    add(&mut schema);
    if let Some(Json::Array(kinds)) = schema.get_mut("oneOf") {
        kinds.iter_mut().for_each(add);
    }
    schema
}
