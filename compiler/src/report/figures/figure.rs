//! A figure as data: axes with titles and units, marks in the units of the axes, and the numbers behind them.
//!
//! Law: what a figure draws is in its table, so its CSV file has all that its picture shows.

use super::part::PagePart;

/// A plot with its numbers.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its name in files and links: `spikes-by-layer`.
    pub id: String,
    /// The part of the page that it stands in.
    pub part: PagePart,
    /// What it is of where there are several of a kind: a site, a price list.
    pub of: Option<String>,
    /// What it is called.
    pub title: String,
    /// What it shows, and how to read it.
    pub caption: String,
    /// How much room it wants.
    pub size: Size,
    /// What the horizontal axis is.
    pub x: PlotAxis,
    /// What the vertical axis is.
    pub y: PlotAxis,
    /// What is drawn, the first at the bottom.
    pub marks: Vec<Mark>,
    /// Colours by name.
    pub key: Vec<(Paint, String)>,
    /// The numbers.
    pub table: Table,
}

/// How much room a figure wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As wide as a page; drawn once more for narrow screens.
    Full,
    /// Half as wide; the same on narrow screens.
    Half,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct PlotAxis {
    /// What it counts, with the unit: `energy, nJ per token`.
    pub title: String,
    /// Where its values lie.
    pub scale: AxisScale,
}

/// Where the values of an axis lie.
#[derive(Clone, Debug, PartialEq)]
pub enum AxisScale {
    /// From low to high.
    Linear(f64, f64),
    /// By ratios, from low to high, both above 0.
    Log(f64, f64),
    /// Names with a band each; band `i` goes from `i` to `i + 1`.
    Names(Vec<String>),
    /// So many bands, of which some have a label.
    Slots(usize, Vec<(f64, String)>),
}

/// A colour by what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paint {
    /// The spiking network.
    Spiking,
    /// The dense network.
    Dense,
    /// A spike of -1; what is lost.
    Negative,
    /// What matters less.
    Muted,
    /// A defect.
    Bad,
    /// The colour of text.
    Ink,
    /// One of several series; the eighth has the colour of the first.
    Series(usize),
    /// A share, from 0 for none to 8 for all.
    Tone(u8),
}

impl Paint {
    /// The class of its elements.
    pub fn class(self) -> String {
        match self {
            Paint::Spiking => "spiking".into(),
            Paint::Dense => "dense".into(),
            Paint::Negative => "negative".into(),
            Paint::Muted => "muted".into(),
            Paint::Bad => "bad".into(),
            Paint::Ink => "ink".into(),
            Paint::Series(i) => format!("s{}", i % SERIES),
            Paint::Tone(tone) => format!("t{}", tone.min(TONES - 1)),
        }
    }
}

/// Colours of series.
pub const SERIES: usize = 7;

/// Tones of a share.
pub const TONES: u8 = 9;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// In one go.
    Solid,
    /// Dashed.
    Dashed,
    /// Broad and pale, for another line to lie on.
    Broad,
}

/// What is drawn, in the units of the axes.
#[derive(Clone, Debug)]
pub enum Mark {
    /// Filled boxes: left, bottom, right, top.
    Boxes(Paint, Vec<[f64; 4]>),
    /// A line through points.
    Line(Paint, Stroke, Vec<(f64, f64)>),
    /// The ground below a line through points, in pale.
    Ground(Paint, Vec<(f64, f64)>),
    /// Discs.
    Dots(Paint, Vec<(f64, f64)>),
    /// Rings.
    Rings(Paint, Vec<(f64, f64)>),
    /// Lines with ends: from one point to another.
    Whiskers(Paint, Vec<[f64; 4]>),
    /// Words to the right of a point.
    Words(Paint, Vec<(f64, f64, String)>),
    /// A dashed line across the plot at a value of the vertical axis.
    Level(Paint, f64),
    /// The same at a value of the horizontal axis.
    Border(Paint, f64),
}

/// The numbers of a figure, row by row.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What the columns are, with units.
    pub columns: Vec<String>,
    /// As many cells as columns each.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, with all its digits.
    Number(f64),
    /// A whole number.
    Count(i64),
    /// Nothing.
    Empty,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Cell::Number(number)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Cell::Count(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Cell::from(count as u64)
    }
}

impl From<i32> for Cell {
    fn from(count: i32) -> Self {
        Cell::Count(i64::from(count))
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Cell::Empty, Into::into)
    }
}

