//! The plan as one function: every step a call, to machine code or to the trampoline to the kernels, in order.
//!
//! Functions are made once for each distinct work, and so are the calls of a layer, in a loop over layers that are alike; what
//! differs between layers comes from the step's record. The first kernel that reports a fault ends the pass with its step.

use crate::jit::code_map::{CodeMap, number, without_numbers};
use crate::jit::emit::Emitter;
use crate::jit::frame::{Frame, StepRecord};
use crate::jit::loop_call::tile_inputs;
use crate::jit::memory::{MachineCode, trampoline};
use crate::jit::repetition::Repetition;
use crate::plan::{Plan, RowSet, Step};
use crate::step::{StepForm, StepKind};
use cranelift_codegen::Context;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, FuncRef, InstBuilder, MemFlagsData, Signature, SourceLoc, Value, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module};
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::mem::offset_of;
use std::ops::Range;

/// Address space for code: 16 MiB keep every call within reach of a near one. A plan of GPT-2 takes some 50 KiB.
const RESERVED: usize = 16 << 20;

/// The function that runs the plan.
pub const FORWARD: &str = "forward";

/// A compiled function for people to read.
#[derive(Clone, Debug)]
pub struct FunctionListing {
    /// As `Program::explain` has it.
    pub name: String,
    /// Cranelift's IR as it was made, before it is optimised.
    pub clif: String,
    /// The machine's instructions.
    pub asm: String,
    /// Its bytes, and which step and which instruction of Cranelift's IR they come from.
    pub map: CodeMap,
}

/// What code depends on beside the plan.
#[derive(Clone, Copy, Debug)]
pub struct CodeOptions {
    /// Whether spikes are counted.
    pub count: bool,
    /// As `StepKind::form` has it.
    pub wide: bool,
    /// Whether a kernel adds up the rows of weights in a loop, or machine code does.
    pub rows_by_kernel: bool,
}

/// Compiles a plan.
pub fn compile(plan: &Plan, options: CodeOptions) -> Result<MachineCode, Diagnostic> {
    Ok(build(plan, options, None)?.0)
}

/// The functions of a plan, the schedule last; they are compiled once more for it.
pub fn listings(plan: &Plan, options: CodeOptions) -> Result<Vec<FunctionListing>, Diagnostic> {
    Ok(build(plan, options, Some(Vec::new()))?.1.unwrap_or_default())
}

type Listings = Option<Vec<FunctionListing>>;

fn build(plan: &Plan, options: CodeOptions, listings: Listings) -> Result<(MachineCode, Listings), Diagnostic> {
    let mut compiler = Compiler::new(listings)?;
    let mut functions: HashMap<String, FuncId> = HashMap::new();
    let (mut of_steps, mut loops) = (Vec::new(), Vec::new());
    for step in &plan.steps {
        let form = step.kind.form(options.wide);
        let function = match form {
            StepForm::Kernel => None,
            StepForm::Code | StepForm::Loop => Some(match functions.entry(step.kind.function()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(entry) => *entry.insert(compiler.function(&*step.kind, options)?),
            }),
        };
        of_steps.push(function.filter(|_| form == StepForm::Code));
        loops.push(function.zip(step.kind.neuron_loop()));
    }
    let forward = compiler.forward(plan, &of_steps)?;
    for listing in compiler.listings.iter_mut().flatten().filter(|listing| listing.name != FORWARD) {
        let runs =
            |step: &Step| step.kind.form(options.wide) != StepForm::Kernel && step.kind.function() == listing.name;
        let steps = (0..).zip(&plan.steps).filter(|(_, step)| runs(step)).map(|(i, _)| i);
        listing.map.steps = vec![steps.collect()];
    }
    compiler.module.finalize_definitions().map_err(failed)?;
    Ok((MachineCode::new(compiler.module, forward, &loops, options.rows_by_kernel), compiler.listings))
}

struct Compiler {
    module: JITModule,
    context: Context,
    builder: FunctionBuilderContext,
    trampoline: FuncId,
    /// The kernel that loops call.
    tile_inputs: FuncId,
    x86: bool,
    /// What was compiled, where somebody wants to read it.
    listings: Listings,
}

