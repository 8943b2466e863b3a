//! The headers of a packet: Ethernet, VLAN, MPLS, PPPoE, IPv4, IPv6 and TCP.

pub mod extensions;
pub mod fast;
pub mod header;
pub mod multipath;
pub mod tags;

use core::hint::cold_path;

use breaker_common::abi::{ConnectionKey, mapped, reason, unseen};
use breaker_common::decide::Segment;

use crate::context::Context;
use crate::exit::Exit;
use crate::packet::{Network, Packet, Transport};
use crate::scratch::non_null;
use crate::{counters, policy, probe};
use header::{
    ETH_P_IP, ETH_P_IPV6, IPPROTO_TCP, IPV6, Ipv4, Ipv6, TCP, Tcp, end_of_ip, ethertype_at, header,
    later_fragment, other_protocol,
};

/// Lower values of an EtherType are lengths (IEEE 802.3, 3.2.6).
const ETH_P_802_3_MIN: u16 = 0x0600;
/// Most bytes of all headers: Ethernet, some tags, IPv4 or IPv6 with all options, TCP with all options.
const MAX_HEADERS: u32 = 256;

/// Parses the headers into `packet`.
///
/// # Errors
/// The packet is not TCP over IP, or its headers are incomplete or too long.
#[inline(always)]
pub fn parse(context: impl Context, packet: &mut Packet) -> Result<(), Exit> {
    let Err(exit) = context.parse_headers(packet) else { return Ok(()) };
    cold_path();
    if let Some(kind) = exit.unseen_kind() {
        counters::count_unseen(context.ifindex(), kind);
    }
    Err(exit)
}

/// [`parse`] without the counter. A global function: behind it the verifier follows one path, not one for
/// each layout.
#[inline(always)]
pub fn parse_headers(context: impl Context, packet: *mut Packet) -> Result<(), Exit> {
    const CUT_SHORT: Exit = Exit::unseen(unseen::MALFORMED);
    let Some(packet) = non_null(packet) else { return Err(Exit::pass(reason::NOT_CONFIGURED)) };
    // Raw sockets and tunnels may send headers that are not linear.
    let result = match headers(context, packet) {
        Err(CUT_SHORT) if context.make_linear(MAX_HEADERS) => headers(context, packet),
        result => result,
    };
    // In this function, because the stack of the entry point has no room: "combined stack size of 6 calls
    // is 544. Too large" (up to 6.1).
    result.map_err(|exit| probe::stamp(context, exit))
}

#[inline(always)]
fn headers(context: impl Context, packet: &mut Packet) -> Result<(), Exit> {
    let network = network(context, packet.link)?;
    packet.encapsulated = network.encapsulated;
    let (Transport { tcp: offset, fragment }, end) = match network.ethertype {
        ETH_P_IP => ipv4(context, network.offset, &mut packet.key)?,
        ETH_P_IPV6 => ipv6(context, network.offset, &mut packet.key)?,
        length if length < ETH_P_802_3_MIN => return Err(Exit::unseen(unseen::LLC)),
        _ => return Err(Exit::pass(reason::NOT_OURS)),
    };
    // A first fragment that ends inside the TCP header hides the ports or flags (RFC 3128). No TCP sends one.
    if fragment != 0 && offset + TCP > end {
        return Err(Exit::drop(reason::FRAGMENTED));
    }
    let tcp: &Tcp = header(context, offset)?;
    packet.key.local_port = tcp.source;
    packet.key.remote_port = tcp.destination;
    let payload = offset + (tcp.offset >> 4) as u32 * 4;
    if tcp.offset >> 4 < 5 || payload > end {
        return Err(match fragment {
            0 => Exit::unseen(unseen::MALFORMED),
            _ => Exit::drop(reason::FRAGMENTED),
        });
    }
    packet.segment = Segment {
        seq: u32::from_be(tcp.seq),
        length: end - payload,
        ack: u32::from_be(tcp.ack),
        flags: tcp.flags,
        fragment: fragment != 0,
        shared_pages: false,
    };
    packet.ip = network.offset;
    packet.fragment = fragment;
    packet.tcp = offset;
    packet.payload = payload;
    packet.v6 = network.ethertype == ETH_P_IPV6;
    Ok(())
}

/// Returns the network header behind a link header of `link` bytes.
#[inline(always)]
fn network(context: impl Context, link: u32) -> Result<Network, Exit> {
    if link == 0 {
        return Ok(Network { ethertype: ethertype_at(context, 0)?, offset: 0, encapsulated: false });
    }
    let ethertype: &[u8; 2] = header(context, link - 2)?;
    match u16::from_be_bytes(*ethertype) {
        ethertype @ (ETH_P_IP | ETH_P_IPV6) => Ok(Network { ethertype, offset: link, encapsulated: false }),
        _ => context.skip_tags(),
    }
}

/// Reads an IPv4 header. Returns the TCP header, and the offset behind the packet without the link's padding.
#[inline(always)]
fn ipv4(context: impl Context, offset: u32, key: &mut ConnectionKey) -> Result<(Transport, u32), Exit> {
    let ip: &Ipv4 = header(context, offset)?;
    let length = (ip.version_ihl & 0x0f) as u32 * 4;
    if length < 20 || ip.version_ihl >> 4 != 4 {
        return Err(Exit::unseen(unseen::MALFORMED));
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
    let fragment = if fragment & 0x2000 != 0 { offset + 6 } else { 0 };
    let end = end_of_ip(context, offset, u16::from_be(ip.total_length) as u32);
    Ok((Transport { tcp: offset + length, fragment }, end))
}

/// Reads an IPv6 header. Returns the same as [`ipv4`].
#[inline(always)]
fn ipv6(context: impl Context, offset: u32, key: &mut ConnectionKey) -> Result<(Transport, u32), Exit> {
    let ip: &Ipv6 = header(context, offset)?;
    key.local = ip.source;
    key.remote = ip.destination;
    let length = u16::from_be(ip.payload_length) as u32;
    // A jumbogram (BIG TCP) has a payload length of 0.
    let end = if length == 0 { context.length() } else { end_of_ip(context, offset, IPV6 + length) };
    if ip.next_header == IPPROTO_TCP {
        return Ok((Transport { tcp: offset + IPV6, fragment: 0 }, end));
    }
    match context.skip_extensions(offset + IPV6, ip.next_header as u32) {
        Ok(transport) => Ok((transport, end)),
        Err(extensions::TOO_LONG) if policy::is_declared(&key.remote) => Err(Exit::drop(reason::EXTENSIONS)),
        Err(exit) => Err(exit),
    }
}
