//! Makes each repeat of a test run a new segment. BPF_PROG_TEST_RUN gives the same buffer to each repeat, with what the one before
//! wrote in it: this raises the sequence number by the payload's length, puts the checksum right and goes on into the program that is measured.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{TcContext, XdpContext};

/// Ethernet and IPv4 without options, as the frame that is given has them.
const TCP: usize = 34;

/// Verdict of tc: drop.
const SHOT: i32 = 2;

/// The program that is measured: at XDP,
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// and at tc.
#[map]
static NEXT_CLASSIFIER: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// For programs at XDP.
#[xdp]
pub fn fresh(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel's own structure, valid for the length of the call.
    let (data, end) = unsafe { ((*ctx.ctx).data as usize, (*ctx.ctx).data_end as usize) };
    if renew(data, end) {
        // SAFETY: a program of the same kind.
        let _ = unsafe { NEXT.tail_call(&ctx, 0) };
    }
    // Only where there is no program to go on into.
    XDP_ABORTED
}

/// For programs at tc.
#[classifier]
pub fn fresh_classifier(ctx: TcContext) -> i32 {
    // SAFETY: the kernel's own structure, valid for the length of the call.
    let (data, end) = unsafe { ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize) };
    if renew(data, end) {
        // SAFETY: a program of the same kind.
        let _ = unsafe { NEXT_CLASSIFIER.tail_call(&ctx, 0) };
    }
    SHOT
}

/// Takes the frame for a segment of TCP in IPv4 without options, and makes it the next one. False where it is too short.
#[inline(always)]
fn renew(data: usize, end: usize) -> bool {
    if data + TCP + 20 > end {
        return false;
    }
    let seq = (data + TCP + 4) as *mut u32;
    // SAFETY: inside the packet, as just compared (the verifier checks it again).
    unsafe {
        let header = (*((data + TCP + 12) as *const u8) >> 4) as usize * 4;
        let payload = (end - data - TCP - header) as u32;
        let old = seq.read_unaligned();
        let new = u32::from_be(old).wrapping_add(payload).to_be();
        seq.write_unaligned(new);
        let checksum = (data + TCP + 16) as *mut u16;
        checksum.write_unaligned(renewed(checksum.read_unaligned(), old, new));
    }
    true
}

/// A checksum after a word under it has changed (RFC 1624, 3), as the bytes lie in memory.
#[inline(always)]
fn renewed(checksum: u16, old: u32, new: u32) -> u16 {
    let halves = |word: u32| (word & 0xffff) + (word >> 16);
    let sum = (!checksum) as u32 + halves(!old) + halves(new);
    !halves(halves(sum)) as u16
}

/// Nothing here panics.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
