//! Every row of every rule table is a theorem: what matches the left side equals what the right side builds.
//!
//! One test for all rules. It draws operands for a pattern's variables and attributes for its operations from the tables below,
//! which know types and no rule, builds the left side, asks the rule for the right side, and evaluates both in f64. A rule
//! whose right side applies to none of the draws fails.

use super::from_graph;
use super::pattern::{Pattern, Tree};
use super::rule::{Expr, RewriteRule};
use super::sampling::TOLERANCE;
use crate::raise::MASKED;
use crate::{collapse, raise, simplify};
use egg::{Id, Searcher as _};
use snnc_ir::eval::{Array, Content, Evaluator, Memory};
use snnc_ir::hadamard::HadamardSize;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp, TrainingOp};
use snnc_ir::op::{Heads, Layout, Pairs, Perm, Scalar};
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::verify::verify;
use snnc_ir::{
    Binary, Builder, Code, Curve, Dim, Elem, ErrorCode, Graph, Op, Shape, Stage, Tensor, Type, Unary, Value,
};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Draws for which a right side has to hold.
const WANTED: usize = 8;

/// Draws after which a rule counts as one that never applies. The rarest (attention, with everything in place) needs a few
/// thousand.
const MAX_DRAWS: usize = 20_000;

/// Tokens of a call: no other size is the same.
const TOKENS: usize = 5;

/// SplitMix64: the same draws everywhere.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, table: &[T]) -> T {
        table[self.below(table.len())]
    }

    /// Numbers between -2 and 2.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1u32 << 22) as f32 - 2.0).collect()
    }
}

/// What a variable may stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum DrawnOperand {
    Number(f32),
    /// One number in a shape of this rank.
    One(usize),
    Constant(&'static [usize]),
    /// A constant `[m, n]` turned.
    Turned(usize, usize),
    Bytes(usize, usize),
    Ints(usize),
    Tokens,
    /// `[tokens, n]`.
    Rows(usize),
    /// `[heads, tokens, n]`.
    Heads(usize, usize),
    /// `[tokens, heads, n]`.
    HeadsLater(usize, usize),
    /// `[1, tokens, n]`.
    Batch(usize),
    /// `[tokens, tokens]`.
    Scores,
    /// `[heads, tokens, tokens]`.
    HeadScores(usize),
    /// What an activation function multiplies or divides an earlier variable by.
    Gate(u8),
    /// Spikes `[tokens, n]`.
    Spikes(Code, u16, Curve, usize),
    Current(Code, u16, usize),
}

/// By what they are: every row is drawn as often. Numbers stand in most patterns, and so in three rows.
#[rustfmt::skip]
const OPERANDS: &[&[DrawnOperand]] = {
    use DrawnOperand::*;
    &[
        &[Number(0.0), Number(1.0), Number(2.0), Number(0.5), Number(-3.0), Number(1e-5)],
        &[Number(-1e4), Number(-1e9), Number(f32::MIN)],
        &[One(0), One(1), One(3)],
        &[Constant(&[4]), Constant(&[6]), Constant(&[2]), Constant(&[1])],
        &[Constant(&[4, 4]), Constant(&[4, 6]), Constant(&[6, 4]), Constant(&[1, 4]), Turned(4, 6), Turned(6, 4), Turned(4, 4)],
        &[Bytes(4, 6), Bytes(6, 4), Ints(1), Ints(2), Tokens],
        &[Rows(4), Rows(6), Rows(1)],
        &[Heads(2, 2), Heads(1, 4), Heads(2, 3), HeadsLater(2, 2), Batch(4), Batch(1)],
        &[Scores, HeadScores(2), HeadScores(1)],
        &[Gate(0), Gate(1), Gate(2), Gate(3), Gate(4)],
        &[
            Spikes(Code::Unary, 3, Curve::Relu, 4), Spikes(Code::Binary, 3, Curve::Relu, 4), Spikes(Code::Binary, 3, Curve::Identity, 4),
            Current(Code::Binary, 3, 4), Current(Code::Unary, 3, 4),
        ],
        // Thresholds of tokens: of the whole row, of two heads.
        &[Rows(1), Rows(2)],
    ]
};

