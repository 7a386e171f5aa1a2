//! What a program remembers of the language that it writes, so that it runs without the files that said so.
//!
//! It stands in the header of a `.snn` file. All of it is text and ids: the tokenizer itself is a section of its own.

use prost::Message;

/// Longest chat template, in bytes: those of large models have a quarter of it, and a header has to hold it.
pub const TEMPLATE_BYTES: usize = 1 << 17;

/// Which tokens begin and end texts, and how a conversation becomes a text.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LanguageConfig {
    /// Ids that stand before every text.
    #[prost(uint32, repeated, tag = "1")]
    pub start: Vec<u32>,
    /// Ids that end a text, rising.
    #[prost(uint32, repeated, tag = "2")]
    pub end: Vec<u32>,
    /// The template by which a conversation becomes a text, in Jinja as Hugging Face uses it; empty without one.
    #[prost(string, tag = "3")]
    pub chat_template: String,
    /// Tokens by the names that a template calls them, such as `bos_token`.
    #[prost(message, repeated, tag = "4")]
    pub special_tokens: Vec<NamedSpecialToken>,
}

/// A token's name, and its text.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NamedSpecialToken {
    /// As `bos_token`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// As `<|im_start|>`.
    #[prost(string, tag = "2")]
    pub text: String,
}
