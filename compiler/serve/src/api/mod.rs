//! What is asked and answered, as JSON in the form of OpenAI's interface.

pub mod answer;
pub mod ask;
pub mod chat;
pub mod completions;
pub mod errors;
pub mod openapi;
pub mod stream;
pub mod tokens;
