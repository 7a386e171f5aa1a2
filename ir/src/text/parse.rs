//! Reads a program from text. Every number in it is doubted: sizes, counts and lengths have limits, types are inferred
//! anew, and nothing is allocated by a number that a line states.
//!
//! All errors are collected. A line that failed gives a value that nobody knows, and lines that use such a value are
//! passed over in silence: one mistake, one error.

use crate::build::Builder;
use crate::diagnostic::{Diagnostic, Diagnostics, ErrorCode, Place};
use crate::graph::Graph;
use crate::nibbles::{GROUP_MAX, GROUP_STEP, is_group};
use crate::op::{Op, spelling};
use crate::origin::NodeOrigin;
use crate::site::Site;
use crate::stage::Stage;
use crate::tensor::{Tensor, stored_bytes};
use crate::text::name::{NAME_MAX, VERSION, hash, is_bare};
use crate::text::print::label;
use crate::types::Elem;
use crate::value::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where weights come from: their tensors by name, element and sizes, or why there is none.
pub type Source<'a> = &'a dyn Fn(&str, Elem, &[usize]) -> Result<Arc<Tensor>, String>;

/// A `Source` that knows the hashes of its tensors. Last comes the rule that a line states in place of a hash.
pub(crate) type HashedSource<'a> = &'a dyn Fn(&str, Elem, &[usize], Option<&str>) -> Result<(Arc<Tensor>, u64), String>;

/// What files say to a rule.
pub(crate) const NO_RULES: &str = "only tests make weights by a rule; a file has a hash here";

/// Most nodes of a program, constants among them: forty times those of GPT-2 XL as it is imported.
const NODES_MAX: usize = 1 << 17;
/// Most outputs of a program. GPT-2 has one.
const OUTPUTS_MAX: usize = 256;
/// Most bytes in a line: five operands and an origin of the longest names, every character escaped, are half of it.
const LINE_MAX: usize = 1 << 16;
/// Complaints after which the reader gives up.
const ERRORS_MAX: usize = 50;

/// The graph that `text` says.
///
/// # Errors
/// Everything that is wrong with it, at `line:column`. A graph that is read is well typed; whether it is a program is
/// `verify`'s to say.
pub fn parse(text: &str, weights: Source) -> Result<Graph, Diagnostics> {
    parse_hashed(text, &|name, elem, sizes, rule| {
        if rule.is_some() {
            return Err(NO_RULES.to_string());
        }
        let tensor = weights(name, elem, sizes)?;
        let hash = hash(&tensor);
        Ok((tensor, hash))
    })
}

/// `parse`, for a caller that knows the hashes of the weights already.
pub(crate) fn parse_hashed(text: &str, weights: HashedSource) -> Result<Graph, Diagnostics> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(i, text)| Line { number: i + 1, text, at: 0 })
        .filter(|line| !line.text.trim().is_empty() && !line.text.trim_start().starts_with("//"));
    let Some(first) = lines.next() else {
        let error = Diagnostic::new(Place::Line(1, 1), "here is no program");
        return Err(error.note(format!("the first line is like `snnc {VERSION} spiking context=256`")).into());
    };
    let (stage, context) = header(first)?;
    let mut parser = Parser {
        weights,
        builder: Builder::new(stage, context),
        constants: HashMap::new(),
        values: HashMap::new(),
        next: 0,
        lines: Vec::new(),
        outputs: Vec::new(),
        errors: Diagnostics::new(),
    };
    for line in lines {
        if let Err(error) = parser.line(line) {
            parser.errors.push(error);
        }
        if parser.errors.len() >= ERRORS_MAX {
            parser.errors.push(Diagnostic::new("", "there are more errors than these"));
            break;
        }
    }
    parser.finish()
}

/// `snnc 3 spiking context=256`
fn header(mut line: Line) -> Result<(Stage, u32), Diagnostic> {
    line.expect("snnc")?;
    let start = line.mark();
    let version = line.number()?;
    if version != VERSION {
        let message = format!("this is version {version} of the text form, known is version {VERSION}");
        return Err(start.error(message).note("compile the model again with this snnc"));
    }
    let start = line.mark();
    let word = line.word();
    let stage = Stage::from_name(word).ok_or_else(|| {
        let names: Vec<&str> = Stage::ALL.into_iter().map(Stage::name).collect();
        start.error(format!("`{word}` is no stage: there are {}", names.join(", ")))
    })?;
    line.expect("context")?;
    line.expect("=")?;
    let context = line.number()?;
    line.end()?;
    Ok((stage, context))
}

