//! Why a plan runs as it does: for every product what reading all rows costs, what reading those that fired costs, and where
//! the two meet. Costs are estimates of one thread's time by the price list; densities are those of a run.

use crate::jit::Compiled;
use crate::meter::Products;
use crate::plan::{Step, When, Work, level_bytes};
use snnc_ir::tensor::PANEL;
use std::fmt::Write;

/// A product, at the density that was measured.
struct Site {
    inputs: usize,
    panels: usize,
    density: f64,
    /// The one way there is, where there is one: rows for spikes, all for levels of more than 8 bits.
    only: Option<&'static str>,
}

impl Site {
    /// `None` for what is no product of levels or spikes.
    fn of(step: &Step, products: &Products) -> Option<Self> {
        let (inputs, outputs, steps, only) = match step.work {
            Work::Product { code, steps, inputs, outputs } => {
                (inputs, outputs, 1, (level_bytes(code, steps) > 1).then_some("all"))
            }
            Work::Synapse { steps, inputs, outputs, .. } | Work::Currents { steps, inputs, outputs } => {
                (inputs, outputs, steps, Some("rows"))
            }
            _ => return None,
        };
        let heard = (products.listed + products.whole) * inputs as u64 * u64::from(steps);
        // Spikes of all timesteps: as many rows as that are read for a token.
        let density = products.fired as f64 / heard.max(1) as f64 * f64::from(steps);
        Some(Self { inputs, panels: outputs.div_ceil(PANEL), density, only })
    }

    /// Microseconds of all rows and of listed ones, and what is taken.
    fn costs(&self, compiled: &Compiled, tokens: usize) -> (f64, f64, &'static str) {
        let us = self.panels as f64 / 1e3;
        let fired = self.density * (tokens * self.inputs) as f64;
        let (whole, listed) = (compiled.prices.whole(tokens, self.inputs), compiled.prices.listed(self.inputs, fired));
        (whole * us, listed * us, self.only.unwrap_or(if listed < whole { "rows" } else { "all" }))
    }
}

/// Machine, choices and sums.
pub fn choices(compiled: &Compiled, products: &[Products]) -> String {
    let plan = &compiled.plan;
    let code = plan.steps.iter().filter(|step| compiled.is_code(step)).count();
    let many = plan.chunk;
    let mut text = format!(
        "machine code for {code} steps, made in {:.1} ms; kernels ({}) for {}; threads: {}; arena: {:.1} KiB\n",
        compiled.codegen_ms(),
        compiled.kernels.isa().name(),
        plan.steps.len() - code,
        compiled.pool.threads(),
        plan.arena_bytes as f64 / 1024.0
    );
    text += "prices, ns a row of 64 weights:";
    for (name, price) in crate::Prices::NAMES.iter().zip(compiled.prices.values()) {
        let _ = write!(text, " {} {price:.2}", name.trim_end_matches("_ns"));
    }
    let _ = writeln!(
        text,
        "\n\n{:<36} {:>6} {:>7} {:>8} | {:>9} {:>9} {:>6} {:>5} | {:>9} {:>9} {:>6} {:>5} | taken in the run",
        "microseconds by one thread",
        "inputs",
        "outputs",
        "density",
        "all, 1",
        "rows",
        "cross",
        "takes",
        format!("all, {many}"),
        "rows",
        "cross",
        "takes"
    );
    let (mut one, mut all, mut done) = (0.0, 0.0, Products::default());
    for step in &plan.steps {
        let did = products.get(step.node.index()).copied().unwrap_or_default();
        let Some(site) = Site::of(step, &did) else { continue };
        // Of the outputs, a prompt wants the last row.
        let tokens = if step.when == When::Wanted { 1 } else { many };
        let half = |tokens: usize, sum: &mut f64| {
            let (whole, listed, takes) = site.costs(compiled, tokens);
            *sum += if takes == "all" { whole } else { listed };
            let shown = |way: &str, us: f64| match site.only {
                Some(only) if only != way => "-".to_string(),
                _ => format!("{us:.1}"),
            };
            let cross = if site.only.is_some() {
                "-".to_string()
            } else {
                format!("{:.1}%", 100.0 * compiled.prices.crossover(tokens, site.inputs))
            };
            format!("{:>9} {:>9} {cross:>6} {takes:>5}", shown("all", whole), shown("rows", listed))
        };
        let halves = [half(1, &mut one), half(tokens, &mut all)];
        let (inputs, outputs) = (site.inputs, compiled.graph.ty(step.node).shape().width().unwrap_or(0));
        let _ = writeln!(
            text,
            "{:<36} {inputs:>6} {outputs:>7} {:>7.1}% | {} | {} | rows {}, all {}",
            compiled.graph.origin(step.node),
            100.0 * site.density,
            halves[0],
            halves[1],
            did.listed,
            did.whole
        );
        done += did;
    }
    let _ = writeln!(
        text,
        "{:<60} | {one:>32.1} | {all:>32.1} | rows {}, all {}",
        "total of what is taken; tokens times products in the run", done.listed, done.whole
    );
    text
}
