//! Turns a withheld segment into an RST for both ends, with no process alive.
//!
//! Onward the segment itself goes, cut to its headers, as RST|ACK with its own sequence number: what the peer expects next. Back
//! goes a clone with both ends swapped and `seq = ack`, put into the interface's ingress as if the peer had sent it: what the local
//! socket expects next. Both match exactly, so both ends take them at once (RFC 5961, 3.2), and the socket's queue is purged.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes};
use breaker_common::abi::reason;
use breaker_common::decide::SYN;

use crate::packet::{IPPROTO_TCP, IPV6, Packet};
use crate::work;

const BPF_F_INGRESS: u64 = 1;
const RST_ACK: u8 = 0x14;
const TCP: u32 = size_of::<Tcp>() as u32;

/// A TCP header without options, in network order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source: [u8; 2],
    destination: [u8; 2],
    seq: u32,
    ack: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// Addresses of a packet, source first, at `offset`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Addresses {
    words: [u32; 8],
}

/// A helper refused; the segment is dropped instead.
pub struct Refused;

/// Rewrites the packet into the onward RST, and sends the one back. The packet must then be let go.
#[inline(never)]
pub fn both_ways(skb: *mut __sk_buff, packet: &Packet) -> Result<(), Refused> {
    let done = rewrite(skb, packet);
    if done.is_err() {
        work::count(reason::RESET_FAILED);
    }
    done
}

#[inline(always)]
fn rewrite(skb: *mut __sk_buff, packet: &Packet) -> Result<(), Refused> {
    let macs: [u32; 3] = load(skb, 0)?;
    let old: Tcp = load(skb, packet.tcp)?;
    let addresses = addresses(skb, packet)?;
    let old_length = packet.payload - packet.tcp + packet.segment.length;
    // Local TCP leaves the checksum to the device and stores only the pseudo header's sum (CHECKSUM_PARTIAL); raw sockets do not.
    let partial = fold(pseudo(&addresses, old_length)) == old.checksum;
    // SAFETY: a helper on the program's own context. It also ends segmentation for this skb.
    if unsafe { bpf_skb_change_tail(skb, packet.tcp + TCP, 0) } != 0 {
        return Err(Refused);
    }
    set_length(skb, packet)?;
    let sum = pseudo(&addresses, TCP);
    let onward = finish(Tcp { offset: 5 << 4, flags: RST_ACK, window: 0, checksum: 0, urgent: 0, ..old }, sum, partial);
    let syn = (packet.segment.flags & SYN != 0) as u32;
    let back = Tcp {
        source: old.destination,
        destination: old.source,
        seq: old.ack,
        ack: u32::from_be(old.seq).wrapping_add(syn).to_be(),
        ..onward
    };
    let [m0, m1, m2] = macs;
    store(skb, 0, &[m1 >> 16 | m2 << 16, m2 >> 16 | m0 << 16, m0 >> 16 | m1 << 16])?;
    store_addresses(skb, packet, &swapped(&addresses, packet.v6))?;
    store(skb, packet.tcp, &finish(Tcp { checksum: 0, ..back }, sum, partial))?;
    // SAFETY: a helper on the program's own context.
    if unsafe { bpf_clone_redirect(skb, (*skb).ifindex, BPF_F_INGRESS) } != 0 {
        work::count(reason::RESET_FAILED);
    }
    store(skb, 0, &macs)?;
    store_addresses(skb, packet, &addresses)?;
    store(skb, packet.tcp, &onward)
}

/// The same header with its checksum: the pseudo header's sum alone where the device adds the rest.
#[inline(always)]
fn finish(tcp: Tcp, pseudo: u64, partial: bool) -> Tcp {
    if partial {
        return Tcp { checksum: fold(pseudo), ..tcp };
    }
    let ports = u32::from_ne_bytes([tcp.source[0], tcp.source[1], tcp.destination[0], tcp.destination[1]]);
    let offset_flags = u16::from_ne_bytes([tcp.offset, tcp.flags]);
    let sum = pseudo + ports as u64 + tcp.seq as u64 + tcp.ack as u64 + offset_flags as u64;
    Tcp { checksum: !fold(sum), ..tcp }
}

/// Sum of the pseudo header (RFC 9293, 3.1) for a TCP length in bytes.
#[inline(always)]
fn pseudo(addresses: &Addresses, length: u32) -> u64 {
    let [a, b, c, d, e, f, g, h] = addresses.words;
    let words = a as u64 + b as u64 + c as u64 + d as u64 + e as u64 + f as u64 + g as u64 + h as u64;
    words + length.to_be() as u64 + (IPPROTO_TCP as u32).to_be() as u64
}

/// One's complement sum of 16-bit words (RFC 1071), of native words that hold network order.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The addresses; of IPv4 they are the first two words, and the others zero.
#[inline(always)]
fn addresses(skb: *mut __sk_buff, packet: &Packet) -> Result<Addresses, Refused> {
    if packet.v6 {
        return load(skb, packet.ip + 8);
    }
    let [source, destination]: [u32; 2] = load(skb, packet.ip + 12)?;
    Ok(Addresses { words: [source, destination, 0, 0, 0, 0, 0, 0] })
}

#[inline(always)]
fn swapped(addresses: &Addresses, v6: bool) -> Addresses {
    let [a, b, c, d, e, f, g, h] = addresses.words;
    Addresses { words: if v6 { [e, f, g, h, a, b, c, d] } else { [b, a, c, d, e, f, g, h] } }
}

#[inline(always)]
fn store_addresses(skb: *mut __sk_buff, packet: &Packet, addresses: &Addresses) -> Result<(), Refused> {
    if packet.v6 {
        return store(skb, packet.ip + 8, addresses);
    }
    let [source, destination, ..] = addresses.words;
    store(skb, packet.ip + 12, &[source, destination])
}

/// Corrects the IP header's length, and IPv4's checksum by the difference (RFC 1624).
#[inline(always)]
fn set_length(skb: *mut __sk_buff, packet: &Packet) -> Result<(), Refused> {
    let length = packet.tcp - packet.ip + TCP;
    if packet.v6 {
        return store(skb, packet.ip + 4, &((length - IPV6) as u16).to_be());
    }
    let old: u16 = load(skb, packet.ip + 2)?;
    let new = (length as u16).to_be();
    let checksum: u16 = load(skb, packet.ip + 10)?;
    let sum = !checksum as u64 + !old as u64 + new as u64;
    store(skb, packet.ip + 2, &new)?;
    store(skb, packet.ip + 10, &!fold(sum))
}

#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Result<T, Refused> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the buffer is as long as said, plain bytes, and whole once the helper returns 0.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) != 0 {
            return Err(Refused);
        }
        Ok(value.assume_init())
    }
}

#[inline(always)]
fn store<T: Copy>(skb: *mut __sk_buff, offset: u32, value: &T) -> Result<(), Refused> {
    let from = core::ptr::from_ref(value).cast();
    // SAFETY: the buffer is as long as said.
    let failed = unsafe { bpf_skb_store_bytes(skb.cast(), offset, from, size_of::<T>() as u32, 0) };
    if failed == 0 { Ok(()) } else { Err(Refused) }
}
