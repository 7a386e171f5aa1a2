//! Products with weights of 4 bits in groups of inputs: `y = sum over groups of multiplier * (sum of level * x)`, in integers.
//!
//! Few tokens read the levels as they lie, two per byte, four tokens at a time. Many tokens, where a unit multiplies matrices of
//! bytes: an element is `low + 128 * high` of two bytes, and the product that of two weights of bytes. Events of spikes read
//! elements of 16 bits.

use super::event_list::{EventList, EventRows, RowPlace, TrainRuns};
use super::panel::{OUTPUTS, Panels};
use super::vectors::interface::{PanelSums, Vectors};
use snnc_ir::nibbles::{BLOCK, GROUP_STEP, GroupedSizes, LEVEL_LEAST};

/// Tokens that read levels together.
const TOKENS: usize = 4;

/// How far ahead groups are prefetched, in bytes.
const PREFETCH_BYTES: usize = 4096;

/// Rows of bytes, each with what is not in the levels of a group's sums: levels are stored plus 8.
struct ByteRows {
    /// `[tokens, width]`, where the width is the inputs up to a multiple of eight.
    x: Vec<i8>,
    width: usize,
    /// `[tokens, groups]`
    origins: Vec<i32>,
    groups: usize,
}

impl ByteRows {
    fn of(x: &[i8], sizes: GroupedSizes) -> Self {
        let (inputs, width, groups) = (sizes.inputs(), sizes.inputs().next_multiple_of(GROUP_STEP), sizes.groups());
        let rows: Vec<i8> = if width == inputs { x.to_vec() } else { super::panel::padded(x, inputs, width) };
        let sum = |x: &[i8]| -i32::from(LEVEL_LEAST) * x.iter().map(|&x| i32::from(x)).sum::<i32>();
        let group = sizes.group();
        let origins = rows.chunks_exact(width).flat_map(|row| row.chunks(group).map(sum)).collect();
        Self { x: rows, width, origins, groups }
    }

    fn row(&self, token: usize) -> (&[i8], &[i32]) {
        (&self.x[token * self.width..][..self.width], &self.origins[token * self.groups..][..self.groups])
    }
}

/// `y = x w`, as `matmul_int` has it.
#[inline(always)]
pub(super) fn product(
    vectors: impl Vectors,
    x: &[i8],
    higher: &[EventList],
    w: Panels<'_>,
    sizes: GroupedSizes,
    y: &mut [i32],
) {
    let (inputs, m) = (w.inputs(), w.outputs());
    let tokens = y.len() / m;
    y.fill(0);
    add_bytes(vectors, x, 1, w, sizes, y);
    let mut weight = 1i32;
    for events in higher {
        weight = weight.wrapping_mul(256);
        if (0..tokens).all(|token| events.is_silent(token)) {
            continue;
        }
        let mut bytes = vec![0; tokens * inputs];
        for (token, row) in bytes.chunks_exact_mut(inputs).enumerate() {
            let plane = events.plane(token);
            for (place, &value) in plane.places().iter().zip(plane.values()).filter(|(_, value)| **value != 0) {
                row[place.offset() / OUTPUTS] = value;
            }
        }
        add_bytes(vectors, &bytes, weight, w, sizes, y);
    }
}

/// `y += weight * x w`
#[inline(always)]
fn add_bytes(vectors: impl Vectors, x: &[i8], weight: i32, w: Panels<'_>, sizes: GroupedSizes, y: &mut [i32]) {
    if vectors.add_grouped(x, weight, w, y) {
        return;
    }
    let (m, tokens) = (w.outputs(), y.len() / w.outputs());
    let rows = ByteRows::of(x, sizes);
    for (p, panel) in w.panels().enumerate() {
        let width = (m - p * OUTPUTS).min(OUTPUTS);
        let mut add = |sums: &PanelSums, token: usize| {
            let y = &mut y[token * m + p * OUTPUTS..][..width];
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = y.wrapping_add(sum.wrapping_mul(weight)));
        };
        let mut first = 0;
        while first < tokens {
            first += match tokens - first {
                1 => pass::<1>(vectors, &rows, first, panel, sizes, &mut add),
                2 | 3 => pass::<2>(vectors, &rows, first, panel, sizes, &mut add),
                _ => pass::<TOKENS>(vectors, &rows, first, panel, sizes, &mut add),
            };
        }
    }
}

