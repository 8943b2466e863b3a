//! Ethernet, VLAN, MPLS, PPPoE, IPv4, IPv6, TCP: the one place that casts packet bytes.
//!
//! One function a header; each takes an offset and returns what lies behind it. Headers of locally sent TCP are always linear, so
//! they are read in place; payload never is at tc (see `payload`).

use core::hint::cold_path;

use breaker_common::abi::{Address, ConnectionKey, mapped, reason, unseen};
use breaker_common::decide::Segment;

use crate::context::Context;
use crate::scratch::non_null;
use crate::{End, Exit, connection, scratch};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETH_P_QINQ1: u16 = 0x9100;
const ETH_P_QINQ2: u16 = 0x9200;
const ETH_P_QINQ3: u16 = 0x9300;
const ETH_P_MPLS_UC: u16 = 0x8847;
const ETH_P_MPLS_MC: u16 = 0x8848;
const ETH_P_PPP_SES: u16 = 0x8864;
/// Below this an EtherType is a length (IEEE 802.3, 3.2.6).
const ETH_P_802_3_MIN: u16 = 0x0600;
const PPP_IP: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
/// Bytes of an Ethernet header. A device without one has packets that begin with IP.
pub const ETHERNET: u32 = 14;
const VLAN: u32 = 4;
const MPLS: u32 = 4;
const PPPOE: u32 = 8;
/// VLAN tags and MPLS labels in the packet, of each so many: one more tag may be in its metadata, and never shows here.
const MAX_TAGS: u32 = 6;
pub const IPV6: u32 = 40;
const MAX_EXTENSIONS: u32 = 12;
pub const IPPROTO_TCP: u8 = 6;
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_GRE: u8 = 47;
const IPPROTO_ESP: u8 = 50;
/// UDP port of VXLAN (RFC 7348, 5).
const VXLAN_PORT: u16 = 4789;
/// Bytes of a TCP header without options.
const TCP_HEADER: u32 = 20;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Bytes that the headers may take: Ethernet, some tags, IPv4 or IPv6 with all options, TCP with all options.
const MAX_HEADERS: u32 = 256;

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
    /// Bytes of the link's header in front of everything: [`ETHERNET`], or 0 on a device that has none. Set before the headers are read.
    pub link: u32,
    /// IPv6.
    pub v6: bool,
    /// Between the link's header and IP is another than VLAN tags, which knows the packet's length.
    pub encapsulated: bool,
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
    pub fn swap_endpoints(&mut self) {
        let key = &mut self.key;
        core::mem::swap(&mut key.local, &mut key.remote);
        core::mem::swap(&mut key.local_port, &mut key.remote_port);
    }
}

/// The headers of most packets: Ethernet without a tag, IPv4 without options and no fragment, TCP. Read in place and in one piece.
#[repr(C, packed)]
pub struct FastHeaders {
    hardware: [u8; 12],
    ethertype: u16,
    ip: Ipv4,
    tcp: Tcp,
}

impl FastHeaders {
    const IP: u32 = ETHERNET;
    const TCP: u32 = Self::IP + size_of::<Ipv4>() as u32;

    /// Those of a packet, where they are of this kind and of a legal length; nothing where [`parse`] must tell what it is. Notes where
    /// its payload is: here and not on the stack, of which up to 6.1 there is just enough.
    ///
    /// # Errors
    /// Most UDP, which is nobody's.
    #[inline(always)]
    pub fn of(context: impl Context, packet: &mut Packet) -> Result<Option<&'static Self>, Exit> {
        let Ok(fast) = header::<Self>(context, 0) else { return Ok(None) };
        // Neither an offset nor more to follow; "don't fragment" may be said.
        let kind = (fast.ethertype, fast.ip.version_ihl, fast.ip.fragment & 0xbfff_u16.to_be());
        if kind != (ETH_P_IP.to_be(), 0x45, 0) {
            return Ok(None);
        }
        if fast.ip.protocol != IPPROTO_TCP {
            let tunnel = fast.ip.protocol != IPPROTO_UDP || fast.tcp.destination == VXLAN_PORT.to_be();
            return if tunnel { Ok(None) } else { Err(crate::pass(reason::NOT_OURS)) };
        }
        let payload = Self::TCP + (fast.tcp.offset >> 4) as u32 * 4;
        let end = end(context, Self::IP, u16::from_be(fast.ip.total_length) as u32);
        if fast.tcp.offset >> 4 < 5 || payload > end {
            return Ok(None);
        }
        (packet.payload, packet.segment.length) = (payload, end - payload);
        Ok(Some(fast))
    }

    /// The port of who it goes to, network order.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        self.tcp.destination
    }

    /// What is acknowledged: asked for only where a packet comes in.
    #[inline(always)]
    pub fn ack(&self) -> u32 {
        u32::from_be(self.tcp.ack)
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
        (segment.seq, segment.flags) = (u32::from_be(self.tcp.seq), self.tcp.flags);
        (segment.fragment, segment.shared_pages) = (false, false);
        (packet.ip, packet.tcp, packet.fragment, packet.v6) = (Self::IP, Self::TCP, 0, false);
        packet.encapsulated = false;
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
    let found = context.parse_headers(packet);
    if found == PARSED {
        return Ok(());
    }
    cold_path();
    let (reason, kind) = (found & REASON, found >> KIND_AT & REASON);
    if found & UNSEEN != 0 {
        scratch::count_unseen(context.interface(), kind);
    }
    Err(Exit { reason, end: if found & DROPPED != 0 { End::Drop } else { End::Pass } })
}

