//! Processes that `mpirun` or `srun` started, as ranks of snnc. Without its feature `mpi` this crate is empty.
//!
//! Law: a process that ends before all have ended ends all. So no rank waits for one that is gone.

#![warn(missing_docs)]
#![cfg(feature = "mpi")]

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
use snnc::ranks::Ranks;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Bytes that a rank sends in one call, at most: counts of MPI have 31 bits, and each call copies as much.
const BYTES_AT_ONCE: usize = 1 << 26;

/// All processes of the program.
#[derive(Debug)]
pub struct MpiRanks {
    rank: usize,
    count: usize,
    /// Calls come from any thread, one at a time.
    calls: Mutex<()>,
}

/// This process as a part of the program, to the end of its work.
pub struct MpiProcess {
    universe: Option<Universe>,
}

impl fmt::Debug for MpiProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MpiProcess")
    }
}

/// Joins the other processes. Waits until all have.
///
/// # Errors
/// This MPI allows calls from one thread alone, or was begun before.
pub fn join() -> Result<(MpiProcess, MpiRanks), Diagnostic> {
    let refused = |message: &str| Err(Diagnostic::new("MPI", message).code(ErrorCode::RUN));
    let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Serialized) else {
        return refused("was begun before");
    };
    let world = SimpleCommunicator::world();
    let (rank, count) = (world.rank() as usize, world.size() as usize);
    let process = MpiProcess { universe: Some(universe) };
    if threading < Threading::Serialized {
        return refused("takes calls from one thread alone; use an MPI with MPI_THREAD_SERIALIZED");
    }
    Ok((process, MpiRanks { rank, count, calls: Mutex::new(()) }))
}

/// Ends all processes with this exit status.
pub fn abort(status: i32) -> ! {
    SimpleCommunicator::world().abort(status)
}

impl MpiProcess {
    /// Ends this process's part, once all others are here as well.
    pub fn finish(mut self) {
        SimpleCommunicator::world().barrier();
        drop(self.universe.take());
    }
}

impl Drop for MpiProcess {
    /// The others would wait for a process that panics, and it for them.
    fn drop(&mut self) {
        if self.universe.is_some() {
            abort(1);
        }
    }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.count
    }

    fn exchange(&self, mut messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Diagnostic> {
        assert_eq!(messages.len(), self.count, "a message for every rank");
        let _one = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let world = SimpleCommunicator::world();
        // What a rank sends itself stays here.
        let own = std::mem::take(&mut messages[self.rank]);
        let lengths: Vec<u64> = messages.iter().map(|message| message.len() as u64).collect();
        let mut coming = vec![0u64; self.count];
        world.all_to_all_into(&lengths[..], &mut coming[..]);
        let mut received: Vec<Vec<u8>> = coming.iter().map(|&bytes| vec![0; bytes as usize]).collect();
        let piece = (BYTES_AT_ONCE / self.count).max(1);
        let longest = lengths.iter().chain(&coming).copied().max().unwrap_or(0) as usize;
        let mut most = vec![0u64; self.count];
        world.all_gather_into(&(longest as u64), &mut most[..]);
        let rounds = most.into_iter().max().unwrap_or(0).div_ceil(piece as u64) as usize;
        for round in 0..rounds {
            exchange_piece(&world, &messages, &mut received, round * piece, piece);
        }
        received[self.rank] = own;
        Ok(received)
    }
}

/// Sends so many bytes of every message, from byte `at` on.
fn exchange_piece(world: &SimpleCommunicator, messages: &[Vec<u8>], received: &mut [Vec<u8>], at: usize, piece: usize) {
    let part = |bytes: usize| at.min(bytes)..(at + piece).min(bytes);
    let layout = |lengths: &[usize]| -> (Vec<i32>, Vec<i32>) {
        let counts: Vec<i32> = lengths.iter().map(|&bytes| part(bytes).len() as i32).collect();
        let starts = counts.iter().scan(0, |start, count| Some(std::mem::replace(start, *start + count))).collect();
        (counts, starts)
    };
    let (send_counts, send_starts) = layout(&messages.iter().map(Vec::len).collect::<Vec<usize>>());
    let (counts, starts) = layout(&received.iter().map(Vec::len).collect::<Vec<usize>>());
    // One byte more than is sent: an empty list has an address that may be that of MPI_IN_PLACE.
    let mut sent = Vec::with_capacity(1 + send_counts.iter().sum::<i32>() as usize);
    messages.iter().for_each(|message| sent.extend_from_slice(&message[part(message.len())]));
    sent.push(0);
    let mut got = vec![0u8; 1 + counts.iter().sum::<i32>() as usize];
    let to = Partition::new(&sent[..], &send_counts[..], &send_starts[..]);
    let mut from = PartitionMut::new(&mut got[..], &counts[..], &starts[..]);
    world.all_to_all_varcount_into(&to, &mut from);
    let mut rest = &got[..];
    for message in received {
        let part = part(message.len());
        let (own, after) = rest.split_at(part.len());
        message[part].copy_from_slice(own);
        rest = after;
    }
}
