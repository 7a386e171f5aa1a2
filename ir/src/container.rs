//! The `.snn` file: a program, its weights, and what it came with.
//!
//! ```text
//! "SNNC"  length: u32  header: protobuf, `length` bytes  XXH3-64 of all before: u64
//! section  section  ...        each at a multiple of 64 bytes; zeros between; nothing after the last
//! ```
//!
//! The header lists the sections in their order: the program as text, its weights (one section each, raw little-endian
//! elements), tokenizer, calibration, provenance. It says itself which tokens begin and end texts, and how a conversation is
//! written. Offsets count from the first section. Numbers are little-endian.
//!
//! Law: there is one file for a `File`, so `write(read(b)) == b`; and no byte of it can change without `read` noticing.
//! Reading is: bounds, checksums, parse, verify, then a comparison with what `write` would have written. Weights are not
//! copied: tensors are views of the bytes. Opening, mapping and renaming files is the caller's.

use crate::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use crate::graph::Graph;
use crate::language::LanguageConfig;
use crate::tensor::{Buffer, Data, SharedBytes, Tensor, panels_len, stored_bytes};
use crate::text;
use crate::types::Elem;
use crate::verify::verify;
use prost::Message;
use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// What a `.snn` file starts with.
pub const MAGIC: [u8; 4] = *b"SNNC";
/// Version of the format.
pub const VERSION: u32 = 1;

/// Sections start at multiples of this: a cache line, and more than any vector load asks for.
const ALIGNMENT: usize = 64;
/// Most bytes of a header. A section takes about a hundred, so these are ten thousand weights.
const HEADER_MAX: usize = 1 << 20;

/// What a `.snn` file holds. The three sections beside the graph are the compiler's; here they are bytes.
#[derive(Clone, Debug)]
pub struct File {
    /// The program.
    pub graph: Graph,
    /// The tokenizer's `tokenizer.json`, where there is one.
    pub tokenizer: Option<Vec<u8>>,
    /// What is known of the texts that the tokenizer reads and writes; files of before have it in their provenance.
    pub language: Option<LanguageConfig>,
    /// What was measured to choose levels, as JSON.
    pub calibration: Option<Vec<u8>>,
    /// What made the file from what, as JSON.
    pub provenance: Option<Vec<u8>>,
}

impl File {
    /// A program and nothing beside it.
    pub fn new(graph: Graph) -> Self {
        Self { graph, tokenizer: None, language: None, calibration: None, provenance: None }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    sections: Vec<Section>,
    #[prost(message, optional, tag = "3")]
    language: Option<LanguageConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct Section {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    /// Bytes from the start of the first section.
    #[prost(uint64, tag = "2")]
    offset: u64,
    #[prost(uint64, tag = "3")]
    length: u64,
    /// XXH3-64. Of a weight it is the hash in the program's text, too.
    #[prost(fixed64, tag = "4")]
    checksum: u64,
    /// Of weights: name, element (with its layout, if that is not row by row) and sizes as in the program's text.
    #[prost(string, tag = "5")]
    name: String,
    #[prost(string, tag = "6")]
    elem: String,
    #[prost(uint64, repeated, tag = "7")]
    sizes: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Unknown = 0,
    Program = 1,
    Weight = 2,
    Tokenizer = 3,
    Calibration = 4,
    Provenance = 5,
}

/// Writes `file` to `out`, weights straight from where they lie. The caller buffers, syncs and renames.
///
/// # Errors
/// Those of `out`; a header beyond its limit; a big-endian host, whose weights in memory are not those of a file.
pub fn write(file: &File, out: &mut dyn Write) -> io::Result<()> {
    if cfg!(target_endian = "big") {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "`.snn` files are written on little-endian hosts"));
    }
    let hashes: Vec<u64> = file.graph.weights.iter().map(|weight| text::hash(&weight.tensor)).collect();
    let program = text::print::print_hashed(&file.graph, &hashes);
    let parts = parts(file, &program, &hashes);
    let head = head(parts.iter().map(|(section, _)| section.clone()).collect(), file.language.clone())?;
    out.write_all(&head)?;
    let mut end = head.len();
    for (_, bytes) in parts {
        out.write_all(&[0; ALIGNMENT][..end.next_multiple_of(ALIGNMENT) - end])?;
        out.write_all(bytes)?;
        end = end.next_multiple_of(ALIGNMENT) + bytes.len();
    }
    Ok(())
}

