//! The header of the library for C is what cbindgen makes of its sources. `SNNC_BLESS=1` writes it.

#[test]
fn the_header_is_made_of_the_sources() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../compiler/c");
    let config = cbindgen::Config::from_file(format!("{folder}/cbindgen.toml")).expect("the configuration is read");
    let sources = ["status", "model", "spikes"].map(|name| format!("{folder}/src/{name}.rs"));
    let builder = sources.into_iter().fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut header = Vec::new();
    builder.generate().expect("the sources have a header").write(&mut header);
    let header = String::from_utf8(header).expect("a header is text");
    for name in ["snnc_load", "snnc_logits", "snnc_generate", "snnc_spikes", "snnc_error"] {
        assert!(header.contains(&format!("{name}(")), "{name} is missing");
    }
    let file = format!("{folder}/include/snnc.h");
    if std::env::var_os("SNNC_BLESS").is_some() {
        std::fs::write(&file, &header).expect("the header can be written");
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(published == header, "compiler/c/include/snnc.h is not of the sources; SNNC_BLESS=1 writes it");
}