/// The sums of `T` tokens and a panel, handed to `add`; how many tokens these are.
#[inline(always)]
fn pass<const T: usize>(
    vectors: impl Vectors,
    rows: &ByteRows,
    first: usize,
    panel: &[i8],
    sizes: GroupedSizes,
    mut add: impl FnMut(&PanelSums, usize),
) -> usize {
    let rows: [(&[i8], &[i32]); T] = std::array::from_fn(|t| rows.row(first + t));
    let mut all: [PanelSums; T] = [[0; OUTPUTS]; T];
    for (g, group) in sizes.groups_of(bytemuck::cast_slice(panel)).enumerate() {
        let from = group.multipliers.as_ptr().wrapping_add(PREFETCH_BYTES);
        (0..=group.levels.len() / OUTPUTS).for_each(|i| vectors.prefetch(from.wrapping_add(i * OUTPUTS)));
        let inputs = group.levels.len() / (BLOCK / GROUP_STEP);
        let mut sums: [PanelSums; T] = [[0; OUTPUTS]; T];
        vectors.group_sums(rows.map(|(x, _)| &x[group.first..][..inputs]), group.levels, &mut sums);
        for ((all, sums), (_, origins)) in all.iter_mut().zip(&sums).zip(&rows) {
            let origin = origins[g];
            // Slices, so that vectors do it.
            let numbers = all.iter_mut().zip(sums.as_slice()).zip(group.multipliers);
            numbers.for_each(|((all, sum), &by)| *all = all.wrapping_add((sum - origin) * i32::from(by)));
        }
    }
    all.iter().zip(first..).for_each(|(sums, token)| add(sums, token));
    T
}

/// The elements of a panel, `[k][64]`.
#[inline(always)]
fn spread(panel: &[i8], sizes: GroupedSizes, elements: &mut [i16]) {
    for group in sizes.groups_of(bytemuck::cast_slice(panel)) {
        let rows = elements[group.first * OUTPUTS..][..group.inputs * OUTPUTS].chunks_exact_mut(OUTPUTS);
        for (i, row) in rows.enumerate() {
            let numbers = row.iter_mut().zip(group.multipliers).enumerate();
            numbers.for_each(|(o, (to, &by))| *to = i16::from(group.level(i, o)) * i16::from(by));
        }
    }
}

/// `sums = carry * sums + sum of value * row`
#[inline(always)]
fn add_rows<P: RowPlace>(list: EventRows<'_, P>, carry: i32, rows: &[i16], sums: &mut PanelSums) {
    if carry != 1 {
        sums.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(carry));
    }
    for (&place, &x) in list.places().iter().zip(list.values()) {
        let row = &rows[place.offset()..][..OUTPUTS];
        sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum = sum.wrapping_add(i32::from(x) * i32::from(w)));
    }
}

/// `y = (events of token n) w`, as `synapse` has it.
#[inline(always)]
pub(super) fn synapse(events: &EventList, w: Panels<'_>, sizes: GroupedSizes, y: &mut [i32]) {
    let m = w.outputs();
    assert_eq!(events.planes() * m, y.len(), "a row of sums for each token");
    let mut elements = vec![0; w.inputs() * OUTPUTS];
    for (p, panel) in w.panels().enumerate() {
        spread(panel, sizes, &mut elements);
        let columns = p * OUTPUTS..((p + 1) * OUTPUTS).min(m);
        for (token, y) in y.chunks_exact_mut(m).enumerate() {
            let mut sums: PanelSums = [0; OUTPUTS];
            add_rows(events.plane(token), 1, &elements, &mut sums);
            y[columns.clone()].copy_from_slice(&sums[..columns.len()]);
        }
    }
}

/// Sums of all timesteps, as `trains` has them.
#[inline(always)]
pub(super) fn trains(events: &TrainRuns, w: Panels<'_>, sizes: GroupedSizes, y: &mut [i32]) {
    let m = w.outputs();
    assert_eq!(events.inputs(), w.inputs(), "a row for each channel");
    assert_eq!(events.tokens() * m, y.len(), "a row of sums for each token");
    y.fill(0);
    let mut elements = vec![0; w.inputs() * OUTPUTS];
    for (p, panel) in w.panels().enumerate() {
        spread(panel, sizes, &mut elements);
        let columns = p * OUTPUTS..((p + 1) * OUTPUTS).min(m);
        for b in 0..events.blocks() {
            let block = events.block(b);
            for (token, y) in y.chunks_exact_mut(m).enumerate() {
                let mut sums: PanelSums = [0; OUTPUTS];
                for run in events.runs_of(b, token) {
                    let rows = &elements[block.start * OUTPUTS..block.end * OUTPUTS];
                    add_rows(events.run(run, block.len()), events.carry(), rows, &mut sums);
                }
                y[columns.clone()].iter_mut().zip(&sums).for_each(|(y, &sum)| *y = y.wrapping_add(sum));
            }
        }
    }
}
