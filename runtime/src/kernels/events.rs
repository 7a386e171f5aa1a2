//! Which channels fire, and synapses that those alone drive: the rows of silent channels are never read.
//!
//! A plane is one token at one timestep. Its events are a list of channels with what each says: a spike, or a level where
//! time is collapsed. Lists are made once and serve all outputs. Where a panel of weights stays in a cache, all timesteps
//! and tokens pass over it before the next one is read.

use super::matmul_int::{GROUP, OUTPUTS, Panels};
use super::vectors::{PanelSums, Vectors};

/// Rows that are asked for before they are read, in fours: so many are on their way from memory at once.
const PREFETCH_FOURS: usize = 8;

/// EventList of some planes.
#[derive(Clone, Debug, Default)]
pub struct EventList {
    inputs: usize,
    channels: Vec<u32>,
    values: Vec<i8>,
    /// Where each plane's list ends: a multiple of four, what fills it up says nothing.
    ends: Vec<usize>,
    count: u64,
}

impl EventList {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn planes(&self) -> usize {
        self.ends.len()
    }

    /// Splits a block of levels, whose first channel is `from`, and lists what has a higher byte.
    #[inline(always)]
    fn split_wide(&mut self, vectors: impl Vectors, from: usize, x: &[i16; HALVES], low: &mut [i8; HALVES]) {
        let mut high = [0; HALVES];
        let mut left = vectors.halves(x, low, &mut high);
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            self.channels.push((from + i) as u32);
            self.values.push(high[i]);
            left &= left - 1;
        }
    }

    pub(super) fn is_silent(&self, plane: usize) -> bool {
        self.ends[plane] == if plane == 0 { 0 } else { self.ends[plane - 1] }
    }

    pub(super) fn plane(&self, i: usize) -> EventRows<'_> {
        let range = if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i];
        EventRows { inputs: self.inputs, channels: &self.channels[range.clone()], values: &self.values[range] }
    }
}

/// One plane's list, a whole number of fours. Invariant: channels are below `inputs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventRows<'a> {
    inputs: usize,
    channels: &'a [u32],
    values: &'a [i8],
}

impl<'a> EventRows<'a> {
    pub fn channels(&self) -> &'a [u32] {
        self.channels
    }

    pub fn values(&self) -> &'a [i8] {
        self.values
    }

    /// Panics if there are more channels than rows.
    #[inline(always)]
    pub fn check(&self, rows: usize) {
        assert_eq!(self.inputs, rows, "a row for each channel");
    }

    /// Channels by fours, with what they say as the bytes of one number.
    #[inline(always)]
    pub fn fours(self) -> impl Iterator<Item = ([u32; GROUP], i32)> {
        let values = self.values.as_chunks::<GROUP>().0.iter();
        let channels = self.channels.as_chunks::<GROUP>().0.iter();
        channels.zip(values).map(|(c, &[a, b, d, e])| (*c, i32::from_le_bytes([a as u8, b as u8, d as u8, e as u8])))
    }

    /// The channels that come `PREFETCH_FOURS` fours after four `i`.
    #[inline(always)]
    pub fn later(&self, i: usize) -> &'a [u32] {
        let from = ((i + PREFETCH_FOURS) * GROUP).min(self.channels.len());
        &self.channels[from..(from + GROUP).min(self.channels.len())]
    }
}

/// What is asked for while rows are added.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prefetch<'a> {
    /// Nothing: all is in a cache.
    Nothing,
    /// The rows that come next in the list.
    Listed,
    /// Rows of the next panel: it is read as soon as this one is done.
    Rows(&'a [i8]),
}

/// The events of planes of `inputs` numbers that lie `stride` apart.
#[inline(always)]
pub(super) fn event_list(planes: &[i8], stride: usize, inputs: usize) -> EventList {
    assert!(inputs > 0 && inputs <= stride, "planes of {inputs} channels, {stride} apart");
    let mut events = EventList { inputs, ..EventList::default() };
    for plane in planes.chunks(stride) {
        let start = events.channels.len();
        events.channels.resize(start + inputs + GROUP, 0);
        events.values.resize(start + inputs + GROUP, 0);
        let (channels, values) = (&mut events.channels[start..], &mut events.values[start..]);
        let fired = list(&plane[..inputs], channels, values);
        // What was written beyond the last event says nothing from here on.
        let end = fired.next_multiple_of(GROUP);
        channels[fired..end].fill(0);
        values[fired..end].fill(0);
        events.channels.truncate(start + end);
        events.values.truncate(start + end);
        events.ends.push(start + end);
        events.count += fired as u64;
    }
    events
}

