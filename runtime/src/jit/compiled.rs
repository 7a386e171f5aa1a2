//! A plan made ready for this machine: machine code, a record per step, tables and weights as kernels read them.

use crate::jit::frame::{StepRecord, StepTally};
use crate::jit::memory::MachineCode;
use crate::jit::schedule::{self, CodeOptions, FunctionListing};
use crate::jit::soon::{SoonRead, soon_reads};
use crate::kernel_costs::KernelCosts;
use crate::kernels::{Isa, Kernels};
use crate::plan::{Plan, PlanRow, Step};
use crate::pool::Pool;
use crate::step::{CurveTables, Fault, MatmulInput, Resources, StepForm};
use snnc_ir::ErrorCode;
use snnc_ir::finite::not_finite;
use snnc_ir::tensor::Data;
use snnc_ir::{Diagnostic, Graph, Value, WeightId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// A plan with its machine code, records and weights in panels.
#[derive(Debug)]
pub struct CompiledPlan {
    pub graph: Arc<Graph>,
    pub plan: Plan,
    pub kernels: Kernels,
    pub pool: Pool,
    pub costs: KernelCosts,
    pub records: Vec<StepRecord>,
    /// Whether spikes are counted.
    pub count: bool,
    /// By step, for products: the neurons that emit the levels it reads.
    pub emitters: Vec<Option<usize>>,
    /// By step: weights that it prefetches.
    pub soon: Vec<Option<SoonRead>>,
    pub code: MachineCode,
    /// Constants that records point to beside the graph's.
    tables: CurveTables,
    codegen_ms: f64,
}

/// How a program is compiled.
#[derive(Clone, Copy, Debug)]
pub struct JitOptions {
    pub count: bool,
    /// `None` takes the variable `SNNC_ISA`, or the best that the machine has.
    pub isa: Option<Isa>,
    pub threads: usize,
    pub pin: bool,
    /// `None` takes those typical of the instruction set.
    pub kernel_costs: Option<KernelCosts>,
}

impl CompiledPlan {
    /// # Errors
    /// The host is no target of the code generator, a constant is not of its operation's type, or threads cannot be pinned.
    pub fn new(graph: Arc<Graph>, plan: Plan, options: &JitOptions) -> Result<Self, Diagnostic> {
        let isa = options.isa.map_or_else(Isa::detect, Ok);
        let kernels =
            isa.and_then(Kernels::new).map_err(|message| Diagnostic::new("", message).code(ErrorCode::RUN))?;
        let pool =
            Pool::new(options.threads, options.pin).map_err(|why| Diagnostic::new("", why).code(ErrorCode::RUN))?;
        let graph = if graph.weights.iter().any(|weight| weight.tensor.as_i8().is_some()) {
            // Not from a file: kernels read panels.
            Arc::new((*graph).clone().in_panels())
        } else {
            graph
        };
        let tables = tables(&plan);
        let records = records(&graph, &plan, &tables);
        let start = Instant::now();
        let costs = options.kernel_costs.unwrap_or_else(|| KernelCosts::typical(kernels.isa()));
        let code = schedule::compile(&plan, code_options(kernels, &costs, options.count))?;
        let codegen_ms = start.elapsed().as_secs_f64() * 1e3;
        let (emitters, soon) = (emitters(&graph, &plan), soon_reads(&plan));
        Ok(Self {
            graph,
            plan,
            kernels,
            pool,
            costs,
            records,
            count: options.count,
            emitters,
            soon,
            code,
            tables,
            codegen_ms,
        })
    }

    /// What all steps share.
    pub fn resources(&self) -> Resources<'_> {
        let Self { kernels, pool, costs, count, tables, .. } = self;
        Resources { kernels: *kernels, pool, costs, count: *count, tables }
    }

    pub fn codegen_ms(&self) -> f64 {
        self.codegen_ms
    }

    /// What runs the step.
    pub fn form(&self, step: &Step) -> StepForm {
        step.kind.form(is_wide(self.kernels))
    }

    /// # Errors
    /// As when it was compiled.
    pub fn listings(&self) -> Result<Vec<FunctionListing>, Diagnostic> {
        schedule::listings(&self.plan, code_options(self.kernels, &self.costs, self.count))
    }

    pub fn rows(&self) -> Vec<PlanRow> {
        self.plan.rows(&self.graph, is_wide(self.kernels))
    }

    pub fn explain(&self) -> String {
        self.plan.explain(&self.graph, is_wide(self.kernels))
    }

    /// What a fault means to a person.
    pub fn diagnose(&self, code: i64) -> Diagnostic {
        let step = &self.plan.steps[(code >> 8) as usize];
        let (op, origin) = (self.graph.node(step.node).op, self.graph.origin(step.node));
        match Fault::from_code((code & 0xff) as i32) {
            Fault::NotFinite => not_finite(&self.graph, step.kind.checks(step.node)),
            Fault::Misfit => Diagnostic::new(origin, format!("internal error: operands of `{op}` do not fit its plan"))
                .code(ErrorCode::RUN),
        }
    }
}

