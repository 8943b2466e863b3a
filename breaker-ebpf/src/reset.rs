//! TCP resets for both ends of a connection, made from a withheld segment.
//!
//! The peer gets the segment itself, cut to its headers, as RST|ACK with its own sequence number. The sender
//! gets a reset with both ends swapped and `seq = ack`, as if the peer had sent it. Both sequence numbers are
//! the ones that the receiver expects next. Both ends therefore accept the reset at once (RFC 5961, 3.2), and
//! the sending socket purges its queue.
//!
//! At tc the sender's reset is a clone in the interface's ingress. XDP cannot clone. There the first withheld
//! segment resets the peer, and the next one, at the latest its retransmit, resets the sender.

use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_store_bytes, bpf_xdp_adjust_tail, bpf_xdp_store_bytes,
};
use breaker_common::abi::reason;
use breaker_common::decide::SYN;

use crate::checksum::fold;
use crate::context::{Access, Frame, Skb};
use crate::counters;
use crate::packet::Packet;
use crate::parse::header::{IPPROTO_TCP, IPV6, TCP};

const BPF_F_INGRESS: u64 = 1;
const RST_ACK: u8 = 0x14;

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

/// Addresses of an IP header, source first. IPv4 addresses are the first two words; the others are 0 then.
#[repr(C)]
#[derive(Clone, Copy)]
struct Addresses {
    words: [u32; 8],
}

/// A helper failed. The caller drops the segment instead.
pub struct Refused;

/// Changes to a packet.
trait Writable: Access {
    /// The sender's reset may leave its checksum to the receiver's device (CHECKSUM_PARTIAL).
    const PARTIAL_BACK: bool;
    /// Cuts the packet to this length, and returns whether the kernel did so.
    fn cut(self, length: u32) -> bool;
    /// Writes bytes, and returns whether the packet has room for them.
    ///
    /// # Safety
    /// `from` has `bytes` bytes.
    unsafe fn store(self, offset: u32, from: *mut u8, bytes: u32) -> bool;
}

impl Writable for Skb {
    const PARTIAL_BACK: bool = true;

    #[inline(always)]
    fn cut(self, length: u32) -> bool {
        // SAFETY: a helper on the program's own context. The helper also clears the segmentation state of the
        // skb.
        unsafe { bpf_skb_change_tail(self.0, length, 0) == 0 }
    }

    #[inline(always)]
    unsafe fn store(self, offset: u32, from: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller promises the buffer.
        unsafe { bpf_skb_store_bytes(self.0, offset, from.cast(), bytes, 0) == 0 }
    }
}

impl Writable for Frame {
    const PARTIAL_BACK: bool = false;

    #[inline(always)]
    fn cut(self, length: u32) -> bool {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_xdp_adjust_tail(self.0, length as i32 - self.length() as i32) == 0 }
    }

    #[inline(always)]
    unsafe fn store(self, offset: u32, from: *mut u8, bytes: u32) -> bool {
        // SAFETY: the caller promises the buffer.
        unsafe { bpf_xdp_store_bytes(self.0, offset, from.cast(), bytes) == 0 }
    }
}

/// Turns the packet into the peer's reset, and sends the sender's. The packet must then pass.
#[inline(never)]
pub fn both_ways(context: Skb, packet: &Packet) -> Result<(), Refused> {
    count_failure(clone_and_rewrite(context, packet))
}

/// Turns the frame into the peer's reset with this sequence number. The frame must then pass.
#[inline(never)]
pub fn onward(context: Frame, packet: &Packet, seq: u32) -> Result<(), Refused> {
    count_failure(Resets::cut(context, packet).and_then(|resets| {
        let old = Tcp { seq: seq.to_be(), ..resets.old };
        Resets { old, ..resets }.write_onward(context, packet)
    }))
}

/// Turns the frame into the sender's reset. The frame must then leave through its own interface (`XDP_TX`).
#[inline(never)]
pub fn back(context: Frame, packet: &Packet) -> Result<(), Refused> {
    count_failure(Resets::cut(context, packet).and_then(|resets| resets.write_back(context, packet)))
}

#[inline(always)]
fn count_failure(done: Result<(), Refused>) -> Result<(), Refused> {
    if done.is_err() {
        counters::count(reason::RESET_FAILED);
    }
    done
}

#[inline(always)]
fn clone_and_rewrite(context: Skb, packet: &Packet) -> Result<(), Refused> {
    let resets = Resets::cut(context, packet)?;
    resets.write_back(context, packet)?;
    // SAFETY: a helper on the program's own context.
    if unsafe { bpf_clone_redirect(context.0, (*context.0).ifindex, BPF_F_INGRESS) } != 0 {
        counters::count(reason::RESET_FAILED);
    }
    resets.write_onward(context, packet)
}

/// The parts of a segment's headers that both resets need.
struct Resets {
    macs: [u32; 3],
    addresses: Addresses,
    old: Tcp,
    /// The device completes the checksum, and the field holds the pseudo-header's sum (CHECKSUM_PARTIAL).
    /// Local TCP sends such segments; raw sockets and other hosts do not.
    partial: bool,
    /// The segment has a SYN, which takes one sequence number.
    syn: bool,
}

impl Resets {
    /// Copies the headers of a packet, and cuts the packet to the length of a reset.
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

    /// Turns the packet into the peer's reset.
    #[inline(always)]
    fn write_onward(&self, context: impl Writable, packet: &Packet) -> Result<(), Refused> {
        store(context, macs_at(packet), &self.macs)?;
        store_addresses(context, packet, &self.addresses)?;
        store(context, packet.tcp, &finish(self.onward(), pseudo(&self.addresses, TCP), self.partial))
    }

    /// Turns the packet into the sender's reset.
    #[inline(always)]
    fn write_back<C: Writable>(&self, context: C, packet: &Packet) -> Result<(), Refused> {
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
            &finish(back, pseudo(&self.addresses, TCP), self.partial && C::PARTIAL_BACK),
        )
    }
}

/// Returns the offset of the hardware addresses. Without a link header it is the TCP header's, which the
/// caller writes last.
#[inline(always)]
fn macs_at(packet: &Packet) -> u32 {
    if packet.link == 0 { packet.tcp } else { 0 }
}

/// Sets the checksum of a header: the pseudo-header's sum alone if the device adds the rest.
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

/// Returns the sum of the pseudo-header (RFC 9293, 3.1) for a TCP length in bytes.
#[inline(always)]
fn pseudo(addresses: &Addresses, length: u32) -> u64 {
    let [a, b, c, d, e, f, g, h] = addresses.words;
    let words = a as u64 + b as u64 + c as u64 + d as u64 + e as u64 + f as u64 + g as u64 + h as u64;
    words + length.to_be() as u64 + (IPPROTO_TCP as u32).to_be() as u64
}

/// Reads the addresses of the IP header.
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

/// Sets the IP header's length, and clears the fragment bits. Updates IPv4's checksum by the difference (RFC
/// 1624).
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
    // SAFETY: the buffer has the size of `T`, which is plain bytes, and is initialised if the load succeeds.
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
    // SAFETY: the buffer has the size of `T`.
    let done = unsafe { context.store(offset, from, size_of::<T>() as u32) };
    if done { Ok(()) } else { Err(Refused) }
}
