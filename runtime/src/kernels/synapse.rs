//! Synapses that events alone drive: the weight rows of silent channels are never read.
//!
//! Where a panel of weights stays in a cache, all timesteps and tokens pass over it before the next one is read. Levels of
//! more than 8 bits become a low byte each and events of what is left.

use super::event_list::{EventList, EventRows, HALVES, Prefetch, TrainRuns};
use super::grouped;
use super::panel::{OUTPUTS, Panels};
use super::vectors::interface::{PanelSums, Vectors};
use std::ops::Range;

/// The low byte of each level of rows of `inputs`, with a sign, and the events of what is left: `x = 256 * high + low`. Levels
/// are at most `MOST_IN_TWO` either way.
#[inline(always)]
pub(super) fn split_wide(vectors: impl Vectors, x: &[i16], inputs: usize, low: &mut [i8]) -> EventList {
    assert!(
        inputs > 0 && x.len().is_multiple_of(inputs) && x.len() == low.len(),
        "rows of {inputs}, a byte for each level"
    );
    let mut events = EventList::of(inputs);
    for (x, low) in x.chunks_exact(inputs).zip(low.chunks_exact_mut(inputs)) {
        let (blocks, rest) = x.as_chunks::<HALVES>();
        let (lows, last) = low.as_chunks_mut::<HALVES>();
        for (i, (x, low)) in blocks.iter().zip(lows).enumerate() {
            split_block(&mut events, vectors, i * HALVES, x, low);
        }
        if !rest.is_empty() {
            let (mut x, mut low) = ([0; HALVES], [0; HALVES]);
            x[..rest.len()].copy_from_slice(rest);
            split_block(&mut events, vectors, blocks.len() * HALVES, &x, &mut low);
            last.copy_from_slice(&low[..rest.len()]);
        }
        events.lists.end();
    }
    events
}

/// Splits a block of levels, whose first channel is `from`, and lists what has a higher byte.
#[inline(always)]
fn split_block(events: &mut EventList, vectors: impl Vectors, from: usize, x: &[i16; HALVES], low: &mut [i8; HALVES]) {
    let mut high = [0; HALVES];
    let mut left = vectors.halves(x, low, &mut high);
    while left != 0 {
        let i = left.trailing_zeros() as usize;
        events.lists.push(from + i, high[i]);
        left &= left - 1;
    }
}

/// `y[n, m] = (events of token n) w`: a plane per token.
#[inline(always)]
pub(super) fn synapse(vectors: impl Vectors, events: &EventList, w: Panels<'_>, y: &mut [i32]) {
    if let Some(sizes) = w.grouped() {
        return grouped::synapse(events, w, sizes, y);
    }
    let m = w.outputs();
    assert_eq!(events.planes() * m, y.len(), "a row of sums for each token");
    // Where most channels fire, the next panel is prefetched as a whole.
    let first = events.planes().min(1);
    let dense = events.lists.entries(first) > w.inputs() / 2;
    for (p, panel) in w.panels().enumerate() {
        let columns = p * OUTPUTS..((p + 1) * OUTPUTS).min(m);
        for (token, y) in y.chunks_exact_mut(m).enumerate() {
            let prefetch = match token {
                0 if dense && p > 0 => Prefetch::Rows(w.panel(p + 1)),
                0 => Prefetch::Listed,
                _ => Prefetch::Nothing,
            };
            let plane = std::iter::once((events.plane(token), prefetch));
            let y = &mut y[columns.clone()];
            if let Some(y) = y.first_chunk_mut() {
                vectors.train(plane, 1, panel, y);
            } else {
                let mut sums: PanelSums = [0; OUTPUTS];
                vectors.train(plane, 1, panel, &mut sums);
                y.copy_from_slice(&sums[..y.len()]);
            }
        }
    }
}

/// A panel of weights.
#[derive(Clone, Copy, Debug)]
pub struct PanelOf<'a> {
    pub weights: Panels<'a>,
    pub panel: usize,
}

/// `y[i, 64] = (events of plane planes.start + i) (the panel's weights) * gain + offset`: every plane on its own.
#[inline(always)]
pub(super) fn tile_inputs(
    vectors: impl Vectors,
    events: &EventList,
    planes: Range<usize>,
    PanelOf { weights: w, panel }: PanelOf<'_>,
    [gain, offset]: [&[f32; OUTPUTS]; 2],
    prefetch: bool,
    y: &mut [f32],
) {
    assert!(panel < w.count() && w.grouped().is_none(), "panel {panel} of {}", w.count());
    assert_eq!(planes.len() * OUTPUTS, y.len(), "a panel's sums for each plane");
    let (next, count) = (w.panel(panel + 1), planes.len());
    let listed = events.lists.entries(planes.end) - events.lists.entries(planes.start);
    // Where most channels fire at some time, the next panel is prefetched as a whole, some rows at each plane.
    let whole = listed > w.inputs() / 2 && panel > 0;
    let rows = |plane: usize| next.len() / OUTPUTS * plane / count * OUTPUTS;
    let panel = w.panel(panel);
    for (i, (plane, y)) in planes.zip(y.as_chunks_mut::<OUTPUTS>().0).enumerate() {
        let prefetch = match prefetch {
            false => Prefetch::Nothing,
            true if whole => Prefetch::Rows(&next[rows(i)..rows(i + 1)]),
            true => Prefetch::Listed,
        };
        let mut sums: PanelSums = [0; OUTPUTS];
        vectors.train(std::iter::once((events.plane(plane), prefetch)), 1, panel, &mut sums);
        // Slices, so that vectors do it.
        let numbers = y.iter_mut().zip(sums.as_slice()).zip(gain.as_slice()).zip(offset.as_slice());
        numbers.for_each(|(((y, &sum), &gain), &offset)| *y = sum as f32 * gain + offset);
    }
}

