//! The estimate as tables for a person: by layer and part, all forms side by side, break-even and sensitivity.

use crate::format::Figures;
use crate::table::{Grid, lines, numbers};
use crate::units::{count, joules, percent, si};
use serde_json::{Value as Json, json};
use snnc::energy::analysis::{BreakEven, break_even, sensitivity};
use snnc::energy::{Block, Estimate, Phase, PriceList, Priced};
use snnc::run_record::RunRecord;
use snnc::schema::document;
use snnc_passes::cost::{Form, Number, Operation, Part};

const F32: Form = Form::Dense(Number::F32);

/// Prices below this share of both sides are not listed by sensitivity.
const SHARE_LEAST: f64 = 0.02;

/// What a network costs, and how much of it is shown.
#[derive(Debug)]
pub struct Costs {
    pub estimate: Estimate,
    /// Everything, not only what matters most.
    pub full: bool,
}

impl Figures for Costs {
    fn json(&self, run: Option<&RunRecord>) -> Json {
        document(&self.estimate.json(), run)
    }

    fn text(&self) -> String {
        let Some(list) = self.estimate.lists.first() else { return String::new() };
        if self.full { tables(&self.estimate, list) } else { summary(&self.estimate) }
    }

    fn grids(&self) -> Vec<Grid> {
        shown_lists(&self.estimate, self.full).into_iter().map(|list| grid(&self.estimate, list)).collect()
    }

    /// A row per phase, block, form and list.
    fn rows(&self, json: &Json) -> Vec<Json> {
        let mut rows = Vec::new();
        let members = |json: &Json| json.as_object().cloned().unwrap_or_default();
        for phase in Phase::ALL.map(Phase::name) {
            for (block, forms) in members(&json[phase]) {
                for (form, costs) in members(&forms) {
                    for (list, price) in members(&costs["prices"]) {
                        let pj = &price["pj"];
                        let partial = &price["partial_pj"];
                        rows.push(json!({
                            "phase": phase, "block": block, "form": form, "list": list, "pj_per_token": pj, "partial_pj_per_token": partial,
                        }));
                    }
                }
            }
        }
        rows
    }
}

/// The first list and the one that counts integers; in full, all that have a total.
fn shown_lists(estimate: &Estimate, full: bool) -> Vec<&PriceList> {
    let Some(first) = estimate.lists.first() else { return Vec::new() };
    let others = estimate.lists.iter().skip(1);
    let others = others.filter(|list| if full { has_total(estimate, list) } else { list.name == "int45" });
    std::iter::once(first).chain(others).collect()
}

fn has_total(estimate: &Estimate, list: &PriceList) -> bool {
    Form::ALL.iter().any(|form| estimate.counts(Phase::Prefill, *form).price(Block::Total, list).pj().is_some())
}

/// What matters most, within 30 lines of 80 columns: five blocks and decoding by `list`, and by the one that counts integers.
fn summary(estimate: &Estimate) -> String {
    let neurons = estimate.neurons.values().fold((0, 0), |(s, n), row| (s + row.spikes, n + row.neurons));
    let measured = if estimate.measured { "measured on" } else { "expected for" };
    let mut text = warnings(estimate);
    text += &format!(
        "Energy per token, {measured} {} tokens; {:.2} spikes per neuron; spikes drive\n{:.1} % of the dense network's multiply-accumulates.\n",
        estimate.tokens,
        neurons.0 as f64 / neurons.1.max(1) as f64,
        100.0 * estimate.coverage.total.ratio()
    );
    for list in shown_lists(estimate, false) {
        text += &format!("\n{}", grid(estimate, list).text());
    }
    let without: Vec<&str> =
        estimate.lists.iter().filter(|list| !has_total(estimate, list)).map(|list| &*list.name).collect();
    if !without.is_empty() {
        text += &format!("\nNo total by {}: a count has no price there.\n", without.join(", "));
    }
    text += "\n`--full` has layers, all lists and sensitivity; `--format csv` has all values.\n";
    text
}