/// No reason for a way out.
const PARSED: u32 = u32::MAX;
/// Parts of what [`parse_headers`] returns else: the reason,
const REASON: u32 = 0xff;
/// from this bit on one of [`unseen`],
const KIND_AT: u32 = 8;
/// which there is,
const UNSEEN: u32 = 1 << 16;
/// and whether the packet must not leave.
const DROPPED: u32 = 1 << 17;

/// A packet that passes unread, and is counted by its kind.
const fn unseen(kind: u32) -> u32 {
    let reason = if kind == unseen::MALFORMED { reason::MALFORMED } else { reason::UNSEEN };
    reason | kind << KIND_AT | UNSEEN
}

/// [`parse`], as a global function: [`PARSED`], or the reason and what goes with it.
#[inline(always)]
pub fn parse_headers(context: impl Context, packet: *mut Packet) -> u32 {
    const CUT_SHORT: u32 = unseen(unseen::MALFORMED);
    let Some(packet) = non_null(packet) else { return reason::NOT_CONFIGURED };
    match headers(context, packet) {
        Err(CUT_SHORT) => {}
        Err(found) => return found,
        Ok(()) => return PARSED,
    }
    // Headers that are not linear: raw sockets and tunnels may send such. Once more, with them pulled in.
    if !context.pull(MAX_HEADERS) {
        return CUT_SHORT;
    }
    headers(context, packet).map_or_else(|found| found, |()| PARSED)
}

#[inline(always)]
fn headers(context: impl Context, packet: &mut Packet) -> Result<(), u32> {
    let (ethertype, ip_offset) =
        if packet.link == 0 { (nibble(context, 0)?, 0) } else { ethernet(context, packet)? };
    packet.encapsulated = ip_offset & ENCAPSULATED != 0;
    let ip_offset = ip_offset & OFFSET;
    let key = &mut packet.key;
    let ip = match ethertype {
        ETH_P_IP => ipv4(context, ip_offset, key)?,
        ETH_P_IPV6 => ipv6(context, ip_offset, key)?,
        length if length < ETH_P_802_3_MIN => return Err(unseen(unseen::LLC)),
        _ => return Err(reason::NOT_OURS),
    };
    // A first fragment that ends inside the TCP header hides what it is (RFC 3128): no TCP sends such.
    const HIDDEN: u32 = reason::FRAGMENTED | DROPPED;
    if ip.fragment != 0 && ip.tcp + TCP_HEADER > ip.end {
        return Err(HIDDEN);
    }
    let tcp: &Tcp = header(context, ip.tcp)?;
    key.local_port = tcp.source;
    key.remote_port = tcp.destination;
    let payload = ip.tcp + (tcp.offset >> 4) as u32 * 4;
    if tcp.offset >> 4 < 5 || payload > ip.end {
        return Err(if ip.fragment != 0 { HIDDEN } else { unseen(unseen::MALFORMED) });
    }
    packet.segment = Segment {
        seq: u32::from_be(tcp.seq),
        length: ip.end - payload,
        ack: u32::from_be(tcp.ack),
        flags: tcp.flags,
        fragment: ip.fragment != 0,
        shared_pages: false,
    };
    packet.ip = ip_offset;
    packet.fragment = ip.fragment;
    packet.tcp = ip.tcp;
    packet.payload = payload;
    packet.v6 = ethertype == ETH_P_IPV6;
    Ok(())
}

