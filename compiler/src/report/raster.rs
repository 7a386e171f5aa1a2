//! What a neuron layer did in a run: spikes by token and by neuron, how levels are spread, and single spikes to look at.
//!
//! Neurons that integrate before they fire spell their level, so a level says all of their spikes; of neurons that answer
//! within the timestep, every spike is kept. Large networks have more neurons than a page should hold: of each layer every
//! `n`th is kept then, and `Raster::neurons` says which.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::op::SpikeOp;
use snnc_ir::types::Elem;
use snnc_ir::{Code, Graph, Op, Value};

/// A layer of neurons in a run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReportLayer {
    /// The site that it codes: `h.0.mlp.hidden`.
    pub site: String,
    /// `h.0`, `head`.
    pub block: String,
    /// The neurons, as the IR spells them, and the ONNX node that they came from.
    pub neuron: String,
    /// The ONNX node that it came from.
    pub origin: String,
    /// How spikes spell a level.
    pub code: &'static str,
    /// Timesteps.
    pub timesteps: u16,
    /// The largest level.
    pub most: i32,
    /// Channels of the residual stream.
    pub width: usize,
    /// Spikes in all.
    pub spikes: u64,
    /// Neurons that fired at every timestep, summed over tokens; and the share of these on the calibration text.
    pub saturated: u64,
    /// The share of neurons that fired at every timestep on the calibration text.
    pub usually_saturated: f64,
    /// Neurons that never fired.
    pub silent: usize,
    /// How levels are spread.
    pub histogram: Histogram,
    /// Spikes of every token.
    pub by_token: Vec<u64>,
    /// Spikes of every timestep, summed over neurons and tokens.
    pub by_timestep: Vec<u64>,
    /// Base64: of every neuron a byte, the share of timesteps at which it fired, 255 for all; 0 for none alone.
    pub by_neuron: String,
    /// Spikes to look at.
    pub raster: Raster,
}

/// How many levels lie in each of some ranges, first and last included. 0 is alone, and so are the largest levels.
#[derive(Clone, Debug, Serialize, JsonSchema, PartialEq, Eq)]
pub struct Histogram {
    /// Levels of each range, first and last included.
    pub ranges: Vec<[i32; 2]>,
    /// Counts over the run.
    pub counts: Vec<u64>,
    /// Levels of a range.
    #[serde(skip)]
    width: i32,
    #[serde(skip)]
    most: i32,
}

/// Levels, or spikes, of some neurons.
#[derive(Debug, Serialize, JsonSchema)]
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
pub const RASTER_BYTES: usize = 1 << 20;

/// A neuron layer in a run that goes on.
#[derive(Clone, Debug)]
pub struct LayerRun {
    pub value: Value,
    width: usize,
    code: Code,
    steps: u16,
    /// Numbers of a token and neuron as they come: 1 level, or a spike for each timestep; and those that are kept.
    parts: usize,
    planes: usize,
    saturated: u64,
    by_token: Vec<u64>,
    by_timestep: Vec<u64>,
    by_neuron: Vec<u64>,
    histogram: Histogram,
    /// Neurons that are drawn, and what is drawn of them.
    drawn: Vec<u32>,
    data: Vec<u8>,
}

impl LayerRun {
    /// Of a neuron layer of `graph`, before the run.
    pub fn new(graph: &Graph, value: Value) -> Option<Self> {
        let ty = graph.ty(value);
        let (code, steps) = ty.levels()?;
        let width = ty.shape().row_width()?;
        // A train has no element.
        let parts = if ty.elem().is_none() { usize::from(steps) } else { 1 };
        Some(Self {
            value,
            width,
            code,
            steps,
            parts,
            planes: if matches!(graph.node(value).op, Op::Spike(SpikeOp::Integrate { .. })) { parts } else { 1 },
            saturated: 0,
            by_token: Vec::new(),
            by_timestep: vec![0; usize::from(steps)],
            by_neuron: vec![0; width],
            histogram: Histogram::new(code.levels(steps)),
            drawn: Vec::new(),
            data: Vec::new(),
        })
    }

    /// Bytes of a number.
    fn bytes(&self) -> usize {
        if self.planes > 1 { 1 } else { Elem::Level(self.code, self.steps).bytes() }
    }

    /// Numbers of a token as they come.
    pub fn numbers(&self) -> usize {
        self.parts * self.width
    }

    /// Bytes that a raster of all neurons takes, per token.
    pub fn raster_bytes(&self) -> usize {
        self.planes * self.width * self.bytes()
    }

    /// Draws this share of the neurons, spread evenly.
    pub fn draw(&mut self, share: f64) {
        let count = ((self.width as f64 * share) as usize).clamp(1, self.width);
        self.drawn = (0..count).map(|i| (i * self.width / count) as u32).collect();
    }

