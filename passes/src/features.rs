//! What attention without softmax begins with, before it is trained: features of queries and keys, sinks, halvings.
//!
//! A feature is a rectified neuron of a head's map. Untrained, the maps are the channels and their negatives, so that a score
//! is large where queries and keys point the same way, with a little seeded noise by which training tells features apart; q
//! and k are balanced channel by channel, and a head's root mean square is 1. LIF neurons have no map: they take the
//! channels. Half-lives go from never, in the first head, to two tokens in the last.

use crate::levels::Levels;
use crate::observed::Observed;
use crate::shared_channels::SharedChannels;
use snnc_ir::op::Heads;
use snnc_ir::random::SplitMix64;
use snnc_ir::ssa::Ssa;
use snnc_ir::{Code, Tensor};

/// Features of one attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Levels of the features.
    pub levels: Levels,
    /// By channel of q and of k: what counts 1 in a map.
    pub units: [Vec<f32>; 2],
}

/// Timesteps of features where nothing else is asked for. Four thresholds reach the dense network's perplexity when trained
/// (WikiText-2, 4 layers).
pub const STEPS: u16 = 4;

/// Features for each channel of a head: it and its negative.
pub const SIDES: usize = 2;

/// The largest level stands for so many times a head's root mean square.
const REACH: f32 = 2.5;

/// Below this a channel's root mean square counts as this.
const LEAST: f32 = 1e-8;

/// Standard deviation of a map's noise beside entries of 1.
const NOISE: f32 = 0.05;

/// What a key must weigh to count as much as the sink: half a coincidence; of squared ones, half of 64.
const SINK: f32 = 0.5;
const SINK_SQUARED: f32 = 32.0;

/// Levels that features can have: those of coincidences are spelled one by one.
pub fn levels(variant: Ssa, asked: Levels) -> Levels {
    match variant {
        Ssa::Coincidence { .. } | Ssa::Lif { .. } => Levels { code: Code::Unary, ..asked },
        Ssa::Linear { .. } | Ssa::Ttfs { .. } | Ssa::TopK { .. } => asked,
    }
}

impl Features {
    /// Balanced over what q and k were seen to hold.
    pub fn new(levels: Levels, [q, k]: [&Observed; 2], heads: Heads) -> Self {
        let rms = |seen: &Observed| -> Vec<f32> {
            let width = seen.min.len();
            let mut squares = vec![0f64; width];
            for row in seen.sample.chunks_exact(width.max(1)) {
                squares.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
            }
            let rows = (seen.sample.len() / width.max(1)).max(1) as f64;
            squares.into_iter().map(|sum| ((sum / rows).sqrt() as f32).max(LEAST)).collect()
        };
        let (q, k) = (rms(q), rms(k));
        let width = k.len() / heads.kv.max(1) as usize;
        let shared = SharedChannels { heads, width };
        // Queries of a group count as the farthest of them.
        let q: Vec<f32> = (0..k.len()).map(|c| shared.queries(c).map(|i| q[i]).fold(0f32, f32::max)).collect();
        let both: Vec<f32> = q.iter().zip(&k).map(|(q, k)| q * k).collect();
        let head = |c: usize| {
            let head = &both[c / width * width..][..width];
            (head.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64).sqrt() as f32
        };
        // q b and k / b have the same root mean square, that of the geometric mean.
        let unit = |c: usize, own: f32, other: f32| head(c) * (own / other).sqrt();
        let units = |own: &[f32], other: &[f32]| -> Vec<f32> {
            own.iter().zip(other).enumerate().map(|(c, (&own, &other))| unit(c, own, other)).collect()
        };
        let of_group = units(&q, &k);
        let of_queries = (0..k.len() * heads.group()).map(|q| of_group[shared.key(q)]).collect();
        Self { levels, units: [of_queries, units(&k, &q)] }
    }

