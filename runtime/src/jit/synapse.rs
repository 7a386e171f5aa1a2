//! The stepped synapse as machine code: for every timestep, for every spike, add or subtract a row of weights.
//!
//! Horner over time: sums double before a timestep of a binary code is added. The spikes of a timestep become two lists of
//! addresses of rows of the first panel, of +1 and of -1; eight rows at a time are added in 16 bits, panel by panel, then into
//! the 32-bit sums, so that the sums are read and written once for several rows. Sums are of whole panels, in scratch, and
//! copied to their place at the end. Exact in any order.

use crate::jit::emit::{Emitter, GROUP};
use crate::jit::frame::{Frame, StepTally};
use crate::layout::plane_bytes;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::Variable;
use snnc_ir::tensor::PANEL;
use snnc_ir::types::Code;
use std::mem::offset_of;

/// Rows of weights that are added in one pass over the sums. 127 times this fits 16 bits.
pub const PASS: usize = 8;

/// Words of scratch that a layer takes: two lists of addresses, and the sums.
pub fn scratch_len(inputs: usize, outputs: usize) -> usize {
    2 * inputs + outputs.next_multiple_of(PANEL) / 2
}

/// Sizes and addresses of one synapse.
struct SynapseShape {
    inputs: usize,
    /// Outputs of whole panels.
    padded: usize,
    weights: Value,
    /// Where the lists of spikes +1 and -1 begin.
    lists: [Value; 2],
    sums: Value,
}

/// `(spikes, weights) -> decoded sums`
pub fn synapse(e: &mut Emitter<'_>, code: Code, steps: u16, inputs: usize, outputs: usize) {
    let scratch = e.of_frame(offset_of!(Frame, scratch));
    let lists = [scratch, e.add(scratch, 8 * inputs)];
    let sums = e.add(scratch, 16 * inputs);
    let s = SynapseShape { inputs, padded: outputs.next_multiple_of(PANEL), weights: e.constant(0), lists, sums };
    let plane = plane_bytes(inputs);
    let train = plane * usize::from(steps);
    let (spikes, out) = (e.input(0, train), e.out(4 * outputs));
    let (spikes, out) = (e.variable(spikes), e.variable(out));
    let zero = e.int(0);
    let taken = e.variable(zero);
    let rows = e.rows;
    e.count(rows, 1, |e, _| {
        let (row, to) = (e.b.use_var(spikes), e.b.use_var(out));
        each(e, &s, |e, _| {
            let zero = e.b.ins().iconst(types::I32, 0);
            e.b.ins().splat(types::I32X4, zero)
        });
        let end = e.int(train);
        e.count(end, plane, |e, offset| {
            if code.carry() == 2 {
                // Before the first timestep the sums are zero, and so is their double.
                let later = e.b.ins().icmp_imm_u(IntCC::NotEqual, offset, 0);
                e.when(later, |e| {
                    each(e, &s, |e, at| {
                        let x = e.load(types::I32X4, at, 0);
                        e.b.ins().iadd(x, x)
                    });
                });
            }
            let here = e.b.ins().iadd(row, offset);
            let ends = list(e, &s, here, taken);
            for (i, end) in ends.into_iter().enumerate() {
                accumulate(e, &s, s.lists[i], end, i == 1);
            }
        });
        copy(e, s.sums, to, outputs);
        let (row, to) = (e.add(row, train), e.add(to, 4 * outputs));
        e.b.def_var(spikes, row);
        e.b.def_var(out, to);
    });
    let taken = e.b.use_var(taken);
    e.tally(offset_of!(StepTally, taken), taken);
}

/// Stores `value(address)` to every four sums.
fn each(e: &mut Emitter<'_>, s: &SynapseShape, value: impl Fn(&mut Emitter<'_>, Value) -> Value) {
    let end = e.int(4 * s.padded);
    e.count(end, 4 * GROUP, |e, offset| {
        let here = e.b.ins().iadd(s.sums, offset);
        for part in 0..4 {
            let at = e.add(here, 16 * part);
            let x = value(e, at);
            e.store(x, at, 0);
        }
    });
}

/// Copies sums to where they belong: four at a time, then one at a time.
fn copy(e: &mut Emitter<'_>, from: Value, to: Value, outputs: usize) {
    let whole = outputs - outputs % 4;
    for (ty, first, last, step) in [(types::I32X4, 0, whole, 16), (types::I32, whole, outputs, 4)] {
        let (first, last) = (e.int(4 * first), e.int(4 * last));
        e.span(first, last, step, |e, offset| {
            let at = e.b.ins().iadd(from, offset);
            let x = e.load(ty, at, 0);
            let at = e.b.ins().iadd(to, offset);
            e.store(x, at, 0);
        });
    }
}

