//! Which channels fire.
//!
//! A plane is one token at one timestep. Its events are a list of channels with the value of each: a spike, or a level where
//! time is collapsed. Lists are made once and serve all outputs.

use super::panel::{GROUP, OUTPUTS};
use std::ops::Range;

/// Rows that are prefetched, in fours: so many are on their way from memory at once.
const PREFETCH_FOURS: usize = 8;

/// Entries beyond those that are listed, which vectors may write over.
pub(super) const ROOM: usize = 64;

/// How a list says where the row of an event is.
pub(super) trait RowPlace: Copy + Default + bytemuck::Pod {
    /// Lists are a whole number of so many entries: fours that are added at a time.
    const BATCH: usize;
    /// From one channel to the next.
    const STEP: usize;
    fn of(channel: usize) -> Self;
    /// Where the row is, in bytes from the first row.
    fn offset(self) -> usize;
}

/// A channel.
impl RowPlace for u32 {
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
impl RowPlace for u16 {
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

impl<P: RowPlace> Lists<P> {
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

    /// Entries for so many channels behind the `fired` ones that the last list has, and `ROOM` more. They are cut at the end.
    #[inline(always)]
    pub fn room(&mut self, fired: usize, channels: usize) -> (&mut [P], &mut [i8]) {
        let start = self.entries(self.len()) + fired;
        let most = start + channels + ROOM + P::BATCH;
        if self.places.len() < most {
            self.places.resize(most, P::default());
            self.values.resize(most, 0);
        }
        (&mut self.places[start..], &mut self.values[start..])
    }

    /// Ends the last list after its pushed events.
    #[inline(always)]
    pub fn end(&mut self) {
        self.end_after(self.places.len() - self.entries(self.len()));
    }

    /// Ends the last list, which has so many events.
    #[inline(always)]
    pub fn end_after(&mut self, fired: usize) {
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

    /// Drops what lies beyond the last list.
    #[inline(always)]
    pub fn cut(&mut self) {
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

/// Channels that vectors list at once, at least.
pub(super) const BLOCK: usize = 8;

/// The events of some planes.
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

    /// None yet, of planes of so many channels, in the memory of those that there were.
    pub(super) fn begin(&mut self, inputs: usize) {
        self.inputs = inputs;
        self.lists.clear();
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
    pub(super) lists: Lists<u16>,
}

/// Channels of a block: its rows stay in the first-level cache while all tokens pass.
const BLOCK_CHANNELS: usize = 512;

impl TrainRuns {
    /// None yet, of trains of these sizes, in the memory of those that there were. `runs` per token and block.
    pub(super) fn begin(&mut self, inputs: usize, tokens: usize, runs: usize, carry: i32) {
        let blocks = inputs.div_ceil(BLOCK_CHANNELS);
        let block = inputs.div_ceil(blocks).next_multiple_of(BLOCK);
        *self = Self { inputs, block, tokens, runs, carry, lists: std::mem::take(&mut self.lists) };
        self.lists.clear();
    }

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

/// Events and their rows, a whole number of batches. Invariant: channels are below `rows`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventRows<'a, P> {
    rows: usize,
    places: &'a [P],
    values: &'a [i8],
    total: i32,
    most: u8,
}

impl<'a, P: RowPlace> EventRows<'a, P> {
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

/// Lists what is not zero of up to eight numbers, the first of which is channel `from`; how many there are.
#[inline(always)]
pub(super) fn list_few<P: RowPlace>(x: &[i8], from: usize, shift: u32, places: &mut [P], values: &mut [i8]) -> usize {
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
