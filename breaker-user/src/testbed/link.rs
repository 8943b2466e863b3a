//! Interfaces of a namespace: the operations of `ip link`, `ip address`, `ip neigh` and `ip route`.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::net::{SocketFlags, SocketType, netdevice, socket_with};

use super::error::{Error, Result};
use super::ethtool;
use super::netns::Namespace;
use crate::netlink;

/// Longest time that an interface may take to come up.
const COMING_UP: Duration = Duration::from_secs(5);

/// Creates a veth pair with one end in each namespace. Both ends are down and have no address.
///
/// # Errors
/// If a name is taken or invalid, or the kernel has no veth driver.
pub fn veth(a: &Namespace, name_a: &str, b: &Namespace, name_b: &str) -> Result<()> {
    let mut peer = named(name_b);
    peer.attributes.push(LinkAttribute::NetNsFd(b.network().as_raw_fd()));
    let link = with_info(named(name_a), InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(peer)));
    a.run(|| netlink::create(Netlink::NewLink(link))).map_err(|found| {
        let what = format!("creating the veth pair {name_a} and {name_b}");
        Error::from_kernel(what, found, "use a free name of up to 15 characters; run `modprobe veth`")
    })
}

impl Namespace {
    /// Creates a VLAN device (IEEE 802.1Q) with VLAN identifier `id` on the interface `on`.
    ///
    /// # Errors
    /// If `on` does not exist, the name is taken, or the kernel has no VLAN support.
    pub fn add_vlan(&self, on: &str, name: &str, id: u16) -> Result<()> {
        self.request(&format!("creating the VLAN device {name}"), || {
            let mut link = with_info(named(name), InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(id)]));
            link.attributes.push(LinkAttribute::Link(index(on)?));
            netlink::create(Netlink::NewLink(link))
        })
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// If the interface does not exist.
    pub fn set_up(&self, interface: &str) -> Result<()> {
        self.set_link(interface, |link| link.header.flags = LinkFlags::Up)
    }

    /// Waits until an interface that was brought up carries packets, which requires both ends of the veth
    /// pair up. Packets sent earlier are lost, and TCP retransmits a SYN only after one second.
    ///
    /// # Errors
    /// If the interface does not exist, or does not come up within 5 s.
    pub fn wait_until_up(&self, interface: &str) -> Result<()> {
        self.request(&format!("waiting for {interface} to come up"), || {
            let start = Instant::now();
            while !ethtool::has_link(interface)? {
                if start.elapsed() > COMING_UP {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    }

    /// Takes an interface down. The kernel removes its routes and its IPv6 addresses.
    ///
    /// # Errors
    /// If the interface does not exist.
    pub fn set_down(&self, interface: &str) -> Result<()> {
        self.set_link(interface, |_| ())
    }

    /// Sets the MTU of an interface, in bytes of IP packet.
    ///
    /// # Errors
    /// If the interface does not exist, or does not support the MTU.
    pub fn set_mtu(&self, interface: &str, mtu: u32) -> Result<()> {
        self.request(&format!("setting the MTU of {interface}"), || {
            let mut link = found(interface)?;
            link.attributes.push(LinkAttribute::Mtu(mtu));
            netlink::change(Netlink::SetLink(link))
        })
    }

    /// Renames an interface. Kernels before 6.2 require the interface to be down.
    ///
    /// # Errors
    /// If the interface does not exist, or the name is taken.
    pub fn rename(&self, interface: &str, name: &str) -> Result<()> {
        self.request(&format!("renaming {interface} to {name}"), || {
            let mut link = found(interface)?;
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            netlink::change(Netlink::SetLink(link))
        })
    }

    /// Removes an interface. The kernel removes both ends of a veth pair.
    ///
    /// # Errors
    /// If the interface does not exist.
    pub fn remove(&self, interface: &str) -> Result<()> {
        self.request(&format!("removing {interface}"), || {
            netlink::change(Netlink::DelLink(found(interface)?))
        })
    }

    /// Moves an interface to another namespace. The interface is down there, and has no address.
    ///
    /// # Errors
    /// If the interface does not exist, or the other namespace has an interface of its name.
    pub fn move_to(&self, interface: &str, other: &Self) -> Result<()> {
        self.request(&format!("moving {interface}"), || {
            let mut link = found(interface)?;
            link.attributes.push(LinkAttribute::NetNsFd(other.network().as_raw_fd()));
            netlink::change(Netlink::SetLink(link))
        })
    }

    /// Adds an address with a prefix length in bits. The address is usable at once, without IPv6 duplicate
    /// detection.
    ///
    /// # Errors
    /// If the interface does not exist or has the address, or the kernel has no IPv6.
    pub fn add_address(&self, interface: &str, address: IpAddr, prefix: u8) -> Result<()> {
        self.request(&format!("adding {address}/{prefix} to {interface}"), || {
            let mut message = AddressMessage::default();
            message.header.family = family(address);
            message.header.prefix_len = prefix;
            message.header.index = index(interface)?;
            message.header.flags = AddressHeaderFlags::Nodad;
            // IFA_LOCAL is the local address. IFA_ADDRESS is the peer's on a point-to-point link, else the
            // same.
            message.attributes = vec![AddressAttribute::Address(address), AddressAttribute::Local(address)];
            netlink::create(Netlink::NewAddress(message))
        })
    }

    /// Adds a permanent neighbour entry, so that the kernel sends no ARP or neighbour solicitation.
    ///
    /// # Errors
    /// If the interface does not exist, or has the neighbour.
    pub fn add_neighbour(&self, interface: &str, address: IpAddr, hardware: [u8; 6]) -> Result<()> {
        self.request(&format!("adding the neighbour {address} to {interface}"), || {
            let mut message = NeighbourMessage::default();
            message.header.family = family(address);
            message.header.ifindex = index(interface)?;
            message.header.state = NeighbourState::Permanent;
            message.attributes = vec![
                NeighbourAttribute::Destination(address.into()),
                NeighbourAttribute::LinkLayerAddress(hardware.to_vec()),
            ];
            netlink::create(Netlink::NewNeighbour(message))
        })
    }

    /// Adds a route to the network `to` through a gateway. `prefix` is in bits; 0 makes a default route.
    ///
    /// # Errors
    /// If the gateway is not directly reachable, or the route exists.
    pub fn add_route(&self, to: IpAddr, prefix: u8, gateway: IpAddr) -> Result<()> {
        self.request(&format!("adding a route to {to}/{prefix}"), || {
            let mut message = RouteMessage::default();
            message.header = RouteHeader {
                address_family: family(to),
                destination_prefix_length: prefix,
                table: RouteHeader::RT_TABLE_MAIN,
                protocol: RouteProtocol::Static,
                scope: RouteScope::Universe,
                kind: RouteType::Unicast,
                ..RouteHeader::default()
            };
            message.attributes =
                vec![RouteAttribute::Destination(to.into()), RouteAttribute::Gateway(gateway.into())];
            netlink::create(Netlink::NewRoute(message))
        })
    }

    /// The hardware address of an interface.
    ///
    /// # Errors
    /// If the interface does not exist.
    pub fn hardware_address(&self, interface: &str) -> Result<[u8; 6]> {
        self.request(&format!("reading the hardware address of {interface}"), || {
            let text = fs::read_to_string(format!("/sys/class/net/{interface}/address"))?;
            let bytes: Option<Vec<u8>> =
                text.trim().split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
            bytes
                .and_then(|b| b.try_into().ok())
                .ok_or_else(|| io::Error::other(format!("{:?}", text.trim())))
        })
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// If the interface does not exist.
    pub fn index(&self, interface: &str) -> Result<u32> {
        self.request(&format!("finding {interface}"), || index(interface))
    }

    fn set_link(&self, interface: &str, set: impl FnOnce(&mut LinkMessage) + Send) -> Result<()> {
        self.request(&format!("setting {interface}"), || {
            let mut link = found(interface)?;
            link.header.change_mask = LinkFlags::Up;
            set(&mut link);
            netlink::change(Netlink::SetLink(link))
        })
    }

    fn request<R: Send>(&self, what: &str, request: impl FnOnce() -> io::Result<R> + Send) -> Result<R> {
        let cure = "see `ip link` and `ip address` in the namespace";
        self.run(request).map_err(|found| Error::from_kernel(what, found, cure))
    }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn with_info(mut link: LinkMessage, kind: InfoKind, data: InfoData) -> LinkMessage {
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    link
}

/// Returns the message that names an interface of the calling thread's namespace.
fn found(interface: &str) -> io::Result<LinkMessage> {
    let mut link = LinkMessage::default();
    link.header.index = index(interface)?;
    Ok(link)
}

fn index(interface: &str) -> io::Result<u32> {
    let socket =
        socket_with(rustix::net::AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::name_to_index(&socket, interface)?)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
