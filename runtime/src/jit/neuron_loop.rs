//! The loop over timesteps of a layer of time-stepped neurons, as machine code.
//!
//! A tile is 64 neurons of one token: a panel of weights. Where the layer takes in its synapse, a tile's currents of up to
//! `BLOCK` timesteps are added up first, by a kernel with wide vectors, gain and offset included, or by machine code. Eight or sixteen neurons at a time
//! then go through these timesteps with their potentials, gains and offsets in registers. Weights of a panel are read for all
//! tokens and timesteps before those of the next one.

use crate::jit::emit::{self, Emitter};
use crate::jit::frame::LoopFrame;
use crate::jit::lanes::{F32, I8, I16, I32, LANES, folded, splat_float, splat_int, total};
use crate::jit::rows::add_rows;
use crate::jit::rule::{Update, UpdateInputs, update};
use crate::layout::plane_bytes;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value as CodeValue, types};
use cranelift_frontend::Variable;
use snnc_ir::Curve;
use snnc_ir::membrane::{Membrane, Rule};
use snnc_ir::tensor::PANEL;
use snnc_ir::types::Elem;
use std::mem::offset_of;
use std::ops::Range;

/// Timesteps whose currents are added up at a time: 8 KiB of them, which a first-level cache holds. Spikes of so many fit a
/// count of 8 bits.
pub const BLOCK: usize = 32;

/// What flows into the neurons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopInput {
    /// Spikes of so many channels through a weight.
    Synapse { inputs: usize },
    /// Rows of numbers, for every timestep its own.
    Currents(Elem),
    /// Rows of numbers that flow evenly over the timesteps.
    Even(Elem),
}

/// A layer's loop, with all its sizes but the number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeuronLoop {
    pub membrane: Membrane,
    pub steps: u16,
    pub curve: Curve,
    pub flow: LoopInput,
    pub width: usize,
}

/// Addresses that a call's frame names, and what is counted.
struct LoopValues {
    rows: CodeValue,
    constants: CodeValue,
    lanes: CodeValue,
    currents: CodeValue,
    states: CodeValue,
    out: CodeValue,
    /// Spikes, neurons that fired, and those that fired at every timestep, each in four lanes; none where nothing counts.
    counts: Option<[Variable; 3]>,
}

/// A tile of one token.
struct Tile {
    panel: CodeValue,
    token: CodeValue,
    /// Its first channel.
    channel: CodeValue,
    groups: CodeValue,
}

/// Some timesteps of a tile.
#[derive(Clone, Copy)]
struct TimestepBlock {
    from: CodeValue,
    count: CodeValue,
}

impl NeuronLoop {
    /// One name per function.
    pub fn name(&self) -> String {
        let flow = match self.flow {
            LoopInput::Synapse { inputs } => format!("spikes_{inputs}"),
            LoopInput::Currents(elem) => format!("currents_{elem}"),
            LoopInput::Even(elem) => elem.to_string(),
        };
        format!("integrate_{}_{}_{}_{flow}_{}", self.membrane.name(), self.steps, self.curve.name(), self.width)
    }