/// The EtherType of the IP header at an offset, by its version.
#[inline(always)]
fn nibble(context: impl Context, offset: u32) -> Result<u16, u32> {
    // A whole word: of a single byte the verifier takes the compiler's comparison for none (6.18: "invalid access to packet").
    let first: &[u8; 4] = header(context, offset)?;
    match first[0] >> 4 {
        4 => Ok(ETH_P_IP),
        6 => Ok(ETH_P_IPV6),
        _ => Err(reason::NOT_OURS),
    }
}

/// The protocol behind Ethernet and what is between it and IP, and its offset, with [`ENCAPSULATED`].
#[inline(always)]
fn ethernet(context: impl Context, packet: &Packet) -> Result<(u16, u32), u32> {
    let ethertype: &[u8; 2] = header(context, packet.link - 2)?;
    match u16::from_be_bytes(*ethertype) {
        fast @ (ETH_P_IP | ETH_P_IPV6) => Ok((fast, packet.link)),
        _ => match context.step_over_tags() {
            found if found & STOPPED != 0 => Err(found & !STOPPED),
            found => Ok((found as u16, found >> OFFSET_AT)),
        },
    }
}

/// With the offset of IP: something other than VLAN tags is in front of it.
const ENCAPSULATED: u32 = 1 << 12;
/// What [`step_over_tags`] returns: the protocol, and from this bit on its offset with [`ENCAPSULATED`];
const OFFSET_AT: u32 = 16;
/// or with this bit why it is not known.
const STOPPED: u32 = 1 << 31;

/// Steps over VLAN tags, PPPoE and MPLS labels. A global function.
#[inline(always)]
pub fn step_over_tags(context: impl Context) -> u32 {
    match tags(context) {
        Ok((protocol, offset)) => protocol as u32 | offset << OFFSET_AT,
        Err(why) => why | STOPPED,
    }
}

#[inline(always)]
fn tags(context: impl Context) -> Result<(u16, u32), u32> {
    let mut offset = ETHERNET;
    let mut ethertype: &[u8; 2] = header(context, offset - 2)?;
    let mut tag = 0;
    while tag < MAX_TAGS {
        match u16::from_be_bytes(*ethertype) {
            ETH_P_8021Q | ETH_P_8021AD | ETH_P_QINQ1 | ETH_P_QINQ2 | ETH_P_QINQ3 => {
                offset += VLAN;
                ethertype = header(context, offset - 2)?;
            }
            ETH_P_PPP_SES => {
                cold_path();
                let protocol: &[u8; 2] = header(context, offset + PPPOE - 2)?;
                return match u16::from_be_bytes(*protocol) {
                    PPP_IP => Ok((ETH_P_IP, offset + PPPOE | ENCAPSULATED)),
                    PPP_IPV6 => Ok((ETH_P_IPV6, offset + PPPOE | ENCAPSULATED)),
                    _ => Err(unseen(unseen::PPPOE)),
                };
            }
            ETH_P_MPLS_UC | ETH_P_MPLS_MC => {
                cold_path();
                return behind_labels(context, offset);
            }
            other => return Ok((other, offset)),
        }
        tag += 1;
    }
    match u16::from_be_bytes(*ethertype) {
        ETH_P_8021Q | ETH_P_8021AD | ETH_P_QINQ1 | ETH_P_QINQ2 | ETH_P_QINQ3 => Err(unseen(unseen::VLAN)),
        other => Ok((other, offset)),
    }
}

/// The protocol behind MPLS labels (RFC 3032, 2.1), which none of them names: IP by its version.
#[inline(always)]
fn behind_labels(context: impl Context, offset: u32) -> Result<(u16, u32), u32> {
    let mut offset = offset;
    let mut label = 0;
    while label < MAX_TAGS {
        let entry: &[u8; 4] = header(context, offset)?;
        let bottom = entry[2] & 1 != 0;
        offset += MPLS;
        if bottom {
            return match nibble(context, offset)? {
                ETH_P_IP => Ok((ETH_P_IP, offset | ENCAPSULATED)),
                _ => Ok((ETH_P_IPV6, offset | ENCAPSULATED)),
            };
        }
        label += 1;
    }
    Err(unseen(unseen::MPLS))
}

