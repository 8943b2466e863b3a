//! A gateway between trading hosts and a venue, with breaker on it: three namespaces.
//!
//! ```text
//!   firm                          gateway                          venue
//!   eth1 10.8.0.1, fd08::1 ------ in0 .254, ::fe
//!   (the engine: .9, ::9)         out0 10.9.0.254, fd09::fe ------ eth1 10.9.0.2, fd09::2
//! ```
//!
//! The interfaces have no segmentation or checksum offload, unless the trading host is given some
//! ([`Offloads`]). Frames are no longer than the MTU, and their sender has computed the checksum. A wrong
//! checksum shows, as on a real wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use breaker_user::testbed::{Namespace, Offload, Result, TwoHosts, veth};

use crate::empty_program::EmptyProgram;
use crate::network::Network;
use crate::testbed::Testbed;

/// The namespaces. They end when the value is dropped.
pub struct Gateway {
    /// The trading host.
    pub firm: Namespace,
    /// The router between the two.
    pub gateway: Namespace,
    /// The venue.
    pub venue: Namespace,
    /// At the interface of the trading host: see [`Gateway::new`].
    _card: EmptyProgram,
}

/// Work that the trading host's stack leaves to its network card, as `ethtool -K` names it. A veth does none
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Nothing: frames reach the gateway as on a wire.
    None,
    /// Checksums (`tx`): the gateway sees checksums of the pseudo header only, which its kernel knows
    /// (CHECKSUM_PARTIAL). A virtual machine or a container beside the gateway sends such frames.
    Checksums,
    /// Segmentation too (`tso`, `gso`): the gateway sees segments of up to 64 KB.
    Segments,
}

impl Offloads {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Checksums, Self::Segments];
}

const fn v4(network: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, network, 0, host))
}

const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00 + network, 0, 0, 0, 0, 0, 0, host))
}

impl Gateway {
    /// The gateway's interface that faces the trading host.
    pub const INSIDE: &str = "in0";
    /// The gateway's interface that faces the venue.
    pub const OUTSIDE: &str = "out0";
    /// Addresses of the trading host.
    pub const FIRM: [IpAddr; 2] = [v4(8, 1), v6(8, 1)];
    /// Addresses behind the trading host's interface that its kernel does not have, for a TCP in user space
    /// ([`crate::user_tcp`]).
    pub const ENGINE: [IpAddr; 2] = [v4(8, 9), v6(8, 9)];
    /// Addresses of the venue: those of [`TwoHosts`].
    pub const VENUE: [IpAddr; 2] = [TwoHosts::VENUE, TwoHosts::VENUE_V6];

    /// Makes the namespaces and veth pairs, and waits until they carry packets.
    ///
    /// # Errors
    /// Those of [`Namespace::new`] and [`veth`].
    pub fn new(offloads: Offloads) -> Result<Self> {
        let (firm, gateway, venue) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        for namespace in [&firm, &gateway, &venue] {
            // With duplicate address detection, a link-local address cannot be used for a second, and a
            // router asks for its neighbours from there.
            namespace.set_sysctl("net/ipv6/conf/all/accept_dad", 0)?;
            namespace.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
        }
        veth(&firm, TwoHosts::INTERFACE, &gateway, Self::INSIDE)?;
        veth(&gateway, Self::OUTSIDE, &venue, TwoHosts::INTERFACE)?;
        let (inside, outside) = ([v4(8, 254), v6(8, 0xfe)], [v4(9, 254), v6(9, 0xfe)]);
        let ends = [
            (&firm, TwoHosts::INTERFACE, Self::FIRM),
            (&gateway, Self::INSIDE, inside),
            (&gateway, Self::OUTSIDE, outside),
            (&venue, TwoHosts::INTERFACE, Self::VENUE),
        ];
        for (namespace, interface, addresses) in ends {
            let left = if addresses == Self::FIRM { offloads } else { Offloads::None };
            namespace.set_offload(interface, Offload::Tso, left == Offloads::Segments)?;
            namespace.set_offload(interface, Offload::Gso, left == Offloads::Segments)?;
            namespace.set_offload(interface, Offload::TransmitChecksum, left != Offloads::None)?;
            namespace.add_address(interface, addresses[0], 24)?;
            namespace.add_address(interface, addresses[1], 64)?;
            namespace.set_up(interface)?;
        }
        // A frame that XDP sends back over a veth waits for the next one, unless the other end has XDP too
        // (kernel `veth_xdp_flush`). Network cards do not wait.
        let card = firm.run(|| EmptyProgram::open().attach(TwoHosts::INTERFACE));
        ends.iter().try_for_each(|(namespace, interface, _)| namespace.wait_until_up(interface))?;
        for (family, prefix) in [(0, 24), (1, 64)] {
            firm.add_route([v4(9, 0), v6(9, 0)][family], prefix, inside[family])?;
            venue.add_route([v4(8, 0), v6(8, 0)][family], prefix, outside[family])?;
            gateway.add_neighbour(
                Self::INSIDE,
                Self::ENGINE[family],
                firm.hardware_address(TwoHosts::INTERFACE)?,
            )?;
        }
        gateway.set_sysctl("net/ipv4/ip_forward", 1)?;
        gateway.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
        Ok(Self { firm, gateway, venue, _card: card })
    }
}

impl Network for Gateway {
    const INTERFACE: &str = Self::INSIDE;

    fn host(&self) -> &Namespace {
        &self.gateway
    }

    fn firm(&self) -> &Namespace {
        &self.firm
    }

    fn venue(&self) -> &Namespace {
        &self.venue
    }
}

/// The XDP hook on the inside interface, with its names in the configuration and in `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the stack, with any driver.
    Generic,
}

impl Hook {
    /// Both hooks.
    pub const ALL: [Self; 2] = [Self::Native, Self::Generic];
    /// The mode, in the configuration and in `status`.
    pub const MODE: &str = "inline";

    /// Name in the configuration.
    pub fn configured(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// Name in `status --json`.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// A testbed with breaker on a gateway.
pub type Inline = Testbed<Gateway>;

impl Testbed<Gateway> {
    /// Loads a policy on the gateway's inside interface by the command line. The text is what follows
    /// `[host]`, its `interfaces`, `mode` and `hook`.
    pub fn inline(hook: Hook, offloads: Offloads, policy: &str) -> Self {
        let testbed = Self::inline_unloaded(hook, offloads, policy);
        testbed.load_cli();
        testbed
    }

    /// A gateway with a configuration, and nothing loaded.
    pub fn inline_unloaded(hook: Hook, offloads: Offloads, policy: &str) -> Self {
        let host = format!("mode = {:?}\nhook = {:?}\n", Hook::MODE, hook.configured());
        Self::on(Gateway::new(offloads).expect("making namespaces"), &(host + policy))
    }

    /// Whether status shows the program attached to the inside interface by this hook.
    pub fn is_attached_by(&self, hook: Hook) -> bool {
        let status = self.status_json();
        let interface = &status["interfaces"][0];
        interface["name"] == Gateway::INSIDE
            && interface["mode"] == Hook::MODE
            && interface["hook"] == hook.shown()
            && interface["attached"] == true
    }
}
