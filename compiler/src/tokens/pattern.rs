//! Regular expressions of a tokenizer: those whose search takes bounded time and memory.
//!
//! The engine backtracks. What it may try is bounded if repetitions are not nested and at most one open repetition stands
//! before anything that can fail. All splits of known language models are of this form.

use std::iter::Peekable;
use std::str::Chars;

/// Longest pattern, in bytes.
const LENGTH: usize = 2048;

/// Groups inside groups, at most.
const DEPTH: usize = 8;

/// Largest number in `{n,m}`, and of all nested ones multiplied.
const COUNT: u64 = 255;

/// Characters and classes of a pattern, each as often as it is repeated: what its automata are made of.
pub const SIZE: u64 = 1024;

/// What is to be known of a part of a pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatternShape {
    /// It may match nothing.
    pub empty: bool,
    /// It has a repetition without a largest number.
    open: bool,
    /// It may run over words and the spaces between them: over all of a line.
    broad: bool,
    /// Its length or its way through may differ.
    choice: bool,
    /// Largest number of copies of a part.
    copies: u64,
    /// Characters and classes with all their copies.
    pub size: u64,
}

/// Checks that a pattern can be searched in bounded time.
///
/// # Errors
/// What it has that is not read.
pub fn check(pattern: &str) -> Result<PatternShape, String> {
    if pattern.len() > LENGTH {
        return Err(format!("it is {} bytes long, more than {LENGTH}", pattern.len()));
    }
    let mut parser = PatternParser { rest: pattern.chars().peekable() };
    let shape = parser.alternatives(0)?;
    match parser.rest.next() {
        None if shape.size > SIZE => Err(format!("it has {} characters and classes, more than {SIZE}", shape.size)),
        None => Ok(shape),
        Some(_) => Err("it has a `)` too many".into()),
    }
}

struct PatternParser<'a> {
    rest: Peekable<Chars<'a>>,
}

/// A part of a branch before its repetition.
struct Atom {
    shape: PatternShape,
    /// A single character or class.
    single: bool,
    /// It tests a place and takes nothing.
    place: bool,
}

impl Atom {
    const CHARACTER: Atom = Atom {
        shape: PatternShape { empty: false, open: false, broad: false, choice: false, copies: 1, size: 1 },
        single: true,
        place: false,
    };
    const PLACE: Atom = Atom {
        shape: PatternShape { empty: true, open: false, broad: false, choice: false, copies: 1, size: 1 },
        single: false,
        place: true,
    };

    /// A class that may have both spaces and other characters.
    fn class(broad: bool) -> Atom {
        Atom { shape: PatternShape { broad, ..Atom::CHARACTER.shape }, ..Atom::CHARACTER }
    }
}

