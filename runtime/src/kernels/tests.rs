//! Every kernel on every instruction set that this machine has, against its definition, bit for bit.

use super::neuron::spell_one;
use super::*;
use proptest::prelude::*;
use snnc_ir::Tensor;
use snnc_ir::events::Events;
use snnc_ir::hadamard::{HadamardMatrix, HadamardSize};
use snnc_ir::op::Heads;
use snnc_ir::ssa::meaning::{Delays, Span, phase_weights, timed};

fn panels(w: &[i8], k: usize, m: usize) -> Tensor {
    Tensor::i8(&[k, m], w.to_vec()).to_panels().expect("a matrix")
}

fn isas() -> impl Iterator<Item = Kernels> {
    ISAS.into_iter().filter_map(|isa| Kernels::new(isa).ok())
}

/// Numbers that look random, the same for the same seed.
struct SeededNumbers(u64);

impl SeededNumbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn f32(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 5_000.0 - 2.0
    }

    fn level(&mut self, most: i32) -> i32 {
        // Every fourth one is an extreme.
        match self.next() % 8 {
            0 => most,
            1 => -most,
            _ => (self.next() % (2 * most as u64 + 1)) as i32 - most,
        }
    }

    fn many<T>(&mut self, len: usize, mut f: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..len).map(|_| f(self)).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn row_sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    x.iter().enumerate().for_each(|(i, x)| lanes[i % 16] += x);
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| lanes[i] += lanes[i + half]);
    }
    lanes[0]
}

fn level(p: f32, levels: i32) -> i32 {
    let a = p.abs() + 0.5;
    let limit = levels as f32 + 0.5;
    let n = (if a < limit { a } else { limit }) as i32;
    if p < 0.0 { -n } else { n }
}

fn spikes(code: Code, level: i32) -> u64 {
    match code {
        Code::Binary => level.unsigned_abs().count_ones().into(),
        Code::Unary => level.unsigned_abs().into(),
    }
}

fn linear(n: usize, k: usize, m: usize, seed: u64) {
    let mut numbers = SeededNumbers(seed);
    let (x, w) = (numbers.many(n * k, SeededNumbers::f32), numbers.many(k * m, SeededNumbers::f32));
    let bias = numbers.many(m, SeededNumbers::f32);
    let transposed: Vec<f32> = (0..m * k).map(|i| w[i % k * m + i / k]).collect();
    let chain = |t: usize, o: usize| (0..k).fold(0.0, |sum, c| sum + x[t * k + c] * w[c * m + o]);
    let plain: Vec<f32> = (0..n * m).map(|i| chain(i / m, i % m)).collect();
    let biased: Vec<f32> = (0..n * m).map(|i| plain[i] + bias[i % m]).collect();
    for kernels in isas() {
        for (bias, want) in [(None, &plain), (Some(bias.as_slice()), &biased)] {
            let mut y = vec![f32::NAN; n * m];
            kernels.linear_f32(&x, &w, bias, k, m, &mut y);
            assert_eq!(bits(&y), bits(want), "{:?} {n} {k} {m}", kernels.isa());
            y.fill(f32::NAN);
            kernels.linear_f32_output_major(&x, &transposed, bias, k, m, &mut y);
            assert_eq!(bits(&y), bits(want), "{:?} output-major {n} {k} {m}", kernels.isa());
        }
    }
}

fn product(n: usize, k: usize, m: usize, most: i32, seed: u64) {
    let mut numbers = SeededNumbers(seed);
    let x = numbers.many(n * k, |numbers| numbers.level(most));
    let w: Vec<i8> = numbers.many(k * m, |numbers| numbers.level(127) as i8);
    let packed = panels(&w, k, m);
    let packed = Panels::new(packed.as_panels().expect("they are"), k, m);
    let w: Vec<i32> = w.into_iter().map(i32::from).collect();
    product_of([n, k, m], most, &x, &w, packed);
}

/// Weights of 4 bits, with every level and multiplier.
fn weights_in_groups(k: usize, m: usize, group: u16, numbers: &mut SeededNumbers) -> Tensor {
    let levels: Vec<i8> = numbers.many(k * m, |numbers| (numbers.next() % 16) as i8 - 8);
    let groups = k.div_ceil(group.into());
    let multipliers: Vec<i8> = numbers.many(groups * m, |numbers| numbers.level(127) as i8);
    Tensor::i4([k, m], group, &levels, &multipliers)
}

fn product_of_groups(n: usize, k: usize, m: usize, group: u16, most: i32, seed: u64) {
    let mut numbers = SeededNumbers(seed);
    let x = numbers.many(n * k, |numbers| numbers.level(most));
    let w = weights_in_groups(k, m, group, &mut numbers);
    let (bytes, sizes) = w.as_groups().expect("they are");
    let elements = w.to_integers().expect("they are");
    product_of([n, k, m], most, &x, &elements, Panels::of_groups(bytes, sizes));
}

fn product_of([n, k, m]: [usize; 3], most: i32, x: &[i32], w: &[i32], packed: Panels<'_>) {
    let sum = |t: usize, o: usize| (0..k).map(|c| x[t * k + c] * w[c * m + o]).sum::<i32>();
    let want: Vec<i32> = (0..n * m).map(|i| sum(i / m, i % m)).collect();
    for kernels in isas() {
        let mut y = vec![i32::MIN; n * m];
        // Byte by byte, the last one first.
        let (mut rest, mut bytes) = (x.to_vec(), Vec::new());
        loop {
            let mut byte = vec![0; x.len()];
            let more = kernels.split(&mut rest, &mut byte);
            bytes.push(byte);
            if !more {
                break;
            }
        }
        let higher: Vec<EventList> = bytes[1..].iter().map(|byte| kernels.event_list(byte, k, k)).collect();
        kernels.matmul_int(&bytes[0], &higher, packed, &mut y);
        assert_eq!(y, want, "{:?} {} bytes {n} {k} {m}", kernels.isa(), bytes.len());
        if most <= MOST_IN_TWO {
            let (mut low, x) = (vec![0; x.len()], x.iter().map(|&x| x as i16).collect::<Vec<_>>());
            let higher = kernels.split_wide(&x, k, &mut low);
            y.fill(i32::MIN);
            kernels.matmul_int(&low, &[higher], packed, &mut y);
            assert_eq!(y, want, "{:?} halves {n} {k} {m}", kernels.isa());
        }
        if bytes.len() == 1 {
            y.fill(i32::MIN);
            let events = kernels.event_list(&bytes[0], k, k);
            kernels.synapse(&events, packed, &mut y);
            assert_eq!(y, want, "{:?} events {n} {k} {m}", kernels.isa());
            assert_eq!(events.count(), bytes[0].iter().filter(|x| **x != 0).count() as u64);
            assert_eq!(kernels.count_nonzero(&bytes[0]) as u64, events.count());
        }
    }
}

