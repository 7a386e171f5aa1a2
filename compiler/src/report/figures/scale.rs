//! Where values of an axis lie on the paper, and what is written at its ticks.

use super::figure::AxisScale;

impl AxisScale {
    /// The place of a value between the axis's start, 0, and its end, 1. Values beyond lie at the ends.
    pub fn place(&self, value: f64) -> f64 {
        let share = match self {
            AxisScale::Linear(low, high) => (value - low) / (high - low),
            AxisScale::Log(low, high) => libm::log(value.max(f64::MIN_POSITIVE) / low) / libm::log(high / low),
            AxisScale::Names(names) => value / names.len().max(1) as f64,
            AxisScale::Slots(count, _) => value / (*count).max(1) as f64,
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Values with what is written at them, at most about `count` of a numeric axis.
    pub fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        match self {
            AxisScale::Linear(low, high) => linear_ticks(*low, *high, count),
            AxisScale::Log(low, high) => log_ticks(*low, *high, count),
            AxisScale::Names(names) => (0..).map(|i| f64::from(i) + 0.5).zip(names.iter().cloned()).collect(),
            AxisScale::Slots(_, ticks) => ticks.clone(),
        }
    }

    /// Whether it has bands.
    pub fn is_banded(&self) -> bool {
        matches!(self, AxisScale::Names(_) | AxisScale::Slots(..))
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / count.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return vec![(low, number(low))];
    }
    let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let decimals = (-libm::floor(libm::log10(step) + 1e-9)).max(0.0) as usize;
    let first = libm::ceil(low / step - 1e-9) as i64;
    let last = libm::floor(high / step + 1e-9) as i64;
    let tick = |i: i64| {
        let value = i as f64 * step;
        (value, if decimals > 4 || value.abs() >= 1e6 { number(value) } else { fixed(value, decimals) })
    };
    (first..=last).map(tick).collect()
}

/// Powers of ten, thinned out; of a short axis, 1, 2 and 5 times these.
fn log_ticks(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let (first, last) = (libm::floor(libm::log10(low)) as i32, libm::ceil(libm::log10(high)) as i32);
    let every = ((last - first) as usize / count.max(1) + 1) as i32;
    let inside = |value: &f64| *value >= low * 0.999 && *value <= high * 1.001;
    let power = |i: i32| libm::pow(10.0, f64::from(i));
    let powers =
        |every: i32| (first..=last).filter(move |i| i % every == 0).map(power).filter(inside).collect::<Vec<_>>();
    let whole = (1..=every).rev().map(powers).find(|powers| powers.len() >= 2).unwrap_or_default();
    let finer = (first..=last).flat_map(|i| [1.0, 2.0, 5.0].map(|n| n * power(i))).filter(inside).collect::<Vec<_>>();
    let values = match (whole.len(), finer.len()) {
        (2, finer) if finer > count + 2 => whole,
        (3.., _) => whole,
        (_, 2..) => finer,
        // Of a very short axis not even these are enough.
        _ => linear_ticks(low, high, count).into_iter().map(|(value, _)| value).collect(),
    };
    values.into_iter().map(|value| (value, number(value))).collect()
}

/// A number in so many decimals, thousands apart.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !zero { "−" } else { "" };
    rest.map_or_else(|| format!("{sign}{grouped}"), |rest| format!("{sign}{grouped}.{rest}"))
}

/// A number in three digits; very large and very small ones by a power of ten.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-4..1e6).contains(&size) {
        let power = libm::floor(libm::log10(size)) as i32;
        let digit = value / libm::pow(10.0, f64::from(power));
        let raised: String = power.to_string().chars().map(raised).collect();
        let digit = trimmed(fixed(digit, 1));
        return if digit == "1" { format!("10{raised}") } else { format!("{digit}×10{raised}") };
    }
    let decimals = (2 - libm::floor(libm::log10(size)) as i32).clamp(0, 6) as usize;
    trimmed(fixed(value, decimals))
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

fn raised(c: char) -> char {
    match c {
        '0' => '⁰',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '⁻',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(scale: &AxisScale, count: usize) -> Vec<String> {
        scale.ticks(count).into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(words(&AxisScale::Linear(0.0, 10.0), 5), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(words(&AxisScale::Linear(-0.25, 0.3), 5), ["−0.2", "0.0", "0.2"]);
        assert_eq!(words(&AxisScale::Linear(0.0, 25_000.0), 3), ["0", "10,000", "20,000"]);
        assert_eq!(words(&AxisScale::Linear(0.0, 2e-7), 2), ["0", "10⁻⁷", "2×10⁻⁷"]);
        assert_eq!(words(&AxisScale::Log(0.5, 2000.0), 6), ["1", "10", "100", "1,000"]);
        assert_eq!(words(&AxisScale::Log(3.0, 30.0), 6), ["5", "10", "20"]);
        for scale in [
            AxisScale::Linear(1.0, 1.0),
            AxisScale::Linear(f64::NAN, 1.0),
            AxisScale::Log(1.0, 1.0001),
            AxisScale::Log(40.0, 41.0),
        ] {
            assert!(scale.ticks(5).len() < 20, "{scale:?}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [(0.0, "0"), (-1.5, "−1.5"), (1234.6, "1,235"), (0.012_34, "0.0123"), (3.2e-9, "3.2×10⁻⁹")]
        {
            assert_eq!(number(value), text);
        }
        assert_eq!(fixed(-0.001, 2), "0.00");
    }

    #[test]
    fn every_value_is_on_the_paper() {
        for scale in [
            AxisScale::Linear(0.0, 0.0),
            AxisScale::Linear(2.0, 3.0),
            AxisScale::Log(1.0, 10.0),
            AxisScale::Names(Vec::new()),
        ] {
            for value in [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 2.5, f64::INFINITY] {
                assert!((0.0..=1.0).contains(&scale.place(value)), "{scale:?} {value}");
            }
        }
    }
}