const ALL_ROWS: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/// Rows of `OPERANDS` that an operation has at a place: what draws of other rows would only be refused for.
fn usual_rows(head: &str, place: usize) -> &'static [usize] {
    match (head, place) {
        ("ssa", 0..3) | ("decode" | "synapse", 0) => &[10],
        ("ssa", 3..6) => &[3, 5, 11],
        ("ssa", _) => &[3, 5],
        ("fire" | "scale_shift", 1..) | ("gated_fire", 2..) | ("linear", 2) => &[3],
        ("synapse", 1) => &[5],
        ("linear", 1) => &[4],
        ("alibi", 0) => &[8],
        ("alibi", 1) => &[3],
        ("linear" | "fire" | "scale_shift" | "centre" | "split_heads", 0) | ("gated_fire", 0..2) => &[6],
        _ => ALL_ROWS,
    }
}

/// How often an operation's operands are drawn anew, where no operation of its name takes them.
const TRIES: usize = 12;

/// Operands of one draw, at most.
const MAX_OPERANDS: usize = 1000;

/// A left side in the making.
struct Making<'a> {
    builder: Builder,
    draw: &'a mut Draw,
    /// By number of a variable.
    drawn: BTreeMap<u32, Value>,
    labels: BTreeMap<u32, Op>,
    kinds: Vec<DrawnOperand>,
    /// Operands that may still be drawn.
    left: usize,
}

impl<'a> Making<'a> {
    fn new(draw: &'a mut Draw) -> Self {
        let builder = Builder::new(Stage::Imported, 8);
        Self { builder, draw, drawn: BTreeMap::new(), labels: BTreeMap::new(), kinds: Vec::new(), left: MAX_OPERANDS }
    }

    fn constant(&mut self, sizes: &[usize], data: Vec<f32>) -> Value {
        let name = format!("c{}", self.builder.graph().weights.len());
        self.builder.weight(&name, Arc::new(Tensor::f32(sizes, data)))
    }

    /// Numbers; positive ones where there are as many as heads: slopes and sinks are not negative.
    fn numbers(&mut self, sizes: &[usize]) -> Value {
        let mut data = self.draw.numbers(sizes.iter().product());
        if let [1 | 2] = sizes {
            data.iter_mut().for_each(|x| *x = x.abs());
        }
        self.constant(sizes, data)
    }

    /// Gains and offsets behind a rectifier, so that what fires may be a feature.
    fn positive(&mut self, sizes: &[usize]) -> Value {
        let data = self.draw.numbers(sizes.iter().product()).into_iter().map(f32::abs).collect();
        self.constant(sizes, data)
    }

    fn add(&mut self, op: Op, args: &[Value]) -> Option<Value> {
        self.builder.add(op, args, "").ok()
    }

