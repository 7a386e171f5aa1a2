//! The estimate as tables for a person: by layer and part, all forms side by side, break-even and sensitivity.

use super::analysis::{break_even, sensitivity};
use super::{Block, Estimate, Phase, PriceList, Priced, quantity};
use snnc_passes::cost::{Form, Number, Operation};
use std::fmt::Write;

const F32: Form = Form::Dense(Number::F32);

/// Prices below this share of both sides are not listed by sensitivity.
const SHARE_LEAST: f64 = 0.02;

impl Estimate {
    /// All tables. Rows, break-even and sensitivity are by `list`, the rest by all lists.
    pub fn table(&self, list: &PriceList) -> String {
        let mut text = String::new();
        self.warnings(&mut text);
        self.rows_table(&mut text, list);
        for phase in Phase::ALL {
            for block in Block::NAMED {
                self.side_by_side_table(&mut text, phase, block);
            }
        }
        self.notes(&mut text);
        let other = self.lists.iter().find(|other| other.name == "int45" && other.name != list.name);
        for list in std::iter::once(list).chain(other) {
            self.break_even_table(&mut text, list);
        }
        self.sensitivity_table(&mut text, list);
        self.metrics(&mut text);
        text
    }

    fn warnings(&self, text: &mut String) {
        let mut names: Vec<&str> = self.defects.iter().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        for name in names {
            let _ = writeln!(
                text,
                "DEFECT: no neuron of {name} ever fires. What it does not spend is no saving: none is given."
            );
        }
    }

    fn nj(&self, pj: f64) -> f64 {
        pj / self.tokens.max(1) as f64 / 1e3
    }

    fn total(&self, priced: &Priced) -> String {
        priced.pj().map_or("-".into(), |pj| nanojoules(self.nj(pj)))
    }

    fn rows_table(&self, text: &mut String, list: &PriceList) {
        let (dense, spiking) = (self.counts(Phase::Prefill, F32), self.counts(Phase::Prefill, Form::Collapsed));
        let _ = writeln!(
            text,
            "{:<40} {:>9} {:>9} {:>7} {:>10} {:>10} {:>7}",
            "per token, prefill", "dense", "additions", "spikes/", "dense f32", "spiking", "saved"
        );
        let _ = writeln!(
            text,
            "{:<40} {:>9} {:>9} {:>7} {:>10} {:>10} {:>7}",
            format!("{} tokens, prices {}", self.setting.context, list.name),
            "MAC",
            "",
            "neuron",
            "nJ",
            "nJ",
            "%"
        );
        let rows = self.places().into_iter().map(Block::Row).chain(Block::NAMED);
        for block in rows {
            if block == Block::Attention {
                let _ = writeln!(text, "{}", "-".repeat(98));
            }
            let compared = self.compare(block, list, Phase::Prefill, F32, Form::Collapsed);
            let neurons = self.neurons.iter().filter(|(place, _)| block.has(**place)).map(|(_, neurons)| neurons);
            let (spikes, all) = neurons.fold((0, 0), |(s, n), row| (s + row.spikes, n + row.neurons));
            let rate = if all == 0 { String::new() } else { format!("{:.2}", spikes as f64 / all as f64) };
            let each = |count: u64| quantity(count as f64 / self.tokens.max(1) as f64);
            let _ = writeln!(
                text,
                "{:<40} {:>9} {:>9} {rate:>7} {:>10} {:>10} {:>7}",
                words(block),
                each(dense.sum(block).macs()),
                each(spiking.sum(block).of(Operation::Accumulate)),
                self.total(&compared.dense),
                self.total(&compared.spiking),
                percent(compared.saving()),
            );
        }
        let coverage = self.coverage.total;
        let _ = writeln!(
            text,
            "\nMeasured on {} tokens; spikes drive {:.1} % of the dense network's multiply-accumulates.",
            self.tokens,
            100.0 * coverage.ratio()
        );
    }

