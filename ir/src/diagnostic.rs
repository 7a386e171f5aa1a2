//! What is wrong with an input, said to a person: a stable code, where, what was found, what to do.

use std::fmt;

/// Where a mistake is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The input as a whole.
    #[default]
    Nowhere,
    /// A node, a weight, an output, an option or a file, by its name.
    Name(String),
    /// A line and column of a text, both from 1.
    Line(usize, usize),
    /// A byte of a file, from 0.
    Byte(u64),
    /// A place inside a file.
    File(String, Box<Place>),
}

impl From<&str> for Place {
    fn from(name: &str) -> Self {
        if name.is_empty() { Place::Nowhere } else { Place::Name(name.to_string()) }
    }
}

impl From<String> for Place {
    fn from(name: String) -> Self {
        if name.is_empty() { Place::Nowhere } else { Place::Name(name) }
    }
}

impl From<&String> for Place {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl PartialEq<&str> for Place {
    fn eq(&self, other: &&str) -> bool {
        let text = self.to_string();
        text == *other
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Nowhere => Ok(()),
            Place::Name(name) => f.write_str(name),
            Place::Line(line, column) => write!(f, "{line}:{column}"),
            Place::Byte(offset) => write!(f, "byte {offset}"),
            Place::File(file, place) if **place == Place::Nowhere => f.write_str(file),
            Place::File(file, place) => write!(f, "{file}: {place}"),
        }
    }
}

/// A stable number of a kind of error, printed as `E0107`. `docs/errors.md` lists the families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// Nobody has said yet which kind of error it is.
    pub const NONE: ErrorCode = ErrorCode(0);
    /// A file cannot be opened, read or written.
    pub const FILE: ErrorCode = ErrorCode(101);
    /// A `.snn` file is damaged, or of another version.
    pub const CONTAINER: ErrorCode = ErrorCode(102);
    /// A tokenizer, or a text and its tokenizer, do not fit.
    pub const TOKENIZER: ErrorCode = ErrorCode(103);
    /// Calibration data are damaged or of another model.
    pub const CALIBRATION: ErrorCode = ErrorCode(104);
    /// A training checkpoint is damaged or of another run.
    pub const CHECKPOINT: ErrorCode = ErrorCode(105);
    /// A list of prices or costs is malformed.
    pub const PRICES: ErrorCode = ErrorCode(106);
    /// An ONNX file is not well formed.
    pub const ONNX_FILE: ErrorCode = ErrorCode(201);
    /// An ONNX graph holds an operator, attribute or type that is not supported.
    pub const ONNX_UNSUPPORTED: ErrorCode = ErrorCode(202);
    /// The imported program does not compute what the ONNX file computes.
    pub const ONNX_PROOF: ErrorCode = ErrorCode(203);
    /// Files of a Hugging Face folder are damaged or missing, or contradict each other.
    pub const FOLDER: ErrorCode = ErrorCode(204);
    /// A Hugging Face folder holds a network that is not supported.
    pub const ARCHITECTURE: ErrorCode = ErrorCode(205);
    /// The text form of a program has a mistake.
    pub const TEXT: ErrorCode = ErrorCode(301);
    /// An operation does not fit its operands.
    pub const OPERANDS: ErrorCode = ErrorCode(302);
    /// A program breaks promise `n` of the verifier: 401 is the first.
    pub const fn promise(n: u16) -> ErrorCode {
        ErrorCode(400 + n)
    }
    /// A pass cannot raise what an exporter wrote.
    pub const RAISE: ErrorCode = ErrorCode(501);
    /// Rewriting did not come to an end.
    pub const REWRITE: ErrorCode = ErrorCode(502);
    /// A pass cannot translate its input.
    pub const PASS: ErrorCode = ErrorCode(503);
    /// A program cannot run: a value is not finite, a sequence is too long, memory is missing.
    pub const RUN: ErrorCode = ErrorCode(601);
    /// An option of a command does not fit.
    pub const OPTION: ErrorCode = ErrorCode(701);
    /// Training or tuning cannot go on.
    pub const TRAINING: ErrorCode = ErrorCode(702);
    /// The format of another tool has no words for a program.
    pub const EXPORT: ErrorCode = ErrorCode(703);

    /// Every code with what it says, in order.
    #[rustfmt::skip]
    pub const ALL: &[(ErrorCode, &str)] = &[
        (ErrorCode::FILE, "A file cannot be opened, read or written"),
        (ErrorCode::CONTAINER, "A `.snn` file is damaged, or of another version"),
        (ErrorCode::TOKENIZER, "A tokenizer, or a text and its tokenizer, do not fit"),
        (ErrorCode::CALIBRATION, "Calibration data are damaged or of another model"),
        (ErrorCode::CHECKPOINT, "A training checkpoint is damaged or of another run"),
        (ErrorCode::PRICES, "A list of prices or costs is malformed"),
        (ErrorCode::ONNX_FILE, "An ONNX file is not well formed"),
        (ErrorCode::ONNX_UNSUPPORTED, "An ONNX graph holds an operator, attribute or type that is not supported"),
        (ErrorCode::ONNX_PROOF, "The imported program does not compute what the ONNX file computes"),
        (ErrorCode::FOLDER, "Files of a Hugging Face folder are damaged or missing, or contradict each other"),
        (ErrorCode::ARCHITECTURE, "A Hugging Face folder holds a network that is not supported"),
        (ErrorCode::TEXT, "The text form of a program has a mistake"),
        (ErrorCode::OPERANDS, "An operation does not fit its operands"),
        (ErrorCode::promise(1), "The context is too long, or outputs are missing or named twice"),
        (ErrorCode::promise(2), "A constant is not one node with a name and type of its own"),
        (ErrorCode::promise(3), "An operand comes late, or a type is not what its operation gives"),
        (ErrorCode::promise(4), "A node leads to no output"),
        (ErrorCode::promise(5), "A value or a state has no elements or too many"),
        (ErrorCode::promise(6), "An operation is not legal in this stage"),
        (ErrorCode::promise(7), "Something broadcasts that may not"),
        (ErrorCode::promise(8), "A parameter is no constant"),
        (ErrorCode::promise(9), "An output is a spike train or a constant"),
        (ErrorCode::promise(10), "An attribute or a constant has a number that is not allowed"),
        (ErrorCode::promise(11), "A table is shorter than the context, or a channel is none"),
        (ErrorCode::promise(12), "A sum may overflow"),
        (ErrorCode::promise(13), "Features of attention may be negative"),
        (ErrorCode::promise(14), "Logits are not f32 rows with a number per token of the vocabulary"),
        (ErrorCode::RAISE, "A pass cannot raise what an exporter wrote"),
        (ErrorCode::REWRITE, "Rewriting did not come to an end"),
        (ErrorCode::PASS, "A pass cannot translate its input"),
        (ErrorCode::RUN, "A program cannot run: a value is not finite, a sequence is too long, memory is missing"),
        (ErrorCode::OPTION, "An option of a command does not fit"),
        (ErrorCode::TRAINING, "Training or tuning cannot go on"),
        (ErrorCode::EXPORT, "The format of another tool has no words for a program"),
    ];
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{:04}", self.0)
    }
}

