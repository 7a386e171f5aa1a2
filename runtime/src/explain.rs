//! Why a plan runs as it does: for every product what reading all rows costs, what reading those that fired costs, and where
//! the two meet. Costs are estimates of one thread's time by the kernel costs; densities are those of a run.

use crate::jit::compiled::CompiledPlan;
use crate::kernel_costs::KernelCosts;
use crate::meter::MatmulCounts;
use crate::plan::{RowSet, Step};
use crate::step::{MatmulInput, MatmulSizes, StepForm};
use snnc_ir::tensor::PANEL;
use std::fmt::Write;

/// A product, at the density that was measured.
struct MatmulEstimate {
    inputs: usize,
    panels: usize,
    density: f64,
    /// The one way there is, where there is one: rows for spikes, all for levels of more than 8 bits.
    only: Option<&'static str>,
}

impl MatmulEstimate {
    /// `None` for what is no product of levels or spikes.
    fn of(step: &Step, matmuls: &MatmulCounts) -> Option<Self> {
        let MatmulSizes { inputs, outputs, reads } = step.kind.matmul()?;
        let (steps, only) = match reads {
            MatmulInput::Levels { wide } => (1, wide.then_some("all")),
            MatmulInput::Spikes { steps } => (steps, Some("rows")),
        };
        let read = (matmuls.sparse + matmuls.dense) * inputs as u64 * u64::from(steps);
        // Spikes of all timesteps: as many rows as that are read for a token.
        let density = matmuls.fired as f64 / read.max(1) as f64 * f64::from(steps);
        Some(Self { inputs, panels: outputs.div_ceil(PANEL), density, only })
    }

    /// Microseconds of all rows and of sparse ones, and what is taken.
    fn costs(&self, compiled: &CompiledPlan, tokens: usize) -> (f64, f64, &'static str) {
        let us = self.panels as f64 / 1e3;
        let fired = self.density * (tokens * self.inputs) as f64;
        let (dense, sparse) = (compiled.costs.dense(tokens, self.inputs), compiled.costs.sparse(self.inputs, fired));
        (dense * us, sparse * us, self.only.unwrap_or(if sparse < dense { "rows" } else { "all" }))
    }

    /// Columns of the table for so many tokens; what is taken is added to `sum`.
    fn half(&self, compiled: &CompiledPlan, tokens: usize, sum: &mut f64) -> String {
        let (dense, sparse, takes) = self.costs(compiled, tokens);
        *sum += if takes == "all" { dense } else { sparse };
        let shown = |rows: &str, us: f64| match self.only {
            Some(only) if only != rows => "-".to_string(),
            _ => format!("{us:.1}"),
        };
        let cross = if self.only.is_some() {
            "-".to_string()
        } else {
            format!("{:.1}%", 100.0 * compiled.costs.crossover(tokens, self.inputs))
        };
        format!("{:>9} {:>9} {cross:>6} {takes:>5}", shown("all", dense), shown("rows", sparse))
    }
}

/// The machine, the choices and their sums.
pub fn choices(compiled: &CompiledPlan, matmuls: &[MatmulCounts]) -> String {
    let plan = &compiled.plan;
    let many = plan.chunk;
    let mut text = head(compiled);
    let (mut one, mut all, mut done) = (0.0, 0.0, MatmulCounts::default());
    for step in &plan.steps {
        let did = matmuls.get(step.node.index()).copied().unwrap_or_default();
        let Some(site) = MatmulEstimate::of(step, &did) else { continue };
        // Of the outputs, a prompt wants the last row.
        let tokens = if step.rows == RowSet::Wanted { 1 } else { many };
        let halves = [site.half(compiled, 1, &mut one), site.half(compiled, tokens, &mut all)];
        let (inputs, outputs) = (site.inputs, compiled.graph.ty(step.node).shape().width().unwrap_or(0));
        let _ = writeln!(
            text,
            "{:<36} {inputs:>6} {outputs:>7} {:>7.1}% | {} | {} | rows {}, all {}",
            compiled.graph.origin(step.node),
            100.0 * site.density,
            halves[0],
            halves[1],
            did.sparse,
            did.dense
        );
        done += did;
    }
    let _ = writeln!(
        text,
        "{:<60} | {one:>32.1} | {all:>32.1} | rows {}, all {}",
        "total of what is taken; tokens times products in the run", done.sparse, done.dense
    );
    text
}

/// The machine, and the table's head.
fn head(compiled: &CompiledPlan) -> String {
    let plan = &compiled.plan;
    let code = plan.steps.iter().filter(|step| compiled.form(step) == StepForm::Code).count();
    let mut text = format!(
        "machine code for {code} steps, made in {:.1} ms; kernels ({}) for {}; threads: {}; arena: {:.1} KiB\n",
        compiled.codegen_ms(),
        compiled.kernels.isa().name(),
        plan.steps.len() - code,
        compiled.pool.threads(),
        plan.arena_bytes as f64 / 1024.0
    );
    text += &loops_line(compiled);
    text += "kernel costs, ns per row of 64 weights:";
    for (name, cost) in KernelCosts::NAMES.iter().zip(compiled.costs.values()) {
        let _ = write!(text, " {} {cost:.2}", name.trim_end_matches("_ns"));
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
        format!("all, {}", plan.chunk),
        "rows",
        "cross",
        "takes"
    );
    text
}

/// What runs loops over timesteps; what adds up rows of weights in them, and why.
fn loops_line(compiled: &CompiledPlan) -> String {
    let loops: Vec<&Step> = compiled.plan.steps.iter().filter(|step| compiled.form(step) == StepForm::Loop).collect();
    if loops.is_empty() {
        return String::new();
    }
    let synapses = loops.iter().filter(|step| step.kind.matmul().is_some()).count();
    let mut text =
        format!("loops over timesteps in {} of these kernels; potentials: machine code (128 bits)", loops.len());
    if synapses > 0 {
        let costs = &compiled.costs;
        let kernel = format!("kernels ({})", compiled.kernels.isa().name());
        let (takes, cost, other, more) = if costs.rows_by_kernel() {
            (kernel.as_str(), costs.sparse_near_ns, "machine code", costs.code_ns)
        } else {
            ("machine code", costs.code_ns, kernel.as_str(), costs.sparse_near_ns)
        };
        let _ = write!(
            text,
            "; rows of weights in {synapses}: {takes}, {cost:.2} ns per row of 64, where {other} would take {more:.2}"
        );
    }
    text + "\n"
}