    fn rows(&mut self, width: usize) -> Option<Value> {
        let tokens = self.add(Op::Leaf(LeafOp::Tokens), &[])?;
        let table = self.numbers(&[2, width]);
        let rows = self.add(Op::Dense(DenseOp::Embed), &[tokens, table])?;
        // Rows of one token differ by position.
        let positions = self.add(Op::Leaf(LeafOp::Positions), &[])?;
        let table = self.numbers(&[TOKENS, width]);
        let more = self.add(Op::Dense(DenseOp::Embed), &[positions, table])?;
        self.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[rows, more])
    }

    fn heads(&mut self, heads: usize, width: usize) -> Option<Value> {
        let rows = self.rows(heads * width)?;
        self.add(Op::Array(ArrayOp::SplitHeads { heads: heads as u32 }), &[rows])
    }

    fn spikes(&mut self, code: Code, steps: u16, curve: Curve, width: usize) -> Option<Value> {
        let x = self.rows(width)?;
        let constants = if curve == Curve::Identity { 2 } else { 4 };
        let mut args = vec![x];
        args.extend((0..constants).map(|i| if i < 2 { self.numbers(&[width]) } else { self.positive(&[width]) }));
        self.add(Op::Spike(SpikeOp::Fire { code, steps, curve }), &args)
    }

    fn operand(&mut self, kind: DrawnOperand) -> Option<Value> {
        match kind {
            DrawnOperand::Number(x) => Some(self.constant(&[], vec![x])),
            DrawnOperand::One(rank) => Some(self.numbers(&vec![1; rank])),
            DrawnOperand::Constant(sizes) => Some(self.numbers(sizes)),
            DrawnOperand::Turned(rows, columns) => {
                let w = self.numbers(&[rows, columns]);
                self.add(Op::Array(ArrayOp::Transpose(Perm::new(&[1, 0])?)), &[w])
            }
            DrawnOperand::Bytes(rows, columns) => {
                let bytes = (0..rows * columns).map(|_| (self.draw.below(255) as i32 - 127) as i8).collect();
                let name = format!("c{}", self.builder.graph().weights.len());
                Some(self.builder.weight(&name, Arc::new(Tensor::i8(&[rows, columns], bytes))))
            }
            DrawnOperand::Ints(count) => {
                let data = (0..count).map(|_| self.draw.of(&[0, 2, 4])).collect();
                let name = format!("c{}", self.builder.graph().weights.len());
                Some(self.builder.weight(&name, Arc::new(Tensor::i32(&[count], data))))
            }
            DrawnOperand::Tokens => self.add(Op::Leaf(LeafOp::Tokens), &[]),
            DrawnOperand::Rows(width) => self.rows(width),
            DrawnOperand::Heads(heads, width) => self.heads(heads, width),
            DrawnOperand::HeadsLater(heads, width) => {
                let rows = self.rows(heads * width)?;
                let dims = [Dim::Tokens, Dim::Fixed(heads as u32), Dim::Fixed(width as u32)];
                self.add(Op::Array(ArrayOp::Reshape(Shape::new(&dims))), &[rows])
            }
            DrawnOperand::Batch(width) => {
                let rows = self.rows(width)?;
                self.add(
                    Op::Array(ArrayOp::Reshape(Shape::new(&[Dim::Fixed(1), Dim::Tokens, Dim::Fixed(width as u32)]))),
                    &[rows],
                )
            }
            DrawnOperand::Scores => {
                let [q, k] = [self.rows(4)?, self.rows(4)?];
                let k = self.add(Op::Array(ArrayOp::Transpose(Perm::new(&[1, 0])?)), &[k])?;
                self.add(Op::Array(ArrayOp::MatMul), &[q, k])
            }
            DrawnOperand::HeadScores(heads) => {
                let [q, k] = [self.heads(heads, 2)?, self.heads(heads, 2)?];
                let k = self.add(Op::Array(ArrayOp::Transpose(Perm::new(&[0, 2, 1])?)), &[k])?;
                self.add(Op::Array(ArrayOp::MatMul), &[q, k])
            }
            DrawnOperand::Gate(kind) => {
                let of = *self.drawn.values().next()?;
                self.gate(kind, of)
            }
            DrawnOperand::Spikes(code, steps, curve, width) => self.spikes(code, steps, curve, width),
            DrawnOperand::Current(code, steps, width) => {
                let spikes = self.spikes(code, steps, Curve::Identity, width)?;
                let w = self.operand(DrawnOperand::Bytes(width, 4))?;
                self.add(Op::Spike(SpikeOp::Synapse), &[spikes, w])
            }
        }
    }

    fn gate(&mut self, kind: u8, x: Value) -> Option<Value> {
        let two = |this: &mut Self, kind, a, b: f32| {
            let b = this.constant(&[], vec![b]);
            this.add(Op::Array(ArrayOp::Binary(kind)), &[a, b])
        };
        let half_of_one_more = |this: &mut Self, unary, x| {
            let y = this.add(Op::Array(ArrayOp::Unary(unary)), &[x])?;
            let y = two(this, Binary::Add, y, 1.0)?;
            two(this, Binary::Mul, y, 0.5)
        };
        match kind {
            0 => self.add(Op::Array(ArrayOp::Unary(Unary::Sigmoid)), &[x]),
            1 => {
                let y = self.add(Op::Array(ArrayOp::Unary(Unary::Neg)), &[x])?;
                let y = self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[y])?;
                two(self, Binary::Add, y, 1.0)
            }
            2 => {
                let y = two(self, Binary::Mul, x, std::f32::consts::FRAC_1_SQRT_2)?;
                half_of_one_more(self, Unary::Erf, y)
            }
            3 => {
                let cube = two(self, Binary::Pow, x, 3.0)?;
                let cube = two(self, Binary::Mul, cube, 0.044_715)?;
                let y = self.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, cube])?;
                let y = two(self, Binary::Mul, y, 0.797_884_6)?;
                half_of_one_more(self, Unary::Tanh, y)
            }
            _ => {
                let y = two(self, Binary::Mul, x, 1.702)?;
                self.add(Op::Array(ArrayOp::Unary(Unary::Sigmoid)), &[y])
            }
        }
    }

    /// Attention as it is written out: patterns of so many shapes that draws hardly ever fit.
    fn written_attention(&mut self, grouped: bool, scaled: bool, alibi: bool) -> Option<Value> {
        let [kv, group, width] = [self.draw.of(&[1, 2]), self.draw.of(&[2, 3]), self.draw.of(&[1, 2, 4])];
        let heads = if grouped { kv * group } else { kv };
        let [kv_dim, group_dim, width_dim, heads_dim] = [kv, group, width, heads].map(|n| Dim::Fixed(n as u32));
        let (one, n) = (Dim::Fixed(1), Dim::Tokens);
        let shaped = |this: &mut Self, dims: &[Dim], x| {
            if grouped { this.add(Op::Array(ArrayOp::Reshape(Shape::new(dims))), &[x]) } else { Some(x) }
        };
        let q = self.heads(heads, width)?;
        let q = shaped(self, &[kv_dim, group_dim, n, width_dim], q)?;
        let k = self.heads(kv, width)?;
        let k = self.add(Op::Array(ArrayOp::Transpose(Perm::new(&[0, 2, 1])?)), &[k])?;
        let k = shaped(self, &[kv_dim, one, width_dim, n], k)?;
        let mut scores = self.add(Op::Array(ArrayOp::MatMul), &[q, k])?;
        if scaled {
            let scale = self.constant(&[], vec![0.5]);
            scores = self.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[scores, scale])?;
        }
        if alibi {
            let falls = self.positive(&[heads]);
            scores = self.add(Op::Array(ArrayOp::Alibi), &[scores, falls])?;
        }
        let (keep, drop, window) = (Scalar::new(1.0), Scalar::new(0.0), self.draw.of(&[None, Some(2)]));
        let mask = self.add(Op::Array(ArrayOp::CausalMask { keep, drop, window }), &[])?;
        let never = self.constant(&[], vec![-1e9]);
        let scores = self.add(Op::Array(ArrayOp::Where), &[mask, scores, never])?;
        let weights = self.add(Op::Array(ArrayOp::Softmax), &[scores])?;
        let v = self.heads(kv, width)?;
        let v = shaped(self, &[kv_dim, one, n, width_dim], v)?;
        let mixed = self.add(Op::Array(ArrayOp::MatMul), &[weights, v])?;
        let mixed = shaped(self, &[heads_dim, n, width_dim], mixed)?;
        self.add(Op::Array(ArrayOp::MergeHeads), &[mixed])
    }

    /// The value of a pattern, if what was drawn for it fits. `usual`: rows of operands that its place mostly has.
    fn tree(&mut self, tree: &Tree, usual: &[usize]) -> Option<Value> {
        match tree {
            Tree::Any(var) => {
                let number = var.as_u32()?;
                if let Some(&value) = self.drawn.get(&number) {
                    return Some(value);
                }
                self.left = self.left.checked_sub(1)?;
                // Operands of one operation are often alike.
                let known: Vec<DrawnOperand> = self
                    .kinds
                    .iter()
                    .copied()
                    .filter(|kind| usual.iter().any(|&row| OPERANDS[row].contains(kind)))
                    .collect();
                let row = OPERANDS[self.draw.of(usual)];
                let alike = !known.is_empty() && self.draw.below(2) == 0;
                let kind = if alike { self.draw.of(&known) } else { self.draw.of(row) };
                let value = self.operand(kind)?;
                self.kinds.push(kind);
                self.drawn.insert(number, value);
                Some(value)
            }
            Tree::Term { head, label, args } => (0..TRIES).find_map(|_| {
                let before = (self.drawn.clone(), self.labels.clone(), self.kinds.len());
                let found = self.term(head, label.and_then(|label| label.as_u32()), args);
                if found.is_none() {
                    (self.drawn, self.labels) = (before.0, before.1);
                    self.kinds.truncate(before.2);
                }
                found
            }),
        }
    }

    fn term(&mut self, head: &str, label: Option<u32>, args: &[Tree]) -> Option<Value> {
        let args = args.iter().enumerate().map(|(i, arg)| self.tree(arg, usual_rows(head, i)));
        let args = args.collect::<Option<Vec<Value>>>()?;
        let types: Vec<Type> = args.iter().map(|&arg| self.builder.ty(arg)).collect();
        let known = label.and_then(|label| self.labels.get(&label)).copied();
        let mut ops = known.map_or_else(|| operations(head, &types), |op| vec![op]);
        ops.retain(|op| op.infer(&types).is_ok());
        if ops.is_empty() {
            return None;
        }
        let op = self.draw.of(&ops);
        self.labels.extend(label.map(|label| (label, op)));
        self.add(op, &args)
    }
}

