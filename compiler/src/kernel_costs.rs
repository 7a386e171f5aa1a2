//! Kernel costs in a file: what rows of weights cost on a machine. `snnc bench --measure-kernel-costs` writes it,
//! `--kernel-costs` reads it.

use crate::files;
use serde_json::{Map, Value as Json, json};
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::{Isa, KernelCosts};
use std::path::Path;

/// The instruction set that costs were measured with.
const ISA: &str = "isa";

/// # Errors
/// The file cannot be read, or holds no kernel costs: every place that is wrong.
pub fn read(path: &Path) -> Result<KernelCosts, Diagnostics> {
    let text = files::read_text(path)?;
    parse(&text, &path.display().to_string())
}

fn parse(text: &str, place: &str) -> Result<KernelCosts, Diagnostics> {
    let wrong = |message: String| {
        Diagnostics::from(
            Diagnostic::new(place, message)
                .code(ErrorCode::PRICES)
                .note("write a new one with `snnc bench --measure-kernel-costs FILE`"),
        )
    };
    let all: Map<String, Json> =
        serde_json::from_str(text).map_err(|e| wrong(format!("is no file of kernel costs in JSON ({e})")))?;
    let mut diagnostics = Diagnostics::new();
    let mut report_at = |name: &str, what: String| {
        diagnostics.push(Diagnostic::new(format!("{place}: {name}"), what).code(ErrorCode::PRICES))
    };
    let values = KernelCosts::NAMES.map(|name| match all.get(name).map(Json::as_f64) {
        Some(Some(price)) if price > 0.0 && price.is_finite() => price,
        Some(_) => {
            report_at(name, format!("is {}; a cost is a number of nanoseconds above 0", all[name]));
            1.0
        }
        None => {
            report_at(name, "is missing".into());
            1.0
        }
    });
    for name in all.keys().filter(|name| *name != ISA && !KernelCosts::NAMES.contains(&name.as_str())) {
        report_at(name, format!("is no kernel cost; there are {}", KernelCosts::NAMES.join(", ")));
    }
    if diagnostics.is_empty() { Ok(KernelCosts::of(values)) } else { Err(diagnostics) }
}

/// As a file has them.
pub fn json(prices: &KernelCosts, isa: Isa) -> Json {
    // Hundredths of a nanosecond are below the noise.
    let price = |price: f64| json!((price * 1e3).round().max(1.0) / 1e3);
    let named = KernelCosts::NAMES.iter().zip(prices.values()).map(|(name, x)| (name.to_string(), price(x)));
    Json::Object(std::iter::once((ISA.to_string(), json!(isa.name()))).chain(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_was_measured() {
        let prices = KernelCosts::of([1.5, 2.25, 3.0, 0.125, 700.0, 2.5]);
        let text = json(&prices, Isa::Portable).to_string();
        assert_eq!(parse(&text, "p.json").ok(), Some(prices));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place() {
        let told = |text: &str| {
            let diagnostics = parse(text, "p.json").expect_err(text);
            diagnostics.iter().map(|c| c.to_string()).collect::<Vec<_>>().join("\n")
        };
        let good = json(&KernelCosts::typical(Isa::Portable), Isa::Portable);
        let with = |name: &str, value: Json| {
            let mut other = good.clone();
            other[name] = value;
            told(&other.to_string())
        };
        for (text, part) in [
            (told(""), "p.json: is no file of kernel costs in JSON"),
            (told("[1, 2]"), "p.json: is no file of kernel costs in JSON"),
            (told("{\"dense_ns\": 1"), "line 1 column 14"),
            (told("{}"), "p.json: interleave_ns: is missing"),
            (with("tile_ns", json!(-1)), "p.json: tile_ns: is -1;"),
            (with("tile_ns", json!(0)), "p.json: tile_ns: is 0;"),
            (with("tile_ns", json!("2")), "p.json: tile_ns: is \"2\";"),
            (with("dens_ns", json!(1)), "p.json: dens_ns: is no kernel cost; there are dense_ns"),
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
