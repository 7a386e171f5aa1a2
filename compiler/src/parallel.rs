//! Independent pieces of work on several threads of several processes, in order.
//!
//! Law: what comes out is in the order of the items, whichever thread of whichever rank did which. So no result depends on the number
//! of threads or ranks.

use crate::progress::{Workers, cancelled};
use crate::ranks;
use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use snnc_passes::side_by_side::SideBySide;
use snnc_runtime::threads_that_fit;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Threads that work at most, however many are asked for.
pub const THREADS_MAX: usize = 1024;

/// How long threads that have nothing to do take to end.
const ENDING: Duration = Duration::from_millis(20);

/// So many threads, one at least; fewer where the system gives no more.
///
/// # Errors
/// The system gives none.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, Diagnostic> {
    let mut threads = threads_that_fit(threads.clamp(1, THREADS_MAX));
    loop {
        match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => return Ok(pool),
            Err(_) if threads > 1 => {
                threads /= 2;
                // Those that did start end by themselves, and hold memory until then.
                std::thread::sleep(ENDING);
            }
            Err(e) => {
                let error = Diagnostic::new("--threads", format!("not even one thread can be started: {e}"));
                return Err(error
                    .code(ErrorCode::RUN)
                    .note("raise the limits of processes and memory (ulimit -u, -v)"));
            }
        }
    }
}

/// Pieces of work on so many threads.
///
/// # Errors
/// As of `pool`.
pub fn side_by_side(threads: usize) -> Result<SideBySide, Diagnostic> {
    let pool = pool(threads)?;
    Ok(SideBySide::new(move |count, piece| pool.install(|| (0..count).into_par_iter().with_max_len(1).for_each(piece))))
}

/// What two pieces of work make, the first on a thread of its own where the system gives one.
///
/// # Panics
/// As one of them does.
pub fn both<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    // The thread takes the work out of here. Where there is no thread, it is still here afterwards.
    let work = Mutex::new(Some(first));
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new().spawn_scoped(scope, || take().map(|work| work()));
        let second = second();
        let first = other.ok().map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        match first.flatten().or_else(|| take().map(|work| work())) {
            Some(first) => (first, second),
            None => unreachable!("one of the two takes it"),
        }
    })
}

/// What `work` makes of every item, in their order, and the states that this process used: one per thread at most, each made when a
/// thread first needs one and handed from item to item.
///
/// Every rank does a share of the items and has the results of all. JSON must keep them exactly.
///
/// ```
/// use snnc::parallel::map_in_order;
/// let (squares, _) = map_in_order(2.into(), &[1, 2, 3], || Ok(()), |(), _, x| Ok(x * x))?;
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
///
/// # Errors
/// The error of an item, after which no other is begun; a request to stop; no threads; a rank that cannot be reached.
///
/// # Panics
/// As an item does, once no other is at work.
pub fn map_in_order<S: Send, I: Sync, T: Send + Serialize + DeserializeOwned>(
    workers: Workers<'_>,
    items: &[I],
    make: impl Fn() -> Result<S, Diagnostic> + Sync,
    work: impl Fn(&mut S, usize, &I) -> Result<T, Diagnostic> + Sync,
) -> Result<(Vec<T>, Vec<S>), Diagnostic> {
    let own: Vec<usize> = dealt(items.len(), workers.ranks.rank(), workers.ranks.count()).collect();
    let pool = pool(workers.threads.min(own.len()))?;
    let states: Mutex<Vec<S>> = Mutex::new(Vec::new());
    let idle = || states.lock().unwrap_or_else(PoisonError::into_inner);
    let one = |&i: &usize| {
        if workers.progress.is_cancelled() {
            return Err(cancelled());
        }
        let free = idle().pop();
        let mut state = free.map_or_else(&make, Ok)?;
        let done = work(&mut state, i, &items[i]);
        idle().push(state);
        done
    };
    // `with_max_len`: an item is long work, and a thread that is done takes the next.
    let done = pool.install(|| own.par_iter().with_max_len(1).map(one).collect::<Result<Vec<T>, _>>())?;
    let done = if workers.ranks.count() == 1 { done } else { in_turn(ranks::gathered(workers.ranks, &done)?) };
    if done.len() < items.len() {
        let message = format!("{} of {} results came from the ranks", done.len(), items.len());
        return Err(Diagnostic::new("", message).code(ErrorCode::RUN).note("start the same snnc on every rank"));
    }
    Ok((done, states.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// The items of share `which` of so many: items are dealt in turn, because neighbours take about as long.
pub fn dealt(items: usize, which: usize, shares: usize) -> impl Iterator<Item = usize> {
    (which..items).step_by(shares.max(1))
}

/// Shares that were dealt, as one list in the order of the items.
pub fn in_turn<T>(shares: Vec<Vec<T>>) -> Vec<T> {
    let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(shares.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_the_items_and_states_are_few() {
        let items: Vec<u64> = (0..50).collect();
        for threads in [1, 2, 3, 64] {
            let (done, states) =
                map_in_order(threads.into(), &items, || Ok(0u64), |sum, i, item| Ok((*sum += item, i, *item)))
                    .expect("nothing fails");
            assert!(done.iter().enumerate().all(|(at, &(_, i, item))| at == i && items[i] == item));
            assert!(states.len() <= threads && states.iter().sum::<u64>() == 49 * 25);
        }
    }

    #[test]
    fn what_is_dealt_comes_back_in_order() {
        for items in 0..9 {
            for shares in 1..12 {
                let all: Vec<Vec<usize>> = (0..shares).map(|which| dealt(items, which, shares).collect()).collect();
                assert_eq!(in_turn(all), (0..items).collect::<Vec<usize>>(), "{items} in {shares}");
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        for threads in [1, 2, 8] {
            let work = |_: &mut (), i, _: &u8| if i == 7 { panic!("on purpose: {i}") } else { Ok(()) };
            let run = || map_in_order(threads.into(), &[0u8; 40], || Ok(()), work).map(drop);
            let told = std::panic::catch_unwind(run).expect_err("one panics");
            assert_eq!(told.downcast_ref::<String>().map(String::as_str), Some("on purpose: 7"));
        }
    }

    #[test]
    fn an_error_ends_it() {
        let fails = |_: &mut (), i, _: &u8| if i == 7 { Err(Diagnostic::new("7", "fails")) } else { Ok(()) };
        let told = map_in_order(2.into(), &[0u8; 20], || Ok(()), fails).expect_err("one fails");
        assert_eq!(told.message, "fails");
    }
}
