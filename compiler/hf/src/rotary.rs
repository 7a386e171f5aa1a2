//! Frequencies of rotary positions, and the table of turns: as the Hugging Face library computes them, in f32.
//!
//! Channel pair `i` of `r` turned channels has the frequency `theta^(-2i / r)`. Kinds of scaling change frequencies so that longer texts
//! fit: `linear` (Chen et al. 2023), `llama3` (Llama 3.1), `yarn` (Peng et al. 2023). `dynamic` changes nothing up to the trained context,
//! and longer ones are refused.

use crate::config::{Config, shortened};
use serde_json::{Map, Value as Json};
use snnc_ir::Tensor;
use std::f64::consts::PI;

/// Base of frequencies where a configuration says none.
const THETA: f64 = 10000.0;

/// What rotary positions of a network are.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Channels of a head that are turned, an even number.
    pub channels: usize,
    /// The angle of a step, for every pair.
    pub frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by.
    pub factor: f32,
    /// Tokens beyond which frequencies would change.
    pub limit: Option<usize>,
}

/// What a configuration says of rotary positions.
struct Said {
    /// The key that says it.
    key: &'static str,
    /// Its value, less what was read of it.
    settings: Map<String, Json>,
}

/// Keys that say what rotary positions are.
#[derive(Clone, Copy, Debug)]
pub struct RotaryKeys<'a> {
    /// Of the base of the frequencies.
    pub theta: &'a str,
    /// Of the share of a head's channels that is turned.
    pub share: &'a str,
    /// Of the number of these channels, which comes before a share.
    pub channels: Option<&'a str>,
}

/// Rotary positions by a configuration: `width` channels per head, `trained` tokens of context. What is wrong is told to `config`.
pub fn rotary(config: &mut Config, keys: &RotaryKeys<'_>, width: usize, trained: usize) -> Option<Rotary> {
    let RotaryKeys { theta, share, channels } = *keys;
    // The newer key says everything; the older says how frequencies are scaled.
    let (scaling, parameters) = (config.value("rope_scaling"), config.value("rope_parameters"));
    let (key, said) = match parameters {
        Some(parameters) => ("rope_parameters", Some(parameters)),
        None => ("rope_scaling", scaling),
    };
    let settings = match said {
        None => Map::new(),
        Some(Json::Object(settings)) => settings,
        Some(other) => {
            config.refuse(key, format!("is {}; settings of rotary positions were expected", shortened(&other)));
            return None;
        }
    };
    let mut said = Said { key, settings };
    if said.settings.values().any(Json::is_object) {
        config.refuse(
            key,
            "has settings by kind of layer: rotary positions that differ from layer to layer cannot be compiled yet",
        );
        return None;
    }
    let theta = said.number(config, theta).or_else(|| config.number(theta)).unwrap_or(THETA);
    let share = said.number(config, share).or_else(|| config.number(share)).unwrap_or(1.0);
    let stated = channels.and_then(|key| config.index(key));
    let channels = stated.unwrap_or((width as f64 * share) as usize);
    if theta <= 0.0 {
        config.refuse(key, format!("has the base {theta}, which is not above 0"));
        return None;
    }
    if channels == 0 || channels > width || !channels.is_multiple_of(2) {
        config.refuse(
            key,
            format!("turns {channels} of a head's {width} channels; an even number from 2 to {width} was expected"),
        );
        return None;
    }
    let frequencies = plain(theta, channels);
    let scaled = said.scaled(config, Rotary { channels, frequencies, factor: 1.0, limit: None }, theta, trained);
    said.finish(config);
    scaled
}

/// Frequencies without scaling. Each operation is rounded to f32, as in the library.
fn plain(theta: f64, channels: usize) -> Vec<f32> {
    (0..channels / 2).map(|pair| 1.0 / period(theta, channels, pair)).collect()
}

fn period(theta: f64, channels: usize, pair: usize) -> f32 {
    let exponent = (2 * pair) as f32 / channels as f32;
    libm::pow(f64::from(theta as f32), f64::from(exponent)) as f32
}

impl Said {
    /// Takes a number out of the settings; `None` where there is none.
    fn number(&mut self, config: &mut Config, name: &str) -> Option<f64> {
        let value = self.settings.remove(name).filter(|value| !value.is_null())?;
        let number = value.as_f64().filter(|number| number.is_finite());
        if number.is_none() {
            config.refuse(self.key, format!("has {name} {}; a number was expected", shortened(&value)));
        }
        number
    }

    /// The same for one above 0 that must be there.
    fn needed(&mut self, config: &mut Config, name: &str) -> Option<f64> {
        let number = self.number(config, name);
        if number.is_none_or(|number| number <= 0.0) {
            config.refuse(self.key, format!("has no {name} above 0, which this kind needs"));
        }
        number.filter(|number| *number > 0.0)
    }

    /// Takes the kind of scaling out of the settings.
    fn kind(&mut self) -> String {
        let (new, old) = (self.settings.remove("rope_type"), self.settings.remove("type"));
        let named = new.or(old).and_then(|kind| kind.as_str().map(str::to_string));
        named.unwrap_or_else(|| {
            if self.settings.values().all(Json::is_null) { "default".into() } else { "without a name".into() }
        })
    }

