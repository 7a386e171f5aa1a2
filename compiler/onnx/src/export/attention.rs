//! Attention in ONNX's operators: whole texts at once, so what a key weighs is a matrix `[.., sequence, sequence]`.
//!
//! Queries are `[batch, kv_heads, group, sequence, width]`, keys and values have one group.

use super::builder::{DOUBLE, FLOAT, INT64, OnnxBuilder, ValueName, float, int, word};
use super::{Lowering, OPSET_OF_LINEAR_ATTENTION};
use snnc_ir::op::Heads;
use snnc_ir::ssa::meaning::{FIRST_SPIKE_WEIGHT, FRESH, HALVINGS, phase_weights};
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::{Diagnostic, ErrorCode, Value};

/// Whole numbers up to here are f32 numbers, and so are their sums.
const EXACT_MAX: f64 = 16_777_216.0;

/// What parts of a weight count, where a sum of products is beyond the whole numbers of f32.
const PART: f32 = 32.0;

/// Below all scores.
const NOTHING: f32 = -1e30;

/// Divides every position to 0: a memory that never halves.
const NEVER: i64 = 1 << 40;

/// What a key weighs where its head fades.
struct Fading {
    /// The weight of a key that has not halved.
    fresh: f32,
    /// Halvings after which nothing is left, where there are such.
    most_halvings: Option<usize>,
}