/// Operations of a name that operands of these types may have.
fn operations(head: &str, args: &[Type]) -> Vec<Op> {
    static FIXED: OnceLock<Vec<Op>> = OnceLock::new();
    if let ("transpose" | "reshape" | "slice", Some(ty)) = (head, args.first()) {
        return moves(ty.shape()).into_iter().filter(|op| op.name() == head).collect();
    }
    if let ("reduce_sum", Some(ty)) = (head, args.first()) {
        let mut dims = ty.shape().dims().to_vec();
        let Some(last) = dims.last_mut() else { return Vec::new() };
        *last = Dim::Fixed(1);
        return vec![Op::Training(TrainingOp::ReduceSum(Shape::new(&dims)))];
    }
    let fixed = FIXED.get_or_init(fixed_operations).iter().copied();
    let found: Vec<Op> = fixed.filter(|op| op.name() == head).collect();
    assert!(!found.is_empty(), "no generator for `{head}`");
    found
}

/// Every operation whose attributes do not depend on its operands.
fn fixed_operations() -> Vec<Op> {
    let mut all = vec![
        Op::Leaf(LeafOp::Tokens),
        Op::Leaf(LeafOp::Positions),
        Op::Leaf(LeafOp::Opening),
        Op::Array(ArrayOp::Where),
        Op::Array(ArrayOp::Alibi),
        Op::Array(ArrayOp::MatMul),
        Op::Array(ArrayOp::Mean),
        Op::Array(ArrayOp::Softmax),
        Op::Array(ArrayOp::MergeHeads),
        Op::Dense(DenseOp::Embed),
        Op::Dense(DenseOp::Centre),
        Op::Dense(DenseOp::Hadamard(HadamardSize { order: 1, power: 1 })),
        Op::Dense(DenseOp::AtStart),
        Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(1e-3), heads: 1 }),
        Op::Dense(DenseOp::Linear(Layout::InputMajor)),
        Op::Dense(DenseOp::Linear(Layout::OutputMajor)),
        Op::Level(LevelOp::MatMulInt),
        Op::Level(LevelOp::ScaleShift),
        Op::Level(LevelOp::RowMaxAbs { heads: 1 }),
        Op::Level(LevelOp::GatherChannels),
        Op::Level(LevelOp::HeadLinear),
        Op::Spike(SpikeOp::Synapse),
        Op::Spike(SpikeOp::Decode),
    ];
    all.extend(Unary::ALL.map(|kind| Op::Array(ArrayOp::Unary(kind))));
    all.extend(Binary::ALL.map(|kind| Op::Array(ArrayOp::Binary(kind))));
    all.extend(Curve::ALL.map(|curve| Op::Dense(DenseOp::Curve(curve))));
    all.extend(Curve::ALL.map(|curve| Op::Dense(DenseOp::Gated(curve))));
    let masks = [(1.0, 0.0), (0.0, -1e4), (0.0, -1e9), (0.0, 1.0), (0.0, 1e9)];
    let masks = [None, Some(2)].into_iter().flat_map(|window| masks.map(|(keep, drop)| (keep, drop, window)));
    all.extend(masks.map(|(keep, drop, window)| {
        Op::Array(ArrayOp::CausalMask { keep: Scalar::new(keep), drop: Scalar::new(drop), window })
    }));
    for heads in [1, 2] {
        all.push(Op::Array(ArrayOp::SplitHeads { heads }));
        all.push(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(1e-3), heads: 2 * heads }));
        all.extend(Pairs::ALL.map(|pairs| Op::Dense(DenseOp::Rotary { heads, pairs })));
        let heads = Heads::equal(heads);
        all.push(Op::Dense(DenseOp::Attention { heads, scale: Scalar::new(0.5) }));
        let faded = Heads { alibi: true, ..heads };
        all.push(Op::Dense(DenseOp::Attention { heads: faded, scale: Scalar::new(0.5) }));
        all.push(Op::Level(LevelOp::Ssa { heads: faded, variant: Ssa::Ttfs { phases: 8 } }));
        let own = Heads { thresholds: true, ..heads };
        all.push(Op::Level(LevelOp::Ssa { heads: own, variant: Ssa::Ttfs { phases: 8 } }));
        let both = Heads { alibi: true, ..own };
        all.push(Op::Level(LevelOp::Ssa { heads: both, variant: Ssa::TopK { phases: 8, keys: 2 } }));
        all.push(Op::Level(LevelOp::RowMaxAbs { heads: 2 * heads.query }));
        let kinds = [
            Ssa::Ttfs { phases: 8 },
            Ssa::TopK { phases: 8, keys: 2 },
            Ssa::Coincidence { squared: false },
            Ssa::Coincidence { squared: true },
            Ssa::Linear { guard: 8 },
            Ssa::Lif { output: Output::Mean },
            Ssa::Lif { output: Output::Spikes },
        ];
        all.extend(kinds.map(|variant| Op::Level(LevelOp::Ssa { heads, variant })));
    }
    for code in [Code::Unary, Code::Binary] {
        for curve in Curve::ALL {
            all.push(Op::Level(LevelOp::Quant { code, steps: 3, curve }));
            all.push(Op::Spike(SpikeOp::Fire { code, steps: 3, curve }));
            all.push(Op::Level(LevelOp::GatedQuant { code, steps: 3, curve }));
            all.push(Op::Spike(SpikeOp::GatedFire { code, steps: 3, curve }));
        }
    }
    all
}