/// The sections of `file` and their bytes, in their order. `hashes` are those of the weights.
fn parts<'a>(file: &'a File, program: &'a str, hashes: &[u64]) -> Vec<(Section, &'a [u8])> {
    let section = |kind: Kind, bytes: &'a [u8]| {
        let (kind, length) = (i32::from(kind), bytes.len() as u64);
        (Section { kind, length, checksum: xxh3_64(bytes), ..Section::default() }, bytes)
    };
    let weights = file.graph.weights.iter().zip(hashes).map(|(weight, &checksum)| {
        let (kind, bytes) = (i32::from(Kind::Weight), weight.tensor.data().bytes());
        let (name, elem) = (weight.name.clone(), stored(&weight.tensor));
        let sizes = weight.tensor.sizes().iter().map(|&size| size as u64).collect();
        (Section { kind, offset: 0, length: bytes.len() as u64, checksum, name, elem, sizes }, bytes)
    });
    let others = [
        (Kind::Tokenizer, &file.tokenizer),
        (Kind::Calibration, &file.calibration),
        (Kind::Provenance, &file.provenance),
    ];
    let others = others.into_iter().filter_map(|(kind, bytes)| Some(section(kind, bytes.as_deref()?)));
    let mut parts: Vec<_> =
        std::iter::once(section(Kind::Program, program.as_bytes())).chain(weights).chain(others).collect();
    let mut end = 0u64;
    for (section, _) in &mut parts {
        section.offset = end.next_multiple_of(ALIGNMENT as u64);
        end = section.offset + section.length;
    }
    parts
}

/// How a header says what elements a weight has.
fn stored(tensor: &Tensor) -> String {
    match tensor.data() {
        Data::Panels(_) => PANELS.into(),
        Data::F32(_) | Data::I32(_) | Data::I8(_) | Data::Groups { .. } => tensor.elem().to_string(),
    }
}

/// 8-bit elements in panels.
const PANELS: &str = "i8 panels";

