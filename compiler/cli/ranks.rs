//! Processes that run one command together, as `mpirun` starts them. Rank 0 says what happens and writes all files.
//!
//! A build without the feature `mpi` refuses to be one of several, which would do the same work and write the same files.

use snnc::ranks::{Alone, Ranks};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

/// What a command does with several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// They share its work.
    Ranks,
    /// Each has a share of its own, by the variables of Slurm.
    Tasks,
    /// Nothing.
    Alone,
}

static WORLD: OnceLock<&'static dyn Ranks> = OnceLock::new();

/// The processes of this command.
pub fn world() -> &'static dyn Ranks {
    WORLD.get().copied().unwrap_or(&Alone)
}

/// Whether this process prints and writes files.
pub fn is_first() -> bool {
    world().is_first()
}

/// The end of a command: an exit status that all ranks come to, or one that this rank alone may have.
pub type CommandEnd = Result<u8, u8>;

/// How long other ranks leave rank 0 to tell of an error that all meet.
const FIRST_TELLS: Duration = Duration::from_millis(500);

/// Before an error is told of: an error that all ranks meet is told of once, because rank 0 then ends all.
pub fn wait_for_first() {
    if !is_first() {
        std::thread::sleep(FIRST_TELLS);
    }
}

/// Variables in which launchers of MPI programs say how many processes they have started.
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// How many processes a launcher has started.
fn launched() -> usize {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    // With PMIx, `srun` says it by a variable that it sets for all its tasks.
    let slurm = std::env::var_os("PMIX_RANK").and_then(|_| number("SLURM_STEP_NUM_TASKS"));
    SIZES.iter().filter_map(|name| number(name)).chain(slurm).max().unwrap_or(1)
}

/// This process among the others.
#[derive(Debug)]
pub struct Membership {
    #[cfg(feature = "mpi")]
    process: Option<snnc_mpi::MpiProcess>,
}

impl Membership {
    fn alone() -> Self {
        Self {
            #[cfg(feature = "mpi")]
            process: None,
        }
    }

    /// Ends this process, and where it alone has failed, all.
    pub fn end(self, ended: CommandEnd) -> ExitCode {
        #[cfg(feature = "mpi")]
        if let Some(process) = self.process {
            match ended {
                Ok(_) => process.finish(),
                Err(status) => snnc_mpi::abort(status.into()),
            }
        }
        ExitCode::from(ended.unwrap_or_else(|status| status))
    }
}

/// Joins the processes that a launcher has started, if there are several.
///
/// # Errors
/// There are, and the command or this build cannot use them.
pub fn join(spread: Spread) -> Result<Membership, Diagnostic> {
    let count = launched();
    if count == 1 || spread == Spread::Tasks {
        return Ok(Membership::alone());
    }
    if spread == Spread::Alone {
        let message = format!("{count} processes were started, and this command runs in one");
        let note =
            "run it without mpirun or srun; eval, energy, tune, train and run --split-layers share their work out";
        return Err(Diagnostic::new("", message).code(ErrorCode::OPTION).note(note));
    }
    join_mpi(count)
}

#[cfg(feature = "mpi")]
fn join_mpi(_: usize) -> Result<Membership, Diagnostic> {
    let (process, ranks) = snnc_mpi::join()?;
    // The first is the only one.
    let _ = WORLD.set(Box::leak(Box::new(ranks)));
    Ok(Membership { process: Some(process) })
}

#[cfg(not(feature = "mpi"))]
fn join_mpi(count: usize) -> Result<Membership, Diagnostic> {
    let message = format!("{count} processes were started, and this build has no MPI: each would do all the work");
    let diagnostic = Diagnostic::new("", message).code(ErrorCode::OPTION);
    Err(diagnostic.note("build with --features mpi, or share the work out with --shard and `snnc merge`"))
}
