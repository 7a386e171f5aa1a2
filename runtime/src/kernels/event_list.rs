//! Which channels fire.
//!
//! A plane is one token at one timestep. Its events are a list of channels with the value of each: a spike, or a level where
//! time is collapsed. Lists are made once and serve all outputs.

use super::panel::{GROUP, OUTPUTS};
use super::vectors::interface::Vectors;
use std::ops::Range;

/// Rows that are prefetched, in fours: so many are on their way from memory at once.
const PREFETCH_FOURS: usize = 8;

/// Entries beyond those that are listed, which vectors may write over.
pub(super) const ROOM: usize = 64;

/// How a list says where the row of an event is.
pub(super) trait Place: Copy + Default + bytemuck::Pod {
    /// Lists are a whole number of so many entries: fours that are added at a time.
    const BATCH: usize;
    /// From one channel to the next.
    const STEP: usize;
    fn of(channel: usize) -> Self;
    /// Where the row is, in bytes from the first row.
    fn offset(self) -> usize;
}

/// A channel.
impl Place for u32 {
    const BATCH: usize = GROUP;
    const STEP: usize = 1;

    #[inline(always)]
    fn of(channel: usize) -> Self {
        channel as u32
    }

    #[inline(always)]
    fn offset(self) -> usize {
        self as usize * OUTPUTS
    }
}

/// The bytes before a row, of few rows: four of these are read at once.
impl Place for u16 {
    const BATCH: usize = 2 * GROUP;
    const STEP: usize = OUTPUTS;

    #[inline(always)]
    fn of(channel: usize) -> Self {
        (channel * OUTPUTS) as u16
    }

    #[inline(always)]
    fn offset(self) -> usize {
        self.into()
    }
}

/// Lists one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists<P> {
    places: Vec<P>,
    values: Vec<i8>,
    /// Where each list ends: a whole number of batches, what fills them up has value 0.
    ends: Vec<usize>,
    /// The sum of each list's values.
    totals: Vec<i32>,
    /// No value is larger, either way.
    most: u8,
    count: u64,
}

impl<P: Place> Lists<P> {
    /// How many lists.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many entries the first lists have.
    #[inline(always)]
    pub fn entries(&self, lists: usize) -> usize {
        if lists == 0 { 0 } else { self.ends[lists - 1] }
    }

    /// Appends an event to the last list, which has not ended.
    #[inline(always)]
    pub fn push(&mut self, channel: usize, value: i8) {
        self.places.push(P::of(channel));
        self.values.push(value);
    }

    /// Appends to the last list what is not 0 of `x`, each value times `2^shift`; it has `fired` events already.
    #[inline(always)]
    fn extend(&mut self, vectors: impl Vectors, x: &[i8], shift: u32, fired: usize) -> usize {
        let start = self.entries(self.len()) + fired;
        let most = start + x.len() + ROOM + P::BATCH;
        // Cut at the end.
        if self.places.len() < most {
            self.places.resize(most, P::default());
            self.values.resize(most, 0);
        }
        fired + vectors.list(x, shift, &mut self.places[start..], &mut self.values[start..])
    }

    /// Ends the last list after its pushed events.
    #[inline(always)]
    pub fn end(&mut self) {
        self.end_after(self.places.len() - self.entries(self.len()));
    }

    /// Ends the last list, which has so many events.
    #[inline(always)]
    fn end_after(&mut self, fired: usize) {
        let start = self.entries(self.len());
        let end = start + fired.next_multiple_of(P::BATCH);
        if self.places.len() < end {
            self.places.resize(end, P::default());
            self.values.resize(end, 0);
        }
        // What lies beyond the last event says nothing from here on.
        self.places[start + fired..end].fill(P::default());
        self.values[start + fired..end].fill(0);
        let values = &self.values[start..end];
        self.totals.push(values.iter().map(|&x| i32::from(x)).sum());
        self.most = values.iter().fold(self.most, |most, x| most.max(x.unsigned_abs()));
        self.ends.push(end);
        self.count += fired as u64;
    }

    /// None, in the memory of those that there were.
    fn clear(&mut self) {
        self.ends.clear();
        self.totals.clear();
        (self.most, self.count) = (0, 0);
    }

    #[inline(always)]
    fn cut(&mut self) {
        let end = self.entries(self.len());
        self.places.truncate(end);
        self.values.truncate(end);
    }

    /// A list, of channels below `rows`.
    #[inline(always)]
    fn list(&self, i: usize, rows: usize) -> EventRows<'_, P> {
        let range = self.entries(i)..self.ends[i];
        let (places, values) = (&self.places[range.clone()], &self.values[range]);
        EventRows { rows, places, values, total: self.totals[i], most: self.most }
    }
}

/// Channels that `Vectors::list` may write beyond the last one.
pub(super) const BLOCK: usize = 8;