/// All that stands before the first section, but for padding.
fn head(sections: Vec<Section>, language: Option<LanguageConfig>) -> io::Result<Vec<u8>> {
    let header = Header { version: VERSION, sections, language }.encode_to_vec();
    if header.len() > HEADER_MAX {
        let message = format!("a header of {} bytes; {HEADER_MAX} are possible", header.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut head = MAGIC.to_vec();
    head.extend((header.len() as u32).to_le_bytes());
    head.extend(header);
    head.extend(xxh3_64(&head).to_le_bytes());
    Ok(head)
}

/// Reads a `.snn` file that lies in `bytes`, whose start must be aligned to 4 bytes at least, as mapped files are.
///
/// # Errors
/// Whatever is wrong at the first stage of reading that finds anything wrong, with byte offsets or lines of the program.
pub fn read(bytes: SharedBytes) -> Result<File, Diagnostics> {
    read_sections(bytes).map_err(|errors| errors.or_code(ErrorCode::CONTAINER))
}

fn read_sections(bytes: SharedBytes) -> Result<File, Diagnostics> {
    if cfg!(target_endian = "big") {
        return Err(Diagnostic::new("", "`.snn` files are read on little-endian hosts, this one is big-endian").into());
    }
    let all = (*bytes).as_ref();
    let (header, end) = read_header(all).map_err(|error| vec![error])?;
    let ranges = bounds(all, &header, end).map_err(|error| vec![error])?;
    checksums(all, &header, &ranges)?;
    let graph = read_program(&bytes, &header, &ranges)?;
    verify(&graph)?;
    let section = |kind| find(all, &header, &ranges, kind).map(<[u8]>::to_vec);
    let [tokenizer, calibration, provenance] = [Kind::Tokenizer, Kind::Calibration, Kind::Provenance].map(section);
    let file = File { graph, tokenizer, language: header.language.clone(), calibration, provenance };
    canonical(&file, &header, find(all, &header, &ranges, Kind::Program)).map_err(|error| vec![error])?;
    Ok(file)
}

fn at(byte: usize, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(format!("byte {byte}"), message)
}

/// The header, and where it ends.
fn read_header(all: &[u8]) -> Result<(Header, usize), Diagnostic> {
    if !all.starts_with(&MAGIC) {
        return Err(at(0, "this is no `.snn` file: those start with `SNNC`"));
    }
    let short = || at(all.len(), "the file ends within its header").note("it is damaged or incomplete");
    let length = all[MAGIC.len()..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize).ok_or_else(short)?;
    if length > HEADER_MAX {
        return Err(at(4, format!("a header of {length} bytes; {HEADER_MAX} are possible")));
    }
    let end = 8 + length;
    let checksum =
        all.get(end..).and_then(<[u8]>::first_chunk).map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(short)?;
    if xxh3_64(&all[..end]) != checksum {
        return Err(at(end, "the header does not match its checksum").note("the file is damaged"));
    }
    let bytes = &all[8..end];
    let header = Header::decode(bytes).map_err(|error| at(8, format!("the header cannot be read: {error}")))?;
    if header.version != VERSION {
        let message = format!("this is version {} of the format, known is version {VERSION}", header.version);
        return Err(at(8, message).note("compile the model again, or use the program that wrote the file"));
    }
    if header.encode_to_vec() != bytes {
        return Err(at(8, "the header has fields that version 1 does not know, or is not in its canonical form"));
    }
    Ok((header, end + 8))
}

/// Where each section lies: one after the other, padded with zeros, up to the end of the file.
fn bounds(all: &[u8], header: &Header, head: usize) -> Result<Vec<Range<usize>>, Diagnostic> {
    let first = head.next_multiple_of(ALIGNMENT);
    let mut ranges = Vec::new();
    let mut end = head;
    for (i, section) in header.sections.iter().enumerate() {
        let start = end.next_multiple_of(ALIGNMENT);
        let stated = section.offset;
        if stated != (start - first) as u64 {
            return Err(at(
                start,
                format!("section {i} should start here, the header says at {stated} after byte {first}"),
            ));
        }
        let length = usize::try_from(section.length).ok();
        let Some(after) = length.and_then(|length| start.checked_add(length)).filter(|&after| after <= all.len())
        else {
            let message =
                format!("the file ends within section {i}, which has {} bytes from byte {start}", section.length);
            return Err(at(all.len(), message).note("it is damaged or incomplete"));
        };
        if let Some(bad) = all[end..start].iter().position(|&byte| byte != 0) {
            return Err(at(end + bad, "padding should be zeros").note("the file is damaged"));
        }
        ranges.push(start..after);
        end = after;
    }
    if end != all.len() {
        return Err(at(end, format!("the sections end here, {} bytes follow", all.len() - end)));
    }
    Ok(ranges)
}

fn checksums(all: &[u8], header: &Header, ranges: &[Range<usize>]) -> Result<(), Diagnostics> {
    let mut errors = Diagnostics::new();
    for (section, range) in header.sections.iter().zip(ranges) {
        if xxh3_64(&all[range.clone()]) != section.checksum {
            let what = format!("the section {} does not match its checksum", title(section));
            errors.push(at(range.start, what).note("the file is damaged"));
        }
    }
    errors.or_else(())
}

fn title(section: &Section) -> String {
    match section.kind() {
        Kind::Unknown => format!("of unknown kind {}", section.kind),
        Kind::Program => "program".into(),
        Kind::Weight => format!("@{}", section.name),
        Kind::Tokenizer => "tokenizer".into(),
        Kind::Calibration => "calibration".into(),
        Kind::Provenance => "provenance".into(),
    }
}

/// The bytes of the first section of a kind.
fn find<'a>(all: &'a [u8], header: &Header, ranges: &[Range<usize>], kind: Kind) -> Option<&'a [u8]> {
    let i = header.sections.iter().position(|section| section.kind == i32::from(kind))?;
    Some(&all[ranges[i].clone()])
}

