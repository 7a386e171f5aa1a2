//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/libfuzzer onnx tests/fuzz/corpus/onnx -- -rss_limit_mb=4096 -timeout=20`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(found) = snnc_fuzz::onnx::check(bytes) {
        panic!("{found}");
    }
});
