//! Sixteen floats side by side: one vector of 512 bits, or several shorter ones.

/// How many they are.
pub(super) const LANES: usize = 16;

/// The floats.
pub(super) type FloatLanes = [f32; LANES];

/// Butterflies of numbers that lie `half` apart: `(a, b)` becomes `(a + b, a - b)`.
#[inline(always)]
pub(super) fn butterflies_apart(y: &mut [f32], half: usize) {
    for pair in y.chunks_exact_mut(2 * half) {
        let (a, b) = pair.split_at_mut(half);
        a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
    }
}
