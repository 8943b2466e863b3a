//! Ethernet, VLAN, IPv4, IPv6, TCP: the one place that casts packet bytes.
//!
//! One function a header; each takes an offset and returns what lies behind it. Headers of locally sent TCP are always linear, so
//! they are read in place; payload never is at tc (see `payload`).

use breaker_common::abi::{Address, ConnectionKey, mapped, reason};
use breaker_common::decide::Segment;

use crate::context::Context;
use crate::work::present;
use crate::{Exit, pass};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETHERNET: u32 = 14;
const VLAN: u32 = 4;
/// Tags in the packet: one more may be in its metadata, and never shows here.
const MOST_TAGS: u32 = 2;
pub const IPV6: u32 = 40;
const MOST_EXTENSIONS: u32 = 6;
pub const IPPROTO_TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Bytes that the headers may take: Ethernet, two tags, IPv4 or IPv6 with all options, TCP with all options.
const MOST_HEADERS: u32 = 256;

/// What the headers say.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    /// The connection.
    pub key: ConnectionKey,
    /// The segment.
    pub segment: Segment,
    /// Offset of the IP header.
    pub ip: u32,
    /// Offset of the TCP header.
    pub tcp: u32,
    /// Offset of the payload.
    pub payload: u32,
    /// Offset of the field that says that more fragments follow; 0 where none do.
    pub fragment: u32,
    /// IPv6.
    pub v6: bool,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv6 {
    flow: u32,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: Address,
    destination: Address,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Tcp {
    source: u16,
    destination: u16,
    seq: u32,
    ack: u32,
    offset: u8,
    flags: u8,
    window: u16,
}

impl Packet {
    /// A packet that comes in: the peer is who sends it.
    #[inline(always)]
    pub fn turn(&mut self) {
        let key = &mut self.key;
        core::mem::swap(&mut key.local, &mut key.remote);
        core::mem::swap(&mut key.local_port, &mut key.remote_port);
    }
}

/// The headers of most packets: Ethernet without a tag, IPv4 without options and no fragment, TCP. Read in place and in one piece.
#[repr(C, packed)]
pub struct Plain {
    hardware: [u8; 12],
    ethertype: u16,
    ip: Ipv4,
    tcp: Tcp,
}

impl Plain {
    const IP: u32 = ETHERNET;
    const TCP: u32 = Self::IP + size_of::<Ipv4>() as u32;

    /// Those of a packet, where they are of this kind and of a legal length; nothing where [`parse`] must tell what it is. Notes where
    /// its payload is: here and not on the stack, of which up to 6.1 there is just enough.
    #[inline(always)]
    pub fn of(context: impl Context, packet: &mut Packet) -> Option<&'static Self> {
        let plain: &Self = header(context, 0).ok()?;
        let kind = (plain.ethertype, plain.ip.version_ihl, plain.ip.protocol);
        // Neither an offset nor more to follow; "don't fragment" may be said.
        if kind != (ETH_P_IP.to_be(), 0x45, IPPROTO_TCP) || plain.ip.fragment & 0xbfff_u16.to_be() != 0 {
            return None;
        }
        let payload = Self::TCP + (plain.tcp.offset >> 4) as u32 * 4;
        let end = end(context, Self::IP, u16::from_be(plain.ip.total_length) as u32);
        if plain.tcp.offset >> 4 < 5 || payload > end {
            return None;
        }
        (packet.payload, packet.segment.length) = (payload, end - payload);
        Some(plain)
    }

    /// The port of who it goes to, network order.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        self.tcp.destination
    }

    /// What else they say.
    #[inline(always)]
    pub fn read(&self, packet: &mut Packet) {
        let key = &mut packet.key;
        key.local = mapped(self.ip.source);
        key.remote = mapped(self.ip.destination);
        key.local_port = self.tcp.source;
        key.remote_port = self.tcp.destination;
        let segment = &mut packet.segment;
        (segment.seq, segment.flags, segment.fragment) = (u32::from_be(self.tcp.seq), self.tcp.flags, false);
        (packet.ip, packet.tcp, packet.fragment, packet.v6) = (Self::IP, Self::TCP, 0, false);
    }
}