/// What becomes of a packet of another protocol than TCP: TCP may be in some.
#[inline(always)]
fn other_protocol(context: impl Context, protocol: u8, offset: u32) -> u32 {
    match protocol {
        IPPROTO_IPIP | IPPROTO_IPV6 => unseen(unseen::IP_IN_IP),
        IPPROTO_GRE => unseen(unseen::GRE),
        IPPROTO_ESP => unseen(unseen::ESP),
        IPPROTO_UDP => match header::<[u8; 4]>(context, offset) {
            Ok(ports) if u16::from_be_bytes([ports[2], ports[3]]) == VXLAN_PORT => unseen(unseen::VXLAN),
            _ => reason::NOT_OURS,
        },
        _ => reason::NOT_OURS,
    }
}

/// 1 where the options of a SYN say that it opens a further path of a Multipath TCP connection (MP_JOIN, RFC 8684, 3.2). A global function.
#[inline(always)]
pub fn joins_multipath(context: impl Context, packet: *const Packet) -> u32 {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const MPTCP: u8 = 30;
    const MP_JOIN: u8 = 1;
    const JOIN_BYTES: u32 = 12;
    const MAX_OPTIONS: u32 = 40;
    let Some(packet) = non_null(packet.cast_mut()) else { return 0 };
    let mut offset = packet.tcp + TCP_HEADER;
    let mut i = 0;
    while i < MAX_OPTIONS && offset + JOIN_BYTES <= packet.payload {
        let mut option = [0u8; 4];
        // SAFETY: the buffer is as long as said.
        if !unsafe { context.load(offset, option.as_mut_ptr(), 4) } || option[0] == END {
            return 0;
        }
        if option[0] == MPTCP && option[2] >> 4 == MP_JOIN {
            return 1;
        }
        offset += match option[0] {
            NOP => 1,
            _ if option[1] < 2 => return 0,
            _ => option[1] as u32,
        };
        i += 1;
    }
    0
}

#[inline(always)]
fn ipv4(context: impl Context, offset: u32, key: &mut ConnectionKey) -> Result<Ip, u32> {
    let ip: &Ipv4 = header(context, offset)?;
    let length = (ip.version_ihl & 0x0f) as u32 * 4;
    if length < 20 || ip.version_ihl >> 4 != 4 {
        return Err(unseen(unseen::MALFORMED));
    }
    if ip.protocol != IPPROTO_TCP {
        return Err(other_protocol(context, ip.protocol, offset + length));
    }
    let fragment = u16::from_be(ip.fragment);
    if fragment & 0x1fff != 0 {
        return Err(later_fragment(fragment as u32 & 0x1fff));
    }
    key.local = mapped(ip.source);
    key.remote = mapped(ip.destination);
    Ok(Ip {
        tcp: offset + length,
        end: end(context, offset, u16::from_be(ip.total_length) as u32),
        fragment: if fragment & 0x2000 != 0 { offset + 6 } else { 0 },
    })
}

/// A fragment of TCP other than the first, by its offset in units of 8 bytes. At 1 it would write over the header of the first one
/// (RFC 3128, 2.1). The others are of no use to anyone without the first.
#[inline(always)]
fn later_fragment(offset: u32) -> u32 {
    if offset == 1 { reason::FRAGMENTED | DROPPED } else { reason::FRAGMENT }
}

#[inline(always)]
fn ipv6(context: impl Context, offset: u32, key: &mut ConnectionKey) -> Result<Ip, u32> {
    let ip: &Ipv6 = header(context, offset)?;
    key.local = ip.source;
    key.remote = ip.destination;
    let length = u16::from_be(ip.payload_length) as u32;
    // A payload length of 0 is a jumbogram (BIG TCP): only the packet knows its length.
    let end = if length == 0 { context.length() } else { end(context, offset, IPV6 + length) };
    if ip.next_header == IPPROTO_TCP {
        return Ok(Ip { tcp: offset + IPV6, end, fragment: 0 });
    }
    let found = context.step_over_extensions(offset + IPV6, ip.next_header as u32);
    match found {
        NO_TCP => Err(reason::NOT_OURS),
        _ if found & OTHER != 0 => Err(other_protocol(context, found as u8, found >> FRAGMENT_AT)),
        _ if found & EARLIER_FRAGMENT != 0 => Err(later_fragment(found >> FRAGMENT_AT)),
        TOO_LONG => Err(match is_declared(&key.remote) {
            true => reason::EXTENSIONS | DROPPED,
            false => unseen(unseen::EXTENSIONS),
        }),
        _ => Ok(Ip { tcp: found & OFFSET, end, fragment: found >> FRAGMENT_AT }),
    }
}

/// Whether an address is one of a declared session, by the policy in force.
#[inline(always)]
fn is_declared(address: &Address) -> bool {
    connection::in_force().is_some_and(|(side, _)| connection::is_declared(address, side))
}