/// Energy per token by a list: five blocks in a prompt, and decoding. All energies have the unit of the largest.
fn grid(estimate: &Estimate, list: &PriceList) -> Grid {
    let int8 = Form::Dense(Number::Int8);
    // A list without a price of int8 has no columns of it.
    let has_int8 = estimate.counts(Phase::Prefill, int8).price(Block::Total, list).pj().is_some();
    let shown = |cells: [String; 6]| -> Vec<String> {
        let cells = cells.into_iter().enumerate().filter(move |(i, _)| has_int8 || ![2, 5].contains(i));
        cells.map(|(_, cell)| cell).collect()
    };
    let blocks = [Block::Attention, Block::Core, Block::Part(Part::Mlp), Block::Part(Part::Head), Block::Total];
    let prefill = blocks.map(|block| (Phase::Prefill, block));
    let rows: Vec<(Phase, Block)> = prefill.into_iter().chain([(Phase::Decode, Block::Total)]).collect();
    let forms = [F32, int8, Form::Collapsed];
    let pj = |phase, block, form| {
        let priced = estimate.counts(phase, form).price(block, list);
        priced.pj().map(|pj| pj / estimate.tokens.max(1) as f64)
    };
    let all = rows.iter().flat_map(|&(phase, block)| forms.map(|form| pj(phase, block, form)));
    let (divisor, unit) = joule_unit(all.flatten().fold(0.0, f64::max));
    let measured = if estimate.measured { "measured on" } else { "expected for" };
    let caption = format!(
        "Energy per token by the price list {}, {measured} {} tokens; the whole network in a prompt unless said otherwise.",
        list.name, estimate.tokens
    );
    let header = [
        list.name.clone(),
        format!("f32, {unit}"),
        format!("int8, {unit}"),
        format!("spiking, {unit}"),
        "% saved of f32".into(),
        "of int8".into(),
    ];
    let mut grid = Grid { caption, header: shown(header), rows: Vec::new() };
    for (phase, block) in rows {
        let saved = [F32, int8].map(|dense| estimate.compare(block, list, phase, dense, Form::Collapsed).saving());
        let name = match (phase, block) {
            (Phase::Decode, _) => "the same, decoding".to_string(),
            (_, Block::Attention) => "attention block".into(),
            (_, Block::Core) => "of it, the core".into(),
            (_, Block::Part(Part::Mlp)) => "MLPs".into(),
            (_, block) => words(block),
        };
        let energies = forms.map(|form| pj(phase, block, form).map_or("-".into(), |pj| three_digits(pj / divisor)));
        let [dense, int8, spiking] = energies;
        let [of_f32, of_int8] = saved.map(percent);
        grid.rows.push(shown([name, dense, int8, spiking, of_f32, of_int8]));
    }
    grid
}

