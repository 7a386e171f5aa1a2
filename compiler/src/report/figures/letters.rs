//! The letters of figures: how wide words are, and their outlines, so that a PNG needs no font of the machine.
//!
//! The font is part of Roboto 2.138 (Apache-2.0, Copyright 2011 Google Inc.): Latin, Greek and the signs of a plot, without
//! hints. A character that it lacks is drawn as an empty box; SVG files keep the character.

use std::fmt::Write;
use std::sync::LazyLock;
use ttf_parser::{Face, OutlineBuilder};

static FACE: LazyLock<Option<Face<'static>>> = LazyLock::new(|| Face::parse(include_bytes!("roboto.ttf"), 0).ok());

/// The width of a line of words at a size in pixels.
pub fn width(text: &str, size: f64) -> f64 {
    let Some(face) = FACE.as_ref() else { return 0.55 * size * text.chars().count() as f64 };
    let advance = |c| f64::from(face.glyph_hor_advance(face.glyph_index(c).unwrap_or_default()).unwrap_or(0));
    text.chars().map(advance).sum::<f64>() * size / f64::from(face.units_per_em())
}

/// The outlines of a line of words, as the path of an SVG, that begins at a point of its base line.
pub fn outlines(text: &str, x: f64, y: f64, size: f64) -> String {
    let Some(face) = FACE.as_ref() else { return String::new() };
    let scale = size / f64::from(face.units_per_em());
    let mut path = GlyphPath { path: String::new(), x, y, scale };
    for c in text.chars() {
        let glyph = face.glyph_index(c).unwrap_or_default();
        let _ = face.outline_glyph(glyph, &mut path);
        path.x += f64::from(face.glyph_hor_advance(glyph).unwrap_or(0)) * scale;
    }
    path.path
}

/// A path in the making.
struct GlyphPath {
    path: String,
    x: f64,
    y: f64,
    scale: f64,
}

impl GlyphPath {
    fn add(&mut self, command: char, points: &[(f32, f32)]) {
        self.path.push(command);
        for (x, y) in points {
            let (x, y) = (self.x + f64::from(*x) * self.scale, self.y - f64::from(*y) * self.scale);
            let _ = write!(self.path, "{x:.2} {y:.2} ");
        }
    }
}

impl OutlineBuilder for GlyphPath {
    fn move_to(&mut self, x: f32, y: f32) {
        self.add('M', &[(x, y)]);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.add('L', &[(x, y)]);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.add('Q', &[(x1, y1), (x, y)]);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.add('C', &[(x1, y1), (x2, y2), (x, y)]);
    }

    fn close(&mut self) {
        self.path.push('Z');
    }
}

/// Words in lines of at most so many pixels; a word that is longer has a line of its own.
pub fn wrapped(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size) <= most => *line += &format!(" {word}"),
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// Words without their middle, so that they fit into so many pixels.
pub fn shortened(text: &str, size: f64, most: f64) -> String {
    let chars: Vec<char> = text.chars().collect();
    let cut = |kept: usize| -> String {
        let (start, end) = (kept.div_ceil(2), kept / 2);
        chars[..start].iter().chain(&['…']).chain(&chars[chars.len() - end..]).collect()
    };
    if width(text, size) <= most {
        return text.into();
    }
    (1..chars.len()).rev().map(cut).find(|short| width(short, size) <= most).unwrap_or_else(|| "…".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that figures write themselves is in the font, and no letter is without width.
    #[test]
    fn the_font_has_what_figures_write() {
        let face = FACE.as_ref().expect("the font can be read");
        for c in "abcXYZ0189 .,:;-–−+±×·%µΣλ≤≥≈…⁻⁰¹²³⁴⁹()[]/<>=‘’“”é".chars() {
            assert!(face.glyph_index(c).is_some(), "{c}");
            assert!(width(&c.to_string(), 12.0) > 0.0, "{c}");
        }
        assert!(outlines("Spikes", 3.0, 10.0, 12.0).starts_with('M'));
        assert!((width("ab", 24.0) - 2.0 * width("ab", 12.0)).abs() < 1e-9);
    }

    #[test]
    fn long_words_are_cut_in_their_middle() {
        let most = width("h.0.mlp", 12.0);
        for text in ["/model/layers.0/mlp/down_proj/MatMul", "字字字字字字字字字字字字字"] {
            let short = shortened(text, 12.0, most);
            assert!(width(&short, 12.0) <= most && short.contains('…'), "{short}");
        }
        assert_eq!(shortened("h.0.mlp", 12.0, most), "h.0.mlp");
        assert_eq!(wrapped("one two three", 12.0, width("one two", 12.0)), ["one two", "three"]);
    }
}
