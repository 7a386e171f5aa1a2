//! Conversations: a template turns messages into a text, and a network continues it.

pub mod conversation;
pub mod find;
pub mod python;
pub mod spoken;
pub mod template;
