//! Executable memory, the records that machine code reads, and the one trampoline through which it calls Rust.
//!
//! All unsafe code of the JIT is here. Law: machine code touches the arena, the tallies and the scratch of the frame it is
//! given, and reads the constants that records name; every address is within bounds because the plan sized them, and the
//! tests of `jit` run every function on odd widths against the oracle. Pages are writable while code is made and
//! executable afterwards, never both; they are freed when the program is dropped.
#![allow(unsafe_code)]

use super::host;
use super::{CachedSequence, Compiled};
use crate::meter::MatmulCounts;
use crate::plan::{Buffer, Step};
use crate::session::SequenceSpan;
use cranelift_jit::JITModule;
use cranelift_module::FuncId;
use memmap2::MmapMut;
use snnc_ir::events::Events;
use std::fmt;
use std::sync::Mutex;

/// What a step's machine code or kernel is told beside the frame: offsets into the arena, addresses of constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StepRecord {
    pub out: u64,
    pub inputs: [u64; 2],
    pub constants: [u64; 4],
    /// A neuron's curve table.
    pub table: u64,
    /// Offset of the step's tally.
    pub tally: u64,
    pub step: u64,
}

/// What machine code counts for one step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTally {
    /// Spikes that a neuron layer emitted.
    pub spikes: u64,
    /// Neurons that fired at least once.
    pub active: u64,
    /// Neurons that fired at every timestep.
    pub saturated: u64,
    /// Spikes that a synapse took.
    pub taken: u64,
}

/// One pass over the plan, as machine code sees it.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    pub arena: *mut u8,
    pub tallies: *mut StepTally,
    /// Two lists of addresses of weight rows, of spikes +1 and of spikes -1, then a synapse's sums.
    pub scratch: *mut u64,
    /// Rows of this chunk, and which of them are wanted of the outputs.
    pub rows: u64,
    pub first: u64,
    pub wanted: u64,
    run: *mut ForwardPass<'static>,
}

/// One pass over the plan, as kernels see it.
#[derive(Debug)]
pub struct ForwardPass<'a> {
    pub compiled: &'a Compiled,
    pub sequences: &'a mut [CachedSequence],
    /// Whose the rows are, in their order.
    pub spans: &'a [SequenceSpan<'a>],
    /// By step.
    pub events: &'a mut [Events],
    /// By step: spikes that a kernel took.
    pub taken: &'a mut [u64],
    /// By step: what products did.
    pub products: &'a mut [MatmulCounts],
}

type Forward = extern "C" fn(*mut Frame, *const StepRecord) -> i64;

/// Finished machine code. `forward` is valid as long as the module's memory is, which is as long as `self` is.
pub struct MachineCode {
    module: Mutex<Option<JITModule>>,
    forward: Forward,
}

impl fmt::Debug for MachineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineCode").finish_non_exhaustive()
    }
}

impl MachineCode {
    /// Takes a finalized module whose function `forward` has the signature `(i64, i64) -> i64` in the C convention.
    pub fn new(module: JITModule, forward: FuncId) -> Self {
        let address = module.get_finalized_function(forward);
        // SAFETY: `schedule::declare` gives this function exactly the signature of `Forward`, in the platform's C
        // convention; a mismatch would break every test that runs a program.
        let forward = unsafe { std::mem::transmute::<*const u8, Forward>(address) };
        Self { module: Mutex::new(Some(module)), forward }
    }

