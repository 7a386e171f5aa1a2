//! Attention over features, head by head: what heads remember, and their parts of rows.

/// What heads remember, and how many tokens were before.
#[derive(Clone, Copy, Debug)]
pub struct DecayMemory<'a> {
    /// By head of queries.
    pub sink: &'a [f32],
    /// By head of keys.
    pub half_life: &'a [i32],
    pub past: usize,
}

/// Some columns of rows of `width`.
pub fn take(rows: &[i32], width: usize, from: usize, len: usize) -> Vec<i32> {
    rows.chunks_exact(width).flat_map(|row| &row[from..from + len]).copied().collect()
}

/// A head's results into rows of `width`, from column `from` on.
pub fn put<T: Copy>(out: &mut [T], part: &[T], width: usize, from: usize) {
    let rows = out.len() / width;
    for (out, part) in out.chunks_exact_mut(width).zip(part.chunks_exact(part.len() / rows.max(1))) {
        out[from..from + part.len()].copy_from_slice(part);
    }
}
