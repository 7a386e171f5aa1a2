//! Every `console` block of the README, of `CONTRIBUTING.md` and of the pages in `docs` runs, as a reader would type it.
//!
//! A line that begins with `$ ` is a command; what stands below it is what it prints, with `[..]` and `...` for what differs from run
//! to run. The blocks of a page run in order in one folder, which holds the files that the pages speak of (`sandbox`). What takes hours or
//! other data stands in `sh` blocks. They do not run; but every option in them is one that the command has.
//!
//! Blocks between `<!-- needs: NAME -->` and `<!-- needs: end -->` describe what is not there yet. They must fail: a mark that outlives
//! its reason is a failure.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "console/pages.rs"]
mod pages;
#[path = "console/sandbox.rs"]
mod sandbox;

use pages::{Fence, Page, fences, pages, steps};
use sandbox::{Sandbox, Shelf};
use snapbox::IntoData;
use snnc_tests::snnc;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A command that takes longer is told: documentation can nearly always do with a shorter one.
const SLOW_SECONDS: f64 = 3.0;

/// Pages that run at once. The commands have threads of their own, but load and write files with one.
const PAGES_AT_ONCE: usize = 2;

#[test]
fn every_console_block_runs() {
    let pages = pages();
    let shelf = Shelf::new(&pages::examples(&pages));
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PAGES_AT_ONCE {
            scope.spawn(|| {
                while let Some(page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = run_page(page, &shelf);
                    failures.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(failures.is_empty(), "{} failures in console blocks\n\n{}", failures.len(), failures.join("\n\n"));
}

/// Runs the console blocks of a page in a folder of its own. Returns what fails.
fn run_page(page: &Page, shelf: &Shelf) -> Vec<String> {
    let blocks: Vec<Fence> = fences(&page.text).into_iter().filter(|fence| fence.language == "console").collect();
    if blocks.is_empty() {
        return Vec::new();
    }
    let start = Instant::now();
    let sandbox = Sandbox::new(shelf);
    let mut failures = Vec::new();
    // Failures of blocks that wait for something, by what they wait for.
    let mut waiting: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for block in &blocks {
        let failed = run_block(page, block, &sandbox).err();
        match &block.needs {
            Some(name) => waiting.entry(name.clone()).or_default().extend(failed),
            None => failures.extend(failed),
        }
    }
    for (name, failed) in waiting {
        match failed.first() {
            Some(failure) => eprintln!("waits for `{name}`: {failure}\n"),
            None => failures.push(format!("{}: the marks `needs: {name}` can go, for all below them runs", page.path)),
        }
    }
    eprintln!("{}: {} blocks in {:.1} s", page.path, blocks.len(), start.elapsed().as_secs_f64());
    failures
}

/// Runs the commands of a block. The error says which one failed, and how.
fn run_block(page: &Page, block: &Fence, sandbox: &Sandbox) -> Result<(), String> {
    let steps = steps(block).map_err(|e| format!("{}:{}: {e}", page.path, block.line))?;
    for step in steps {
        let place = format!("{}:{}: {}", page.path, step.line, step.command);
        let start = Instant::now();
        let output = sandbox.run(&step.command);
        let seconds = start.elapsed().as_secs_f64();
        if seconds > SLOW_SECONDS {
            eprintln!("{seconds:.1} s: {place}");
        }
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("{place}\n{}\n{stdout}{stderr}", output.status));
        }
        // What a command says beside its data may say how far it is, so data alone are compared where there are any.
        let printed = if stdout.trim().is_empty() { &stderr } else { &stdout };
        if !step.expected.is_empty() && !matches(printed, &step.expected) {
            return Err(format!(
                "{place}\n--- the page has\n{}\n--- it prints\n{}",
                step.expected.trim_end(),
                printed.trim_end()
            ));
        }
    }
    Ok(())
}

/// Whether a text is what a page shows, where `[..]` stands for some characters and a line of `...` for some lines.
fn matches(printed: &str, expected: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let assert = snapbox::Assert::new().normalize_paths(false);
    assert.try_eq(None, lines(printed).into_data(), lines(expected).into_data()).is_ok()
}

/// A prompt outside of `console` blocks would be a command that nobody runs.
#[test]
fn prompts_stand_in_console_blocks() {
    for page in pages() {
        for fence in fences(&page.text).iter().filter(|fence| fence.language != "console") {
            let prompt = fence.body.iter().position(|line| line.starts_with("$ "));
            assert!(prompt.is_none(), "{}:{}: a prompt in a block of `{}`", page.path, fence.line, fence.language);
        }
    }
}

/// The program that the page on the library shows is the one that is built and run.
#[test]
fn the_embedded_program_is_the_example() {
    let page = pages().into_iter().find(|page| page.path == "docs/embed.md").unwrap();
    let shown = fences(&page.text).into_iter().find(|fence| fence.language == "rust").unwrap().body.join("\n");
    let built = std::fs::read_to_string(pages::root().join("examples/embed.rs")).unwrap();
    assert_eq!(shown, built.trim_end(), "docs/embed.md shows another program than examples/embed.rs");
}

/// Commands in `sh` blocks have options that exist. Sections that wait for something are left out.
#[test]
fn options_in_sh_blocks_exist() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut looked_at = 0;
    for page in pages() {
        for fence in fences(&page.text).iter().filter(|fence| fence.language == "sh" && fence.needs.is_none()) {
            for (line, words) in pages::calls(fence) {
                let Some((command, options)) = words.split_first() else { continue };
                let help = helps.entry(command.clone()).or_insert_with(|| help(command));
                let long = options.iter().filter_map(|word| word.strip_prefix("--"));
                for name in long.map(|word| word.split('=').next().unwrap_or(word)).filter(|name| !name.is_empty()) {
                    looked_at += 1;
                    if !has_option(help, name) {
                        failures.push(format!("{}:{line}: `snnc {command}` has no option --{name}", page.path));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(looked_at > 0, "there are options in `sh` blocks");
}

/// What `snnc COMMAND --help` prints; nothing for a command that is none.
fn help(command: &str) -> String {
    let output = Command::new(snnc()).args([command, "--help"]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn has_option(help: &str, name: &str) -> bool {
    let after = |at: usize, found: &str| help[at + found.len()..].chars().next();
    let found = format!("--{name}");
    help.match_indices(&found).any(|(at, found)| after(at, found).is_none_or(|c| !c.is_alphanumeric() && c != '-'))
}

/// The runner itself fails where it should.
mod runner {
    use super::*;

    fn failures(text: &str) -> Vec<String> {
        run_page(&Page { path: "page.md".into(), text: text.into() }, &Shelf::empty())
    }

    #[test]
    fn outputs_are_compared() {
        assert_eq!(failures("```console\n$ echo a b; echo c\na [..]\nc\n$ true\n```\n"), [""; 0]);
        let wrong = failures("text\n```console\n$ true\n$ echo a\nb\n```\n");
        assert_eq!(wrong, ["page.md:4: echo a\n--- the page has\nb\n--- it prints\na"]);
        assert_eq!(failures("```console\n$ printf 'a\\nb\\nc\\n'\na\n...\n```\n"), [""; 0]);
        assert_eq!(failures("```console\n$ echo said >&2\nsaid\n```\n"), [""; 0], "messages where there are no data");
    }

    #[test]
    fn failures_are_failures() {
        assert_eq!(failures("```console\n$ false\n```\n").len(), 1);
        assert_eq!(failures("```console\n$ false || echo \"exit status $?\"\nexit status 1\n```\n"), [""; 0]);
        assert_eq!(failures("```console\nno prompt\n```\n").len(), 1);
        assert_eq!(failures("```console\n$ cargo publish\n```\n").len(), 1, "cargo does what readers set up");
        assert_eq!(failures("```console\n$ cargo test --release --workspace   # all\n```\n"), [""; 0]);
    }

    #[test]
    fn blocks_of_a_page_share_a_folder() {
        let text = "```console\n$ echo 1 > a\n```\n\n1. item\n\n   ```console\n   $ cat \\\n     a\n   1\n   ```\n";
        assert_eq!(failures(text), [""; 0]);
    }

    #[test]
    fn what_waits_must_fail() {
        let page = |command: &str| format!("<!-- needs: x -->\n```console\n$ {command}\n```\n<!-- needs: end -->\n");
        assert_eq!(failures(&page("false")), [""; 0]);
        assert_eq!(failures(&page("true")).len(), 1, "the mark can go");
    }

    #[test]
    fn options_are_whole_words() {
        assert!(has_option("  --text <FILE>", "text") && !has_option("  --text-file", "text"));
    }
}
