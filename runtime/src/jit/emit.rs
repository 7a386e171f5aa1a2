//! What all compiled functions share: loops, loads, and the sweep over rows in groups of 16 channels.
//!
//! Every function takes `(frame, record, first row, rows)`. A sweep emits its body once. Where a width is no multiple of
//! 16, the last group of a row is staged: its inputs are copied to zeroed memory on the stack and its outputs back from
//! there, so that no vector reads or writes outside its row.

use crate::jit::frame::{Frame, StepRecord};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    BlockArg, Endianness, FuncRef, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Type, Value, types,
};
use cranelift_frontend::{FunctionBuilder, Variable};
use std::mem::offset_of;

/// Channels of a group.
pub const GROUP: usize = 16;

/// A function being made.
pub struct Emitter<'a> {
    pub b: FunctionBuilder<'a>,
    pub frame: Value,
    pub record: Value,
    pub first: Value,
    pub rows: Value,
    /// Whether the host has x86's conversion of floats to integers.
    pub x86: bool,
    /// The kernel that adds rows of weights up, where it costs less than machine code.
    pub kernel: Option<FuncRef>,
}

/// How a sweep treats a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRole {
    In,
    Out,
    /// Padded to whole groups: never staged.
    Padded,
}

/// Memory that a sweep goes along.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Address of channel 0 of the first row.
    pub base: Value,
    /// 0 for what is the same for all rows.
    pub row_bytes: usize,
    pub lane_bytes: usize,
    pub role: StreamRole,
}

impl<'a> Emitter<'a> {
    /// Opens the function's entry block.
    pub fn new(mut b: FunctionBuilder<'a>, x86: bool, kernel: Option<FuncRef>) -> Self {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let params = b.block_params(entry);
        let (frame, record, first, rows) = (params[0], params[1], params[2], params[3]);
        Self { b, frame, record, first, rows, x86, kernel }
    }

    pub fn load(&mut self, ty: Type, at: Value, offset: usize) -> Value {
        self.b.ins().load(ty, memory(), at, offset as i32)
    }

    pub fn store(&mut self, x: Value, at: Value, offset: usize) {
        self.b.ins().store(memory(), x, at, offset as i32);
    }

    pub fn int(&mut self, n: usize) -> Value {
        self.b.ins().iconst(types::I64, n as i64)
    }

    pub fn add(&mut self, x: Value, n: usize) -> Value {
        let n = self.int(n);
        self.b.ins().iadd(x, n)
    }

    pub fn of_frame(&mut self, offset: usize) -> Value {
        self.load(types::I64, self.frame, offset)
    }

    pub fn of_record(&mut self, offset: usize) -> Value {
        self.load(types::I64, self.record, offset)
    }

    pub fn constant(&mut self, i: usize) -> Value {
        self.of_record(offset_of!(StepRecord, constants) + 8 * i)
    }

    /// Address of the first row of input `i`.
    pub fn input(&mut self, i: usize, row_bytes: usize) -> Value {
        self.row(offset_of!(StepRecord, inputs) + 8 * i, row_bytes)
    }

    /// Address of the first row of the result.
    pub fn out(&mut self, row_bytes: usize) -> Value {
        self.row(offset_of!(StepRecord, out), row_bytes)
    }

    fn row(&mut self, field: usize, row_bytes: usize) -> Value {
        let arena = self.of_frame(offset_of!(Frame, arena));
        let offset = self.of_record(field);
        let row_bytes = self.int(row_bytes);
        let skipped = self.b.ins().imul(self.first, row_bytes);
        let at = self.b.ins().iadd(arena, offset);
        self.b.ins().iadd(at, skipped)
    }

    /// Adds `n` to a counter of the step's tally.
    pub fn tally(&mut self, counter: usize, n: Value) {
        let tallies = self.of_frame(offset_of!(Frame, tallies));
        let own = self.of_record(offset_of!(StepRecord, tally));
        let at = self.b.ins().iadd(tallies, own);
        let old = self.load(types::I64, at, counter);
        let new = self.b.ins().iadd(old, n);
        self.store(new, at, counter);
    }

    pub fn variable(&mut self, value: Value) -> Variable {
        let ty = self.b.func.dfg.value_type(value);
        let variable = self.b.declare_var(ty);
        self.b.def_var(variable, value);
        variable
    }