    /// Runs all steps; 0, or what `Fault::code` made of the first fault with its step.
    pub fn run(
        &self,
        arena: &mut Arena,
        tallies: &mut [StepTally],
        scratch: &mut [u64],
        rows: [usize; 3],
        run: ForwardPass<'_>,
    ) -> i64 {
        let compiled = run.compiled;
        assert!(arena.len() >= compiled.plan.arena_bytes, "the arena is the plan's");
        assert!(tallies.len() == compiled.plan.steps.len(), "a tally for every step");
        assert!(scratch.len() >= compiled.scratch_len, "scratch for the widest synapse");
        let [rows, first, wanted] = rows;
        assert!(rows <= compiled.plan.chunk && first + wanted <= rows, "rows within the chunk");
        let mut run = run;
        let mut frame = Frame {
            arena: arena.bytes_mut().as_mut_ptr(),
            tallies: tallies.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
            rows: rows as u64,
            first: first as u64,
            wanted: wanted as u64,
            run: (&raw mut run).cast(),
        };
        (self.forward)(&mut frame, compiled.records.as_ptr())
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
    // other reference to either, or to the `ForwardPass` behind the frame, is in use while machine code runs. Any test of a program
    // with a kernel would notice.
    let (frame, record, run) = unsafe {
        let frame = &*frame;
        (frame, &*record, &mut *frame.run)
    };
    let step = &run.compiled.plan.steps[record.step as usize];
    let done = Operands::of(frame, run.compiled, step, first as usize, rows as usize)
        .ok_or(host::Fault::Misfit)
        .and_then(|operands| host::run(run, record.step as usize, operands, first as usize));
    done.map_or_else(host::Fault::code, |()| 0)
}

/// The rows of the arena that a kernel reads and writes.
#[derive(Debug)]
pub struct Operands<'a> {
    pub inputs: [&'a [u8]; 3],
    pub out: &'a mut [u8],
}

impl<'a> Operands<'a> {
    /// `None` if rows lie outside the arena or what is written overlaps what is read.
    fn of(frame: &'a Frame, compiled: &Compiled, step: &Step, first: usize, rows: usize) -> Option<Self> {
        let range = |buffer: &Buffer| {
            let at = buffer.offset + first * buffer.row_bytes;
            let range = at..at + rows * buffer.row_bytes;
            (range.end <= compiled.plan.arena_bytes).then_some(range)
        };
        let buffers = &compiled.plan.buffers;
        let out = range(&buffers[step.out])?;
        let mut inputs: [&[u8]; 3] = [&[]; 3];
        for (slice, &input) in inputs.iter_mut().zip(&step.inputs) {
            let input = range(&buffers[input])?;
            if input.start < out.end && out.start < input.end {
                return None;
            }
            // SAFETY: the range is within the arena, which the frame's machine owns, and nothing writes there meanwhile:
            // the one range being written is disjoint, as just checked.
            *slice = unsafe { std::slice::from_raw_parts(frame.arena.add(input.start), input.len()) };
        }
        // SAFETY: as above; it is the only mutable slice, and disjoint from the others.
        let out = unsafe { std::slice::from_raw_parts_mut(frame.arena.add(out.start), out.len()) };
        Some(Self { inputs, out })
    }
}

/// Numbers without padding, for which any bytes are a value.
pub trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for i32 {}
impl Plain for i16 {}
impl Plain for i8 {}

/// The bytes as numbers; `None` if they are not aligned or not a whole number of them.
pub fn cast<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    let fits = bytes.as_ptr().cast::<T>().is_aligned() && bytes.len().is_multiple_of(size_of::<T>());
    // SAFETY: aligned and of the right length, as just checked; any bytes are a `Plain`.
    fits.then(|| unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) })
}

/// The bytes as numbers to write; `None` if they are not aligned or not a whole number of them.
pub fn cast_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    let fits = bytes.as_ptr().cast::<T>().is_aligned() && bytes.len().is_multiple_of(size_of::<T>());
    // SAFETY: as in `cast`, and the slice is borrowed mutably.
    fits.then(|| unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) })
}

/// A machine's arena: zeroed, aligned to pages, and not touched before it is used.
pub struct Arena {
    map: MmapMut,
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena of {} bytes", self.len())
    }
}

impl Arena {
    /// Panics where there is not so much memory, as any allocation does.
    pub fn new(bytes: usize) -> Self {
        let map = MmapMut::map_anon(bytes.max(1));
        Self { map: map.unwrap_or_else(|error| panic!("an arena of {bytes} bytes is not to be had: {error}")) }
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
