//! Files that ask for too much: programs that are well formed and small, and would take all time or all memory.
//!
//! Every call runs under `ulimit -v` of 4 GB and ends within 20 s.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use snnc_ir::container::{self, File};
use snnc_ir::text;
use snnc_tests::snnc;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Time that a call may take.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Writes the program of this text, whether or not it holds.
fn write(folder: &Path, name: &str, program: &str) {
    let graph = text::parse_filled(program, &|name, _, _| Err(format!("no rule for @{name}"))).unwrap().graph;
    let mut bytes = Vec::new();
    container::write(&File::new(graph), &mut bytes).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// Status and messages of a call with little memory.
fn call(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let begun = Instant::now();
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 4000000; exec \"$0\" \"$@\""])
        .arg(snnc())
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(begun.elapsed() < TIME_MAX, "{args:?} took {:?}", begun.elapsed());
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    (output.status.code(), stderr)
}

/// A sum of `n` terms of the same row, one after the other.
fn chain(n: usize, width: usize, term: impl Fn(usize) -> String) -> String {
    let mut program = format!(
        "snnc 3 spiking context=64\nweight @t : f32[{width},{width}] = fill(seed=1)\n%0 = tokens : i32[tokens]\n%1 = embed(%0, @t) : f32[tokens,{width}]\n"
    );
    for i in 2..n + 2 {
        writeln!(program, "%{i} = {} : f32[tokens,{width}]", term(i)).unwrap();
    }
    writeln!(program, "output logits = %{}", n + 1).unwrap();
    program
}

#[test]
fn a_program_of_long_chains_is_collapsed_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, "chain.snn", &chain(20_000, 100, |i| format!("add(%{}, %1)", i - 1)));
    let (status, stderr) = call(at, &["logits", "chain.snn", "--tokens", "1,2", "-o", "x.npy"]);
    assert_eq!(status, Some(0), "{stderr}");
    let (status, stderr) = call(at, &["inspect", "chain.snn"]);
    assert_eq!(status, Some(0), "{stderr}");
}

#[test]
fn a_program_whose_values_are_shared_in_all_ways_is_refused_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (chains, rows) = (15_000, "f32[tokens,8]");
    let mut program = format!(
        "snnc 3 spiking context=64\nweight @t : f32[8,8] = fill(seed=1)\nweight @u : f32[8,8] = fill(seed=2)\n%0 = tokens : i32[tokens]\n%1 = embed(%0, @t) : {rows}\n%2 = embed(%0, @u) : {rows}\n"
    );
    // Two chains side by side, sums of one value of each, and the sum of those.
    for i in 3..chains + 3 {
        writeln!(program, "%{i} = add(%{}, %{}) : {rows}", i - 2, 1 + i % 2).unwrap();
    }
    let first = chains + 3;
    for k in 0..chains / 2 {
        writeln!(program, "%{} = add(%{}, %{}) : {rows}", first + k, 3 + 2 * k, first - 1 - 2 * k).unwrap();
    }
    let mut last = first;
    for k in 1..chains / 2 {
        let own = first + chains / 2 + k - 1;
        writeln!(program, "%{own} = add(%{last}, %{}) : {rows}", first + k).unwrap();
        last = own;
    }
    writeln!(program, "output logits = %{last}").unwrap();
    write(at, "shared.snn", &program);
    let (status, stderr) = call(at, &["logits", "shared.snn", "--tokens", "1,2", "-o", "x.npy"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("shared in too many ways"), "{stderr}");
    let (status, stderr) = call(at, &["logits", "shared.snn", "--tokens", "1,2", "-o", "x.npy", "--stepped"]);
    assert_eq!(status, Some(0), "{stderr}");
}

#[test]
fn a_program_of_doublings_is_counted_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Every sum is read twice: paths to the table double with each.
    write(at, "doubled.snn", &chain(60, 8, |i| format!("add(%{}, %{})", i - 1, i - 1)));
    for args in [&["inspect", "doubled.snn"][..], &["logits", "doubled.snn", "--tokens", "1", "-o", "x.npy"]] {
        let (status, stderr) = call(at, args);
        assert_eq!(status, Some(0), "{args:?}: {stderr}");
    }
}

#[test]
fn a_program_of_many_errors_is_refused_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let program = chain(60_000, 4, |i| format!("relu(%{})", i - 1));
    write(at, "illegal.snn", &program);
    let (status, stderr) = call(at, &["inspect", "illegal.snn"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("`relu` is not legal in stage spiking"), "{stderr}");
    assert!(stderr.lines().count() < 200, "{} lines", stderr.lines().count());
}

