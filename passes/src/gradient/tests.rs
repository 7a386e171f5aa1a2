//! Gradients against central differences, in f64, with the evaluator as the reference.

use super::*;
use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::hadamard::HadamardSize;
use snnc_ir::op::Surrogate;
use snnc_ir::op::TrainingOp;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::op::{Pairs, Scalar};
use snnc_ir::{Curve, Elem, Type, verify};

/// Tokens that a case is run on, and those that follow them.
const TOKENS: [u32; 5] = [1, 0, 3, 2, 3];
const TARGETS: [u32; 5] = [0, 3, 2, 3, 1];

/// Relative to the largest element of a gradient.
const TOLERANCE: f64 = 1e-6;

/// Numbers between -1 and 1 that look like chance, the same every time.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u32 << 23) as f32) - 1.0
    };
    (0..count).map(next).collect()
}

struct LossSketch {
    builder: Builder,
    parameters: Vec<String>,
}

impl LossSketch {
    fn new() -> Self {
        Self { builder: Builder::new(Stage::Training, 8), parameters: Vec::new() }
    }

    /// A parameter of random numbers, `scale` at most and `shift` on average.
    fn parameter(&mut self, sizes: &[usize], scale: f32, shift: f32) -> Value {
        let name = format!("p{}", self.parameters.len());
        let data = numbers(sizes.iter().product(), self.parameters.len() as u64 + 7);
        let data = data.into_iter().map(|x| x * scale + shift).collect();
        let value = self.builder.weight(&name, Arc::new(Tensor::f32(sizes, data)));
        self.parameters.push(name);
        value
    }

    fn constant(&mut self, name: &str, sizes: &[usize]) -> Value {
        let data = numbers(sizes.iter().product(), name.len() as u64);
        self.builder.weight(name, Arc::new(Tensor::f32(sizes, data)))
    }

    fn add(&mut self, op: Op, args: &[Value]) -> Value {
        self.builder.add(op, args, op.name()).expect("the operands fit")
    }

    fn training(&mut self, op: TrainingOp, args: &[Value]) -> Value {
        self.add(Op::Training(op), args)
    }

    /// `f32[tokens,width]` that depends on a parameter, every row another one.
    fn rows(&mut self, width: usize, scale: f32) -> Value {
        let table = self.parameter(&[8, width], scale, 0.0);
        let positions = self.add(Op::Leaf(LeafOp::Positions), &[]);
        self.add(Op::Dense(DenseOp::Embed), &[positions, table])
    }

    /// A loss in which every element of `y` has a weight of its own.
    fn weigh(&mut self, y: Value) -> Value {
        let Type::Tensor { elem: Elem::F32, shape } = self.builder.ty(y) else { panic!("an f32 tensor") };
        let sizes = shape.concrete(TOKENS.len(), 0);
        let weights = self.constant("a weight for every element", &[sizes.iter().product()]);
        let dims: Vec<usize> = sizes.clone();
        let weights = self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(&dims))), &[weights]);
        // Shapes with tokens in them are not those of constants: all are made fixed.
        let y = if shape == Shape::fixed(&dims) { y } else { self.fixed(y, &dims) };
        let product = self.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[y, weights]);
        let flat = self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(&[sizes.iter().product()]))), &[product]);
        self.training(TrainingOp::ReduceSum(Shape::fixed(&[1])), &[flat])
    }

    /// The same with numbers for sizes: by a product with a matrix of ones and zeros for every axis of tokens.
    fn fixed(&mut self, y: Value, sizes: &[usize]) -> Value {
        let n = sizes.len();
        let dims = self.builder.ty(y).shape().dims().to_vec();
        let mut y = y;
        for axis in (0..n).filter(|&axis| dims[axis] == Dim::Tokens) {
            // The axis last, times `eye[positions]`, and back.
            let table: Vec<f32> =
                (0..8 * TOKENS.len()).map(|i| f32::from(u8::from(i / TOKENS.len() == i % TOKENS.len()))).collect();
            let eye = self.builder.weight("eye", Arc::new(Tensor::f32(&[8, TOKENS.len()], table)));
            let positions = self.add(Op::Leaf(LeafOp::Positions), &[]);
            let eye = self.add(Op::Dense(DenseOp::Embed), &[positions, eye]);
            let mut axes: Vec<usize> = (0..n).collect();
            axes.swap(axis, n - 1);
            let perm = Op::Array(ArrayOp::Transpose(Perm::new(&axes).expect("an exchange")));
            let alone = n == 1;
            let turned = if alone {
                self.add(Op::Array(ArrayOp::Reshape(Shape::new(&[Dim::Fixed(1), Dim::Tokens]))), &[y])
            } else {
                self.add(perm, &[y])
            };
            let product = self.add(Op::Array(ArrayOp::MatMul), &[turned, eye]);
            y = if alone {
                self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(sizes))), &[product])
            } else {
                self.add(perm, &[product])
            };
        }
        y
    }

    fn graph(self, loss: Value) -> (Graph, Vec<String>) {
        (self.builder.finish(vec![(LOSS.into(), loss)]), self.parameters)
    }
}

