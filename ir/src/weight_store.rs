//! Where weights lie that the compiler makes: in memory, or where whoever runs it puts them.

use crate::diagnostic::Diagnostic;
use crate::tensor::Tensor;
use std::fmt::Debug;
use std::sync::Arc;

/// Keeps weights for as long as somebody reads them. No result depends on where.
pub trait WeightStore: Debug + Sync {
    /// The same tensor, as it lies from now on.
    ///
    /// # Errors
    /// There is no room for it.
    fn keep(&self, tensor: Tensor) -> Result<Tensor, Diagnostic>;
}

/// A new weight as graphs share it, kept by a store where there is one.
///
/// # Errors
/// As of the store.
pub fn kept(store: Option<&dyn WeightStore>, tensor: Tensor) -> Result<Arc<Tensor>, Diagnostic> {
    match store {
        Some(store) => store.keep(tensor).map(Arc::new),
        None => Ok(Arc::new(tensor)),
    }
}
