//! Threads that share one kernel's work: they spin for a moment after each job, then sleep.
//!
//! A job is a number of parts. Every thread that is awake takes the next part, the caller included, so that a thread which the system
//! does not run holds nobody up: the caller then does all parts itself. Which thread does a part never shows in a result.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Parts of a job at most: what of a ticket counts parts.
const PARTS_MAX: usize = 1 << 14;

/// Threads of a pool at most: each may look for one part too many, and tickets have room for that.
const THREADS_MAX: usize = 256;

/// How long a thread looks for the next job before it sleeps: a token has a job every few tens of microseconds.
const AWAKE: Duration = Duration::from_micros(100);

/// Looks between two looks at the clock.
const LOOKS: usize = 256;

/// A ticket: the job's number, how many parts it has, and the next part.
#[derive(Clone, Copy)]
struct Ticket {
    parts: usize,
    next: usize,
}

impl Ticket {
    fn of(bits: u64) -> Self {
        Self { parts: (bits >> 16 & 0xffff) as usize, next: (bits & 0xffff) as usize }
    }

    fn bits(job: u32, parts: usize) -> u64 {
        u64::from(job) << 32 | (parts as u64) << 16
    }
}

struct JobState {
    ticket: AtomicU64,
    /// Parts of the present job that are finished.
    done: AtomicUsize,
    /// The present job: a pointer to its closure, and the function that calls it for a part.
    closure: AtomicPtr<()>,
    call: AtomicPtr<()>,
    /// What the first part that panicked said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
}

type PartFn = unsafe fn(*const (), usize);

impl JobState {
    /// Takes parts until there are none left.
    fn work(&self) {
        loop {
            let ticket = Ticket::of(self.ticket.load(Ordering::SeqCst));
            if ticket.next >= ticket.parts {
                return;
            }
            let ticket = Ticket::of(self.ticket.fetch_add(1, Ordering::SeqCst));
            if ticket.next >= ticket.parts {
                return;
            }
            let closure = self.closure.load(Ordering::SeqCst);
            let call = self.call.load(Ordering::SeqCst);
            // SAFETY: this part was taken and is not finished, so the caller of its job still waits in `Pool::run`: the
            // closure is alive, and both pointers are that job's, for the next one is put there only after it.
            // `call` was made from a `PartFn` there. Test: `every_part_is_done_once`.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe {
                let call = std::mem::transmute::<*mut (), PartFn>(call);
                call(closure, ticket.next);
            }));
            if let Err(panic) = done {
                self.panic().get_or_insert(panic);
            }
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn panic(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_work(&self) -> bool {
        let ticket = Ticket::of(self.ticket.load(Ordering::SeqCst));
        ticket.next < ticket.parts
    }

    fn serve(&self, me: usize) {
        while !self.stop.load(Ordering::SeqCst) {
            self.work();
            let since = Instant::now();
            while !self.has_work() && since.elapsed() < AWAKE {
                for _ in 0..LOOKS {
                    if self.has_work() || self.stop.load(Ordering::SeqCst) {
                        break;
                    }
                    std::hint::spin_loop();
                }
            }
            if !self.has_work() {
                self.asleep[me].store(true, Ordering::SeqCst);
                // A job that came before this thread said that it sleeps was not woken for.
                if !self.has_work() && !self.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.asleep[me].store(false, Ordering::SeqCst);
            }
        }
    }
}

/// Some threads beside the caller's.
pub struct Pool {
    shared: Arc<JobState>,
    threads: Vec<JoinHandle<()>>,
    /// Keeps the thread that made the pool on its processor.
    _pinned: Option<Pinned>,
    /// The number of the last job. Held while a job runs: a second caller does its own work alone.
    job: Mutex<u32>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool of {} threads", self.threads())
    }
}