impl Compiler {
    fn new(listings: Listings) -> Result<Self, Diagnostic> {
        let mut flags = settings::builder();
        // Checking every function costs 70 % more time; tests pay it.
        let verify = if cfg!(any(test, debug_assertions)) { "true" } else { "false" };
        let wanted = [
            ("opt_level", "speed"),
            ("is_pic", "false"),
            ("use_colocated_libcalls", "false"),
            ("unwind_info", "false"),
            ("enable_verifier", verify),
        ];
        for (name, value) in wanted {
            flags.set(name, value).map_err(failed)?;
        }
        let isa = cranelift_native::builder().map_err(failed)?;
        let isa = isa.finish(settings::Flags::new(flags)).map_err(failed)?;
        let x86 = isa.triple().architecture == target_lexicon::Architecture::X86_64;
        let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        builder.memory_provider(Box::new(ArenaMemoryProvider::new_with_size(RESERVED).map_err(failed)?));
        builder.symbol("trampoline", trampoline as *const u8);
        builder.symbol("tile_inputs", tile_inputs as *const u8);
        let mut module = JITModule::new(builder);
        let mut signature = step_signature(&module);
        let tile_inputs = module.declare_function("tile_inputs", Linkage::Import, &signature).map_err(failed)?;
        signature.returns.push(AbiParam::new(types::I32));
        let trampoline = module.declare_function("trampoline", Linkage::Import, &signature).map_err(failed)?;
        let context = module.make_context();
        Ok(Self { module, context, builder: FunctionBuilderContext::new(), trampoline, tile_inputs, x86, listings })
    }

    /// The function that does a step, on rows and records that it is told.
    fn function(&mut self, kind: &dyn StepKind, options: CodeOptions) -> Result<FuncId, Diagnostic> {
        self.context.func.signature = step_signature(&self.module);
        let name = kind.function();
        let id = self.module.declare_function(&name, Linkage::Local, &self.context.func.signature).map_err(failed)?;
        let kernel =
            options.rows_by_kernel.then(|| self.module.declare_func_in_func(self.tile_inputs, &mut self.context.func));
        let mut e = Emitter::new(FunctionBuilder::new(&mut self.context.func, &mut self.builder), self.x86, kernel);
        kind.emit(&mut e, options.count);
        e.finish(self.module.target_config());
        self.define(id, &name, &|_| Vec::new())?;
        Ok(id)
    }