/// What changes the order, the shape or the extent of a value.
fn moves(shape: Shape) -> Vec<Op> {
    let mut moves: Vec<Op> = orders(shape.rank())
        .iter()
        .filter_map(|axes| Perm::new(axes))
        .map(|perm| Op::Array(ArrayOp::Transpose(perm)))
        .collect();
    let fixed: u32 = shape.dims().iter().map(|dim| if let Dim::Fixed(n) = dim { *n } else { 1 }).product();
    let tokens = shape.dims().iter().filter(|dim| **dim == Dim::Tokens).count();
    let (all, one, n) = (Dim::Fixed(fixed), Dim::Fixed(1), Dim::Tokens);
    let mut reshape = |dims: &[Dim]| moves.push(Op::Array(ArrayOp::Reshape(Shape::new(dims))));
    for first in (1..=fixed).filter(|first| fixed.is_multiple_of(*first)) {
        let (a, b) = (Dim::Fixed(first), Dim::Fixed(fixed / first));
        match tokens {
            0 => [&[a, b][..], &[one, a, b]].into_iter().for_each(&mut reshape),
            1 => [&[n, a, b][..], &[a, n, b], &[one, n, a, b]].into_iter().for_each(&mut reshape),
            _ => [&[a, n, n][..], &[a, n, b, n]].into_iter().for_each(&mut reshape),
        }
    }
    match tokens {
        0 => reshape(&[all]),
        1 => [&[n, all][..], &[one, n, all], &[n, one, all]].into_iter().for_each(&mut reshape),
        _ => [&[n, n][..], &[n, all, n]].into_iter().for_each(&mut reshape),
    }
    for (axis, dim) in shape.dims().iter().enumerate() {
        let Dim::Fixed(size) = *dim else { continue };
        let parts = [(0, size / 2), (size / 2, size - size / 2), (size - 1, 1)].into_iter().filter(|(_, len)| *len > 0);
        moves.extend(parts.map(|(start, len)| Op::Array(ArrayOp::Slice { axis: axis as u8, start, len })));
    }
    moves
}

