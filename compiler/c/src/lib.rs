//! snnc for C: load a model, ask for logits, text and spikes. `include/snnc.h` is made of this crate.
//!
//! Law: whatever a caller passes, a call gives a status and no panic crosses into C. What Rust cannot check, a pointer and the
//! length beside it, is the caller's promise; `pointers` is where it is used.

#![warn(missing_docs)]
#![allow(unsafe_code, reason = "functions that C calls by name, and pointers that it passes")]

mod model;
mod pointers;
mod spikes;
mod status;
