//! Losses and gradients of windows that several ranks have run, summed in the order of the windows.
//!
//! Law: an element's sum is `((g0 + g1) + g2) + ...` over all windows, on any number of ranks. Sums of f32 depend on their order, so
//! ranks send gradients of windows, and never sums of some of them.
//!
//! Numbers of all parameters stand one after the other, in as many slices as there are ranks. A rank sums its slice over all windows.
//! In the end every rank has all slices. So a rank sends, per number of its windows and once per number of its slice.

use crate::ranks::Ranks;
use rayon::prelude::*;
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use std::ops::Range;

/// Numbers that a thread sums at a time: they stay in its cache.
const PIECE: usize = 1 << 14;

/// What a window gave: its loss, and gradients by parameter.
pub type WindowGradients<'a> = (f32, Vec<&'a [f32]>);

/// The sum of all windows so far.
#[derive(Debug)]
pub struct OrderedSum<'r> {
    ranks: &'r dyn Ranks,
    /// Numbers by parameter.
    lengths: Vec<usize>,
    /// Of the slice of this rank.
    sum: Vec<f32>,
    /// By window.
    losses: Vec<f32>,
}

impl<'r> OrderedSum<'r> {
    /// Of no windows, for parameters of these lengths. The sum is made in `memory`: pages that were written before cost nothing again.
    pub fn new(ranks: &'r dyn Ranks, lengths: Vec<usize>, memory: Vec<f32>) -> Self {
        let mut sums = Self { ranks, lengths, sum: memory, losses: Vec::new() };
        let own = sums.slice(ranks.rank()).len();
        sums.sum.clear();
        sums.sum.resize(own, 0.0);
        sums
    }

    /// The numbers that a rank sums.
    fn slice(&self, rank: usize) -> Range<usize> {
        let all: usize = self.lengths.iter().sum();
        let at = |rank: usize| (rank as u128 * all as u128 / self.ranks.count() as u128) as usize;
        at(rank)..at(rank + 1)
    }

    /// Adds windows in order: those of rank 0, then those of rank 1, and so on. `own` are those of this rank, in their order. All ranks
    /// call it, also those without windows.
    ///
    /// # Errors
    /// A rank cannot be reached.
    pub fn add(&mut self, own: &[WindowGradients<'_>]) -> Result<(), Diagnostic> {
        let (rank, count) = (self.ranks.rank(), self.ranks.count());
        let message = |to: usize| if to == rank { Vec::new() } else { self.message(own, self.slice(to)) };
        let messages: Vec<Vec<u8>> = (0..count).map(message).collect();
        let received = if count == 1 { messages } else { self.ranks.exchange(messages)? };
        let slice = self.slice(rank);
        for (from, message) in received.iter().enumerate() {
            if from == rank {
                for (loss, gradients) in own {
                    self.add_window(*loss, &overlaps(gradients, &slice));
                }
                continue;
            }
            let numbers = numbers(message);
            let windows = numbers.chunks_exact(1 + slice.len());
            if !windows.remainder().is_empty() || message.len() % size_of::<f32>() != 0 {
                let message = format!("rank {from} sent gradients of other parameters");
                return Err(Diagnostic::new("", message).code(ErrorCode::TRAINING));
            }
            windows.for_each(|window| self.add_window(window[0], &[(0, &window[1..])]));
        }
        Ok(())
    }

    /// What another rank adds of these windows: per window its loss and its gradients in that slice.
    fn message(&self, own: &[WindowGradients<'_>], slice: Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(own.len() * (1 + slice.len()) * size_of::<f32>());
        for (loss, gradients) in own {
            bytes.extend_from_slice(bytemuck::bytes_of(loss));
            for (_, numbers) in overlaps(gradients, &slice) {
                bytes.extend_from_slice(bytemuck::cast_slice(numbers));
            }
        }
        bytes
    }

    /// `parts`: gradients, each with its place in the slice.
    fn add_window(&mut self, loss: f32, parts: &[(usize, &[f32])]) {
        self.losses.push(loss);
        self.sum.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sum)| {
            let own = piece * PIECE..piece * PIECE + sum.len();
            let first = parts.partition_point(|(at, part)| at + part.len() <= own.start);
            for (at, part) in parts[first..].iter().take_while(|(at, _)| *at < own.end) {
                let (from, to) = (own.start.max(*at), own.end.min(at + part.len()));
                let sums = sum[from - own.start..to - own.start].iter_mut();
                sums.zip(&part[from - at..to - at]).for_each(|(sum, g)| *sum += g);
            }
        });
    }

    /// On every rank: the losses by window, and the sum of the gradients, all parameters one after the other.
    ///
    /// # Errors
    /// A rank cannot be reached.
    pub fn finish(self) -> Result<(Vec<f32>, Vec<f32>), Diagnostic> {
        let Self { ranks, lengths, sum, losses } = self;
        let count = ranks.count();
        if count == 1 || lengths.is_empty() {
            return Ok((losses, sum));
        }
        let own: Vec<u8> = bytemuck::cast_slice(&sum).to_vec();
        let slices = ranks.exchange(vec![own; count])?;
        let sums: Vec<f32> = slices.iter().flat_map(|bytes| numbers(bytes)).collect();
        let all: usize = lengths.iter().sum();
        if sums.len() != all {
            let message = format!("the ranks sent sums of {} numbers, not of {all}", sums.len());
            return Err(Diagnostic::new("", message).code(ErrorCode::TRAINING));
        }
        Ok((losses, sums))
    }
}

/// The numbers in a message. Bytes at the end that are none are left out.
fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|x| f32::from_ne_bytes(*x)).collect()
}

/// Where arrays, one after the other, meet a slice of them: places in the slice, and the numbers there.
fn overlaps<'a>(arrays: &[&'a [f32]], slice: &Range<usize>) -> Vec<(usize, &'a [f32])> {
    let mut start = 0;
    let mut found = Vec::new();
    for &array in arrays {
        let (from, to) = (slice.start.max(start), slice.end.min(start + array.len()));
        if from < to {
            found.push((from - slice.start, &array[from - start..to - start]));
        }
        start += array.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Alone;

    #[test]
    fn sums_are_in_the_order_of_the_windows() {
        // In any other order, one of these is lost.
        let [a, b, c] = [[1e8f32, 1.0], [1.0, -1.0], [-1e8, 3.0]];
        let long = [0.5f32; 3 * PIECE + 7];
        let mut sum = OrderedSum::new(&Alone, vec![2, 0, long.len()], vec![7.0; 5]);
        sum.add(&[(1.0, vec![&a, &[], &long]), (2.0, vec![&b, &[], &long])]).expect("there is one rank");
        sum.add(&[(4.0, vec![&c, &[], &long])]).expect("there is one rank");
        let (losses, gradients) = sum.finish().expect("there is one rank");
        assert_eq!(losses, [1.0, 2.0, 4.0]);
        let (short, longer) = gradients.split_at(2);
        assert_eq!(short, [0.0, 3.0]);
        assert!(longer.len() == long.len() && longer.iter().all(|&x| x == 1.5));
    }
}
