//! Where machine code comes from: every instruction of Cranelift's IR has a number, which is its source location, so that
//! every instruction of the machine says from which one it was made, and both of which steps of the plan they are.

use cranelift_codegen::binemit::CodeOffset;
use cranelift_codegen::ir::{ExternalName, Function, SourceLoc};
use cranelift_codegen::{CompiledCode, FinalizedRelocTarget};
use cranelift_module::{FuncId, Module};

/// Some bytes of machine code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// The first of them.
    pub start: u32,
    /// The first behind them.
    pub end: u32,
    /// The instruction of Cranelift's IR that they were made from; `None` for what a function begins with, and for what the
    /// optimiser made anew.
    pub instruction: Option<u32>,
}

/// A compiled function's code, and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeMap {
    /// By line of Cranelift's IR: the number of its instruction. Headers have none.
    pub lines: Vec<Option<u32>>,
    /// By instruction of Cranelift's IR: an index into `steps`.
    pub instructions: Vec<u32>,
    /// Sets of steps of the plan, in ascending order. The first one is that of what belongs to no instruction.
    pub steps: Vec<Vec<u32>>,
    /// The bytes, before addresses of other functions are put in.
    pub code: Vec<u8>,
    /// Ranges of instructions, in ascending order. Constants follow the last of them.
    pub ranges: Vec<CodeRange>,
    /// Where the address of a function is put in, and its name.
    pub calls: Vec<(u32, String)>,
}

/// Makes the number of every instruction its source location. By instruction: what its location was before.
pub fn number(function: &mut Function) -> Vec<Option<u32>> {
    let blocks: Vec<_> = function.layout.blocks().collect();
    let insts: Vec<_> = blocks.iter().flat_map(|&block| function.layout.block_insts(block)).collect();
    let before = insts.iter().map(|&inst| function.srcloc(inst)).map(known).collect();
    for (i, inst) in insts.into_iter().enumerate() {
        function.set_srcloc(inst, SourceLoc::new(i as u32));
    }
    before
}

fn known(location: SourceLoc) -> Option<u32> {
    (!location.is_default()).then(|| location.bits())
}

/// Columns that Cranelift indents instructions by where there are locations, and where there are none.
const INDENTS: [usize; 2] = [36, 4];

/// The text of a function without the locations that `number` made; and the numbers of its lines.
pub fn without_numbers(text: &str) -> (String, Vec<Option<u32>>) {
    let mut plain = String::with_capacity(text.len());
    let mut numbers = Vec::new();
    let spare = " ".repeat(INDENTS[0] - INDENTS[1]);
    for line in text.lines() {
        let location = line.strip_prefix('@').and_then(|line| line.split_once(' '));
        let number = location.and_then(|(number, _)| u32::from_str_radix(number, 16).ok());
        match (number, location) {
            (Some(_), Some((_, rest))) => plain.extend([&" ".repeat(INDENTS[1]), rest.trim_start()]),
            _ => plain += line.strip_prefix(&spare).unwrap_or(line),
        }
        plain.push('\n');
        numbers.push(number);
    }
    (plain, numbers)
}

impl CodeMap {
    /// Of a function that was numbered and compiled. `steps` and `instructions` are those of the map.
    pub fn new(
        (steps, instructions): (Vec<Vec<u32>>, Vec<u32>),
        lines: Vec<Option<u32>>,
        compiled: &CompiledCode,
        function: &Function,
        module: &impl Module,
    ) -> Self {
        let range = |(start, end, location): (CodeOffset, CodeOffset, SourceLoc)| CodeRange {
            start,
            end,
            instruction: known(location),
        };
        let locations = compiled.buffer.get_srclocs_sorted().iter();
        let ranges = locations.map(|at| range((at.start, at.end, at.loc))).collect();
        let name = |target: &FinalizedRelocTarget| match target {
            FinalizedRelocTarget::ExternalName(ExternalName::User(name)) => {
                let name = function.params.user_named_funcs().get(*name)?;
                let declared = module.declarations().get_function_decl(FuncId::from_u32(name.index));
                declared.name.clone()
            }
            FinalizedRelocTarget::ExternalName(name) => Some(name.display(None).to_string()),
            FinalizedRelocTarget::Func(_) => None,
        };
        let relocs = compiled.buffer.relocs().iter();
        let calls = relocs.filter_map(|reloc| Some((reloc.offset, name(&reloc.target)?))).collect();
        Self { lines, instructions, steps, code: compiled.code_buffer().to_vec(), ranges, calls }
    }
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn a_listing_is_as_it_was_before_it_was_numbered() {
        let numbered = "function u0:0(i64) {\n                                block0(v0: i64):\n@0000                               \
                        v1 = iconst.i64 0\n@001f                               return\n}\n";
        let (text, numbers) = without_numbers(numbered);
        assert_eq!(text, "function u0:0(i64) {\nblock0(v0: i64):\n    v1 = iconst.i64 0\n    return\n}\n");
        assert_eq!(numbers, [None, None, Some(0), Some(31), None]);
    }
}
