//! Executable memory, the arena, and the one trampoline through which machine code calls Rust.
//!
//! All unsafe code of the JIT is here. Law: machine code touches the arena, the tallies and the scratch of the frame it is
//! given, and reads the constants that records name; every address is within bounds because the plan sized them, and the
//! tests of `jit` run every function on odd widths against the oracle. Pages are writable while code is made and
//! executable afterwards, never both; they are freed when the program is dropped.
#![allow(unsafe_code)]

use crate::jit::emit::GROUP;
use crate::jit::frame::{Frame, LoopFrame, StepRecord, StepTally};
use crate::jit::neuron_loop::{BLOCK, Flow, NeuronLoop};
use crate::jit::pass::{ForwardPass, Operands, run_step};
use crate::kernels::{EventList, Kernels, Panels, SpikeCount};
use crate::layout::plane_bytes;
use crate::plan::{Plan, Step, ValueBuffer};
use crate::pool::Pool;
use crate::step::Fault;
use cranelift_jit::JITModule;
use cranelift_module::FuncId;
use memmap2::MmapMut;
use snnc_ir::tensor::PANEL;
use snnc_ir::{Diagnostic, ErrorCode};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, PoisonError};

type Forward = extern "C" fn(*mut Frame, *const StepRecord) -> i64;
type LoopFn = extern "C" fn(*mut LoopFrame, u64, u64, u64);

/// Finished machine code. Its functions are valid as long as the module's memory is, which is as long as `self` is.
pub struct MachineCode {
    module: Mutex<Option<JITModule>>,
    forward: Forward,
    /// By step: the loop of a layer of time-stepped neurons.
    loops: Vec<Option<LoopFn>>,
}

impl fmt::Debug for MachineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineCode").finish_non_exhaustive()
    }
}

impl MachineCode {
    /// Takes a finalized module whose function `forward` has the signature `(i64, i64) -> i64` in the C convention, and the loops
    /// of its steps, `(i64, i64, i64, i64)`.
    pub fn new(module: JITModule, forward: FuncId, loops: &[Option<FuncId>]) -> Self {
        let address = module.get_finalized_function(forward);
        // SAFETY: `schedule` gives this function exactly the signature of `Forward`, in the platform's C
        // convention; a mismatch would break every test that runs a program.
        let forward = unsafe { std::mem::transmute::<*const u8, Forward>(address) };
        let function = |id: FuncId| {
            // SAFETY: as above, with the signature of `LoopFn`.
            unsafe { std::mem::transmute::<*const u8, LoopFn>(module.get_finalized_function(id)) }
        };
        let loops = loops.iter().map(|id| id.map(function)).collect();
        Self { module: Mutex::new(Some(module)), forward, loops }
    }

    /// The loop of a step, if it has one.
    pub fn loop_of(&self, step: usize) -> Option<LoopCode<'_>> {
        self.loops[step].map(|function| LoopCode { function, code: PhantomData })
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

/// A layer's loop, which lives as long as its code does.
#[derive(Clone, Copy, Debug)]
pub struct LoopCode<'a> {
    function: LoopFn,
    code: PhantomData<&'a MachineCode>,
}

/// What flows into the neurons of a loop.
#[derive(Clone, Copy, Debug)]
pub enum LoopSource<'a> {
    /// Rows of numbers, padded to whole groups.
    Rows(&'a [u8]),
    /// The events of all planes, and where each list ends behind a 0; a kernel adds rows up, or machine code does.
    Events { list: &'a EventList, ends: &'a [usize], weights: Panels<'a>, kernels: Option<Kernels> },
}

/// Where the threads of one call write, each the channels of its own tiles.
#[derive(Clone, Copy)]
struct SharedTrains(*mut i8);

// SAFETY: tiles write disjoint bytes of the trains, and `LoopCall::run` gives every tile to one thread.
unsafe impl Sync for SharedTrains {}

impl SharedTrains {
    fn start(&self) -> *mut i8 {
        self.0
    }
}

/// One call of a layer's loop on some tokens.
#[derive(Debug)]
pub struct LoopCall<'a> {
    pub code: LoopCode<'a>,
    pub shape: NeuronLoop,
    pub source: LoopSource<'a>,
    /// `[rows of constants, padded width]`
    pub constants: &'a [f32],
    /// -1 for a channel, 0 for what fills up the last group, and a vector behind it.
    pub lanes: &'a [i8],
    /// Trains of all tokens.
    pub out: &'a mut [i8],
    pub tokens: usize,
}

/// Neurons times timesteps that are worth a second thread.
const SHARED: usize = 1 << 13;

