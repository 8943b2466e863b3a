//! Payload pages that the sender may still change: the bytes read here may differ from the bytes sent.

use core::arch::asm;

use aya_ebpf::bindings::__sk_buff;
use breaker_common::abi::relocation;

/// A page may change after its hand-over to the stack (kernel `skbuff.h`, SKBFL_SHARED_FRAG).
const SHARED_FRAG: u64 = 1 << 1;

/// Returns true if a packet has shared pages; false also if the kernel cannot tell.
///
/// The constants of `relocation` are placeholders: the loader replaces them with the running kernel's
/// numbers.
#[inline(always)]
pub fn has_shared_pages(context: *mut __sk_buff) -> bool {
    let flags: u64;
    // SAFETY: two kernel functions without side effects, and loads that the verifier checks:
    // skb_shinfo(skb)->flags.
    unsafe {
        asm!(
            "call {cast}",
            "if r0 == 0 goto 2f",
            "r1 = *(u32 *)(r0 + {end})",
            "r2 = *(u64 *)(r0 + {head})",
            "r1 += r2",
            "r2 = {info}",
            "call {read}",
            "r0 = *(u8 *)(r0 + {flags})",
            "2:",
            cast = const relocation::CAST,
            read = const relocation::READ,
            info = const relocation::INFO,
            end = const relocation::END,
            head = const relocation::HEAD,
            flags = const relocation::FLAGS,
            inlateout("r1") context => _,
            lateout("r0") flags,
            lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nostack, readonly),
        );
    }
    flags & SHARED_FRAG != 0
}
