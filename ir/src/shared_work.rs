//! Work on many pieces of memory, shared by the cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Bytes from which a second thread is worth its start.
const MUCH: usize = 8 << 20;

/// Threads that memory keeps busy.
const THREADS: usize = 8;

/// What `work` says of every item, in their order. They are so many bytes together; a system that gives no threads gets the work
/// done by this one.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], bytes: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = match bytes {
        ..MUCH => 1,
        MUCH.. => thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(items.len()),
    };
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        while let (i, Some(item)) = take(items, &next) {
            done.push((i, work(item)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, some).ok()).collect();
        let mut done = some();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|&(i, _)| i);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, T>(items: &'a [T], next: &AtomicUsize) -> (usize, Option<&'a T>) {
    let i = next.fetch_add(1, Ordering::Relaxed);
    (i, items.get(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order() {
        let items: Vec<usize> = (0..1000).collect();
        let squares: Vec<usize> = items.iter().map(|x| x * x).collect();
        for bytes in [0, MUCH] {
            assert_eq!(map(&items, bytes, |x| x * x), squares);
        }
        assert_eq!(map(&[0; 0], MUCH, |x| *x), []);
    }
}