/// All orders of `0..rank`.
fn orders(rank: usize) -> Vec<Vec<usize>> {
    (0..rank).fold(vec![Vec::new()], |orders, last| {
        let longer = |order: Vec<usize>| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, last);
                order
            })
        };
        orders.into_iter().flat_map(longer).collect()
    })
}

/// Both sides of a rule as outputs of one graph.
fn both_sides(left: &Graph, root: Value, expr: &Expr, classes: &[Id]) -> Result<Graph, String> {
    let mut builder = Builder::new(Stage::Imported, left.context);
    let mut map: Vec<Value> = Vec::new();
    for (value, node) in left.iter() {
        let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        map.push(match left.constant(value) {
            Some(weight) => builder.weight(&weight.name, weight.tensor.clone()),
            None => builder.add(node.op, &args, "").map_err(|e| e.message)?,
        });
    }
    let of_class = classes.iter().zip(&map).map(|(&class, &value)| (class, value)).rev().collect();
    let right = build(&mut builder, expr, &of_class)?;
    let (a, b) = (builder.ty(map[root.index()]), builder.ty(right));
    if a != b {
        return Err(format!("the left side is {a}, the right side {b}"));
    }
    Ok(builder.finish(vec![("left".into(), map[root.index()]), ("right".into(), right)]))
}