/// `sum over t of carry^(T - 1 - t) * (events of token and timestep t) w`, for `T` planes per token.
fn horner(kernels: Kernels, events: &EventList, steps: usize, carry: i32, w: Panels<'_>) -> Vec<i32> {
    let m = w.outputs();
    let mut planes = vec![i32::MIN; events.planes() * m];
    kernels.synapse(events, w, &mut planes);
    let sum = |token: &[i32], o: usize| {
        token.chunks_exact(m).fold(0i32, |sum, plane| sum.wrapping_mul(carry).wrapping_add(plane[o]))
    };
    planes.chunks_exact(steps * m).flat_map(|token| (0..m).map(move |o| sum(token, o))).collect()
}

/// Lists of trains, where others were before.
fn trains(kernels: Kernels, planes: &[i8], stride: usize, inputs: usize, steps: usize, carry: i32) -> TrainRuns {
    let mut runs = TrainRuns::default();
    kernels.list_trains(&[-128; 3 * 700], 700, 700, 3, 1, &mut runs);
    kernels.list_trains(planes, stride, inputs, steps, carry, &mut runs);
    runs
}

fn rows(n: usize, k: usize, m: usize, steps: usize, carry: i32, seed: u64) {
    let mut numbers = SeededNumbers(seed);
    let stride = k.next_multiple_of(16);
    let spikes: Vec<i8> = numbers.many(n * steps * stride, |numbers| numbers.level(1) as i8);
    let w: Vec<i8> = numbers.many(k * m, |numbers| numbers.level(127) as i8);
    let packed = panels(&w, k, m);
    let packed = Panels::new(packed.as_panels().expect("they are"), k, m);
    let w: Vec<i32> = w.into_iter().map(i32::from).collect();
    rows_of([n, k, m], steps, carry, &spikes, &w, packed);
    let w = weights_in_groups(k, m, [8, 16, 24, 32][seed as usize % 4], &mut numbers);
    let (bytes, sizes) = w.as_groups().expect("they are");
    let elements = w.to_integers().expect("they are");
    rows_of([n, k, m], steps, carry, &spikes, &elements, Panels::of_groups(bytes, sizes));
}

fn rows_of([n, k, m]: [usize; 3], steps: usize, carry: i32, spikes: &[i8], w: &[i32], packed: Panels<'_>) {
    let stride = k.next_multiple_of(16);
    let plane = |t: usize, i: usize, o: usize| {
        (0..k).map(|c| i32::from(spikes[(t * steps + i) * stride + c]) * w[c * m + o]).sum::<i32>()
    };
    let sum = |t: usize, o: usize| (0..steps).fold(0i32, |sum, i| sum.wrapping_mul(carry).wrapping_add(plane(t, i, o)));
    let want: Vec<i32> = (0..n * m).map(|i| sum(i / m, i % m)).collect();
    for kernels in isas() {
        let mut y = vec![i32::MIN; n * m];
        let events = kernels.event_list(spikes, stride, k);
        y.copy_from_slice(&horner(kernels, &events, steps, carry, packed));
        assert_eq!(y, want, "{:?} {n} {k} {m} {steps}", kernels.isa());
        let runs = trains(kernels, spikes, stride, k, steps, carry);
        assert_eq!((runs.count(), runs.tokens()), (events.count(), n));
        y.fill(i32::MIN);
        kernels.trains(&runs, packed, &mut y);
        assert_eq!(y, want, "{:?} runs {n} {k} {m} {steps}", kernels.isa());
        // Some panels alone.
        let last = packed.count() - 1;
        let mut part = vec![i32::MIN; n * (m - last * OUTPUTS)];
        part.copy_from_slice(&horner(kernels, &events, steps, carry, packed.some(last..last + 1)));
        let cut = want.chunks_exact(m).flat_map(|row| &row[last * OUTPUTS..]);
        assert!(part.iter().eq(cut.clone()), "{:?}", kernels.isa());
        part.fill(i32::MIN);
        kernels.trains(&runs, packed.some(last..last + 1), &mut part);
        assert!(part.iter().eq(cut), "{:?} runs", kernels.isa());
    }
}

/// Levels at some timesteps: the sums of every plane on their own, and their sum.
fn currents(n: usize, k: usize, m: usize, steps: usize, carry: i32, seed: u64) {
    let mut numbers = SeededNumbers(seed);
    let share = 1 + numbers.next() % 8;
    let mut level = |numbers: &mut SeededNumbers| {
        let level = numbers.level(128).min(127) as i8;
        if numbers.next() % 8 < share { level } else { 0 }
    };
    let x: Vec<i8> = numbers.many(n * steps * k, &mut level);
    let w: Vec<i8> = numbers.many(k * m, |numbers| numbers.level(127) as i8);
    let sum = |plane: usize, o: usize| {
        (0..k).map(|c| i32::from(x[plane * k + c]) * if o < m { i32::from(w[c * m + o]) } else { 0 }).sum::<i32>()
    };
    let packed = panels(&w, k, m);
    let packed = Panels::new(packed.as_panels().expect("they are"), k, m);
    let from = numbers.next() as usize % (n * steps);
    let [gain, offset]: [[f32; OUTPUTS]; 2] = [(); 2].map(|()| std::array::from_fn(|_| numbers.f32()));
    for kernels in isas() {
        let events = kernels.event_list(&x, k, k);
        for (panel, prefetch) in (0..packed.count()).flat_map(|panel| [(panel, false), (panel, true)]) {
            let planes = from..n * steps;
            let columns = panel * OUTPUTS..(panel + 1) * OUTPUTS;
            let want: Vec<f32> = planes
                .clone()
                .flat_map(|plane| columns.clone().map(move |o| (plane, o)))
                .map(|(p, o)| sum(p, o) as f32 * gain[o % OUTPUTS] + offset[o % OUTPUTS])
                .collect();
            let mut y = vec![f32::NAN; planes.len() * OUTPUTS];
            let panel = PanelOf { weights: packed, panel };
            kernels.tile_inputs(&events, planes, panel, [&gain, &offset], prefetch, &mut y);
            assert_eq!(bits(&y), bits(&want), "{:?} {n} {k} {m} {steps} {panel:?}", kernels.isa());
        }
        let all = |token: usize, o: usize| {
            let sums = (0..steps).map(|t| sum(token * steps + t, o));
            sums.fold(0i32, |sum, x| sum.wrapping_mul(carry).wrapping_add(x))
        };
        let mut y = vec![i32::MIN; n * m];
        y.copy_from_slice(&horner(kernels, &events, steps, carry, packed));
        let want: Vec<i32> = (0..n * m).map(|i| all(i / m, i % m)).collect();
        assert_eq!(y, want, "{:?} {n} {k} {m} {steps} by {carry}", kernels.isa());
        if carry <= 2 {
            y.fill(i32::MIN);
            kernels.trains(&trains(kernels, &x, k, k, steps, carry), packed, &mut y);
            assert_eq!(y, want, "{:?} {n} {k} {m} {steps} runs by {carry}", kernels.isa());
        }
    }
}