/// Picojoules of a unit in which the largest energy is at least 1, and what it is called.
fn joule_unit(largest_pj: f64) -> (f64, &'static str) {
    let units = [(1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")];
    units.into_iter().find(|(pj, _)| largest_pj >= *pj).unwrap_or((1.0, "pJ"))
}

/// With three digits or more.
fn three_digits(x: f64) -> String {
    let digits = [(100.0, 0), (10.0, 1), (1.0, 2), (0.1, 3)].into_iter().find(|(least, _)| x >= *least);
    format!("{x:.digits$}", digits = digits.map_or(4, |(_, digits)| digits))
}

/// All tables. Rows, break-even and sensitivity are by `list`, the rest by all lists.
fn tables(estimate: &Estimate, list: &PriceList) -> String {
    let mut text = warnings(estimate);
    text += &rows(estimate, list);
    for phase in Phase::ALL {
        for block in Block::NAMED {
            text += &side_by_side(estimate, phase, block);
        }
    }
    text += &unpriced(estimate);
    text += &left_out(estimate);
    let other = estimate.lists.iter().find(|other| other.name == "int45" && other.name != list.name);
    for list in std::iter::once(list).chain(other) {
        text += &break_even_table(estimate, list);
    }
    text += &sensitivities(estimate, list);
    text += &metrics(estimate);
    text += &convention(estimate);
    text += &this_run(estimate);
    text
}

fn warnings(estimate: &Estimate) -> String {
    let mut names: Vec<&str> = estimate.defects.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let line =
        |name| format!("DEFECT: no neuron of {name} ever fires. What it does not spend is not counted as saved.\n");
    names.into_iter().map(line).collect()
}

/// Energy per token.
fn total(estimate: &Estimate, priced: &Priced) -> String {
    priced.pj().map_or("-".into(), |pj| joules(pj / estimate.tokens.max(1) as f64))
}

fn rows(estimate: &Estimate, list: &PriceList) -> String {
    let (dense, spiking) = (estimate.counts(Phase::Prefill, F32), estimate.counts(Phase::Prefill, Form::Collapsed));
    let mut table = numbers(&["", "dense MACs", "additions", "spikes per neuron", "dense f32", "spiking", "saved %"]);
    for block in estimate.places().into_iter().map(Block::Row).chain(Block::NAMED) {
        let compared = estimate.compare(block, list, Phase::Prefill, F32, Form::Collapsed);
        let neurons = estimate.neurons.iter().filter(|(place, _)| block.has(**place)).map(|(_, neurons)| neurons);
        let (spikes, all) = neurons.fold((0, 0), |(s, n), row| (s + row.spikes, n + row.neurons));
        let each = |sum: u64| count(sum as f64 / estimate.tokens.max(1) as f64);
        table.add_row([
            words(block),
            each(dense.sum(block).macs()),
            each(spiking.sum(block).of(Operation::Accumulate)),
            if all == 0 { String::new() } else { format!("{:.2}", spikes as f64 / all as f64) },
            total(estimate, &compared.dense),
            total(estimate, &compared.spiking),
            percent(compared.saving()),
        ]);
    }
    let measured = if estimate.measured { "Measured in a run" } else { "Expected from firing rates, not measured," };
    format!(
        "Per token, prefill of {} tokens, prices {}\n{}\n{measured} of {} tokens; spikes drive {:.1} % of the dense network's \
         multiply-accumulates.\n",
        estimate.setting.context,
        list.name,
        lines(&table),
        estimate.tokens,
        100.0 * estimate.coverage.total.ratio()
    )
}

fn side_by_side(estimate: &Estimate, phase: Phase, block: Block) -> String {
    let mut table = numbers(&[
        "prices",
        "f32",
        "f16",
        "int8",
        "skipping",
        "stepped",
        "collapsed",
        "% of f32",
        "of f16",
        "of int8",
        "of skipping",
    ]);
    for list in &estimate.lists {
        let energies = Form::ALL.map(|form| total(estimate, &estimate.counts(phase, form).price(block, list)));
        // A list that prices none of the forms would be a row of dashes.
        if energies.iter().all(|energy| energy == "-") {
            continue;
        }
        let dense = Form::ALL.into_iter().filter(|form| !form.is_spiking());
        let saved = dense.map(|dense| percent(estimate.compare(block, list, phase, dense, Form::Collapsed).saving()));
        table.add_row(std::iter::once(list.name.clone()).chain(energies).chain(saved));
    }
    let batch = if estimate.setting.batch > 1 { format!(", batch {}", estimate.setting.batch) } else { String::new() };
    format!(
        "\n{}: energy per token, {} at {} tokens{batch}, and what collapsed saves\n{}",
        words(block),
        phase.name(),
        estimate.setting.context,
        lines(&table)
    )
}

/// What lists have no price for.
fn unpriced(estimate: &Estimate) -> String {
    let mut table = numbers(&["prices", "priced of spiking", "unpriced"]);
    for list in &estimate.lists {
        let priced = estimate.counts(Phase::Prefill, Form::Collapsed).price(Block::Total, list);
        if !priced.unpriced.is_empty() {
            let energy = joules(priced.partial_pj() / estimate.tokens.max(1) as f64);
            table.add_row([list.name.clone(), energy, priced.unpriced_names().join(", ")]);
        }
    }
    if table.is_empty() {
        return String::new();
    }
    format!("\n`-`: there is no total, because something that is counted has no price in the list\n{}", lines(&table))
}

fn left_out(estimate: &Estimate) -> String {
    let mut text = String::from("\nLeft out on purpose:\n");
    for list in &estimate.lists {
        let mut reasons: Vec<&str> = list.left_out.values().map(String::as_str).collect();
        reasons.sort_unstable();
        reasons.dedup();
        if !reasons.is_empty() {
            text += &format!("  {:<16} {}\n", list.name, reasons.join("; "));
        }
    }
    text
}

fn break_even_table(estimate: &Estimate, list: &PriceList) -> String {
    let forms = [F32, Form::Dense(Number::Int8)];
    let all = forms.map(|dense| break_even(estimate, list, Phase::Prefill, dense, Form::Collapsed));
    if all.iter().all(Vec::is_empty) {
        return String::new();
    }
    let mut table = numbers(&["", "spikes", "= f32", "= int8", "timesteps", "= f32", "= int8"]);
    for place in estimate.places() {
        let [f32, int8] = all.each_ref().map(|rows| rows.iter().find(|row| row.place == place));
        let Some(row) = f32.or(int8) else { continue };
        let cell = |row: Option<&BreakEven>, of: fn(&BreakEven) -> f64| {
            row.map_or("-".into(), |row| if of(row) < 0.0 { "never".into() } else { format!("{:.2}", of(row)) })
        };
        table.add_row([
            words(Block::Row(place)),
            format!("{:.2}", row.spikes),
            cell(f32, |row| row.break_even_spikes),
            cell(int8, |row| row.break_even_spikes),
            format!("{:.1}", row.timesteps),
            cell(f32, |row| row.break_even_timesteps),
            cell(int8, |row| row.break_even_timesteps),
        ]);
    }
    format!(
        "\nBreak-even by {}: spikes per neuron, and timesteps, at which spiking costs as much as dense\n{}",
        list.name,
        lines(&table)
    )
}

/// By the list that is named, and by the built-in one that prices most.
fn sensitivities(estimate: &Estimate, list: &PriceList) -> String {
    let more = estimate.lists.iter().find(|other| other.name == "horowitz45" && other.name != list.name);
    std::iter::once(list).chain(more).map(|list| sensitivity_table(estimate, list)).collect()
}

fn sensitivity_table(estimate: &Estimate, list: &PriceList) -> String {
    let mut table = numbers(&["", "dense %", "spiking %", "half", "twice"]);
    for row in sensitivity(estimate, Block::Total, list, Phase::Prefill, F32, Form::Collapsed) {
        if row.dense_share.max(row.spiking_share) >= SHARE_LEAST {
            table.add_row([
                row.item.name().to_string(),
                percent(Some(row.dense_share)),
                percent(Some(row.spiking_share)),
                percent(Some(row.halved)),
                percent(Some(row.doubled)),
            ]);
        }
    }
    if table.is_empty() {
        return String::new();
    }
    format!(
        "\nSensitivity, {}: share of the whole network's energy, and its saving against f32 at half and twice the price\n{}",
        list.name,
        lines(&table)
    )
}

fn metrics(estimate: &Estimate) -> String {
    let all = estimate.neurobench();
    let operations = &all.synaptic_operations;
    format!(
        "\nNeuroBench, per token: footprint {}, connection sparsity {:.3}, activation sparsity {:.3}, effective MACs {}, \
         effective ACs {}, dense {}\n",
        si(all.footprint as f64, "B"),
        all.connection_sparsity,
        all.activation_sparsity,
        count(operations.Effective_MACs),
        count(operations.Effective_ACs),
        count(operations.Dense),
    )
}

/// What the literature reports, beside the same figure by other lists.
fn convention(estimate: &Estimate) -> String {
    let saved = |list: &str| {
        let list = estimate.lists.iter().find(|other| other.name == list)?;
        estimate.compare(Block::Attention, list, Phase::Prefill, F32, Form::Collapsed).saving()
    };
    let Some(paper) = saved("paper45") else { return String::new() };
    let strict = ["int45", "horowitz45", "horowitz45-sram"].map(|name| format!("{name} {}", percent(saved(name))));
    format!(
        "The attention block under the convention of the literature (paper45) saves {} %; arXiv 2510.00133 reports 64.71 to \
         85.28 % on such a block.\nThe same block against f32 by other lists: {}.\n",
        percent(Some(paper)),
        strict.join(", ")
    )
}

fn this_run(estimate: &Estimate) -> String {
    let Some(list) = estimate.lists.first() else { return String::new() };
    let spent =
        |form: Form| estimate.counts(Phase::Prefill, form).price(Block::Total, list).pj().map_or("-".into(), joules);
    format!(
        "This run of {} tokens by {}: dense f32 {}, spiking {}.\n",
        estimate.tokens,
        list.name,
        spent(F32),
        spent(Form::Collapsed)
    )
}

fn words(block: Block) -> String {
    match block {
        Block::Attention => "attention block, projections included".into(),
        Block::Core => "attention core alone".into(),
        Block::Total => "whole network".into(),
        Block::Part(_) | Block::Row(_) => block.name(),
    }
}
