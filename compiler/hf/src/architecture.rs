//! Descriptions of architectures: data, a table of parts and tensor names (`architectures.toml`), read into types.
//!
//! A description says which parts a network has, and what its tensors and the keys of its configuration are called. It says
//! nothing about how a part works: `blueprint` puts numbers in, `build` makes ops of it. A user may give a table of his own.

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value as Json};
use snnc_ir::diagnostic::{Diagnostic, ErrorCode};
use std::collections::HashSet;
use std::path::Path;

/// The descriptions that come with snnc.
const BUILT_IN: &str = include_str!("architectures.toml");

/// What is known of keys that no description reads.
const RULES: &str = include_str!("config_rules.toml");

/// How often a description may be like another that is like another.
const LIKE_MAX: usize = 8;

/// What a description states, or the key of `config.json` that does: `$hidden_act`.
#[derive(Clone, Debug, PartialEq)]
pub enum ArchitectureSetting<T> {
    /// Stated.
    Is(T),
    /// By this key.
    Key(String),
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for ArchitectureSetting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        match value.as_str().and_then(|text| text.strip_prefix('$')) {
            Some(key) => Ok(ArchitectureSetting::Key(key.to_string())),
            None => T::deserialize(value).map(ArchitectureSetting::Is).map_err(D::Error::custom),
        }
    }
}

impl Default for ArchitectureSetting<bool> {
    fn default() -> Self {
        ArchitectureSetting::Is(false)
    }
}

/// What a network is made of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Values of `architectures` that mean this network with its head.
    pub classes: Vec<String>,
    /// What tensors' names begin with, but in base models.
    pub prefix: String,
    /// Tensors that follow from the configuration.
    #[serde(default)]
    pub buffers: Vec<String>,
    /// How weights of projections lie.
    pub layout: WeightLayout,
    /// Values of keys that a configuration leaves out.
    #[serde(default)]
    pub defaults: Map<String, Json>,
    /// Keys that change nothing in this network, whatever they say.
    #[serde(default)]
    pub inert: Vec<String>,
    /// Keys that say another network, but for their harmless values.
    #[serde(default)]
    pub refused: IndexMap<String, RefusedKey>,
    /// Keys of sizes.
    pub sizes: SizeKeys,
    /// The table of tokens.
    pub tokens: TokensPart,
    /// How tokens know where they are.
    pub positions: PositionPart,
    /// What all norms are.
    pub norm: NormKindPart,
    /// How attention and MLP stand in every block.
    #[serde(default)]
    pub block: BlockPart,
    /// Attention of every block.
    pub attention: AttentionPart,
    /// The MLP of every block.
    pub mlp: MlpPart,
    /// What makes logits of the last block.
    pub output: OutputPart,
}

/// How the weight of a projection lies.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// `[outputs, inputs]`, as a Linear's.
    OutputMajor,
    /// `[inputs, outputs]`, as a Conv1D's.
    InputMajor,
}

/// Keys of sizes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeKeys {
    /// Channels of the residual stream.
    pub width: String,
    /// Blocks.
    pub layers: String,
    /// Heads of queries.
    pub heads: String,
    /// Heads of keys and values; as many as of queries without one.
    pub kv_heads: Option<String>,
    /// Channels of a head; the width shared by all heads without one.
    pub head_width: Option<String>,
    /// Channels inside an MLP; four times the width where the value is null.
    pub inner: String,
    /// Tokens.
    pub vocabulary: String,
    /// Tokens of a sequence.
    pub context: String,
}

/// The table of tokens, and what is done to its rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensPart {
    /// Its tensor.
    pub table: String,
    /// The key of its width, where that may be another than the stream's.
    pub width: Option<String>,
    /// The projection from its width to the stream's, where they differ.
    pub project: Option<String>,
    /// Whether rows are multiplied by the root of the stream's width.
    #[serde(default)]
    pub scaled_by_width: ArchitectureSetting<bool>,
    /// What rows are multiplied by, besides.
    #[serde(default = "one")]
    pub scale: ArchitectureSetting<f64>,
    /// A norm of them.
    pub norm: Option<String>,
}

fn one() -> ArchitectureSetting<f64> {
    ArchitectureSetting::Is(1.0)
}

