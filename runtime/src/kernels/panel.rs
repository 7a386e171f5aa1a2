//! Weights in panels of 64 outputs, `[m / 64][k][64]`, and groups of four of their rows.

use snnc_ir::tensor::PANEL;

/// Inputs of an output that are summed at once.
pub(super) const GROUP: usize = 4;
/// Outputs of a panel.
pub const OUTPUTS: usize = PANEL;

/// Four rows of a panel, `[64][4]`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Group(pub [i8; GROUP * OUTPUTS]);

/// Weights `[inputs, outputs]` in panels, none of them -128.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    inputs: usize,
    outputs: usize,
    weights: &'a [i8],
}

impl<'a> Panels<'a> {
    /// Panics if the weights are not so many.
    pub fn new(weights: &'a [i8], inputs: usize, outputs: usize) -> Self {
        assert!(inputs > 0 && outputs > 0, "weights of {inputs} inputs, {outputs} outputs");
        assert_eq!(weights.len(), inputs * outputs.next_multiple_of(OUTPUTS), "{inputs} inputs, {outputs} outputs");
        Self { inputs, outputs, weights }
    }

    /// The outputs of some panels, 64 each.
    pub fn some(&self, range: std::ops::Range<usize>) -> Self {
        let outputs = self.outputs.min(range.end * OUTPUTS) - range.start * OUTPUTS;
        let panel = self.inputs * OUTPUTS;
        Self::new(&self.weights[range.start * panel..range.end * panel], self.inputs, outputs)
    }

    /// Each panel's rows.
    pub fn panels(self) -> impl Iterator<Item = &'a [i8]> {
        self.weights.chunks_exact(self.inputs * OUTPUTS)
    }

    /// One panel's rows; none beyond the last.
    pub fn panel(&self, i: usize) -> &'a [i8] {
        let panel = self.inputs * OUTPUTS;
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
