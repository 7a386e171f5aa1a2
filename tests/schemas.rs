//! The schemas of all JSON that the command prints are published in `docs/schemas`.
//!
//! `SNNC_BLESS=1 cargo test --release --workspace --test schemas` writes them anew.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// A schema that changes without its file would be a promise that is broken in silence.
#[test]
fn published_schemas_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    let bless = std::env::var_os("SNNC_BLESS").is_some();
    if bless {
        fs::create_dir_all(&folder).unwrap();
    }
    let mut names: Vec<String> = Vec::new();
    for (name, schema) in snnc::schema::all() {
        let (file, text) = (format!("{name}.json"), format!("{schema:#}\n"));
        if bless {
            fs::write(folder.join(&file), &text).unwrap();
        }
        let published = fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert!(published == text, "docs/schemas/{file} is not the schema of the code; SNNC_BLESS=1 writes it");
        names.push(file);
    }
    let found = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others: Vec<String> = found.filter(|file| file.ends_with(".json") && !names.contains(file)).collect();
    assert!(others.is_empty(), "no command prints {others:?}");
}
