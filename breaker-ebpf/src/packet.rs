//! The parsed headers of a packet.

use breaker_common::abi::ConnectionKey;
use breaker_common::decide::Segment;

/// Bytes of an Ethernet header.
pub const ETHERNET: u32 = 14;
/// Largest offset of a header, as a mask.
pub const MAX_OFFSET: u32 = 0x7ff;

/// The parsed headers of a packet. Offsets are in bytes from the packet's start.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    /// Addresses and ports of the connection; the trading host's end is local.
    pub key: ConnectionKey,
    /// The TCP segment.
    pub segment: Segment,
    /// Offset of the IP header.
    pub ip: u32,
    /// Offset of the TCP header.
    pub tcp: u32,
    /// Offset of the payload.
    pub payload: u32,
    /// Offset of the more-fragments field of a first fragment; otherwise 0.
    pub fragment: u32,
    /// Bytes of the link header: [`ETHERNET`], or 0 on a device without one. Set before the headers are
    /// parsed.
    pub link: u32,
    /// The packet is IPv6.
    pub v6: bool,
    /// A PPPoE or MPLS header lies between the link header and IP. A PPPoE header holds the packet's length.
    pub encapsulated: bool,
}

impl Packet {
    /// Swaps the connection's ends: the sender of an inbound packet is the peer.
    #[inline(always)]
    pub fn swap_endpoints(&mut self) {
        let key = &mut self.key;
        core::mem::swap(&mut key.local, &mut key.remote);
        core::mem::swap(&mut key.local_port, &mut key.remote_port);
    }
}

/// The network header of a packet.
#[derive(Clone, Copy)]
pub struct Network {
    /// The EtherType, of IP also behind PPPoE and MPLS headers.
    pub ethertype: u16,
    /// Offset of the header.
    pub offset: u32,
    /// See [`Packet::encapsulated`].
    pub encapsulated: bool,
}

/// The TCP header of a packet.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Offset of the header.
    pub tcp: u32,
    /// See [`Packet::fragment`].
    pub fragment: u32,
}
