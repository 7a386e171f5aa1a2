//! The stepped synapse: for every timestep, for every spike, add or subtract a row of weights.
//!
//! Horner over time: sums double before a timestep of a binary code is added. The spikes of a timestep become two lists of
//! row addresses, of +1 and of -1, padded with a row of zeros to whole passes; a pass adds its rows in 16 bits, then into
//! the 32-bit sums, so that the sums are read and written once for several rows. Exact in any order.

use super::emit::{Emit, GROUP};
use super::memory::{Frame, Record, Tally};
use crate::plan::plane_bytes;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::Variable;
use snnc_ir::types::Code;
use std::mem::offset_of;

/// Rows of weights that are added in one walk over the sums. 127 times this fits 16 bits.
pub const PASS: usize = 8;

/// Entries of one of the two lists, for a layer of this many inputs.
pub fn list_len(inputs: usize) -> usize {
    inputs + PASS
}

/// Sizes and addresses of one synapse.
struct Synapse {
    inputs: usize,
    outputs: usize,
    weights: Value,
    zeros: Value,
    /// Where the lists of spikes +1 and -1 begin.
    lists: [Value; 2],
}

/// `(spikes, weights) -> settled sums`
pub fn synapse(e: &mut Emit<'_>, code: Code, steps: u16, inputs: usize, outputs: usize) {
    let scratch = e.of_frame(offset_of!(Frame, scratch));
    let lists = [scratch, e.add(scratch, 8 * list_len(inputs))];
    let s = Synapse { inputs, outputs, weights: e.constant(0), zeros: e.of_record(offset_of!(Record, table)), lists };
    let plane = plane_bytes(inputs);
    let train = plane * usize::from(steps);
    let (spikes, sums) = (e.input(0, train), e.out(4 * outputs));
    let (spikes, sums) = (e.variable(spikes), e.variable(sums));
    let zero = e.int(0);
    let active = e.variable(zero);
    let rows = e.rows;
    e.count(rows, 1, |e, _| {
        let (row, acc) = (e.b.use_var(spikes), e.b.use_var(sums));
        clear(e, acc, outputs);
        let end = e.int(train);
        e.count(end, plane, |e, offset| {
            if code.carry() == 2 {
                // Before the first timestep the sums are zero, and so is their double.
                let later = e.b.ins().icmp_imm_u(IntCC::NotEqual, offset, 0);
                e.when(later, |e| double(e, acc, outputs));
            }
            let here = e.b.ins().iadd(row, offset);
            let ends = list(e, &s, here, active);
            for (i, end) in ends.into_iter().enumerate() {
                accumulate(e, &s, s.lists[i], end, acc, i == 1);
            }
        });
        let (row, acc) = (e.add(row, train), e.add(acc, 4 * outputs));
        e.b.def_var(spikes, row);
        e.b.def_var(sums, acc);
    });
    let active = e.b.use_var(active);
    e.tally(offset_of!(Tally, active), active);
}

fn clear(e: &mut Emit<'_>, acc: Value, outputs: usize) {
    each(e, acc, outputs, |e, ty, _| {
        let zero = e.b.ins().iconst(types::I32, 0);
        if ty == types::I32 { zero } else { e.b.ins().splat(ty, zero) }
    });
}

fn double(e: &mut Emit<'_>, acc: Value, outputs: usize) {
    each(e, acc, outputs, |e, ty, at| {
        let x = e.load(ty, at, 0);
        e.b.ins().iadd(x, x)
    });
}

/// Stores `value(type, address)` to every sum: four at a time, then one at a time.
fn each(e: &mut Emit<'_>, acc: Value, outputs: usize, value: impl Fn(&mut Emit<'_>, types::Type, Value) -> Value) {
    let whole = outputs - outputs % GROUP;
    let end = e.int(4 * whole);
    e.count(end, 4 * GROUP, |e, offset| {
        let here = e.b.ins().iadd(acc, offset);
        for part in 0..4 {
            let at = e.add(here, 16 * part);
            let x = value(e, types::I32X4, at);
            e.store(x, at, 0);
        }
    });
    let tail = e.add(acc, 4 * whole);
    let end = e.int(4 * (outputs - whole));
    e.count(end, 4, |e, offset| {
        let at = e.b.ins().iadd(tail, offset);
        let x = value(e, types::I32, at);
        e.store(x, at, 0);
    });
}

