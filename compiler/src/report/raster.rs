//! What a neuron layer did in a run: spikes by token and by neuron, how levels are spread, and single spikes to look at.
//!
//! Neurons that integrate before they fire spell their level, so a level says all of their spikes; of neurons that answer
//! within the timestep, every spike is kept. Large networks have more neurons than a page should hold: of each layer every
//! `n`th is kept then, and `Raster::neurons` says which.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use snnc_ir::types::Elem;
use snnc_ir::{Code, Graph, Value};

/// A layer of neurons in a run.
#[derive(Debug, Serialize)]
pub struct NeuronLayer {
    /// The site that it codes: `h.0.mlp.hidden`.
    pub site: String,
    /// `h.0`, `head`.
    pub block: String,
    /// The neurons, as the IR spells them, and the ONNX node that they came from.
    pub neuron: String,
    pub origin: String,
    pub code: &'static str,
    pub timesteps: u16,
    /// The largest level.
    pub most: i32,
    pub width: usize,
    pub spikes: u64,
    /// Neurons that fired at every timestep, summed over tokens; and the share of these on the calibration text.
    pub saturated: u64,
    pub usually_saturated: f64,
    /// Neurons that never fired.
    pub silent: usize,
    pub histogram: Histogram,
    /// Spikes of every token.
    pub by_token: Vec<u64>,
    /// Base64: of every neuron a byte, the share of timesteps at which it fired, 255 for all; 0 for none alone.
    pub by_neuron: String,
    pub raster: Option<Raster>,
}

/// How many levels lie in each of some ranges, first and last included. 0 is alone, and so are the largest levels.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub struct Histogram {
    pub ranges: Vec<[i32; 2]>,
    pub counts: Vec<u64>,
}

/// Levels, or spikes, of some neurons.
#[derive(Debug, Serialize)]
pub struct Raster {
    /// Neurons that are kept, in order.
    pub neurons: Vec<u32>,
    /// Numbers of a token and neuron: 1 level, or a spike for each timestep.
    pub planes: usize,
    /// Bytes of a number: 1, 2 or 4, little-endian, signed.
    pub bytes: usize,
    /// Base64 of `[tokens, planes, neurons]`.
    pub data: String,
}

/// Ranges of a histogram to either side of 0, beside the largest level.
const RANGES: i32 = 32;

/// Bytes of all rasters together, at most.
pub const RASTER_BYTES: usize = 2 << 20;

/// Numbers of a neuron layer over a run: its levels, or with `planes` its spikes by timestep.
#[derive(Clone, Debug)]
pub struct Seen {
    pub value: Value,
    pub width: usize,
    pub code: Code,
    pub steps: u16,
    /// 1 for levels, else the timesteps.
    pub planes: usize,
    /// `[tokens, planes, width]`
    pub numbers: Vec<i32>,
}

impl Seen {
    /// An empty one for a neuron layer of `graph`.
    pub fn new(graph: &Graph, value: Value) -> Option<Self> {
        let ty = graph.ty(value);
        let (code, steps) = ty.levels()?;
        // A train has no element.
        let planes = if ty.elem().is_none() { usize::from(steps) } else { 1 };
        Some(Self { value, width: ty.shape().row_width()?, code, steps, planes, numbers: Vec::new() })
    }

    fn bytes(&self) -> usize {
        if self.planes > 1 { 1 } else { Elem::Level(self.code, self.steps).bytes() }
    }

    /// Bytes that a raster of all neurons takes.
    pub fn raster_bytes(&self) -> usize {
        self.numbers.len() * self.bytes()
    }

    /// Every token's and neuron's level.
    fn levels(&self) -> impl Iterator<Item = i32> {
        let weight = |t: usize| if self.planes == 1 { 1 } else { self.code.weight(t as u16, self.steps) };
        self.numbers.chunks_exact(self.planes * self.width).flat_map(move |token| {
            let level = move |i| (0..self.planes).map(|t| token[t * self.width + i] * weight(t)).sum();
            (0..self.width).map(level)
        })
    }

    /// Every token's and neuron's spikes, and whether these were all that there could be.
    fn spikes(&self) -> impl Iterator<Item = (u32, bool)> {
        self.numbers.chunks_exact(self.planes * self.width).flat_map(move |token| {
            let count = move |i| match self.planes {
                1 => self.code.spikes(token[i]),
                planes => (0..planes).filter(|t| token[t * self.width + i] != 0).count() as u32,
            };
            (0..self.width).map(move |i| (count(i), count(i) == u32::from(self.steps)))
        })
    }