/// Parts of what [`step_over_extensions`] returns: where TCP begins,
const OFFSET: u32 = 0x7ff;
/// that there is another protocol, which is in the lowest byte,
const OTHER: u32 = 1 << 14;
/// that it is a later fragment, of an offset in units of 8 bytes,
const EARLIER_FRAGMENT: u32 = 1 << 15;
/// and from this bit on an offset: of that, of the other protocol, or where a first fragment says that more follow.
const FRAGMENT_AT: u32 = 16;
/// There is nothing behind the headers, or nothing that is known.
const NO_TCP: u32 = 0;
/// More headers, or longer ones, than are looked behind.
const TOO_LONG: u32 = 1;

/// Steps over IPv6 extension headers (RFC 8200, 4) from `offset` on. Returns where TCP begins, and where the packet is the
/// first fragment ([`FRAGMENT_AT`]); or else what there is in place of it.
///
/// A global function.
#[inline(always)]
pub fn step_over_extensions(context: impl Context, offset: u32, protocol: u32) -> u32 {
    let mut offset = offset;
    let mut protocol = protocol as u8;
    let mut found = 0;
    let mut i = 0;
    while i < MAX_EXTENSIONS {
        let mut bytes = [0u8; 4];
        if protocol == IPPROTO_TCP {
            return if offset <= OFFSET { found | offset } else { TOO_LONG };
        }
        // SAFETY: the buffer is as long as said.
        if !unsafe { context.load(offset, bytes.as_mut_ptr(), 4) } {
            return NO_TCP;
        }
        let length = bytes[1] as u32;
        offset += match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => (length + 1) * 8,
            // Counts 4 bytes beyond the first two (RFC 4302, 2.2).
            AUTHENTICATION => (length + 2) * 4,
            FRAGMENT if bytes[2] != 0 || bytes[3] & 0xf8 != 0 => {
                // Of what else than TCP it is a part no one needs to know.
                if bytes[0] != IPPROTO_TCP && !is_extension(bytes[0]) {
                    return NO_TCP;
                }
                return EARLIER_FRAGMENT
                    | (u16::from_be_bytes([bytes[2], bytes[3]]) as u32 >> 3) << FRAGMENT_AT;
            }
            FRAGMENT => {
                // Offset and flags are its third and fourth byte (RFC 8200, 4.5).
                found = if bytes[3] & 1 != 0 { ((offset + 2) & OFFSET) << FRAGMENT_AT } else { found };
                8
            }
            other => return OTHER | other as u32 | (offset & OFFSET) << FRAGMENT_AT,
        };
        protocol = bytes[0];
        i += 1;
    }
    TOO_LONG
}

/// Whether a protocol is one of the extension headers that are stepped over.
#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// Offset behind an IP packet of `length` bytes. A length of 0 is one too large for its field (BIG TCP).
#[inline(always)]
fn end(context: impl Context, offset: u32, length: u32) -> u32 {
    let whole = context.length();
    if length == 0 || offset + length > whole { whole } else { offset + length }
}

/// IPv4's TTL or IPv6's hop limit.
#[inline(always)]
pub fn hops(context: impl Context, packet: &Packet) -> u32 {
    let hops = match packet.v6 {
        true => header::<Ipv6>(context, packet.ip).map(|ip| ip.hop_limit),
        false => header::<Ipv4>(context, packet.ip).map(|ip| ip.ttl),
    };
    hops.map_or(0, u32::from)
}

/// TCP's checksum, as it lies in memory.
#[inline(always)]
pub fn checksum(context: impl Context, packet: &Packet) -> u32 {
    header::<[u8; 2]>(context, packet.tcp + 16).map_or(0, |bytes| u16::from_ne_bytes(*bytes) as u32)
}

/// A header in place. By reference, for a copy of a packed struct would lie on the stack unaligned.
#[inline(always)]
fn header<T: Packed>(context: impl Context, offset: u32) -> Result<&'static T, u32> {
    // The verifier wants to see that an offset is small.
    let offset = (offset & 0x7ff) as usize;
    let (data, end) = context.bounds();
    if data + offset + size_of::<T>() > end {
        return Err(unseen(unseen::MALFORMED));
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
unsafe impl Packed for FastHeaders {}
// SAFETY: as above.
unsafe impl Packed for Ipv6 {}
// SAFETY: as above.
unsafe impl Packed for Tcp {}
// SAFETY: bytes.
unsafe impl<const N: usize> Packed for [u8; N] {}