struct Parser<'a> {
    weights: HashedSource<'a>,
    builder: Builder,
    /// By name and by number; `None` is a value whose line failed.
    constants: HashMap<String, Option<Value>>,
    values: HashMap<u32, Option<Value>>,
    /// The number that the next value should have.
    next: u32,
    /// The line that gave each node.
    lines: Vec<usize>,
    outputs: Vec<(String, Value)>,
    errors: Diagnostics,
}

impl Parser<'_> {
    fn line(&mut self, line: Line) -> Result<(), Diagnostic> {
        if line.text.len() > LINE_MAX {
            return Err(line.error(format!("this line has {} bytes; {LINE_MAX} are allowed", line.text.len())));
        }
        match line.text.trim_start() {
            text if text.starts_with('%') => self.node(line),
            text if text.starts_with("weight") => self.weight(line),
            text if text.starts_with("output") => self.output(line),
            _ => Err(line.error("a line starts with `weight`, `%` or `output`")),
        }
    }

    /// `weight @name : f32[256] 3f2a9c5e01b7d844`, with `panels` before the hash where elements lie so; written by hand, the
    /// hash may be left out.
    fn weight(&mut self, mut line: Line) -> Result<(), Diagnostic> {
        line.expect("weight")?;
        let start = line.mark();
        line.expect("@")?;
        let name = line.name()?;
        if self.constants.insert(name.clone(), None).is_some() {
            return Err(start.error(format!("there is a weight @{name} already")));
        }
        line.expect(":")?;
        let start = line.mark();
        let (elem, sizes) = tensor_type(line.spaceless()).map_err(|message| start.error(message))?;
        let rest = line.mark();
        let rule = Some(line.rest().trim_end()).filter(|rest| rest.contains('='));
        let place = if rule.is_some() { &rest } else { &start };
        let (tensor, hash) = (self.weights)(&name, elem, &sizes, rule).map_err(|message| place.error(message))?;
        if tensor.elem() != elem || tensor.sizes() != sizes {
            let found = format!("{}{:?}", tensor.elem(), tensor.sizes());
            return Err(start.error(format!("@{name} is declared as {elem}{sizes:?}, its tensor is {found}")));
        }
        let start = line.mark();
        if line.eat("panels") != tensor.as_panels().is_some() {
            return Err(start.error(format!("elements of @{name} lie in another order than this line says")));
        }
        let start = line.mark();
        let declared = if rule.is_some() { line.take(|_| true) } else { line.spaceless() };
        if rule.is_none() && !declared.is_empty() && declared != format!("{hash:016x}") {
            return Err(start
                .error(format!("@{name} is declared with hash {declared}, its tensor has {hash:016x}"))
                .note("these are not the weights that the program was made with"));
        }
        line.end()?;
        let before = self.builder.graph().nodes.len();
        let value = self.builder.weight(&name, tensor);
        self.admit(&start, before, value)?;
        self.constants.insert(name, Some(value));
        Ok(())
    }

    /// `%7 = fire[binary,7](%6, @gain, @offset) : spike<binary,7>[tokens,256] // origin`
    fn node(&mut self, mut line: Line) -> Result<(), Diagnostic> {
        line.expect("%")?;
        let start = line.mark();
        let number = line.number()?;
        if self.values.contains_key(&number) {
            return Err(start.error(format!("there is a value %{number} already")));
        }
        let expected = std::mem::replace(&mut self.next, number.saturating_add(1));
        let value = if number == expected {
            self.definition(&mut line)
        } else {
            Err(start.error(format!("values are numbered in order: %{expected} was expected, here is %{number}")))
        };
        self.values.insert(number, *value.as_ref().unwrap_or(&None));
        value.map(|_| ())
    }

    /// What follows a value's number; `None` if an operand is the value of a line that failed.
    fn definition(&mut self, line: &mut Line) -> Result<Option<Value>, Diagnostic> {
        line.expect("=")?;
        let start = line.mark();
        let op = Op::parse(line.spelling()).map_err(|message| start.error(message))?;
        let args = if line.eat("(") { self.operands(line)? } else { Some(Vec::new()) };
        line.expect(":")?;
        let place = line.mark();
        let declared = line.declared_type();
        let site = line.site()?;
        let origin = NodeOrigin { name: line.origin()?, site };
        let Some(args) = args else { return Ok(None) };
        let before = self.builder.graph().nodes.len();
        let value = self.builder.add(op, &args, &origin).map_err(|error| start.error(error.message))?;
        let inferred = self.builder.ty(value).to_string();
        if declared != inferred {
            return Err(place.error(format!("`{op}` gives {inferred} here, not {declared}")));
        }
        self.admit(&start, before, value)?;
        Ok(Some(value))
    }

    /// Operands up to the closing parenthesis; `None` if one of them is the value of a line that failed.
    fn operands(&self, line: &mut Line) -> Result<Option<Vec<Value>>, Diagnostic> {
        let mut all = Some(Vec::new());
        loop {
            match (self.operand(line)?, &mut all) {
                (Some(value), Some(all)) => all.push(value),
                (None, _) | (_, None) => all = None,
            }
            if line.eat(")") {
                return Ok(all);
            }
            line.expect(",")?;
        }
    }

    /// `%6` or `@name`; `None` if its line failed.
    fn operand(&self, line: &mut Line) -> Result<Option<Value>, Diagnostic> {
        let start = line.mark();
        if line.eat("@") {
            let name = line.name()?;
            return self
                .constants
                .get(&name)
                .copied()
                .ok_or_else(|| start.error(format!("there is no weight @{name}")));
        }
        line.expect("%")?;
        let number = line.number()?;
        self.values
            .get(&number)
            .copied()
            .ok_or_else(|| start.error(format!("there is no value %{number} before this line")))
    }

    /// Takes note of a value that should be a new one; the builder gives an old one where a line adds nothing.
    fn admit(&mut self, line: &Line, before: usize, value: Value) -> Result<(), Diagnostic> {
        if value.index() != before {
            let same = label(self.builder.graph(), value);
            return Err(line
                .error(format!("this line adds nothing: its value is {same}"))
                .note(format!("use {same} instead")));
        }
        if before >= NODES_MAX {
            return Err(line.error(format!("a program has at most {NODES_MAX} nodes")));
        }
        self.lines.push(line.number);
        Ok(())
    }

    /// `output logits = %57`
    fn output(&mut self, mut line: Line) -> Result<(), Diagnostic> {
        line.expect("output")?;
        let start = line.mark();
        let name = line.name()?;
        line.expect("=")?;
        let value = self.operand(&mut line)?;
        line.end()?;
        if self.outputs.len() >= OUTPUTS_MAX {
            return Err(start.error(format!("a program has at most {OUTPUTS_MAX} outputs")));
        }
        if self.outputs.iter().any(|(other, _)| *other == name) {
            return Err(start.error(format!("there is an output {name} already")));
        }
        self.outputs.extend(value.map(|value| (name, value)));
        Ok(())
    }

    /// The graph, if nothing was wrong and every value is used.
    fn finish(mut self) -> Result<Graph, Diagnostics> {
        if self.errors.is_empty() {
            self.report_unused();
        }
        if self.errors.is_empty() { Ok(self.builder.finish(self.outputs)) } else { Err(self.errors) }
    }

    fn report_unused(&mut self) {
        let graph = self.builder.graph();
        let args = graph.nodes.iter().flat_map(|node| node.args.iter().copied());
        let used: HashSet<Value> = args.chain(self.outputs.iter().map(|(_, value)| *value)).collect();
        for ((value, _), line) in graph.iter().zip(&self.lines).filter(|((value, _), _)| !used.contains(value)) {
            let unused = label(graph, value);
            self.errors.push(
                Diagnostic::new(Place::Line(*line, 1), format!("nothing uses {unused}")).note("remove this line"),
            );
            if self.errors.len() >= ERRORS_MAX {
                break;
            }
        }
    }
}