    /// A bit pattern seen as another type of the same size.
    pub fn cast(&mut self, ty: Type, x: Value) -> Value {
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), x)
    }

    /// `for i in (0..end).step_by(step) { body(i) }`
    pub fn count(&mut self, end: Value, step: usize, body: impl FnOnce(&mut Self, Value)) {
        let zero = self.int(0);
        self.span(zero, end, step, body);
    }

    /// `for i in (from..end).step_by(step) { body(i) }`
    pub fn span(&mut self, from: Value, end: Value, step: usize, body: impl FnOnce(&mut Self, Value)) {
        let (head, inside, after) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(head, types::I64);
        self.b.ins().jump(head, &[BlockArg::Value(from)]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::UnsignedLessThan, i, end);
        self.b.ins().brif(more, inside, &[], after, &[]);
        self.b.switch_to_block(inside);
        body(self, i);
        let next = self.add(i, step);
        self.b.ins().jump(head, &[BlockArg::Value(next)]);
        self.b.switch_to_block(after);
    }

    /// `if condition { body() }`
    pub fn when(&mut self, condition: Value, body: impl FnOnce(&mut Self)) {
        let (inside, after) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(condition, inside, &[], after, &[]);
        self.b.switch_to_block(inside);
        body(self);
        self.b.ins().jump(after, &[]);
        self.b.switch_to_block(after);
    }

    /// Runs `body` on the addresses of every group of every row.
    pub fn sweep(&mut self, width: usize, streams: &[Stream], body: impl FnOnce(&mut Self, &[Value])) {
        let tail = width % GROUP;
        let slots: Vec<Option<Value>> = streams.iter().map(|stream| self.slot(stream, tail)).collect();
        let rows: Vec<Variable> = streams.iter().map(|stream| self.variable(stream.base)).collect();
        let end = self.rows;
        self.count(end, 1, |e, _| {
            let starts: Vec<Value> = rows.iter().map(|&row| e.b.use_var(row)).collect();
            let at: Vec<Variable> = starts.iter().map(|&start| e.variable(start)).collect();
            let channels = e.int(width);
            e.count(channels, GROUP, |e, channel| {
                let here: Vec<Value> = at.iter().map(|&at| e.b.use_var(at)).collect();
                if tail == 0 {
                    body(e, &here);
                } else {
                    e.staged(width, tail, channel, streams, &slots, &here, body);
                }
                for ((stream, &at), &here) in streams.iter().zip(&at).zip(&here) {
                    let next = e.add(here, GROUP * stream.lane_bytes);
                    e.b.def_var(at, next);
                }
            });
            for ((stream, &row), &start) in streams.iter().zip(&rows).zip(&starts) {
                let next = e.add(start, stream.row_bytes);
                e.b.def_var(row, next);
            }
        });
    }

    /// Zeroed memory on the stack for one group of a stream that may have to be staged.
    fn slot(&mut self, stream: &Stream, tail: usize) -> Option<Value> {
        if tail == 0 || stream.role == StreamRole::Padded {
            return None;
        }
        let bytes = GROUP * stream.lane_bytes;
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 4));
        let at = self.b.ins().stack_addr(types::I64, slot, 0);
        let zero = self.int(0);
        (0..bytes).step_by(8).for_each(|offset| self.store(zero, at, offset));
        Some(at)
    }

    fn staged(
        &mut self,
        width: usize,
        tail: usize,
        channel: Value,
        streams: &[Stream],
        slots: &[Option<Value>],
        here: &[Value],
        body: impl FnOnce(&mut Self, &[Value]),
    ) {
        let last = self.int(width - tail);
        let partial = self.b.ins().icmp(IntCC::Equal, channel, last);
        let used: Vec<Variable> = here.iter().map(|&here| self.variable(here)).collect();
        self.when(partial, |e| {
            for (i, stream) in streams.iter().enumerate() {
                let Some(slot) = slots[i] else { continue };
                if stream.role == StreamRole::In {
                    e.copy(here[i], slot, tail * stream.lane_bytes);
                }
                e.b.def_var(used[i], slot);
            }
        });
        let addresses: Vec<Value> = used.iter().map(|&used| self.b.use_var(used)).collect();
        body(self, &addresses);
        self.when(partial, |e| {
            for (i, stream) in streams.iter().enumerate() {
                if let (Some(slot), StreamRole::Out) = (slots[i], stream.role) {
                    e.copy(slot, here[i], tail * stream.lane_bytes);
                }
            }
        });
    }

    /// Copies a known number of bytes.
    fn copy(&mut self, from: Value, to: Value, bytes: usize) {
        let mut done = 0;
        for (ty, size) in [(types::I64, 8), (types::I32, 4), (types::I16, 2), (types::I8, 1)] {
            while bytes - done >= size {
                let part = self.load(ty, from, done);
                self.store(part, to, done);
                done += size;
            }
        }
    }

    pub fn finish(mut self, target: cranelift_codegen::isa::TargetFrontendConfig) {
        self.b.ins().return_(&[]);
        self.b.seal_all_blocks();
        self.b.finalize(target);
    }
}

/// Accesses do not trap, and are not known to be aligned to vectors.
fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}
