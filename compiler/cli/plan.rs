//! What a program became on this machine: machine code to read, and the plan with what it chose and why.

use clap::Args;
use snnc::convert::{seeded_ids, vocabulary};
use snnc::file_use::FileUse;
use snnc::files;
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::{MatmulCounts, Program, Rows, Session};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Plan and machine code")]
pub struct PlanArgs {
    /// Print the plan: what runs each step, where its result lies, and how each matrix product is done
    #[arg(long)]
    explain_plan: bool,
    /// Print machine code by function: `clif` (Cranelift IR), `asm` (instructions), or `clif=FILE` to write a file
    #[arg(long, value_name = "clif|asm[=FILE]", value_delimiter = ',', value_parser = emitted)]
    emit: Vec<Emit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Emit {
    form: ListingForm,
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListingForm {
    Clif,
    Asm,
}

fn emitted(text: &str) -> Result<Emit, String> {
    let (form, file) = text.split_once('=').map_or((text, None), |(form, file)| (form, Some(file)));
    let form = match form {
        "clif" => ListingForm::Clif,
        "asm" => ListingForm::Asm,
        _ => return Err(format!("there is no `{form}` of a program; there are clif and asm")),
    };
    if file.is_some_and(str::is_empty) {
        return Err("it is written clif=FILE or asm=FILE".into());
    }
    Ok(Emit { form, file: file.map(PathBuf::from) })
}

/// Seeded tokens whose densities are shown where no text was run.
const TOKENS: usize = 64;

impl PlanArgs {
    pub fn asked(&self) -> bool {
        self.explain_plan || !self.emit.is_empty()
    }

    /// With the files that listings go to.
    pub fn files(&self, used: FileUse) -> FileUse {
        used.writes("--emit", self.emit.iter().filter_map(|emit| emit.file.as_ref()))
    }

    /// What was asked for of a program, and of a run's products if there was one, to `show` or to files.
    ///
    /// # Errors
    /// There is no machine code, a file cannot be written, or the program cannot be run.
    pub fn show(
        &self,
        program: &Arc<Program>,
        products: Option<&[MatmulCounts]>,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<(), Diagnostics> {
        if !self.emit.is_empty() {
            self.listings(program, show)?;
        }
        if self.explain_plan {
            let choices = match products {
                Some(products) => program.explain_choices(products),
                None => program.explain_choices(&of_seeded_tokens(program)?),
            };
            show(&format!("{}\n{choices}", program.explain()))?;
        }
        Ok(())
    }

    fn listings(
        &self,
        program: &Program,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<(), Diagnostics> {
        let listings = program.listings()?;
        if listings.is_empty() {
            return Err(Diagnostic::new("--emit", "the interpreter has no machine code")
                .code(ErrorCode::OPTION)
                .into());
        }
        let mut texts = vec![String::new(); self.emit.len()];
        let mut shown = String::new();
        for listing in &listings {
            for (emit, text) in self.emit.iter().zip(&mut texts) {
                let (form, code) = match emit.form {
                    ListingForm::Clif => ("clif", &listing.clif),
                    ListingForm::Asm => ("asm", &listing.asm),
                };
                let text = if emit.file.is_some() { text } else { &mut shown };
                *text += &format!("; {form} {}\n{}\n\n", listing.name, code.trim_end());
            }
        }
        for (emit, text) in self.emit.iter().zip(&texts) {
            if let Some(path) = &emit.file {
                files::write_whole(path, |out| out.write_all(text.as_bytes()))?;
            }
        }
        if shown.is_empty() { Ok(()) } else { show(&shown) }
    }
}

fn of_seeded_tokens(program: &Arc<Program>) -> Result<Vec<MatmulCounts>, Diagnostics> {
    let graph = program.graph();
    let ids = seeded_ids(vocabulary(graph)?, TOKENS.min(graph.context as usize));
    let mut session = Session::new(Arc::clone(program))?;
    session.forward(&ids, Rows::All)?;
    Ok(session.matmul_counts().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_files() {
        let file = Some(PathBuf::from("a=b.txt"));
        assert_eq!(emitted("clif"), Ok(Emit { form: ListingForm::Clif, file: None }));
        assert_eq!(emitted("asm=a=b.txt"), Ok(Emit { form: ListingForm::Asm, file }));
        for (text, part) in [("llvm", "there are clif and asm"), ("ir=fold", "no `ir`"), ("asm=", "asm=FILE")] {
            let told = emitted(text).expect_err(text);
            assert!(told.contains(part), "{told}");
        }
    }
}