    fn side_by_side_table(&self, text: &mut String, phase: Phase, block: Block) {
        let forms = Form::ALL;
        let batch = if self.setting.batch > 1 { format!(", batch {}", self.setting.batch) } else { String::new() };
        let _ = writeln!(
            text,
            "\n{}: nJ a token, {} at {} tokens{batch}",
            words(block),
            phase.name(),
            self.setting.context
        );
        let _ = writeln!(
            text,
            "{:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}   collapsed saves % of",
            "prices", "f32", "f16", "int8", "skipping", "stepped", "collapsed"
        );
        let _ = writeln!(text, "{:<76}   {:>7} {:>7} {:>7} {:>7}", "", "f32", "f16", "int8", "skip");
        for list in &self.lists {
            let cells: Vec<String> = forms
                .iter()
                .map(|&form| format!("{:>9}", self.total(&self.counts(phase, form).price(block, list))))
                .collect();
            let savings: Vec<String> = forms
                .iter()
                .filter(|form| !form.is_spiking())
                .map(|&dense| {
                    format!("{:>7}", percent(self.compare(block, list, phase, dense, Form::Collapsed).saving()))
                })
                .collect();
            let _ = writeln!(text, "{:<16} {}   {}", list.name, cells.join(" "), savings.join(" "));
        }
    }

