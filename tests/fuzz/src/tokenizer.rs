//! Tokenizers of anybody's making: text to ids and back ends, without a panic, in bounded time and memory.

use crate::{Verdict, bytes, corpus_files, pick};
use snnc::tokens::Tokens;
use snnc_ir::random::SplitMix64;

/// The model's tokenizer, and the corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = corpus_files("tokenizer");
    let demo = snnc_tests::demo_model().with_file_name("tokenizer.json");
    seeds.extend(std::fs::read(demo).ok());
    seeds
}

/// A tokenizer with a change.
pub fn mutant(seeds: &[Vec<u8>], random: &mut SplitMix64) -> Vec<u8> {
    let mut mutant = pick(random, seeds).clone();
    bytes::change(&mut mutant, random);
    mutant
}

/// Reads a tokenizer, and some texts with it.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8]) -> Result<Verdict, String> {
    let Ok(tokens) = Tokens::new(bytes, "fuzz") else { return Ok(Verdict::Refused) };
    for text in ["", "The river runs.", "\u{feff}\u{0}é漢 \n\n  x"] {
        let Ok(ids) = tokens.encode(text) else { return Ok(Verdict::Refused) };
        if tokens.decode(&ids).is_err() {
            return Ok(Verdict::Refused);
        }
    }
    Ok(Verdict::Accepted)
}