/// How tokens know where they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum PositionPart {
    /// A row of a table is added to every token.
    Learned {
        /// Its tensor.
        table: String,
        /// The row of the first token.
        #[serde(default)]
        first: usize,
    },
    /// The same, of sines and cosines (Vaswani et al. 2017).
    Sinusoidal {
        /// The row of the first token.
        #[serde(default)]
        first: usize,
    },
    /// Scores fall with the distance between query and key (Press et al. 2022).
    Alibi {
        /// Whether the fall is divided by the root of a head's width, as scores are.
        #[serde(default)]
        scaled: ArchitectureSetting<bool>,
    },
    /// Queries and keys are turned by an angle that grows with the position (Su et al. 2021).
    Rotary {
        /// Which channels are turned together.
        pairs: PairOrder,
        /// The key of the base of the frequencies.
        theta: String,
        /// The key of the share of a head's channels that is turned; all of them without a value.
        share: String,
        /// The key of the number of a head's channels that are turned, which comes before a share.
        channels: Option<String>,
        /// The key of a list that says, by a 0, which blocks turn nothing.
        layers: Option<String>,
    },
}

/// Which channels of a head are turned together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PairOrder {
    /// A channel and the one half the turned channels further.
    Half,
    /// Neighbours.
    Interleaved,
}

/// What norms do.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Mean 0, variance 1, then gain and bias.
    Layer,
    /// Mean square 1, then a gain (Zhang and Sennrich 2019).
    Rms,
}

/// What all norms of a network are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormKindPart {
    /// What they do.
    pub kind: NormKind,
    /// What is added to the variance or the mean square.
    pub eps: ArchitectureSetting<f64>,
    /// Whether they have a gain, and where `kind` is `layer` a bias.
    #[serde(default = "yes")]
    pub affine: ArchitectureSetting<bool>,
    /// Whether those that have a gain have a bias, where `kind` is `layer`.
    #[serde(default = "yes")]
    pub bias: ArchitectureSetting<bool>,
    /// Whether gains are stored less 1.
    #[serde(default)]
    pub less_one: bool,
}

/// How attention and MLP stand in a block.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockPart {
    /// Whether both read the block's input, and their results are added to it together.
    pub parallel: ArchitectureSetting<bool>,
    /// Whether both then read what one norm makes of it: that of attention.
    pub shared_norm: ArchitectureSetting<bool>,
    /// Whether norms stand before attention and MLP, or behind the sums that they are added in.
    pub norms_first: ArchitectureSetting<bool>,
    /// What results are multiplied by before they are added.
    pub scale: ArchitectureSetting<f64>,
}

impl Default for BlockPart {
    fn default() -> Self {
        let no = ArchitectureSetting::default;
        Self { parallel: no(), shared_norm: no(), norms_first: yes(), scale: one() }
    }
}

/// Attention of a block, `x + out(attend(norm(x)))`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionPart {
    /// The norm before it, or behind the sum.
    pub norm: Option<String>,
    /// A norm of its result before that is added.
    pub result_norm: Option<String>,
    /// What makes queries, keys and values.
    pub projections: ProjectionNames,
    /// Whether these have biases.
    #[serde(default)]
    pub bias: ArchitectureSetting<bool>,
    /// The projection behind it.
    pub out: String,
    /// Whether it has a bias.
    #[serde(default)]
    pub out_bias: ArchitectureSetting<bool>,
    /// Whether all heads read one head of keys and values.
    #[serde(default)]
    pub multi_query: ArchitectureSetting<bool>,
    /// Whether scores are divided by the root of a head's width.
    #[serde(default = "yes")]
    pub scaled: ArchitectureSetting<bool>,
    /// Whether scores are divided by the number of the block, from 1.
    #[serde(default)]
    pub scaled_by_layer: ArchitectureSetting<bool>,
    /// What scores are multiplied by, instead.
    pub scale: Option<ArchitectureSetting<f64>>,
    /// An RMSNorm of queries.
    pub q_norm: Option<String>,
    /// An RMSNorm of keys.
    pub k_norm: Option<String>,
    /// Whether these norms are of all heads together, or of every head by the same gain.
    #[serde(default)]
    pub whole_norms: bool,
    /// How far tokens see, where not all the way.
    pub window: Option<WindowKeys>,
}

fn yes() -> ArchitectureSetting<bool> {
    ArchitectureSetting::Is(true)
}

/// Tensors that make queries, keys and values.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum ProjectionNames {
    /// One for each.
    Separate {
        /// Queries.
        q: String,
        /// Keys.
        k: String,
        /// Values.
        v: String,
    },
    /// One for all.
    Packed {
        /// Its name.
        tensor: String,
        /// In which order outputs lie.
        order: PackedOrder,
    },
}

/// The order of the outputs of a packed projection.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PackedOrder {
    /// All queries, all keys, all values.
    Blocks,
    /// For every head of keys and values: the heads of queries that read it, the keys, the values.
    Groups,
    /// Four parts, each with the queries, the values and the keys of a quarter of the heads.
    Quarters,
}