fn run(evaluator: &Evaluator<'_, f64>, graph: &Graph) -> Vec<Vec<f64>> {
    let done = evaluator.run(&TOKENS, &mut Memory::new(graph)).expect("it runs");
    let number = |(_, value): &(String, Value)| match &evaluator.get(&done, *value).content {
        Content::Real(x) => x.clone(),
        Content::Int(_) | Content::Train(_) => Vec::new(),
    };
    graph.outputs.iter().map(number).collect()
}

/// Gradients of the loss by all parameters agree with central differences.
fn check(name: &str, sketch: LossSketch, loss: Value) {
    let (graph, parameters) = sketch.graph(loss);
    assert_eq!(verify::verify(&graph), Ok(()), "{name}");
    let back = gradient(&graph, &parameters).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    assert_eq!(verify::verify(&back), Ok(()), "{name}");
    let evaluator = Evaluator::<f64>::with_targets(&back, &TARGETS);
    let gradients = &run(&evaluator, &back)[1..];
    for (parameter, gradient) in parameters.iter().zip(gradients) {
        let value = weight_named(&graph, parameter).expect("it is there");
        let start: Vec<f64> = graph
            .constant(value)
            .expect("a constant")
            .tensor
            .as_f32()
            .expect("reals")
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        let at = |i: usize, by: f64| {
            let mut moved = start.clone();
            moved[i] += by;
            let mut evaluator = Evaluator::<f64>::with_targets(&graph, &TARGETS);
            evaluator.set(value, moved);
            run(&evaluator, &graph)[0][0]
        };
        let step = 1e-5;
        let differences: Vec<f64> = (0..start.len()).map(|i| (at(i, step) - at(i, -step)) / (2.0 * step)).collect();
        let largest = differences.iter().fold(1e-3, |most: f64, x| most.max(x.abs()));
        for (i, (a, b)) in gradient.iter().zip(&differences).enumerate() {
            assert!(
                (a - b).abs() <= TOLERANCE * largest,
                "{name}, {parameter}[{i}]: {a} by the pass, {b} by differences"
            );
        }
        assert!(gradient.iter().any(|x| x.abs() > 1e-6), "{name}, {parameter}: all of it is 0");
    }
}

#[test]
fn elementwise() {
    for kind in [Unary::Neg, Unary::Exp] {
        let mut s = LossSketch::new();
        let x = s.rows(3, 1.0);
        let y = s.add(Op::Array(ArrayOp::Unary(kind)), &[x]);
        let loss = s.weigh(y);
        check(kind.name(), s, loss);
    }
    for curve in Curve::ALL {
        let mut s = LossSketch::new();
        let x = s.rows(3, 3.0);
        let y = s.add(Op::Dense(DenseOp::Curve(curve)), &[x]);
        let loss = s.weigh(y);
        check(curve.name(), s, loss);
    }
}

/// Every way that two operands broadcast.
#[test]
fn arithmetic_of_two() {
    for kind in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
        for sizes in [vec![], vec![1], vec![3], vec![1, 3], vec![2, 1, 1], vec![2, 1, 3]] {
            for second in [true, false] {
                let mut s = LossSketch::new();
                let x = s.rows(3, 0.4);
                let two = s.constant("two", &[1]);
                let x = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, two]);
                let p = s.parameter(&sizes, 0.3, 2.0);
                let y = s.add(Op::Array(ArrayOp::Binary(kind)), &if second { [x, p] } else { [p, x] });
                let loss = s.weigh(y);
                check(&format!("{} {sizes:?}", kind.name()), s, loss);
            }
        }
    }
}

