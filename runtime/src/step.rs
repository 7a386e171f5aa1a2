//! What every kind of step offers: how it is named, what it runs, what it counts. Each kind is one file in `steps`.
//!
//! A step is done by a Rust kernel (`run`, or `attend` where it keeps a state) or by machine code (`emit`). A method that a
//! kind does not have is one that the engine never calls for it.

use crate::jit::emit::Emitter;
use crate::jit::loop_call::LoopCode;
use crate::jit::neuron_loop::NeuronLoop;
use crate::kernel_costs::KernelCosts;
use crate::kernels::{Kernels, Panels};
use crate::kv_cache::CacheEntry;
use crate::meter::{Executed, MatmulCounts};
use crate::pool::Pool;
use bytemuck::Pod;
use snnc_ir::events::Events;
use snnc_ir::{Curve, Graph, Value, WeightId};
use std::collections::BTreeMap;
use std::fmt;

/// Why a kernel stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotFinite,
    /// Lengths or types do not fit: an error of the plan.
    Misfit,
}

impl Fault {
    pub fn code(self) -> i32 {
        match self {
            Fault::NotFinite => 1,
            Fault::Misfit => 2,
        }
    }

    pub fn from_code(code: i32) -> Self {
        if code == 1 { Fault::NotFinite } else { Fault::Misfit }
    }
}

/// What runs a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepForm {
    /// A Rust kernel.
    Kernel,
    /// Machine code.
    Code,
    /// A Rust kernel that shares work among threads, around a loop over timesteps in machine code.
    Loop,
}

/// What a step does, with all its sizes but the number of rows.
pub trait StepKind: fmt::Debug + Send + Sync {
    /// The name of the kernel, or of the function in machine code: one name per function.
    fn name(&self) -> String;

    /// What runs it. `wide`: kernels have wider vectors than machine code, so they do what both can do.
    fn form(&self, _wide: bool) -> StepForm {
        StepForm::Kernel
    }

    /// The loop in machine code that its kernel has in it.
    fn neuron_loop(&self) -> Option<NeuronLoop> {
        None
    }

    /// The name of its function in machine code: its own, but for a kernel with a loop in it.
    fn function(&self) -> String {
        self.name()
    }

    /// Whether it reads what is kept of a sequence, so that it matters whose a row is.
    fn keeps_state(&self) -> bool {
        false
    }

    /// Whether it reads the levels of operand `i` where that is a spike train. What else takes a train reads its spikes.
    fn reads_levels(&self, _i: usize) -> bool {
        false
    }

    /// Whether it counts the spikes that it emits, so that the product which reads them need not.
    fn counts_spikes(&self) -> bool {
        false
    }

    /// The curve whose table it reads.
    fn curve_table(&self) -> Option<Curve> {
        None
    }

    /// The node of which it checks that numbers are finite: its own, but for one that runs others as well.
    fn checks(&self, node: Value) -> Value {
        node
    }

    /// Words of scratch that its machine code takes.
    fn scratch_words(&self) -> usize {
        0
    }

    /// Its sizes, where it is a product of levels or spikes with a weight.
    fn matmul(&self) -> Option<MatmulSizes> {
        None
    }

    /// What running it on `rows` rows does, given its events and how its products were done.
    fn executed(&self, _rows: usize, _events: &Events, _matmuls: &MatmulCounts) -> Executed {
        Executed::default()
    }

    /// Makes its machine code. `count`: with tallies of spikes.
    fn emit(&self, _e: &mut Emitter<'_>, _count: bool) {
        unreachable!("kernels are not compiled")
    }

    /// Runs its kernel on some rows.
    ///
    /// # Errors
    /// A value that is not finite; operands that do not fit the plan.
    fn run(&self, _call: KernelCall<'_>) -> Result<(), Fault> {
        Err(Fault::Misfit)
    }

    /// Runs its kernel on rows of one sequence, with what is kept of it.
    ///
    /// # Errors
    /// As of `run`.
    fn attend(&self, _call: AttentionCall<'_>) -> Result<Events, Fault> {
        Err(Fault::Misfit)
    }
}

/// Sizes of a product of levels or spikes with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulSizes {
    pub inputs: usize,
    pub outputs: usize,
    pub reads: MatmulInput,
}

/// What such a product reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatmulInput {
    /// Levels; those of more than 8 bits always read all rows of the weight.
    Levels { wide: bool },
    /// Spikes of so many timesteps.
    Spikes { steps: u16 },
}