fn build(builder: &mut Builder, expr: &Expr, of_class: &BTreeMap<Id, Value>) -> Result<Value, String> {
    match expr {
        Expr::Class(id) => of_class.get(id).copied().ok_or_else(|| "a class that the match did not find".into()),
        Expr::Op(op, args) => {
            let args = args.iter().map(|arg| build(builder, arg, of_class)).collect::<Result<Vec<Value>, _>>()?;
            builder.add(*op, &args, "").map_err(|e| e.message)
        }
        Expr::Number(x) => Ok(builder.weight("number", Arc::new(Tensor::f32(&[], vec![*x])))),
        Expr::Zeros(n) => Ok(builder.weight("zeros", Arc::new(Tensor::f32(&[*n], vec![0.0; *n])))),
    }
}

/// Whether sums may overflow or features be negative, as in no program.
fn is_no_program(graph: &Graph) -> bool {
    let promises = [ErrorCode::promise(12), ErrorCode::promise(13)];
    verify(graph).is_err_and(|errors| errors.iter().any(|error| promises.contains(&error.code)))
}

/// The outputs; `None` where the draw says nothing: a value that is not finite, a product as large as what masks hide, or what
/// no program may hold.
fn evaluate(graph: &Graph, tokens: &[u32]) -> Option<Vec<Array<f64>>> {
    if is_no_program(graph) {
        return None;
    }
    let evaluator = Evaluator::<f64>::new(graph);
    let done = evaluator.run(tokens, &mut Memory::new(graph)).ok()?;
    let product = |op| matches!(op, Op::Array(ArrayOp::Binary(Binary::Mul) | ArrayOp::MatMul));
    let large = |value| {
        let Content::Real(x) = &evaluator.get(&done, value).content else { return false };
        x.iter().any(|x| x.abs() > -f64::from(MASKED) / 10.0)
    };
    let hides = graph.nodes.iter().any(|node| matches!(node.op, Op::Array(ArrayOp::CausalMask { .. })));
    if hides && graph.iter().any(|(value, node)| product(node.op) && large(value)) {
        return None;
    }
    Some(graph.outputs.iter().map(|(_, value)| evaluator.get(&done, *value).clone()).collect())
}

/// How far two evaluations of these operations may differ, as a share: by class of operation. Integers and moves are exact;
/// a curve is recognised by samples; all else is rounded.
fn tolerance(graph: &Graph) -> f64 {
    let exact = |op: &Op| {
        matches!(
            op,
            Op::Leaf(LeafOp::Tokens)
                | Op::Leaf(LeafOp::Positions | LeafOp::Opening)
                | Op::Leaf(LeafOp::Weight(_))
                | Op::Dense(DenseOp::Embed)
                | Op::Array(ArrayOp::Transpose(_))
                | Op::Array(ArrayOp::Reshape(_))
                | Op::Array(ArrayOp::Slice { .. })
                | Op::Array(ArrayOp::SplitHeads { .. })
                | Op::Array(ArrayOp::MergeHeads)
        )
    };
    if graph.nodes.iter().any(|node| matches!(node.op, Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_)))) {
        return TOLERANCE;
    }
    if graph.nodes.iter().all(|node| exact(&node.op)) { 0.0 } else { 1e-8 }
}

