//! The network interfaces of this thread's namespace: their link headers, and which lower interface their
//! packets leave by.

use std::io;

use anyhow::{Context, Result};
use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rustix::io::Errno;

use crate::cli_error::{CliError, Code};
use crate::config::{self, Host, Mode};
use crate::netlink;

/// Length of an Ethernet header in bytes.
const ETHERNET: u32 = 14;

/// An interface.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Kind of a virtual interface (IFLA_INFO_KIND); `None` for a network card.
    pub kind: Option<InfoKind>,
    /// The interface is up.
    pub is_up: bool,
    layer: LinkLayerType,
    lower: Option<u32>,
    controller: Option<u32>,
}

/// Lists all interfaces.
pub fn all() -> io::Result<Vec<Link>> {
    let found = netlink::list(Netlink::GetLink(LinkMessage::default()))?;
    Ok(found
        .into_iter()
        .filter_map(|answer| if let Netlink::NewLink(link) = answer { Some(read(link)) } else { None })
        .collect())
}

fn read(message: LinkMessage) -> Link {
    let (index, layer) = (message.header.index, message.header.link_layer_type);
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let mut link =
        Link { index, name: String::new(), kind: None, is_up, layer, lower: None, controller: None };
    let mut lower_in_other_netns = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Link(lower) => link.lower = Some(lower),
            LinkAttribute::LinkNetNsId(_) => lower_in_other_netns = true,
            LinkAttribute::Controller(controller) => link.controller = Some(controller),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos
                    .into_iter()
                    .find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
            }
            _ => {}
        }
    }
    // The number of an interface in another namespace means another interface here.
    if lower_in_other_netns {
        link.lower = None;
    }
    link
}

impl Link {
    /// Returns the length of the link header of its packets in bytes; `None` for a header that the program
    /// does not read.
    pub fn header(&self) -> Option<u32> {
        use LinkLayerType as Layer;
        match self.layer {
            Layer::Ether | Layer::Loopback => Some(ETHERNET),
            Layer::None
            | Layer::Ppp
            | Layer::Rawip
            | Layer::Tunnel
            | Layer::Tunnel6
            | Layer::Sit
            | Layer::Ipgre
            | Layer::Ip6gre => Some(0),
            _ => None,
        }
    }

    /// Returns the reason why the program cannot read packets of this interface in a mode.
    fn objection(&self, mode: Mode) -> Option<String> {
        match (self.header(), mode) {
            (Some(ETHERNET), _) | (Some(_), Mode::Egress) => None,
            (Some(_), Mode::Inline) => {
                Some(format!("its packets have no Ethernet header (link type {})", self.layer))
            }
            (None, _) => {
                Some(format!("its packets have headers that are not read (link type {})", self.layer))
            }
        }
    }

    /// Returns true if packets leave by the lower interface, with at most a VLAN tag added.
    fn is_layered(&self) -> bool {
        use InfoKind as Kind;
        matches!(self.kind, Some(Kind::Vlan | Kind::MacVlan | Kind::MacVtap | Kind::IpVlan | Kind::IpVtap))
    }

    /// Returns true if packets leave by the ports of this interface.
    fn has_ports(&self) -> bool {
        match &self.kind {
            Some(InfoKind::Bond | InfoKind::Bridge) => true,
            Some(InfoKind::Other(kind)) => kind == "team",
            _ => false,
        }
    }
}

/// Returns the number of an interface.
///
/// # Errors
/// Names an interface that does not exist.
pub fn ifindex(name: &str) -> Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|errno| {
        let found = if errno == Errno::NODEV {
            "there is no such interface here".to_owned()
        } else {
            errno.to_string()
        };
        let text =
            format!("looking up interface {name}: {found}: see `ip link` and correct [host].interfaces");
        CliError::new(Code::Interface, text).into()
    })
}

/// Fails if an interface is missing, and names every missing one.
pub fn require_interfaces(names: &[config::Interface]) -> Result<()> {
    let missing: Vec<_> =
        names.iter().map(config::Interface::as_str).filter(|name| ifindex(name).is_err()).collect();
    match missing[..] {
        [] => Ok(()),
        // The look-up may also fail for another reason.
        [one] => ifindex(one).map(drop),
        _ => {
            let text = format!(
                "looking up interfaces {}: there are no such interfaces here: see `ip link` and correct \
                 [host].interfaces",
                missing.join(", ")
            );
            Err(CliError::new(Code::Interface, text).into())
        }
    }
}

/// Returns true if an interface is a physical network card. A paravirtual interface may receive frames from
/// another guest of the same host without valid checksums.
pub fn is_physical_nic(name: &str) -> bool {
    const PARAVIRTUAL: [&str; 4] = ["virtio_net", "vif", "hv_netvsc", "vmxnet3"];
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver"));
    driver.is_ok_and(|path| {
        path.file_name().is_some_and(|driver| PARAVIRTUAL.iter().all(|other| driver != *other))
    })
}