impl PatternParser<'_> {
    fn alternatives(&mut self, depth: usize) -> Result<PatternShape, String> {
        if depth > DEPTH {
            return Err(format!("its groups are more than {DEPTH} deep"));
        }
        let mut all = self.branch(depth)?;
        while self.rest.next_if_eq(&'|').is_some() {
            let next = self.branch(depth)?;
            all = PatternShape {
                empty: all.empty || next.empty,
                open: all.open || next.open,
                broad: all.broad || next.broad,
                choice: true,
                copies: all.copies.max(next.copies),
                size: all.size.saturating_add(next.size),
            };
        }
        Ok(all)
    }

    fn branch(&mut self, depth: usize) -> Result<PatternShape, String> {
        let mut all = PatternShape { empty: true, copies: 1, ..PatternShape::default() };
        let (mut open, mut broad) = (0, false);
        while self.rest.peek().is_some_and(|c| !matches!(c, '|' | ')')) {
            let atom = self.atom(depth)?;
            let (shape, possessive) = self.repeated(&atom)?;
            let fails = atom.place || !shape.empty;
            if fails && (open > 1 || (open > 0 && atom.place && shape.open)) {
                return Err("more than one open repetition stands before something that can fail".into());
            }
            if fails && broad {
                return Err("a repetition that runs over whole lines stands before something that can fail".into());
            }
            open += usize::from(shape.open && !possessive);
            broad |= shape.open && shape.broad && !possessive;
            all = PatternShape {
                empty: all.empty && (atom.place || shape.empty),
                open: all.open || shape.open,
                broad: all.broad || shape.broad,
                choice: all.choice || shape.choice,
                copies: all.copies.max(shape.copies),
                size: all.size.saturating_add(shape.size),
            };
        }
        Ok(all)
    }

    /// An atom with the repetition behind it, and whether that gives nothing back.
    fn repeated(&mut self, atom: &Atom) -> Result<(PatternShape, bool), String> {
        let Some((least, most)) = self.counts()? else { return Ok((atom.shape, false)) };
        let possessive = self.rest.next_if_eq(&'+').is_some();
        if !possessive {
            self.rest.next_if_eq(&'?');
        }
        if atom.place {
            return Err("it repeats a place".into());
        }
        if most != Some(1) && !atom.single && (atom.shape.open || atom.shape.choice || atom.shape.empty) {
            return Err("it repeats a group that repeats or chooses".into());
        }
        let times = most.unwrap_or(least).max(1);
        let copies = atom.shape.copies.saturating_mul(times);
        if copies > COUNT {
            return Err(format!("it repeats something more than {COUNT} times"));
        }
        let shape = PatternShape {
            empty: atom.shape.empty || least == 0,
            open: atom.shape.open || most.is_none(),
            broad: atom.shape.broad,
            choice: atom.shape.choice || most != Some(least),
            copies,
            size: atom.shape.size.saturating_mul(times),
        };
        Ok((shape, possessive))
    }

    /// The numbers of a repetition: at least, at most.
    fn counts(&mut self) -> Result<Option<(u64, Option<u64>)>, String> {
        Ok(match self.rest.peek() {
            Some('*') => self.rest.next().map(|_| (0, None)),
            Some('+') => self.rest.next().map(|_| (1, None)),
            Some('?') => self.rest.next().map(|_| (0, Some(1))),
            Some('{') => {
                self.rest.next();
                let text = self.until('}')?;
                let number = |text: &str| text.trim().parse().map_err(|_| format!("`{{{text}}}` is no repetition"));
                Some(match text.split_once(',') {
                    None => (number(&text)?, Some(number(&text)?)),
                    Some((least, "")) => (number(least)?, None),
                    Some((least, most)) => (number(least)?, Some(number(most)?)),
                })
            }
            _ => None,
        })
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some(c) if c == end => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(format!("it has no `{end}`")),
            }
        }
    }

    fn atom(&mut self, depth: usize) -> Result<Atom, String> {
        match self.rest.next() {
            Some('(') => self.group(depth),
            Some('[') => self.class(0).map(|has| Atom::class(has == [true, true])),
            Some('.') => Ok(Atom::class(true)),
            Some('\\') => self.escape(),
            Some('^' | '$') => Ok(Atom::PLACE),
            Some('*' | '+' | '?' | '{') => Err("a repetition repeats nothing".into()),
            Some(_) => Ok(Atom::CHARACTER),
            None => Err("it ends early".into()),
        }
    }

    fn escape(&mut self) -> Result<Atom, String> {
        match self.rest.next() {
            None => Err("it ends in a backslash".into()),
            Some(c @ ('1'..='9' | 'k' | 'g' | 'K' | 'G')) => Err(format!("it has `\\{c}`")),
            Some('b' | 'B' | 'A' | 'z' | 'Z') => Ok(Atom::PLACE),
            Some('p' | 'P' | 'x' | 'u' | 'U') if self.rest.next_if_eq(&'{').is_some() => {
                self.until('}')?;
                Ok(Atom::CHARACTER)
            }
            Some('p' | 'P') => self.rest.next().map(|_| Atom::CHARACTER).ok_or("it ends early".into()),
            Some(c @ ('x' | 'u' | 'U')) => {
                let digits = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                for _ in 0..digits {
                    self.rest.next_if(char::is_ascii_hexdigit);
                }
                Ok(Atom::CHARACTER)
            }
            Some('D' | 'W') => Ok(Atom::class(true)),
            Some(_) => Ok(Atom::CHARACTER),
        }
    }

    /// The rest of a class, with the classes in it: whether it has spaces, and whether it has other characters.
    fn class(&mut self, depth: usize) -> Result<[bool; 2], String> {
        if depth > DEPTH {
            return Err(format!("its classes are more than {DEPTH} deep"));
        }
        let negated = self.rest.next_if_eq(&'^').is_some();
        let [mut spaces, mut others] = [false, self.rest.next_if_eq(&']').is_some()];
        let mut all_spaces = false;
        loop {
            let more = match self.rest.next() {
                None => return Err("it has no `]`".into()),
                Some(']') => break,
                Some('[') => self.class(depth + 1)?,
                Some('\\') => {
                    let kind = self.rest.peek().copied();
                    all_spaces |= kind == Some('s');
                    self.escape()?;
                    match kind {
                        Some('s' | 'r' | 'n' | 't' | 'v' | 'f') => [true, false],
                        Some('P' | 'D' | 'W') => [true, true],
                        _ => [false, true],
                    }
                }
                Some(c) => [c.is_whitespace(), !c.is_whitespace()],
            };
            (spaces, others) = (spaces || more[0], others || more[1]);
        }
        // A class that leaves something out has spaces unless it leaves out all of them.
        Ok(if negated { [!all_spaces, true] } else { [spaces, others] })
    }

    /// The rest of a group.
    fn group(&mut self, depth: usize) -> Result<Atom, String> {
        let mut place = false;
        if self.rest.next_if_eq(&'?').is_some() {
            match self.rest.next() {
                Some(':') => {}
                Some('=' | '!') => place = true,
                Some('<') if self.rest.next_if(|c| matches!(c, '=' | '!')).is_some() => place = true,
                Some(c @ ('(' | 'R' | '&' | '>' | '#' | '<' | 'P')) => return Err(format!("it has a group `(?{c}`")),
                Some(mut c) => loop {
                    match c {
                        ':' => break,
                        ')' => return Ok(Atom { place: false, ..Atom::PLACE }),
                        'a'..='z' | 'A'..='Z' | '-' => {}
                        _ => return Err(format!("it has a group `(?{c}`")),
                    }
                    c = self.rest.next().ok_or("it has no `)`")?;
                },
                None => return Err("it has no `)`".into()),
            }
        }
        let shape = self.alternatives(depth + 1)?;
        self.rest.next_if_eq(&')').ok_or("it has no `)`")?;
        Ok(Atom { shape, single: false, place })
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    /// GPT-2, GPT-4, GPT-4o, DeepSeek, BLOOM, digits by three.
    const KNOWN: [&str; 8] = [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
        r"\d{1,3}(?=(?:\d{3})*\b)",
        r"(?=(\d{3})+(?!\d))",
    ];

    #[test]
    fn what_language_models_use_is_read() {
        for pattern in KNOWN {
            assert!(check(pattern).is_ok(), "{pattern}: {:?}", check(pattern));
        }
    }

    #[test]
    fn what_takes_long_is_refused() {
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        let long = "a".repeat(4096);
        for pattern in [
            r"(a+)+b",
            r"(?:a|a)*b",
            r"(a*)*",
            r"a*a*a*b",
            r"[^\n]*[^\n]*\x00|.",
            r"(a)\1",
            r"a{1000}",
            r"(?:a{100}){100}",
            r"(?:a{1,9}){9}",
            r"\w+(?=\w*x)",
            r".*x",
            r"[^\n]*\x00|.",
            r"[\s\S]+a",
            r"[ a-z]*\d",
            r"\W*a",
            r"a{200}b{200}c{200}d{200}e{200}f{200}",
            r"(?:abcdefgh){200}",
            r"a(",
            r"a)",
            r"[a",
            "*a",
            r"\",
            r"(?>a)",
            &deep,
            &long,
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn what_matches_nothing_is_known() {
        let empty = |pattern: &str| check(pattern).map(|shape| shape.empty);
        assert_eq!(empty(r"a*|b"), Ok(true));
        assert_eq!(empty(r"\s+(?!\S)"), Ok(false));
        assert_eq!(empty(r"(?=a)"), Ok(true));
        assert_eq!(empty(""), Ok(true));
    }
}