/// EventList of some planes.
#[derive(Clone, Debug, Default)]
pub struct EventList {
    inputs: usize,
    pub(super) lists: Lists<u32>,
}

impl EventList {
    /// None yet, of planes of so many channels.
    #[inline(always)]
    pub(super) fn of(inputs: usize) -> Self {
        Self { inputs, ..Self::default() }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.lists.count
    }

    /// How many planes.
    pub fn planes(&self) -> usize {
        self.lists.len()
    }

    /// Channels, what they say, and where each plane's list ends.
    pub fn parts(&self) -> (&[u32], &[i8], &[usize]) {
        (&self.lists.places, &self.lists.values, &self.lists.ends)
    }

    pub(super) fn is_silent(&self, plane: usize) -> bool {
        self.lists.ends[plane] == self.lists.entries(plane)
    }

    #[inline(always)]
    pub(super) fn plane(&self, i: usize) -> EventRows<'_, u32> {
        self.lists.list(i, self.inputs)
    }
}

/// The events of trains, for the sums of all timesteps: `sum over t of carry^(T - 1 - t) * (events of t) w`.
///
/// A run is what a token fires in a block of channels at some timesteps that follow each other. Values have the weight of
/// their timestep within the run, so that a run is one list; from run to run the sums are multiplied.
#[derive(Clone, Debug, Default)]
pub struct TrainRuns {
    inputs: usize,
    /// Channels of a block.
    block: usize,
    tokens: usize,
    /// Runs of a token in a block.
    runs: usize,
    /// What the sums are multiplied by from run to run.
    carry: i32,
    /// By block, then by token, then in order.
    lists: Lists<u16>,
}

/// Channels of a block: its rows stay in the first-level cache while all tokens pass.
const BLOCK_CHANNELS: usize = 512;

impl TrainRuns {
    /// How many events there are.
    pub fn count(&self) -> u64 {
        self.lists.count
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many blocks of channels.
    pub(super) fn blocks(&self) -> usize {
        self.inputs.div_ceil(self.block)
    }

    /// The channels of a block.
    pub(super) fn block(&self, b: usize) -> Range<usize> {
        b * self.block..((b + 1) * self.block).min(self.inputs)
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn carry(&self) -> i32 {
        self.carry
    }

    /// The runs of a token in block `b`.
    #[inline(always)]
    pub(super) fn runs_of(&self, b: usize, token: usize) -> Range<usize> {
        let first = (b * self.tokens + token) * self.runs;
        first..first + self.runs
    }

    /// A run of a block that has so many rows.
    #[inline(always)]
    pub(super) fn run(&self, i: usize, rows: usize) -> EventRows<'_, u16> {
        self.lists.list(i, rows)
    }

    /// How many entries some runs have.
    #[inline(always)]
    pub(super) fn between(&self, runs: Range<usize>) -> usize {
        self.lists.entries(runs.end) - self.lists.entries(runs.start)
    }

    /// How many entries block `b` has.
    pub(super) fn entries(&self, b: usize) -> usize {
        let of_block = self.tokens * self.runs;
        self.between(b * of_block..(b + 1) * of_block)
    }
}

/// Lists trains of `steps` planes of `inputs` numbers that lie `stride` apart. `carry` is 1 or 2.
#[inline(always)]
pub(super) fn list_trains(
    vectors: impl Vectors,
    planes: &[i8],
    stride: usize,
    inputs: usize,
    steps: usize,
    carry: i32,
    events: &mut TrainRuns,
) {
    assert!(inputs > 0 && inputs <= stride, "planes of {inputs} channels, {stride} apart");
    assert!(steps > 0 && planes.len().is_multiple_of(steps * stride), "{steps} planes per token");
    assert!(carry == 1 || carry == 2, "from one timestep to the next, sums stay or double");
    let most = planes.iter().fold(0, |most, x| most.max(x.unsigned_abs()));
    // As many timesteps as the weighted values fit 8 bits.
    let together = match (carry, vectors.weighs_spikes()) {
        (1, _) => steps,
        (_, false) => 1,
        (_, true) => (1 + (i8::MAX as u8 / most.max(1)).max(1).ilog2() as usize).min(steps),
    };
    let tokens = planes.len() / (steps * stride);
    let blocks = inputs.div_ceil(BLOCK_CHANNELS);
    let block = inputs.div_ceil(blocks).next_multiple_of(BLOCK);
    let runs = steps.div_ceil(together);
    let carry = carry.pow(together as u32);
    *events = TrainRuns { inputs, block, tokens, runs, carry, lists: std::mem::take(&mut events.lists) };
    events.lists.clear();
    for b in 0..events.blocks() {
        let channels = events.block(b);
        for train in planes.chunks_exact(steps * stride) {
            for run in (0..runs).rev() {
                // The first run is the one that has fewer timesteps.
                let end = steps - run * together;
                let mut fired = 0;
                for t in end.saturating_sub(together)..end {
                    let x = &train[t * stride..][channels.clone()];
                    let shift = if carry == 1 { 0 } else { end - 1 - t };
                    fired = events.lists.extend(vectors, x, shift as u32, fired);
                }
                events.lists.end_after(fired);
            }
        }
    }
}

/// Events and their rows, a whole number of batches. Invariant: channels are below `rows`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventRows<'a, P> {
    rows: usize,
    places: &'a [P],
    values: &'a [i8],
    total: i32,
    most: u8,
}

