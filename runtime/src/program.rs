//! A program made ready for an engine, shared by any number of sessions and batches.

use crate::executor::Executor;
use crate::explain;
use crate::interpreter::Interpreter;
use crate::jit::compiled::{CompiledPlan, JitOptions};
use crate::jit::engine::Jit;
use crate::jit::schedule::FunctionListing;
use crate::kernel_costs::KernelCosts;
use crate::kernels::Isa;
use crate::kv_cache::{kept_per_token, kept_sums};
use crate::meter::MatmulCounts;
use crate::plan::PlanRow;
use crate::steps;
use snnc_ir::ErrorCode;
use snnc_ir::{Diagnostic, Graph, Stage};
use std::sync::Arc;

/// What runs the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// The oracle: `snnc_ir::eval`, slow and obvious.
    Interpreter,
    /// Executor code and kernels.
    #[default]
    Jit,
}

/// How to run a program.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What runs the program.
    pub engine: Engine,
    /// Whether spikes are counted. Attention's events are counted anyway: they cost nothing.
    pub count: bool,
    /// Instructions that kernels may use; `None` takes the variable `SNNC_ISA`, or the best that the machine has.
    pub isa: Option<Isa>,
    /// Threads of one sequence. They never change a result.
    pub threads: usize,
    /// Whether each of them, the one that makes the program included, stays on a processor of its own.
    pub pin: bool,
    /// The most tokens that one pass over the layers takes, fewer where rows are very wide. It never changes a result.
    pub chunk: usize,
    /// What rows of weights cost on this machine; `None` takes typical costs. They never change a result.
    pub kernel_costs: Option<KernelCosts>,
}

impl Default for Options {
    fn default() -> Self {
        Self { engine: Engine::Jit, count: true, isa: None, threads: 1, pin: false, chunk: 128, kernel_costs: None }
    }
}

/// Bytes of values beyond which a pass takes fewer tokens at a time. GPT-2 XL takes a quarter of it.
const ARENA_LARGE: usize = 1 << 28;

/// A graph with what its engine prepared: plan, weights in panels, machine code.
///
/// ```
/// # use snnc_ir::op::{DenseOp, LeafOp, Op};
/// # use snnc_ir::{Builder, Stage, Tensor};
/// # use std::sync::Arc;
/// # let mut b = Builder::new(Stage::Tensor, 8);
/// # let table = b.weight("table", Arc::new(Tensor::f32(&[3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])));
/// # let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "tokens")?;
/// # let rows = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "embed")?;
/// # let graph = Arc::new(b.finish(vec![("rows".to_string(), rows)]));
/// use snnc_runtime::{Engine, Options, Program};
///
/// let program = Program::new(Arc::clone(&graph), &Options::default())?;
/// assert!(program.explain().contains("kernel embed"));
/// let oracle = Program::new(graph, &Options { engine: Engine::Interpreter, ..Options::default() })?;
/// assert_eq!(oracle.explain(), "interpreter: 3 nodes in order\n");
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
#[derive(Debug)]
pub struct Program {
    graph: Arc<Graph>,
    options: Options,
    compiled: Option<Arc<CompiledPlan>>,
}

/// Bytes of what one sequence of a program keeps when the context is full.
pub fn sequence_bytes(graph: &Graph) -> u64 {
    let bytes = kept_sums(graph) + u128::from(graph.context) * kept_per_token(graph);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Program {
    /// Plans the graph and, for the JIT, compiles it.
    ///
    /// # Errors
    /// The graph is of a stage that is not run, or has something in it that no engine step fits.
    pub fn new(graph: Arc<Graph>, options: &Options) -> Result<Self, Diagnostic> {
        if graph.stage == Stage::Imported {
            return Err(Diagnostic::new("", "an imported program is not run; raise it first").code(ErrorCode::RUN));
        }
        if graph.stage == Stage::Training {
            return Err(Diagnostic::new("", "a network in training is run by `snnc train` only").code(ErrorCode::RUN));
        }
        let mut options = Options { chunk: options.chunk.clamp(1, (graph.context as usize).max(1)), ..*options };
        let compiled = match options.engine {
            Engine::Interpreter => None,
            Engine::Jit => {
                let Options { count, isa, threads, pin, kernel_costs, .. } = options;
                let compile = JitOptions { count, isa, threads, pin, kernel_costs };
                let mut plan = steps::plan(&graph, options.chunk)?;
                if plan.arena_bytes > ARENA_LARGE && options.chunk > 1 {
                    options.chunk = (ARENA_LARGE / (plan.arena_bytes / options.chunk).max(1)).clamp(1, options.chunk);
                    plan = steps::plan(&graph, options.chunk)?;
                }
                Some(Arc::new(CompiledPlan::new(Arc::clone(&graph), plan, &compile)?))
            }
        };
        Ok(Self { graph, options, compiled })
    }

    /// The graph that it runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How it is run; `chunk` is at most the context.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Time that generating machine code took; 0 for the interpreter.
    pub fn codegen_ms(&self) -> f64 {
        self.compiled.as_ref().map_or(0.0, |compiled| compiled.codegen_ms())
    }

    /// Cranelift's IR and the instructions of every compiled function; none for the interpreter.
    ///
    /// # Errors
    /// As of `new`.
    pub fn listings(&self) -> Result<Vec<FunctionListing>, Diagnostic> {
        self.compiled.as_ref().map_or(Ok(Vec::new()), |compiled| compiled.listings())
    }

    /// The plan, row by row; none for the interpreter.
    pub fn plan_rows(&self) -> Vec<PlanRow> {
        self.compiled.as_ref().map_or(Vec::new(), |compiled| compiled.rows())
    }

    /// The instructions that kernels use; `None` for the interpreter, which has no kernels.
    pub fn isa(&self) -> Option<Isa> {
        self.compiled.as_ref().map(|compiled| compiled.kernels.isa())
    }

    /// The plan as text: step by step, what runs it and where its result lies.
    pub fn explain(&self) -> String {
        match &self.compiled {
            Some(compiled) => compiled.explain(),
            None => format!("interpreter: {} nodes in order\n", self.graph.nodes.len()),
        }
    }

    /// The choices of a plan as text: of every product, what either way costs at the density of a run's `products`, by node.
    pub fn explain_choices(&self, products: &[MatmulCounts]) -> String {
        self.compiled.as_ref().map_or(String::new(), |compiled| explain::choices(compiled, products))
    }

    /// The engine with so many empty sequences in it.
    pub(crate) fn start(&self, sequences: usize) -> Result<Box<dyn Executor>, Diagnostic> {
        Ok(match &self.compiled {
            Some(compiled) => Box::new(Jit::new(Arc::clone(compiled), sequences)?),
            None => Box::new(Interpreter::new(Arc::clone(&self.graph), self.options.count, sequences)),
        })
    }
}
