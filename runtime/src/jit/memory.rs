//! Executable memory, the arena, and the one trampoline through which machine code calls Rust.
//!
//! All unsafe code of the JIT is here and in `loop_call`. Law: machine code touches the arena, the tallies and the scratch of the frame it is
//! given, and reads the constants that records name; every address is within bounds because the plan sized them, and the
//! tests of `jit` run every function on odd widths against the oracle. Pages are writable while code is made and
//! executable afterwards, never both; they are freed when the program is dropped.
#![allow(unsafe_code)]

use crate::jit::frame::{Frame, StepRecord, StepTally};
use crate::jit::loop_call::LoopCode;
use crate::jit::neuron_loop::NeuronLoop;
use crate::jit::pass::{ForwardPass, Operands, run_step};
use crate::plan::{Plan, Step, ValueBuffer};
use crate::step::{Fault, MOST_INPUTS};
use cranelift_jit::JITModule;
use cranelift_module::FuncId;
use memmap2::MmapMut;
use snnc_ir::{Diagnostic, ErrorCode};
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;

type Forward = extern "C" fn(*mut Frame, *const StepRecord) -> i64;

/// Finished machine code. Its functions are valid as long as the module's memory is, which is as long as `self` is.
pub struct MachineCode {
    module: Mutex<Option<JITModule>>,
    forward: Forward,
    /// By step: the loop of a layer of time-stepped neurons.
    loops: Vec<Option<LoopCode>>,
}

impl fmt::Debug for MachineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineCode").finish_non_exhaustive()
    }
}

impl MachineCode {
    /// Takes a finalized module whose function `forward` has the signature `(i64, i64) -> i64` in the C convention, and the loops
    /// of its steps, `(i64, i64, i64, i64)`, each with its shape; `by_kernel`: they call a kernel that adds rows up.
    pub fn new(module: JITModule, forward: FuncId, loops: &[Option<(FuncId, NeuronLoop)>], by_kernel: bool) -> Self {
        let address = module.get_finalized_function(forward);
        // SAFETY: `schedule` gives this function exactly the signature of `Forward`, in the platform's C
        // convention; a mismatch would break every test that runs a program.
        let forward = unsafe { std::mem::transmute::<*const u8, Forward>(address) };
        // SAFETY: as above, with the signature of a loop. They are lent only, so that none outlives the module.
        let code = |(id, shape): (FuncId, NeuronLoop)| unsafe {
            LoopCode::new(module.get_finalized_function(id), shape, by_kernel)
        };
        let loops = loops.iter().map(|id| id.map(code)).collect();
        Self { module: Mutex::new(Some(module)), forward, loops }
    }

    /// By step: its loop, if it has one.
    pub fn loops(&self) -> &[Option<LoopCode>] {
        &self.loops
    }

    /// Runs all steps; 0, or what `Fault::code` made of the first fault with its step. `scratch` holds what the widest synapse of
    /// the plan needs.
    pub fn run(
        &self,
        arena: &mut Arena,
        tallies: &mut [StepTally],
        scratch: &mut [u64],
        records: &[StepRecord],
        [rows, first, wanted]: [usize; 3],
        mut pass: ForwardPass<'_>,
    ) -> i64 {
        let plan = pass.plan;
        assert!(arena.len() >= plan.arena_bytes, "the arena is the plan's");
        assert!(tallies.len() == plan.steps.len() && records.len() == plan.steps.len(), "one for every step");
        assert!(scratch.len() >= plan.scratch_words(), "scratch for the widest synapse");
        assert!(rows <= plan.chunk && first + wanted <= rows, "rows within the chunk");
        let mut frame = Frame {
            arena: arena.bytes_mut().as_mut_ptr(),
            tallies: tallies.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
            rows: rows as u64,
            first: first as u64,
            wanted: wanted as u64,
            pass: (&raw mut pass).cast(),
        };
        (self.forward)(&mut frame, records.as_ptr())
    }
}

impl Drop for MachineCode {
    fn drop(&mut self) {
        let module = self.module.get_mut().ok().and_then(Option::take);
        if let Some(module) = module {
            // SAFETY: `forward` is called only through `&self`, so nothing runs this code now or later. The test
            // `programs_come_and_go` makes and drops many.
            unsafe { module.free_memory() };
        }
    }
}

/// The trampoline: runs the kernel of the record's step. 0, or a fault's code; it does not unwind, because a panic in a function
/// of the C convention aborts.
pub extern "C" fn trampoline(frame: *mut Frame, record: *const StepRecord, first: u64, rows: u64) -> i32 {
    // SAFETY: machine code passes on the frame and a record that `MachineCode::run` gave it; both live for the whole pass, and no
    // other reference to either, or to the `ForwardPass` behind the frame, is in use while machine code runs. Any test of a
    // program with a kernel would notice.
    let (frame, record, pass) = unsafe {
        let frame = &*frame;
        (frame, &*record, &mut *frame.pass.cast::<ForwardPass<'_>>())
    };
    let (step, first) = (record.step as usize, first as usize);
    let done = operands(frame, pass.plan, &pass.plan.steps[step], first, rows as usize)
        .ok_or(Fault::Misfit)
        .and_then(|operands| run_step(pass, step, operands, first));
    done.map_or_else(Fault::code, |()| 0)
}

/// The rows of the arena that a kernel reads and writes. `None` if they lie outside the arena or what is written overlaps what
/// is read.
fn operands<'a>(frame: &'a Frame, plan: &Plan, step: &Step, first: usize, rows: usize) -> Option<Operands<'a>> {
    let range = |buffer: &ValueBuffer| {
        let at = buffer.offset + first * buffer.row_bytes;
        let range = at..at + rows * buffer.row_bytes;
        (range.end <= plan.arena_bytes).then_some(range)
    };
    let out = range(&plan.buffers[step.out])?;
    let also = step.also.map_or(Some(0..0), |also| range(&plan.buffers[also]))?;
    let apart = |a: &Range<usize>, b: &Range<usize>| a.end <= b.start || b.end <= a.start;
    if !apart(&out, &also) {
        return None;
    }
    let mut inputs: [&[u8]; MOST_INPUTS] = [&[]; MOST_INPUTS];
    for (slice, &input) in inputs.iter_mut().zip(&step.inputs) {
        let input = range(&plan.buffers[input])?;
        if !apart(&input, &out) || !apart(&input, &also) {
            return None;
        }
        // SAFETY: the range is within the arena, which the frame's engine owns, and nothing writes there meanwhile: the ranges
        // being written are disjoint, as just checked. Any test of a program with a kernel would notice.
        *slice = unsafe { std::slice::from_raw_parts(frame.arena.add(input.start), input.len()) };
    }
    // SAFETY: as above; the two mutable slices are disjoint from each other and from the others.
    let (out, also) = unsafe {
        let slice = |range: Range<usize>| std::slice::from_raw_parts_mut(frame.arena.add(range.start), range.len());
        (slice(out), slice(also))
    };
    Some(Operands { inputs, out, also })
}

/// An engine's arena: zeroed, aligned to pages, and not touched before it is used.
pub struct Arena {
    map: MmapMut,
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena of {} bytes", self.len())
    }
}

impl Arena {
    /// # Errors
    /// The system does not give so much memory.
    pub fn new(bytes: usize) -> Result<Self, Diagnostic> {
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|error| {
            Diagnostic::new("", format!("values of a pass: {bytes} bytes of memory are not to be had: {error}"))
                .code(ErrorCode::RUN)
        })?;
        Ok(Self { map })
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}
