//! Instructions of the machine from their bytes.

use snnc_runtime::FunctionListing;

/// An instruction, a label or a constant of machine code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins within its function.
    pub offset: u32,
    /// Its bytes; none for a label.
    pub bytes: Vec<u8>,
    /// As an assembler reads it.
    pub text: String,
    /// Whether it is one, and no label or constant.
    pub runs: bool,
}

/// Bytes of a constant that are shown on a line.
const CONSTANT: usize = 16;

/// All of a function's code.
#[cfg(target_arch = "x86_64")]
pub fn instructions(listing: &FunctionListing) -> Option<Vec<Instruction>> {
    use iced_x86::{Decoder, DecoderOptions, Instruction as Decoded, Mnemonic, OpKind};
    use std::collections::BTreeSet;
    let map = &listing.map;
    let end = map.ranges.iter().map(|range| range.end as usize).max().unwrap_or(0).min(map.code.len());
    let decoded: Vec<Decoded> = Decoder::with_ip(64, &map.code[..end], 0, DecoderOptions::NONE).into_iter().collect();
    let branches =
        |at: &&Decoded| at.op_count() == 1 && at.op0_kind() == OpKind::NearBranch64 && at.mnemonic() != Mnemonic::Call;
    let targets: BTreeSet<u64> = decoded.iter().filter(branches).map(Decoded::near_branch_target).collect();
    let mut formatter = formatter();
    let mut all = Vec::new();
    for at in &decoded {
        let offset = at.ip() as u32;
        if targets.contains(&at.ip()) {
            all.push(Instruction { offset, bytes: Vec::new(), text: format!("{}:", label(at.ip())), runs: false });
        }
        let bytes = map.code[at.ip() as usize..at.next_ip() as usize].to_vec();
        let within = offset..offset + bytes.len() as u32;
        let called = map.calls.iter().find(|(place, _)| within.contains(place)).map(|(_, name)| name.as_str());
        let branch = branches(&at).then(|| label(at.near_branch_target()));
        all.push(Instruction { offset, bytes, text: formatted(&mut formatter, at, branch, called), runs: true });
    }
    for (i, bytes) in map.code[end..].chunks(CONSTANT).enumerate() {
        let offset = (end + CONSTANT * i) as u32;
        let text = bytes.iter().map(|byte| format!("{byte:#04x}")).collect::<Vec<_>>().join(", ");
        all.push(Instruction { offset, bytes: bytes.to_vec(), text: format!(".byte {text}"), runs: false });
    }
    Some(all)
}

/// There is no disassembler for this machine here.
#[cfg(not(target_arch = "x86_64"))]
pub fn instructions(_: &FunctionListing) -> Option<Vec<Instruction>> {
    None
}

#[cfg(target_arch = "x86_64")]
fn formatter() -> iced_x86::GasFormatter {
    use iced_x86::Formatter;
    let mut formatter = iced_x86::GasFormatter::new();
    let options = formatter.options_mut();
    options.set_rip_relative_addresses(false);
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    options.set_first_operand_char_index(8);
    formatter
}

/// An instruction with the label that it jumps to or the function that it names.
#[cfg(target_arch = "x86_64")]
fn formatted(
    formatter: &mut iced_x86::GasFormatter,
    at: &iced_x86::Instruction,
    branch: Option<String>,
    called: Option<&str>,
) -> String {
    use iced_x86::Formatter;
    let mut text = String::new();
    match (branch, called) {
        (Some(target), _) => {
            formatter.format_mnemonic(at, &mut text);
            text = format!("{text:<8}{target}");
        }
        (None, Some(name)) if at.mnemonic() == iced_x86::Mnemonic::Call => text = format!("call    {name}"),
        (None, Some(name)) => {
            formatter.format(at, &mut text);
            text += &format!("  # address of {name}");
        }
        (None, None) => {
            formatter.format(at, &mut text);
            if at.is_ip_rel_memory_operand() {
                text += &format!("  # constant at {:04x}", at.ip_rel_memory_address());
            }
        }
    }
    text
}

#[cfg(target_arch = "x86_64")]
fn label(offset: u64) -> String {
    format!(".L{offset:04x}")
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use snnc_runtime::{CodeMap, CodeRange};

    #[test]
    fn code_is_read_to_its_end_and_constants_follow() {
        // jmp over a call of `kernel` through its address, then a load of the constant.
        let mut code =
            vec![0xeb, 0x0c, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x0f, 0x28, 0x05, 1, 0, 0, 0, 0xc3];
        let end = code.len() as u32;
        code.extend([7; 16]);
        let ranges = vec![CodeRange { start: 0, end, instruction: Some(0) }];
        let map = CodeMap { code, ranges, calls: vec![(4, "kernel".into())], ..CodeMap::default() };
        let listing = FunctionListing { name: "f".into(), clif: String::new(), asm: String::new(), map };
        let texts: Vec<String> = instructions(&listing).expect("it is x86-64").into_iter().map(|at| at.text).collect();
        assert_eq!(texts[0], "jmp     .L000e");
        assert_eq!(texts[1], "movabs  $0, %rax  # address of kernel");
        assert_eq!(texts[2], "call    *%rax");
        assert_eq!(texts[3], ".L000e:");
        assert_eq!(texts[4], "movaps  0x16, %xmm0  # constant at 0016");
        assert_eq!(texts[5], "ret");
        assert!(texts[6].starts_with(".byte 0x07, 0x07"), "{texts:?}");
        assert_eq!(texts.len(), 7);
    }
}
