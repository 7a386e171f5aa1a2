//! The style of a figure's file: its letters and its colours by class. Those of the page are in the page's own style.

use super::figure::{Paint, SERIES, TONES};
use std::fmt::Write;

/// Size of letters, in pixels.
pub const FONT: f64 = 12.0;

/// Colours of a file by class; those of the page are in its style.
const COLOURS: [(&str, &str); 6] = [
    ("spiking", "#0067a3"),
    ("dense", "#857f70"),
    ("negative", "#b84700"),
    ("muted", "#5c6068"),
    ("bad", "#a6262b"),
    ("ink", "#1c1e22"),
];
/// Series apart by hue and by lightness: after Okabe and Ito (2008), darkened to 3 to 1 and more on white.
const SERIES_COLOURS: [&str; SERIES] = ["#0067a3", "#b84700", "#1b7f5c", "#a1509b", "#8a6d00", "#5c6068", "#2a93d1"];
/// The ramp from none to all.
const RAMP: [[f64; 3]; 3] = [[241.0, 239.0, 232.0], [125.0, 180.0, 211.0], [7.0, 69.0, 109.0]];

/// The style of a file.
pub fn style() -> String {
    let mut style = format!(
        "text{{font:{FONT}px 'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif}}.paper{{fill:#fff}}.axis{{stroke:#d3d0c8}}"
    );
    let series = (0..).map(|i| Paint::Series(i).class()).zip(SERIES_COLOURS.map(String::from));
    let tones = (0..TONES).map(|tone| (Paint::Tone(tone).class(), tone_colour(tone)));
    let named = COLOURS.map(|(class, colour)| (class.to_string(), colour.to_string()));
    for (class, colour) in named.into_iter().chain(series).chain(tones) {
        let _ = write!(style, ".{class}{{color:{colour}}}");
    }
    style
}

fn tone_colour(tone: u8) -> String {
    let share = 2.0 * f64::from(tone) / f64::from(TONES - 1);
    let (from, rest) = if share < 1.0 { (0, share) } else { (1, share - 1.0) };
    let mixed = |i: usize| (RAMP[from][i] + (RAMP[from + 1][i] - RAMP[from][i]) * rest).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mixed(0), mixed(1), mixed(2))
}

#[cfg(test)]
mod tests {
    use super::tone_colour;

    #[test]
    fn tones_go_from_none_to_all() {
        assert_eq!([0, 4, 8].map(tone_colour), ["#f1efe8", "#7db4d3", "#07456d"]);
    }
}
