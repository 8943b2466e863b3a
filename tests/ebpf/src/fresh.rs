//! Turns each repetition of a test run into a new segment.
//!
//! BPF_PROG_TEST_RUN passes one buffer to all repetitions, with the changes of the repetition before. These
//! programs add the payload's length to the sequence number, update the checksum and tail-call the program
//! under measurement.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{TcContext, XdpContext};

/// Offset of the TCP header: the given frame has an Ethernet header and an IPv4 header without options.
const TCP: usize = 34;

/// tc verdict: drop (`TC_ACT_SHOT`).
const DROP: i32 = 2;

/// The program under measurement at XDP.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The program under measurement at tc.
#[map]
static NEXT_CLASSIFIER: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Calls the program at XDP with the next segment. Returns `XDP_ABORTED` only if there is no such program.
#[xdp]
pub fn fresh(ctx: XdpContext) -> u32 {
    // SAFETY: the program's own context.
    let (data, end) = unsafe { ((*ctx.ctx).data as usize, (*ctx.ctx).data_end as usize) };
    if make_next_segment(data, end) {
        // SAFETY: a program of the same type.
        let _ = unsafe { NEXT.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

/// Calls the program at tc with the next segment. Returns [`DROP`] only if there is no such program.
#[classifier]
pub fn fresh_classifier(ctx: TcContext) -> i32 {
    // SAFETY: the program's own context.
    let (data, end) = unsafe { ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize) };
    if make_next_segment(data, end) {
        // SAFETY: a program of the same type.
        let _ = unsafe { NEXT_CLASSIFIER.tail_call(&ctx, 0) };
    }
    DROP
}

/// Turns a TCP segment over IPv4 without options into the segment that follows. Returns false if the frame is
/// too short.
#[inline(always)]
fn make_next_segment(data: usize, end: usize) -> bool {
    if data + TCP + 20 > end {
        return false;
    }
    let seq = (data + TCP + 4) as *mut u32;
    // SAFETY: inside the packet by the comparison above, which the verifier checks too.
    unsafe {
        let header = (*((data + TCP + 12) as *const u8) >> 4) as usize * 4;
        let payload = (end - data - TCP - header) as u32;
        let old = seq.read_unaligned();
        let new = u32::from_be(old).wrapping_add(payload).to_be();
        seq.write_unaligned(new);
        let checksum = (data + TCP + 16) as *mut u16;
        checksum.write_unaligned(updated_checksum(checksum.read_unaligned(), old, new));
    }
    true
}

/// Updates a checksum in network order after one 32-bit word under it has changed (RFC 1624, 3).
#[inline(always)]
fn updated_checksum(checksum: u16, old: u32, new: u32) -> u16 {
    let halves = |word: u32| (word & 0xffff) + (word >> 16);
    let sum = (!checksum) as u32 + halves(!old) + halves(new);
    !halves(halves(sum)) as u16
}

/// Never runs: nothing here panics.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
