//! The XDP program of an interface, read over rtnetlink, which needs no privilege.

use std::io;

use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

use crate::netlink;

/// Returns the id of the XDP program of an interface, native or generic.
pub fn program(ifindex: u32) -> io::Result<Option<u32>> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let found = netlink::list(Netlink::GetLink(message))?;
    let own = found.into_iter().find_map(|answer| match answer {
        Netlink::NewLink(link) if link.header.index == ifindex => Some(link.attributes),
        _ => None,
    });
    let attributes = own.unwrap_or_default().into_iter();
    let xdp = attributes
        .filter_map(|attribute| if let LinkAttribute::Xdp(xdp) = attribute { Some(xdp) } else { None });
    Ok(xdp.flatten().find_map(|found| match found {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(id),
        _ => None,
    }))
}
