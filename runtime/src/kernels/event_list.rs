//! Which channels fire.
//!
//! A plane is one token at one timestep. Its events are a list of channels with the value of each: a spike, or a level where
//! time is collapsed. Lists are made once and serve all outputs.

use super::panel::{GROUP, OUTPUTS};

/// Rows that are prefetched, in fours: so many are on their way from memory at once.
const PREFETCH_FOURS: usize = 8;

/// EventList of some planes.
#[derive(Clone, Debug, Default)]
pub struct EventList {
    inputs: usize,
    pub(super) channels: Vec<u32>,
    pub(super) values: Vec<i8>,
    /// Where each plane's list ends: a multiple of four, what fills it up has value 0.
    ends: Vec<usize>,
    /// The sum of each plane's values.
    totals: Vec<i32>,
    count: u64,
}

impl EventList {
    /// None yet, of planes of so many channels.
    #[inline(always)]
    pub(super) fn of(inputs: usize) -> Self {
        Self { inputs, ..Self::default() }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many planes.
    pub fn planes(&self) -> usize {
        self.ends.len()
    }

    /// Channels, what they say, and where each plane's list ends.
    pub fn parts(&self) -> (&[u32], &[i8], &[usize]) {
        (&self.channels, &self.values, &self.ends)
    }

    /// How many entries the first planes have.
    pub(super) fn entries(&self, planes: usize) -> usize {
        if planes == 0 { 0 } else { self.ends[planes - 1] }
    }

    /// Ends a plane, whose `fired` entries lie from `start` on; entries that fill it up to fours are there, or are made.
    #[inline(always)]
    pub(super) fn end_plane(&mut self, start: usize, fired: usize) {
        let end = start + fired.next_multiple_of(GROUP);
        if self.channels.len() < end {
            self.channels.resize(end, 0);
            self.values.resize(end, 0);
        }
        // What lies beyond the last event says nothing from here on.
        self.channels[start + fired..end].fill(0);
        self.values[start + fired..end].fill(0);
        self.totals.push(self.values[start..end].iter().map(|&x| i32::from(x)).sum());
        self.ends.push(end);
        self.count += fired as u64;
    }

    pub(super) fn is_silent(&self, plane: usize) -> bool {
        self.ends[plane] == self.entries(plane)
    }

    pub(super) fn plane(&self, i: usize) -> EventRows<'_> {
        let range = self.entries(i)..self.ends[i];
        let (channels, values) = (&self.channels[range.clone()], &self.values[range]);
        EventRows { inputs: self.inputs, channels, values, total: self.totals[i] }
    }
}

/// One plane's list, a whole number of fours. Invariant: channels are below `inputs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventRows<'a> {
    inputs: usize,
    channels: &'a [u32],
    values: &'a [i8],
    total: i32,
}

impl<'a> EventRows<'a> {
    pub fn channels(&self) -> &'a [u32] {
        self.channels
    }

    pub fn values(&self) -> &'a [i8] {
        self.values
    }

    /// The sum of the values.
    pub fn total(&self) -> i32 {
        self.total
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

    /// Shares of whole rows, one for each four.
    #[inline(always)]
    pub fn shares<'b>(&self, rows: &'b [i8]) -> impl Iterator<Item = &'b [i8]> + use<'b> {
        let fours = (self.channels.len() / GROUP).max(1);
        rows.chunks(rows.len().div_ceil(fours).next_multiple_of(OUTPUTS).max(OUTPUTS))
    }

    /// The channels to prefetch: those that come `PREFETCH_FOURS` fours after four `i`.
    #[inline(always)]
    pub fn later(&self, i: usize) -> &'a [u32] {
        let from = ((i + PREFETCH_FOURS) * GROUP).min(self.channels.len());
        &self.channels[from..(from + GROUP).min(self.channels.len())]
    }
}

/// What is prefetched while rows are added.
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
    let mut events = EventList::of(inputs);
    let mut start = 0;
    for plane in planes.chunks(stride) {
        // As long as the longest list, whatever is listed; cut at the end.
        let most = start + inputs.next_multiple_of(GROUP) + GROUP;
        if events.channels.len() < most {
            events.channels.resize(most, 0);
            events.values.resize(most, 0);
        }
        let fired = list(&plane[..inputs], &mut events.channels[start..], &mut events.values[start..]);
        events.end_plane(start, fired);
        start = events.entries(events.planes());
    }
    events.channels.truncate(start);
    events.values.truncate(start);
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

/// How many are not zero.
#[inline(always)]
pub(super) fn count_nonzero(x: &[i8]) -> usize {
    // Blocks whose counts fit 8 bits, so that vectors count as many at a time as they hold.
    x.chunks(128).map(|x| usize::from(x.iter().map(|&x| u8::from(x != 0)).sum::<u8>())).sum()
}
