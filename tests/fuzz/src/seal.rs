//! A `.snn` file in parts, put together with right checksums whatever the parts say.

use prost::Message;
use snnc_ir::{LanguageConfig, container};
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64;

/// The header, as `docs/snn-format.md` describes it.
#[derive(Clone, PartialEq, Message)]
struct SealedHeader {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    sections: Vec<SealedSection>,
    #[prost(message, optional, tag = "3")]
    language: Option<LanguageConfig>,
}

/// A section's row of the header.
#[derive(Clone, PartialEq, Message)]
struct SealedSection {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    offset: u64,
    #[prost(uint64, tag = "3")]
    length: u64,
    #[prost(fixed64, tag = "4")]
    checksum: u64,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(string, tag = "6")]
    elem: String,
    #[prost(uint64, repeated, tag = "7")]
    sizes: Vec<u64>,
}

const PROGRAM: i32 = 1;
const WEIGHT: i32 = 2;
const ALIGNMENT: usize = 64;

/// What a `.snn` file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// The program as text.
    pub program: String,
    /// Its weights, in order.
    pub weights: Vec<StoredWeight>,
    /// Other sections: their kind and their bytes.
    pub others: Vec<(i32, Vec<u8>)>,
    /// What the header says of its language.
    pub language: Option<LanguageConfig>,
}

/// A weight's section.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredWeight {
    /// As the program calls it.
    pub name: String,
    /// Elements and their layout.
    pub elem: String,
    /// Sizes.
    pub sizes: Vec<u64>,
    /// Elements, little-endian.
    pub bytes: Vec<u8>,
}

impl Parts {
    /// The parts of a file, if it is one as far as its header goes.
    pub fn open(file: &[u8]) -> Option<Self> {
        let length = u32::from_le_bytes(*file.get(4..8)?.first_chunk()?) as usize;
        let header = SealedHeader::decode(file.get(8..8 + length)?).ok()?;
        let first = (16 + length).next_multiple_of(ALIGNMENT);
        let mut parts = Self { language: header.language, ..Self::default() };
        for SealedSection { kind, offset, length, name, elem, sizes, .. } in header.sections {
            let start = first.checked_add(usize::try_from(offset).ok()?)?;
            let bytes = file.get(start..start.checked_add(usize::try_from(length).ok()?)?)?.to_vec();
            match kind {
                PROGRAM => parts.program = String::from_utf8(bytes).ok()?,
                WEIGHT => parts.weights.push(StoredWeight { name, elem, sizes, bytes }),
                _ => parts.others.push((kind, bytes)),
            }
        }
        Some(parts)
    }

    /// The file, with the right checksums in its header and in the program's text.
    pub fn seal(&self) -> Vec<u8> {
        let program = self.with_hashes();
        let rows = |weight: &StoredWeight| SealedSection {
            kind: WEIGHT,
            name: weight.name.clone(),
            elem: weight.elem.clone(),
            sizes: weight.sizes.clone(),
            ..SealedSection::default()
        };
        let plain = |kind| SealedSection { kind, ..SealedSection::default() };
        let mut sections = vec![(plain(PROGRAM), program.as_bytes())];
        sections.extend(self.weights.iter().map(|weight| (rows(weight), weight.bytes.as_slice())));
        sections.extend(self.others.iter().map(|(kind, bytes)| (plain(*kind), bytes.as_slice())));
        let mut end = 0;
        for (section, bytes) in &mut sections {
            section.offset = end;
            section.length = bytes.len() as u64;
            section.checksum = xxh3_64(bytes);
            end = (end + section.length).next_multiple_of(ALIGNMENT as u64);
        }
        let header = SealedHeader {
            version: container::VERSION,
            sections: sections.iter().map(|(section, _)| section.clone()).collect(),
            language: self.language.clone(),
        };
        let header = header.encode_to_vec();
        let mut file = container::MAGIC.to_vec();
        file.extend((header.len() as u32).to_le_bytes());
        file.extend(header);
        file.extend(xxh3_64(&file).to_le_bytes());
        for (_, bytes) in sections {
            file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
            file.extend(bytes);
        }
        file
    }

    /// The program with the hash of every weight as it is now.
    fn with_hashes(&self) -> String {
        let hashes: HashMap<&str, u64> =
            self.weights.iter().map(|weight| (weight.name.as_str(), xxh3_64(&weight.bytes))).collect();
        let line = |line: &str| {
            let known = line.strip_prefix("weight @").and_then(|rest| {
                let (name, _) = rest.split_once(" : ")?;
                hashes.get(name.trim_matches('"'))
            });
            match (known, line.rsplit_once(' ')) {
                (Some(hash), Some((before, last))) if last.len() == 16 => format!("{before} {hash:016x}\n"),
                _ => format!("{line}\n"),
            }
        };
        self.program.lines().map(line).collect()
    }
}

/// Bytes at an aligned place, as those of a mapped file.
#[derive(Debug)]
pub struct AlignedBytes(Vec<u64>, usize);

impl AlignedBytes {
    /// A copy.
    pub fn new(bytes: &[u8]) -> Self {
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        };
        Self(bytes.chunks(8).map(word).collect(), bytes.len())
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
}