    fn scaled(&mut self, config: &mut Config, plain: Rotary, theta: f64, trained: usize) -> Option<Rotary> {
        match self.kind().as_str() {
            "default" => Some(plain),
            "linear" => {
                let factor = self.needed(config, "factor")? as f32;
                let frequencies = plain.frequencies.iter().map(|frequency| frequency / factor).collect();
                Some(Rotary { frequencies, ..plain })
            }
            "dynamic" => {
                // It grows with texts beyond the trained context only, so its factor does not matter here.
                self.needed(config, "factor")?;
                let original = self.number(config, "original_max_position_embeddings");
                let limit = original.map_or(trained, |original| trained.min(original as usize));
                Some(Rotary { limit: Some(limit), ..plain })
            }
            "llama3" => self.llama3(config, plain),
            "yarn" => self.yarn(config, plain, theta, trained),
            other => {
                let message = format!("is of the kind {other}: default, linear, dynamic, llama3 and yarn are known");
                config.refuse(self.key, message);
                self.settings.clear();
                None
            }
        }
    }

    fn llama3(&mut self, config: &mut Config, plain: Rotary) -> Option<Rotary> {
        let factor = self.needed(config, "factor");
        let low = self.needed(config, "low_freq_factor");
        let high = self.needed(config, "high_freq_factor");
        let context = self.needed(config, "original_max_position_embeddings");
        let (factor, low, high, context) = (factor? as f32, low? as f32, high? as f32, context? as f32);
        if low >= high {
            config.refuse(self.key, "has a low_freq_factor that is not below high_freq_factor");
            return None;
        }
        let scaled = |&frequency: &f32| {
            let wavelength = (1.0 / frequency) * (2.0 * PI) as f32;
            if wavelength > context / low {
                return frequency / factor;
            }
            if wavelength < context / high {
                return frequency;
            }
            let smooth = ((1.0 / wavelength) * context - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        };
        let frequencies = plain.frequencies.iter().map(scaled).collect();
        Some(Rotary { frequencies, ..plain })
    }

    fn yarn(&mut self, config: &mut Config, plain: Rotary, theta: f64, trained: usize) -> Option<Rotary> {
        let original = self.number(config, "original_max_position_embeddings");
        let stated = self.number(config, "factor");
        let ratio = original.map(|original| trained as f64 / original);
        let Some(factor) = stated.or(ratio).filter(|factor| *factor > 0.0) else {
            config.refuse(self.key, "has no factor above 0, which yarn needs");
            return None;
        };
        if let (Some(stated), Some(ratio)) = (stated, ratio)
            && (stated - ratio).abs() > 1e-3 * ratio
        {
            config.warn(format!(
                "{} has the factor {stated}; some versions of the library take {ratio}, the ratio of contexts",
                self.key
            ));
        }
        let context = original.unwrap_or(trained as f64);
        let attention = self.number(config, "attention_factor");
        let (one, all) = (self.number(config, "mscale"), self.number(config, "mscale_all_dim"));
        let fast = self.number(config, "beta_fast").filter(|beta| *beta != 0.0).unwrap_or(32.0);
        let slow = self.number(config, "beta_slow").filter(|beta| *beta != 0.0).unwrap_or(1.0);
        let truncate = self.settings.remove("truncate").is_none_or(|value| value != Json::Bool(false));
        let grown = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let attention = attention.unwrap_or_else(|| match (one, all) {
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => grown(one) / grown(all),
            _ => grown(1.0),
        });
        let channels = plain.channels;
        // The pair that turns so often within the trained context.
        let pair_of = |turns: f64| channels as f64 * (context / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (low, high) = (pair_of(fast), pair_of(slow));
        let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(channels as f64 - 1.0));
        let high = if low == high { high + 0.001 } else { high };
        let blend = |pair: usize| {
            let ramp = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let (period, kept) = (period(theta, channels, pair), 1.0 - ramp);
            1.0 / (factor as f32 * period) * (1.0 - kept) + 1.0 / period * kept
        };
        let frequencies: Vec<f32> = (0..channels / 2).map(blend).collect();
        if frequencies.iter().any(|frequency| !frequency.is_finite()) || !attention.is_finite() {
            config.refuse(self.key, "has settings of yarn that give no finite frequencies");
            return None;
        }
        Some(Rotary { frequencies, factor: attention as f32, ..plain })
    }

    /// Refuses settings that nobody read.
    fn finish(self, config: &mut Config) {
        for (name, value) in self.settings.iter().filter(|(_, value)| !value.is_null()) {
            config.refuse(self.key, format!("has {name} {}, which is not known", shortened(value)));
        }
    }
}

impl Rotary {
    /// The table of turns, `[context, channels]`: cosines of all pairs, then sines.
    pub fn table(&self, context: usize) -> Tensor {
        let mut table = Vec::with_capacity(context * self.channels);
        for position in 0..context {
            let angle = |&frequency: &f32| f64::from(frequency * position as f32);
            table.extend(self.frequencies.iter().map(|f| libm::cos(angle(f)) as f32 * self.factor));
            table.extend(self.frequencies.iter().map(|f| libm::sin(angle(f)) as f32 * self.factor));
        }
        Tensor::f32(&[context, self.channels], table)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::architecture::ConfigRules;

    fn of(json: &str, width: usize, trained: usize) -> Result<Rotary, String> {
        let mut config = Config::parse("config.json", json.as_bytes()).unwrap();
        let keys = RotaryKeys { theta: "rope_theta", share: "partial_rotary_factor", channels: None };
        let rotary = rotary(&mut config, &keys, width, trained);
        let rules = ConfigRules::built_in();
        config.finish(&rules).map_err(|e| e.to_string()).map(|_| rotary.unwrap())
    }

    fn near(a: &[f32], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-6 * b.abs())
    }