/// `f32[256,64]` as an element and sizes whose product is a size.
fn tensor_type(text: &str) -> Result<(Elem, Vec<usize>), String> {
    let split = text.split_once('[').and_then(|(elem, rest)| Some((elem, rest.strip_suffix(']')?)));
    let (elem, sizes) = split.ok_or_else(|| format!("a type like `f32[256]` was expected, here is `{text}`"))?;
    let elem = weight_elem(elem).ok_or_else(|| format!("weights are f32, i32, i8 or i4<32>, here is `{text}`"))?;
    let pieces: Vec<&str> = sizes.split(',').filter(|piece| !piece.is_empty()).collect();
    let sizes = spelling::shape(&pieces)?.sizes().ok_or("sizes of weights are numbers")?;
    if matches!(elem, Elem::I4(_)) && sizes.len() != 2 {
        return Err(format!("only matrices are of 4 bits in groups, here is `{text}`"));
    }
    let bytes = stored_bytes(elem, &sizes);
    bytes.filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(|| format!("{text} is larger than any memory"))?;
    Ok((elem, sizes))
}

/// The element of weights that is spelled so.
fn weight_elem(text: &str) -> Option<Elem> {
    let groups = (GROUP_STEP..=GROUP_MAX).filter(|&group| is_group(group)).map(|group| Elem::I4(group as u16));
    [Elem::F32, Elem::I32, Elem::I8].into_iter().chain(groups).find(|known| known.to_string() == text)
}