/// Lists the rows of the spikes of one timestep; the ends of the lists, padded to whole passes.
fn list(e: &mut Emit<'_>, s: &Synapse, plane: Value, active: Variable) -> [Value; 2] {
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
            list_bits(e, s, mask, rows, ends[i]);
        }
        let rows = e.add(rows, GROUP * s.outputs);
        e.b.def_var(first, rows);
    });
    let ends = ends.map(|end| e.b.use_var(end));
    for (end, list) in ends.iter().zip(s.lists) {
        let bytes = e.b.ins().isub(*end, list);
        let three = e.b.ins().iconst(types::I64, 3);
        let spikes = e.b.ins().ushr(bytes, three);
        let sum = e.b.use_var(active);
        let sum = e.b.ins().iadd(sum, spikes);
        e.b.def_var(active, sum);
        (0..PASS - 1).for_each(|i| e.store(s.zeros, *end, 8 * i));
    }
    ends
}

/// Appends the address of a row for every set bit.
fn list_bits(e: &mut Emit<'_>, s: &Synapse, mask: Value, rows: Value, end: Variable) {
    let (head, inside, after) = (e.b.create_block(), e.b.create_block(), e.b.create_block());
    let left = e.variable(mask);
    e.b.ins().jump(head, &[]);
    e.b.switch_to_block(head);
    let bits = e.b.use_var(left);
    e.b.ins().brif(bits, inside, &[], after, &[]);
    e.b.switch_to_block(inside);
    let i = e.b.ins().ctz(bits);
    let i = e.b.ins().uextend(types::I64, i);
    let width = e.int(s.outputs);
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

/// Adds the listed rows to the sums, or subtracts them, `PASS` rows a walk.
fn accumulate(e: &mut Emit<'_>, s: &Synapse, list: Value, end: Value, acc: Value, subtract: bool) {
    let bytes = e.b.ins().isub(end, list);
    e.count(bytes, 8 * PASS, |e, offset| {
        let entry = e.b.ins().iadd(list, offset);
        let rows: Vec<Value> = (0..PASS).map(|i| e.load(types::I64, entry, 8 * i)).collect();
        let whole = s.outputs - s.outputs % GROUP;
        let end = e.int(whole);
        e.count(end, GROUP, |e, column| {
            let to = sums_at(e, acc, column);
            for half in 0..2 {
                let parts: Vec<Value> = rows.iter().map(|&row| weights(e, row, column, 8 * half)).collect();
                let sum = tree(e, parts);
                let low = e.b.ins().swiden_low(sum);
                let high = e.b.ins().swiden_high(sum);
                add_to(e, low, to, 32 * half, subtract);
                add_to(e, high, to, 32 * half + 16, subtract);
            }
        });
        let end = e.int(s.outputs);
        tail(e, whole, end, |e, column| {
            let to = sums_at(e, acc, column);
            let parts: Vec<Value> = rows
                .iter()
                .map(|&row| {
                    let at = e.b.ins().iadd(row, column);
                    e.b.ins().sload8(types::I32, notrap(), at, 0)
                })
                .collect();
            let sum = tree(e, parts);
            add_to(e, sum, to, 0, subtract);
        });
    });
}

/// Eight weights of a row, widened.
fn weights(e: &mut Emit<'_>, row: Value, column: Value, offset: usize) -> Value {
    let at = e.b.ins().iadd(row, column);
    e.b.ins().sload8x8(notrap(), at, offset as i32)
}

fn sums_at(e: &mut Emit<'_>, acc: Value, column: Value) -> Value {
    let two = e.b.ins().iconst(types::I64, 2);
    let offset = e.b.ins().ishl(column, two);
    e.b.ins().iadd(acc, offset)
}

fn add_to(e: &mut Emit<'_>, x: Value, at: Value, offset: usize, subtract: bool) {
    let ty = e.b.func.dfg.value_type(x);
    let old = e.load(ty, at, offset);
    let new = if subtract { e.b.ins().isub(old, x) } else { e.b.ins().iadd(old, x) };
    e.store(new, at, offset);
}

/// `for column in from..end { body(column) }`
fn tail(e: &mut Emit<'_>, from: usize, end: Value, body: impl FnOnce(&mut Emit<'_>, Value)) {
    let start = e.int(from);
    let columns = e.b.ins().isub(end, start);
    e.count(columns, 1, |e, i| {
        let column = e.add(i, from);
        body(e, column);
    });
}

/// The sum, pair by pair.
fn tree(e: &mut Emit<'_>, mut parts: Vec<Value>) -> Value {
    while parts.len() > 1 {
        parts = parts.chunks(2).map(|pair| if let [a, b] = *pair { e.b.ins().iadd(a, b) } else { pair[0] }).collect();
    }
    parts[0]
}

fn notrap() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}
