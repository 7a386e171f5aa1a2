//! What figures are printed as: a table for a person, for Markdown or for LaTeX, values for a spreadsheet, or JSON.
//!
//! Law: CSV has the keys and the values of the JSON. Tables have them rounded.

use crate::output::{emit, run_record};
use crate::table::Grid;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value as Json};
use snnc::run_record::RunRecord;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};

/// What figures are printed as.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a terminal
    #[default]
    Table,
    /// Tables of Markdown
    Md,
    /// Comma-separated values: the keys and the values of the JSON
    Csv,
    /// Tables of LaTeX, with the package booktabs
    Latex,
    /// Everything, with the version, the options, and hashes of all files
    Json,
}

/// How figures are printed.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct FormatArgs {
    /// What to print the figures as
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table", conflicts_with = "json")]
    format: Format,
    /// Print JSON: the same as --format json
    #[arg(long)]
    json: bool,
}

impl FormatArgs {
    pub fn format(self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// The same figures for every format.
pub trait Figures {
    /// Everything, as JSON that says what run it is of.
    fn json(&self, run: Option<&RunRecord>) -> Json;
    /// The lines for a person at a terminal.
    fn text(&self) -> String;
    /// Tables for Markdown and LaTeX.
    fn grids(&self) -> Vec<Grid>;
    /// Rows of values for a spreadsheet, out of the JSON.
    fn rows(&self, json: &Json) -> Vec<Json>;
}

/// Prints figures.
///
/// # Errors
/// Nobody can be written to.
pub fn print(figures: &impl Figures, format: Format) -> Result<(), Diagnostics> {
    match format {
        Format::Table => emit(&figures.text()),
        Format::Json => emit(&format!("{:#}\n", figures.json(run_record().as_ref()))),
        Format::Csv => emit(&csv(&figures.rows(&figures.json(None)))?),
        Format::Md => emit(&each(figures, Grid::markdown)),
        Format::Latex => {
            let command = run_record().map(|run| format!("% snnc {} {}\n", run.version, run.arguments.join(" ")));
            emit(&(command.unwrap_or_default() + &each(figures, Grid::latex)))
        }
    }
}

fn each(figures: &impl Figures, write: fn(&Grid) -> String) -> String {
    figures.grids().iter().map(write).collect::<Vec<String>>().join("\n")
}

/// Rows as comma-separated values: a column per key of any row, in the order in which they come.
fn csv(rows: &[Json]) -> Result<String, Diagnostics> {
    let flat: Vec<Map<String, Json>> = rows.iter().map(flat).collect();
    let mut names: Vec<&str> = Vec::new();
    for name in flat.iter().flat_map(Map::keys) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let failed = |e: String| Diagnostics::from(Diagnostic::new("", format!("no CSV: {e}")).code(ErrorCode::OPTION));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&names).map_err(|e| failed(e.to_string()))?;
    for row in &flat {
        let cells = names.iter().map(|name| row.get(*name).map_or(String::new(), cell));
        writer.write_record(cells).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn cell(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The values of an object that fit a cell: keys of objects in it are joined by a point, an interval is two values, and lists are left out.
fn flat(row: &Json) -> Map<String, Json> {
    let mut all = Map::new();
    let Json::Object(row) = row else { return all };
    for (name, value) in row {
        match value {
            Json::Object(_) => all.extend(flat(value).into_iter().map(|(key, value)| (format!("{name}.{key}"), value))),
            Json::Array(ends) => {
                if let [low @ Json::Number(_), high @ Json::Number(_)] = &ends[..] {
                    all.insert(format!("{name}_low"), low.clone());
                    all.insert(format!("{name}_high"), high.clone());
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
                all.insert(name.clone(), value.clone());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_the_values_of_the_json() {
        let rows = serde_json::json!([
            {"name": "a, \"b\"", "kl": 0.1, "kl_95": [0.05, 0.2], "list": [1, 2, 3], "in": {"x": null, "y": 1e-7}},
            {"name": "c", "more": true},
        ]);
        let text = csv(rows.as_array().map_or(&[][..], Vec::as_slice)).unwrap_or_default();
        let expected =
            "name,kl,kl_95_low,kl_95_high,in.x,in.y,more\n\"a, \"\"b\"\"\",0.1,0.05,0.2,,1e-7,\nc,,,,,,true\n";
        assert_eq!(text, expected);
    }
}
