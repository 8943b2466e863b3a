//! Atomic operations on words of shared map values.
//!
//! Orderings are SeqCst throughout: a relaxed addition whose result is used is compiled to one that returns the addend instead of
//! the old value (LLVM 22, all kernels). A test on two CPUs holds what is here to it.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_or, atomic_xadd, atomic_xchg};

/// Adds, and returns what was there.
///
/// # Safety
/// `word` points into a map value and is aligned.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller vouches for the pointer.
    unsafe { atomic_xadd::<u64, u64, { SeqCst }>(word, value) }
}

/// ORs, and returns what was there.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn fetch_or(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller vouches for the pointer.
    unsafe { atomic_or::<u64, u64, { SeqCst }>(word, value) }
}

/// Replaces, and returns what was there.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn swap(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller vouches for the pointer.
    unsafe { atomic_xchg::<u64, { SeqCst }>(word, value) }
}