#[test]
fn values_wider_than_memory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let wide = 1 << 19;
    let neurons = |steps: usize, op: &str| {
        format!(
            "snnc 3 spiking context=64
weight @t : f32[100,1] = fill(seed=1)
weight @c : i32[{wide}] = fill(value=0)
weight @c2 : i32[100] = fill(value=0)
weight @g : f32[{wide}] = fill(value=1)
weight @o : f32[{wide}] = fill(value=0)
%0 = tokens : i32[tokens]
%1 = embed(%0, @t) : f32[tokens,1]
%2 = gather_channels(%1, @c) : f32[tokens,{wide}]
%3 = {op}(%2, @g, @o) : spike<unary,{steps}>[tokens,{wide}]
%4 = decode(%3) : level<unary,{steps}>[tokens,{wide}]
%5 = scale_shift(%4, @g, @o) : f32[tokens,{wide}]
%6 = row_max_abs(%5) : f32[tokens,1]
%7 = gather_channels(%6, @c2) : f32[tokens,100]
output logits = %7
"
        )
    };
    write(at, "wide.snn", &neurons(1024, "integrate[if,1024]"));
    // 34 GB for 128 tokens at a time, half a GB for one: tokens are taken one by one.
    let (status, stderr) = call(at, &["logits", "wide.snn", "--tokens", "1,2", "-o", "x.npy"]);
    assert_eq!(status, Some(0), "{stderr}");
    let (status, stderr) = call(at, &["--max-memory", "100M", "logits", "wide.snn", "--tokens", "1,2", "-o", "x.npy"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("of memory are needed") && stderr.contains("--max-memory"), "{stderr}");
    let (status, stderr) =
        call(at, &["logits", "wide.snn", "--tokens", "1,2", "-o", "y.npy", "--interpret", "--max-memory", "1G"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("of memory are needed"), "{stderr}");
}

#[test]
fn states_of_all_attentions_together_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut program = String::from(
        "snnc 3 spiking context=64
weight @t : f32[100,4] = fill(seed=1)
weight @c : i32[16384] = fill(seed=1, low=0, high=3)
weight @c2 : i32[100] = fill(value=0)
weight @g : f32[16384] = fill(value=1)
weight @o : f32[16384] = fill(value=0)
%0 = tokens : i32[tokens]
%1 = embed(%0, @t) : f32[tokens,4]
%2 = gather_channels(%1, @c) : f32[tokens,16384]
%3 = fire[unary,4,relu](%2, @g, @o, @g, @o) : spike<unary,4>[tokens,16384]
",
    );
    let (mut last, mut constants) = (3, String::new());
    for i in 0..6 {
        writeln!(constants, "weight @s{i} : f32[1] = fill(value={i})\nweight @h{i} : i32[1] = fill(value=0)").unwrap();
        let own = 4 + 2 * i;
        writeln!(program, "%{own} = ssa[linear,heads=1,guard=16](%3, %3, %3, @s{i}, @h{i}) : f32[tokens,16384]")
            .unwrap();
        let before = if i == 0 { own } else { last };
        writeln!(program, "%{} = add(%{own}, %{before}) : f32[tokens,16384]", own + 1).unwrap();
        last = own + 1;
    }
    writeln!(program, "%{} = row_max_abs(%{last}) : f32[tokens,1]", last + 1).unwrap();
    writeln!(
        program,
        "%{} = gather_channels(%{}, @c2) : f32[tokens,100]\noutput logits = %{}",
        last + 2,
        last + 1,
        last + 2
    )
    .unwrap();
    write(at, "sums.snn", &program.replace("%0 =", &format!("{constants}%0 =")));
    let (status, stderr) = call(at, &["logits", "sums.snn", "--tokens", "1,2", "-o", "x.npy"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("2^27 numbers are possible"), "{stderr}");
}

#[test]
fn a_program_that_predicts_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let rows =
        "weight @t : f32[4096,8] = fill(seed=1)\n%0 = tokens : i32[tokens]\n%1 = embed(%0, @t) : f32[tokens,8]\n";
    let programs = [
        (
            "snnc 3 spiking context=64\n%0 = tokens : i32[tokens]\noutput logits = %0\n".to_string(),
            "logits are f32 rows",
        ),
        (format!("snnc 3 spiking context=64\n{rows}output logits = %1\n"), "logits are as many as the 4096 tokens"),
        (format!("snnc 3 spiking context=64\n{rows}output hidden = %1\n"), "no output `logits`, only hidden"),
    ];
    fs::write(at.join("text.txt"), "The river runs.").unwrap();
    let tokenizer = snnc_tests::demo_model().with_file_name("tokenizer.json");
    for (program, words) in programs {
        let graph = text::parse_filled(&program, &|name, _, _| Err(format!("no rule for @{name}"))).unwrap().graph;
        let mut bytes = Vec::new();
        let tokenizer = Some(fs::read(&tokenizer).unwrap());
        container::write(&File { tokenizer, ..File::new(graph) }, &mut bytes).unwrap();
        fs::write(at.join("p.snn"), bytes).unwrap();
        for args in [
            &["run", "p.snn", "-p", "The river", "-n", "3"][..],
            &["eval", "p.snn", "--text", "text.txt"],
            &["logits", "p.snn", "--tokens", "1,2", "-o", "x.npy"],
        ] {
            let (status, stderr) = call(at, args);
            assert_eq!(status, Some(1), "{args:?}: {stderr}");
            assert!(stderr.contains(words), "{args:?}: {stderr}");
        }
    }
}