    #[test]
    fn frequencies_are_those_of_the_library() {
        let default = of(r#"{"rope_theta": 10000.0}"#, 8, 64).unwrap();
        assert!(near(&default.frequencies, &[1.0, 0.1, 0.01, 0.001]), "{default:?}");
        let linear = of(r#"{"rope_scaling": {"type": "linear", "factor": 4.0}}"#, 8, 64).unwrap();
        assert!(near(&linear.frequencies, &[0.25, 0.025, 0.0025, 0.00025]), "{linear:?}");
        let half = of(
            r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 100, "partial_rotary_factor": 0.5}}"#,
            8,
            64,
        );
        assert!(near(&half.unwrap().frequencies, &[1.0, 0.1]));
        let dynamic = of(r#"{"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}"#, 8, 64).unwrap();
        assert_eq!((dynamic.limit, dynamic.frequencies), (Some(64), default.frequencies));
    }

    /// Numbers of the same formulas in NumPy, f32.
    #[test]
    fn scaled_frequencies_are_those_of_the_formulas() {
        let llama3 = r#"{"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}"#;
        let wanted = [
            1.0,
            0.0242403448,
            0.00470075384,
            0.000911583134,
            0.000176776681,
            3.42810235e-5,
            6.64787058e-6,
            1.28917316e-6,
        ];
        assert!(near(&of(llama3, 16, 256).unwrap().frequencies, &wanted));
        for (settings, trained, factor, wanted) in [
            (
                r#""factor": 4.0, "original_max_position_embeddings": 32"#,
                128,
                1.138_629_4,
                [1.0, 0.197642356, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012],
            ),
            (
                r#""factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.0"#,
                2048,
                0.963_474_66,
                [1.0, 0.316227764, 0.100000001, 0.025693506, 0.00624999963, 0.00138349657, 0.000250000012],
            ),
            (
                r#""factor": 4.0, "truncate": false, "attention_factor": 1.5"#,
                256,
                1.5,
                [1.0, 0.253972292, 0.0553986356, 0.00963994302, 0.00249999994, 0.000790569466, 0.000250000012],
            ),
        ] {
            let yarn = of(&format!(r#"{{"rope_scaling": {{"rope_type": "yarn", {settings}}}}}"#), 16, trained).unwrap();
            assert!(near(&yarn.frequencies[..7], &wanted), "{settings}: {yarn:?}");
            assert!((yarn.factor - factor).abs() < 1e-6, "{settings}: {yarn:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (json, words) in [
            (r#"{"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0]}}"#, "of the kind longrope"),
            (r#"{"rope_scaling": {"rope_type": "mrope"}}"#, "of the kind mrope"),
            (r#"{"rope_scaling": {"factor": 2.0}}"#, "of the kind without a name"),
            (r#"{"rope_scaling": {"rope_type": "linear"}}"#, "has no factor above 0"),
            (r#"{"rope_scaling": {"rope_type": "linear", "factor": "2"}}"#, "a number was expected"),
            (r#"{"rope_scaling": {"rope_type": "linear", "factor": 2, "hats": 3}}"#, "has hats 3, which is not known"),
            (r#"{"rope_scaling": {"rope_type": "llama3", "factor": 2}}"#, "low_freq_factor"),
            (r#"{"rope_parameters": {"full_attention": {"rope_type": "default"}}}"#, "differ from layer to layer"),
            (r#"{"partial_rotary_factor": 0.3}"#, "an even number"),
            (r#"{"partial_rotary_factor": 0}"#, "an even number"),
            (r#"{"rope_theta": -1}"#, "not above 0"),
            (r#"{"rope_scaling": 3}"#, "settings of rotary positions"),
        ] {
            let told = of(json, 10, 64).unwrap_err();
            assert!(told.contains(words), "{json}: {told}");
        }
    }

    #[test]
    fn a_table_has_cosines_before_sines() {
        let rotary = Rotary { channels: 4, frequencies: vec![1.0, 0.5], factor: 2.0, limit: None };
        let table = rotary.table(2);
        let wanted = [2.0, 2.0, 0.0, 0.0, 2.0 * 1f64.cos(), 2.0 * 0.5f64.cos(), 2.0 * 1f64.sin(), 2.0 * 0.5f64.sin()];
        let close = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 1e-6;
        assert!(table.as_f32().unwrap().iter().zip(&wanted).all(close), "{table:?}");
    }
}