/// Lists the rows of the spikes of one timestep; the ends of the lists.
fn list(e: &mut Emitter<'_>, s: &SynapseShape, plane: Value, taken: Variable) -> [Value; 2] {
    let ends = s.lists.map(|list| e.variable(list));
    let first = e.variable(s.weights);
    let end = e.int(plane_bytes(s.inputs));
    e.count(end, GROUP, |e, offset| {
        let at = e.b.ins().iadd(plane, offset);
        let spikes = e.load(types::I8X16, at, 0);
        let zero = e.b.ins().iconst(types::I8, 0);
        let zeros = e.b.ins().splat(types::I8X16, zero);
        let rows = e.b.use_var(first);
        for (i, sign) in [IntCC::SignedGreaterThan, IntCC::SignedLessThan].into_iter().enumerate() {
            let fired = e.b.ins().icmp(sign, spikes, zeros);
            let mask = e.b.ins().vhigh_bits(types::I32, fired);
            list_bits(e, mask, rows, ends[i]);
        }
        let rows = e.add(rows, GROUP * PANEL);
        e.b.def_var(first, rows);
    });
    let ends = ends.map(|end| e.b.use_var(end));
    for (end, list) in ends.iter().zip(s.lists) {
        let bytes = e.b.ins().isub(*end, list);
        let three = e.b.ins().iconst(types::I64, 3);
        let spikes = e.b.ins().ushr(bytes, three);
        let sum = e.b.use_var(taken);
        let sum = e.b.ins().iadd(sum, spikes);
        e.b.def_var(taken, sum);
    }
    ends
}

/// Appends the address of a row for every set bit.
fn list_bits(e: &mut Emitter<'_>, mask: Value, rows: Value, end: Variable) {
    let (head, inside, after) = (e.b.create_block(), e.b.create_block(), e.b.create_block());
    let left = e.variable(mask);
    e.b.ins().jump(head, &[]);
    e.b.switch_to_block(head);
    let bits = e.b.use_var(left);
    e.b.ins().brif(bits, inside, &[], after, &[]);
    e.b.switch_to_block(inside);
    let i = e.b.ins().ctz(bits);
    let i = e.b.ins().uextend(types::I64, i);
    let width = e.int(PANEL);
    let offset = e.b.ins().imul(i, width);
    let row = e.b.ins().iadd(rows, offset);
    let at = e.b.use_var(end);
    e.store(row, at, 0);
    let next = e.add(at, 8);
    e.b.def_var(end, next);
    let less = e.b.ins().iadd_imm_s(bits, -1);
    let rest = e.b.ins().band(bits, less);
    e.b.def_var(left, rest);
    e.b.ins().jump(head, &[]);
    e.b.switch_to_block(after);
}

/// Adds the listed rows to the sums, or subtracts them: `PASS` rows per pass, then one.
fn accumulate(e: &mut Emitter<'_>, s: &SynapseShape, list: Value, end: Value, subtract: bool) {
    let bytes = e.b.ins().isub(end, list);
    let mask = e.b.ins().iconst(types::I64, -((8 * PASS) as i64));
    let whole = e.b.ins().band(bytes, mask);
    let zero = e.int(0);
    passes(e, s, list, zero, whole, PASS, subtract);
    passes(e, s, list, whole, bytes, 1, subtract);
}

/// A pass over all sums for every `count` rows of the list between two offsets.
fn passes(e: &mut Emitter<'_>, s: &SynapseShape, list: Value, from: Value, to: Value, count: usize, subtract: bool) {
    e.span(from, to, 8 * count, |e, offset| {
        let entry = e.b.ins().iadd(list, offset);
        let rows: Vec<Variable> = (0..count)
            .map(|i| {
                let row = e.load(types::I64, entry, 8 * i);
                e.variable(row)
            })
            .collect();
        let to = e.variable(s.sums);
        let end = e.int(s.padded);
        e.count(end, PANEL, |e, _| {
            let here: Vec<Value> = rows.iter().map(|&row| e.b.use_var(row)).collect();
            let sums = e.b.use_var(to);
            let columns = e.int(PANEL);
            e.count(columns, GROUP, |e, column| {
                let two = e.b.ins().iconst(types::I64, 2);
                let offset = e.b.ins().ishl(column, two);
                let to = e.b.ins().iadd(sums, offset);
                for half in 0..2 {
                    let parts: Vec<Value> = here.iter().map(|&row| weights(e, row, column, 8 * half)).collect();
                    let sum = tree(e, parts);
                    let low = e.b.ins().swiden_low(sum);
                    let high = e.b.ins().swiden_high(sum);
                    add_to(e, low, to, 32 * half, subtract);
                    add_to(e, high, to, 32 * half + 16, subtract);
                }
            });
            for (&row, &at) in rows.iter().zip(&here) {
                let next = e.add(at, s.inputs * PANEL);
                e.b.def_var(row, next);
            }
            let next = e.add(sums, 4 * PANEL);
            e.b.def_var(to, next);
        });
    });
}

/// Eight weights of a row, widened.
fn weights(e: &mut Emitter<'_>, row: Value, column: Value, offset: usize) -> Value {
    let at = e.b.ins().iadd(row, column);
    e.b.ins().sload8x8(notrap(), at, offset as i32)
}

fn add_to(e: &mut Emitter<'_>, x: Value, at: Value, offset: usize, subtract: bool) {
    let old = e.load(types::I32X4, at, offset);
    let new = if subtract { e.b.ins().isub(old, x) } else { e.b.ins().iadd(old, x) };
    e.store(new, at, offset);
}

/// The sum, pair by pair.
fn tree(e: &mut Emitter<'_>, mut parts: Vec<Value>) -> Value {
    while parts.len() > 1 {
        parts = parts.chunks(2).map(|pair| if let [a, b] = *pair { e.b.ins().iadd(a, b) } else { pair[0] }).collect();
    }
    parts[0]
}

fn notrap() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}
