//! What a user would write around snnc: models to try it with. The programs beside this file use it.

pub mod gpt2;
