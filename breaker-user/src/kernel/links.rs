//! The interfaces of this thread's namespace: what their packets begin with, and which one's packets leave by which other.

use std::io;

use anyhow::{Context, Result};
use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

use crate::cli_error::{CliError, Code};
use crate::config::{Host, Mode};
use crate::netlink;

/// Bytes of an Ethernet header.
pub const ETHERNET: u32 = 14;

/// An interface.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its driver's kind; none of a card.
    pub kind: Option<InfoKind>,
    /// It is up.
    pub is_up: bool,
    layer: LinkLayerType,
    lower: Option<u32>,
    controller: Option<u32>,
}

/// All interfaces.
pub fn all() -> io::Result<Vec<Link>> {
    let found = netlink::list(Netlink::GetLink(LinkMessage::default()))?;
    Ok(found
        .into_iter()
        .filter_map(|answer| if let Netlink::NewLink(link) = answer { Some(of(link)) } else { None })
        .collect())
}

fn of(message: LinkMessage) -> Link {
    let (index, layer) = (message.header.index, message.header.link_layer_type);
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let mut link =
        Link { index, name: String::new(), kind: None, is_up, layer, lower: None, controller: None };
    let mut elsewhere = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Link(lower) => link.lower = Some(lower),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Controller(controller) => link.controller = Some(controller),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos
                    .into_iter()
                    .find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
            }
            _ => {}
        }
    }
    // The number of an interface in another namespace says nothing here.
    if elsewhere {
        link.lower = None;
    }
    link
}

impl Link {
    /// Bytes of the link header of its packets; `None` where the program does not read such a header.
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

    /// Why packets of this interface cannot be judged in a mode.
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

    /// True where its packets leave by its lower interface, with nothing but a VLAN tag added.
    fn is_layered(&self) -> bool {
        use InfoKind as Kind;
        matches!(self.kind, Some(Kind::Vlan | Kind::MacVlan | Kind::MacVtap | Kind::IpVlan | Kind::IpVtap))
    }

    /// True where its packets leave by the interfaces that belong to it.
    fn is_made_of_others(&self) -> bool {
        match &self.kind {
            Some(InfoKind::Bond | InfoKind::Bridge) => true,
            Some(InfoKind::Other(kind)) => kind == "team",
            _ => false,
        }
    }
}

/// True of an end of a veth pair.
pub fn is_veth(index: u32) -> bool {
    let is = |link: &Link| link.index == index && link.kind == Some(InfoKind::Veth);
    all().is_ok_and(|links| links.iter().any(is))
}

/// Bytes of the link header at each interface of a policy. Refuses the ones whose packets cannot be judged.
pub fn headers(host: &Host) -> Result<Vec<u32>> {
    let links = all().context("listing the interfaces")?;
    let header = |name: &str| {
        // A missing one is told elsewhere.
        let Some(link) = links.iter().find(|link| link.name == name) else { return Ok(ETHERNET) };
        match link.objection(host.mode) {
            None => Ok(link.header().unwrap_or(ETHERNET)),
            Some(found) => Err(format!("{name}: {found}")),
        }
    };
    let (good, bad): (Vec<_>, Vec<_>) =
        host.interfaces.iter().map(|name| header(name.as_str())).partition(Result::is_ok);
    if bad.is_empty() {
        return Ok(good.into_iter().flatten().collect());
    }
    let cure = match host.mode {
        Mode::Egress => "Ethernet, or one whose packets begin with IP (tun, WireGuard, PPP, IP tunnels)",
        Mode::Inline => "Ethernet, or [host].mode = \"egress\" on the trading host",
    };
    let bad: Vec<_> = bad.into_iter().filter_map(Result::err).collect();
    let text = format!("attaching to {}: take an interface of {cure}", bad.join("; "));
    Err(CliError::new(Code::Interface, text).into())
}

/// Whether all that leaves by an interface passes one of those that are covered.
pub fn is_covered(links: &[Link], covered: &[u32], index: u32) -> bool {
    // Deeper than any stack of interfaces (`MAX_NEST_DEV`), and an end to a circle.
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
    let mut parts = links.iter().filter(|part| part.controller == Some(index)).peekable();
    link.is_made_of_others()
        && parts.peek().is_some()
        && parts.all(|part| covered_within(links, covered, part.index, depth - 1))
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
    fn what_leaves_by_a_covered_interface_is_covered() {
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
    fn each_link_type_is_read_or_refused() {
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
