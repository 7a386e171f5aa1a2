//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/libfuzzer tokenizer tests/fuzz/corpus/tokenizer -- -rss_limit_mb=4096 -timeout=20`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(found) = snnc_fuzz::tokenizer::check(bytes) {
        panic!("{found}");
    }
});