/// Keys that say how far tokens see. `layer_types` says it layer by layer, where it is there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowKeys {
    /// Tokens that are seen, the token itself among them.
    pub size: String,
    /// The key of a list of kinds, `global` and `local`, one for every block, or patterns of them with how often each is repeated.
    pub kinds: Option<String>,
    /// Whether there is a window at all.
    pub used: Option<String>,
    /// The first block that has it.
    pub from_layer: Option<String>,
}

/// The MLP of a block, `x + down(curve(up(norm(x))))`, or with a gate `x + down(curve(gate(norm(x))) * up(norm(x)))`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpPart {
    /// The norm before it, or behind the sum.
    pub norm: Option<String>,
    /// A norm of its result before that is added.
    pub result_norm: Option<String>,
    /// The projection that is multiplied with the others' results.
    pub gate: Option<String>,
    /// The first projection.
    pub up: String,
    /// Whether the gate is the first half of the outputs of `up`.
    #[serde(default)]
    pub packed_gate: bool,
    /// The last projection.
    pub down: String,
    /// Whether all of these have biases.
    #[serde(default)]
    pub bias: ArchitectureSetting<bool>,
    /// The activation function.
    pub curve: ArchitectureSetting<String>,
}

/// What makes logits of the last block.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputPart {
    /// The last norm.
    pub norm: Option<String>,
    /// The projection from the stream's width to that of the table of tokens, where they differ.
    pub project: Option<String>,
    /// The head's tensor.
    pub head: String,
    /// Whether it has a bias.
    #[serde(default)]
    pub bias: ArchitectureSetting<bool>,
    /// What logits are multiplied by.
    #[serde(default = "one")]
    pub scale: ArchitectureSetting<f64>,
    /// What logits are divided by.
    #[serde(default = "one")]
    pub divided_by: ArchitectureSetting<f64>,
    /// Whether the table of tokens is the head.
    pub tied: ArchitectureSetting<bool>,
}

/// What is known of keys that no description reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigRules {
    /// They say nothing about the network.
    pub inert: HashSet<String>,
    /// They are another network, but for some values.
    pub refused: IndexMap<String, RefusedKey>,
}

/// A key that says that a network is another one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedKey {
    /// Values by which it is not.
    pub harmless: Vec<Json>,
    /// The part that a network then has.
    pub part: String,
}

impl ConfigRules {
    /// The rules that come with snnc.
    pub fn built_in() -> Self {
        toml::from_str(RULES).expect("a test reads this table")
    }
}

/// What a table has at a name.
#[derive(Clone, Debug)]
pub enum Described {
    /// A network that can be built.
    Network(Box<Architecture>),
    /// Parts that cannot be built yet.
    Missing(Vec<String>),
}

/// Descriptions by `model_type`.
#[derive(Clone, Debug)]
pub struct ArchitectureTable {
    place: String,
    rows: toml::Table,
}

impl ArchitectureTable {
    /// The descriptions that come with snnc.
    pub fn built_in() -> Self {
        let rows = BUILT_IN.parse().expect("a test reads this table");
        Self { place: "the descriptions of snnc".into(), rows }
    }

    /// The same with a user's own, which may be like one of them and come first.
    ///
    /// # Errors
    /// The file cannot be read, or is no table of descriptions.
    pub fn with_file(path: &Path) -> Result<Self, Diagnostic> {
        let place = path.display().to_string();
        let wrong = |message: String| Diagnostic::new(&place, message).code(ErrorCode::ARCHITECTURE);
        let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let own: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
        let mut rows = Self::built_in().rows;
        rows.extend(own);
        Ok(Self { place, rows })
    }

    /// Names of networks that can be built.
    pub fn names(&self) -> Vec<&str> {
        let built = |row: &&toml::Value| row.get("missing").is_none();
        self.rows.iter().filter(|(_, row)| built(row)).map(|(name, _)| name.as_str()).collect()
    }

    /// The name of the description that has this class, as `architectures` states it.
    pub fn of_class(&self, class: &str) -> Option<&str> {
        let has = |row: &toml::Value| {
            let classes = row.get("classes").and_then(toml::Value::as_array);
            classes.is_some_and(|classes| classes.iter().any(|known| known.as_str() == Some(class)))
        };
        self.rows.iter().find(|(_, row)| has(row)).map(|(name, _)| name.as_str())
    }

