//! What this machine can do: how fast it reads memory, and how much of it this process took.

use memmap2::MmapMut;
use snnc_runtime::Isa;
use snnc_runtime::kernels::Kernels;
use snnc_runtime::threads_that_fit;
use std::time::Instant;

/// Bytes that no cache holds.
const FAR_BYTES: usize = 1 << 28;

/// Threads that read, at most: more than any machine has memory channels.
const THREADS_MAX: usize = 256;

/// Gigabytes per second that so many threads read from memory together, in order, from large pages and asking ahead: the limit of
/// what walks over weights. `None` where there is not so much memory.
pub fn memory_read_gb_per_s(threads: usize) -> Option<f64> {
    let kernels = Kernels::new(Isa::detect().ok()?).ok()?;
    let mut map = MmapMut::map_anon(FAR_BYTES).ok()?;
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.fill(1);
    let words: &[u64] = bytemuck::try_cast_slice(&map).ok()?;
    let read = |part: &[u64]| _ = std::hint::black_box(kernels.read(part));
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads_that_fit(threads.clamp(1, THREADS_MAX)))) {
                let thread = std::thread::Builder::new().spawn_scoped(scope, move || read(part));
                // Where the system gives no thread, this one reads.
                if thread.is_err() {
                    read(part);
                }
            }
        });
        start.elapsed().as_secs_f64()
    };
    let best = (0..7).map(|_| pass()).fold(f64::INFINITY, f64::min);
    Some(FAR_BYTES as f64 / best / 1e9)
}

/// The most memory that this process has held, in MB; `None` where the system does not say.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
