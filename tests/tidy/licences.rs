//! Writes the licences of all crates that the command `snnc` is linked with: `licences TARGET FILE`. `.ci/release` puts the file
//! into the archive.
//!
//! Crates are those of `cargo metadata` that are reached from `snnc` without dependencies of tests and of build scripts. Texts
//! are the files in their packages; equal texts stand once. A package without a text has those of another one of its
//! repository, else the text that a licence always has.

use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

type LicenceResult<T> = Result<T, Box<dyn Error>>;

/// How names of files with a licence or a notice begin.
const NAMES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

fn main() -> LicenceResult<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [target, file] = args.as_slice() else { return Err("usage: licences TARGET FILE".into()) };
    let metadata = metadata(target)?;
    fs::write(file, listing(&linked(&metadata)?)?)?;
    Ok(())
}

fn metadata(target: &str) -> LicenceResult<Json> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
    let output = Command::new(cargo).args(args).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or("")
}

/// The packages of other projects that `snnc` is linked with, by name and version.
fn linked(metadata: &Json) -> LicenceResult<Vec<&Json>> {
    let packages: BTreeMap<&str, &Json> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<&str, &Json> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let is_root = |package: &&&Json| text(&package["name"]) == "snnc" && package["source"].is_null();
    let root = packages.values().find(is_root).ok_or("there is no package snnc")?;
    let (mut seen, mut left) = (BTreeSet::new(), vec![text(&root["id"])]);
    while let Some(id) = left.pop() {
        if seen.insert(id) {
            let is_linked = |dep: &&Json| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let node = nodes.get(id).ok_or_else(|| format!("{id} is not resolved"))?;
            left.extend(list(&node["deps"]).iter().filter(is_linked).map(|dep| text(&dep["pkg"])));
        }
    }
    let mut linked: Vec<&Json> = seen.iter().filter_map(|id| packages.get(id).copied()).collect();
    linked.retain(|package| !package["source"].is_null());
    linked.sort_by_key(|package| (text(&package["name"]), text(&package["version"])));
    Ok(linked)
}

/// A table of the packages, then all texts.
fn listing(packages: &[&Json]) -> LicenceResult<String> {
    let mut table = String::new();
    // By text: its packages. Numbered in the order in which they come.
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut texts: Vec<(String, Vec<String>)> = Vec::new();
    for package in packages {
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        let licence = text(&package["license"]);
        if licence.is_empty() {
            return Err(format!("{name} names no licence").into());
        }
        let mut own = Vec::new();
        for content in texts_of(package, packages)? {
            let number = *numbers.entry(content.clone()).or_insert_with(|| {
                texts.push((content, Vec::new()));
                texts.len()
            });
            texts[number - 1].1.push(name.clone());
            own.push(number.to_string());
        }
        let authors: Vec<&str> = list(&package["authors"]).iter().map(text).collect();
        let found = match own.is_empty() {
            false if files(package)?.is_empty() => {
                format!("texts {}, for its package has none; by {}", own.join(", "), authors.join(", "))
            }
            false => format!("texts {}", own.join(", ")),
            true => return Err(format!("{name} has no text of `{licence}`, and neither has its repository").into()),
        };
        table += &format!("{name}\n    {licence}; {found}\n    {}\n", text(&package["repository"]));
    }
    let mut all = format!("snnc is linked with {} crates of others. Their licences:\n\n{table}", packages.len());
    for (i, (content, names)) in texts.iter().enumerate() {
        let line = "-".repeat(100);
        all += &format!("\n{line}\nText {}: {}\n{line}\n\n{}\n", i + 1, names.join(", "), content.trim_end());
    }
    Ok(all)
}

/// What a package is licensed by.
fn texts_of(package: &Json, packages: &[&Json]) -> LicenceResult<Vec<String>> {
    let own = files(package)?;
    if !own.is_empty() {
        return Ok(own);
    }
    let repository = |package: &Json| {
        let whole = text(&package["repository"]);
        whole.split("/tree/").next().unwrap_or(whole).trim_end_matches('/').trim_end_matches(".git").to_string()
    };
    let (here, licence) = (repository(package), text(&package["license"]));
    let same = |other: &&&Json| text(&other["license"]) == licence;
    let beside = packages.iter().filter(same).filter(|other| !here.is_empty() && repository(other) == here);
    // The text of a licence of Apache's kind names nobody.
    let elsewhere = packages.iter().filter(same).filter(|_| licence.starts_with("Apache-2.0"));
    for other in beside.chain(elsewhere) {
        let texts = files(other)?;
        if !texts.is_empty() {
            return Ok(texts);
        }
    }
    // Each alternative of `A OR B` is enough.
    let alternatives: Vec<&str> = licence.split(" OR ").flat_map(|one| one.split('/')).map(str::trim).collect();
    if alternatives.contains(&"Apache-2.0") {
        return Ok(vec![include_str!("../../LICENSE-APACHE").to_string()]);
    }
    let authors: Vec<&str> = list(&package["authors"]).iter().map(text).collect();
    let body = include_str!("../../LICENSE-MIT").split_once("\n\n").map(|(_, body)| body);
    let body = body.filter(|_| alternatives.contains(&"MIT"));
    Ok(body.map(|body| format!("Copyright (c) {}\n\n{body}", authors.join(", "))).into_iter().collect())
}

/// The texts of licences and notices in a package, in the order of their names.
fn files(package: &Json) -> LicenceResult<Vec<String>> {
    let folder = Path::new(text(&package["manifest_path"])).parent().ok_or("a manifest has a folder")?;
    let is_licence = |name: &str| NAMES.iter().any(|start| name.to_lowercase().starts_with(start));
    let mut paths = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match path.is_dir() {
            true if is_licence(&name) => {
                for inner in fs::read_dir(&path)? {
                    paths.insert(inner?.path());
                }
            }
            false if is_licence(&name) && !name.ends_with(".rs") => {
                paths.insert(path);
            }
            true | false => {}
        }
    }
    let named = package["license_file"].as_str().map(|name| folder.join(name));
    paths.extend(named.filter(|path| path.is_file()));
    paths
        .iter()
        .filter(|path| path.is_file())
        .map(|path| Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned()))
        .collect()
}
