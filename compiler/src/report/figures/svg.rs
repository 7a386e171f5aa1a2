//! A figure as SVG. Elements have classes and no colours: the page colours them by its theme, a file brings its own style.

use super::figure::{AxisScale, Figure, Mark, Paint, PlotAxis, Size, Stroke};
use super::letters::{outlines, shortened, width, wrapped};
use super::style::{FONT, style};
use std::fmt::Write;

/// What is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureView {
    /// A page of usual width.
    Wide,
    /// A narrow screen.
    Narrow,
}

/// How words are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// As text, which the viewer's font shows.
    Text,
    /// As outlines, for which no font is needed.
    Outlines,
}

/// A viewer's font may be as much wider than the one that measures: DejaVu Sans is.
const WIDER: f64 = 1.17;
/// From line to line.
const LINE: f64 = 16.0;
/// Room around everything.
const MARGIN: f64 = 6.0;
/// A band with a name.
const BAND: f64 = 18.0;

/// A figure as it stands in the page: without style and ground.
pub fn inline(figure: &Figure, view: FigureView, words: Words) -> String {
    let mut drawing = FigureDrawing::new(figure, view, words);
    drawing.draw();
    format!("{}{}</svg>", drawing.head(), drawing.body)
}

/// A figure as a file of its own.
pub fn whole(figure: &Figure, words: Words) -> String {
    stand_alone(&inline(figure, FigureView::Wide, words))
}

/// The same from what stands in a page.
fn stand_alone(inline: &str) -> String {
    // The page's script does the same where a figure is saved from it.
    let (head, body) = inline.split_once('>').unwrap_or((inline, ""));
    format!(
        "{head}><style>{}</style><rect class='paper' x='-{MARGIN}' y='-{MARGIN}' width='100%' height='100%'/>{body}",
        style()
    )
}

/// Text that can stand in an element or between single quotes; what XML cannot hold is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '\'' => out += "&#39;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

/// A coordinate in tenths of a pixel.
fn c(x: f64) -> String {
    let tenths = (x * 10.0).round() as i64;
    let sign = if tenths < 0 { "-" } else { "" };
    match (tenths.abs() / 10, tenths.abs() % 10) {
        (whole, 0) => format!("{sign}{whole}"),
        (whole, tenth) => format!("{sign}{whole}.{tenth}"),
    }
}

/// The room that words need in any usual font.
fn room_of(words: &str) -> f64 {
    WIDER * width(words, FONT)
}

/// Words in lines that have room in any usual font.
fn in_lines(words: &str, most: f64) -> Vec<String> {
    wrapped(words, FONT, most / WIDER)
}

/// Words without their middle where they have no room.
fn cut_to(words: &str, most: f64) -> String {
    shortened(words, FONT, most / WIDER)
}

/// Where words stand beside their point.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// A figure in the making.
struct FigureDrawing<'a> {
    figure: &'a Figure,
    words: Words,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    body: String,
}

impl<'a> FigureDrawing<'a> {
    fn new(figure: &'a Figure, view: FigureView, words: Words) -> Self {
        let width = match (figure.size, view) {
            (Size::Half, _) => 360.0,
            (Size::Full, FigureView::Wide) => 720.0,
            (Size::Full, FigureView::Narrow) => 340.0,
        };
        let body = String::new();
        Self { figure, words, width, height: 0.0, left: 0.0, right: 0.0, top: 0.0, bottom: 0.0, body }
    }

