//! The inner loops of kernels, by instruction set: `interface` says what each of them offers.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(super) mod bf16;
pub(super) mod interface;
pub(super) mod portable;
#[cfg(target_arch = "x86_64")]
pub(super) mod tiles;
