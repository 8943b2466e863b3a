//! Inline, a segment comes from another host's TCP, and its bytes count as seen only where the peer's TCP would take them: else that host
//! could show the gateway one segment and the venue another with the same sequence numbers. What is checked is the checksum (RFC 9293,
//! 3.1) and that the packet gets as far as the connection's SYN did.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_csum_diff;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use breaker_common::abi::Connection;
use breaker_common::decide::{FIN, RST};

use crate::connection;
use crate::context::{Access, Frame};
use crate::packet::{self, IPPROTO_TCP, Packet};
use crate::scratch::{Scratch, non_null};

/// Bytes that are summed up with one call.
const CHUNK_BYTES: u32 = 256;
/// Chunks of the longest packet.
const MAX_CHUNKS: u32 = (1 << 16) / CHUNK_BYTES;

#[map]
static SUMMED: PerCpuArray<[u32; CHUNK_BYTES as usize / 4]> = PerCpuArray::with_max_entries(1, 0);

/// Whether the peer will not take a segment of a connection. Nothing depends on one that has neither payload nor an end to tell.
#[inline(always)]
pub fn is_lost(context: Frame, scratch: *mut Scratch, connection: *const Connection) -> bool {
    let Some(checked) = non_null(scratch) else { return false };
    let segment = &checked.packet.segment;
    (segment.length != 0 || segment.flags & (FIN | RST) != 0)
        && frame_is_lost(context.0, scratch, connection) != 0
}

/// 1 where the peer will not take a segment of a connection. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn frame_is_lost(
    context: *mut xdp_md,
    scratch: *mut Scratch,
    connection: *const Connection,
) -> u32 {
    let (Some(scratch), Some(connection)) = (non_null(scratch), non_null(connection.cast_mut())) else {
        return 0;
    };
    let context = Frame(context);
    let packet = &scratch.packet;
    if packet::hops(context, packet) < connection.hops {
        return 1;
    }
    let pseudo = pseudo_header(packet);
    if sum(context, packet, pseudo) == 0xffff {
        return 0;
    }
    // A neighbour in memory leaves it to the card, which then finds the sum of the pseudo-header there (kernel `skbuff.h`, CHECKSUM_PARTIAL).
    (connection::is_wired() || packet::checksum(context, packet) != fold(pseudo)) as u32
}

/// The sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1), as the bytes lie in memory.
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

/// A sum of words as one of 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u32
}

/// The sum over a segment and its pseudo-header: `0xffff` where its checksum is right.
#[inline(always)]
fn sum(context: Frame, packet: &Packet, pseudo: u64) -> u32 {
    let end = packet.payload + packet.segment.length;
    let (mut at, mut sum, mut chunk) = (packet.tcp, fold(pseudo), 0);
    while chunk < MAX_CHUNKS && at < end {
        sum = frame_add_chunk(context.0, at, end, sum);
        at += CHUNK_BYTES;
        chunk += 1;
    }
    fold(sum as u64)
}

/// Adds the words of a segment from `at` on, up to the end of a chunk or to `end`. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn frame_add_chunk(context: *mut xdp_md, at: u32, end: u32, sum: u32) -> u32 {
    let Some(words) = SUMMED.get_ptr_mut(0) else { return sum };
    let left = end.wrapping_sub(at);
    let length = if left < CHUNK_BYTES { left } else { CHUNK_BYTES };
    // The verifier must see 1 to CHUNK_BYTES here; what the compiler knows of `length` it would leave out.
    let length = (black_box(length).wrapping_sub(1) & (CHUNK_BYTES - 1)) + 1;
    let last = (length - 1) / 4;
    // SAFETY: this CPU's own value, of CHUNK_BYTES; what the last word has beyond the segment is zero.
    unsafe {
        (*words)[last as usize & (CHUNK_BYTES as usize / 4 - 1)] = 0;
        if !Frame(context).load(at, words.cast(), length) {
            return sum;
        }
        bpf_csum_diff(core::ptr::null_mut(), 0, words.cast(), (last + 1) * 4, sum) as u32
    }
}
