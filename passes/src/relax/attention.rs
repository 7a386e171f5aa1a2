//! Attention in training: dense, by time to first spike of all or of the best keys, by features, with spikes for its output.

use super::{Neurons, ParameterKind, Relaxing};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{ArrayOp, DenseOp, Heads, LEVEL_MAX, LeafOp, LevelOp, Scalar, TrainingOp};
use snnc_ir::ssa::meaning::FIRST_SPIKE_WEIGHT;
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::{Binary, Curve, Diagnostic, Dim, Op, Shape, Tensor, Unary, Value, Weight};
use std::sync::Arc;

/// What masks a score; finite, since values are.
const MASKED: f32 = -1e9;

/// What a step of 1 in a period's parameter is, times what thresholds take: an octave.
const OCTAVE: f32 = 1.0;

/// Octaves either way that periods may lie in: so many that none comes to the end, where it would learn no more.
const OCTAVES: u32 = 30;

/// What a row's sum is at least, where training divides by it: 0 over 0 is then 0.
const LEAST: f32 = 1e-6;

impl Relaxing {
    /// Every head's own map; it trains.
    pub(super) fn head_linear(&mut self, x: Value, map: &Weight) -> Result<Value, Diagnostic> {
        let &[heads, _, _] = map.tensor.sizes() else {
            return Err(Diagnostic::new(&self.origin, "a map for every head was expected"));
        };
        let map = self.added(map)?;
        let x = self.add(Op::Array(ArrayOp::SplitHeads { heads: heads as u32 }), &[x])?;
        let y = self.add(Op::Array(ArrayOp::MatMul), &[x, map])?;
        self.add(Op::Array(ArrayOp::MergeHeads), &[y])
    }

    /// `[heads, tokens, w]`, by heads of queries.
    fn queries(&mut self, x: Value, heads: Heads) -> Result<Value, Diagnostic> {
        self.add(Op::Array(ArrayOp::SplitHeads { heads: heads.query }), &[x])
    }

    /// Keys or values by heads of queries, `[heads, tokens, w]`: each as often as a group has queries.
    fn keys(&mut self, x: Value, heads: Heads) -> Result<Value, Diagnostic> {
        let x = self.add(Op::Array(ArrayOp::SplitHeads { heads: heads.kv }), &[x])?;
        self.shared(x, heads)
    }

    /// What there is of each head of keys, `[kv_heads, ...]`, for each head of queries.
    fn shared(&mut self, x: Value, heads: Heads) -> Result<Value, Diagnostic> {
        if heads.kv == heads.query {
            return Ok(x);
        }
        let shape = self.builder.ty(x).shape();
        let rest = &shape.dims()[1..];
        let [kv, group] = [heads.kv, heads.group() as u32].map(Dim::Fixed);
        let of = |lead: &[Dim]| Shape::new(&[lead, rest].concat());
        let x = self.add(Op::Array(ArrayOp::Reshape(of(&[kv, Dim::Fixed(1)]))), &[x])?;
        let x = self.training(TrainingOp::BroadcastTo(of(&[kv, group])), &[x])?;
        self.add(Op::Array(ArrayOp::Reshape(of(&[Dim::Fixed(heads.query)]))), &[x])
    }

