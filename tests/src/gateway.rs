//! A gateway between trading hosts and a venue, and breaker in it: three namespaces.
//!
//! ```text
//!   firm                          gateway                          venue
//!   eth1 10.8.0.1, fd08::1 ------ in0 .254, ::fe
//!   (the engine: .9, ::9)         out0 10.9.0.254, fd09::fe ------ eth1 10.9.0.2, fd09::2
//! ```
//!
//! Nothing here is segmented or summed for free, as between two neighbours in memory it would be, unless the trading host is
//! told to ([`Offloads`]): frames are no longer than the MTU, and whoever sends one has written its checksum. A program that
//! leaves a wrong one is found out, as on a real wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use breaker_user::testbed::{Namespace, Offload, Result, TwoHosts, veth};

use crate::empty_program::EmptyProgram;
use crate::testbed::{Network, Testbed};

/// See the module. All of it goes when this goes.
pub struct Gateway {
    /// The trading host.
    pub firm: Namespace,
    /// The router between the two.
    pub gateway: Namespace,
    /// The venue.
    pub venue: Namespace,
    /// At the trading host's interface: see [`Gateway::new`].
    _card: EmptyProgram,
}

/// What the trading host's stack leaves to its network card, as `ethtool -K` has it. A card that is a veth does nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Nothing: what comes to the gateway is what a wire carries.
    None,
    /// Checksums (`tx`): the gateway sees sums of the pseudo header only, and its kernel knows that they are no more
    /// (CHECKSUM_PARTIAL). A trading host that is a virtual machine or a container beside the gateway sends such.
    Checksums,
    /// Segmentation too (`tso`, `gso`): the gateway sees segments of up to 64 KB.
    Segments,
}

impl Offloads {
    /// All.
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
    /// The trading host's addresses.
    pub const FIRM: [IpAddr; 2] = [v4(8, 1), v6(8, 1)];
    /// Addresses on the trading host that its kernel does not know of: those of an engine that brings its own TCP ([`crate::raw`]).
    pub const ENGINE: [IpAddr; 2] = [v4(8, 9), v6(8, 9)];
    /// The venue's addresses: those of [`TwoHosts`].
    pub const VENUE: [IpAddr; 2] = [TwoHosts::VENUE, TwoHosts::VENUE_V6];

    /// Makes the namespaces, lays the cables, and waits until they carry packets.
    ///
    /// # Errors
    /// As [`Namespace::new`] and [`veth`] have them.
    pub fn new(offloads: Offloads) -> Result<Self> {
        let (firm, gateway, venue) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        for namespace in [&firm, &gateway, &venue] {
            // Else a link-local address may not be used for a second, and a router asks for its neighbours from there.
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
        // What XDP sends back over a veth waits until something else comes, unless XDP is at the other end too (kernel
        // `veth_xdp_flush`). Network cards do not wait.
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

/// How the program hangs on the inside interface. The words of the configuration and of `status` are here and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the stack, with any driver.
    Generic,
}

impl Hook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Native, Self::Generic];
    /// The mode, in the configuration and in `status`.
    pub const MODE: &str = "inline";

    /// As the configuration spells it.
    pub fn configured(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// As `status --json` shows it.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// A gateway with breaker.
pub type Inline = Testbed<Gateway>;

impl Testbed<Gateway> {
    /// Loads a policy on the gateway's inside interface, by the command line. The text is what follows `[host]`, its
    /// `interfaces`, `mode` and `hook`.
    pub fn inline(hook: Hook, offloads: Offloads, policy: &str) -> Self {
        let testbed = Self::inline_unloaded(hook, offloads, policy);
        testbed.load_cli();
        testbed
    }

    /// The same, with nothing loaded.
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