#[test]
fn products_and_moves() {
    let mut s = LossSketch::new();
    let (x, w) = (s.rows(4, 1.0), s.parameter(&[4, 6], 1.0, 0.0));
    let y = s.add(Op::Array(ArrayOp::MatMul), &[x, w]);
    let heads = s.add(Op::Array(ArrayOp::SplitHeads { heads: 2 }), &[y]);
    let turned = s.add(Op::Array(ArrayOp::Transpose(Perm::new(&[0, 2, 1]).expect("an order"))), &[heads]);
    let scores = s.add(Op::Array(ArrayOp::MatMul), &[heads, turned]);
    let maps = s.parameter(&[2, 3, 2], 1.0, 0.0);
    let mixed = s.add(Op::Array(ArrayOp::MatMul), &[scores, heads]);
    let mapped = s.add(Op::Array(ArrayOp::MatMul), &[mixed, maps]);
    let y = s.add(Op::Array(ArrayOp::MergeHeads), &[mapped]);
    let y = s.add(Op::Array(ArrayOp::Reshape(Shape::new(&[Dim::Tokens, Dim::Fixed(2), Dim::Fixed(2)]))), &[y]);
    let loss = s.weigh(y);
    check("matmul", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(6, 1.0);
    let x = s.add(Op::Array(ArrayOp::Reshape(Shape::new(&[Dim::Tokens, Dim::Fixed(2), Dim::Fixed(3)]))), &[x]);
    let x = s.add(Op::Array(ArrayOp::Transpose(Perm::new(&[1, 2, 0]).expect("an order"))), &[x]);
    let loss = s.weigh(x);
    check("transpose", s, loss);
    // A matrix that all heads share.
    let mut s = LossSketch::new();
    let x = s.rows(4, 1.0);
    let heads = s.add(Op::Array(ArrayOp::SplitHeads { heads: 2 }), &[x]);
    let w = s.parameter(&[2, 3], 1.0, 0.0);
    let y = s.add(Op::Array(ArrayOp::MatMul), &[heads, w]);
    let loss = s.weigh(y);
    check("a shared matrix", s, loss);
}

#[test]
fn reductions() {
    let mut s = LossSketch::new();
    let x = s.rows(3, 1.0);
    let y = s.training(TrainingOp::ReduceSum(Shape::rows(1)), &[x]);
    let z = s.training(TrainingOp::ReduceSum(Shape::fixed(&[3])), &[x]);
    let wide = s.training(TrainingOp::BroadcastTo(Shape::rows(3)), &[y]);
    let all = s.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[wide, z]);
    let loss = s.weigh(all);
    check("sum and repeat", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(4, 2.0);
    let y = s.add(Op::Array(ArrayOp::Softmax), &[x]);
    let loss = s.weigh(y);
    check("softmax", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(5, 1.0);
    let y = s.add(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(1e-5), heads: 1 }), &[x]);
    let loss = s.weigh(y);
    check("rms_norm", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(6, 1.0);
    let y = s.add(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(1e-5), heads: 2 }), &[x]);
    let loss = s.weigh(y);
    check("rms_norm by heads", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(5, 1.0);
    let y = s.add(Op::Dense(DenseOp::Centre), &[x]);
    let loss = s.weigh(y);
    check("centre", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(24, 1.0);
    let y = s.add(Op::Dense(DenseOp::Hadamard(HadamardSize { order: 12, power: 1 })), &[x]);
    let loss = s.weigh(y);
    check("hadamard", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(5, 1.0);
    let y = s.add(Op::Level(LevelOp::RowMaxAbs { heads: 1 }), &[x]);
    let loss = s.weigh(y);
    check("peak", s, loss);
    let mut s = LossSketch::new();
    let x = s.rows(6, 1.0);
    let y = s.add(Op::Level(LevelOp::RowMaxAbs { heads: 2 }), &[x]);
    let loss = s.weigh(y);
    check("peaks of heads", s, loss);
}

#[test]
fn channels_and_tables() {
    let mut s = LossSketch::new();
    let x = s.rows(4, 1.0);
    let channels = s.builder.weight("channels", Arc::new(Tensor::i32(&[3], vec![2, 0, 2])));
    let y = s.add(Op::Level(LevelOp::GatherChannels), &[x, channels]);
    let (gain, offset) = (s.parameter(&[3], 1.0, 0.0), s.parameter(&[3], 1.0, 0.0));
    let y = s.add(Op::Level(LevelOp::ScaleShift), &[y, gain, offset]);
    let loss = s.weigh(y);
    check("pick, affine", s, loss);
    let mut s = LossSketch::new();
    let table = s.parameter(&[4, 3], 1.0, 0.0);
    let tokens = s.add(Op::Leaf(LeafOp::Tokens), &[]);
    let y = s.add(Op::Dense(DenseOp::Embed), &[tokens, table]);
    let loss = s.weigh(y);
    check("embed", s, loss);
}

#[test]
fn losses() {
    for kl in [true, false] {
        let mut s = LossSketch::new();
        let x = s.rows(4, 2.0);
        let loss = if kl {
            let table = s.constant("the dense network", &[8, 4]);
            let positions = s.add(Op::Leaf(LeafOp::Positions), &[]);
            let reference = s.add(Op::Dense(DenseOp::Embed), &[positions, table]);
            s.training(TrainingOp::Divergence, &[x, reference])
        } else {
            let targets = s.training(TrainingOp::Targets, &[]);
            s.training(TrainingOp::CrossEntropy, &[x, targets])
        };
        // Twice over, so that what comes from behind is not 1.
        let loss = s.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[loss, loss]);
        check("a loss", s, loss);
    }
}

/// Heads turned whole and in part, their pairs halves of a head or neighbours.
#[test]
fn rotations() {
    for pairs in [Pairs::Half, Pairs::Interleaved] {
        for turned in [2, 4, 6] {
            let mut s = LossSketch::new();
            let x = s.rows(12, 1.0);
            let table = s.constant("turns", &[8, turned]);
            let positions = s.add(Op::Leaf(LeafOp::Positions), &[]);
            let turns = s.add(Op::Dense(DenseOp::Embed), &[positions, table]);
            let y = s.add(Op::Dense(DenseOp::Rotary { heads: 2, pairs }), &[x, turns]);
            let loss = s.weigh(y);
            check(&format!("rotary, {turned} of 6, {}", pairs.name()), s, loss);
        }
    }
}

/// A gate of every curve, and what it multiplies; both may be one value.
#[test]
fn gates() {
    for curve in Curve::ALL {
        let mut s = LossSketch::new();
        let (gate, up) = (s.rows(3, 3.0), s.rows(3, 1.0));
        let y = s.add(Op::Dense(DenseOp::Gated(curve)), &[gate, up]);
        let z = s.add(Op::Dense(DenseOp::Gated(curve)), &[y, y]);
        let loss = s.weigh(z);
        check(&format!("gated, {}", curve.name()), s, loss);
    }
}

/// Causal softmax attention of two heads, as a network in training has it, over all tokens or the last.
#[test]
fn attention() {
    for window in [None, Some(2), Some(3)] {
        let mut s = LossSketch::new();
        let heads: Vec<Value> = (0..3)
            .map(|_| {
                let x = s.rows(4, 1.0);
                s.add(Op::Array(ArrayOp::SplitHeads { heads: 2 }), &[x])
            })
            .collect();
        let turned = s.add(Op::Array(ArrayOp::Transpose(Perm::new(&[0, 2, 1]).expect("an order"))), &[heads[1]]);
        let scores = s.add(Op::Array(ArrayOp::MatMul), &[heads[0], turned]);
        let mask = ArrayOp::CausalMask { keep: Scalar::new(0.0), drop: Scalar::new(-1e9), window };
        let mask = s.add(Op::Array(mask), &[]);
        let scores = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[scores, mask]);
        let weights = s.add(Op::Array(ArrayOp::Softmax), &[scores]);
        let mixed = s.add(Op::Array(ArrayOp::MatMul), &[weights, heads[2]]);
        let y = s.add(Op::Array(ArrayOp::MergeHeads), &[mixed]);
        let loss = s.weigh(y);
        check(&format!("attention, window {window:?}"), s, loss);
    }
}

