//! Rows of weights added up by machine code, in vectors of 128 bits: the currents of a tile, where no kernel has wider ones.
//!
//! Sixteen columns at a time stay in registers over all events of a timestep; four events are added in 16 bits, which 4 * 127
//! fits, and then into sums of 32 bits. Exact in any order.

use crate::jit::emit::{Emitter, GROUP};
use crate::jit::frame::LoopFrame;
use crate::jit::lanes::{I16, I32, splat_int};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value as CodeValue, types};
use snnc_ir::tensor::PANEL;
use std::mem::offset_of;

/// Events that are added at once.
const EVENTS: usize = 4;

/// Adds the rows of a panel that `count` planes from `plane` on list, `[count, 64]` sums to `currents`.
pub fn add_rows(
    e: &mut Emitter<'_>,
    inputs: usize,
    panel: CodeValue,
    plane: CodeValue,
    count: CodeValue,
    currents: CodeValue,
) {
    let [channels, values, ends, weights] = [
        offset_of!(LoopFrame, channels),
        offset_of!(LoopFrame, values),
        offset_of!(LoopFrame, ends),
        offset_of!(LoopFrame, weights),
    ]
    .map(|field| e.of_frame(field));
    let skipped = e.b.ins().imul_imm_s(panel, (inputs * PANEL) as i64);
    let rows = e.b.ins().iadd(weights, skipped);
    e.count(count, 1, |e, t| {
        let plane = e.b.ins().iadd(plane, t);
        let offset = e.b.ins().imul_imm_s(plane, 8);
        let at = e.b.ins().iadd(ends, offset);
        // The first number is where the first plane begins.
        let (from, end) = (e.load(types::I64, at, 0), e.load(types::I64, at, 8));
        let offset = e.b.ins().imul_imm_s(t, 4 * PANEL as i64);
        let out = e.b.ins().iadd(currents, offset);
        let columns = e.int(PANEL);
        e.count(columns, GROUP, |e, column| {
            let rows = e.b.ins().iadd(rows, column);
            let zero = splat_int(e, I32, 0);
            let sums = [(); 4].map(|()| e.variable(zero));
            e.span(from, end, EVENTS, |e, event| {
                let (channel, value) = (e.b.ins().imul_imm_s(event, 4), e.b.ins().iadd(values, event));
                let channel = e.b.ins().iadd(channels, channel);
                let products: Vec<[CodeValue; 2]> = (0..EVENTS).map(|i| product(e, rows, channel, value, i)).collect();
                for half in 0..2 {
                    let sum = |e: &mut Emitter<'_>, a: usize| e.b.ins().iadd(products[a][half], products[a + 1][half]);
                    let (a, b) = (sum(e, 0), sum(e, 2));
                    let sum = e.b.ins().iadd(a, b);
                    let parts = [e.b.ins().swiden_low(sum), e.b.ins().swiden_high(sum)];
                    for (variable, part) in sums[2 * half..].iter().zip(parts) {
                        let old = e.b.use_var(*variable);
                        let new = e.b.ins().iadd(old, part);
                        e.b.def_var(*variable, new);
                    }
                }
            });
            let offset = e.b.ins().imul_imm_s(column, 4);
            let out = e.b.ins().iadd(out, offset);
            for (i, sum) in sums.into_iter().enumerate() {
                let sum = e.b.use_var(sum);
                e.store(sum, out, 16 * i);
            }
        });
    });
}

/// Sixteen weights of the row of event `i`, times what the event says.
fn product(e: &mut Emitter<'_>, rows: CodeValue, channels: CodeValue, values: CodeValue, i: usize) -> [CodeValue; 2] {
    let channel = e.load(types::I32, channels, 4 * i);
    let channel = e.b.ins().uextend(types::I64, channel);
    let offset = e.b.ins().imul_imm_s(channel, PANEL as i64);
    let row = e.b.ins().iadd(rows, offset);
    let value = e.load(types::I8, values, i);
    let value = e.b.ins().sextend(types::I16, value);
    let value = e.b.ins().splat(I16, value);
    [0, 8].map(|at| {
        let weights = e.b.ins().sload8x8(MemFlagsData::new().with_notrap(), row, at);
        e.b.ins().imul(weights, value)
    })
}
