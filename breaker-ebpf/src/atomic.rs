//! Atomic operations on words of shared map values.
//!
//! All orderings are SeqCst. LLVM 22 compiles a relaxed addition with a used result to an instruction that
//! returns the addend instead of the old value, for every kernel. A test on two CPUs checks these operations
//! (`wire/limits.rs`).

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_or, atomic_xadd, atomic_xchg};

/// Adds to a word, and returns the old value.
///
/// # Safety
/// `word` points into a map value and is aligned.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { atomic_xadd::<u64, u64, { SeqCst }>(word, value) }
}

/// ORs bits into a word, and returns the old value.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn fetch_or(word: *mut u64, value: u64) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { atomic_or::<u64, u64, { SeqCst }>(word, value) }
}

/// Replaces a word, and returns the old value.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn swap(word: *mut u64, value: u64) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { atomic_xchg::<u64, { SeqCst }>(word, value) }
}
