//! The headers of a captured packet: link, IP and TCP.

use breaker_common::abi::{Address, ConnectionKey, mapped};
use breaker_common::decide::Segment;
use etherparse::{IpNumber, Ipv6ExtensionSlice, LaxIpSlice};

use crate::capture::{Direction, Packet};
use crate::link::{Network, network};

/// A TCP segment in a packet.
pub struct Headers<'a> {
    /// Source as the local end, destination as the remote end.
    pub key: ConnectionKey,
    /// The segment. Its length is that on the wire.
    pub segment: Segment,
    /// Captured payload: all of it, or its start.
    pub payload: &'a [u8],
    /// Direction, as far as the capture says it.
    pub direction: Direction,
    /// True for a SYN that opens a further path of Multipath TCP (RFC 8684, 3.2).
    pub joins_multipath: bool,
}

/// Why a packet is no segment to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Not TCP over IP.
    Other,
    /// An IP fragment other than the first.
    Fragment,
    /// Contradictory headers.
    Malformed,
    /// The snaplen cuts the headers.
    CutHeaders,
    /// The link type is not supported.
    UnknownLink,
}

/// The IP header of a packet.
struct Ip {
    local: Address,
    remote: Address,
    /// Offset of the TCP header.
    tcp: usize,
    /// Offset behind the packet on the wire, without padding.
    end: usize,
    is_fragment: bool,
}

/// Bytes of a TCP header up to its flags.
const TCP_FLAGS: usize = 14;
const TCP: u8 = 6;

/// Reads the headers of a packet.
///
/// # Errors
/// The packet is no TCP segment, or its headers are not readable.
#[inline(always)]
pub fn parse<'a>(packet: &Packet<'a>) -> Result<Headers<'a>, Skipped> {
    let data = packet.data;
    let (offset, direction) = match network(packet.link, data, packet.direction) {
        Network::Ip(offset, direction) => (offset, direction),
        Network::Other => return Err(Skipped::Other),
        Network::Cut => return Err(Skipped::CutHeaders),
        Network::UnknownLink => return Err(Skipped::UnknownLink),
    };
    let length = packet.length as usize;
    let ip = match data.get(offset..) {
        Some([0x45, _, total0, total1, _, _, 0 | 0x40, 0, _, TCP, rest @ ..]) if rest.len() >= 10 => {
            let address =
                |at: usize| mapped(u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]));
            let total = u16::from_be_bytes([*total0, *total1]) as usize;
            let end = end(offset, total, length);
            Ip { local: address(2), remote: address(6), tcp: offset + 20, end, is_fragment: false }
        }
        Some(bytes) => any_ip(bytes, offset, length)?,
        None => return Err(Skipped::CutHeaders),
    };
    tcp(data, &ip, direction)
}

/// Returns the offset behind an IP packet. A packet of a sender with large offloads has a length of 0.
#[inline(always)]
fn end(offset: usize, total: usize, length: usize) -> usize {
    if total == 0 { length } else { length.min(offset + total) }
}

/// Reads any IP header: with options, extension headers, fragments.
fn any_ip(bytes: &[u8], offset: usize, length: usize) -> Result<Ip, Skipped> {
    let (ip, _) = LaxIpSlice::from_slice(bytes).map_err(|_| match bytes.len() {
        0..40 => Skipped::CutHeaders,
        _ => Skipped::Malformed,
    })?;
    let payload = ip.payload();
    if payload.ip_number != IpNumber::TCP {
        return Err(Skipped::Other);
    }
    let tcp = offset + (payload.payload.as_ptr().addr() - bytes.as_ptr().addr());
    match ip {
        LaxIpSlice::Ipv4(ip) => {
            let header = ip.header();
            if header.fragments_offset().value() != 0 {
                return Err(Skipped::Fragment);
            }
            Ok(Ip {
                local: mapped(u32::from_ne_bytes(header.source())),
                remote: mapped(u32::from_ne_bytes(header.destination())),
                tcp,
                end: end(offset, header.total_len() as usize, length),
                is_fragment: header.more_fragments(),
            })
        }
        LaxIpSlice::Ipv6(ip) => {
            let header = ip.header();
            let mut is_fragment = false;
            for extension in ip.extensions().clone() {
                if let Ipv6ExtensionSlice::Fragment(fragment) = extension {
                    if fragment.fragment_offset().value() != 0 {
                        return Err(Skipped::Fragment);
                    }
                    is_fragment |= fragment.more_fragments();
                }
            }
            let total = match header.payload_length() as usize {
                0 => 0,
                payload => 40 + payload,
            };
            Ok(Ip {
                local: bytemuck::cast(header.source()),
                remote: bytemuck::cast(header.destination()),
                tcp,
                end: end(offset, total, length),
                is_fragment,
            })
        }
    }
}

/// Reads the TCP header.
#[inline(always)]
fn tcp<'a>(data: &'a [u8], ip: &Ip, direction: Direction) -> Result<Headers<'a>, Skipped> {
    let Some(header) = data.get(ip.tcp..).and_then(|bytes| bytes.first_chunk::<TCP_FLAGS>()) else {
        return Err(if ip.tcp + TCP_FLAGS > ip.end { Skipped::Malformed } else { Skipped::CutHeaders });
    };
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let port = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let header_bytes = (header[12] >> 4) as usize * 4;
    let payload = ip.tcp + header_bytes;
    if header_bytes < 20 || payload > ip.end {
        return Err(Skipped::Malformed);
    }
    let segment = Segment {
        seq: word(4),
        length: (ip.end - payload) as u32,
        ack: word(8),
        flags: header[13],
        fragment: ip.is_fragment,
        shared_pages: false,
    };
    let key = ConnectionKey { local: ip.local, remote: ip.remote, local_port: port(0), remote_port: port(2) };
    let captured = data.get(payload..ip.end.min(data.len())).unwrap_or_default();
    let joins_multipath = segment.opens_connection()
        && header_bytes > 20
        && data.get(ip.tcp + 20..payload).is_some_and(joins_multipath);
    Ok(Headers { key, segment, payload: captured, direction, joins_multipath })
}

/// Returns true if TCP options have MP_JOIN (RFC 8684, 3.2).
fn joins_multipath(mut options: &[u8]) -> bool {
    const MPTCP: u8 = 30;
    const MP_JOIN: u8 = 1;
    loop {
        options = match options {
            [] | [0, ..] => return false,
            [1, rest @ ..] => rest,
            [_] | [_, 0 | 1, ..] => return false,
            [MPTCP, _, subtype, ..] if subtype >> 4 == MP_JOIN => return true,
            [_, length, ..] => options.get(*length as usize..).unwrap_or_default(),
        };
    }
}

/// Returns the key of the opposite direction.
#[inline(always)]
pub fn swapped(key: &ConnectionKey) -> ConnectionKey {
    ConnectionKey {
        local: key.remote,
        remote: key.local,
        local_port: key.remote_port,
        remote_port: key.local_port,
    }
}