/// Derivatives that are taken to be something else: against their own definition.
#[test]
fn stand_ins_are_as_defined() {
    let one = |op: TrainingOp, x: f32| {
        let mut s = LossSketch::new();
        let table = s.builder.weight("x", Arc::new(Tensor::f32(&[1], vec![x])));
        s.parameters.push("x".into());
        let y = s.training(op, &[table]);
        let three = s.builder.weight("three", Arc::new(Tensor::f32(&[1], vec![3.0])));
        let loss = s.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[y, three]);
        let (graph, parameters) = s.graph(loss);
        let back = gradient(&graph, &parameters).expect("it has one");
        assert_eq!(verify::verify(&back), Ok(()));
        let all = run(&Evaluator::<f64>::new(&back), &back);
        (all[0][0], all[1][0])
    };
    for (x, value, slope) in
        [(2.4, 2.0, 1.0), (-2.5, -3.0, 1.0), (15.4, 15.0, 1.0), (15.6, 15.0, 0.0), (-99.0, -15.0, 0.0)]
    {
        assert_eq!(one(TrainingOp::FakeQuant { most: 15 }, x), (3.0 * value, 3.0 * slope), "{x}");
    }
    for (x, value) in [(2.4, 2.0), (-2.5, -3.0), (0.0, 0.0)] {
        assert_eq!(one(TrainingOp::Floor, x), (3.0 * value, 3.0), "{x}");
    }
    // A step against the gradient lowers it: what is at the lower end or below stays, what is above the range comes back.
    let clamp = TrainingOp::Clamp { least: Scalar::new(-1.0), most: Scalar::new(2.0) };
    for (x, value, slope) in [(0.5, 0.5, 1.0), (-1.0, -1.0, 0.0), (-9.0, -1.0, 0.0), (2.0, 2.0, 1.0), (9.0, 2.0, 1.0)] {
        assert_eq!(one(clamp, x), (3.0 * value, 3.0 * slope), "{x}");
    }
    for (kind, at_0, at_quarter) in [
        (Surrogate::Arctan, 1.0, 1.0 / (1.0 + (std::f64::consts::PI / 4.0).powi(2))),
        (Surrogate::FastSigmoid, 1.0, 1.0 / 7.25f64.powi(2)),
        (Surrogate::Triangle, 1.0, 0.75),
        (Surrogate::Rectangle, 1.0, 1.0),
    ] {
        let step = TrainingOp::Step(kind);
        assert_eq!(one(step, 0.0), (3.0, 3.0 * at_0), "{}", kind.name());
        for (x, value) in [(0.25, 3.0), (-0.25, 0.0)] {
            let (y, slope) = one(step, x);
            assert!(y == value && (slope - 3.0 * at_quarter).abs() < 1e-12, "{} at {x}: {slope}", kind.name());
        }
    }
}

