//! Calls of a layer's loop: what its machine code reads and writes, checked and shared among threads.
//!
//! Law: a loop touches the rows, events, weights, constants, currents, states and trains of the frame that it is given. Every
//! address is within bounds because `LoopCall` checks lengths by the loop's shape, and the tests of `tests/neurons.rs` run
//! every neuron on odd widths against the oracle.
#![allow(unsafe_code)]

use crate::jit::emit::GROUP;
use crate::jit::frame::LoopFrame;
use crate::jit::neuron_loop::{BLOCK, LoopInput, NeuronLoop};
use crate::kernels::{EventList, Kernels, PanelOf, Panels, SpikeCount};
use crate::layout::plane_bytes;
use crate::pool::Pool;
use snnc_ir::tensor::PANEL;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, PoisonError};

type LoopFn = extern "C" fn(*mut LoopFrame, u64, u64, u64);

/// A layer's loop. It is valid as long as its code is, which lends it.
#[derive(Debug)]
pub struct LoopCode {
    function: LoopFn,
    /// What it was made for.
    shape: NeuronLoop,
    /// Whether it calls the kernel that adds rows up.
    by_kernel: bool,
}

impl LoopCode {
    /// # Safety
    /// The address is of a function with the signature of `LoopFn`, in the platform's C convention, that `NeuronLoop::emit` made
    /// for this shape, with the kernel or without, and it stays there as long as this does.
    pub unsafe fn new(address: *const u8, shape: NeuronLoop, by_kernel: bool) -> Self {
        // SAFETY: the caller's. A mismatch would break every test that runs such neurons.
        let function = unsafe { std::mem::transmute::<*const u8, LoopFn>(address) };
        Self { function, shape, by_kernel }
    }

    pub fn shape(&self) -> NeuronLoop {
        self.shape
    }

    pub fn by_kernel(&self) -> bool {
        self.by_kernel
    }
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
struct SharedTrains {
    start: *mut i8,
    len: usize,
}

// SAFETY: tiles write disjoint bytes of the trains, and `LoopCall::run` gives every tile to one thread. Test:
// `all_neurons_spike_the_same_in_machine_code`, with two threads.
unsafe impl Sync for SharedTrains {}

/// One call of a layer's loop on some tokens.
#[derive(Debug)]
pub struct LoopCall<'a> {
    pub code: &'a LoopCode,
    pub source: LoopSource<'a>,
    /// `[rows of constants, channels of whole tiles]`
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
        let shape = self.code.shape;
        let (tiles, steps) = (shape.tiles(), usize::from(shape.steps));
        // From here on the trains are reached through this alone.
        let out = SharedTrains { start: self.out.as_mut_ptr(), len: self.out.len() };
        let out = &out;
        if pool.threads() == 1 || tiles == 1 || self.tokens * steps * shape.width < SHARED {
            return self.tiles(0..tiles, out);
        }
        // Some parts per thread where there are as many tiles, so that no thread is left with half of the work of all.
        let part = (tiles / (4 * pool.threads())).max(1);
        let fired = Mutex::new(SpikeCount::default());
        pool.run(tiles.div_ceil(part), |i| {
            let some = self.tiles(i * part..tiles.min((i + 1) * part), out);
            *fired.lock().unwrap_or_else(PoisonError::into_inner) += some;
        });
        fired.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs some tiles, which no other thread runs, of all tokens.
    fn tiles(&self, tiles: Range<usize>, out: &SharedTrains) -> SpikeCount {
        let Self { code: LoopCode { function, shape, by_kernel }, tokens, .. } = *self;
        let (steps, padded) = (usize::from(shape.steps), shape.padded());
        assert!(tiles.end <= shape.tiles(), "tiles of the layer");
        assert_eq!(
            self.constants.len(),
            shape.constants() * shape.constants_row(),
            "a number per constant and channel"
        );
        assert_eq!(self.lanes.len(), padded + GROUP, "a lane per channel, and a vector behind");
        assert_eq!(out.len, tokens * steps * plane_bytes(shape.width), "a plane per token and timestep");
        let mut currents = vec![0i32; BLOCK * PANEL];
        let mut states = vec![0u8; shape.state_bytes()];
        let work = TileWork { source: self.source, constants: self.constants, row: shape.constants_row() };
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
            out: out.start,
            tokens: tokens as u64,
            counts: [0; 3],
            work: (&raw const work).cast(),
        };
        match (self.source, shape.flow) {
            (LoopSource::Rows(rows), LoopInput::Even(elem)) => {
                assert_eq!(rows.len(), tokens * padded * elem.bytes(), "a row per token");
                frame.rows = rows.as_ptr();
            }
            (LoopSource::Rows(rows), LoopInput::Currents(elem)) => {
                assert_eq!(rows.len(), tokens * steps * padded * elem.bytes(), "a row per token and timestep");
                frame.rows = rows.as_ptr();
            }
            (LoopSource::Events { list, ends, weights, kernels }, LoopInput::Synapse { inputs }) => {
                assert!(weights.inputs() == inputs && weights.outputs() == shape.width, "weights of the layer");
                assert_eq!(list.planes(), tokens * steps, "a list per token and timestep");
                assert_eq!(kernels.is_some(), *by_kernel, "a kernel, if the loop calls one");
                assert!(*by_kernel || ends.len() == list.planes() + 1, "an end for each list");
                let (channels, values, _) = list.parts();
                frame.channels = channels.as_ptr();
                frame.values = values.as_ptr();
                frame.ends = ends.as_ptr();
                frame.weights = weights.panel(0).as_ptr();
            }
            (LoopSource::Rows(_) | LoopSource::Events { .. }, _) => panic!("the loop takes something else in"),
        }
        function(&mut frame, 0, tiles.start as u64, tiles.len() as u64);
        let [spikes, active, saturated] = frame.counts;
        SpikeCount { spikes, active, saturated }
    }
}

/// The kernel that a loop calls for a tile: what flows into its neurons at `count` planes from `plane` on.
pub extern "C" fn tile_inputs(frame: *const LoopFrame, panel: u64, plane: u64, count: u64) {
    // SAFETY: machine code passes on the frame that `LoopCall::tiles` gave it, whose `work` is the call; both live while it runs.
    // Nothing else refers to the currents then, and they have room for `BLOCK` timesteps of 32 bits each. Any test of a
    // program with such neurons would notice.
    let (call, inputs) = unsafe {
        let frame = &*frame;
        let inputs = std::slice::from_raw_parts_mut(frame.currents.cast::<f32>(), BLOCK * PANEL);
        (*frame.work.cast::<TileWork<'_>>(), inputs)
    };
    let TileWork { source, constants, row } = call;
    let LoopSource::Events { list, weights, kernels: Some(kernels), .. } = source else {
        unreachable!("`LoopCall::tiles` has seen that there is a kernel")
    };
    let (panel, plane, count) = (panel as usize, plane as usize, count as usize);
    let of_panel = |i: usize| constants[i * row + panel * PANEL..].first_chunk::<PANEL>();
    let (Some(gain), Some(offset)) = (of_panel(0), of_panel(1)) else {
        unreachable!("rows of constants have whole tiles")
    };
    let inputs = &mut inputs[..count * PANEL];
    // Rows of the first planes of a list come from memory.
    kernels.tile_inputs(list, plane..plane + count, PanelOf { weights, panel }, [gain, offset], plane < BLOCK, inputs);
}

/// What the kernel is told beside its tile.
#[derive(Clone, Copy)]
struct TileWork<'a> {
    source: LoopSource<'a>,
    constants: &'a [f32],
    /// Numbers of a row of constants.
    row: usize,
}
