//! Weights in panels of 64 outputs, `[m / 64][k][64]`, and groups of four of their rows. Weights of 4 bits lie in panels too, as
//! `snnc_ir::nibbles` has them.

use snnc_ir::nibbles::GroupedSizes;
use snnc_ir::tensor::PANEL;

/// Inputs of an output that are summed at once.
pub(super) const GROUP: usize = 4;
/// Outputs of a panel.
pub const OUTPUTS: usize = PANEL;

/// Four rows of a panel, `[64][4]`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Group(pub [i8; GROUP * OUTPUTS]);

/// Weights `[inputs, outputs]` in panels, none of them -128; or of 4 bits in groups.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    inputs: usize,
    outputs: usize,
    weights: &'a [i8],
    grouped: Option<GroupedSizes>,
}

impl<'a> Panels<'a> {
    /// Panics if the weights are not so many.
    pub fn new(weights: &'a [i8], inputs: usize, outputs: usize) -> Self {
        assert!(inputs > 0 && outputs > 0, "weights of {inputs} inputs, {outputs} outputs");
        assert_eq!(weights.len(), inputs * outputs.next_multiple_of(OUTPUTS), "{inputs} inputs, {outputs} outputs");
        Self { inputs, outputs, weights, grouped: None }
    }

    /// Panics if the bytes are not so many.
    pub fn of_groups(bytes: &'a [u8], sizes: GroupedSizes) -> Self {
        let (inputs, outputs) = (sizes.inputs(), sizes.outputs());
        assert!(inputs > 0 && outputs > 0, "weights of {inputs} inputs, {outputs} outputs");
        assert_eq!(bytes.len(), sizes.bytes(), "{sizes:?}");
        Self { inputs, outputs, weights: bytemuck::cast_slice(bytes), grouped: Some(sizes) }
    }

    /// How its weights are grouped, if they are of 4 bits.
    pub fn grouped(&self) -> Option<GroupedSizes> {
        self.grouped
    }

    /// Bytes of a panel.
    fn panel_bytes(&self) -> usize {
        self.grouped.map_or(self.inputs * OUTPUTS, GroupedSizes::panel_bytes)
    }

    /// The outputs of some panels, 64 each.
    pub fn some(&self, range: std::ops::Range<usize>) -> Self {
        let outputs = self.outputs.min(range.end * OUTPUTS) - range.start * OUTPUTS;
        let panel = self.panel_bytes();
        let weights = &self.weights[range.start * panel..range.end * panel];
        Self { outputs, weights, grouped: self.grouped.map(|sizes| sizes.of_outputs(outputs)), ..*self }
    }

    /// Each panel's rows, or its groups.
    pub fn panels(self) -> impl Iterator<Item = &'a [i8]> {
        self.weights.chunks_exact(self.panel_bytes())
    }

    /// One panel's rows, or its groups; none beyond the last.
    pub fn panel(&self, i: usize) -> &'a [i8] {
        let panel = self.panel_bytes();
        self.weights.get(i * panel..(i + 1) * panel).unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.outputs.div_ceil(OUTPUTS)
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

/// Rows of `inputs` padded to `k`.
#[inline(always)]
pub(super) fn padded(x: &[i8], inputs: usize, k: usize) -> Vec<i8> {
    let mut rows = vec![0; x.len() / inputs * k];
    for (row, x) in rows.chunks_exact_mut(k).zip(x.chunks_exact(inputs)) {
        row[..inputs].copy_from_slice(x);
    }
    rows
}