    fn rule(&self) -> &'static Rule {
        self.membrane.rule()
    }

    fn rectified(&self) -> bool {
        self.curve == Curve::Relu
    }

    /// Channels of whole groups.
    pub fn padded(&self) -> usize {
        self.width.next_multiple_of(emit::GROUP)
    }

    /// Tiles of a token.
    pub fn tiles(&self) -> usize {
        self.width.div_ceil(PANEL)
    }

    /// Rows of constants, `constants_row` numbers each: gains, offsets or a timestep's share of them, and parameters.
    pub fn constants(&self) -> usize {
        2 + self.rule().parameters.len()
    }

    /// Channels of whole tiles.
    pub fn constants_row(&self) -> usize {
        self.tiles() * PANEL
    }

    /// Vectors of neurons that go through time together: four where each has one number that stays, so that they do not wait
    /// for each other's result, else two, whose numbers fit sixteen registers.
    fn vectors(&self) -> usize {
        if self.variables() + self.rule().parameters.len() == 1 { 4 } else { 2 }
    }

    /// Neurons that go through time together.
    fn group(&self) -> usize {
        LANES * self.vectors()
    }

    fn groups_of_tile(&self) -> usize {
        PANEL / self.group()
    }

    fn blocks(&self) -> usize {
        usize::from(self.steps).div_ceil(BLOCK)
    }

    /// State variables of a neuron.
    fn variables(&self) -> usize {
        self.rule().membranes(self.rectified()) * self.rule().states.len()
    }

    /// Bytes of a group's states between blocks: its variables, then 16-bit counts of spikes.
    fn group_bytes(&self) -> usize {
        4 * self.group() * self.variables() + 2 * self.group()
    }

    /// Bytes of a tile's states between blocks.
    pub fn state_bytes(&self) -> usize {
        if self.blocks() == 1 { 0 } else { self.groups_of_tile() * self.group_bytes() }
    }

    /// `(frame, -, first tile, tiles)`: all tokens of the frame through some tiles.
    pub fn emit(&self, e: &mut Emitter<'_>, count: bool) {
        let field = |e: &mut Emitter<'_>, offset: usize| e.of_frame(offset);
        let mut values = LoopValues {
            rows: field(e, offset_of!(LoopFrame, rows)),
            constants: field(e, offset_of!(LoopFrame, constants)),
            lanes: field(e, offset_of!(LoopFrame, lanes)),
            currents: field(e, offset_of!(LoopFrame, currents)),
            states: field(e, offset_of!(LoopFrame, states)),
            out: field(e, offset_of!(LoopFrame, out)),
            counts: None,
        };
        let tokens = field(e, offset_of!(LoopFrame, tokens));
        let end = e.b.ins().iadd(e.first, e.rows);
        let first = e.first;
        e.span(first, end, 1, |e, panel| {
            if count {
                let zero = splat_int(e, I32, 0);
                values.counts = Some([(); 3].map(|()| e.variable(zero)));
            }
            let (channel, groups) = (e.b.ins().imul_imm_s(panel, PANEL as i64), self.groups(e, panel));
            e.count(tokens, 1, |e, token| self.tile(e, &values, &Tile { panel, token, channel, groups }));
            // Once per panel, so that no lane overflows.
            for (i, counter) in values.counts.into_iter().flatten().enumerate() {
                let sum = e.b.use_var(counter);
                let sum = total(e, sum);
                let at = offset_of!(LoopFrame, counts) + 8 * i;
                let old = e.of_frame(at);
                let new = e.b.ins().iadd(old, sum);
                let frame = e.frame;
                e.store(new, frame, at);
            }
        });
    }

    /// Groups of a tile: fewer in the last one.
    fn groups(&self, e: &mut Emitter<'_>, panel: CodeValue) -> CodeValue {
        let most = e.int(self.groups_of_tile());
        let all = self.padded() / self.group();
        if all.is_multiple_of(self.groups_of_tile()) {
            return most;
        }
        let all = e.int(all);
        let before = e.b.ins().imul_imm_s(panel, self.groups_of_tile() as i64);
        let left = e.b.ins().isub(all, before);
        e.b.ins().umin(left, most)
    }

    fn tile(&self, e: &mut Emitter<'_>, values: &LoopValues, tile: &Tile) {
        let steps = e.int(self.steps.into());
        if self.blocks() == 1 {
            let block = TimestepBlock { from: e.int(0), count: steps };
            return self.block(e, values, tile, block);
        }
        e.count(tile.groups, 1, |e, group| self.begin(e, values, group));
        e.count(steps, BLOCK, |e, from| {
            let (left, most) = (e.b.ins().isub(steps, from), e.int(BLOCK));
            let count = e.b.ins().umin(left, most);
            self.block(e, values, tile, TimestepBlock { from, count });
        });
    }

    /// A group's states before the first timestep, where they lie in memory between blocks.
    fn begin(&self, e: &mut Emitter<'_>, values: &LoopValues, group: CodeValue) {
        let at = self.states_at(e, values, group);
        let zero = splat_int(e, I32, 0);
        for (i, start) in self.starts().into_iter().enumerate() {
            let start = splat_float(e, start);
            (0..self.vectors()).for_each(|v| e.store(start, at, 4 * self.group() * i + 16 * v));
        }
        (0..self.vectors() / 2).for_each(|half| e.store(zero, at, 4 * self.group() * self.variables() + 16 * half));
    }

    /// Of every state variable of every membrane, what it starts with.
    fn starts(&self) -> Vec<f32> {
        let states = self.rule().states.iter().map(|state| state.start as f32);
        states.collect::<Vec<f32>>().repeat(self.rule().membranes(self.rectified()))
    }

    fn states_at(&self, e: &mut Emitter<'_>, values: &LoopValues, group: CodeValue) -> CodeValue {
        let offset = e.b.ins().imul_imm_s(group, self.group_bytes() as i64);
        e.b.ins().iadd(values.states, offset)
    }

    /// Some timesteps of a tile: what flows in, then its groups.
    fn block(&self, e: &mut Emitter<'_>, values: &LoopValues, tile: &Tile, block: TimestepBlock) {
        if let LoopInput::Synapse { inputs } = self.flow {
            let first = e.b.ins().imul_imm_s(tile.token, i64::from(self.steps));
            let plane = e.b.ins().iadd(first, block.from);
            match e.kernel {
                Some(kernel) => {
                    let frame = e.frame;
                    e.b.ins().call(kernel, &[frame, tile.panel, plane, block.count]);
                }
                None => add_rows(e, inputs, tile.panel, plane, block.count, values.currents),
            }
        }
        e.count(tile.groups, 1, |e, group| self.run_group(e, values, tile, block, group));
    }

    /// A group of neurons through some timesteps.
    fn run_group(&self, e: &mut Emitter<'_>, values: &LoopValues, tile: &Tile, block: TimestepBlock, group: CodeValue) {
        let plane = plane_bytes(self.width);
        let offset = e.b.ins().imul_imm_s(group, self.group() as i64);
        let channel = e.b.ins().iadd(tile.channel, offset);
        let constants = scaled(e, values.constants, channel, 4);
        let kept = (self.blocks() > 1).then(|| self.states_at(e, values, group));
        let states = self.states(e, kept);
        let none = splat_int(e, I8, 0);
        let fired = e.variable(none);
        let train = scaled(e, values.out, tile.token, plane * usize::from(self.steps));
        let train = scaled(e, train, block.from, plane);
        let out = e.b.ins().iadd(train, channel);
        let out = e.variable(out);
        let by_kernel = matches!(self.flow, LoopInput::Synapse { .. }) && e.kernel.is_some();
        let numbers = self.numbers(e, constants, if by_kernel { 0..0 } else { 0..2 });
        let parameters = self.numbers(e, constants, 2..self.constants());
        let flow = self.flow_of(e, values, tile, block, [group, channel], &numbers);
        e.count(block.count, 1, |e, _| {
            let inputs = self.inputs(e, &flow, &numbers);
            let spikes: Vec<CodeValue> = inputs
                .into_iter()
                .enumerate()
                .map(|(v, input)| self.neurons(e, input, &states, &parameters, v))
                .collect();
            let halves: Vec<CodeValue> =
                spikes.chunks_exact(2).map(|pair| e.b.ins().snarrow(pair[0], pair[1])).collect();
            let mut spikes = e.b.ins().snarrow(halves[0], halves[halves.len() - 1]);
            if self.rectified() && self.rule().down.is_none() {
                spikes = e.b.ins().iabs(spikes);
            }
            if !self.width.is_multiple_of(emit::GROUP) {
                let lanes = e.b.ins().iadd(values.lanes, channel);
                let lanes = e.load(I8, lanes, 0);
                spikes = e.b.ins().band(spikes, lanes);
            }
            let here = e.b.use_var(out);
            if halves.len() == 2 {
                e.store(spikes, here, 0);
            } else {
                let eight = e.cast(types::I64X2, spikes);
                let eight = e.b.ins().extractlane(eight, 0);
                e.store(eight, here, 0);
            }
            let next = e.add(here, plane);
            e.b.def_var(out, next);
            if values.counts.is_some() {
                let (sum, one) = (e.b.use_var(fired), e.b.ins().iabs(spikes));
                let sum = e.b.ins().iadd(sum, one);
                e.b.def_var(fired, sum);
            }
        });
        if let Some(at) = kept {
            for (i, &state) in states.iter().enumerate() {
                let state = e.b.use_var(state);
                e.store(state, at, 16 * i);
            }
        }
        if let Some(counts) = values.counts {
            let fired = e.b.use_var(fired);
            let halves = [e.b.ins().uwiden_low(fired), e.b.ins().uwiden_high(fired)];
            self.count(e, counts, &halves[..self.vectors() / 2], kept, block);
        }
    }

    /// States of a group: `vectors` of every variable of every membrane.
    fn states(&self, e: &mut Emitter<'_>, kept: Option<CodeValue>) -> Vec<Variable> {
        let starts = self.starts();
        (0..starts.len() * self.vectors())
            .map(|i| {
                let state = match kept {
                    Some(at) => e.load(F32, at, 16 * i),
                    None => splat_float(e, starts[i / self.vectors()]),
                };
                e.variable(state)
            })
            .collect()
    }

    /// A group's constants of some rows, `vectors` of each.
    fn numbers(&self, e: &mut Emitter<'_>, constants: CodeValue, rows: Range<usize>) -> Vec<CodeValue> {
        let mut numbers = Vec::with_capacity(rows.len() * self.vectors());
        for i in rows {
            // A row may be longer than an offset within an instruction.
            let row = e.add(constants, 4 * self.constants_row() * i);
            numbers.extend((0..self.vectors()).map(|v| e.load(F32, row, 16 * v)));
        }
        numbers
    }

    /// What flows into a group: an address that moves on with every timestep, or vectors that stay.
    fn flow_of(
        &self,
        e: &mut Emitter<'_>,
        values: &LoopValues,
        tile: &Tile,
        block: TimestepBlock,
        [group, channel]: [CodeValue; 2],
        numbers: &[CodeValue],
    ) -> GroupFlow {
        let row = 4 * self.padded();
        match self.flow {
            LoopInput::Synapse { .. } => {
                let at = scaled(e, values.currents, group, 4 * self.group());
                let (at, stride) = (e.variable(at), 4 * PANEL);
                match e.kernel {
                    Some(_) => GroupFlow::Inputs { at, stride },
                    None => GroupFlow::Currents { at, elem: Elem::I32, stride },
                }
            }
            LoopInput::Currents(elem) => {
                let at = scaled(e, values.rows, tile.token, row * usize::from(self.steps));
                let at = scaled(e, at, block.from, row);
                let at = scaled(e, at, channel, 4);
                GroupFlow::Currents { at: e.variable(at), elem, stride: row }
            }
            LoopInput::Even(elem) => {
                let at = scaled(e, values.rows, tile.token, row);
                let at = scaled(e, at, channel, 4);
                let steps = splat_float(e, self.steps.into());
                let share = |v: usize| {
                    let x = affine(e, elem, at, [numbers[v], numbers[self.vectors() + v]], v);
                    e.b.ins().fdiv(x, steps)
                };
                GroupFlow::Still((0..self.vectors()).map(share).collect())
            }
        }
    }

    /// One timestep's input of a group; what moves is moved on.
    fn inputs(&self, e: &mut Emitter<'_>, flow: &GroupFlow, numbers: &[CodeValue]) -> Vec<CodeValue> {
        match flow {
            GroupFlow::Still(inputs) => inputs.clone(),
            GroupFlow::Inputs { at, stride } => {
                let here = e.b.use_var(*at);
                let inputs = (0..self.vectors()).map(|v| e.load(F32, here, 16 * v)).collect();
                let next = e.add(here, *stride);
                e.b.def_var(*at, next);
                inputs
            }
            GroupFlow::Currents { at, elem, stride } => {
                let here = e.b.use_var(*at);
                let inputs = (0..self.vectors())
                    .map(|v| affine(e, *elem, here, [numbers[v], numbers[self.vectors() + v]], v))
                    .collect();
                let next = e.add(here, *stride);
                e.b.def_var(*at, next);
                inputs
            }
        }
    }

    /// One timestep of four neurons: their spikes.
    fn neurons(
        &self,
        e: &mut Emitter<'_>,
        input: CodeValue,
        states: &[Variable],
        parameters: &[CodeValue],
        v: usize,
    ) -> CodeValue {
        let rule = self.rule();
        let parameters: Vec<CodeValue> =
            parameters.chunks_exact(self.vectors()).map(|parameter| parameter[v]).collect();
        let mut masks = [None; 2];
        for membrane in 0..rule.membranes(self.rectified()) {
            let own: Vec<Variable> = (0..rule.states.len())
                .map(|i| states[(membrane * rule.states.len() + i) * self.vectors() + v])
                .collect();
            let before: Vec<CodeValue> = own.iter().map(|&state| e.b.use_var(state)).collect();
            let given = UpdateInputs {
                input,
                positive: membrane == 0,
                timesteps: self.steps.into(),
                least: Membrane::least(self.curve, self.steps),
                states: &before,
                parameters: &parameters,
            };
            let Update { states: after, up, down } = update(e, rule, &given);
            own.iter().zip(after).for_each(|(&state, after)| e.b.def_var(state, after));
            masks[membrane] = Some(up);
            masks[1] = down.or(masks[1]);
        }
        // A mask is -1 where it holds.
        match masks {
            [Some(up), Some(down)] => e.b.ins().isub(down, up),
            // Of one sign: its bytes lose theirs when they are packed.
            [Some(up), None] | [None, Some(up)] => up,
            [None, None] => unreachable!("a neuron has a membrane"),
        }
    }

    /// Adds a block's spikes, in 16-bit counts, and at the last block what the neurons did in all.
    fn count(
        &self,
        e: &mut Emitter<'_>,
        counts: [Variable; 3],
        fired: &[CodeValue],
        kept: Option<CodeValue>,
        block: TimestepBlock,
    ) {
        let Some(at) = kept else { return self.sum(e, counts, fired) };
        let all: Vec<CodeValue> = fired
            .iter()
            .enumerate()
            .map(|(half, &fired)| {
                let offset = 4 * self.group() * self.variables() + 16 * half;
                let before = e.load(I16, at, offset);
                let all = e.b.ins().iadd(before, fired);
                e.store(all, at, offset);
                all
            })
            .collect();
        let end = e.b.ins().iadd(block.from, block.count);
        let last = e.b.ins().icmp_imm_u(IntCC::Equal, end, i64::from(self.steps));
        e.when(last, |e| self.sum(e, counts, &all));
    }

    fn sum(&self, e: &mut Emitter<'_>, counts: [Variable; 3], fired: &[CodeValue]) {
        let one = splat_int(e, I16, 1);
        let those = |e: &mut Emitter<'_>, compares: IntCC, than: i64| {
            let than = splat_int(e, I16, than);
            let does = |fired: &CodeValue| {
                let does = e.b.ins().icmp(compares, *fired, than);
                e.b.ins().band(does, one)
            };
            fired.iter().map(does).collect::<Vec<CodeValue>>()
        };
        let (active, saturated) = (those(e, IntCC::NotEqual, 0), those(e, IntCC::Equal, self.steps.into()));
        for (counter, more) in counts.into_iter().zip([fired, &active, &saturated]) {
            let more = folded(e, more);
            let sum = e.b.use_var(counter);
            let sum = e.b.ins().iadd(sum, more);
            e.b.def_var(counter, sum);
        }
    }
}

/// `x gain + offset` of four channels.
fn affine(e: &mut Emitter<'_>, elem: Elem, at: CodeValue, [gain, offset]: [CodeValue; 2], v: usize) -> CodeValue {
    let x = match elem {
        Elem::F32 => e.load(F32, at, 16 * v),
        Elem::I32 | Elem::I8 | Elem::I4(_) | Elem::Level(..) => {
            let x = e.load(I32, at, 16 * v);
            e.b.ins().fcvt_from_sint(F32, x)
        }
    };
    let scaled = e.b.ins().fmul(x, gain);
    e.b.ins().fadd(scaled, offset)
}

/// What flows into a group.
enum GroupFlow {
    /// Numbers at an address that moves on with every timestep: currents without gain and offset.
    Currents { at: Variable, elem: Elem, stride: usize },
    /// The same, with gain and offset.
    Inputs { at: Variable, stride: usize },
    /// The same at every timestep.
    Still(Vec<CodeValue>),
}

/// `base + index * size`
fn scaled(e: &mut Emitter<'_>, base: CodeValue, index: CodeValue, size: usize) -> CodeValue {
    let offset = e.b.ins().imul_imm_s(index, size as i64);
    e.b.ins().iadd(base, offset)
}
