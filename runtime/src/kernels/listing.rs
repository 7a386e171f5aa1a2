//! Lists events: which channels of planes fire.

use super::event_list::{EventList, Lists, RowPlace, TrainRuns};
use super::panel::OUTPUTS;
use super::vectors::interface::Vectors;

/// Planes ahead that are prefetched.
const AHEAD: usize = 4;

/// Appends to the last list what is not 0 of `x`, each value times `2^shift`; it has `fired` events already.
#[inline(always)]
fn extend<P: RowPlace>(vectors: impl Vectors, lists: &mut Lists<P>, x: &[i8], shift: u32, fired: usize) -> usize {
    let (places, values) = lists.room(fired, x.len());
    fired + vectors.list(x, shift, places, values)
}

/// The events of planes of `inputs` numbers that lie `stride` apart.
#[inline(always)]
pub(super) fn event_list(vectors: impl Vectors, planes: &[i8], stride: usize, inputs: usize) -> EventList {
    let mut events = EventList::default();
    list_events(vectors, planes, stride, inputs, &mut events);
    events.lists.cut();
    events
}

/// Lists the same in the memory of another list.
#[inline(always)]
pub(super) fn list_events(vectors: impl Vectors, planes: &[i8], stride: usize, inputs: usize, events: &mut EventList) {
    assert!(inputs > 0 && inputs <= stride, "planes of {inputs} channels, {stride} apart");
    events.begin(inputs);
    for plane in planes.chunks(stride) {
        let fired = extend(vectors, &mut events.lists, &plane[..inputs], 0, 0);
        events.lists.end_after(fired);
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
    // As many timesteps as the weighted values fit 8 bits.
    let together = match (carry, vectors.weighs_spikes()) {
        (1, _) => steps,
        (_, false) => 1,
        (_, true) => {
            let most = planes.iter().fold(0, |most, x| most.max(x.unsigned_abs()));
            (1 + (i8::MAX as u8 / most.max(1)).max(1).ilog2() as usize).min(steps)
        }
    };
    let tokens = planes.len() / (steps * stride);
    let runs = steps.div_ceil(together);
    let carry = carry.pow(together as u32);
    events.begin(inputs, tokens, runs, carry);
    for b in 0..events.blocks() {
        let channels = events.block(b);
        for train in planes.chunks_exact(steps * stride) {
            for run in (0..runs).rev() {
                // The first run is the one that has fewer timesteps.
                let end = steps - run * together;
                let mut fired = 0;
                for t in end.saturating_sub(together)..end {
                    let x = &train[t * stride..][channels.clone()];
                    // Planes lie far apart: no memory foresees the jump from one to the next.
                    for line in x.chunks(OUTPUTS) {
                        vectors.prefetch(line.as_ptr().wrapping_add(AHEAD * stride));
                    }
                    let shift = if carry == 1 { 0 } else { end - 1 - t };
                    fired = extend(vectors, &mut events.lists, x, shift as u32, fired);
                }
                events.lists.end_after(fired);
            }
        }
    }
}