impl LoopCall<'_> {
    /// Runs all tiles of all tokens, shared among threads by tiles; what fired.
    pub fn run(self, pool: &Pool) -> SpikeCount {
        let (tiles, steps) = (self.shape.tiles(), usize::from(self.shape.steps));
        let out = SharedTrains(self.out.as_mut_ptr());
        if pool.threads() == 1 || tiles == 1 || self.tokens * steps * self.shape.width < SHARED {
            return self.tiles(0..tiles, out);
        }
        // Two parts per thread at least, so that no thread is left with half of the work of all.
        let part = (tiles / (4 * pool.threads())).max(1);
        let fired = Mutex::new(SpikeCount::default());
        pool.run(tiles.div_ceil(part), |i| {
            let some = self.tiles(i * part..tiles.min((i + 1) * part), out);
            *fired.lock().unwrap_or_else(PoisonError::into_inner) += some;
        });
        fired.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs some tiles, which no other thread runs, of all tokens.
    fn tiles(&self, tiles: Range<usize>, out: SharedTrains) -> SpikeCount {
        let Self { shape, tokens, .. } = *self;
        let (steps, padded) = (usize::from(shape.steps), shape.padded());
        assert!(tiles.end <= shape.tiles(), "tiles of the layer");
        assert_eq!(self.constants.len(), shape.constants() * padded, "a number per constant and channel");
        assert_eq!(self.lanes.len(), padded + GROUP, "a lane per channel, and a vector behind");
        assert_eq!(self.out.len(), tokens * steps * plane_bytes(shape.width), "a plane per token and timestep");
        let mut currents = vec![0i32; BLOCK * PANEL];
        let mut states = vec![0u8; shape.state_bytes()];
        let mut frame = LoopFrame {
            rows: ptr::null(),
            channels: ptr::null(),
            values: ptr::null(),
            ends: ptr::null(),
            weights: ptr::null(),
            constants: self.constants.as_ptr(),
            lanes: self.lanes.as_ptr(),
            currents: currents.as_mut_ptr(),
            states: states.as_mut_ptr(),
            out: out.start(),
            tokens: tokens as u64,
            counts: [0; 3],
            work: (&raw const self.source).cast(),
        };
        match (self.source, shape.flow) {
            (LoopSource::Rows(rows), Flow::Even(elem)) => {
                assert_eq!(rows.len(), tokens * padded * elem.bytes(), "a row per token");
                frame.rows = rows.as_ptr();
            }
            (LoopSource::Rows(rows), Flow::Currents(elem)) => {
                assert_eq!(rows.len(), tokens * steps * padded * elem.bytes(), "a row per token and timestep");
                frame.rows = rows.as_ptr();
            }
            (LoopSource::Events { list, ends, weights, kernels }, Flow::Synapse { inputs }) => {
                assert!(weights.inputs() == inputs && weights.outputs() == shape.width, "weights of the layer");
                assert_eq!(list.planes(), tokens * steps, "a list per token and timestep");
                assert!(kernels.is_some() || ends.len() == list.planes() + 1, "an end for each list");
                let (channels, values, _) = list.parts();
                frame.channels = channels.as_ptr();
                frame.values = values.as_ptr();
                frame.ends = ends.as_ptr();
                frame.weights = weights.panel(0).as_ptr();
            }
            (LoopSource::Rows(_) | LoopSource::Events { .. }, _) => panic!("the loop takes something else in"),
        }
        (self.code.function)(&mut frame, 0, tiles.start as u64, tiles.len() as u64);
        let [spikes, active, saturated] = frame.counts;
        SpikeCount { spikes, active, saturated }
    }
}

/// The kernel that a loop calls for a tile: the currents of `count` planes from `plane` on.
pub extern "C" fn currents(frame: *const LoopFrame, panel: u64, plane: u64, count: u64) {
    // SAFETY: machine code passes on the frame that `LoopCall::run` gave it, whose `work` is the call's source; both live while it
    // runs. Nothing else refers to the currents then, and they have room for `BLOCK` timesteps. Any test of a program with
    // such neurons would notice.
    let (source, currents) = unsafe {
        let frame = &*frame;
        let currents = std::slice::from_raw_parts_mut(frame.currents, BLOCK * PANEL);
        (*frame.work.cast::<LoopSource<'_>>(), currents)
    };
    let LoopSource::Events { list, weights, kernels: Some(kernels), .. } = source else { return };
    let (panel, plane, count) = (panel as usize, plane as usize, count as usize);
    // The first token's rows come from memory.
    kernels.currents(list, plane..plane + count, weights, panel, plane < BLOCK, &mut currents[..count * PANEL]);
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
    let mut inputs: [&[u8]; 3] = [&[]; 3];
    for (slice, &input) in inputs.iter_mut().zip(&step.inputs) {
        let input = range(&plan.buffers[input])?;
        if input.start < out.end && out.start < input.end {
            return None;
        }
        // SAFETY: the range is within the arena, which the frame's engine owns, and nothing writes there meanwhile: the one
        // range being written is disjoint, as just checked. Any test of a program with a kernel would notice.
        *slice = unsafe { std::slice::from_raw_parts(frame.arena.add(input.start), input.len()) };
    }
    // SAFETY: as above; it is the only mutable slice, and disjoint from the others.
    let out = unsafe { std::slice::from_raw_parts_mut(frame.arena.add(out.start), out.len()) };
    Some(Operands { inputs, out })
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