/// The program, with its weights as views of `bytes`.
fn read_program(bytes: &SharedBytes, header: &Header, ranges: &[Range<usize>]) -> Result<Graph, Diagnostics> {
    let all = (**bytes).as_ref();
    let Some(program) = find(all, header, ranges, Kind::Program) else {
        return Err(Diagnostic::new("", "the file has no program").into());
    };
    let program = std::str::from_utf8(program).map_err(|error| Diagnostic::new("program", error.to_string()))?;
    let weights = header.sections.iter().zip(ranges).filter(|(section, _)| section.kind() == Kind::Weight);
    let weights: HashMap<&str, _> = weights.map(|pair| (pair.0.name.as_str(), pair)).collect();
    let graph = text::parse::parse_hashed(program, &|name, elem, sizes, rule| {
        if rule.is_some() {
            return Err(text::parse::NO_RULES.to_string());
        }
        let (section, range) = weights.get(name).ok_or_else(|| format!("the file has no weight @{name}"))?;
        Ok((Arc::new(view(bytes, section, range, elem, sizes)?), section.checksum))
    });
    graph.map_err(|errors| {
        let within = |error: Diagnostic| Diagnostic { place: format!("program {}", error.place).into(), ..error };
        errors.into_iter().map(within).collect()
    })
}

/// The tensor that lies in a section, if it is what the program says.
fn view(
    bytes: &SharedBytes,
    section: &Section,
    range: &Range<usize>,
    elem: Elem,
    sizes: &[usize],
) -> Result<Tensor, String> {
    let panels = section.elem == PANELS && elem == Elem::I8;
    let known = panels || section.elem == elem.to_string();
    if !known || !sizes.iter().map(|&size| size as u64).eq(section.sizes.iter().copied()) {
        return Err(format!("the file's weight is {}{:?}", section.elem, section.sizes));
    }
    let wanted = if panels { panels_len(sizes) } else { stored_bytes(elem, sizes) };
    if wanted != Some(range.len()) {
        return Err(format!("the file's weight has {} bytes", range.len()));
    }
    let (bytes, range) = (bytes.clone(), range.clone());
    let data = match elem {
        Elem::F32 => Buffer::shared(bytes, range).map(Data::F32),
        Elem::I32 => Buffer::shared(bytes, range).map(Data::I32),
        Elem::I8 => Buffer::shared(bytes, range).map(if panels { Data::Panels } else { Data::I8 }),
        Elem::I4(group) => Buffer::shared(bytes, range).map(|bytes| Data::Groups { bytes, group }),
        Elem::Level(..) => None,
    };
    let data = data.ok_or("the file's bytes should start at a multiple of 4 in memory, as mapped files do")?;
    let tensor = Tensor::new(sizes.to_vec(), data);
    if tensor.has_padding() { Ok(tensor) } else { Err("what panels have beyond the weight is not zero".into()) }
}