/// Lists what is not zero; how many there are.
#[inline(always)]
fn list(plane: &[i8], channels: &mut [u32], values: &mut [i8]) -> usize {
    const BLOCK: usize = 16;
    let mut fired = 0;
    for (block, from) in plane.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
        if block.iter().fold(0, |any, x| any | x) == 0 {
            continue;
        }
        for (i, &x) in block.iter().enumerate() {
            // Without a branch: whether a channel fires cannot be foreseen. What is silent is written over by the next.
            channels[fired] = (from + i) as u32;
            values[fired] = x;
            fired += usize::from(x != 0);
        }
    }
    fired
}

/// Levels that are split at once.
pub(super) const HALVES: usize = 32;
/// The largest level whose higher byte is one of 8 bits.
pub const MOST_IN_TWO: i32 = (i8::MAX as i32) * 256 + i8::MAX as i32;

/// The low byte of each level of rows of `inputs`, with a sign, and the events of what is left: `x = 256 * high + low`. Levels
/// are at most `MOST_IN_TWO` either way.
#[inline(always)]
pub(super) fn split_wide(vectors: impl Vectors, x: &[i16], inputs: usize, low: &mut [i8]) -> EventList {
    assert!(
        inputs > 0 && x.len().is_multiple_of(inputs) && x.len() == low.len(),
        "rows of {inputs}, a byte for each level"
    );
    let mut events = EventList { inputs, ..EventList::default() };
    for (x, low) in x.chunks_exact(inputs).zip(low.chunks_exact_mut(inputs)) {
        let start = events.channels.len();
        let (blocks, rest) = x.as_chunks::<HALVES>();
        let (lows, last) = low.as_chunks_mut::<HALVES>();
        for (i, (x, low)) in blocks.iter().zip(lows).enumerate() {
            events.split_wide(vectors, i * HALVES, x, low);
        }
        if !rest.is_empty() {
            let (mut x, mut low) = ([0; HALVES], [0; HALVES]);
            x[..rest.len()].copy_from_slice(rest);
            events.split_wide(vectors, blocks.len() * HALVES, &x, &mut low);
            last.copy_from_slice(&low[..rest.len()]);
        }
        events.count += (events.channels.len() - start) as u64;
        let end = start + (events.channels.len() - start).next_multiple_of(GROUP);
        events.channels.resize(end, 0);
        events.values.resize(end, 0);
        events.ends.push(end);
    }
    events
}

/// `y[n, m] = sum over t of carry^(T - 1 - t) * (events of token and timestep t) w`: Horner over the `steps` planes of a token.
#[inline(always)]
pub(super) fn synapse(
    vectors: impl Vectors,
    events: &EventList,
    steps: usize,
    carry: i32,
    w: Panels<'_>,
    y: &mut [i32],
) {
    let m = w.outputs();
    assert!(steps > 0 && events.planes().is_multiple_of(steps), "{steps} planes a token");
    assert_eq!(events.planes() / steps * m, y.len(), "a row of sums for each token");
    // Where most channels fire at some time, the next panel is asked for as a whole.
    let first = events.ends.get(steps - 1).copied().unwrap_or(0);
    let dense = first > w.inputs() / 2;
    for (p, panel) in w.panels().enumerate() {
        let columns = p * OUTPUTS..((p + 1) * OUTPUTS).min(m);
        let next = w.panel(p + 1);
        for (token, y) in y.chunks_exact_mut(m).enumerate() {
            let mut sums: PanelSums = [0; OUTPUTS];
            let mut done = 0;
            for t in 0..steps {
                if carry != 1 && t > 0 {
                    sums.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(carry));
                }
                let rows = events.plane(token * steps + t);
                let prefetch = if token > 0 {
                    Prefetch::Nothing
                } else if dense && p > 0 {
                    let lines = |done: usize| next.len() / OUTPUTS * done / first * OUTPUTS;
                    let from = done;
                    done += rows.channels.len();
                    Prefetch::Rows(&next[lines(from)..lines(done)])
                } else {
                    Prefetch::Listed
                };
                vectors.rows(rows, panel, prefetch, &mut sums);
            }
            let y = &mut y[columns.clone()];
            y.copy_from_slice(&sums[..y.len()]);
        }
    }
}

/// How many are not zero.
#[inline(always)]
pub(super) fn count_nonzero(x: &[i8]) -> usize {
    // Blocks whose counts fit 8 bits, so that vectors count as many at a time as they hold.
    x.chunks(128).map(|x| usize::from(x.iter().map(|&x| u8::from(x != 0)).sum::<u8>())).sum()
}