/// Where TCP stands.
struct Ip {
    tcp: u32,
    /// Offset behind the packet, without what the link padded it with.
    end: u32,
    /// Where the field is that says that more fragments follow; 0 where none do.
    fragment: u32,
}

/// Reads the headers into `packet`. Anything that is not TCP in IP, or not whole, is a counted way out.
///
/// A global function behind it: the verifier forgets by which of the many ways through the headers it came.
#[inline(always)]
pub fn parse(context: impl Context, packet: &mut Packet) -> Result<(), Exit> {
    match context.parse_headers(packet) {
        PARSED => Ok(()),
        reason => Err(pass(reason)),
    }
}

/// No reason for a way out.
const PARSED: u32 = u32::MAX;

/// [`parse`], as a global function: the reason, or [`PARSED`].
#[inline(always)]
pub fn parse_headers(context: impl Context, packet: *mut Packet) -> u32 {
    let Some(packet) = present(packet) else { return reason::NOT_CONFIGURED };
    match headers(context, packet) {
        Err(exit) if exit.reason == reason::MALFORMED => {}
        Err(exit) => return exit.reason,
        Ok(()) => return PARSED,
    }
    // Headers that are not linear: raw sockets and tunnels may send such. Once more, with them pulled in.
    if !context.pull(MOST_HEADERS) {
        return reason::MALFORMED;
    }
    headers(context, packet).map_or_else(|exit| exit.reason, |()| PARSED)
}

#[inline(always)]
fn headers(context: impl Context, packet: &mut Packet) -> Result<(), Exit> {
    let (ethertype, ip_offset) = ethernet(context)?;
    let key = &mut packet.key;
    let ip = match ethertype {
        ETH_P_IP => ipv4(context, ip_offset, key)?,
        ETH_P_IPV6 => ipv6(context, ip_offset, key)?,
        _ => return Err(pass(reason::NOT_OURS)),
    };
    let tcp: &Tcp = header(context, ip.tcp)?;
    key.local_port = tcp.source;
    key.remote_port = tcp.destination;
    let payload = ip.tcp + (tcp.offset >> 4) as u32 * 4;
    if tcp.offset >> 4 < 5 || payload > ip.end {
        return Err(pass(reason::MALFORMED));
    }
    packet.segment =
        Segment { seq: u32::from_be(tcp.seq), length: ip.end - payload, flags: tcp.flags, fragment: ip.fragment != 0 };
    packet.ip = ip_offset;
    packet.fragment = ip.fragment;
    packet.tcp = ip.tcp;
    packet.payload = payload;
    packet.v6 = ethertype == ETH_P_IPV6;
    Ok(())
}

/// The protocol behind Ethernet and its VLAN tags, and its offset.
#[inline(always)]
fn ethernet(context: impl Context) -> Result<(u16, u32), Exit> {
    let mut offset = ETHERNET;
    let mut ethertype: &[u8; 2] = header(context, offset - 2)?;
    let mut tag = 0;
    while tag < MOST_TAGS {
        match u16::from_be_bytes(*ethertype) {
            ETH_P_8021Q | ETH_P_8021AD => {
                offset += VLAN;
                ethertype = header(context, offset - 2)?;
            }
            other => return Ok((other, offset)),
        }
        tag += 1;
    }
    Ok((u16::from_be_bytes(*ethertype), offset))
}

#[inline(always)]
fn ipv4(context: impl Context, offset: u32, key: &mut ConnectionKey) -> Result<Ip, Exit> {
    let ip: &Ipv4 = header(context, offset)?;
    let length = (ip.version_ihl & 0x0f) as u32 * 4;
    if length < 20 || ip.version_ihl >> 4 != 4 {
        return Err(pass(reason::MALFORMED));
    }
    if ip.protocol != IPPROTO_TCP {
        return Err(pass(reason::NOT_OURS));
    }
    let fragment = u16::from_be(ip.fragment);
    if fragment & 0x1fff != 0 {
        return Err(pass(reason::FRAGMENT));
    }
    key.local = mapped(ip.source);
    key.remote = mapped(ip.destination);
    Ok(Ip {
        tcp: offset + length,
        end: end(context, offset, u16::from_be(ip.total_length) as u32),
        fragment: if fragment & 0x2000 != 0 { offset + 6 } else { 0 },
    })
}

