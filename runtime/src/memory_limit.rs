//! How much memory large buffers may take: asked for before it is taken, in this one place.
//!
//! What grows with a program or a sequence (values of a pass, keys, values and sums that are kept) is reserved here, and given back when
//! it is freed. Weights are not counted: they lie in the mapped file. The limit belongs to the process, as memory does.

use snnc_ir::{Diagnostic, ErrorCode};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// Bytes that reservations may take together; 0 where nobody has said.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Bytes that are reserved now.
static RESERVED: AtomicU64 = AtomicU64::new(0);

/// Limits the memory of large buffers to so many bytes. Without it, what is available when the first is asked for is the limit.
pub fn set_memory_limit(bytes: u64) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
}

/// Bytes that large buffers may take together.
pub fn memory_limit() -> u64 {
    static AVAILABLE: OnceLock<u64> = OnceLock::new();
    match LIMIT.load(Ordering::Relaxed) {
        0 => *AVAILABLE.get_or_init(available),
        bytes => bytes,
    }
}

/// What the system, or the group of processes that this one is in, has left.
fn available() -> u64 {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let Ok(mut system) = System::new_with_specifics(RefreshKind::nothing().with_memory(memory)) else {
        return u64::MAX;
    };
    let left = group_left(&mut system).unwrap_or(u64::MAX);
    match system.available_memory().min(left) {
        // Nothing is known.
        0 => u64::MAX,
        bytes => bytes,
    }
}

/// What the group of processes that this one is in has left. Pages of files are no loss: they make room.
fn group_left(system: &mut System) -> Option<u64> {
    let own = sysinfo::get_current_pid().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, ProcessRefreshKind::nothing());
    let group = system.process(own).and_then(|process| process.cgroup_limits()).or_else(|| system.cgroup_limits())?;
    Some(group.total_memory.saturating_sub(group.rss))
}

/// Bytes that are kept from others until this is dropped.
#[derive(Debug, Default)]
pub struct MemoryReservation {
    bytes: u64,
}

impl MemoryReservation {
    /// Reserves so many bytes for `what`.
    ///
    /// # Errors
    /// There is not so much left. The error says what would be needed.
    pub fn new(bytes: u128, what: &str) -> Result<Self, Diagnostic> {
        let mut this = Self::default();
        this.grow_to(bytes, what)?;
        Ok(this)
    }

    /// Reserves as much as makes `bytes` in all; less than there is already changes nothing.
    ///
    /// # Errors
    /// As of `new`; what was reserved before stays so.
    pub fn grow_to(&mut self, bytes: u128, what: &str) -> Result<(), Diagnostic> {
        let limit = memory_limit();
        let more = bytes.saturating_sub(u128::from(self.bytes));
        if more == 0 {
            return Ok(());
        }
        let taken = RESERVED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
            u64::try_from(u128::from(reserved) + more).ok().filter(|all| *all <= limit)
        });
        match taken {
            Ok(_) => {
                self.bytes += more as u64;
                Ok(())
            }
            Err(reserved) => Err(too_much(bytes, what, limit.saturating_sub(reserved))),
        }
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn too_much(bytes: u128, what: &str, left: u64) -> Diagnostic {
    let message =
        format!("{what}: {} of memory are needed, {} are left", memory_in_words(bytes), memory_in_words(left.into()));
    Diagnostic::new("", message).code(ErrorCode::RUN).note("--max-memory SIZE sets another limit")
}

/// Bytes of memory as a person reads them.
pub fn memory_in_words(bytes: u128) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1u32 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1u32 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_given_back_and_no_more_than_there_is() {
        let error = MemoryReservation::new(1 << 100, "values").expect_err("nobody has so much");
        assert!(error.message.starts_with("values: "), "{error}");
        let mut some = MemoryReservation::new(1000, "values").expect("a little");
        assert_eq!(some.grow_to(500, "values"), Ok(()));
        assert_eq!(some.bytes, 1000);
        assert_eq!(some.grow_to(3000, "values"), Ok(()));
        assert_eq!(some.bytes, 3000);
        assert!(some.grow_to(u128::MAX, "values").is_err());
        assert_eq!(some.bytes, 3000);
    }
}
