//! Numbers as a person reads them: three or four digits and one SI prefix.

/// Prefixes by powers of a thousand, from 10^-12.
const PREFIXES: [&str; 9] = ["p", "n", "µ", "m", "", "k", "M", "G", "T"];

/// A number with its unit: `4.64 MB`, `234.5 µJ`.
pub fn si(x: f64, unit: &str) -> String {
    let mut power = 4;
    let mut scaled = x;
    // Rounded to four digits, 999.96 is 1.00 of the next prefix.
    while scaled.abs() >= 999.95 && power + 1 < PREFIXES.len() {
        (scaled, power) = (scaled / 1e3, power + 1);
    }
    while scaled != 0.0 && scaled.abs() < 0.99995 && power > 0 {
        (scaled, power) = (scaled * 1e3, power - 1);
    }
    let digits = if scaled.abs() < 99.95 { 2 } else { 1 };
    format!("{scaled:.digits$} {}{unit}", PREFIXES[power]).trim_end().to_string()
}

/// A count: whole below a thousand, then with a prefix.
pub fn count(x: f64) -> String {
    if x < 999.5 { format!("{x:.0}") } else { si(x, "") }
}

/// Bytes as a user writes them: `4096`, `512K`, `512M`, `4G`, with `i` and `B` or without.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size of memory: write bytes, or a number with K, M or G, such as 512M");
    let number = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
    let (number, shift) = match number.chars().last().map(|unit| unit.to_ascii_uppercase()) {
        Some('K') => (&number[..number.len() - 1], 10),
        Some('M') => (&number[..number.len() - 1], 20),
        Some('G') => (&number[..number.len() - 1], 30),
        Some('T') => (&number[..number.len() - 1], 40),
        Some(_) | None => (number, 0),
    };
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// Picojoules.
pub fn joules(pj: f64) -> String {
    si(pj * 1e-12, "J")
}

/// A share in percent, without its sign; `-` where there is none.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory() {
        for (text, bytes) in [("4096", 4096), ("1K", 1024), ("512M", 512 << 20), ("4GiB", 4 << 30), ("2gb", 2 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "M", "1e30", "NaN", "18446744073709551615G", "1Q", "é"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_prefix() {
        for (x, unit, text) in [
            (4_640_000.0, "B", "4.64 MB"),
            (234.5e-6, "J", "234.5 µJ"),
            (0.0, "J", "0.00 J"),
            (999.96, "B", "1.00 kB"),
            (1.5e-12, "J", "1.50 pJ"),
            (12.0, "", "12.00"),
            (-3e-3, "J", "-3.00 mJ"),
        ] {
            assert_eq!(si(x, unit), text);
        }
        assert_eq!((count(12.0), count(1234.0)), ("12".into(), "1.23 k".into()));
    }
}
