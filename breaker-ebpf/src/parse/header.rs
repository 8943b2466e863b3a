//! Headers read in place: the only module that casts packet bytes.
//!
//! The headers of locally sent TCP are linear. Payload is not (`payload`).

use breaker_common::abi::{Address, reason, unseen};

use crate::context::Access;
use crate::exit::Exit;
use crate::packet::{MAX_OFFSET, Packet};

pub const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_IPV6: u16 = 0x86dd;

pub const IPPROTO_TCP: u8 = 6;
const IPPROTO_IPIP: u8 = 4;
pub const IPPROTO_UDP: u8 = 17;
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_GRE: u8 = 47;
const IPPROTO_ESP: u8 = 50;

/// UDP port of VXLAN (RFC 7348, 5).
pub const VXLAN_PORT: u16 = 4789;

/// Bytes of an IPv6 header.
pub const IPV6: u32 = 40;
/// Bytes of a TCP header without options.
pub const TCP: u32 = 20;

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_length: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub flow: u32,
    pub payload_length: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Address,
    pub destination: Address,
}

/// A TCP header up to the window.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: u32,
    pub offset: u8,
    pub flags: u8,
    pub window: u16,
}

/// A type of alignment 1 that has no invalid values.
///
/// # Safety
/// The type is as described.
pub unsafe trait Packed {}
// SAFETY: packed, and made of integers.
unsafe impl Packed for Ipv4 {}
// SAFETY: as above.
unsafe impl Packed for Ipv6 {}
// SAFETY: as above.
unsafe impl Packed for Tcp {}
// SAFETY: bytes.
unsafe impl<const N: usize> Packed for [u8; N] {}

/// Returns the header at an offset, in place: a copy of a packed struct would lie on the stack unaligned.
///
/// # Errors
/// The linear part of the packet ends before the header does.
#[inline(always)]
pub fn header<T: Packed>(context: impl Access, offset: u32) -> Result<&'static T, Exit> {
    // Without the mask: "invalid access to packet" (6.1, 6.12).
    let offset = (offset & MAX_OFFSET) as usize;
    let (data, end) = context.bounds();
    if data + offset + size_of::<T>() > end {
        return Err(Exit::unseen(unseen::MALFORMED));
    }
    // SAFETY: inside the packet by the comparison above, which the verifier checks too. The type has
    // alignment 1, and no reference outlives a change of the packet.
    Ok(unsafe { &*((data + offset) as *const T) })
}

/// Returns the EtherType of the IP header at an offset, by the IP version.
#[inline(always)]
pub fn ethertype_at(context: impl Access, offset: u32) -> Result<u16, Exit> {
    // Of a single byte the compiler tests the bounds in a way that Linux 6.18 does not follow: "invalid
    // access to packet".
    let first: &[u8; 4] = header(context, offset)?;
    match first[0] >> 4 {
        4 => Ok(ETH_P_IP),
        6 => Ok(ETH_P_IPV6),
        _ => Err(Exit::pass(reason::NOT_OURS)),
    }
}

/// Returns the offset behind an IP packet at `offset` with `length` bytes. A BIG TCP packet has a length of
/// 0.
#[inline(always)]
pub fn end_of_ip(context: impl Access, offset: u32, length: u32) -> u32 {
    let end = context.length();
    if length == 0 || offset + length > end { end } else { offset + length }
}

/// Returns the exit of a packet with a protocol other than TCP. Some protocols may carry TCP.
#[inline(always)]
pub fn other_protocol(context: impl Access, protocol: u8, offset: u32) -> Exit {
    match protocol {
        IPPROTO_IPIP | IPPROTO_IPV6 => Exit::unseen(unseen::IP_IN_IP),
        IPPROTO_GRE => Exit::unseen(unseen::GRE),
        IPPROTO_ESP => Exit::unseen(unseen::ESP),
        IPPROTO_UDP => match header::<[u8; 4]>(context, offset) {
            Ok(ports) if u16::from_be_bytes([ports[2], ports[3]]) == VXLAN_PORT => {
                Exit::unseen(unseen::VXLAN)
            }
            _ => Exit::pass(reason::NOT_OURS),
        },
        _ => Exit::pass(reason::NOT_OURS),
    }
}

/// Returns the exit of a TCP fragment other than the first, by its offset in units of 8 bytes.
///
/// At offset 1 a fragment overwrites the first one's TCP header (RFC 3128, 2.1). Without the first fragment
/// the others are useless.
#[inline(always)]
pub fn later_fragment(offset: u32) -> Exit {
    if offset == 1 { Exit::drop(reason::FRAGMENTED) } else { Exit::pass(reason::FRAGMENT) }
}

/// Returns the IPv4 TTL or IPv6 hop limit.
#[inline(always)]
pub fn hops(context: impl Access, packet: &Packet) -> u32 {
    let hops = match packet.v6 {
        true => header::<Ipv6>(context, packet.ip).map(|ip| ip.hop_limit),
        false => header::<Ipv4>(context, packet.ip).map(|ip| ip.ttl),
    };
    hops.map_or(0, u32::from)
}

/// Returns the TCP checksum in network order.
#[inline(always)]
pub fn checksum(context: impl Access, packet: &Packet) -> u32 {
    header::<[u8; 2]>(context, packet.tcp + 16).map_or(0, |bytes| u16::from_ne_bytes(*bytes) as u32)
}