impl Table {
    /// With these columns and no row.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// The same with rows.
    pub fn with(columns: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        Self { rows: rows.into_iter().collect(), ..Self::new(columns) }
    }

    /// As CSV (RFC 4180), lines ended by a line feed. Numbers have all digits that tell them apart.
    pub fn csv(&self) -> String {
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let mut csv = line(self.columns.iter().map(|name| quoted(name)).collect());
        for row in &self.rows {
            csv += &line(row.iter().map(Cell::csv).collect());
        }
        csv
    }
}

impl Cell {
    fn csv(&self) -> String {
        match self {
            Cell::Text(text) => quoted(text),
            Cell::Number(number) if number.is_finite() => number.to_string(),
            Cell::Count(count) => count.to_string(),
            Cell::Number(_) | Cell::Empty => String::new(),
        }
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

impl PlotAxis {
    /// Of this title and scale.
    pub fn new(title: &str, scale: AxisScale) -> Self {
        Self { title: title.into(), scale }
    }

    /// A linear axis from 0 to a round number above all of `values`.
    pub fn from_zero(title: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let most = values.into_iter().filter(|x| x.is_finite()).fold(0.0, f64::max);
        Self::new(title, AxisScale::Linear(0.0, if most > 0.0 { most * 1.02 } else { 1.0 }))
    }

    /// A linear axis that holds all of `values` and 0.
    pub fn with_zero(title: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (0.0f64, 0.0f64);
        values.into_iter().filter(|x| x.is_finite()).for_each(|x| (low, high) = (low.min(x), high.max(x)));
        let room = if high > low { 0.03 * (high - low) } else { 0.5 };
        let low = if low < 0.0 { low - room } else { low };
        Self::new(title, AxisScale::Linear(low, high + room))
    }

    /// A linear axis around `values`, wherever they lie.
    pub fn around(title: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let finite: Vec<f64> = values.into_iter().filter(|x| x.is_finite()).collect();
        let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if finite.is_empty() {
            return Self::new(title, AxisScale::Linear(0.0, 1.0));
        }
        let room = if high > low { 0.08 * (high - low) } else { 0.05 * high.abs().max(1e-9) };
        // Numbers that are all above 0 need no room below it.
        let start = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
        Self::new(title, AxisScale::Linear(start, high + room))
    }

    /// A logarithmic axis around `values`, all above 0.
    pub fn log_around(title: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let positive: Vec<f64> = values.into_iter().filter(|x| x.is_finite() && *x > 0.0).collect();
        let low = positive.iter().copied().fold(f64::INFINITY, f64::min);
        let high = positive.iter().copied().fold(0.0, f64::max);
        if positive.is_empty() {
            return Self::new(title, AxisScale::Log(1.0, 10.0));
        }
        Self::new(title, AxisScale::Log(low / 1.5, high * 1.5))
    }

    /// Places 1 to `count`, each a band.
    pub fn places(title: &str, first: usize, count: usize) -> Self {
        let step =
            [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].into_iter().find(|step| count / step <= 10).unwrap_or(count);
        let labelled = |i: &usize| (i + first).is_multiple_of(step) || (count <= 10);
        let ticks = (0..count).filter(labelled).map(|i| (i as f64 + 0.5, (i + first).to_string())).collect();
        Self::new(title, AxisScale::Slots(count, ticks))
    }

    /// Names, each a band.
    pub fn names(title: &str, names: impl IntoIterator<Item = String>) -> Self {
        Self::new(title, AxisScale::Names(names.into_iter().collect()))
    }
}

impl Figure {
    /// Without marks, key and numbers.
    pub fn new(id: &str, part: PagePart, title: &str, [x, y]: [PlotAxis; 2]) -> Self {
        Self {
            id: id.into(),
            part,
            of: None,
            title: title.into(),
            caption: String::new(),
            size: Size::Full,
            x,
            y,
            marks: Vec::new(),
            key: Vec::new(),
            table: Table::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_csv_that_reads_back() {
        let rows = [vec!["a,\"b\"\nc".into(), 0.1.into(), Cell::Empty, 3u64.into()], vec!["".into(), 1e-9.into()]];
        let csv = Table::with(&["site", "KL, nats"], rows).csv();
        assert_eq!(csv, "site,\"KL, nats\"\n\"a,\"\"b\"\"\nc\",0.1,,3\n,0.000000001\n");
    }
}