impl Lowering<'_> {
    /// Softmax attention.
    pub(super) fn attention(&mut self, at: Value, heads: Heads, scale: f32) -> ValueName {
        let [q, k, v] = self.query_key_value(at, heads);
        let mask = self.causal(heads);
        let alibi = heads.alibi.then(|| self.per_head(at, 3, heads));
        let distance = heads.alibi.then(|| self.distance());
        let b = &mut self.builder;
        let scale = b.number(scale);
        let scores = b.plain("MatMul", &[&q, &k]);
        let mut scores = b.plain("Mul", &[&scores, &scale]);
        if let (Some(alibi), Some(distance)) = (alibi, distance) {
            let lost = b.plain("Mul", &[&distance, &alibi]);
            scores = b.plain("Sub", &[&scores, &lost]);
        }
        let nothing = b.number(NOTHING);
        let scores = b.plain("Where", &[&mask, &scores, &nothing]);
        let weights = b.op("Softmax", &[&scores], vec![int("axis", -1)]);
        let out = b.plain("MatMul", &[&weights, &v]);
        self.merged(at, &out)
    }

    /// Spiking attention.
    pub(super) fn ssa(&mut self, at: Value, heads: Heads, variant: Ssa) -> Result<ValueName, Diagnostic> {
        Ok(match variant {
            Ssa::TopK { .. } if heads.thresholds => {
                let message =
                    "the best keys of scores that are no whole numbers cannot be told apart where they are equal";
                return Err(Diagnostic::new(self.graph.origin(at), message).code(ErrorCode::EXPORT));
            }
            Ssa::Ttfs { phases } => self.timed(at, heads, phases, None),
            Ssa::TopK { phases, keys } => self.timed(at, heads, phases, Some(keys)),
            Ssa::Coincidence { squared } => self.coincident(at, heads, squared),
            Ssa::Lif { output: Output::Mean } => self.coincident(at, heads, false),
            Ssa::Linear { .. } if self.builder.opset >= OPSET_OF_LINEAR_ATTENTION && heads.window.is_none() => {
                self.linear_attention_operator(at, heads)
            }
            Ssa::Linear { .. } => self.linear_attention(at, heads),
            Ssa::Lif { output: Output::Spikes } => {
                let message =
                    "attention with LIF neurons behind it answers within a timestep, and ONNX has no timesteps";
                return Err(Diagnostic::new(self.graph.origin(at), message).code(ErrorCode::EXPORT));
            }
        })
    }

    /// Time to first spike, with all keys or the best ones.
    fn timed(&mut self, at: Value, heads: Heads, phases: u32, most_keys: Option<u32>) -> ValueName {
        let [q, k, v] = self.query_key_value(at, heads);
        let mask = self.causal(heads);
        let first = heads.first_constant();
        let slope = self.per_head(at, first, heads);
        let is_exact = self.largest_score(at, heads) < EXACT_MAX;
        let thresholds = heads.thresholds.then(|| self.thresholds(at, heads));
        let lost = heads.alibi.then(|| {
            let (alibi, distance) = (self.per_head(at, first + 1, heads), self.distance());
            let b = &mut self.builder;
            let half = b.number(0.5);
            let fall = b.plain("Mul", &[&distance, &alibi]);
            let fall = b.plain("Add", &[&fall, &half]);
            b.plain("Floor", &[&fall])
        });
        let tokens = self.tokens();
        let positions = self.positions();
        let b = &mut self.builder;
        // Scores are whole numbers; where f32 could round them they are f64.
        let wide = if is_exact { FLOAT } else { DOUBLE };
        let widened = |b: &mut OnnxBuilder, x: &str| if is_exact { x.to_string() } else { b.cast(x, wide) };
        let (q, k) = (widened(b, &q), widened(b, &k));
        let mut scores = b.plain("MatMul", &[&q, &k]);
        if let Some([own, keys, _]) = &thresholds {
            let both = b.plain("Mul", &[keys, own]);
            scores = if is_exact { scores } else { b.cast(&scores, FLOAT) };
            scores = b.plain("Mul", &[&scores, &both]);
        }
        let is_exact = is_exact || thresholds.is_some();
        let widened = |b: &mut OnnxBuilder, x: &str| if is_exact { x.to_string() } else { b.cast(x, wide) };
        if let Some(lost) = lost {
            let lost = widened(b, &lost);
            scores = b.plain("Sub", &[&scores, &lost]);
        }
        let nothing = if is_exact { b.number(NOTHING) } else { b.double(f64::from(NOTHING)) };
        let seen = b.plain("Where", &[&mask, &scores, &nothing]);
        let best = b.reduce("ReduceMax", &seen);
        let behind = b.plain("Sub", &[&best, &scores]);
        let behind = if is_exact { behind } else { b.cast(&behind, FLOAT) };
        let weights = phase_weights(phases);
        let (half, last) = (b.number(0.5), b.number(weights.len() as f32));
        let delay = b.plain("Mul", &[&behind, &slope]);
        let delay = b.plain("Add", &[&delay, &half]);
        let phase = b.plain("Floor", &[&delay]);
        let mut fires = mask;
        if let Some(most) = most_keys {
            // One number orders keys by score, and equal ones by position.
            let rank = b.cast(&scores, INT64);
            let rank = b.plain("Mul", &[&rank, &tokens]);
            let rank = b.plain("Add", &[&rank, &positions]);
            let least = b.int(i64::MIN / 2);
            let rank = b.plain("Where", &[&fires, &rank, &least]);
            let most = b.ints(&[i64::from(most)]);
            let most = b.plain("Min", &[&most, &tokens]);
            let kept = b.op("TopK", &[&rank, &most], vec![int("axis", -1)]);
            let least = b.reduce("ReduceMin", &kept);
            let is_kept = b.plain("GreaterOrEqual", &[&rank, &least]);
            fires = b.plain("And", &[&fires, &is_kept]);
        }
        let phase = b.plain("Min", &[&phase, &last]);
        let phase = b.plain("Where", &[&fires, &phase, &last]);
        let phase = b.cast(&phase, INT64);
        let table: Vec<f32> = weights.iter().map(|&weight| weight as f32).chain([0.0]).collect();
        let table = b.f32(&[table.len()], &table);
        let weights = b.gather(&table, &phase, 0);
        let total = self.rounded_sum(&weights, None, f64::from(FIRST_SPIKE_WEIGHT));
        let (weights, largest) = match &thresholds {
            Some([.., values]) => {
                let (weights, largest) = self.in_thresholds(&weights, values);
                (weights, Some(largest))
            }
            None => (weights, None),
        };
        let sums = self.rounded_sum(&weights, Some(&v), f64::from(FIRST_SPIKE_WEIGHT) * self.most_level(at, 2));
        let mut out = self.builder.plain("Div", &[&sums, &total]);
        if let Some(largest) = largest {
            out = self.builder.plain("Mul", &[&out, &largest]);
        }
        self.merged(at, &out)
    }

    /// Tokens' thresholds at q, `[1, kv_heads, group, sequence, 1]`, and at k and v, `[1, kv_heads, 1, 1, sequence]`.
    fn thresholds(&mut self, at: Value, heads: Heads) -> [ValueName; 3] {
        let [q, k, v] = [3, 4, 5].map(|i| self.operand(at, i));
        let b = &mut self.builder;
        let q = b.reshape(&q, &[0, 0, i64::from(heads.kv), heads.group() as i64, 1]);
        let q = b.transpose(&q, &[0, 2, 3, 1, 4]);
        let [k, v] = [k, v].map(|rows| {
            let rows = b.reshape(&rows, &[0, 0, i64::from(heads.kv), 1, 1]);
            b.transpose(&rows, &[0, 2, 3, 4, 1])
        });
        [q, k, v]
    }

    /// Weights by their values' thresholds, of which the largest one among keys that fire counts whole; and that one.
    fn in_thresholds(&mut self, weights: &str, values: &str) -> (ValueName, ValueName) {
        let b = &mut self.builder;
        let (zero, one, half) = (b.number(0.0), b.number(1.0), b.number(0.5));
        let fires = b.plain("Greater", &[weights, &zero]);
        let fired = b.plain("Where", &[&fires, values, &zero]);
        let largest = b.reduce("ReduceMax", &fired);
        let share = b.plain("Div", &[&one, &largest]);
        let share = b.plain("Mul", &[values, &share]);
        let scaled = b.plain("Mul", &[weights, &share]);
        let scaled = b.plain("Add", &[&scaled, &half]);
        let scaled = b.plain("Floor", &[&scaled]);
        (b.plain("Min", &[&scaled, weights]), largest)
    }

    /// The sum of whole weights over the keys, or that of their products with values, as if it were exact and then rounded to
    /// f32; `most` is the largest magnitude of a term.
    fn rounded_sum(&mut self, weights: &str, values: Option<&str>, most: f64) -> ValueName {
        let tokens = f64::from(self.graph.context);
        let b = &mut self.builder;
        let sum = |b: &mut OnnxBuilder, weights: &str, values: Option<&str>| match values {
            Some(values) => b.plain("MatMul", &[weights, values]),
            None => b.reduce("ReduceSum", weights),
        };
        if tokens * most < EXACT_MAX {
            return sum(b, weights, values);
        }
        if tokens * most < EXACT_MAX * f64::from(PART) {
            // Two sums that f32 holds: of it, the sum of both is rounded once.
            let part = b.number(PART);
            let quotient = b.plain("Div", &[weights, &part]);
            let high = b.plain("Floor", &[&quotient]);
            let taken = b.plain("Mul", &[&high, &part]);
            let low = b.plain("Sub", &[weights, &taken]);
            let (high, low) = (sum(b, &high, values), sum(b, &low, values));
            let high = b.plain("Mul", &[&high, &part]);
            return b.plain("Add", &[&high, &low]);
        }
        let weights = b.cast(weights, DOUBLE);
        let values = values.map(|values| b.cast(values, DOUBLE));
        let exact = sum(b, &weights, values.as_deref());
        b.cast(&exact, FLOAT)
    }

    /// Coincidences of unary spikes: of two levels, as many as the smaller one.
    fn coincident(&mut self, at: Value, heads: Heads, squared: bool) -> ValueName {
        let (_, steps) = self.graph.ty(self.arg(at, 0)).levels().unwrap_or_else(|| unreachable!("checked by infer"));
        let spelled = |this: &mut Self, i: usize| {
            let x = this.operand(at, i);
            let b = &mut this.builder;
            let steps: Vec<f32> = (0..steps).map(f32::from).collect();
            let (steps, last) = (b.f32(&[steps.len()], &steps), b.ints(&[-1]));
            let x = b.plain("Unsqueeze", &[&x, &last]);
            let spikes = b.plain("Greater", &[&x, &steps]);
            b.cast(&spikes, FLOAT)
        };
        let (q, k) = (spelled(self, 0), spelled(self, 1));
        let b = &mut self.builder;
        let q = split_query(b, &q, heads);
        let k = split_key(b, &k, heads);
        let v = self.value(at, heads);
        let fading = Fading { fresh: FRESH as f32, most_halvings: Some(HALVINGS) };
        let left = self.fading(at, heads, &fading);
        let b = &mut self.builder;
        let mut scores = b.plain("MatMul", &[&q, &k]);
        if squared {
            scores = b.plain("Mul", &[&scores, &scores]);
        }
        let weights = b.plain("Mul", &[&scores, &left]);
        self.mean(at, heads, &weights, &v, fading.fresh)
    }

    /// Linear attention, as the matrix that its state stands for.
    fn linear_attention(&mut self, at: Value, heads: Heads) -> ValueName {
        let [q, k, v] = self.query_key_value(at, heads);
        let fading = Fading { fresh: 1.0, most_halvings: None };
        let left = self.fading(at, heads, &fading);
        let b = &mut self.builder;
        let scores = b.plain("MatMul", &[&q, &k]);
        let weights = b.plain("Mul", &[&scores, &left]);
        self.mean(at, heads, &weights, &v, fading.fresh)
    }

    /// Linear attention as ONNX's operator. Values have a 1 behind them, so that its sums are those of values and of weights.
    fn linear_attention_operator(&mut self, at: Value, heads: Heads) -> ValueName {
        let [q, k, v] = [0, 1, 2].map(|i| self.operand(at, i));
        let (query, kv, width) = (i64::from(heads.query), i64::from(heads.kv), self.width(at) as i64);
        let half_lives = self.constant(at, 4).as_i32().unwrap_or_default().to_vec();
        let (positions, own) = (self.positions(), width / query);
        let sink = self.operand(at, 3);
        let b = &mut self.builder;
        let v = b.reshape(&v, &[0, 0, kv, own]);
        let (first, second, last) = (b.ints(&[0]), b.ints(&[1]), b.ints(&[3]));
        let one_each = b.plain("Slice", &[&v, &first, &second, &last]);
        let (zero, one) = (b.number(0.0), b.number(1.0));
        let zeros = b.plain("Mul", &[&one_each, &zero]);
        let ones = b.plain("Add", &[&zeros, &one]);
        let v = b.op("Concat", &[&v, &ones], vec![int("axis", 3)]);
        let v = b.reshape(&v, &[0, 0, kv * (own + 1)]);
        let mut attributes = vec![int("q_num_heads", query), int("kv_num_heads", kv), float("scale", 1.0)];
        let sums = if half_lives.iter().all(|&every| every <= 0) {
            attributes.push(word("update_rule", "linear"));
            b.op_of_two("LinearAttention", &[&q, &k, &v], attributes)
        } else {
            // A state halves where a block of its half-life begins.
            let every: Vec<i64> =
                half_lives.iter().map(|&every| if every > 0 { i64::from(every) } else { NEVER }).collect();
            let every = b.ints(&every);
            let position = b.plain("Unsqueeze", &[&positions, &second]);
            let place = b.plain("Mod", &[&position, &every]);
            let begins = b.int(0);
            let begins = b.plain("Equal", &[&place, &begins]);
            let half = b.number(-std::f32::consts::LN_2);
            let decay = b.plain("Where", &[&begins, &half, &zero]);
            let sizes = b.plain("Shape", &["input_ids"]);
            let heads_of_keys = b.ints(&[kv]);
            let sizes = b.op("Concat", &[&sizes, &heads_of_keys], vec![int("axis", 0)]);
            let decay = b.plain("Expand", &[&decay, &sizes]);
            attributes.push(word("update_rule", "gated"));
            b.op_of_two("LinearAttention", &[&q, &k, &v, "", &decay], attributes)
        };
        let sums = b.reshape(&sums, &[0, 0, query, own + 1]);
        let (start, middle, end) = (b.ints(&[0]), b.ints(&[own]), b.ints(&[own + 1]));
        let of_values = b.plain("Slice", &[&sums, &start, &middle, &last]);
        let total = b.plain("Slice", &[&sums, &middle, &end, &last]);
        let sink = b.reshape(&sink, &[query, 1]);
        let all = b.plain("Add", &[&total, &sink]);
        let is_nothing = b.plain("Equal", &[&all, &zero]);
        let all = b.plain("Where", &[&is_nothing, &one, &all]);
        let out = b.plain("Div", &[&of_values, &all]);
        let out = b.plain("Where", &[&is_nothing, &zero, &out]);
        b.reshape(&out, &[0, 0, width])
    }

    /// The weighted mean of values, with a sink in units of a fresh key's weight; 0 where nothing weighs.
    fn mean(&mut self, at: Value, heads: Heads, weights: &str, v: &str, fresh: f32) -> ValueName {
        let sink = self.per_head(at, 3, heads);
        let b = &mut self.builder;
        let (zero, fresh) = (b.number(0.0), b.number(fresh));
        let sink = b.plain("Mul", &[&sink, &fresh]);
        let total = self.rounded_sum(weights, None, f64::INFINITY);
        let b = &mut self.builder;
        let all = b.plain("Add", &[&total, &sink]);
        let is_nothing = b.plain("Equal", &[&all, &zero]);
        let one = b.number(1.0);
        let all = b.plain("Where", &[&is_nothing, &one, &all]);
        let sums = self.rounded_sum(weights, Some(v), f64::INFINITY);
        let b = &mut self.builder;
        let out = b.plain("Div", &[&sums, &all]);
        let out = b.plain("Where", &[&is_nothing, &zero, &out]);
        self.merged(at, &out)
    }

    /// What is left of each key's weight, `[kv_heads, 1, sequence, sequence]`; 0 of what comes later.
    fn fading(&mut self, at: Value, heads: Heads, fading: &Fading) -> ValueName {
        let half_lives = self.constant(at, 4).as_i32().unwrap_or_default().to_vec();
        let (mask, positions) = (self.causal(heads), self.positions());
        let b = &mut self.builder;
        let every: Vec<i64> =
            half_lives.iter().map(|&every| if every > 0 { i64::from(every) } else { NEVER }).collect();
        let (every, axis) = (b.ints(&every), b.ints(&[1]));
        let every = b.plain("Unsqueeze", &[&every, &axis]);
        let block = b.plain("Div", &[&positions, &every]);
        let (rows, columns) = (b.ints(&[1, 3]), b.ints(&[1, 2]));
        let row = b.plain("Unsqueeze", &[&block, &rows]);
        let column = b.plain("Unsqueeze", &[&block, &columns]);
        let halvings = b.plain("Sub", &[&row, &column]);
        let halvings = b.cast(&halvings, FLOAT);
        let (zero, two, fresh) = (b.number(0.0), b.number(2.0), b.number(fading.fresh));
        let halvings_of_later = b.plain("Max", &[&halvings, &zero]);
        let times = b.plain("Neg", &[&halvings_of_later]);
        let left = b.plain("Pow", &[&two, &times]);
        let left = b.plain("Mul", &[&left, &fresh]);
        let mut is_left = mask;
        if let Some(most) = fading.most_halvings {
            let most = b.number(most as f32);
            let is_fresh = b.plain("Less", &[&halvings, &most]);
            is_left = b.plain("And", &[&is_left, &is_fresh]);
        }
        b.plain("Where", &[&is_left, &left, &zero])
    }

    fn query_key_value(&mut self, at: Value, heads: Heads) -> [ValueName; 3] {
        let (q, k) = (self.operand(at, 0), self.operand(at, 1));
        let b = &mut self.builder;
        let (q, k) = (split_query(b, &q, heads), split_key(b, &k, heads));
        [q, k, self.value(at, heads)]
    }

    fn value(&mut self, at: Value, heads: Heads) -> ValueName {
        let v = self.operand(at, 2);
        let b = &mut self.builder;
        let v = b.reshape(&v, &[0, 0, i64::from(heads.kv), 1, -1]);
        b.transpose(&v, &[0, 2, 3, 1, 4])
    }

    /// Heads side by side again.
    fn merged(&mut self, at: Value, out: &str) -> ValueName {
        let width = self.width(at) as i64;
        let b = &mut self.builder;
        let out = b.transpose(out, &[0, 3, 1, 2, 4]);
        b.reshape(&out, &[0, 0, width])
    }

    /// Operand `i`, one number per query head, as `[kv_heads, group, 1, 1]`.
    fn per_head(&mut self, at: Value, i: usize, heads: Heads) -> ValueName {
        let all = self.operand(at, i);
        self.builder.reshape(&all, &[i64::from(heads.kv), heads.group() as i64, 1, 1])
    }

    /// How many tokens a text has, `i64[1]`.
    fn tokens(&mut self) -> ValueName {
        let b = &mut self.builder;
        let one = b.ints(&[1]);
        let sizes = b.plain("Shape", &["input_ids"]);
        b.gather(&sizes, &one, 0)
    }

    /// Of each pair of a query's and a key's position the difference, `i64[sequence, sequence]`.
    fn apart(&mut self) -> ValueName {
        let positions = self.positions();
        let b = &mut self.builder;
        let axis = b.ints(&[1]);
        let rows = b.plain("Unsqueeze", &[&positions, &axis]);
        b.plain("Sub", &[&rows, &positions])
    }

    fn distance(&mut self) -> ValueName {
        let apart = self.apart();
        self.builder.cast(&apart, FLOAT)
    }

    /// Which keys a query sees.
    fn causal(&mut self, heads: Heads) -> ValueName {
        let apart = self.apart();
        let b = &mut self.builder;
        let zero = b.int(0);
        let seen = b.plain("GreaterOrEqual", &[&apart, &zero]);
        match heads.window {
            None => seen,
            Some(window) => {
                let window = b.int(i64::from(window));
                let near = b.plain("Less", &[&apart, &window]);
                b.plain("And", &[&seen, &near])
            }
        }
    }

    /// What no score's magnitude is above.
    fn largest_score(&self, at: Value, heads: Heads) -> f64 {
        let width = self.width(self.arg(at, 0)) / heads.query as usize;
        // The distance's part is as large at most in any network that sees something.
        2.0 * self.most_level(at, 0) * self.most_level(at, 1) * width as f64
    }

    /// The largest level of operand `i`.
    fn most_level(&self, at: Value, i: usize) -> f64 {
        let levels = self.graph.ty(self.arg(at, i)).levels();
        f64::from(levels.map_or(0, |(code, steps)| code.levels(steps)))
    }
}

/// `[batch, sequence, heads, width]` as `[batch, kv_heads, group, sequence, width]`.
fn split_query(b: &mut OnnxBuilder, q: &str, heads: Heads) -> ValueName {
    let q = b.reshape(q, &[0, 0, i64::from(heads.kv), heads.group() as i64, -1]);
    b.transpose(&q, &[0, 2, 3, 1, 4])
}

/// `[batch, sequence, kv_heads, width]` as `[batch, kv_heads, 1, width, sequence]`.
fn split_key(b: &mut OnnxBuilder, k: &str, heads: Heads) -> ValueName {
    let k = b.reshape(k, &[0, 0, i64::from(heads.kv), 1, -1]);
    b.transpose(&k, &[0, 2, 3, 4, 1])
}