    /// What lists have no price for, and what they leave out.
    fn notes(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n`-`: no total, since something that is counted has no price there. Priced so far, and unpriced:"
        );
        for list in &self.lists {
            let priced = self.counts(Phase::Prefill, Form::Collapsed).price(Block::Total, list);
            if !priced.unpriced.is_empty() {
                let _ = writeln!(
                    text,
                    "  {:<16} {:>9} nJ of the spiking network; unpriced: {}",
                    list.name,
                    nanojoules(self.nj(priced.partial_pj())),
                    priced.unpriced_names().join(", ")
                );
            }
        }
        let _ = writeln!(text, "Left out on purpose:");
        for list in &self.lists {
            let mut whys: Vec<&str> = list.left_out.values().map(String::as_str).collect();
            whys.sort_unstable();
            whys.dedup();
            if !whys.is_empty() {
                let _ = writeln!(text, "  {:<16} {}", list.name, whys.join("; "));
            }
        }
    }

    fn break_even_table(&self, text: &mut String, list: &PriceList) {
        let against = [F32, Form::Dense(Number::Int8)];
        let all = against.map(|dense| break_even(self, list, Phase::Prefill, dense, Form::Collapsed));
        if all.iter().all(Vec::is_empty) {
            return;
        }
        let _ = writeln!(
            text,
            "\nBreak-even by {}: spikes a neuron, and timesteps, at which spiking costs as much as dense",
            list.name
        );
        let _ = writeln!(
            text,
            "{:<40} {:>8} {:>9} {:>9} {:>6} {:>9} {:>9}",
            "", "spikes", "= f32", "= int8", "T", "= f32", "= int8"
        );
        for place in self.places() {
            let [f32, int8] = all.each_ref().map(|rows| rows.iter().find(|row| row.place == place));
            let Some(row) = f32.or(int8) else { continue };
            let cell = |row: Option<&super::analysis::BreakEven>, of: fn(&super::analysis::BreakEven) -> f64| {
                row.map_or("-".into(), |row| if of(row) < 0.0 { "never".into() } else { format!("{:.2}", of(row)) })
            };
            let _ = writeln!(
                text,
                "{:<40} {:>8.2} {:>9} {:>9} {:>6.1} {:>9} {:>9}",
                words(Block::Row(place)),
                row.spikes,
                cell(f32, |row| row.break_even_spikes),
                cell(int8, |row| row.break_even_spikes),
                row.timesteps,
                cell(f32, |row| row.break_even_timesteps),
                cell(int8, |row| row.break_even_timesteps),
            );
        }
    }

    /// The list that is named, and the built-in one that prices most.
    fn sensitivity_table(&self, text: &mut String, list: &PriceList) {
        let more = self.lists.iter().find(|other| other.name == "horowitz45" && other.name != list.name);
        for list in std::iter::once(list).chain(more) {
            let rows = sensitivity(self, Block::Total, list, Phase::Prefill, F32, Form::Collapsed);
            let rows: Vec<_> =
                rows.into_iter().filter(|row| row.dense_share.max(row.spiking_share) >= SHARE_LEAST).collect();
            if rows.is_empty() {
                continue;
            }
            let _ = writeln!(
                text,
                "\nSensitivity, {}: share of the whole network's energy, and its saving against f32 at half and twice the price",
                list.name
            );
            let _ = writeln!(text, "{:<16} {:>8} {:>9} {:>8} {:>8}", "", "dense %", "spiking %", "half", "twice");
            for row in rows {
                let _ = writeln!(
                    text,
                    "{:<16} {:>8.1} {:>9.1} {:>8} {:>8}",
                    row.item.name(),
                    100.0 * row.dense_share,
                    100.0 * row.spiking_share,
                    percent(Some(row.halved)),
                    percent(Some(row.doubled))
                );
            }
        }
    }

    fn metrics(&self, text: &mut String) {
        let json = self.json()["neurobench"].clone();
        let number = |value: &serde_json::Value| value.as_f64().unwrap_or(0.0);
        let operations = &json["synaptic_operations"];
        let _ = writeln!(
            text,
            "\nNeuroBench, a token: footprint {} B, connection sparsity {:.3}, activation sparsity {:.3}, effective MACs {}, effective ACs {}, dense {}",
            quantity(number(&json["footprint"])),
            number(&json["connection_sparsity"]),
            number(&json["activation_sparsity"]),
            quantity(number(&operations["Effective_MACs"])),
            quantity(number(&operations["Effective_ACs"])),
            quantity(number(&operations["Dense"])),
        );
        let saved = |list: &str| {
            let list = self.lists.iter().find(|other| other.name == list)?;
            self.compare(Block::Attention, list, Phase::Prefill, F32, Form::Collapsed).saving()
        };
        if let Some(paper) = saved("paper45") {
            let strict =
                ["int45", "horowitz45", "horowitz45-sram"].map(|name| format!("{name} {}", percent(saved(name))));
            let _ = writeln!(
                text,
                "The attention block under the convention of the literature (paper45) saves {} %; arXiv 2510.00133 reports 64.71 to \
                 85.28 % on such a block.\nThe same block against f32 by other lists: {}.",
                percent(Some(paper)),
                strict.join(", ")
            );
        }
        let spent = |form: Form| {
            let joules =
                self.lists.first().map(|list| (list, self.counts(Phase::Prefill, form).price(Block::Total, list)));
            joules.map_or("-".into(), |(_, priced)| priced.pj().map_or("-".into(), |pj| format!("{:.3} uJ", pj / 1e6)))
        };
        if let Some(list) = self.lists.first() {
            let _ = writeln!(
                text,
                "This run of {} tokens by {}: dense f32 {}, spiking {}.",
                self.tokens,
                list.name,
                spent(F32),
                spent(Form::Collapsed)
            );
        }
    }
}

fn words(block: Block) -> String {
    match block {
        Block::Attention => "attention block, projections included".into(),
        Block::Core => "attention core alone".into(),
        Block::Total => "whole network".into(),
        Block::Row(_) => block.name(),
    }
}

/// Nanojoules in three or four digits.
fn nanojoules(nj: f64) -> String {
    match nj {
        _ if nj >= 1e6 => format!("{:.2} m", nj / 1e6),
        _ if nj >= 1e4 => format!("{:.1} k", nj / 1e3),
        _ => format!("{nj:.1}"),
    }
}

pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}", 100.0 * share))
}