/// Whether `write` would give this header and this program: the last of the checks, and the one that leaves no freedom.
fn canonical(file: &File, header: &Header, program: Option<&[u8]>) -> Result<(), Diagnostic> {
    let weights = header.sections.iter().filter(|section| section.kind() == Kind::Weight);
    let hashes: HashMap<&str, u64> = weights.map(|section| (section.name.as_str(), section.checksum)).collect();
    let hash = |name: &str| hashes.get(name).copied().unwrap_or_default();
    let hashes: Vec<u64> = file.graph.weights.iter().map(|weight| hash(&weight.name)).collect();
    let printed = text::print::print_hashed(&file.graph, &hashes);
    if program != Some(printed.as_bytes()) {
        return Err(Diagnostic::new("program", "this is not the canonical text of the program"));
    }
    if !parts(file, &printed, &hashes).iter().map(|(section, _)| section).eq(&header.sections) {
        return Err(at(8, "the sections are not those of the program, or not in their order"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::NamedSpecialToken;
    use crate::text::tests::{all, spiking};

    /// Bytes at an aligned place, as those of a mapped file.
    struct Aligned(Vec<u64>, usize);

    impl AsRef<[u8]> for Aligned {
        fn as_ref(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[..self.1]
        }
    }

    fn shared(bytes: &[u8]) -> SharedBytes {
        let mut aligned = Aligned(vec![0; bytes.len().div_ceil(8)], bytes.len());
        bytemuck::cast_slice_mut(&mut aligned.0)[..bytes.len()].copy_from_slice(bytes);
        Arc::new(aligned)
    }

    fn written(file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(file, &mut bytes).expect("memory takes everything");
        bytes
    }

    fn sample() -> File {
        let sections = [b"words".to_vec(), Vec::new(), b"{\"from\":\"here\"}".to_vec()].map(Some);
        let [tokenizer, calibration, provenance] = sections;
        let special_tokens = vec![NamedSpecialToken { name: "eos_token".into(), text: "</s>".into() }];
        let language =
            LanguageConfig { start: vec![1], end: vec![2, 300], chat_template: "{{ x }}".into(), special_tokens };
        File { graph: spiking(), tokenizer, language: Some(language), calibration, provenance }
    }

    fn message(bytes: &[u8]) -> String {
        read(shared(bytes)).expect_err("it is damaged")[0].to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for graph in all() {
            for file in [File::new(graph.clone()), File::new(graph.clone().in_panels()), File { graph, ..sample() }] {
                let bytes = written(&file);
                let again = read(shared(&bytes)).unwrap_or_else(|errors| panic!("{errors:?}"));
                assert_eq!(written(&again), bytes);
                assert_eq!(format!("{again:?}"), format!("{file:?}"));
                for (a, b) in again.graph.weights.iter().zip(&file.graph.weights) {
                    assert_eq!(a.tensor, b.tensor);
                }
            }
        }
    }

    /// A projection with a weight of 4 bits in groups, whose last group and last panel are short.
    fn grouped() -> Graph {
        let text = "snnc 3 spiking context=8
weight @table : f32[4,9] = fill(seed=1)
weight @gain : f32[9] = fill(value=3)
weight @offset : f32[9] = fill(seed=9)
weight @w : i4<8>[9,3] = fill(seed=5)
weight @narrow : f32[3] = fill(seed=13)
%0 = tokens : i32[tokens]
%1 = embed(%0, @table) : f32[tokens,9]
%2 = fire[binary,3](%1, @gain, @offset) : spike<binary,3>[tokens,9]
%3 = synapse(%2, @w) : current<binary,3>[tokens,3]
%4 = decode(%3) : i32[tokens,3]
%5 = scale_shift(%4, @narrow, @narrow) : f32[tokens,3]
output y = %5";
        text::parse_filled(text, &|name, _, _| Err(format!("no rule for @{name}"))).expect("a program").graph
    }

    #[test]
    fn weights_in_groups_are_read_back_and_checked() {
        let bytes = written(&File::new(grouped()));
        let again = read(shared(&bytes)).expect("it was written");
        assert_eq!((written(&again), again.graph.weights[3].tensor.as_groups().is_some()), (bytes, true));
        let damaged = |at: usize, byte: u8| {
            let mut graph = grouped();
            let (bytes, _) = graph.weights[3].tensor.as_groups().expect("groups");
            let mut bytes = bytes.to_vec();
            bytes[at] = byte;
            graph.weights[3].tensor = Arc::new(Tensor::new(vec![9, 3], Data::Groups { bytes: bytes.into(), group: 8 }));
            message(&written(&File::new(graph)))
        };
        // The first output beyond the last, and -128.
        assert!(damaged(3, 1).contains("what panels have beyond the weight is not zero"));
        assert!(damaged(1, 0x80).contains("its multipliers should lie within -127 and 127"));
    }

    #[test]
    fn weights_are_views_of_the_file() {
        let bytes = shared(&written(&sample()));
        let memory = (*bytes).as_ref().as_ptr_range();
        let file = read(bytes.clone()).expect("it was written");
        for weight in &file.graph.weights {
            let tensor = weight.tensor.data().bytes().as_ptr();
            assert!(memory.contains(&tensor));
            assert_eq!((tensor.addr() - memory.start.addr()) % ALIGNMENT, 0);
        }
    }

    #[test]
    fn no_byte_can_change() {
        let bytes = written(&sample());
        for i in 0..bytes.len() {
            for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                let mut damaged = bytes.clone();
                damaged[i] ^= flip;
                assert!(read(shared(&damaged)).is_err(), "byte {i} of {}, flip {flip:#x}", bytes.len());
            }
        }
    }

    #[test]
    fn no_byte_can_be_missing_or_more() {
        let bytes = written(&sample());
        for length in 0..bytes.len() {
            assert!(read(shared(&bytes[..length])).is_err(), "{length} of {} bytes", bytes.len());
        }
        for more in [1, 64] {
            let longer: Vec<u8> = bytes.iter().copied().chain(vec![0; more]).collect();
            assert!(message(&longer).ends_with(&format!("the sections end here, {more} bytes follow")));
        }
    }

    /// The sample with its header changed and its header's checksum made right again.
    fn forged(change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let bytes = written(&sample());
        let (mut header, end) = read_header(&bytes).expect("it was written");
        change(&mut header);
        let sealed = seal(&header.encode_to_vec());
        let padding = vec![0; sealed.len().next_multiple_of(ALIGNMENT) - sealed.len()];
        [sealed, padding, bytes[end.next_multiple_of(ALIGNMENT)..].to_vec()].concat()
    }

    fn seal(header: &[u8]) -> Vec<u8> {
        let mut head = [&MAGIC[..], &(header.len() as u32).to_le_bytes(), header].concat();
        head.extend(xxh3_64(&head).to_le_bytes());
        head
    }

    #[test]
    fn forged_headers_are_refused() {
        let first_weight = 1;
        let told = |change: fn(&mut Header)| message(&forged(change));
        assert!(read(shared(&forged(|_| ()))).is_ok());
        assert!(told(|h| h.version = 2).contains("this is version 2 of the format, known is version 1"));
        assert!(told(|h| h.sections.clear()).contains("the sections end here"));
        assert!(told(|h| h.sections[2].offset += 64).contains("section 2 should start here"));
        assert!(told(|h| h.sections[2].offset = u64::MAX).contains("section 2 should start here"));
        assert!(told(|h| h.sections[0].length = u64::MAX).contains("the file ends within section 0"));
        assert!(told(|h| h.sections[0].length -= 1).contains("padding should be zeros"));
        assert!(told(|h| h.sections[1].checksum ^= 1).contains("the section @wte does not match its checksum"));
        assert!(told(|h| h.sections[1].name = "x".into()).contains("the file has no weight @wte"));
        assert!(told(|h| h.sections[1].elem = "i32".into()).contains("the file's weight is i32[16, 4]"));
        assert!(told(|h| h.sections[1].sizes = vec![4, 16]).contains("the file's weight is f32[4, 16]"));
        assert!(told(|h| h.sections[0].kind = 9).contains("the file has no program"));
        assert!(told(|h| h.sections[0].name = "x".into()).contains("the sections are not those of the program"));
        assert!(told(|h| h.sections.last_mut().expect("some").kind = 9).contains("the sections are not those"));
        assert!(told(|h| h.sections.last_mut().expect("some").kind = 3).contains("the sections are not those"));
        let swapped = forged(|h| h.sections.swap(first_weight, first_weight + 1));
        assert!(message(&swapped).contains("section 1 should start here"));
        assert!(message(&[]).contains("this is no `.snn` file"));
    }

    #[test]
    fn headers_have_one_form() {
        let bytes = written(&sample());
        let (header, _) = read_header(&bytes).expect("it was written");
        let unknown = [header.encode_to_vec(), vec![0x7a, 1, 0]].concat();
        let longer = [vec![0x08, 0x81, 0x00], header.encode_to_vec()[2..].to_vec()].concat();
        for other in [unknown, longer] {
            let error = read_header(&seal(&other)).expect_err("another form");
            assert!(error.message.starts_with("the header has fields that version 1 does not know"), "{error}");
        }
        assert!(message(&seal(&[0xff; 9])).contains("the header cannot be read"));
        assert!(
            message(&[&MAGIC[..], &[0xff; 12]].concat()).contains("a header of 4294967295 bytes; 1048576 are possible")
        );
    }

    /// A file around other bytes of the program.
    fn around(program: &str) -> Vec<u8> {
        let file = sample();
        let hashes: Vec<u64> = file.graph.weights.iter().map(|weight| text::hash(&weight.tensor)).collect();
        let parts = parts(&file, program, &hashes);
        let mut bytes = head(parts.iter().map(|(section, _)| section.clone()).collect(), file.language.clone())
            .expect("it is short");
        for (_, part) in parts {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(part);
        }
        bytes
    }

    #[test]
    fn programs_are_read_as_strictly_as_headers() {
        let program = text::print(&sample().graph);
        assert_eq!(around(&program), written(&sample()));
        let told = |from: &str, to: &str| message(&around(&program.replacen(from, to, 1)));
        assert_eq!(told("%0 = ", "%0 =  "), "program: this is not the canonical text of the program");
        let typo = "program 18:6: `decoded` is no operation without attributes";
        assert_eq!(told("decode(", "decoded("), typo);
        assert!(told("f32[16,4]", "f32[16,5]").contains("the file's weight is f32[16, 4]"));
        assert!(told("context=8", "context=9").contains("a table of 8 rows is short of a context of 9 positions"));
    }

    #[test]
    fn bytes_that_are_not_aligned_are_refused() {
        struct Shifted(Aligned);
        impl AsRef<[u8]> for Shifted {
            fn as_ref(&self) -> &[u8] {
                &self.0.as_ref()[1..]
            }
        }
        let bytes = [vec![0], written(&sample())].concat();
        let mut aligned = Aligned(vec![0; bytes.len().div_ceil(8)], bytes.len());
        bytemuck::cast_slice_mut(&mut aligned.0)[..bytes.len()].copy_from_slice(&bytes);
        let errors = read(Arc::new(Shifted(aligned))).expect_err("views would not be aligned");
        assert!(errors[0].message.contains("should start at a multiple of 4 in memory"), "{}", errors[0]);
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            proptest::prop_assert!(read(shared(&bytes)).is_err());
            proptest::prop_assert!(read(shared(&[&MAGIC[..], &bytes].concat())).is_err());
            proptest::prop_assert!(read(shared(&seal(&bytes))).is_err());
        }

        #[test]
        fn garbage_in_the_middle_is_refused(at in 0usize..2000, garbage in proptest::collection::vec(proptest::num::u8::ANY, 1..9)) {
            let bytes = written(&sample());
            let mut damaged = bytes.clone();
            damaged.splice(at..(at + garbage.len()).min(bytes.len()), garbage);
            proptest::prop_assert!(damaged == bytes || read(shared(&damaged)).is_err());
        }
    }
}