impl Pool {
    /// `threads` in all, the caller's among them, fewer where the system gives no more. With `pin`, each stays on a processor of
    /// its own, this one on the first that this process may use, until the pool goes.
    ///
    /// # Errors
    /// There are not so many processors to pin threads to, or the system does not pin.
    pub fn new(threads: usize, pin: bool) -> Result<Self, String> {
        // Nobody pins threads to fewer processors than were asked for.
        let threads = if pin { threads } else { threads_that_fit(threads) };
        let others = threads.clamp(1, THREADS_MAX) - 1;
        let shared = Arc::new(JobState {
            ticket: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            closure: AtomicPtr::new(std::ptr::null_mut()),
            call: AtomicPtr::new(std::ptr::null_mut()),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
        });
        let processors = if pin { processors(others + 1)? } else { Vec::new() };
        let spawn = |me: usize| {
            let (shared, mine) = (Arc::clone(&shared), processors.get(me + 1).copied());
            let serve = move || {
                // It works elsewhere too where the processor has gone since.
                let _ = mine.map(stay_on);
                shared.serve(me);
            };
            std::thread::Builder::new().name(format!("snnc-{}", me + 1)).spawn(serve).ok()
        };
        let threads = (0..others).map_while(spawn).collect();
        let mut pool = Self { shared, threads, _pinned: None, job: Mutex::new(0) };
        pool._pinned = processors.first().copied().map(Pinned::to).transpose()?;
        Ok(pool)
    }

    /// The caller's thread among them.
    pub fn threads(&self) -> usize {
        1 + self.threads.len()
    }

    /// Calls `f` once for each of `0..parts`, on whatever threads are free; returns when all are done. Panics as the first that did.
    pub fn run<F: Fn(usize) + Sync>(&self, parts: usize, f: F) {
        let Some(mut job) = self.job.try_lock().ok().filter(|_| parts > 1 && parts <= PARTS_MAX && self.threads() > 1)
        else {
            return (0..parts).for_each(f);
        };
        /// # Safety
        /// `f` points to a living `F`.
        unsafe fn call<F: Fn(usize)>(f: *const (), part: usize) {
            // SAFETY: the caller's: `f` points to a living `F`.
            unsafe { (*f.cast::<F>())(part) }
        }
        let shared = &*self.shared;
        shared.done.store(0, Ordering::SeqCst);
        *shared.panic() = None;
        shared.closure.store((&raw const f).cast_mut().cast(), Ordering::SeqCst);
        shared.call.store(call::<F> as PartFn as *mut (), Ordering::SeqCst);
        *job = job.wrapping_add(1);
        shared.ticket.store(Ticket::bits(*job, parts), Ordering::SeqCst);
        for (asleep, thread) in shared.asleep.iter().zip(&self.threads) {
            if asleep.load(Ordering::SeqCst) {
                Thread::unpark(thread.thread());
            }
        }
        shared.work();
        let mut looks = 0;
        while shared.done.load(Ordering::SeqCst) < parts {
            looks += 1;
            if looks % LOOKS == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        let panic = shared.panic().take();
        if let Some(panic) = panic {
            drop(job);
            resume_unwind(panic);
        }
    }

    /// Calls `f` with every item, in parts.
    pub fn each<T: Send>(&self, items: Vec<T>, f: impl Fn(T) + Sync) {
        let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        self.run(items.len(), |i| {
            if let Some(item) = items[i].lock().ok().and_then(|mut item| item.take()) {
                f(item);
            }
        });
    }
}

/// Addresses that a thread takes: its stack, and those that the allocator reserves for it.
const THREAD_ADDRESSES: u64 = 160 << 20;

/// As many of `threads` as the limit of this process's addresses (`ulimit -v`) has room for, one at least. Threads beyond it would
/// end the process when they begin.
pub fn threads_that_fit(threads: usize) -> usize {
    let room =
        addresses_left().map_or(usize::MAX, |left| usize::try_from(left / THREAD_ADDRESSES).unwrap_or(usize::MAX));
    threads.min(room).max(1)
}

/// Addresses that this process may still take; `None` where there is no limit.
#[cfg(target_os = "linux")]
fn addresses_left() -> Option<u64> {
    let most = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').next()?.parse().ok()?;
    Some(most.saturating_sub(pages * rustix::param::page_size() as u64))
}

#[cfg(not(target_os = "linux"))]
fn addresses_left() -> Option<u64> {
    None
}

/// The processors that this process might use before anything was pinned: a pinned thread sees one alone.
#[cfg(target_os = "linux")]
fn allowed() -> Result<&'static CpuSet, String> {
    static ALLOWED: OnceLock<Result<CpuSet, String>> = OnceLock::new();
    let ask = || sched_getaffinity(None).map_err(|e| format!("threads cannot be pinned ({e})"));
    ALLOWED.get_or_init(ask).as_ref().map_err(String::clone)
}