#[inline(always)]
fn ipv6(context: impl Context, offset: u32, key: &mut ConnectionKey) -> Result<Ip, Exit> {
    let ip: &Ipv6 = header(context, offset)?;
    key.local = ip.source;
    key.remote = ip.destination;
    let length = u16::from_be(ip.payload_length) as u32;
    // A payload length of 0 is a jumbogram (BIG TCP): only the packet knows its length.
    let end = if length == 0 { context.length() } else { end(context, offset, IPV6 + length) };
    if ip.next_header == IPPROTO_TCP {
        return Ok(Ip { tcp: offset + IPV6, end, fragment: 0 });
    }
    match context.step_over_extensions(offset + IPV6, ip.next_header as u32) {
        0 => Err(pass(reason::NOT_OURS)),
        EARLIER_FRAGMENT => Err(pass(reason::FRAGMENT)),
        found => Ok(Ip { tcp: found & OFFSET, end, fragment: found >> FRAGMENT_AT }),
    }
}

/// Parts of what [`step_over_extensions`] returns.
const OFFSET: u32 = 0x7ff;
const EARLIER_FRAGMENT: u32 = 1 << 15;
/// From this bit on: where a first fragment says that more follow.
const FRAGMENT_AT: u32 = 16;

/// Steps over IPv6 extension headers (RFC 8200, 4) from `offset` on. Returns where TCP begins, and where the packet is the
/// first fragment ([`FRAGMENT_AT`]); [`EARLIER_FRAGMENT`] for a later one; 0 where there is no TCP.
///
/// A global function.
#[inline(always)]
pub fn step_over_extensions(context: impl Context, offset: u32, protocol: u32) -> u32 {
    let mut offset = offset;
    let mut protocol = protocol as u8;
    let mut found = 0;
    let mut i = 0;
    while i < MOST_EXTENSIONS {
        let mut bytes = [0u8; 4];
        if protocol == IPPROTO_TCP {
            return found | offset & OFFSET;
        }
        // SAFETY: the buffer is as long as said.
        if !unsafe { context.load(offset, bytes.as_mut_ptr(), 4) } {
            return 0;
        }
        let length = bytes[1] as u32;
        offset += match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => (length + 1) * 8,
            // Counts 4 bytes beyond the first two (RFC 4302, 2.2).
            AUTHENTICATION => (length + 2) * 4,
            FRAGMENT if bytes[2] != 0 || bytes[3] & 0xf8 != 0 => return EARLIER_FRAGMENT,
            FRAGMENT => {
                // Offset and flags are its third and fourth byte (RFC 8200, 4.5).
                found = ((offset + 2) & OFFSET) << FRAGMENT_AT;
                8
            }
            _ => return 0,
        };
        protocol = bytes[0];
        i += 1;
    }
    0
}

/// Offset behind an IP packet of `length` bytes. A length of 0 is one too large for its field (BIG TCP).
#[inline(always)]
fn end(context: impl Context, offset: u32, length: u32) -> u32 {
    let whole = context.length();
    if length == 0 || offset + length > whole { whole } else { offset + length }
}

/// A header in place. By reference, for a copy of a packed struct would lie on the stack unaligned.
#[inline(always)]
fn header<T: Packed>(context: impl Context, offset: u32) -> Result<&'static T, Exit> {
    // The verifier wants to see that an offset is small.
    let offset = (offset & 0x7ff) as usize;
    let (data, end) = context.bounds();
    if data + offset + size_of::<T>() > end {
        return Err(pass(reason::MALFORMED));
    }
    // SAFETY: inside the packet, as just compared (the verifier checks it again), of alignment 1, and dropped before the packet
    // changes.
    Ok(unsafe { &*((data + offset) as *const T) })
}

/// Types of alignment 1 that any bytes are a value of.
///
/// # Safety
/// Just that.
unsafe trait Packed {}
// SAFETY: packed, and made of integers.
unsafe impl Packed for Ipv4 {}
// SAFETY: as above.
unsafe impl Packed for Plain {}
// SAFETY: as above.
unsafe impl Packed for Ipv6 {}
// SAFETY: as above.
unsafe impl Packed for Tcp {}
// SAFETY: bytes.
unsafe impl<const N: usize> Packed for [u8; N] {}