/// Heads of queries in groups, and perhaps a window, ALiBi or thresholds of tokens.
fn grouped(kv: usize, group: usize, window: usize) -> Heads {
    // Every third one with ALiBi.
    let (kv, window, alibi) =
        (kv as u32, u32::try_from(window).ok().filter(|w| *w > 0), (kv + group + window).is_multiple_of(3));
    // Every other one with thresholds.
    let thresholds = (kv + group as u32).is_multiple_of(2);
    Heads { kv, window, alibi, thresholds, ..Heads::equal(kv * group as u32) }
}

fn attention(n: usize, past: usize, heads: Heads, width: usize, seed: u64) {
    let mut numbers = SeededNumbers(seed);
    let scale = 0.3;
    let [d, kd] = [heads.query, heads.kv].map(|heads| heads as usize * width);
    let q = numbers.many(n * d, SeededNumbers::f32);
    let [k, v] = [0, 1].map(|_| numbers.many((past + n) * kd, SeededNumbers::f32));
    let alibi = if heads.alibi { numbers.many(heads.query as usize, |n| n.f32().abs()) } else { Vec::new() };
    let mut want = Vec::new();
    for (i, h) in (0..n).flat_map(|i| (0..heads.query as usize).map(move |h| (i, h))) {
        let (head, shared) = (h * width, h / heads.group() * width);
        let met = heads.first_key(past + i)..=past + i;
        let chain = |j: usize| (0..width).fold(0.0, |sum, c| sum + q[i * d + head + c] * k[j * kd + shared + c]);
        let lost = |j: usize| alibi.get(h).map(|alibi| (past + i - j) as f32 * alibi);
        let scored = |j: usize| lost(j).map_or(chain(j) * scale, |lost| chain(j) * scale - lost);
        let scores: Vec<f32> = met.clone().map(scored).collect();
        let best = scores.iter().copied().fold(f32::MIN, f32::max);
        let weights: Vec<f32> = scores.iter().map(|s| libm::expf(s - best)).collect();
        let out = |c: usize| met.clone().zip(&weights).fold(0.0, |sum, (j, w)| sum + w * v[j * kd + shared + c]);
        want.extend((0..width).map(|c| out(c) / row_sum(&weights)));
    }
    for kernels in isas() {
        let mut out = vec![f32::NAN; n * d];
        kernels.attention_f32(&q, &k, &v, &DenseShape { heads, width, scale, alibi: &alibi }, &mut out);
        assert_eq!(bits(&out), bits(&want), "{:?} {n} {past} {heads} {width}", kernels.isa());
    }
}

struct LevelRange {
    code: Code,
    steps: u16,
    most: i32,
}

fn ssa<L: StoredLevel + std::fmt::Debug>(
    n: usize,
    past: usize,
    heads: Heads,
    width: usize,
    levels: &LevelRange,
    seed: u64,
) {
    let mut numbers = SeededNumbers(seed);
    let (query, [d, kd]) = (heads.query as usize, [heads.query, heads.kv].map(|heads| heads as usize * width));
    let q = numbers.many(n * d, |numbers| numbers.level(levels.most));
    let [k, v] = [0, 1].map(|_| numbers.many((past + n) * kd, |numbers| numbers.level(levels.most)));
    // So steep that some keys stay silent.
    let reach = (levels.most * levels.most) as f32 * (width as f32).sqrt();
    let slope: Vec<f32> = (0..query).map(|h| (40.0 + 90.0 * h as f32) / reach).collect();
    let alibi = if heads.alibi { numbers.many(query, |n| n.f32().abs() * reach / 100.0) } else { Vec::new() };
    let weights = phase_weights(8);
    let all = [(n, query), (past + n, heads.kv as usize), (past + n, heads.kv as usize)];
    let thresholds = all.map(|(rows, heads)| numbers.many(rows * heads, |numbers| 0.1 + numbers.f32().abs()));
    let thresholds = heads.thresholds.then(|| thresholds.each_ref().map(Vec::as_slice));
    let most_keys = heads.thresholds.then_some(1 + past as u32 / 2 + n as u32);
    let delays =
        Delays { slope: &slope, alibi: heads.alibi.then_some(&alibi), weights: &weights, most_keys, thresholds };
    let span = Span { past, tokens: n, heads };
    let (want, Events { score_pairs, score_additions, value_keys, .. }) =
        timed::<f32>([&q, &k, &v], delays, levels.code, span);
    let tally = SsaCount { score_pairs, score_additions, value_keys };
    let wide = [q, k, v];
    let [q, k, v] = [0, 1, 2].map(|i: usize| wide[i].iter().map(|&x| L::from_i32(x)).collect::<Vec<L>>());
    let (mut scratch, soon) = (Scratch::default(), [1; 1000]);
    for (kernels, steps) in isas().flat_map(|kernels| [(kernels, None), (kernels, Some(levels.steps))]) {
        let shape = SsaShape {
            heads,
            width,
            slope: &slope,
            alibi: &alibi,
            weights: &weights,
            code: levels.code,
            steps,
            keys: most_keys.map(|most| most as usize),
            soon: &soon,
            thresholds: thresholds.map(|[queries, keys, values]| TokenThresholds { queries, keys, values }),
        };
        let mut out = vec![f32::NAN; n * d];
        assert_eq!(kernels.ssa_long(&wide[0], &wide[1], &wide[2], &shape, &mut out), tally, "{:?} long", kernels.isa());
        assert_eq!(bits(&out), bits(&want), "{:?} long {n} {past} {heads} {width}", kernels.isa());
        // One head at a time, and all that share their keys.
        for part in [1, heads.group()] {
            let (mut out, mut found) = (vec![f32::NAN; n * d], SsaCount::default());
            for h in (0..query).step_by(part) {
                let mut results = vec![f32::NAN; n * part * width];
                let count = kernels.ssa(&q, &k, &v, &shape, h..h + part, &mut scratch, &mut results);
                found.score_pairs += count.score_pairs;
                found.score_additions += count.score_additions;
                found.value_keys += count.value_keys;
                for (out, results) in out.chunks_exact_mut(d).zip(results.chunks_exact(part * width)) {
                    out[h * width..][..part * width].copy_from_slice(results);
                }
            }
            assert_eq!(found, tally, "{:?} {steps:?}", kernels.isa());
            assert_eq!(bits(&out), bits(&want), "{:?} {steps:?} {n} {past} {heads} {width}", kernels.isa());
        }
    }
}