    /// `forward(frame, records)`: all steps in order, each a function of `functions` or a kernel; 0, or `step << 8 | fault` of the
    /// first fault.
    fn forward(&mut self, plan: &Plan, functions: &[Option<FuncId>]) -> Result<FuncId, Diagnostic> {
        let mut signature = self.module.make_signature();
        signature.params.extend([AbiParam::new(types::I64); 2]);
        signature.returns.push(AbiParam::new(types::I64));
        self.context.func.signature = signature;
        let id =
            self.module.declare_function(FORWARD, Linkage::Export, &self.context.func.signature).map_err(failed)?;
        let mut b = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let (frame, records) = (b.block_params(entry)[0], b.block_params(entry)[1]);
        let mut field = |offset: usize| b.ins().load(types::I64, MemFlagsData::trusted(), frame, offset as i32);
        let (rows, first, wanted) =
            (field(offset_of!(Frame, rows)), field(offset_of!(Frame, first)), field(offset_of!(Frame, wanted)));
        let none = b.ins().iconst(types::I64, 0);
        let same: Vec<_> = plan.steps.iter().zip(functions).map(|(step, function)| (*function, step.rows)).collect();
        let layers = Repetition::longest(&same);
        let mut callees: HashMap<FuncId, FuncRef> = HashMap::new();
        let listed = self.listings.is_some();
        // Steps of a range, whose records and numbers count from those of a step that is told.
        let mut steps = |b: &mut FunctionBuilder<'_>, range: Range<usize>, records: Value, number: Value| {
            for (i, &(function, of)) in same[range.clone()].iter().enumerate() {
                if listed {
                    b.set_srcloc(SourceLoc::new((range.start + i) as u32));
                }
                let callee = function.unwrap_or(self.trampoline);
                let callee = *callees.entry(callee).or_insert_with(|| self.module.declare_func_in_func(callee, b.func));
                let record = b.ins().iadd_imm_s(records, (i * size_of::<StepRecord>()) as i64);
                let (first, rows) = match of {
                    RowSet::All => (none, rows),
                    RowSet::Wanted => (first, wanted),
                };
                let call = b.ins().call(callee, &[frame, record, first, rows]);
                if function.is_none() {
                    let fault = b.inst_results(call)[0];
                    return_if_fault(b, number, i, fault);
                }
            }
            b.set_srcloc(SourceLoc::default());
        };
        let start = layers.map_or(same.len(), |layers| layers.start);
        steps(&mut b, 0..start, records, none);
        if let Some(layers) = layers {
            let layer = b.create_block();
            let (record, number) = (b.append_block_param(layer, types::I64), b.append_block_param(layer, types::I64));
            let at = |b: &mut FunctionBuilder<'_>, step: usize| {
                let records = b.ins().iadd_imm_s(records, (step * size_of::<StepRecord>()) as i64);
                (records, b.ins().iconst(types::I64, step as i64))
            };
            let (first_record, first_number) = at(&mut b, start);
            b.ins().jump(layer, &[first_record.into(), first_number.into()]);
            b.switch_to_block(layer);
            steps(&mut b, layers.body(), record, number);
            let record = b.ins().iadd_imm_s(record, (layers.period * size_of::<StepRecord>()) as i64);
            let number = b.ins().iadd_imm_s(number, layers.period as i64);
            let is_left = b.ins().icmp_imm_u(IntCC::UnsignedLessThan, number, layers.end() as i64);
            let rest = b.create_block();
            b.ins().brif(is_left, layer, &[record.into(), number.into()], rest, &[]);
            b.switch_to_block(rest);
            let (record, number) = at(&mut b, layers.end());
            steps(&mut b, layers.end()..same.len(), record, number);
        }
        b.ins().return_(&[none]);
        b.seal_all_blocks();
        b.finalize(self.module.target_config());
        let body = layers.map_or(0..0, Repetition::body);
        self.define(id, FORWARD, &|step| match layers {
            Some(layers) if body.contains(&step) => {
                (step..layers.end()).step_by(layers.period).map(|step| step as u32).collect()
            }
            _ => vec![step as u32],
        })?;
        Ok(id)
    }

    /// Compiles the function that was made. `steps`: of the step that is an instruction's location, all that it runs.
    fn define(&mut self, id: FuncId, name: &str, steps: &dyn Fn(usize) -> Vec<u32>) -> Result<(), Diagnostic> {
        let numbered = self.listings.is_some().then(|| {
            let of = steps_of(&number(&mut self.context.func), steps);
            (of, without_numbers(&self.context.func.display().to_string()))
        });
        self.context.set_disasm(numbered.is_some());
        self.module.define_function(id, &mut self.context).map_err(|error| failed(format!("{error:?}")))?;
        if let (Some(listings), Some((of, (clif, lines))), Some(code)) =
            (&mut self.listings, numbered, self.context.compiled_code())
        {
            let asm = code.vcode.clone().unwrap_or_default();
            let map = CodeMap::new(of, lines, code, &self.context.func, &self.module);
            listings.push(FunctionListing { name: name.to_string(), clif, asm, map });
        }
        self.module.clear_context(&mut self.context);
        Ok(())
    }
}

/// Sets of steps, and by instruction which of them is its own. `locations` has the step of every instruction.
fn steps_of(locations: &[Option<u32>], steps: &dyn Fn(usize) -> Vec<u32>) -> (Vec<Vec<u32>>, Vec<u32>) {
    let mut sets = vec![Vec::new()];
    let mut known: HashMap<u32, u32> = HashMap::new();
    let set = |location: &Option<u32>| {
        location.map_or(0, |step| {
            *known.entry(step).or_insert_with(|| {
                sets.push(steps(step as usize));
                sets.len() as u32 - 1
            })
        })
    };
    let own = locations.iter().map(set).collect();
    (sets, own)
}

/// `(frame, record, first row, rows)`; of a loop `(frame, -, first tile, tiles)`, of the kernel that it calls `(frame, panel,
/// first plane, planes)`.
fn step_signature(module: &JITModule) -> Signature {
    let mut signature = module.make_signature();
    signature.params.extend([AbiParam::new(types::I64); 4]);
    signature
}

/// Returns what is said of a fault of step `number + i`.
fn return_if_fault(b: &mut FunctionBuilder<'_>, number: Value, i: usize, fault: Value) {
    let (bad, good) = (b.create_block(), b.create_block());
    b.ins().brif(fault, bad, &[], good, &[]);
    b.set_cold_block(bad);
    b.switch_to_block(bad);
    let fault = b.ins().uextend(types::I64, fault);
    let step = b.ins().iadd_imm_s(number, i as i64);
    let step = b.ins().ishl_imm_u(step, 8);
    let code = b.ins().bor(step, fault);
    b.ins().return_(&[code]);
    b.switch_to_block(good);
}

fn failed(error: impl Display) -> Diagnostic {
    Diagnostic::new("", format!("machine code could not be made: {error}")).code(ErrorCode::RUN)
}