/// What all steps of a program share.
#[derive(Clone, Copy, Debug)]
pub struct Resources<'a> {
    pub kernels: Kernels,
    pub pool: &'a Pool,
    pub costs: &'a KernelCosts,
    /// Whether spikes are counted.
    pub count: bool,
    /// The table of every curve that neurons have.
    pub tables: &'a CurveTables,
}

/// Tables of curves.
pub type CurveTables = BTreeMap<Curve, Box<[f32]>>;

/// The constants of a step.
#[derive(Clone, Copy, Debug)]
pub struct Constants<'a> {
    pub graph: &'a Graph,
    pub ids: &'a [WeightId],
}

impl<'a> Constants<'a> {
    pub fn f32(self, i: usize) -> Result<&'a [f32], Fault> {
        let id = self.ids.get(i).ok_or(Fault::Misfit)?;
        self.graph.weight(*id).tensor.as_f32().ok_or(Fault::Misfit)
    }

    pub fn i32(self, i: usize) -> Result<&'a [i32], Fault> {
        let id = self.ids.get(i).ok_or(Fault::Misfit)?;
        self.graph.weight(*id).tensor.as_i32().ok_or(Fault::Misfit)
    }

    pub fn panels(self, i: usize, inputs: usize, outputs: usize) -> Result<Panels<'a>, Fault> {
        let id = self.ids.get(i).ok_or(Fault::Misfit)?;
        let tensor = &self.graph.weight(*id).tensor;
        if tensor.sizes() != [inputs, outputs] {
            return Err(Fault::Misfit);
        }
        if let Some((bytes, sizes)) = tensor.as_groups() {
            return Ok(Panels::of_groups(bytes, sizes));
        }
        Ok(Panels::new(tensor.as_panels().ok_or(Fault::Misfit)?, inputs, outputs))
    }
}

/// One call of a kernel.
#[derive(Debug)]
pub struct KernelCall<'a> {
    pub resources: Resources<'a>,
    pub constants: Constants<'a>,
    /// Its loop in machine code, if it has one.
    pub code: Option<&'a LoopCode>,
    /// Rows of operands as they lie in memory.
    pub inputs: [&'a [u8]; MOST_INPUTS],
    pub out: &'a mut [u8],
    /// Rows of its second result, if it has one.
    pub also: &'a mut [u8],
    /// Whether the neurons that emit the levels it reads have counted their spikes.
    pub counted: bool,
    pub events: &'a mut Events,
    /// Spikes that it took.
    pub taken: &'a mut u64,
    pub matmuls: &'a mut MatmulCounts,
}

/// Operands that are rows, of a step: attention whose tokens have thresholds takes the most.
pub const MOST_INPUTS: usize = 6;

/// One call of attention, on rows of one sequence.
#[derive(Debug)]
pub struct AttentionCall<'a> {
    pub resources: Resources<'a>,
    pub constants: Constants<'a>,
    /// Its loop in machine code, if it has one.
    pub code: Option<&'a LoopCode>,
    pub entry: &'a mut CacheEntry,
    /// Tokens before the first row.
    pub past: usize,
    /// Rows of queries, keys and values as they lie in memory; of their thresholds, where tokens have their own.
    pub rows: [&'a [u8]; MOST_INPUTS],
    /// Weights that are read soon.
    pub soon: &'a [i8],
    pub out: &'a mut [u8],
}

/// Keys that the queries of `tokens` tokens meet after `past` others.
pub fn keys_met(past: usize, tokens: usize) -> u64 {
    (past + 1..=past + tokens).map(|n| n as u64).sum()
}

/// The bytes as numbers.
pub fn numbers<T: Pod>(bytes: &[u8]) -> Result<&[T], Fault> {
    bytemuck::try_cast_slice(bytes).map_err(|_| Fault::Misfit)
}

/// The bytes as numbers to write.
pub fn numbers_mut<T: Pod>(bytes: &mut [u8]) -> Result<&mut [T], Fault> {
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| Fault::Misfit)
}

/// So many levels, however they are stored, in 32 bits.
pub fn levels(bytes: &[u8], count: usize) -> Result<Vec<i32>, Fault> {
    Ok(match bytes.len().checked_div(count) {
        Some(1) => numbers::<i8>(bytes)?.iter().map(|&x| i32::from(x)).collect(),
        Some(2) => numbers::<i16>(bytes)?.iter().map(|&x| i32::from(x)).collect(),
        _ => numbers::<i32>(bytes)?.to_vec(),
    })
}

pub fn check_finite(yes: bool) -> Result<(), Fault> {
    if yes { Ok(()) } else { Err(Fault::NotFinite) }
}

/// Whether every id was inside the table.
pub fn check_known(yes: bool) -> Result<(), Fault> {
    if yes { Ok(()) } else { Err(Fault::Misfit) }
}
