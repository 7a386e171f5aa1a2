//! What chat templates expect of Python: JSON as `json.dumps` writes it, and dates as `strftime` does.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// JSON with Python's spaces: after commas and colons, or with `indent` a line per element.
///
/// # Errors
/// What has no form in JSON, such as a map whose keys are no strings.
pub fn json_dumps(value: &impl Serialize, indent: Option<usize>) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(64));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, SpacedFormatter(CompactFormatter)))?,
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A space after every comma and colon.
struct SpacedFormatter(CompactFormatter);

impl Formatter for SpacedFormatter {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)?;
        if first { Ok(()) } else { out.write_all(b" ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)?;
        if first { Ok(()) } else { out.write_all(b" ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// A moment in UTC, as templates ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Days since 1970-01-01.
    days: i64,
    /// Seconds of the day.
    seconds: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The first of 1970 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

const DAY: u64 = 24 * 60 * 60;

/// Last year that is written with four digits.
const YEAR_MAX: i64 = 9999;

impl Moment {
    /// Of the system's clock.
    pub fn now() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { days: (seconds / DAY) as i64, seconds: (seconds % DAY) as u32 }
    }

    /// Year, month and day, the latter two from 1 (Hinnant, "chrono-compatible low-level date algorithms").
    fn date(self) -> (i64, usize, i64) {
        let shifted = self.days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (year_of_era + 400 * era + i64::from(month <= 2), month as usize, day)
    }

    fn of_date(year: i64, month: i64, day: i64) -> Self {
        let year = year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Self { days: 146_097 * era + day_of_era - 719_468, seconds: 0 }
    }

    /// The moment by a format of `strftime`: `%d %b %Y` is `26 Jul 2024`.
    ///
    /// # Errors
    /// A letter that is not known.
    pub fn strftime(self, format: &str) -> Result<String, String> {
        let (year, month, day) = self.date();
        let (hour, minute, second) = (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60);
        let weekday = WEEKDAYS[self.days.rem_euclid(7) as usize];
        let day_of_year = self.days - Self::of_date(year, 1, 1).days + 1;
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let mut kind = letters.next();
            // As in C: without the zero in front.
            let padded = kind != Some('-');
            if !padded {
                kind = letters.next();
            }
            let number = |n: i64, width: usize| if padded { format!("{n:0width$}") } else { n.to_string() };
            match kind {
                Some('Y') => text += &number(year, 4),
                Some('y') => text += &number(year.rem_euclid(100), 2),
                Some('m') => text += &number(month as i64, 2),
                Some('B') => text += MONTHS[month - 1],
                Some('b' | 'h') => text += &MONTHS[month - 1][..3],
                Some('d') => text += &number(day, 2),
                Some('e') => write!(text, "{day:2}").unwrap_or_default(),
                Some('j') => text += &number(day_of_year, 3),
                Some('A') => text += weekday,
                Some('a') => text += &weekday[..3],
                Some('H') => text += &number(hour.into(), 2),
                Some('I') => text += &number(((hour + 11) % 12 + 1).into(), 2),
                Some('p') => text += if hour < 12 { "AM" } else { "PM" },
                Some('M') => text += &number(minute.into(), 2),
                Some('S') => text += &number(second.into(), 2),
                Some('F') => text += &self.strftime("%Y-%m-%d")?,
                Some('T') => text += &self.strftime("%H:%M:%S")?,
                Some('Z') => text += "UTC",
                Some('z') => text += "+0000",
                Some('%') => text.push('%'),
                Some(other) => return Err(format!("strftime_now does not know `%{other}`")),
                None => return Err("strftime_now: a format ends in `%`".into()),
            }
        }
        Ok(text)
    }
}

impl FromStr for Moment {
    type Err = String;

    /// A day as `2024-07-26`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('-').map(|part| part.parse::<i64>().ok().filter(|_| part.len() <= 4));
        let [Some(Some(year)), Some(Some(month)), Some(Some(day)), None] = std::array::from_fn(|_| parts.next()) else {
            return Err(format!("`{text}` is no day: write it as 2024-07-26"));
        };
        let moment = Self::of_date(year, month, day);
        let real =
            (1..=YEAR_MAX).contains(&year) && (1..=12).contains(&month) && moment.date() == (year, month as usize, day);
        if real { Ok(moment) } else { Err(format!("there is no day {text}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_as_python_writes_it() {
        let value = json!({"b": [1, 2.5, "é<\"", null, true], "a": {}, "c": []});
        let line = json_dumps(&value, None).expect("JSON");
        assert_eq!(line, r#"{"b": [1, 2.5, "é<\"", null, true], "a": {}, "c": []}"#);
        let lines = json_dumps(&json!({"b": [1, 2], "a": {}}), Some(4)).expect("JSON");
        assert_eq!(lines, "{\n    \"b\": [\n        1,\n        2\n    ],\n    \"a\": {}\n}");
    }

    #[test]
    fn dates_are_as_python_writes_them() {
        let words = |day: &str, format: &str| day.parse::<Moment>().expect(day).strftime(format).expect(format);
        assert_eq!(words("2024-07-26", "%d %b %Y"), "26 Jul 2024");
        assert_eq!(words("2024-07-06", "%A, %-d %B %y %% %j %e"), "Saturday, 6 July 24 % 188  6");
        assert_eq!(words("2000-02-29", "%a %F %H:%M:%S %I %p"), "Tue 2000-02-29 00:00:00 12 AM");
        assert_eq!(words("1999-12-31", "%a %j"), "Fri 365");
        assert_eq!(words("1970-01-01", "%a"), "Thu");
        let evening = Moment { days: 0, seconds: 20 * 3600 + 5 * 60 + 9 };
        assert_eq!(evening.strftime("%T %I:%M %p %-H").as_deref(), Ok("20:05:09 08:05 PM 20"));
        for text in ["2023-02-29", "2024-13-01", "2024-00-10", "0-1-1", "24", "a-b-c", "2024-1-1-1", "99999-1-1", "--1"]
        {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        assert!(evening.strftime("%Q").is_err() && evening.strftime("%").is_err());
    }
}
