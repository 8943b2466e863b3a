//! Link headers: where the IP header of a captured packet starts.

use crate::capture::{Direction, LinkType};

/// Ethernet, with its tags.
const ETHERNET: i32 = 1;
/// IPv4 or IPv6, by the version in the header. The numbers differ between systems.
const RAW: [i32; 5] = [12, 14, 101, 228, 229];
/// BSD loopback: a protocol family in the byte order of the host.
const NULL: i32 = 0;
/// OpenBSD loopback: a protocol family in network order.
const LOOP: i32 = 108;
/// Linux "any" device, version 1.
const LINUX_SLL: i32 = 113;
/// Linux "any" device, version 2.
const LINUX_SLL2: i32 = 276;

const VLANS: [u16; 5] = [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300];
const MPLS: [u16; 2] = [0x8847, 0x8848];
const PPPOE: u16 = 0x8864;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Most tags that the kernel program skips.
const MAX_TAGS: usize = 6;

/// Where an IP header starts.
pub(crate) enum Network {
    /// At this offset, in a packet with this direction.
    Ip(usize, Direction),
    /// The packet is not IP.
    Other,
    /// The captured bytes end before the IP header.
    Cut,
    /// The link type is not supported.
    UnknownLink,
}

/// Finds the IP header.
#[inline(always)]
pub(crate) fn network(link: LinkType, data: &[u8], direction: Direction) -> Network {
    if link.0 == ETHERNET {
        return match data.get(12..14) {
            Some([8, 0]) => Network::Ip(14, direction),
            _ => tagged(data, 14, direction),
        };
    }
    other(link, data, direction)
}

fn other(link: LinkType, data: &[u8], direction: Direction) -> Network {
    let sent = |kind: Option<&u8>| match kind {
        Some(4) => Direction::Outbound,
        Some(0) => Direction::Inbound,
        _ => direction,
    };
    match link.0 {
        NULL | LOOP => Network::Ip(4, direction),
        LINUX_SLL => tagged(data, 16, sent(data.get(1))),
        LINUX_SLL2 => {
            let direction = sent(data.get(10));
            match data.get(..2) {
                Some([8, 0] | [0x86, 0xdd]) => Network::Ip(20, direction),
                Some(_) => Network::Other,
                None => Network::Cut,
            }
        }
        link if RAW.contains(&link) => Network::Ip(0, direction),
        _ => Network::UnknownLink,
    }
}

/// Skips VLAN tags, PPPoE and MPLS. The EtherType is before `offset`.
fn tagged(data: &[u8], mut offset: usize, direction: Direction) -> Network {
    let word = |at: usize| data.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    for _ in 0..=MAX_TAGS {
        let Some(ethertype) = word(offset - 2) else { return Network::Cut };
        match ethertype {
            IPV4 | IPV6 => return Network::Ip(offset, direction),
            PPPOE => return Network::Ip(offset + 8, direction),
            _ if VLANS.contains(&ethertype) => offset += 4,
            _ if MPLS.contains(&ethertype) => return labelled(data, offset, direction),
            _ => return Network::Other,
        }
    }
    Network::Other
}

/// Skips MPLS labels. The last one has a bit (RFC 3032, 2.1).
fn labelled(data: &[u8], offset: usize, direction: Direction) -> Network {
    for label in 0..MAX_TAGS {
        let Some(entry) = data.get(offset + 4 * label..offset + 4 * label + 4) else { return Network::Cut };
        if entry[2] & 1 != 0 {
            return Network::Ip(offset + 4 * label + 4, direction);
        }
    }
    Network::Other
}
