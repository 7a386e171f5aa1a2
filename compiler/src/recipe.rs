//! A recipe: the options of a conversion in a TOML file, with what they were measured to give. `snnc tune` writes one, people may, and
//! `snnc compile` follows it.

use crate::quant_options::{QuantSpelling, parse, spelled};
use crate::run_record::RunFile;
use crate::tune::{Point, TuneOptions};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::path::{Path, PathBuf};

/// What a recipe calls itself.
const SCHEMA: &str = "snnc.recipe.v1";

/// A recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    schema: String,
    /// Options of `snnc compile` without their dashes, each with its value.
    options: IndexMap<String, String>,
    /// What levels are measured on.
    #[serde(default)]
    calibration: RecipeCalibration,
    /// What a network has that was made by this recipe, on the text of the tuning.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<RecipeFigures>,
}

/// What levels are measured on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RecipeCalibration {
    /// The text, or the file of token ids; the built-in text without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// Its XXH3-64.
    #[serde(skip_serializing_if = "Option::is_none")]
    xxh3: Option<String>,
    /// Tokens of it; as many as `compile` takes without a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct RecipeFigures {
    perplexity_increase: f64,
    kl: f64,
    spikes_per_neuron: f64,
    timesteps_mean: f64,
}

impl Recipe {
    /// Of a point that a tuning run found.
    pub fn of(point: &Point, options: &TuneOptions) -> Self {
        let words = spelled(&point.options);
        let mut words = words.split_whitespace();
        let mut table = IndexMap::new();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            table.insert(name.trim_start_matches('-').to_string(), value.to_string());
        }
        let file = options.calibrate.clone();
        Self {
            schema: SCHEMA.into(),
            options: table,
            calibration: RecipeCalibration {
                xxh3: file.as_deref().and_then(|path| RunFile::of("", path).ok()).map(|file| file.xxh3),
                file,
                tokens: options.calibration_tokens,
            },
            measured: Some(RecipeFigures {
                perplexity_increase: point.increase,
                kl: point.kl,
                spikes_per_neuron: point.spikes,
                timesteps_mean: point.timesteps,
            }),
        }
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// It cannot be read; a key or an option that is none, with its place.
    pub fn read(path: &Path) -> Result<Self, Diagnostic> {
        let wrong = |message: String| Diagnostic::new(path.display().to_string(), message);
        let text =
            std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")).code(ErrorCode::FILE))?;
        let recipe: Recipe = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            wrong(format!("line {line}: {}", e.message())).code(ErrorCode::OPTION)
        })?;
        if recipe.schema != SCHEMA {
            let message = format!("is of the schema `{}`, this is for `{SCHEMA}`", recipe.schema);
            return Err(wrong(message).code(ErrorCode::OPTION));
        }
        if let Some((name, _)) = recipe.options.iter().find(|(name, value)| words_of(name, value).is_none()) {
            return Err(
                wrong(format!("the option `{name}` or its value is empty or has a space")).code(ErrorCode::OPTION)
            );
        }
        recipe.options().map_err(|e| e.in_file(path.display().to_string()))?;
        Ok(recipe)
    }

    /// The options of the conversion.
    ///
    /// # Errors
    /// An option that is none, or a value that it does not take.
    pub fn options(&self) -> Result<QuantSpelling, Diagnostic> {
        let words = self.options.iter().filter_map(|(name, value)| words_of(name, value));
        parse(&words.collect::<Vec<String>>().join(" "))
    }

    /// What levels are measured on, where the recipe names a file; and what is to be said of it.
    pub fn calibration_file(&self) -> (Option<PathBuf>, Option<String>) {
        let RecipeCalibration { file: Some(file), xxh3, .. } = &self.calibration else { return (None, None) };
        let warning = match (RunFile::of("", file), xxh3) {
            (Ok(now), Some(then)) if now.xxh3 != *then => {
                Some(format!("{} is not the file that the recipe was measured with", file.display()))
            }
            _ => None,
        };
        (Some(file.clone()), warning)
    }

    /// Tokens that levels are measured on.
    pub fn calibration_tokens(&self) -> Option<usize> {
        self.calibration.tokens
    }

    /// As a TOML file.
    pub fn text(&self) -> String {
        let table = toml::to_string_pretty(self).unwrap_or_default();
        format!("# A recipe of snnc: `snnc compile MODEL --recipe FILE` follows it.\n{table}")
    }
}

/// An option and its value as a user types them; `None` of what would be more than one option.
fn words_of(name: &str, value: &str) -> Option<String> {
    let is_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    (is_word(name) && is_word(value)).then(|| format!("--{name} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recipe, Diagnostic> {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{e}"));
        Recipe::read(&path)
    }

    #[test]
    fn a_recipe_is_options_in_a_table() -> Result<(), Diagnostic> {
        let recipe =
            read("schema = \"snnc.recipe.v1\"\n[options]\ntimesteps = \"4,mlp.hidden=5\"\ncentre = \"error\"\n")?;
        assert_eq!(spelled(&recipe.options()?.options()?), "--timesteps 4,mlp.hidden=5 --centre error");
        let again = read(&recipe.text())?;
        assert_eq!(spelled(&again.options()?.options()?), "--timesteps 4,mlp.hidden=5 --centre error");
        Ok(())
    }

    #[test]
    fn mistakes_have_their_place() {
        let told = |text: &str| read(text).err().map_or(String::new(), |e| format!("{:?} {}", e.place, e.message));
        assert!(told("schema = \"snnc.recipe.v1\"\n[options]\ntimesteps = 4\n").contains("line 3"));
        assert!(told("schema = \"snnc.recipe.v1\"\n[options]\nsteps = \"4\"\n").contains("no option"));
        assert!(told("schema = \"snnc.recipe.v1\"\n[options]\ncode = \"unary --weights f32\"\n").contains("space"));
        assert!(told("schema = \"x\"\n[options]\n").contains("schema"));
    }
}