/// Where the two differ by more than a share of `tolerance`. Scores that a mask puts to at most half of `MASKED` are equal:
/// softmax makes 0 of them.
fn difference(a: &Array<f64>, b: &Array<f64>, tolerance: f64) -> Option<String> {
    let (Content::Real(x), Content::Real(y)) = (&a.content, &b.content) else {
        return (a != b).then(|| format!("{a:?} and {b:?}"));
    };
    let masked = |x: f64| x <= f64::from(MASKED) / 2.0;
    let most = x.iter().filter(|x| !masked(**x)).fold(1.0, |most: f64, x| most.max(x.abs()));
    let far = |(x, y): &(&f64, &f64)| (*x - *y).abs() > tolerance * most && !(masked(**x) && masked(**y));
    let found = x.iter().zip(y).find(far).map(|(x, y)| format!("{x} and {y}"));
    found.or((a.sizes != b.sizes).then(|| format!("sizes {:?} and {:?}", a.sizes, b.sizes)))
}

/// Draws until the rule held for `WANTED` draws. Returns for how many it held.
fn check(rule: &RewriteRule, draw: &mut Draw) -> Result<usize, String> {
    let pattern = Pattern::parse(rule.left);
    let mut held = 0;
    for _ in 0..MAX_DRAWS {
        if held == WANTED {
            break;
        }
        let mut making = Making::new(draw);
        let found = match rule.name {
            "alibi" => making.written_attention(false, true, true),
            "alibi-unscaled" => making.written_attention(false, false, true),
            "grouped" => making.written_attention(true, true, false),
            "grouped-unscaled" => making.written_attention(true, false, false),
            "grouped-alibi" => making.written_attention(true, true, true),
            "grouped-alibi-unscaled" => making.written_attention(true, false, true),
            _ => making.tree(pattern.tree(), ALL_ROWS),
        };
        let Some(root) = found else { continue };
        let left = making.builder.finish(vec![("left".into(), root)]);
        let (terms, classes) = from_graph(&left, TOLERANCE);
        let root = left.outputs[0].1;
        let class = terms.find(classes[root.index()]);
        let classes: Vec<Id> = classes.iter().map(|class| terms.find(*class)).collect();
        let tokens: Vec<u32> = (0..TOKENS).map(|_| draw.below(2) as u32).collect();
        for subst in pattern.search_eclass(&terms, class).map_or(Vec::new(), |found| found.substs) {
            let Some(expr) = (rule.right)(&pattern.matched(&terms, class, &subst)) else { continue };
            let told = |what: String| format!("{}: {what}\n{}", rule.name, snnc_ir::text::print(&left));
            let graph = both_sides(&left, root, &expr, &classes).map_err(told)?;
            if evaluate(&left, &tokens).is_none() {
                continue;
            }
            let sides =
                evaluate(&graph, &tokens).ok_or("the right side cannot be evaluated".to_string()).map_err(told)?;
            if let Some(what) = difference(&sides[0], &sides[1], tolerance(&graph)) {
                return Err(format!("{what}, right side {expr:?}")).map_err(told);
            }
            held += 1;
        }
    }
    Ok(held)
}

#[test]
fn every_rule_is_a_theorem() {
    let mut draw = Draw(1);
    let mut wrong = Vec::new();
    for (table, rules) in [("raise", raise::RULES), ("simplify", simplify::RULES), ("collapse", collapse::RULES)] {
        for rule in rules {
            match check(rule, &mut draw) {
                Ok(0) => wrong.push(format!("{table} {}: no draw makes its right side apply", rule.name)),
                Ok(_) => {}
                Err(e) => wrong.push(format!("{table} {e}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} rules:\n{}", wrong.len(), wrong.join("\n"));
}

/// Elements that no operand above has would hide a type of the IR from the test.
#[test]
fn operands_of_every_type_are_drawn() {
    let mut draw = Draw(1);
    let mut making = Making::new(&mut draw);
    let types: Vec<Type> = OPERANDS
        .concat()
        .iter()
        .filter_map(|kind| {
            let value = making.operand(*kind)?;
            Some(making.builder.ty(value))
        })
        .collect();
    for elem in [Elem::F32, Elem::I32, Elem::I8] {
        assert!(types.iter().any(|ty| ty.elem() == Some(elem)), "{elem:?}");
    }
    assert!(types.iter().any(|ty| matches!(ty, Type::Train { .. })));
}