    /// What is shown of it, with a raster of the given share of its neurons.
    pub fn layer(
        &self,
        graph: &Graph,
        site: String,
        block: String,
        neuron: String,
        usual: f64,
        share: f64,
    ) -> NeuronLayer {
        let tokens = self.numbers.len() / (self.planes * self.width).max(1);
        let mut by_token = vec![0; tokens];
        let mut by_neuron = vec![0u64; self.width];
        let mut saturated = 0;
        for (i, (spikes, all)) in self.spikes().enumerate() {
            by_token[i / self.width] += u64::from(spikes);
            by_neuron[i % self.width] += u64::from(spikes);
            saturated += u64::from(all);
        }
        let most = (tokens as u64 * u64::from(self.steps)).max(1);
        let shares: Vec<u8> = by_neuron.iter().map(|&spikes| (255 * spikes).div_ceil(most) as u8).collect();
        NeuronLayer {
            site,
            block,
            neuron,
            origin: graph.origin(self.value).to_string(),
            code: self.code.name(),
            timesteps: self.steps,
            most: self.code.levels(self.steps),
            width: self.width,
            spikes: by_token.iter().sum(),
            saturated,
            usually_saturated: usual,
            silent: by_neuron.iter().filter(|&&spikes| spikes == 0).count(),
            histogram: Histogram::of(self.levels(), self.code.levels(self.steps)),
            by_token,
            by_neuron: STANDARD.encode(shares),
            raster: Some(self.raster(share)),
        }
    }

    fn raster(&self, share: f64) -> Raster {
        let kept = ((self.width as f64 * share) as usize).clamp(1, self.width);
        let neurons: Vec<u32> = (0..kept).map(|i| (i * self.width / kept) as u32).collect();
        let bytes = self.bytes();
        let mut data = Vec::with_capacity(self.numbers.len() / self.width * kept * bytes);
        for row in self.numbers.chunks_exact(self.width) {
            for &neuron in &neurons {
                data.extend_from_slice(&row[neuron as usize].to_le_bytes()[..bytes]);
            }
        }
        Raster { neurons, planes: self.planes, bytes, data: STANDARD.encode(data) }
    }
}

impl Histogram {
    /// Of levels from `-most` to `most`.
    pub fn of(levels: impl Iterator<Item = i32>, most: i32) -> Self {
        let width = ((most - 1) as u32).div_ceil(RANGES as u32).max(1) as i32;
        let mut above: Vec<[i32; 2]> =
            (1..most).step_by(width as usize).map(|low| [low, (low + width - 1).min(most - 1)]).collect();
        above.push([most, most]);
        let below = above.iter().rev().map(|[low, high]| [-high, -low]);
        let ranges: Vec<[i32; 2]> = below.chain([[0, 0]]).chain(above.iter().copied()).collect();
        let zero = above.len() as i32;
        let mut counts = vec![0; ranges.len()];
        for level in levels {
            let magnitude = level.abs().min(most);
            let place = match magnitude {
                0 => 0,
                _ if magnitude == most => zero,
                _ => 1 + (magnitude - 1) / width,
            };
            counts[(zero + level.signum() * place) as usize] += 1;
        }
        Self { ranges, counts }
    }

    /// The share of levels that are the largest, where potentials may have been clipped.
    pub fn clipped(&self) -> f64 {
        let ends = self.counts.first().unwrap_or(&0) + self.counts.last().unwrap_or(&0);
        ends as f64 / self.counts.iter().sum::<u64>().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;

    #[test]
    fn every_level_is_in_the_range_that_names_it() {
        for most in [1, 2, 3, 33, 34, 127, 255, 65_535] {
            let all = || -most..=most;
            let whole = Histogram::of(all(), most);
            assert_eq!(whole.counts.iter().sum::<u64>(), 2 * most as u64 + 1);
            for ([low, high], count) in whole.ranges.iter().zip(&whole.counts) {
                assert_eq!((high - low + 1) as u64, *count, "{low} to {high} of {most}");
            }
            assert!(whole.ranges.windows(2).all(|pair| pair[0][1] + 1 == pair[1][0]));
            assert!(whole.ranges.len() <= 67);
        }
        assert_eq!(Histogram::of([3, 0, 0, 0].into_iter(), 3).clipped(), 0.25);
    }
}