    /// What there is of each channel of keys, for each channel of queries.
    pub(super) fn of_queries(&mut self, by_key: Value, heads: Heads) -> Result<Value, Diagnostic> {
        if heads.kv == heads.query {
            return Ok(by_key);
        }
        let channels = self.builder.ty(by_key).shape().width().unwrap_or(0);
        let kv = heads.kv as usize;
        let by_head = self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(&[kv, channels / kv]))), &[by_key])?;
        let by_head = self.shared(by_head, heads)?;
        self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(&[channels * heads.group()]))), &[by_head])
    }

    /// `[heads, tokens, tokens]`: every query's product with every key.
    fn scores(&mut self, q: Value, k: Value, heads: Heads) -> Result<Value, Diagnostic> {
        let (q, k) = (self.queries(q, heads)?, self.keys(k, heads)?);
        let k = self.turned(k)?;
        self.add(Op::Array(ArrayOp::MatMul), &[q, k])
    }

    fn masked(&mut self, scores: Value, window: Option<u32>) -> Result<Value, Diagnostic> {
        let mask = Op::Array(ArrayOp::CausalMask { keep: Scalar::new(0.0), drop: Scalar::new(MASKED), window });
        let mask = self.add(mask, &[])?;
        self.two(Binary::Add, scores, mask)
    }

    /// Scores that fall with the distance, by the position of the key: what all scores of a query have more changes no weight.
    fn fading(&mut self, scores: Value, alibi: Option<&Weight>) -> Result<Value, Diagnostic> {
        let Some(alibi) = alibi else { return Ok(scores) };
        let by_head = alibi.tensor.as_f32().unwrap_or(&[]);
        let (heads, context) = (by_head.len(), self.builder.graph().context as usize);
        let rows = (0..context * heads).map(|i| (i / heads) as f32 * by_head[i % heads]).collect();
        let rows = self.numbers(&format!("{}.positions", self.named(alibi)), &[context, heads], rows);
        let positions = self.add(Op::Leaf(LeafOp::Positions), &[])?;
        let bias = self.add(Op::Dense(DenseOp::Embed), &[positions, rows])?;
        let bias = self.turned(bias)?;
        let shape = Shape::new(&[Dim::Fixed(heads as u32), Dim::Fixed(1), Dim::Tokens]);
        let bias = self.add(Op::Array(ArrayOp::Reshape(shape)), &[bias])?;
        self.two(Binary::Add, scores, bias)
    }

    pub(super) fn attention(
        &mut self,
        args: &[Value],
        heads: Heads,
        scale: Scalar,
        alibi: Option<&Weight>,
    ) -> Result<Value, Diagnostic> {
        let scores = self.scores(args[0], args[1], heads)?;
        let scale = self.number(scale.get());
        let scores = self.two(Binary::Mul, scores, scale)?;
        let scores = self.fading(scores, alibi)?;
        let scores = self.masked(scores, heads.window)?;
        let weights = self.add(Op::Array(ArrayOp::Softmax), &[scores])?;
        let v = self.keys(args[2], heads)?;
        let mixed = self.add(Op::Array(ArrayOp::MatMul), &[weights, v])?;
        self.add(Op::Array(ArrayOp::MergeHeads), &[mixed])
    }

    /// Spiking attention by its variant; `v` are values, `first` is its slope or sink, `second` its half-lives or what scores lose with the
    /// distance, `own` are thresholds of tokens at v.
    pub(super) fn ssa(
        &mut self,
        [q, k]: [Neurons; 2],
        v: Value,
        variant: Ssa,
        heads: Heads,
        first: &Weight,
        second: Option<&Weight>,
        own: Option<Value>,
    ) -> Result<Value, Diagnostic> {
        let half_life = || second.ok_or_else(|| Diagnostic::new("", "no half-lives"));
        match variant {
            Ssa::Ttfs { phases } => self.ttfs([q.plain, k.plain, v], (first, second), heads, (phases, None), own),
            Ssa::TopK { phases, keys } => {
                self.ttfs([q.plain, k.plain, v], (first, second), heads, (phases, Some(keys)), own)
            }
            Ssa::Coincidence { squared } => {
                let k = self.trains_of(&k, heads.kv)?;
                let [q, k] = [self.trains_of(&q, heads.query)?, self.shared(k, heads)?];
                self.faded([q, k], v, squared, heads, first, half_life()?)
            }
            Ssa::Lif { output: Output::Mean } => {
                let k = self.trains_of(&k, heads.kv)?;
                let [q, k] = [self.trains_of(&q, heads.query)?, self.shared(k, heads)?];
                self.faded([q, k], v, false, heads, first, half_life()?)
            }
            Ssa::Linear { .. } => {
                let [q, k] = [self.queries(q.plain, heads)?, self.keys(k.plain, heads)?];
                self.faded([q, k], v, false, heads, first, half_life()?)
            }
            Ssa::Lif { output: Output::Spikes } => unreachable!("it gives no values; `emitted` relaxes it"),
        }
    }

    /// `ssa[lif,output=spikes]`: at every timestep the mean of v's spikes flows into the output's neurons. Sinks, periods and
    /// gains train.
    pub(super) fn emitted(
        &mut self,
        [q, k, v]: [Neurons; 3],
        heads: Heads,
        [sink, half_life, gain]: [&Weight; 3],
    ) -> Result<Neurons, Diagnostic> {
        let (sink, periods, gain) = (self.sink(sink, heads)?, self.periods(half_life)?, self.factor(gain)?);
        let recency = self.training(TrainingOp::DecayMask, &[periods])?;
        let recency = self.shared(recency, heads)?;
        let mut inputs = Vec::with_capacity(q.spikes.len());
        for ((&q, &k), &v) in q.spikes.iter().zip(&k.spikes).zip(&v.spikes) {
            let scores = self.scores(q, k, heads)?;
            let weights = self.two(Binary::Mul, scores, recency)?;
            let mean = self.mean(weights, v, heads, Some(sink))?;
            inputs.push(self.two(Binary::Mul, mean, gain)?);
        }
        if inputs.is_empty() {
            return Err(Diagnostic::new(&self.origin, "attention on what no LIF neurons emit"));
        }
        self.membranes(&inputs, Membrane::LIF, Curve::Identity, &[])
    }

    /// Levels in their tokens' thresholds, head by head.
    pub(super) fn in_thresholds(&mut self, levels: Value, thresholds: Value) -> Result<Value, Diagnostic> {
        let [width, heads] = [levels, thresholds].map(|x| self.builder.ty(x).shape().width().unwrap_or(0));
        let list = (0..width).map(|c| (c * heads / width.max(1)) as i32).collect();
        let list = Arc::new(Tensor::i32(&[width], list));
        let list = self.builder.weight(&format!("{heads} heads of {width}"), list);
        let each = self.add(Op::Level(LevelOp::GatherChannels), &[thresholds, list])?;
        self.two(Binary::Mul, levels, each)
    }

    /// `ssa[ttfs]` as `docs/ir.md` has it, phases and weights rounded, perhaps of the best `keys` alone; the slope trains. `own`: tokens'
    /// thresholds at v.
    fn ttfs(
        &mut self,
        [q, k, v]: [Value; 3],
        (slope, alibi): (&Weight, Option<&Weight>),
        heads: Heads,
        (phases, keys): (u32, Option<u32>),
        own: Option<Value>,
    ) -> Result<Value, Diagnostic> {
        let rounded = TrainingOp::FakeQuant { most: LEVEL_MAX };
        let scores = self.scores(q, k, heads)?;
        let scores = self.fading(scores, alibi)?;
        let slope = self.factor(slope)?;
        let slope = self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(&[heads.query as usize, 1, 1]))), &[slope])?;
        let scores = self.two(Binary::Mul, scores, slope)?;
        let scores = self.masked(scores, heads.window)?;
        let most = self.training(TrainingOp::RowMax, &[scores])?;
        let late = self.two(Binary::Sub, most, scores)?;
        let phase = self.training(rounded, &[late])?;
        let fall = self.number(-std::f32::consts::LN_2 / phases as f32);
        let exponent = self.two(Binary::Mul, phase, fall)?;
        let weight = self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[exponent])?;
        let first = self.number(FIRST_SPIKE_WEIGHT as f32);
        let weight = self.two(Binary::Mul, weight, first)?;
        let mut weight = self.training(rounded, &[weight])?;
        if let Some(keys) = keys {
            let winners = self.training(TrainingOp::TopKMask { keys }, &[scores])?;
            weight = self.two(Binary::Mul, weight, winners)?;
        }
        match own {
            Some(own) => self.mean_in_thresholds(weight, v, own, heads),
            None => self.mean(weight, v, heads, None),
        }
    }

    /// `[heads, tokens, steps * features]`: all spikes of a layer. A neuron that integrates first fires at timestep `t` where its
    /// potential passes `t + 1/2`, and each of these thresholds has a surrogate of its own.
    fn trains_of(&mut self, neurons: &Neurons, heads: u32) -> Result<Value, Diagnostic> {
        let shape = |sizes: &[Dim]| Op::Array(ArrayOp::Reshape(Shape::new(sizes)));
        let width = |this: &Self, x: Value| this.builder.ty(x).shape().width().unwrap_or(0) as u32;
        let steps = neurons.most;
        if let Some(potential) = neurons.potential {
            let y = self.add(Op::Array(ArrayOp::SplitHeads { heads }), &[potential])?;
            let features = width(self, y);
            let [heads, tokens] = [Dim::Fixed(heads), Dim::Tokens];
            let y = self.add(shape(&[heads, tokens, Dim::Fixed(1), Dim::Fixed(features)]), &[y])?;
            let thresholds = (0..steps).map(|t| t as f32 + 0.5).collect();
            let thresholds = self.numbers(&format!("{steps} thresholds"), &[steps as usize, 1], thresholds);
            let over = self.two(Binary::Sub, y, thresholds)?;
            let spikes = self.training(TrainingOp::Step(self.recipe.surrogate), &[over])?;
            return self.add(shape(&[heads, tokens, Dim::Fixed(steps * features)]), &[spikes]);
        }
        // Spikes by timestep, side by side: each times its place.
        let mut all = None;
        for (t, &spikes) in neurons.spikes.iter().enumerate() {
            let y = self.add(Op::Array(ArrayOp::SplitHeads { heads }), &[spikes])?;
            let features = width(self, y);
            let [heads, tokens] = [Dim::Fixed(heads), Dim::Tokens];
            let y = self.add(shape(&[heads, tokens, Dim::Fixed(1), Dim::Fixed(features)]), &[y])?;
            let mut place = vec![0.0; neurons.spikes.len()];
            place[t] = 1.0;
            let place = self.numbers(&format!("timestep {t} of {steps}"), &[neurons.spikes.len(), 1], place);
            let y = self.two(Binary::Mul, y, place)?;
            let y = self.add(shape(&[heads, tokens, Dim::Fixed(steps * features)]), &[y])?;
            all = Some(match all {
                None => y,
                Some(all) => self.two(Binary::Add, all, y)?,
            });
        }
        all.ok_or_else(|| Diagnostic::new(&self.origin, "features that are not spikes"))
    }

    /// The mean of values by products of features, perhaps squared, that fade with distance; the sink trains.
    fn faded(
        &mut self,
        [q, k]: [Value; 2],
        v: Value,
        squared: bool,
        heads: Heads,
        sink: &Weight,
        half_life: &Weight,
    ) -> Result<Value, Diagnostic> {
        let k = self.turned(k)?;
        let mut scores = self.add(Op::Array(ArrayOp::MatMul), &[q, k])?;
        if squared {
            scores = self.two(Binary::Mul, scores, scores)?;
        }
        let periods = self.periods(half_life)?;
        let recency = self.training(TrainingOp::DecayMask, &[periods])?;
        let recency = self.shared(recency, heads)?;
        let weights = self.two(Binary::Mul, scores, recency)?;
        let sink = self.sink(sink, heads)?;
        self.mean(weights, v, heads, Some(sink))
    }

    /// What is added to the sums of each head's weights, `[heads, 1, 1]`; it trains.
    fn sink(&mut self, sink: &Weight, heads: Heads) -> Result<Value, Diagnostic> {
        let sink = self.factor(sink)?;
        self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(&[heads.query as usize, 1, 1]))), &[sink])
    }

    /// Half-lives, as reals; their octaves train, rounded. From that of the program's context on memory never halves, and
    /// below 0 it halves with every token.
    fn periods(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        let never = self.never;
        let periods = weight.tensor.as_i32().unwrap_or(&[]).iter().map(|&h| if h == 0 { never } else { h as u32 });
        let octaves = periods.map(|h| h as f32).map(f32::log2).collect();
        let octaves = self.numbers(&format!("{}.octave", self.named(weight)), weight.tensor.sizes(), octaves);
        let train = self.trains(ParameterKind::Threshold);
        let octaves = if train {
            let shift = self.shift(weight, OCTAVE)?;
            self.two(Binary::Add, octaves, shift)?
        } else {
            octaves
        };
        let octaves = self.training(TrainingOp::FakeQuant { most: OCTAVES }, &[octaves])?;
        let octave = self.number(std::f32::consts::LN_2);
        let exponents = self.two(Binary::Mul, octaves, octave)?;
        let periods = self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[exponents])?;
        Ok(if train { self.becomes(weight, periods) } else { periods })
    }

    /// Values weighed by `[heads, tokens, tokens]`, divided by the weights' sum plus `more`, `[heads, 1, 1]`.
    fn mean(&mut self, weights: Value, v: Value, heads: Heads, more: Option<Value>) -> Result<Value, Diagnostic> {
        let mean = self.quotient([weights; 2], v, heads, more)?;
        self.add(Op::Array(ArrayOp::MergeHeads), &[mean])
    }

    /// The same of weights in which values are added and of others that are summed, head by head: `[heads, tokens, width]`.
    fn quotient(
        &mut self,
        [added, summed]: [Value; 2],
        v: Value,
        heads: Heads,
        more: Option<Value>,
    ) -> Result<Value, Diagnostic> {
        let v = self.keys(v, heads)?;
        let mixed = self.add(Op::Array(ArrayOp::MatMul), &[added, v])?;
        let shape = Shape::new(&[Dim::Fixed(heads.query), Dim::Tokens, Dim::Fixed(1)]);
        let mut sum = self.training(TrainingOp::ReduceSum(shape), &[summed])?;
        if let Some(more) = more {
            sum = self.two(Binary::Add, sum, more)?;
            // Sums that are not 0 stay as they are: means of small whole numbers are often at a threshold.
            let (least, most) = (Scalar::new(LEAST), Scalar::new(f32::MAX));
            sum = self.training(TrainingOp::Clamp { least, most }, &[sum])?;
        }
        self.two(Binary::Div, mixed, sum)
    }

    /// The mean of values that count in their tokens' thresholds, `[tokens, kv_heads]`: weights are in shares of the largest one
    /// among keys that fire.
    fn mean_in_thresholds(&mut self, weights: Value, v: Value, own: Value, heads: Heads) -> Result<Value, Diagnostic> {
        let own = self.keys(own, heads)?;
        let own = self.turned(own)?;
        let (least, most) = (Scalar::new(0.0), Scalar::new(1.0));
        let fires = self.training(TrainingOp::Clamp { least, most }, &[weights])?;
        let fired = self.two(Binary::Mul, fires, own)?;
        let largest = self.training(TrainingOp::RowMax, &[fired])?;
        let share = self.two(Binary::Div, own, largest)?;
        let scaled = self.two(Binary::Mul, weights, share)?;
        let scaled = self.training(TrainingOp::FakeQuant { most: LEVEL_MAX }, &[scaled])?;
        let mean = self.quotient([scaled, weights], v, heads, None)?;
        let mean = self.two(Binary::Mul, mean, largest)?;
        self.add(Op::Array(ArrayOp::MergeHeads), &[mean])
    }
}
