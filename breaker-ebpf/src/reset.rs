//! Turns a withheld segment into an RST for both ends, with no process alive.
//!
//! Onward the segment itself goes, cut to its headers, as RST|ACK with its own sequence number: what the peer expects next. Back
//! goes a reset with both ends swapped and `seq = ack`, as if the peer had sent it: what the sending socket expects next. Both match
//! exactly, so both ends take them at once (RFC 5961, 3.2), and the socket's queue is purged.
//!
//! At tc the one that goes back is a clone, put into the interface's ingress. XDP cannot clone: there the first withheld segment goes
//! onward and the next one, at the latest its retransmit, back.

use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_store_bytes, bpf_xdp_adjust_tail, bpf_xdp_store_bytes,
};
use breaker_common::abi::reason;
use breaker_common::decide::SYN;

use crate::context::{Access, Frame, Skb};
use crate::packet::{IPPROTO_TCP, IPV6, Packet};
use crate::scratch;

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

/// A packet that can be cut and written to.
trait Writable: Access {
    /// Whether a device may still be left to add to its checksum where it goes back.
    fn is_local(self) -> bool;
    /// Cuts it to this length.
    fn cut(self, length: u32) -> bool;
    /// Writes bytes of it.
    ///
    /// # Safety
    /// There are so many at `from`.
    unsafe fn store(self, offset: u32, from: *mut u8, bytes: u32) -> bool;
}

impl Writable for Skb {
    #[inline(always)]
    fn is_local(self) -> bool {
        true
    }

    #[inline(always)]
    fn cut(self, length: u32) -> bool {
        // SAFETY: a helper on the program's own context. It also ends segmentation for this skb.
        unsafe { bpf_skb_change_tail(self.0, length, 0) == 0 }
    }

    #[inline(always)]
    unsafe fn store(self, offset: u32, from: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller vouches for the buffer.
        unsafe { bpf_skb_store_bytes(self.0, offset, from.cast(), bytes, 0) == 0 }
    }
}

impl Writable for Frame {
    #[inline(always)]
    fn is_local(self) -> bool {
        false
    }

    #[inline(always)]
    fn cut(self, length: u32) -> bool {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_xdp_adjust_tail(self.0, length as i32 - self.length() as i32) == 0 }
    }

    #[inline(always)]
    unsafe fn store(self, offset: u32, from: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller vouches for the buffer.
        unsafe { bpf_xdp_store_bytes(self.0, offset, from.cast(), bytes) == 0 }
    }
}

/// Rewrites the packet into the onward RST, and sends the one back. The packet must then be let go.
#[inline(never)]
pub fn both_ways(context: Skb, packet: &Packet) -> Result<(), Refused> {
    let done = clone_and_rewrite(context, packet);
    if done.is_err() {
        scratch::count(reason::RESET_FAILED);
    }
    done
}

/// Rewrites the frame into the onward RST, of this sequence number, which must then go on.
#[inline(never)]
pub fn onward(context: Frame, packet: &Packet, seq: u32) -> Result<(), Refused> {
    let done = Resets::cut(context, packet).and_then(|resets| {
        let old = Tcp { seq: seq.to_be(), ..resets.old };
        Resets { old, ..resets }.write_onward(context, packet)
    });
    if done.is_err() {
        scratch::count(reason::RESET_FAILED);
    }
    done
}

/// Rewrites the frame into the RST that must go back where it came from.
#[inline(never)]
pub fn back(context: Frame, packet: &Packet) -> Result<(), Refused> {
    let done = Resets::cut(context, packet).and_then(|resets| resets.write_back(context, packet));
    if done.is_err() {
        scratch::count(reason::RESET_FAILED);
    }
    done
}

#[inline(always)]
fn clone_and_rewrite(context: Skb, packet: &Packet) -> Result<(), Refused> {
    let resets = Resets::cut(context, packet)?;
    resets.write_back(context, packet)?;
    // SAFETY: a helper on the program's own context.
    if unsafe { bpf_clone_redirect(context.0, (*context.0).ifindex, BPF_F_INGRESS) } != 0 {
        scratch::count(reason::RESET_FAILED);
    }
    resets.write_onward(context, packet)
}

/// Both resets for a segment.
struct Resets {
    macs: [u32; 3],
    addresses: Addresses,
    old: Tcp,
    /// The checksum is left to the device, and only the pseudo header's sum is stored (CHECKSUM_PARTIAL): so does local TCP. Raw
    /// sockets do not, nor do frames off a wire.
    partial: bool,
    /// It has a SYN too, which is one in sequence.
    syn: bool,
}

