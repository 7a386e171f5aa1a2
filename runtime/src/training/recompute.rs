//! Which values of the forward pass are kept for the backward pass, where the others are computed again.
//!
//! The forward pass is cut into parts at steps after which few numbers are still to be read, as between two blocks of a network. What is
//! to be read later at a cut is kept. The backward pass meets the parts from the last to the first, and computes the values of one again
//! from what was kept before it. No result changes: the same steps read the same numbers.

use snnc_ir::Value;

/// A value of the forward pass that changes with the window.
#[derive(Clone, Copy, Debug)]
pub struct ForwardLife {
    pub value: Value,
    /// The step that makes it.
    pub born: usize,
    /// The last step of the forward pass that reads it.
    pub dies: usize,
    pub numbers: usize,
}

/// Into how many parts the forward pass is cut, at most: a part has at least that share of all numbers, and less than twice it where a
/// cut is found.
pub const PARTS: [usize; 6] = [4, 8, 16, 32, 64, 128];

/// Whether each of so many values is kept.
pub fn kept(values: usize, lives: &[ForwardLife], parts: usize) -> Vec<bool> {
    let mut kept = vec![false; values];
    let cuts = cuts(lives, parts);
    let last = cuts.last().copied().unwrap_or(0);
    for life in lives {
        // What comes after the last cut is still there when the backward pass begins.
        let read_later = cuts.iter().any(|&cut| life.born <= cut && cut < life.dies);
        kept[life.value.index()] |= read_later || last < life.born;
    }
    kept
}

/// The steps after which a part ends.
fn cuts(lives: &[ForwardLife], parts: usize) -> Vec<usize> {
    let steps = lives.iter().map(|life| life.dies.max(life.born) + 1).max().unwrap_or(0);
    let (mut made, mut change) = (vec![0usize; steps], vec![0isize; steps + 1]);
    for life in lives {
        made[life.born] += life.numbers;
        change[life.born] += life.numbers as isize;
        change[life.dies] -= life.numbers as isize;
    }
    // Numbers that are still to be read after each step.
    let running = |now: &mut isize, change: &isize| {
        *now += change;
        Some(*now)
    };
    let later: Vec<isize> = change[..steps].iter().scan(0, running).collect();
    let part = (made.iter().sum::<usize>() / parts).max(1);
    let (mut cuts, mut from) = (Vec::new(), 0);
    loop {
        let mut numbers = 0;
        let mut found: Option<usize> = None;
        for (step, made) in made.iter().enumerate().skip(from) {
            numbers += made;
            if numbers >= 2 * part && found.is_some() {
                break;
            }
            if numbers >= part && found.is_none_or(|best| later[step] <= later[best]) {
                found = Some(step);
            }
        }
        match found.filter(|&step| step + 1 < steps) {
            Some(step) => {
                cuts.push(step);
                from = step + 1;
            }
            None => return cuts,
        }
    }
}