/// Returns true if an interface is an end of a veth pair.
pub fn is_veth(index: u32) -> bool {
    let is_veth = |link: &Link| link.index == index && link.kind == Some(InfoKind::Veth);
    all().is_ok_and(|links| links.iter().any(is_veth))
}

/// Returns the length of the link header of each interface of a policy, in bytes.
///
/// # Errors
/// Names each interface whose packets the program cannot read.
pub fn link_headers(host: &Host) -> Result<Vec<u32>> {
    let links = all().context("listing the interfaces")?;
    let header = |name: &str| {
        // `require_interfaces` reports a missing interface.
        let Some(link) = links.iter().find(|link| link.name == name) else { return Ok(ETHERNET) };
        match link.objection(host.mode) {
            None => Ok(link.header().unwrap_or(ETHERNET)),
            Some(found) => Err(format!("{name}: {found}")),
        }
    };
    let (headers, refused): (Vec<_>, Vec<_>) =
        host.interfaces.iter().map(|name| header(name.as_str())).partition(Result::is_ok);
    if refused.is_empty() {
        return Ok(headers.into_iter().flatten().collect());
    }
    let cure = match host.mode {
        Mode::Egress => "Ethernet, or one whose packets begin with IP (tun, WireGuard, PPP, IP tunnels)",
        Mode::Inline => "Ethernet, or [host].mode = \"egress\" on the trading host",
    };
    let refused: Vec<_> = refused.into_iter().filter_map(Result::err).collect();
    let text = format!("attaching to {}: choose an interface of {cure}", refused.join("; "));
    Err(CliError::new(Code::Interface, text).into())
}

/// Returns true if every packet that leaves by an interface also leaves by one of the `covered` interfaces.
pub fn is_covered(links: &[Link], covered: &[u32], index: u32) -> bool {
    // No stack of interfaces is deeper (kernel `MAX_NEST_DEV`). The depth also ends a cycle.
    covered_within(links, covered, index, 8)
}

fn covered_within(links: &[Link], covered: &[u32], index: u32, depth: u32) -> bool {
    if covered.contains(&index) {
        return true;
    }
    let Some(link) = links.iter().find(|link| link.index == index).filter(|_| depth != 0) else {
        return false;
    };
    if link.is_layered() {
        return link.lower.is_some_and(|lower| covered_within(links, covered, lower, depth - 1));
    }
    let mut ports = links.iter().filter(|port| port.controller == Some(index)).peekable();
    link.has_ports()
        && ports.peek().is_some()
        && ports.all(|port| covered_within(links, covered, port.index, depth - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: Option<InfoKind>, lower: Option<u32>, controller: Option<u32>) -> Link {
        Link {
            index,
            name: format!("if{index}"),
            kind,
            is_up: true,
            layer: LinkLayerType::Ether,
            lower,
            controller,
        }
    }

    #[test]
    fn an_interface_above_covered_ones_is_covered() {
        let links = [
            link(1, None, None, None),
            link(2, Some(InfoKind::Vlan), Some(1), None),
            link(3, Some(InfoKind::MacVlan), Some(2), None),
            link(4, Some(InfoKind::Bond), None, None),
            link(5, None, None, Some(4)),
            link(6, None, None, Some(4)),
            link(7, Some(InfoKind::Vxlan), Some(1), None),
            link(8, Some(InfoKind::Bond), None, None),
            link(9, Some(InfoKind::Vlan), Some(9), None),
        ];
        for (covered, index, expected) in [
            (&[1][..], 1, true),
            (&[1], 2, true),
            (&[1], 3, true),
            (&[2], 1, false),
            (&[5], 4, false),
            (&[5, 6], 4, true),
            (&[1], 7, false),
            (&[1], 8, false),
            (&[1], 9, false),
            (&[1], 99, false),
        ] {
            assert_eq!(is_covered(&links, covered, index), expected, "{index} by {covered:?}");
        }
    }

    #[test]
    fn each_link_type_is_accepted_or_refused() {
        use LinkLayerType as Layer;
        for (layer, egress, inline) in [
            (Layer::Ether, true, true),
            (Layer::Loopback, true, true),
            (Layer::None, true, false),
            (Layer::Ppp, true, false),
            (Layer::Ipgre, true, false),
            (Layer::Ip6gre, true, false),
            (Layer::Ieee80211Radiotap, false, false),
            (Layer::Infiniband, false, false),
            (Layer::Can, false, false),
        ] {
            let link = Link { layer, ..link(1, None, None, None) };
            assert_eq!(link.objection(Mode::Egress).is_none(), egress, "{layer}");
            assert_eq!(link.objection(Mode::Inline).is_none(), inline, "{layer}");
        }
    }
}