impl Resets {
    /// Takes from a packet what they need, and cuts it to their length.
    #[inline(always)]
    fn cut(context: impl Writable, packet: &Packet) -> Result<Self, Refused> {
        let old: Tcp = load(context, packet.tcp)?;
        let addresses = addresses(context, packet)?;
        let old_length = packet.payload - packet.tcp + packet.segment.length;
        let resets = Self {
            macs: load(context, macs_at(packet))?,
            partial: fold(pseudo(&addresses, old_length)) == old.checksum,
            syn: packet.segment.flags & SYN != 0,
            addresses,
            old,
        };
        if !context.cut(packet.tcp + TCP) {
            return Err(Refused);
        }
        set_length(context, packet)?;
        Ok(resets)
    }

    #[inline(always)]
    fn onward(&self) -> Tcp {
        Tcp { offset: 5 << 4, flags: RST_ACK, window: 0, checksum: 0, urgent: 0, ..self.old }
    }

    /// Makes the packet the onward one.
    #[inline(always)]
    fn write_onward(&self, context: impl Writable, packet: &Packet) -> Result<(), Refused> {
        store(context, macs_at(packet), &self.macs)?;
        store_addresses(context, packet, &self.addresses)?;
        store(context, packet.tcp, &finish(self.onward(), pseudo(&self.addresses, TCP), self.partial))
    }

    /// Makes the packet the one that goes back.
    #[inline(always)]
    fn write_back(&self, context: impl Writable, packet: &Packet) -> Result<(), Refused> {
        let back = Tcp {
            source: self.old.destination,
            destination: self.old.source,
            seq: self.old.ack,
            ack: u32::from_be(self.old.seq).wrapping_add(self.syn as u32).to_be(),
            ..self.onward()
        };
        let [m0, m1, m2] = self.macs;
        store(context, macs_at(packet), &[m1 >> 16 | m2 << 16, m2 >> 16 | m0 << 16, m0 >> 16 | m1 << 16])?;
        store_addresses(context, packet, &swapped(&self.addresses, packet.v6))?;
        store(
            context,
            packet.tcp,
            &finish(back, pseudo(&self.addresses, TCP), self.partial && context.is_local()),
        )
    }
}

/// Where the hardware addresses are. Without a link header there are none: the TCP header is written next, over whatever is written there.
#[inline(always)]
fn macs_at(packet: &Packet) -> u32 {
    if packet.link == 0 { packet.tcp } else { 0 }
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
fn addresses(context: impl Writable, packet: &Packet) -> Result<Addresses, Refused> {
    if packet.v6 {
        return load(context, packet.ip + 8);
    }
    let [source, destination]: [u32; 2] = load(context, packet.ip + 12)?;
    Ok(Addresses { words: [source, destination, 0, 0, 0, 0, 0, 0] })
}

#[inline(always)]
fn swapped(addresses: &Addresses, v6: bool) -> Addresses {
    let [a, b, c, d, e, f, g, h] = addresses.words;
    Addresses { words: if v6 { [e, f, g, h, a, b, c, d] } else { [b, a, c, d, e, f, g, h] } }
}

#[inline(always)]
fn store_addresses(context: impl Writable, packet: &Packet, addresses: &Addresses) -> Result<(), Refused> {
    if packet.v6 {
        return store(context, packet.ip + 8, addresses);
    }
    let [source, destination, ..] = addresses.words;
    store(context, packet.ip + 12, &[source, destination])
}

/// Corrects the IP header's length, and IPv4's checksum by the difference (RFC 1624). What was a fragment is one no more.
#[inline(always)]
fn set_length(context: impl Writable, packet: &Packet) -> Result<(), Refused> {
    let length = packet.tcp - packet.ip + TCP;
    if packet.v6 {
        if packet.fragment != 0 {
            store(context, packet.fragment, &0u16)?;
        }
        return store(context, packet.ip + 4, &((length - IPV6) as u16).to_be());
    }
    let [old_length, _, old_flags, _, checksum]: [u16; 5] = load(context, packet.ip + 2)?;
    let new_length = (length as u16).to_be();
    let flags = if packet.fragment != 0 { 0 } else { old_flags };
    let sum = !checksum as u64 + !old_length as u64 + new_length as u64 + !old_flags as u64 + flags as u64;
    store(context, packet.ip + 2, &new_length)?;
    store(context, packet.ip + 6, &flags)?;
    store(context, packet.ip + 10, &!fold(sum))
}

#[inline(always)]
fn load<T: Copy>(context: impl Writable, offset: u32) -> Result<T, Refused> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the buffer is as long as said, plain bytes, and whole once the helper returns 0.
    unsafe {
        if !context.load(offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) {
            return Err(Refused);
        }
        Ok(value.assume_init())
    }
}

#[inline(always)]
fn store<T: Copy>(context: impl Writable, offset: u32, value: &T) -> Result<(), Refused> {
    let from = core::ptr::from_ref(value).cast_mut().cast();
    // SAFETY: the buffer is as long as said.
    let done = unsafe { context.store(offset, from, size_of::<T>() as u32) };
    if done { Ok(()) } else { Err(Refused) }
}
