//! Figures of a report: one place that draws, for the page, for files and for papers.
//!
//! `all` makes every figure from a report as data; `svg`, `png` and `Table::csv` write one. A figure knows nothing of themes and
//! screens. The page's raster of one layer is drawn by its script besides, because a reader moves in it.

mod energy;
mod errors;
mod figure;
mod front;
mod letters;
mod levels;
mod membrane;
mod part;
mod png;
mod predictions;
mod runs;
mod scale;
mod spikes;
mod style;
mod svg;
mod training;

pub use figure::{AxisScale, Cell, Figure, Mark, Paint, PlotAxis, Size, Stroke, Table};
pub use part::PagePart;
pub use png::png;
pub use style::style;
pub use svg::{FigureView, Words, inline, whole};

use super::contents::Report;
use crate::files;
use crate::progress::{Progress, cancelled};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Diagnostics;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every figure of a report, in the order of the page. What the report does not have has no figure.
pub fn all(report: &Report) -> Vec<Figure> {
    let mut figures = runs::figures(report);
    figures.extend(front::figures(report));
    figures.extend(training::figures(report));
    figures.extend(spikes::figures(report));
    figures.extend(membrane::figure(report));
    figures.extend(levels::figures(report));
    figures.extend(energy::figures(report));
    figures.extend(errors::figures(report));
    figures.extend(predictions::figures(report));
    name(&mut figures);
    figures
}

/// Names that can be those of files, each once.
fn name(figures: &mut [Figure]) {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let mut taken = HashSet::new();
    for figure in figures {
        let id: String = figure.id.chars().map(plain).collect();
        let numbered = (1..).map(|i| if i == 1 { id.clone() } else { format!("{id}-{i}") });
        figure.id = numbered.into_iter().find(|id| taken.insert(id.to_ascii_lowercase())).unwrap_or(id);
    }
}

/// The endings of a figure's files.
const ENDINGS: [&str; 3] = ["svg", "png", "csv"];

/// The files that a figure is written to: `NAME.svg`, `NAME.png` and `NAME.csv`.
pub fn paths(figure: &Figure, folder: &Path) -> [PathBuf; 3] {
    ENDINGS.map(|ending| folder.join(format!("{}.{ending}", figure.id)))
}

/// Writes figures into a folder, which is made where there is none.
///
/// # Errors
/// A file cannot be written; a request to stop. Files before it stay.
pub fn write(figures: &[Figure], folder: &Path, progress: &dyn Progress) -> Result<(), Diagnostics> {
    fs::create_dir_all(folder)
        .map_err(|e| Diagnostic::new(folder.display().to_string(), format!("cannot be made a folder: {e}")))?;
    progress.begin("drawing", figures.len() as u64);
    for figure in figures {
        if progress.is_cancelled() {
            return Err(cancelled().into());
        }
        let contents = [whole(figure, Words::Text).into_bytes(), png(figure)?, figure.table.csv().into_bytes()];
        for (path, bytes) in paths(figure, folder).iter().zip(contents) {
            files::write_whole(path, |out| out.write_all(&bytes))?;
        }
        progress.advance(1);
    }
    progress.end();
    Ok(())
}
