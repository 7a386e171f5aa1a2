//! Tables in a terminal: columns as wide as what is in them, numbers to the right, nothing drawn around them.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use console::Term;
use std::io::IsTerminal;

/// A table whose first column is words and whose other columns are numbers.
pub fn numbers(header: &[&str]) -> Table {
    let mut table = plain();
    table.set_header(header.iter().copied());
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// A table of words.
pub fn words(header: &[&str]) -> Table {
    let mut table = plain();
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    table
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    // A terminal has an end; a file has none, and lines that are not broken are easier to read by programs.
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(Term::stdout().size().1.max(40));
    }
    table
}

/// The table as lines without spaces at their ends.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}