/// `y[n, m] = sum over t of carry^(T - 1 - t) * (events of token and timestep t) w`, block by block of channels.
#[inline(always)]
pub(super) fn trains(vectors: impl Vectors, events: &TrainRuns, w: Panels<'_>, y: &mut [i32]) {
    if let Some(sizes) = w.grouped() {
        return grouped::trains(events, w, sizes, y);
    }
    let (m, inputs) = (w.outputs(), w.inputs());
    assert_eq!(events.inputs(), inputs, "a row for each channel");
    assert_eq!(events.tokens() * m, y.len(), "a row of sums for each token");
    y.fill(0);
    for (p, panel) in w.panels().enumerate() {
        let columns = p * OUTPUTS..((p + 1) * OUTPUTS).min(m);
        for b in 0..events.blocks() {
            let (block, next) = (events.block(b), events.block((b + 1) % events.blocks()));
            let after = if b + 1 < events.blocks() { panel } else { w.panel(p + 1) };
            let rows = &panel[block.start * OUTPUTS..block.end * OUTPUTS];
            let soon = after.get(next.start * OUTPUTS..next.end * OUTPUTS).unwrap_or_default();
            let entries = events.entries(b);
            // Of many events, most rows are read by some.
            let dense = entries > events.tokens() * block.len() / 2;
            for (token, y) in y.chunks_exact_mut(m).enumerate() {
                let ahead = match token {
                    0 if p + b == 0 => Ahead::Listed,
                    _ if dense => Ahead::Rows { soon, entries, from: events.runs_of(b, 0).start },
                    0 => Ahead::Next { soon, run: events.runs_of((b + 1) % events.blocks(), 0).start },
                    _ => Ahead::Nothing,
                };
                let runs = Runs { events, channels: block.len(), left: events.runs_of(b, token), ahead };
                let mut sums: PanelSums = [0; OUTPUTS];
                vectors.train(runs, events.carry(), rows, &mut sums);
                add(&sums, &mut y[columns.clone()]);
            }
        }
    }
}

/// What a token's runs prefetch.
#[derive(Clone, Copy)]
enum Ahead<'a> {
    Nothing,
    /// Their own rows: nothing has prefetched these.
    Listed,
    /// Their share of the next block's rows; their block has so many entries, from a run on.
    Rows {
        soon: &'a [i8],
        entries: usize,
        from: usize,
    },
    /// Of the next block's rows what the token has there, from a run on.
    Next {
        soon: &'a [i8],
        run: usize,
    },
}

/// The runs of a token in a block of so many channels.
struct Runs<'a> {
    events: &'a TrainRuns,
    channels: usize,
    left: Range<usize>,
    ahead: Ahead<'a>,
}

impl<'a> Iterator for Runs<'a> {
    type Item = (EventRows<'a, u16>, Prefetch<'a>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left.start == self.left.end {
            return None;
        }
        let i = self.left.start;
        self.left.start += 1;
        let run = self.events.run(i, self.channels);
        let prefetch = match &mut self.ahead {
            Ahead::Nothing => Prefetch::Nothing,
            Ahead::Listed => Prefetch::Listed,
            Ahead::Rows { soon, entries, from } => {
                let lines = |run: usize| soon.len() / OUTPUTS * self.events.between(*from..run) / *entries * OUTPUTS;
                Prefetch::Rows(&soon[lines(i)..lines(i + 1)])
            }
            Ahead::Next { soon, run } => {
                *run += 1;
                Prefetch::Next(self.events.run(*run - 1, self.channels).places(), soon)
            }
        };
        Some((run, prefetch))
    }
}

/// `y += sums`, of as many as there are.
#[inline(always)]
fn add(sums: &PanelSums, y: &mut [i32]) {
    let each = |y: &mut [i32]| y.iter_mut().zip(sums).for_each(|(y, &sum)| *y = y.wrapping_add(sum));
    // As long as the sums, so that vectors add.
    match y.first_chunk_mut::<OUTPUTS>() {
        Some(y) => each(y),
        None => each(y),
    }
}
