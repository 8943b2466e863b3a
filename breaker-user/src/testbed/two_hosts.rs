//! The smallest testbed: a trading host and a venue, connected by a veth pair.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::Result;
use super::link::veth;
use super::netns::Namespace;

/// Two namespaces connected by a veth pair, with IPv4 and IPv6. The kernel removes them when this value is
/// dropped.
#[derive(Debug)]
pub struct TwoHosts {
    /// The trading host: `eth1` has 10.9.0.1/24 and fd09::1/64.
    pub firm: Namespace,
    /// The venue: `eth1` has 10.9.0.2/24 and fd09::2/64.
    pub venue: Namespace,
}

impl TwoHosts {
    /// The interface at each end.
    pub const INTERFACE: &str = "eth1";
    /// The trading host's address.
    pub const FIRM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
    /// The venue's address.
    pub const VENUE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
    /// The trading host's IPv6 address.
    pub const FIRM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1));
    /// The venue's IPv6 address.
    pub const VENUE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));

    /// Creates both namespaces, connects them, and waits until the link carries packets.
    ///
    /// # Errors
    /// As [`Namespace::new`] and [`veth`].
    pub fn new() -> Result<Self> {
        let hosts = Self { firm: Namespace::new()?, venue: Namespace::new()? };
        veth(&hosts.firm, Self::INTERFACE, &hosts.venue, Self::INTERFACE)?;
        let ends = [(&hosts.firm, Self::FIRM, Self::FIRM_V6), (&hosts.venue, Self::VENUE, Self::VENUE_V6)];
        for (namespace, v4, v6) in ends {
            namespace.add_address(Self::INTERFACE, v4, 24)?;
            namespace.add_address(Self::INTERFACE, v6, 64)?;
            namespace.set_up(Self::INTERFACE)?;
        }
        ends.iter().try_for_each(|(namespace, ..)| namespace.wait_until_up(Self::INTERFACE))?;
        Ok(hosts)
    }

    /// The IPv4 address of an acceptor on `port` of the venue.
    pub const fn venue_socket(port: u16) -> SocketAddr {
        SocketAddr::new(Self::VENUE, port)
    }
}