/// The first `count` processors that this process may use.
#[cfg(target_os = "linux")]
fn processors(count: usize) -> Result<Vec<usize>, String> {
    let allowed = allowed()?;
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&i| allowed.is_set(i)).take(count).collect();
    if processors.len() < count {
        return Err(format!("{count} threads cannot be pinned to {} processors", processors.len()));
    }
    Ok(processors)
}

/// Keeps the calling thread on a processor.
#[cfg(target_os = "linux")]
fn stay_on(processor: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).map_err(|e| format!("a thread cannot be pinned ({e})"))
}

#[cfg(not(target_os = "linux"))]
fn processors(_: usize) -> Result<Vec<usize>, String> {
    Err("threads can be pinned on Linux only".into())
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_: usize) -> Result<(), String> {
    Ok(())
}

/// A thread that is pinned for as long as this lives, or another of the same thread.
struct Pinned {
    #[cfg(target_os = "linux")]
    thread: Pid,
}

impl Pinned {
    /// The calling thread.
    fn to(processor: usize) -> Result<Self, String> {
        stay_on(processor)?;
        Ok(Self {
            #[cfg(target_os = "linux")]
            thread: {
                let thread = gettid();
                pinned().push(thread);
                thread
            },
        })
    }
}

/// Threads that are pinned, once for every pool that they made.
#[cfg(target_os = "linux")]
fn pinned() -> MutexGuard<'static, Vec<Pid>> {
    static PINNED: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
    PINNED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(target_os = "linux")]
impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pinned = pinned();
        if let Some(at) = pinned.iter().position(|thread| *thread == self.thread) {
            pinned.swap_remove(at);
        }
        if let (false, Ok(allowed)) = (pinned.contains(&self.thread), allowed()) {
            // A thread that has ended needs no processor.
            let _ = sched_setaffinity(Some(self.thread), allowed);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // It ends whether or not a part panicked, which `run` has told.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads, false).expect("nothing is pinned");
            for parts in [0, 1, 2, 7, 100] {
                for round in 0..50 {
                    let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(parts, |i| {
                        done[i].fetch_add(1, Ordering::SeqCst);
                    });
                    assert!(done.iter().all(|n| n.load(Ordering::SeqCst) == 1), "{threads} threads, {parts} parts");
                    if round % 20 == 0 {
                        std::thread::sleep(3 * AWAKE);
                    }
                }
            }
        }
    }

    /// In a thread of its own, which is pinned for a while.
    #[cfg(target_os = "linux")]
    #[test]
    fn pinned_threads_work_and_too_many_are_refused() {
        let pinned = std::thread::spawn(|| {
            let count = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
            let refused = Pool::new((count + 1).min(THREADS_MAX), true);
            assert!(count >= THREADS_MAX || refused.is_err_and(|why| why.contains("cannot be pinned to")));
            let pool = Pool::new(count.min(2), true).expect("there are so many");
            let sum = AtomicUsize::new(0);
            pool.run(9, |i| _ = sum.fetch_add(i, Ordering::SeqCst));
            assert_eq!(sum.into_inner(), 36);
            let own = || rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count() as usize);
            assert_eq!(own(), 1);
            // A second pool of a pinned thread has as many processors as the first, and the last one gives them back.
            let second = Pool::new(count.min(2), true).expect("there are as many as before");
            drop(pool);
            assert_eq!(own(), 1);
            drop(second);
            assert_eq!(own(), count);
            assert!(Pool::new(count.min(2), true).is_ok());
        });
        pinned.join().expect("as it should be");
    }

    #[test]
    fn callers_do_not_wait_for_each_other() {
        let pool = Pool::new(3, false).expect("nothing is pinned");
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| pool.run(5, |i| _ = sum.fetch_add(i, Ordering::SeqCst))));
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 10);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2, false).expect("nothing is pinned");
        let panics = catch_unwind(AssertUnwindSafe(|| pool.run(9, |i| assert!(i != 4, "on purpose"))));
        let told = panics.expect_err("part 4 panics");
        assert_eq!(told.downcast_ref::<&str>(), Some(&"on purpose"));
        let count = AtomicUsize::new(0);
        pool.each(vec![1; 9], |x| _ = count.fetch_add(x, Ordering::SeqCst));
        assert_eq!(count.into_inner(), 9);
    }
}
