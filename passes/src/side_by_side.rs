//! Pieces of work that do not depend on each other, run by whoever has threads.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// Runs a piece of work for every number below a count.
type Run = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync;

/// How pieces of work are run: one after the other, or as the caller does it. No result depends on it.
#[derive(Clone, Default)]
pub struct SideBySide(Option<Arc<Run>>);

impl SideBySide {
    /// As `run` does it, which is told how many pieces there are and what each is.
    pub fn new(run: impl Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(run)))
    }

    /// What `piece` gives for the numbers below `count`, in their order.
    ///
    /// ```
    /// use snnc_passes::side_by_side::SideBySide;
    ///
    /// let backwards = SideBySide::new(|count, piece| (0..count).rev().for_each(piece));
    /// for way in [SideBySide::default(), backwards] {
    ///     assert_eq!(way.map(3, |i| 10 * i), [0, 10, 20]);
    /// }
    /// ```
    ///
    /// # Panics
    /// The caller's way leaves a piece out.
    pub fn map<T: Send + Sync>(&self, count: usize, piece: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let Some(run) = &self.0 else { return (0..count).map(piece).collect() };
        let results: Vec<OnceLock<T>> = (0..count).map(|_| OnceLock::new()).collect();
        run(count, &|i| drop(results[i].set(piece(i))));
        results.into_iter().map(|result| result.into_inner().expect("every piece is run")).collect()
    }
}

impl fmt::Debug for SideBySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "side by side" } else { "one after the other" })
    }
}