    /// A map of q or k, `[heads, width, features]`. Queries have the noise of the keys that they meet, so that a feature means the
    /// same in both.
    pub fn map(&self, part: usize, heads: Heads) -> Tensor {
        let (channels, kv_channels) = (self.units[part].len(), self.units[1].len());
        let width = kv_channels / heads.kv as usize;
        let features = SIDES * width;
        let shared = SharedChannels { heads, width };
        let mut noise = Noise(SplitMix64(0x0005_eed0_f0ea_7005));
        let noise: Vec<f32> = (0..kv_channels * features).map(|_| NOISE * noise.next()).collect();
        let mut map = Vec::with_capacity(channels * features);
        for (c, &unit) in self.units[part].iter().enumerate() {
            let met = if part == 0 { shared.key(c) } else { c };
            for f in 0..features {
                let sign = if f / width == 0 { 1.0 } else { -1.0 };
                let own = if f % width == c % width { sign } else { 0.0 };
                map.push((own + noise[met * features + f]) / unit);
            }
        }
        Tensor::f32(&[channels / width, width, features], map)
    }

    /// Gain before the rectifier, for a potential whose root mean square is 1.
    pub fn gain(&self) -> f32 {
        self.levels.most() as f32 / REACH
    }
}

/// The sinks of a variant's heads.
pub fn sinks(variant: Ssa, heads: usize) -> Vec<f32> {
    let sink = if variant == (Ssa::Coincidence { squared: true }) { SINK_SQUARED } else { SINK };
    vec![sink; heads]
}

/// Tokens after which a head's memory halves: evenly over the powers of two from the context, which is never, to 2.
pub fn halvings(heads: usize, context: u32) -> Vec<i32> {
    let most = context.max(2).next_power_of_two().ilog2().min(30);
    let last = heads.saturating_sub(1).max(1) as u32;
    let power = |h: u32| most - (h * (most - 1) + last / 2) / last;
    (0..heads as u32).map(|h| if 1u32 << power(h) >= context { 0 } else { 1 << power(h) }).collect()
}

/// The same of heads whose scores fall with the distance: the power of two next to the distance that halves a weight; of heads that
/// share keys, their mean.
pub fn half_lives(alibi: &[f32], heads: Heads, context: u32) -> Vec<i32> {
    let of = |group: &[f32]| {
        let mean = group.iter().sum::<f32>() / group.len() as f32;
        let octaves = (std::f32::consts::LN_2 / mean).log2().round();
        let most = context.max(2).next_power_of_two().ilog2().min(30) as f32;
        if octaves < most { 1 << octaves.max(0.0) as u32 } else { 0 }
    };
    alibi.chunks_exact(heads.group()).map(of).collect()
}

/// Numbers of mean 0 and variance 1, the same everywhere: of a uniform distribution.
struct Noise(SplitMix64);

impl Noise {
    fn next(&mut self) -> f32 {
        let unit = (self.0.bits() >> 40) as f32 / (1 << 24) as f32;
        (2.0 * unit - 1.0) * 3f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_lives_go_from_never_to_two_tokens() {
        assert_eq!(halvings(4, 256), [0, 64, 8, 2]);
        assert_eq!(halvings(1, 256), [0]);
        assert_eq!(halvings(2, 1), [0, 0]);
        let many = halvings(12, 1024);
        assert!(many[1..].windows(2).all(|pair| pair[0] >= pair[1]) && many[0] == 0 && many[11] == 2, "{many:?}");
    }

    /// Channels of very different reach: balanced, q and k hold as much, and a head's root mean square is 1.
    #[test]
    fn channels_are_balanced() {
        let seen = |row: [f32; 2]| Observed { min: vec![0.0; 2], max: row.to_vec(), sample: row.to_vec(), tokens: 1 };
        let features = Features::new(Levels::default(), [&seen([8.0, 1.0]), &seen([2.0, 4.0])], Heads::equal(1));
        let [q, k] = &features.units;
        let (q, k) = ([8.0 / q[0], 1.0 / q[1]], [2.0 / k[0], 4.0 / k[1]]);
        for (q, k) in q.iter().zip(k) {
            assert!((q - k).abs() < 1e-6, "{q} and {k}");
        }
        assert!((q[0] * q[0] + q[1] * q[1] - 2.0).abs() < 1e-5);
    }
}
