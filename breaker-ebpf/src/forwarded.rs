//! Whether the peer's TCP will accept a forwarded segment.
//!
//! On a gateway another host's TCP sends the segment. If the peer discards a segment that was counted, that
//! host can show the gateway one payload and the peer another with the same sequence numbers. The program
//! therefore checks the TCP checksum (RFC 9293, 3.1), and that the packet has no fewer hops left than the
//! connection's SYN had.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_csum_diff;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use breaker_common::abi::Connection;
use breaker_common::decide::{FIN, RST};

use crate::checksum::fold;
use crate::context::{Access, Frame};
use crate::packet::Packet;
use crate::parse::header::{self, IPPROTO_TCP};
use crate::payload::bounded;
use crate::policy;
use crate::scratch::{Scratch, non_null};

/// Words that one call adds to the checksum.
const BLOCK: usize = 64;
const BLOCK_BYTES: u32 = (BLOCK * 4) as u32;
/// Blocks of the longest packet.
const MAX_BLOCKS: u32 = (1 << 16) / BLOCK_BYTES;

#[map]
static SUMMED: PerCpuArray<[u32; BLOCK]> = PerCpuArray::with_max_entries(1, 0);

/// Returns true if the peer will discard a segment that has payload or ends the connection.
#[inline(always)]
pub fn is_undeliverable(frame: Frame, scratch: *mut Scratch, connection: *const Connection) -> bool {
    let Some(checked) = non_null(scratch) else { return false };
    let segment = &checked.packet.segment;
    (segment.length != 0 || segment.flags & (FIN | RST) != 0)
        && frame_is_undeliverable(frame.0, scratch, connection) != 0
}

/// Returns 1 if the peer will discard a segment. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn frame_is_undeliverable(
    context: *mut xdp_md,
    scratch: *mut Scratch,
    connection: *const Connection,
) -> u32 {
    let (Some(scratch), Some(connection)) = (non_null(scratch), non_null(connection.cast_mut())) else {
        return 0;
    };
    let frame = Frame(context);
    let packet = &scratch.packet;
    if header::hops(frame, packet) < connection.hops {
        return 1;
    }
    let pseudo = pseudo_header(packet);
    if sum(frame, packet, pseudo) == 0xffff {
        return 0;
    }
    // A virtual machine on this host leaves the checksum to the network card. The field then holds the sum of
    // the pseudo-header (kernel `skbuff.h`, CHECKSUM_PARTIAL).
    (policy::is_wired() || header::checksum(frame, packet) != fold(pseudo) as u32) as u32
}

/// Returns the sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1) in network order.
#[inline(always)]
fn pseudo_header(packet: &Packet) -> u64 {
    let length = packet.payload + packet.segment.length - packet.tcp;
    let key = &packet.key;
    let mut sum = length.to_be() as u64 + (IPPROTO_TCP as u32).to_be() as u64;
    let mut i = if packet.v6 { 0 } else { 3 };
    while i < 4 {
        sum += key.local[i] as u64 + key.remote[i] as u64;
        i += 1;
    }
    sum
}

/// Returns the sum of a segment and its pseudo-header: `0xffff` if the checksum is right.
#[inline(always)]
fn sum(frame: Frame, packet: &Packet, pseudo: u64) -> u32 {
    let end = packet.payload + packet.segment.length;
    let (mut at, mut sum, mut block) = (packet.tcp, fold(pseudo) as u32, 0);
    while block < MAX_BLOCKS && at < end {
        sum = frame_add_block(frame.0, at, end, sum);
        at += BLOCK_BYTES;
        block += 1;
    }
    fold(sum as u64) as u32
}

/// Adds the words of a segment from `at` to the end of a block or to `end`, whichever is first. A global
/// function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn frame_add_block(context: *mut xdp_md, at: u32, end: u32, sum: u32) -> u32 {
    let Some(words) = SUMMED.get_ptr_mut(0) else { return sum };
    let left = end.wrapping_sub(at);
    let length = bounded(if left < BLOCK_BYTES { left } else { BLOCK_BYTES }, BLOCK_BYTES);
    let last = (length - 1) / 4;
    // SAFETY: this CPU's own value, of BLOCK_BYTES. The bytes of the last word behind the segment are zero.
    unsafe {
        (*words)[last as usize & (BLOCK - 1)] = 0;
        if !Frame(context).load(at, words.cast(), length) {
            return sum;
        }
        bpf_csum_diff(core::ptr::null_mut(), 0, words.cast(), (last + 1) * 4, sum) as u32
    }
}