    /// Takes in what some tokens did, `[tokens, parts, width]`.
    pub fn add(&mut self, numbers: &[i32]) {
        let (most, bytes) = (u32::from(self.steps), self.bytes());
        let mut levels = vec![0; self.width];
        let weights: Vec<i32> = match self.parts {
            1 => vec![1],
            _ => (0..self.steps).map(|t| self.code.weight(t, self.steps)).collect(),
        };
        for token in numbers.chunks_exact(self.numbers()) {
            let mut all = 0;
            for (i, (level, fired)) in levels.iter_mut().zip(&mut self.by_neuron).enumerate() {
                let said = || token[i..].iter().step_by(self.width);
                *level = said().zip(&weights).map(|(number, weight)| number * weight).sum();
                let spikes = match self.parts {
                    1 => self.code.spikes(*level),
                    _ => said().filter(|&&spike| spike != 0).count() as u32,
                };
                for (t, count) in (0..).zip(&mut self.by_timestep) {
                    let spike = match self.parts {
                        1 => self.code.spike(*level, t, self.steps),
                        _ => token[i + usize::from(t) * self.width],
                    };
                    *count += u64::from(spike != 0);
                }
                self.histogram.add(*level);
                *fired += u64::from(spikes);
                self.saturated += u64::from(spikes == most);
                all += u64::from(spikes);
            }
            self.by_token.push(all);
            let kept = if self.planes == 1 { &levels[..] } else { token };
            for row in kept.chunks_exact(self.width) {
                self.drawn.iter().for_each(|&i| self.data.extend_from_slice(&row[i as usize].to_le_bytes()[..bytes]));
            }
        }
    }

    /// What is shown of it. The program spells it as `neuron`, from an ONNX node `origin`; `usual` is the share of its levels
    /// that were the largest on the calibration text.
    pub fn layer(self, site: String, block: String, [neuron, origin]: [String; 2], usual: f64) -> ReportLayer {
        let slots = (self.by_token.len() as u64 * u64::from(self.steps)).max(1);
        let shares: Vec<u8> = self.by_neuron.iter().map(|&spikes| (255 * spikes).div_ceil(slots) as u8).collect();
        let bytes = self.bytes();
        ReportLayer {
            site,
            block,
            neuron,
            origin,
            code: self.code.name(),
            timesteps: self.steps,
            most: self.code.levels(self.steps),
            width: self.width,
            spikes: self.by_token.iter().sum(),
            saturated: self.saturated,
            usually_saturated: usual,
            silent: self.by_neuron.iter().filter(|&&spikes| spikes == 0).count(),
            histogram: self.histogram,
            by_token: self.by_token,
            by_timestep: self.by_timestep,
            by_neuron: STANDARD.encode(shares),
            raster: Raster { neurons: self.drawn, planes: self.planes, bytes, data: STANDARD.encode(self.data) },
        }
    }
}

/// The numbers of a raster, `[tokens, planes, neurons]`; `None` where it is damaged.
pub fn numbers(raster: &Raster) -> Option<Vec<i32>> {
    let data = STANDARD.decode(&raster.data).ok()?;
    Some(match raster.bytes {
        1 => data.iter().map(|&byte| i32::from(byte as i8)).collect(),
        2 => data.chunks_exact(2).map(|two| i32::from(i16::from_le_bytes([two[0], two[1]]))).collect(),
        _ => data.chunks_exact(4).map(|four| i32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect(),
    })
}

/// The share of timesteps at which every neuron fired.
pub fn rates(layer: &ReportLayer) -> Vec<f64> {
    let shares = STANDARD.decode(&layer.by_neuron).unwrap_or_default();
    shares.into_iter().map(|share| f64::from(share) / 255.0).collect()
}

impl Histogram {
    /// Empty, for levels from `-most` to `most`.
    pub fn new(most: i32) -> Self {
        let width = ((most - 1) as u32).div_ceil(RANGES as u32).max(1) as i32;
        let mut above: Vec<[i32; 2]> =
            (1..most).step_by(width as usize).map(|low| [low, (low + width - 1).min(most - 1)]).collect();
        above.push([most, most]);
        let below = above.iter().rev().map(|[low, high]| [-high, -low]);
        let ranges: Vec<[i32; 2]> = below.chain([[0, 0]]).chain(above.iter().copied()).collect();
        Self { counts: vec![0; ranges.len()], ranges, width, most }
    }

    /// Counts a level.
    pub fn add(&mut self, level: i32) {
        let zero = (self.counts.len() / 2) as i32;
        let place = match level.abs() {
            0 => 0,
            magnitude if magnitude >= self.most => zero,
            magnitude => 1 + (magnitude - 1) / self.width,
        };
        self.counts[(zero + level.signum() * place) as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;

    #[test]
    fn every_level_is_in_the_range_that_names_it() {
        for most in [1, 2, 3, 33, 34, 127, 255, 65_535] {
            let mut whole = Histogram::new(most);
            (-most..=most).for_each(|level| whole.add(level));
            for ([low, high], count) in whole.ranges.iter().zip(&whole.counts) {
                assert_eq!((high - low + 1) as u64, *count, "{low} to {high} of {most}");
            }
            assert!(whole.ranges.windows(2).all(|pair| pair[0][1] + 1 == pair[1][0]));
            assert!(whole.ranges.len() <= 67);
        }
    }
}