    /// The start of the file: its size, what it shows, and where the plot lies in it.
    fn head(&self) -> String {
        let (title, caption) = (escaped(&self.figure.title), escaped(&self.figure.caption));
        let plot = [self.left, self.top, self.right, self.bottom].map(c).join(" ");
        let (width, height) = (c(self.width + 2.0 * MARGIN), c(self.height + 2.0 * MARGIN));
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' class='fig' viewBox='-{MARGIN} -{MARGIN} {width} {height}' width='{width}' height='{height}' \
             data-plot='{plot}' role='img' aria-label='{title}'><desc>{caption}</desc>"
        )
    }

    fn draw(&mut self) {
        self.top = 4.0;
        self.key();
        // Names need no title: they say what they are.
        let named = matches!(self.figure.y.scale, AxisScale::Names(_));
        if !named {
            for line in in_lines(&self.figure.y.title, self.width - 8.0) {
                self.top += LINE;
                self.text(Paint::Muted, 0.0, self.top - 4.0, Anchor::Start, &line);
            }
        }
        self.top += 6.0;
        self.frame();
        self.axis_x();
        self.axis_y();
        let figure = self.figure;
        figure.marks.iter().for_each(|mark| self.mark(mark));
    }

    /// Colours and their names, above the plot.
    fn key(&mut self) {
        let (mut x, figure) = (0.0, self.figure);
        for (i, (paint, name)) in figure.key.iter().enumerate() {
            let wide = 16.0 + room_of(name);
            if i == 0 || x + wide > self.width {
                (x, self.top) = (0.0, self.top + LINE);
            }
            let y = self.top - 13.0;
            let _ = write!(
                self.body,
                "<rect class='{}' fill='currentColor' x='{}' y='{}' width='10' height='10' rx='2'/>",
                paint.class(),
                c(x),
                c(y)
            );
            let name = cut_to(name, self.width - 16.0);
            self.text(Paint::Ink, x + 15.0, self.top - 4.0, Anchor::Start, &name);
            x += wide + 14.0;
        }
        if !figure.key.is_empty() {
            self.top += 4.0;
        }
    }

    /// Where the plot lies.
    fn frame(&mut self) {
        let Figure { x, y, .. } = self.figure;
        let labels = y.scale.ticks(6);
        let widest = labels.iter().map(|(_, words)| room_of(words)).fold(0.0, f64::max);
        self.left = widest.min(0.45 * self.width).ceil() + 8.0;
        self.right = self.width - 12.0 - self.words_beyond();
        let tall = match &y.scale {
            AxisScale::Names(names) => BAND * names.len().max(1) as f64,
            AxisScale::Slots(..) => 0.6 * self.width,
            AxisScale::Linear(..) | AxisScale::Log(..) => {
                if self.width > 500.0 {
                    250.0
                } else {
                    200.0
                }
            }
        };
        self.bottom = self.top + tall;
        let title = in_lines(&x.title, self.width - 8.0).len() as f64;
        self.height = self.bottom + 20.0 + LINE * title + 4.0;
    }

    /// Room that words to the right of the plot need.
    fn words_beyond(&self) -> f64 {
        let words = self
            .figure
            .marks
            .iter()
            .filter_map(|mark| if let Mark::Words(_, words) = mark { Some(words) } else { None });
        let end = |(x, _, words): &(f64, f64, String)| {
            let place = self.figure.x.scale.place(*x);
            let room = (self.width - self.left - 12.0).max(1.0);
            // Words at a share of the room push its end so that they fit.
            ((room_of(words) + 6.0 - (1.0 - place) * room) / place.max(0.25)).max(0.0)
        };
        words.flatten().map(end).fold(0.0, f64::max).min(0.4 * self.width)
    }

    fn px(&self, x: f64) -> f64 {
        self.left + self.figure.x.scale.place(x) * (self.right - self.left)
    }

    fn py(&self, y: f64) -> f64 {
        let share = self.figure.y.scale.place(y);
        let tall = self.bottom - self.top;
        // Bands go down the page, numbers up.
        if self.figure.y.scale.is_banded() { self.top + share * tall } else { self.bottom - share * tall }
    }

    fn axis_x(&mut self) {
        let PlotAxis { title, scale } = &self.figure.x;
        let count = ((self.right - self.left) / 75.0).max(2.0) as usize;
        let (mut free, low) = (f64::NEG_INFINITY, self.bottom + 15.0);
        let mut lines = format!("M{} {}H{}", c(self.left), c(self.bottom), c(self.right));
        for (value, words) in scale.ticks(count) {
            let (x, half) = (self.px(value), room_of(&words) / 2.0);
            let _ = match scale {
                AxisScale::Linear(..) | AxisScale::Log(..) => {
                    write!(lines, "M{} {}V{}", c(x), c(self.top), c(self.bottom))
                }
                AxisScale::Names(_) | AxisScale::Slots(..) => write!(lines, "M{} {}v4", c(x), c(self.bottom)),
            };
            let middle = x.min(self.width - half).max(half);
            if middle - half > free + 6.0 {
                self.text(Paint::Muted, middle, low, Anchor::Middle, &words);
                free = middle + half;
            }
        }
        self.line(&lines);
        for (i, line) in in_lines(title, self.width - 8.0).into_iter().enumerate() {
            let half = room_of(&line) / 2.0;
            let middle = ((self.left + self.right) / 2.0).min(self.width - half).max(half);
            self.text(Paint::Muted, middle, low + LINE * (i as f64 + 1.0) + 3.0, Anchor::Middle, &line);
        }
    }

    fn axis_y(&mut self) {
        let PlotAxis { scale, .. } = &self.figure.y;
        let mut lines = format!("M{} {}V{}", c(self.left), c(self.top), c(self.bottom));
        let (mut free, named) = (f64::NEG_INFINITY, matches!(scale, AxisScale::Names(_)));
        for (value, words) in scale.ticks(6) {
            let y = self.py(value);
            if matches!(scale, AxisScale::Linear(..) | AxisScale::Log(..)) {
                let _ = write!(lines, "M{} {}H{}", c(self.left), c(y), c(self.right));
            }
            // Labels of numbers keep apart; every name is written.
            if named || (y - free).abs() > 13.0 {
                let words = cut_to(&words, self.left - 8.0);
                let paint = if named { Paint::Ink } else { Paint::Muted };
                self.text(paint, self.left - 6.0, y + 4.0, Anchor::End, &words);
                free = y;
            }
        }
        self.line(&lines);
    }

    fn line(&mut self, path: &str) {
        let _ = write!(self.body, "<path class='axis' d='{path}'/>");
    }

    fn text(&mut self, paint: Paint, x: f64, y: f64, anchor: Anchor, words: &str) {
        let (class, wide) = (paint.class(), width(words, FONT));
        let start = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - wide / 2.0,
            Anchor::End => x - wide,
        };
        let _ = match self.words {
            Words::Outlines => {
                write!(self.body, "<path class='{class}' fill='currentColor' d='{}'/>", outlines(words, start, y, FONT))
            }
            Words::Text => {
                let anchor = match anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor='middle'",
                    Anchor::End => " text-anchor='end'",
                };
                let words = escaped(words);
                write!(
                    self.body,
                    "<text class='{class}' fill='currentColor' x='{}' y='{}'{anchor}>{words}</text>",
                    c(x),
                    c(y)
                )
            }
        };
    }

    fn path(&mut self, paint: Paint, attributes: &str, path: &str) {
        if !path.is_empty() {
            let _ = write!(self.body, "<path class='{}' {attributes} d='{path}'/>", paint.class());
        }
    }

    fn mark(&mut self, mark: &Mark) {
        const LINE: &str = "fill='none' stroke='currentColor' stroke-linejoin='round'";
        match mark {
            Mark::Boxes(paint, boxes) => {
                let cells = matches!(paint, Paint::Tone(_));
                let path: String = boxes.iter().map(|&sides| self.filled(sides, cells)).collect();
                let look =
                    if cells { "fill='currentColor' shape-rendering='crispEdges'" } else { "fill='currentColor'" };
                self.path(*paint, look, &path);
            }
            Mark::Line(paint, stroke, points) => {
                let look = match stroke {
                    Stroke::Solid => "stroke-width='2'",
                    Stroke::Dashed => "stroke-width='2' stroke-dasharray='5 3'",
                    Stroke::Broad => "stroke-width='5' stroke-opacity='.55'",
                };
                let path = self.through(points);
                self.path(*paint, &format!("{LINE} {look}"), &path);
            }
            Mark::Ground(paint, points) => {
                let mut path = self.through(points);
                if let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) {
                    let _ = write!(
                        path,
                        "L{} {}L{} {}Z",
                        c(self.px(*last)),
                        c(self.bottom),
                        c(self.px(*first)),
                        c(self.bottom)
                    );
                }
                self.path(*paint, "fill='currentColor' fill-opacity='.18'", &path);
            }
            Mark::Dots(paint, points) => {
                let path = self.circles(points);
                self.path(*paint, "fill='currentColor'", &path);
            }
            Mark::Rings(paint, points) => {
                let path = self.circles(points);
                self.path(*paint, "fill='none' stroke='currentColor' stroke-width='2'", &path);
            }
            Mark::Whiskers(paint, spans) => {
                let path: String = spans.iter().map(|&span| self.whisker(span)).collect();
                self.path(*paint, &format!("{LINE} stroke-width='1.5'"), &path);
            }
            Mark::Words(paint, words) => {
                for (x, y, words) in words {
                    self.text(*paint, self.px(*x) + 6.0, self.py(*y) + 4.0, Anchor::Start, words);
                }
            }
            Mark::Level(paint, y) => {
                let path = format!("M{} {}H{}", c(self.left), c(self.py(*y)), c(self.right));
                self.path(*paint, &format!("{LINE} stroke-width='1.5' stroke-dasharray='4 3'"), &path);
            }
            Mark::Border(paint, x) => {
                let path = format!("M{} {}V{}", c(self.px(*x)), c(self.top), c(self.bottom));
                self.path(*paint, &format!("{LINE} stroke-width='1.5' stroke-dasharray='4 3'"), &path);
            }
        }
    }

    /// A filled box; one that is not empty is seen. The cells of a map overlap a little, so that no seam is between them.
    fn filled(&self, [x0, y0, x1, y1]: [f64; 4], is_cell: bool) -> String {
        let ([x0, x1], [y0, y1]) = ([self.px(x0), self.px(x1)], [self.py(y0), self.py(y1)]);
        let ([left, right], [top, bottom]) = ([x0.min(x1), x0.max(x1)], [y0.min(y1), y0.max(y1)]);
        let overlap = if is_cell { (self.right - right).clamp(0.0, 0.7) } else { 0.0 };
        let (wide, tall) = ((right - left + overlap).max(0.8), (bottom - top).max(0.8));
        let top = bottom - tall;
        format!("M{} {}h{}v{}h-{}z", c(left), c(top), c(wide), c(tall), c(wide))
    }

    fn through(&self, points: &[(f64, f64)]) -> String {
        let at = |(i, (x, y)): (usize, &(f64, f64))| {
            format!("{}{} {}", if i == 0 { "M" } else { "L" }, c(self.px(*x)), c(self.py(*y)))
        };
        points.iter().filter(|(_, y)| y.is_finite()).enumerate().map(at).collect()
    }

    fn circles(&self, points: &[(f64, f64)]) -> String {
        let circle =
            |(x, y): &(f64, f64)| format!("M{} {}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", c(self.px(*x) - 4.0), c(self.py(*y)));
        points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).map(circle).collect()
    }

    fn whisker(&self, [x0, y0, x1, y1]: [f64; 4]) -> String {
        let (x0, y0, x1, y1) = (self.px(x0), self.py(y0), self.px(x1), self.py(y1));
        let flat = (y0 - y1).abs() < (x0 - x1).abs();
        let end = |x: f64, y: f64| match flat {
            true => format!("M{} {}v8", c(x), c(y - 4.0)),
            false => format!("M{} {}h8", c(x - 4.0), c(y)),
        };
        format!("M{} {}L{} {}{}{}", c(x0), c(y0), c(x1), c(y1), end(x0, y0), end(x1, y1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::part::PagePart;
    use super::*;

    fn figure(title: &str) -> Figure {
        let axes =
            [PlotAxis::from_zero("spikes <per> neuron", [3.0]), PlotAxis::names("site", ["h.0 & 'x'".to_string()])];
        let marks = vec![
            Mark::Boxes(Paint::Spiking, vec![[0.0, 0.15, 2.5, 0.85]]),
            Mark::Words(Paint::Ink, vec![(2.5, 0.5, "2.5".into())]),
            Mark::Whiskers(Paint::Ink, vec![[1.0, 0.5, 2.0, 0.5]]),
        ];
        Figure {
            marks,
            key: vec![(Paint::Spiking, "\"spiking\"".into())],
            ..Figure::new("x", PagePart::Spikes, title, axes)
        }
    }

    /// Whatever words hold, the file is XML, and it is the page's figure with a style.
    #[test]
    fn words_do_not_end_their_element() {
        for title in ["a</svg><script>'\"&", "\u{0}\u{ffff}\u{1b}", "é 字 🦀"] {
            for words in [Words::Text, Words::Outlines] {
                let file = whole(&figure(title), words);
                let tree = resvg::usvg::Tree::from_str(&file, &resvg::usvg::Options::default());
                assert!(tree.is_ok_and(|tree| tree.size().width() == 732.0), "{title:?}");
                assert!(!file.contains("<script"));
            }
            let inline = inline(&figure(title), FigureView::Narrow, Words::Text);
            assert!(!inline.contains("<style>") && inline.contains("viewBox='-6 -6 352 "));
        }
    }

    #[test]
    fn coordinates_are_short() {
        for (x, text) in [(1.0, "1"), (-0.04, "0"), (-0.06, "-0.1"), (12.345, "12.3"), (-3.0, "-3")] {
            assert_eq!(c(x), text);
        }
    }
}