/// More queries than are worked on at a time, with and without a window, and heads that are no whole vectors.
#[test]
fn attention_of_many_queries_is_exact() {
    let levels = LevelRange { code: Code::Binary, steps: 7, most: 127 };
    for (n, past, window, width) in [(130, 0, 0, 64), (65, 70, 0, 80), (129, 10, 37, 32), (64, 64, 0, 128)] {
        for thresholds in [false, true] {
            let heads = Heads { thresholds, ..grouped(1, 2, window) };
            ssa::<i8>(n, past, heads, width, &levels, 5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn dense_products_are_chains(n in 1usize..10, k in 1usize..70, m in 1usize..70, seed: u64) {
        linear(n, k, m, seed);
    }

    #[test]
    fn products_are_exact(n in 1usize..10, k in 1usize..70, m in 1usize..140, wide: bool, seed: u64) {
        product(n, k, m, if wide { 65_535 } else { 127 }, seed);
        product(n, k, m, if wide { 32_767 } else { 255 }, seed);
    }

    #[test]
    fn products_of_groups_are_exact(
        n in 1usize..80, k in 1usize..150, m in 1usize..140, group in 1u16..5, wide: bool, seed: u64
    ) {
        product_of_groups(n, k, m, 8 * group, 127, seed);
        product_of_groups(n.min(9), k.min(30), m, 8 * group, if wide { 65_535 } else { 255 }, seed);
    }

    #[test]
    fn rows_are_exact(
        n in 1usize..4, k in 1usize..60, m in 1usize..140, steps in 1usize..8, binary: bool, seed: u64
    ) {
        rows(n, k, m, steps, if binary { 2 } else { 1 }, seed);
    }

    /// By 127, sums of the later timesteps leave 32 bits.
    #[test]
    fn currents_are_exact(
        n in 1usize..4, k in 1usize..60, m in 1usize..140, steps in 1usize..8, carry in 0usize..3, seed: u64
    ) {
        currents(n, k, m, steps, [1, 2, 127][carry], seed);
    }

    #[test]
    fn attention_is_chains(
        n in 1usize..14, past in 0usize..40, kv in 1usize..4, group in 1usize..4, window in 0usize..30, width in 1usize..36, seed: u64
    ) {
        attention(n, past, grouped(kv, group, window), width, seed);
    }

    #[test]
    fn dots_and_weighted_sums_are_exact(
        n in 1usize..40, past in 0usize..150, kv in 1usize..3, group in 1usize..4, window in 0usize..190,
        width in 1usize..140, unary: bool, seed: u64
    ) {
        // Every second one without a window.
        let heads = grouped(kv, group, if window % 2 == 0 { 0 } else { window });
        let code = if unary { Code::Unary } else { Code::Binary };
        ssa::<i8>(n, past, heads, width, &LevelRange { code, steps: if unary { 127 } else { 7 }, most: 127 }, seed);
        ssa::<i16>(n, past, heads, width, &LevelRange { code, steps: if unary { 300 } else { 9 }, most: 300 }, seed);
    }

    #[test]
    fn a_row_does_not_know_its_neighbours(n in 2usize..20, seed: u64) {
        let mut numbers = SeededNumbers(seed);
        let (k, m) = (37, 51);
        let (x, w) = (numbers.many(n * k, SeededNumbers::f32), numbers.many(k * m, SeededNumbers::f32));
        for kernels in isas() {
            let (mut all, mut one) = (vec![0.0; n * m], vec![0.0; m]);
            kernels.linear_f32(&x, &w, None, k, m, &mut all);
            kernels.linear_f32(&x[k..2 * k], &w, None, k, m, &mut one);
            prop_assert_eq!(bits(&all[m..2 * m]), bits(&one));
        }
    }

    #[test]
    fn neurons_give_the_nearest_level(d in 1usize..70, n in 1usize..4, seed: u64) {
        let mut numbers = SeededNumbers(seed);
        let x = numbers.many(n * d, |numbers| numbers.level(3000));
        let [pre_gain, pre_offset, gain, offset] = [0.003, 2.0, 9.0, 1.0].map(|s| numbers.many(d, |n| s * n.f32()));
        let table = numbers.many(4099, SeededNumbers::f32);
        for (code, levels) in [(Code::Binary, 127), (Code::Unary, 9), (Code::Binary, 1023)] {
            for activation in [None, Some(ActivationTable { gain: &pre_gain, offset: &pre_offset, table: &table })] {
                neuron(&x, &NeuronParams { levels, activation, gain: &gain, offset: &offset, count: Some(code) }, code);
            }
        }
    }
}

/// By the definition, table and all.
fn potential(x: f32, c: usize, neuron: &NeuronParams<'_>) -> f32 {
    let g = neuron.activation.map_or(x, |activation| {
        let h = x * activation.gain[c] + activation.offset[c];
        if h >= 8.0 {
            return h * activation.table[4098];
        }
        if h <= -8.0 {
            return h * activation.table[4097];
        }
        let s = (h + 8.0) * 256.0;
        let i = s as usize;
        activation.table[i] + (s - i as f32) * (activation.table[i + 1] - activation.table[i])
    });
    g * neuron.gain[c] + neuron.offset[c]
}

fn neuron(x: &[i32], neuron: &NeuronParams<'_>, code: Code) {
    let d = neuron.gain.len();
    let want: Vec<i32> =
        x.iter().enumerate().map(|(i, &x)| level(potential(x as f32, i % d, neuron), neuron.levels)).collect();
    let saturated = want.iter().filter(|level| level.abs() == neuron.levels).count() as u64;
    let active = want.iter().filter(|level| **level != 0).count() as u64;
    let fired = SpikeCount { spikes: want.iter().map(|&level| spikes(code, level)).sum(), active, saturated };
    let floats: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    for kernels in isas() {
        let mut wide = vec![0i16; x.len()];
        assert_eq!(kernels.quantise(x, neuron, &mut wide), fired);
        assert_eq!(wide.iter().map(|&y| i32::from(y)).collect::<Vec<_>>(), want);
        assert_eq!(
            kernels.quantise(&floats, &NeuronParams { count: None, ..*neuron }, &mut wide),
            SpikeCount::default()
        );
        assert_eq!(wide.iter().map(|&y| i32::from(y)).collect::<Vec<_>>(), want);
        if neuron.levels <= 127 {
            let mut narrow = vec![0i8; x.len()];
            assert_eq!(kernels.quantise(x, neuron, &mut narrow), fired);
            assert_eq!(narrow.iter().map(|&y| i32::from(y)).collect::<Vec<_>>(), want);
        }
    }
}

#[test]
fn products_over_more_than_a_block() {
    for (n, k, m) in [(1, 1030, 100), (7, 1030, 100), (13, 515, 1030), (3, 9, 1100)] {
        linear(n, k, m, 3);
        product(n, k, m, 127, 4);
    }
    rows(2, 1100, 200, 4, 2, 5);
    // More timesteps than one run has, blocks of unequal length, values of one magnitude and of many.
    rows(3, 1541, 70, 17, 2, 5);
    rows(2, 2051, 130, 40, 1, 5);
    currents(2, 1541, 70, 9, 2, 5);
    for window in [0, 1, 5, 100, 400] {
        attention(9, 300, grouped(2, 2, window), 40, 6);
        attention(1, 300, grouped(2, 2, window), 40, 6);
    }
}

/// Tokens of whole tiles and not, inputs and outputs of whole panels and not; of more than 8 bits too.
#[test]
fn products_of_many_tokens() {
    for (n, k, m) in
        [(16, 64, 64), (17, 63, 70), (31, 130, 64), (32, 576, 192), (33, 12, 130), (47, 5, 1), (70, 200, 257)]
    {
        product(n, k, m, 127, 6);
        product(n, k, m, 300, 7);
    }
}

#[test]
fn lists_are_of_what_fires() {
    let mut numbers = SeededNumbers(7);
    for len in (0..40).chain([511, 512, 700]) {
        for share in [0, 1, 4, 8] {
            let x: Vec<i8> = numbers.many(len.max(1), |numbers| {
                let x = numbers.level(127) as i8;
                if numbers.next() % 8 < share { x } else { 0 }
            });
            let want: Vec<(usize, i8)> = x.iter().copied().enumerate().filter(|(_, x)| *x != 0).collect();
            for kernels in isas() {
                let list = kernels.event_list(&x, x.len(), x.len());
                let rows = list.plane(0);
                let found = rows.places().iter().map(|c| *c as usize).zip(rows.values().iter().copied());
                assert!(found.take(want.len()).eq(want.iter().copied()), "{:?} {len}", kernels.isa());
                assert_eq!(rows.places().len(), want.len().next_multiple_of(4));
                assert_eq!(list.count(), want.len() as u64);
                assert_eq!(rows.total(), x.iter().map(|&x| i32::from(x)).sum::<i32>());
                assert_eq!(rows.are_spikes(), x.iter().all(|x| x.unsigned_abs() <= 1));
            }
        }
    }
}

#[test]
fn products_of_extremes() {
    let (k, m) = (768, 64);
    let packed = panels(&vec![-127; k * m], k, m);
    let packed = Panels::new(packed.as_panels().expect("they are"), k, m);
    for kernels in isas() {
        for (n, x) in [(1, -127), (5, -127), (1, -128), (5, -128), (2, 127), (40, -127), (40, -128)] {
            let mut y = vec![0; n * m];
            kernels.matmul_int(&vec![x; n * k], &[], packed, &mut y);
            assert_eq!(y, vec![i32::from(x) * -127 * 768; n * m]);
            kernels.synapse(&kernels.event_list(&vec![x; n * k], k, k), packed, &mut y);
            assert_eq!(y, vec![i32::from(x) * -127 * 768; n * m]);
        }
        for x in [-1, 1] {
            let mut y = vec![0; m];
            kernels.trains(&trains(kernels, &vec![x; 7 * k], k, k, 7, 2), packed, &mut y);
            assert_eq!(y, vec![127 * i32::from(x) * -127 * 768; m]);
            kernels.trains(&trains(kernels, &vec![x; 7 * k], k, k, 7, 1), packed, &mut y);
            assert_eq!(y, vec![7 * i32::from(x) * -127 * 768; m]);
        }
    }
}

#[test]
fn columns_are_of_the_weight() {
    let (k, m) = (5, 70);
    let w: Vec<i8> = (0..k * m).map(|i| (i * 7 % 251) as u8 as i8).collect();
    let packed = panels(&w, k, m);
    let packed = Panels::new(packed.as_panels().expect("they are"), k, m);
    for kernels in isas() {
        let mut y = vec![0; 3 * k];
        assert!(kernels.embed_columns(&[69, 0, 64], packed, &mut y));
        let want = [69, 0, 64].iter().flat_map(|id| w[*id..].iter().step_by(m)).map(|&w| i32::from(w));
        assert!(y.iter().copied().eq(want));
        assert!(
            !kernels.embed_columns(&[0, 70, 0], packed, &mut y) && !kernels.embed_columns(&[-1, 0, 0], packed, &mut y)
        );
    }
}

#[test]
fn extreme_potentials() {
    let x = [
        0.0,
        -0.0,
        0.5,
        -0.5,
        0.49999997,
        126.5,
        127.5,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -1e-45,
    ];
    // The number below a half is level 1: adding a half rounds it up.
    let want = [0, 0, 1, -1, 1, 127, 127, 127, -127, 127, -127, 127, 0];
    let (gain, offset) = ([1.0; 13], [0.0; 13]);
    let neuron = NeuronParams { levels: 127, activation: None, gain: &gain, offset: &offset, count: Some(Code::Unary) };
    // h + 8 rounds to 16 for the number below 8: the last sample, and no step beyond it.
    let edges =
        [-8.0, 8.0, f32::from_bits(8f32.to_bits() - 1), -f32::from_bits(8f32.to_bits() - 1), f32::NAN, 1e30, -1e30];
    let table: Vec<f32> = (0..4099usize).map(|i| [i as f32 / 64.0, -1.0, 2.0][i.saturating_sub(4096).min(2)]).collect();
    for kernels in isas() {
        let mut y = [0i8; 13];
        assert_eq!(kernels.quantise(&x, &neuron, &mut y), SpikeCount { spikes: 3 + 127 * 7, active: 10, saturated: 7 });
        assert_eq!(y, want);
        let neuron = NeuronParams {
            activation: Some(ActivationTable { gain: &gain[..7], offset: &offset[..7], table: &table }),
            gain: &gain[..7],
            offset: &offset[..7],
            ..neuron
        };
        let mut y = [0i8; 7];
        kernels.quantise(&edges, &neuron, &mut y);
        assert_eq!(y, [8, 16, 64, 0, 127, 127, 127]);
    }
}

#[test]
fn exponential_is_libm() {
    // Every 509th number from 0 to minus infinity and some NaNs; a prime, so that all low bits occur.
    let magnitudes = (0..=0x7f80_0000u32).step_by(509).chain([0x42cf_f1b4, 0x42cf_f1b5, 0x3f85_1592, 0x3eb1_7218]);
    let numbers: Vec<f32> = magnitudes.map(|bits| -f32::from_bits(bits)).chain([0.0, -f32::INFINITY]).collect();
    let mut found = numbers.clone();
    exponential::exponentials(&mut found);
    for (x, y) in numbers.iter().zip(&found) {
        assert_eq!(y.to_bits(), libm::expf(*x).to_bits(), "exp({x:?})");
    }
    let mut nan = [f32::NAN];
    exponential::exponentials(&mut nan);
    assert!(nan[0].is_nan());
}

#[test]
fn rows_are_normalised_in_the_stated_order() {
    for d in [1, 7, 16, 33, 768] {
        let x = SeededNumbers(d as u64).many(4 * d, |n| 100.0 * n.f32());
        let centred: Vec<f32> = x.chunks(d).flat_map(|x| x.iter().map(|c| c - row_sum(x) / d as f32)).collect();
        let want: Vec<f32> = x.chunks(d).flat_map(|x| definition(x, 1e-5)).collect();
        for kernels in isas() {
            let mut y = vec![0.0; 4 * d];
            kernels.centre(&x, d, &mut y);
            assert_eq!(bits(&y), bits(&centred));
            assert!(kernels.rms_norm(&x, d, 1e-5, &mut y));
            assert_eq!(bits(&y), bits(&want));
            for bad in [f32::INFINITY, f32::NAN, f32::MAX] {
                assert!(!kernels.rms_norm(&vec![bad; d], d, 1e-5, &mut y[..d]));
            }
        }
    }
}

/// Parts of every length, from one number to several passes of butterflies.
#[test]
fn transforms_are_their_definition() {
    let powers = (1..=11).map(|power| (1, power));
    let orders = [(12, 0), (12, 1), (12, 3), (12, 4), (12, 5), (12, 7), (20, 2), (28, 6), (76, 3)];
    for (order, power) in powers.chain(orders) {
        let size = HadamardSize { order, power };
        let x = SeededNumbers(u64::from(order + power)).many(3 * size.block(), |n| 100.0 * n.f32());
        let (mut want, matrix) = (x.clone(), HadamardMatrix::of(size));
        matrix.apply(&mut want);
        for kernels in isas() {
            let mut y = vec![f32::NAN; x.len()];
            kernels.hadamard(&x, &matrix, &mut y);
            assert_eq!(bits(&y), bits(&want), "{size}");
            for bad in [f32::INFINITY, f32::NAN] {
                let mut x = x[..size.block()].to_vec();
                x[size.block() / 2] = bad;
                kernels.hadamard(&x, &matrix, &mut y[..size.block()]);
                assert!(y[..size.block()].iter().all(|y| !y.is_finite()), "an infinity stays one in {size}");
            }
        }
    }
}

#[test]
fn a_row_stands_where_a_sequence_begins_in_its_way() {
    let (x, rows) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [-1.0, -2.0, -3.0, -4.0]);
    for kernels in isas() {
        let mut y = [0.0; 8];
        kernels.at_start(&x, &[3, -1, 3, 9, -1, -1, 9, -1], &[3, -1, 3, 9], &rows, &mut y);
        assert_eq!(y, [-1.0, -2.0, -3.0, -4.0, 5.0, 6.0, 7.0, 8.0]);
    }
}

fn definition(x: &[f32], eps: f32) -> Vec<f32> {
    let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
    let inverse = 1.0 / (row_sum(&squares) / x.len() as f32 + eps).sqrt();
    x.iter().map(|x| x * inverse).collect()
}

#[test]
fn a_residual_comes_last() {
    let (d, mut numbers) = (37, SeededNumbers(3));
    let sums = numbers.many(2 * d, |numbers| numbers.level(3_000));
    let [gain, offset] = [0, 1].map(|_| numbers.many(d, SeededNumbers::f32));
    let residual = numbers.many(2 * d, SeededNumbers::f32);
    let plain: Vec<f32> = (0..2 * d).map(|i| sums[i] as f32 * gain[i % d] + offset[i % d]).collect();
    let added: Vec<f32> = plain.iter().zip(&residual).map(|(y, r)| y + r).collect();
    let reals: Vec<f32> = sums.iter().map(|&x| x as f32).collect();
    for kernels in isas() {
        let mut y = vec![f32::NAN; 2 * d];
        kernels.scale_shift(&sums, &gain, &offset, None, &mut y);
        assert_eq!(bits(&y), bits(&plain));
        kernels.scale_shift(&reals, &gain, &offset, Some(&residual), &mut y);
        assert_eq!(bits(&y), bits(&added));
    }
}

/// Worked by hand: a quarter of a turn and none, of two pairs of three; the rest passes.
#[test]
fn heads_are_turned_in_pairs() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let turns = [0.0, 1.0, 1.0, 0.0];
    for kernels in isas() {
        let mut y = [0.0; 6];
        kernels.rotary(&x, &turns, 6, 1, Pairs::Half, &mut y);
        assert_eq!(y, [-3.0, 2.0, 1.0, 4.0, 5.0, 6.0]);
        kernels.rotary(&x, &turns, 6, 1, Pairs::Interleaved, &mut y);
        assert_eq!(y, [-2.0, 1.0, 3.0, 4.0, 5.0, 6.0]);
    }
}

#[test]
fn turns_are_rounded_as_stated() {
    for (width, turned) in [(2, 2), (7, 4), (64, 64), (80, 32), (33, 30)] {
        let (heads, rows) = (3, 2);
        let mut numbers = SeededNumbers(width as u64);
        let (d, half) = (heads * width, turned / 2);
        let x = numbers.many(rows * d, SeededNumbers::f32);
        let turns = numbers.many(rows * turned, SeededNumbers::f32);
        for pairs in Pairs::ALL {
            let mut want = x.clone();
            for (row, turns) in want.chunks_mut(d).zip(turns.chunks(turned)) {
                for (head, i) in (0..heads).flat_map(|h| (0..half).map(move |i| (h * width, i))) {
                    let [p, q] = pairs.channels(i, half).map(|c| head + c);
                    let (a, b, cos, sin) = (row[p], row[q], turns[i], turns[half + i]);
                    (row[p], row[q]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
            for kernels in isas() {
                let mut y = vec![f32::NAN; rows * d];
                kernels.rotary(&x, &turns, d, heads, pairs, &mut y);
                assert_eq!(bits(&y), bits(&want), "{:?} {pairs:?} {turned} of {width}", kernels.isa());
            }
        }
    }
}

/// Gates and factors of either kind, levels of either size, every curve, rows that fit no vector.
#[test]
fn gated_neurons_give_the_nearest_level() {
    for (d, levels, code) in [(1, 127, Code::Binary), (37, 9, Code::Unary), (80, 127, Code::Binary)] {
        let mut numbers = SeededNumbers(d as u64);
        let [gate, up] = [0, 1].map(|_| numbers.many(3 * d, |numbers| numbers.level(3000)));
        let [gates, ups] = [&gate, &up].map(|x| x.iter().map(|&x| x as f32).collect::<Vec<f32>>());
        let [pre_gain, pre_offset, gain, offset] = [0.005, 2.0, 0.02, 1.0].map(|s| numbers.many(d, |n| s * n.f32()));
        for curve in Curve::ALL {
            let potential = |i: usize| {
                let c = i % d;
                curve.at_f32(gates[i] * pre_gain[c] + pre_offset[c]) * (ups[i] * gain[c] + offset[c])
            };
            let want: Vec<i32> = (0..3 * d).map(|i| level(potential(i), levels)).collect();
            let fired = SpikeCount {
                spikes: want.iter().map(|&level| spikes(code, level)).sum(),
                active: want.iter().filter(|level| **level != 0).count() as u64,
                saturated: want.iter().filter(|level| level.abs() == levels).count() as u64,
            };
            let [sums, factors] = [&gate, &up].map(|x| InputRows::I32(x));
            let [real_gates, real_factors] = [&gates, &ups].map(|x| InputRows::F32(x));
            let neuron = GatedParams {
                levels,
                curve,
                pre_gain: &pre_gain,
                pre_offset: &pre_offset,
                gain: &gain,
                offset: &offset,
                count: Some(code),
            };
            for kernels in isas() {
                let (mut narrow, mut wide) = (vec![0i8; 3 * d], vec![0i16; 3 * d]);
                for made in [
                    kernels.quantise_gated(sums, factors, &neuron, &mut narrow),
                    kernels.quantise_gated(real_gates, real_factors, &neuron, &mut wide),
                ] {
                    assert_eq!(made, fired, "{:?} {curve:?} {d}", kernels.isa());
                }
                assert!(narrow.iter().map(|&y| i32::from(y)).eq(want.iter().copied()));
                assert!(wide.iter().map(|&y| i32::from(y)).eq(want.iter().copied()));
                let uncounted = GatedParams { count: None, ..neuron };
                assert_eq!(kernels.quantise_gated(sums, real_factors, &uncounted, &mut wide), SpikeCount::default());
                assert!(wide.iter().map(|&y| i32::from(y)).eq(want.iter().copied()));
                kernels.quantise_gated(real_gates, factors, &uncounted, &mut wide);
                assert!(wide.iter().map(|&y| i32::from(y)).eq(want.iter().copied()));
            }
        }
    }
}

#[test]
fn levels_are_spelled_in_planes() {
    for (code, steps, most) in [(Code::Binary, 7, 127), (Code::Unary, 9, 9)] {
        let (d, stride) = (19, 32);
        let levels: Vec<i8> = SeededNumbers(2).many(2 * d, |numbers| numbers.level(most) as i8);
        for kernels in isas() {
            let mut planes = vec![5; 2 * usize::from(steps) * stride];
            kernels.spell(&levels, d, code, steps, stride, &mut planes);
            for (i, plane) in planes.chunks(stride).enumerate() {
                let (row, t) = (i / usize::from(steps), (i % usize::from(steps)) as u16);
                let want = levels[row * d..][..d].iter().map(|&level| spell_one(level, code, t, steps));
                assert!(plane[..d].iter().copied().eq(want) && plane[d..].iter().all(|spike| *spike == 0));
            }
        }
    }
}

#[test]
fn spikes_spell_levels() {
    for (code, steps, most) in [(Code::Binary, 7, 127), (Code::Binary, 15, 32_767), (Code::Unary, 9, 9)] {
        let levels: Vec<i16> = SeededNumbers(1).many(77, |numbers| numbers.level(most) as i16);
        let carry = if code == Code::Binary { 2 } else { 1 };
        let spell =
            |&level: &i16| -> Vec<i32> { (0..steps).map(|t| spell_one(level, code, t, steps).into()).collect() };
        let trains: Vec<Vec<i32>> = levels.iter().map(spell).collect();
        for (train, &level) in trains.iter().zip(&levels) {
            assert_eq!(train.iter().fold(0, |sum, spike| carry * sum + spike), i32::from(level));
        }
        let fired = trains.iter().flatten().filter(|spike| **spike != 0).count() as u64;
        for kernels in isas() {
            assert_eq!(kernels.count_spikes(&levels, code), fired);
        }
    }
}

/// Rows of every length have the counts of their levels one by one.
#[test]
fn what_fires_is_counted() {
    fn check<L: StoredLevel + Default + std::fmt::Debug>(code: Code, levels: i32, width: usize) {
        let x: Vec<f32> =
            SeededNumbers(width as u64).many(2 * width, |numbers| numbers.level(levels + levels / 4) as f32);
        let (gain, offset) = (vec![1.0; width], vec![0.0; width]);
        let neuron = NeuronParams { levels, activation: None, gain: &gain, offset: &offset, count: Some(code) };
        for kernels in isas() {
            let mut y = vec![L::default(); 2 * width];
            let fired = kernels.quantise(&x, &neuron, &mut y);
            let of = |f: &dyn Fn(u32) -> u32| y.iter().map(|level| u64::from(f(level.to_i32().unsigned_abs()))).sum();
            let spikes: u64 = of(&|magnitude| if code == Code::Binary { magnitude.count_ones() } else { magnitude });
            assert_eq!(fired.spikes, spikes, "{code:?}, {levels} levels, {width}");
            assert_eq!(fired.active, of(&|magnitude| u32::from(magnitude > 0)));
            assert_eq!(fired.saturated, of(&|magnitude| u32::from(magnitude == levels as u32)));
        }
    }
    for width in [1, 63, 64, 65, 768, 1024, 1500] {
        check::<i8>(Code::Binary, 127, width);
        check::<i8>(Code::Binary, 15, width);
        check::<i8>(Code::Unary, 9, width);
        check::<i16>(Code::Binary, 32_767, width);
        check::<i16>(Code::Unary, 300, width);
    }
}

#[test]
fn rows_are_embedded() {
    let table = [0.5f32, 1e8, -1.0, 2.0, 3.0, 4.0];
    for kernels in isas() {
        let mut rows = [0.0; 6];
        assert!(kernels.embed(&[1, 0], &table, 3, &mut rows));
        assert_eq!(rows, [2.0, 3.0, 4.0, 0.5, 1e8, -1.0]);
        assert!(!kernels.embed(&[0, 2], &table, 3, &mut rows));
        assert!(!kernels.embed(&[-1, 0], &table, 3, &mut rows));
    }
}

#[test]
fn curves_are_their_formulas() {
    let x = [-9.0f32, -1.5, -0.0, 0.0, 0.3, 2.0, 11.0];
    for kernels in isas() {
        let curve = |curve| {
            let mut y = [0.0; 7];
            kernels.curve_f32(curve, &x, &mut y);
            bits(&y)
        };
        for kind in Curve::ALL {
            assert_eq!(curve(kind), bits(&x.map(|x| kind.at_f32(x))), "{:?} {}", kernels.isa(), kind.name());
        }
        assert_eq!(curve(Curve::Identity), bits(&x));
        assert_eq!(curve(Curve::Relu), bits(&x.map(|x| if x > 0.0 { x } else { 0.0 })));
        let (mut y, up) = ([0.0; 7], [2.0f32, -1.0, 5.0, 1.0, -0.5, 3.0, 0.1]);
        kernels.gated_f32(Curve::Silu, &x, &up, &mut y);
        let product = |i: usize| Curve::Silu.at_f32(x[i]) * up[i];
        assert_eq!(bits(&y), bits(&[0, 1, 2, 3, 4, 5, 6].map(product)));
    }
}

#[test]
fn instruction_sets_are_named() {
    assert_eq!(Isa::from_name("portable"), Ok(Isa::Portable));
    for isa in ISAS {
        assert_eq!(Isa::from_name(isa.name()), Ok(isa));
    }
    assert_eq!(Isa::from_name("sse9"), Err("SNNC_ISA is `sse9`; it can be `portable`, `avx2`, `avx512`".to_owned()));
    assert!(Isa::best().is_available());
}

/// Sums times a number of their row: as scale and shift, product, scale and shift and addition are one after the other, signs of
/// zeros included.
#[test]
fn sums_times_a_number_of_their_row() {
    for d in [1, 16, 37, 80] {
        let mut numbers = SeededNumbers(d as u64);
        let rows = 3;
        let sums: Vec<i32> = numbers.many(rows * d, |n| if n.next() % 4 == 0 { 0 } else { n.level(90_000) });
        let some = |n: &mut SeededNumbers| [0.0, -0.0, n.f32(), 0.001 * n.f32()][n.next() as usize % 4];
        let [gain, offset, then_gain, then_offset] = [0, 1, 2, 3].map(|_| numbers.many(d, some));
        let (by, residual) = ([0.5, -3.0, 1e-3], numbers.many(rows * d, some));
        let scaled: Vec<f32> =
            (0..rows * d).map(|i| (sums[i] as f32 * gain[i % d] + offset[i % d]) * by[i / d]).collect();
        let shifted: Vec<f32> = (0..rows * d).map(|i| scaled[i] * then_gain[i % d] + then_offset[i % d]).collect();
        let plus = |x: &[f32]| x.iter().zip(&residual).map(|(x, r)| x + r).collect::<Vec<f32>>();
        let plain = ScaledRows { scale: [&gain, &offset], shift: None };
        let shift = ScaledRows { shift: Some([&then_gain, &then_offset]), ..plain };
        for kernels in isas() {
            for (rows, want) in [(plain, &scaled), (shift, &shifted)] {
                let mut y = vec![f32::NAN; want.len()];
                kernels.scaled_sums(&sums, &rows, &by, None, &mut y);
                assert_eq!(bits(&y), bits(want), "{:?} {d}", kernels.isa());
                kernels.scaled_sums(&sums, &rows, &by, Some(&residual), &mut y);
                assert_eq!(bits(&y), bits(&plus(want)), "{:?} {d}", kernels.isa());
            }
        }
    }
}

#[test]
fn peaks_of_rows() {
    for d in [1, 16, 37, 80] {
        let mut x = SeededNumbers(d as u64).many(4 * d, |n| n.f32() - 1.0);
        x[2 * d..3 * d].fill(-0.0);
        x[3 * d..].iter_mut().for_each(|x| *x = 1e-40);
        let most = |row: &[f32]| row.iter().fold(0f32, |most, x| if most < x.abs() { x.abs() } else { most });
        let want: Vec<f32> = x.chunks(d).map(most).map(|most| if most == 0.0 { 1.0 } else { most }).collect();
        assert_eq!(want[2], 1.0);
        for kernels in isas() {
            let mut y = [0.0; 4];
            assert!(kernels.row_max_abs(&x, d, &mut y));
            assert_eq!(bits(&y), bits(&want), "{:?} {d}", kernels.isa());
            for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
                let mut x = x.clone();
                x[3 * d - 1] = bad;
                assert!(!kernels.row_max_abs(&x, d, &mut y), "{:?} {d} {bad}", kernels.isa());
            }
        }
    }
}

/// Levels of shares are those of quotients: everywhere between two levels and next to it, of peaks at both ends of numbers.
#[test]
fn levels_of_shares_are_those_of_quotients() {
    for (d, levels, peak) in
        [(1, 127, 3.0), (37, 127, 0.7), (96, 9, 1e-3), (80, 127, 1e38), (80, 127, 1e-42), (640, 16_383, 41.0)]
    {
        let mut numbers = SeededNumbers(d as u64);
        let rows = 40;
        let mut x = numbers.many(rows * d, |n| {
            // Half way between two levels, or some steps of the last bit off.
            let half = (n.level(levels) as f32 + 0.5) / levels as f32 * peak;
            let off = n.next() as u32 % 9;
            match n.next() % 4 {
                0 => n.f32() / 2.0 * peak,
                _ => f32::from_bits(half.to_bits().saturating_add(off).saturating_sub(4)),
            }
        });
        x.iter_mut().for_each(|x| *x = x.clamp(-peak, peak));
        x.chunks_mut(d).for_each(|row| row[d / 2] = peak);
        let peaks = vec![peak; rows];
        let plain = (vec![levels as f32; d], vec![0.0; d]);
        let other = (numbers.many(d, |n| n.f32() * levels as f32), numbers.many(d, |n| 40.0 * n.f32()));
        for (gain, offset) in [plain, other] {
            let count = Some(Code::Binary);
            let neuron = NeuronParams { levels, activation: None, gain: &gain, offset: &offset, count };
            for kernels in isas() {
                let mut quotients = vec![f32::NAN; x.len()];
                kernels.scale_rows(&x, &peaks, d, true, &mut quotients);
                let (mut want, mut y) = (vec![0i16; x.len()], vec![1i16; x.len()]);
                let fired = kernels.quantise(&quotients, &neuron, &mut want);
                assert_eq!(kernels.quantise_shares(&x, &peaks, &neuron, &mut y), fired, "{:?} {d}", kernels.isa());
                assert_eq!(y, want, "{:?} {d}", kernels.isa());
                if levels <= 127 {
                    let mut y = vec![1i8; x.len()];
                    assert_eq!(kernels.quantise_shares(&x, &peaks, &neuron, &mut y), fired);
                    assert!(y.iter().map(|&y| i16::from(y)).eq(want.iter().copied()), "{:?} {d}", kernels.isa());
                }
            }
        }
    }
}
