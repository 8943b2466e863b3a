//! Whether the payload of a packet lies in pages that somebody may still change: what is read here is then not what leaves.

use core::arch::asm;

use aya_ebpf::bindings::__sk_buff;
use breaker_common::abi::relocation;

/// Pages that may be changed after they were handed over (kernel `skbuff.h`, SKBFL_SHARED_FRAG).
const SHARED_FRAG: u64 = 1 << 1;

/// Whether a packet has such pages. Where the kernel cannot tell, it says no; user space writes what it must know in place of the marks.
#[inline(always)]
pub fn are_shared(context: *mut __sk_buff) -> bool {
    let flags: u64;
    // SAFETY: two kernel functions that change nothing, and loads that the verifier checks: skb_shinfo(skb)->flags.
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