/// A period's gradient is that of a memory that fades evenly: by differences of that.
#[test]
fn periods_of_halving_are_differentiated_as_if_memory_faded_evenly() {
    let mut s = LossSketch::new();
    let period = s.parameter(&[2], 1.0, 4.0);
    let recency = s.training(TrainingOp::DecayMask, &[period]);
    let loss = s.weigh(recency);
    let (graph, parameters) = s.graph(loss);
    let back = gradient(&graph, &parameters).expect("it has one");
    assert_eq!(verify::verify(&back), Ok(()));
    let found = &run(&Evaluator::<f64>::new(&back), &back)[1];
    let n = TOKENS.len();
    let weights = numbers(2 * n * n, "a weight for every element".len() as u64);
    let periods = numbers(2, 7).into_iter().map(|x| f64::from(x + 4.0));
    for (h, period) in periods.enumerate() {
        let faded = |period: f64| -> f64 {
            let pairs = (0..n).flat_map(|i| (0..=i).map(move |j| (i, j)));
            let weight = |(i, j)| f64::from(weights[(h * n + i) * n + j]) * (-((i - j) as f64) / period).exp2();
            pairs.map(weight).sum()
        };
        let difference = (faded(period + 1e-5) - faded(period - 1e-5)) / 2e-5;
        assert!((found[h] - difference).abs() < 1e-8, "{} by the pass, {difference} by differences", found[h]);
    }
}

#[test]
fn what_has_no_gradient_is_said() {
    let mut s = LossSketch::new();
    let x = s.parameter(&[1], 1.0, 0.0);
    let y = s.training(TrainingOp::StopGradient, &[x]);
    let (graph, parameters) = s.graph(y);
    let told = gradient(&graph, &parameters).expect_err("nothing flows");
    assert_eq!(told[0].to_string(), "@p0: the loss does not depend on it");
    let told = gradient(&graph, &["q".to_string()]).expect_err("no such weight");
    assert_eq!(told[0].to_string(), "@q: there is no weight of this name");
}