/// Whether kernels have wider vectors than the 128 bits of machine code.
fn is_wide(kernels: Kernels) -> bool {
    kernels.isa() != Isa::Portable
}

fn code_options(kernels: Kernels, costs: &KernelCosts, count: bool) -> CodeOptions {
    CodeOptions { count, wide: is_wide(kernels), rows_by_kernel: costs.rows_by_kernel() }
}

/// The table of every curve that neurons have.
fn tables(plan: &Plan) -> CurveTables {
    let curves = plan.steps.iter().filter_map(|step| step.kind.curve_table());
    curves.map(|curve| (curve, curve.table().into())).collect()
}

/// By step, for products of levels: the step of the neurons that emit them, of the same rows.
fn emitters(graph: &Graph, plan: &Plan) -> Vec<Option<usize>> {
    let neurons = |(i, step): (usize, &Step)| step.kind.counts_spikes().then_some((step.node, i));
    let neurons: BTreeMap<Value, usize> = plan.steps.iter().enumerate().filter_map(neurons).collect();
    let emitter = |step: &Step| match step.kind.matmul()?.reads {
        MatmulInput::Levels { .. } => neurons.get(&graph.node(step.node).args[0]).copied(),
        MatmulInput::Spikes { .. } => None,
    };
    let of_the_same_rows = |step: &Step| emitter(step).filter(|&i| plan.steps[i].rows == step.rows);
    plan.steps.iter().map(of_the_same_rows).collect()
}

/// A record for every step.
fn records(graph: &Graph, plan: &Plan, tables: &CurveTables) -> Vec<StepRecord> {
    let record = |(i, step): (usize, &Step)| {
        let mut record =
            StepRecord { out: plan.buffers[step.out].offset as u64, step: i as u64, ..StepRecord::default() };
        record.tally = (i * size_of::<StepTally>()) as u64;
        for (offset, &input) in record.inputs.iter_mut().zip(&step.inputs) {
            *offset = plan.buffers[input].offset as u64;
        }
        for (address, &id) in record.constants.iter_mut().zip(&step.constants) {
            *address = address_of(graph, id);
        }
        if let Some(table) = step.kind.curve_table().and_then(|curve| tables.get(&curve)) {
            record.table = table.as_ptr().expose_provenance() as u64;
        }
        record
    };
    plan.steps.iter().enumerate().map(record).collect()
}

fn address_of(graph: &Graph, id: WeightId) -> u64 {
    let data = graph.weight(id).tensor.data();
    let address = match data {
        Data::F32(x) => x.as_ptr().expose_provenance(),
        Data::I32(x) => x.as_ptr().expose_provenance(),
        Data::I8(x) | Data::Panels(x) => x.as_ptr().expose_provenance(),
        Data::Groups { bytes, .. } => bytes.as_ptr().expose_provenance(),
    };
    address as u64
}
