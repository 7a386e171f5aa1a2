//! Tables: in a terminal with columns as wide as what is in them, numbers to the right and nothing drawn around them; and the same
//! in Markdown and in LaTeX.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use console::Term;
use std::io::IsTerminal;

/// A table for any of these. Its first column is words, the others are numbers, each with one unit, which the heading names.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// What it shows, as a sentence.
    pub caption: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    pub fn new(caption: impl Into<String>, header: &[&str]) -> Self {
        Self { caption: caption.into(), header: header.iter().map(|name| name.to_string()).collect(), rows: Vec::new() }
    }

    /// As lines for a terminal, without the caption.
    pub fn text(&self) -> String {
        let mut table = numbers(&self.header.iter().map(String::as_str).collect::<Vec<&str>>());
        table.add_rows(&self.rows);
        lines(&table)
    }

    /// With the caption as a sentence above.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells = cells.iter().map(|cell| cell.replace('|', "\\|"));
            format!("| {} |\n", cells.collect::<Vec<String>>().join(" | "))
        };
        let sides = self.header.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "---:" });
        let rule = format!("| {} |\n", sides.collect::<Vec<&str>>().join(" | "));
        format!(
            "{}\n\n{}{rule}{}",
            self.caption,
            line(&self.header),
            self.rows.iter().map(|row| line(row)).collect::<String>()
        )
    }

    /// As a `table` environment with lines of the package booktabs.
    pub fn latex(&self) -> String {
        let line = |cells: &[String]| {
            let cells = cells.iter().map(|cell| in_latex(cell));
            format!("    {} \\\\\n", cells.collect::<Vec<String>>().join(" & "))
        };
        let sides = format!("l{}", "r".repeat(self.header.len().saturating_sub(1)));
        format!(
            "\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n  \\begin{{tabular}}{{{sides}}}\n    \\toprule\n{}    \\midrule\n{}    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n",
            in_latex(&self.caption),
            line(&self.header),
            self.rows.iter().map(|row| line(row)).collect::<String>()
        )
    }
}

/// Text as LaTeX writes it.
fn in_latex(text: &str) -> String {
    let one = |c: char| match c {
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{c}"),
        '~' => "\\textasciitilde{}".into(),
        '^' => "\\textasciicircum{}".into(),
        '\\' => "\\textbackslash{}".into(),
        'µ' => "\\textmu{}".into(),
        '<' | '>' => format!("${c}$"),
        c => c.to_string(),
    };
    text.chars().map(one).collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_cell_is_markup() {
        let grid =
            Grid { rows: vec![vec!["a|b_c".into(), "-3 %".into()]], ..Grid::new("5 µJ & more.", &["x^2", "rise, %"]) };
        assert_eq!(grid.markdown(), "5 µJ & more.\n\n| x^2 | rise, % |\n| --- | ---: |\n| a\\|b_c | -3 % |\n");
        let latex = grid.latex();
        assert!(latex.contains("\\caption{5 \\textmu{}J \\& more.}"), "{latex}");
        assert!(latex.contains("    a|b\\_c & -3 \\% \\\\\n"), "{latex}");
        assert!(latex.contains("    x\\textasciicircum{}2 & rise, \\% \\\\\n"), "{latex}");
    }
}