/// A line and how far it has been read.
#[derive(Clone)]
struct Line<'a> {
    number: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Line<'a> {
    fn error(&self, message: impl Into<String>) -> Diagnostic {
        let column = self.text[..self.at].chars().count() + 1;
        Diagnostic::new(Place::Line(self.number, column), message).code(ErrorCode::TEXT)
    }

    /// Here, for an error about what is read next.
    fn mark(&mut self) -> Line<'a> {
        self.rest();
        self.clone()
    }

    /// What has not been read, without leading spaces.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        &self.text[self.at..]
    }

    /// Reads as long as `wanted` holds.
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), Diagnostic> {
        if self.eat(token) { Ok(()) } else { Err(self.error(format!("`{token}` was expected"))) }
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.error("the line should end here")) }
    }

    fn word(&mut self) -> &'a str {
        self.take(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    fn spaceless(&mut self) -> &'a str {
        self.take(|c| !c.is_whitespace())
    }

    fn number(&mut self) -> Result<u32, Diagnostic> {
        let start = self.mark();
        let digits = self.take(|c| c.is_ascii_digit());
        digits.parse().map_err(|_| start.error("a number below 2^32 was expected"))
    }

    /// An operation with its attributes: `fire[binary,7]`.
    fn spelling(&mut self) -> &'a str {
        let start = self.text.len() - self.rest().len();
        self.word();
        if self.text[self.at..].starts_with('[') {
            self.take(|c| !"](".contains(c));
            self.eat("]");
        }
        &self.text[start..self.at]
    }

    /// A name, bare or quoted.
    fn name(&mut self) -> Result<String, Diagnostic> {
        let start = self.mark();
        let name = if self.eat("\"") { self.quoted()? } else { self.take(is_bare).to_string() };
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(start.error(format!("a name of 1 to {NAME_MAX} bytes was expected")));
        }
        Ok(name)
    }

    /// The rest of a quoted name: what `quote` wrote.
    fn quoted(&mut self) -> Result<String, Diagnostic> {
        let mut name = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(c) = rest.chars().next() else { return Err(self.error("`\"` is missing")) };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(name),
                '\\' => name.push(self.escaped()?),
                _ => name.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Diagnostic> {
        let rest = &self.text[self.at..];
        if let Some(c @ ('"' | '\\')) = rest.chars().next() {
            self.at += 1;
            return Ok(c);
        }
        let hex = rest.strip_prefix("u{").and_then(|rest| rest.split_once('}')).map(|(hex, _)| hex);
        let code = hex.filter(|hex| (1..=6).contains(&hex.len())).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let c = code.and_then(char::from_u32);
        self.at += hex.map_or(0, |hex| hex.len() + 3);
        c.ok_or_else(|| self.error("an escape is `\\\"`, `\\\\` or `\\u{hex}`"))
    }

    /// What stands between `:` and the origin.
    fn declared_type(&mut self) -> &'a str {
        let rest = self.rest();
        let declared = &rest[..rest.find('#').unwrap_or(rest.len()).min(rest.find("//").unwrap_or(rest.len()))];
        self.at += declared.len();
        declared.trim_end()
    }

    /// The site after `#`, or none.
    fn site(&mut self) -> Result<Option<Site>, Diagnostic> {
        if !self.eat("#") {
            return Ok(None);
        }
        let start = self.mark();
        let path = self.spaceless();
        Site::parse(path)
            .map(Some)
            .ok_or_else(|| start.error(format!("`{path}` is no site; one is like `h.0.attention.q`")))
    }

    /// What stands after `//`, or nothing.
    fn origin(&mut self) -> Result<String, Diagnostic> {
        if !self.eat("//") {
            return Ok(String::new());
        }
        let rest = self.rest().trim_end();
        if rest.starts_with('"') {
            let origin = self.name()?;
            return self.end().map(|()| origin);
        }
        if rest.len() > NAME_MAX {
            return Err(self.error(format!("an origin has at most {NAME_MAX} bytes")));
        }
        Ok(rest.to_string())
    }
}