/// One mistake in an input. `place` is an ONNX node, a line of text, a byte offset or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind, or `ErrorCode::NONE`.
    pub code: ErrorCode,
    /// Where it is.
    pub place: Place,
    /// What was found and what was expected.
    pub message: String,
    /// Lines that say more or what to do.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// A mistake at a place (an empty name is nowhere in particular).
    pub fn new(place: impl Into<Place>, message: impl Into<String>) -> Self {
        Self { code: ErrorCode::NONE, place: place.into(), message: message.into(), notes: Vec::new() }
    }

    /// Adds a line that says more or what to do.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Puts its place into `file`.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.place = Place::File(file.into(), Box::new(self.place));
        self
    }

    /// Says which kind of error it is, if nobody has yet.
    #[must_use]
    pub fn or_code(self, code: ErrorCode) -> Self {
        if self.code == ErrorCode::NONE { self.code(code) } else { self }
    }

    /// Says which kind of error it is.
    #[must_use]
    pub fn code(mut self, code: ErrorCode) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Nowhere => write!(f, "{}", self.message)?,
            place => write!(f, "{place}: {}", self.message)?,
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  {note}"))
    }
}

impl std::error::Error for Diagnostic {}

/// All mistakes that were found, in the order in which they were found. As an error there is at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// The first of them, where only one can be told.
    pub fn into_first(self) -> Diagnostic {
        self.0.into_iter().next().unwrap_or_else(|| Diagnostic::new("", "something is wrong and nobody said what"))
    }

    /// Keeps the first `most`.
    pub fn truncate(&mut self, most: usize) {
        self.0.truncate(most);
    }

    /// Says once what is said of the same place several times in a row.
    pub fn dedup(&mut self) {
        self.0.dedup();
    }

    /// Gives `code` to those that have none.
    #[must_use]
    pub fn or_code(mut self, code: ErrorCode) -> Self {
        self.0 = self.0.into_iter().map(|one| one.or_code(code)).collect();
        self
    }

    /// Puts all places into `file`.
    #[must_use]
    pub fn in_file(self, file: &str) -> Self {
        self.into_iter().map(|one| one.in_file(file)).collect()
    }

    /// `value`, if there is nothing to say.
    pub fn or_else<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl std::ops::Deref for Diagnostics {
    type Target = [Diagnostic];

    fn deref(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl std::ops::DerefMut for Diagnostics {
    fn deref_mut(&mut self) -> &mut [Diagnostic] {
        &mut self.0
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(all: Vec<Diagnostic>) -> Self {
        Self(all)
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/errors.md` has a row for every code, and no other.
    #[test]
    fn the_page_of_errors_has_every_code() {
        let page = include_str!("../../docs/errors.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `E")).collect();
        let wanted: Vec<String> = ErrorCode::ALL.iter().map(|(code, what)| format!("| `{code}` | {what} |")).collect();
        assert_eq!(rows, wanted);
    }

    #[test]
    fn a_code_is_given_once() {
        let all: Diagnostics =
            [Diagnostic::new("a", "b").code(ErrorCode::TEXT), Diagnostic::new("", "c")].into_iter().collect();
        let codes: Vec<ErrorCode> = all.or_code(ErrorCode::PASS).iter().map(|one| one.code).collect();
        assert_eq!(codes, [ErrorCode::TEXT, ErrorCode::PASS]);
    }
}
