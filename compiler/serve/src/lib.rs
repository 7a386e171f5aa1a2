//! A server of one model over HTTP: completions and conversations as clients of OpenAI's interface ask for them.
//!
//! | module | what it does |
//! |---|---|
//! | [`engine`] | one thread that runs all requests, some at a time, a token of each in a pass |
//! | `api` | what is asked and answered, as JSON |
//! | `server` | connections, limits, and the end |
//!
//! Law: the tokens of a request depend on it alone, bit for bit, whoever else is served.

#![warn(missing_docs)]

mod access;
mod api;
mod app;
mod counted;
pub mod engine;
mod figures;
pub mod job;
mod listening;
mod request_log;
pub mod served;
mod server;

pub use access::Keys;
pub use listening::Listening;
pub use server::{ServeOptions, serve};
