//! What a user would write around snnc: models to try it with. The programs beside this file use it.

#![warn(missing_docs)]

pub mod gpt2;
pub mod llama;