    /// The description of this name, as a configuration with these values would have it.
    ///
    /// # Errors
    /// It is not well formed.
    pub fn get(&self, name: &str, given: &Map<String, Json>) -> Result<Option<Described>, Diagnostic> {
        if !self.rows.contains_key(name) {
            return Ok(None);
        }
        let wrong =
            |message: String| Diagnostic::new(format!("{}: {name}", self.place), message).code(ErrorCode::ARCHITECTURE);
        let mut row = self.merged(name, LIKE_MAX).map_err(wrong)?;
        decided(&mut row, given).map_err(wrong)?;
        if let Some(missing) = row.get("missing") {
            let missing = missing.clone().try_into().map_err(|e| wrong(format!("`missing`: {}", e.message())))?;
            return Ok(Some(Described::Missing(missing)));
        }
        let architecture = row.try_into().map_err(|e: toml::de::Error| wrong(e.message().to_string()))?;
        Ok(Some(Described::Network(Box::new(architecture))))
    }

    /// A row with what it takes over from others.
    fn merged(&self, name: &str, depth: usize) -> Result<toml::Table, String> {
        let row = self.rows.get(name).ok_or_else(|| format!("there is no description `{name}` to be like"))?;
        let toml::Value::Table(row) = row else { return Err(format!("`{name}` is no table of parts")) };
        let mut row = row.clone();
        let Some(like) = row.remove("like") else { return Ok(row) };
        let like = like.as_str().ok_or("`like` is the name of a description")?;
        if depth == 0 {
            return Err("descriptions are like one another without an end".into());
        }
        let mut merged = self.merged(like, depth - 1)?;
        overlay(&mut merged, row);
        Ok(merged)
    }
}

/// Puts what the cases of a row say over it, where they hold; takes them out, and names that are empty.
fn decided(row: &mut toml::Table, given: &Map<String, Json>) -> Result<(), String> {
    let cases = row.remove("cases").map_or(Ok(Vec::new()), toml::Value::try_into::<Vec<DescriptionCase>>);
    for case in cases.map_err(|e| format!("`cases`: {}", e.message()))? {
        let inert = row.entry("inert").or_insert_with(|| toml::Value::Array(Vec::new()));
        inert.as_array_mut().into_iter().for_each(|inert| inert.push(toml::Value::String(case.key.clone())));
        let default = || row.get("defaults").and_then(|defaults| defaults.get(&case.key)).cloned();
        let default = || default().and_then(|value| value.try_into::<Json>().ok());
        let value = given.get(&case.key).filter(|value| !value.is_null()).cloned().or_else(default);
        if value == Some(case.is) {
            overlay(row, case.then);
        }
    }
    without_empty_names(row);
    Ok(())
}

/// What a description is like where a key has a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptionCase {
    key: String,
    is: Json,
    then: toml::Table,
}

/// An empty name is none: so a description that is like another can lack a part of it.
fn without_empty_names(row: &mut toml::Table) {
    row.retain(|_, value| value.as_str() != Some(""));
    row.iter_mut()
        .filter(|(key, _)| *key != "defaults")
        .filter_map(|(_, value)| value.as_table_mut())
        .for_each(without_empty_names);
}

/// Puts the entries of `above` over those of `below`, tables entry by entry.
fn overlay(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => drop(below.insert(key, value)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_description_is_well_formed() {
        let table = ArchitectureTable::built_in();
        for name in table.rows.keys() {
            assert!(table.get(name, &Map::new()).unwrap_or_else(|e| panic!("{e}")).is_some(), "{name}");
        }
        assert!(["gpt2", "llama", "bloom", "opt"].iter().all(|name| table.names().contains(name)));
        assert_eq!(table.of_class("Qwen2ForCausalLM"), Some("qwen2"));
        let rules = ConfigRules::built_in();
        assert!(rules.refused.keys().all(|key| !rules.inert.contains(key)));
    }

    #[test]
    fn a_description_is_like_another_but_for_what_it_says() {
        let Some(Described::Network(qwen)) = ArchitectureTable::built_in().get("qwen3", &Map::new()).unwrap() else {
            panic!()
        };
        assert_eq!(qwen.attention.bias, ArchitectureSetting::Key("attention_bias".into()));
        assert_eq!(qwen.mlp.bias, ArchitectureSetting::Is(false));
        assert_eq!(qwen.output.norm.as_deref(), Some("norm"));
        assert!(qwen.attention.q_norm.is_some());
    }

    #[test]
    fn mistakes_of_a_users_table_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        for (text, words) in [
            ("[mine]\nlike = \"nobody\"", "no description `nobody`"),
            ("[mine]\nlike = \"mine\"", "without an end"),
            ("[mine]\nlike = \"llama\"\nhats = 3", "unknown field `hats`"),
            ("[mine]\nclasses = []", "missing field"),
            ("mine = 3", "is no table of parts"),
            ("[mine", "TOML"),
        ] {
            std::fs::write(&path, text).unwrap();
            let told =
                ArchitectureTable::with_file(&path).and_then(|table| table.get("mine", &Map::new())).unwrap_err();
            assert!(told.to_string().contains(words), "{text}: {told}");
        }
    }
}