impl<'a, P: Place> EventRows<'a, P> {
    pub fn places(&self) -> &'a [P] {
        self.places
    }

    pub fn values(&self) -> &'a [i8] {
        self.values
    }

    /// The sum of the values.
    pub fn total(&self) -> i32 {
        self.total
    }

    /// Whether all values are -1, 0 or 1.
    pub fn are_spikes(&self) -> bool {
        self.most <= 1
    }

    /// The same, cut to parts of so many entries, a whole number of batches.
    #[inline(always)]
    pub fn parts(self, entries: usize) -> impl Iterator<Item = (usize, Self)> {
        let parts = self.places.chunks(entries).zip(self.values.chunks(entries));
        parts.enumerate().map(move |(i, (places, values))| (i * entries, Self { places, values, ..self }))
    }

    /// Panics if there are not so many rows.
    #[inline(always)]
    pub fn check(&self, rows: usize) {
        assert_eq!(self.rows, rows, "a row for each channel");
    }

    /// Places and values, batch by batch.
    #[inline(always)]
    pub fn batches(self) -> impl Iterator<Item = (&'a [P], &'a [i8])> {
        self.places.chunks_exact(P::BATCH).zip(self.values.chunks_exact(P::BATCH))
    }

    /// Shares of rows, or of whatever comes by so many, one for each batch.
    #[inline(always)]
    pub fn shares<'b, T>(&self, all: &'b [T], by: usize) -> std::slice::Chunks<'b, T> {
        let batches = (self.places.len() / P::BATCH).max(1);
        all.chunks(all.len().div_ceil(batches).next_multiple_of(by).max(by))
    }

    /// The places to prefetch: those that come `PREFETCH_FOURS` fours after batch `i`.
    #[inline(always)]
    pub fn later(&self, i: usize) -> &'a [P] {
        let from = (i * P::BATCH + PREFETCH_FOURS * GROUP).min(self.places.len());
        &self.places[from..(from + P::BATCH).min(self.places.len())]
    }
}

/// What is prefetched while rows are added.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prefetch<'a> {
    /// Nothing: all is in a cache.
    Nothing,
    /// The rows that come next in the list.
    Listed,
    /// Rows that are read as soon as these are done.
    Rows(&'a [i8]),
    /// What is listed of rows that are read as soon as these are done.
    Next(&'a [u16], &'a [i8]),
}

/// The events of planes of `inputs` numbers that lie `stride` apart.
#[inline(always)]
pub(super) fn event_list(vectors: impl Vectors, planes: &[i8], stride: usize, inputs: usize) -> EventList {
    assert!(inputs > 0 && inputs <= stride, "planes of {inputs} channels, {stride} apart");
    let mut events = EventList::of(inputs);
    for plane in planes.chunks(stride) {
        let fired = events.lists.extend(vectors, &plane[..inputs], 0, 0);
        events.lists.end_after(fired);
    }
    events.lists.cut();
    events
}

/// Lists what is not zero of up to eight numbers, the first of which is channel `from`; how many there are.
#[inline(always)]
pub(super) fn list_few<P: Place>(x: &[i8], from: usize, shift: u32, places: &mut [P], values: &mut [i8]) -> usize {
    let mut fired = 0;
    for (i, &x) in x.iter().enumerate() {
        // Without a branch: whether a channel fires cannot be foreseen. What is silent is written over by the next.
        places[fired] = P::of(from + i);
        values[fired] = x << shift;
        fired += usize::from(x != 0);
    }
    fired
}

/// Levels that are split at once.
pub(super) const HALVES: usize = 32;
/// The largest level whose higher byte is one of 8 bits.
pub const MOST_IN_TWO: i32 = (i8::MAX as i32) * 256 + i8::MAX as i32;

/// How many are not zero.
#[inline(always)]
pub(super) fn count_nonzero(x: &[i8]) -> usize {
    // Blocks whose counts fit 8 bits, so that vectors count as many at a time as they hold.
    x.chunks(128).map(|x| usize::from(x.iter().map(|&x| u8::from(x != 0)).sum::<u8>())).sum()
}
