//! The smallest laboratory: a trading host, a venue, and the cable between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::Result;
use super::link::veth;
use super::netns::Namespace;

/// Two namespaces that reach each other, over IPv4 and IPv6, through a veth pair. All of it goes when this goes.
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

    /// Makes both namespaces, lays the cable, and waits until it carries packets.
    ///
    /// # Errors
    /// As [`Namespace::new`] and [`veth`] have them.
    pub fn new() -> Result<Self> {
        let wire = Self { firm: Namespace::new()?, venue: Namespace::new()? };
        veth(&wire.firm, Self::INTERFACE, &wire.venue, Self::INTERFACE)?;
        let ends = [(&wire.firm, Self::FIRM, Self::FIRM_V6), (&wire.venue, Self::VENUE, Self::VENUE_V6)];
        for (namespace, v4, v6) in ends {
            namespace.add_address(Self::INTERFACE, v4, 24)?;
            namespace.add_address(Self::INTERFACE, v6, 64)?;
            namespace.set_up(Self::INTERFACE)?;
        }
        ends.iter().try_for_each(|(namespace, ..)| namespace.wait_until_up(Self::INTERFACE))?;
        Ok(wire)
    }

    /// Where an acceptor on `port` of the venue listens, on IPv4.
    pub const fn venue_socket(port: u16) -> SocketAddr {
        SocketAddr::new(Self::VENUE, port)
    }
}
