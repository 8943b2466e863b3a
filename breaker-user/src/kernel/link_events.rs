//! Notifications about interfaces, their qdiscs and filters (rtnetlink(7), multicast groups).

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::Socket;

use crate::netlink;

/// Multicast groups (kernel `uapi/linux/rtnetlink.h`).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface was created or changed.
    Present {
        /// Interface index.
        index: u32,
        /// Interface name.
        name: String,
        /// True if the interface is up.
        is_up: bool,
    },
    /// An interface was removed.
    Removed {
        /// Interface index.
        index: u32,
        /// True if the interface was moved to another network namespace.
        is_moved: bool,
    },
    /// A qdisc or filter of an interface was added, changed or removed.
    Filters {
        /// Interface index.
        index: u32,
    },
    /// The kernel dropped notifications, because the receive buffer of the socket was full.
    Lost,
}

/// A subscription in the network namespace of the thread that subscribed.
pub struct LinkEvents {
    socket: Socket,
}

impl LinkEvents {
    /// Subscribes to notifications about interfaces, qdiscs and filters.
    pub fn subscribe() -> io::Result<Self> {
        Ok(Self { socket: netlink::subscribe(&[RTNLGRP_LINK, RTNLGRP_TC])? })
    }

    /// Reads all pending notifications. Does not block.
    pub fn read(&self) -> io::Result<Vec<LinkEvent>> {
        let (messages, is_complete) = netlink::notifications(&self.socket)?;
        let dropped = if is_complete { None } else { Some(LinkEvent::Lost) };
        Ok(messages.into_iter().filter_map(event).chain(dropped).collect())
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn event(message: Netlink) -> Option<LinkEvent> {
    match message {
        Netlink::NewLink(link) => present(link),
        Netlink::DelLink(link) => {
            let index = link.header.index;
            let is_moved = link.attributes.iter().any(|found| matches!(found, LinkAttribute::NewNetnsId(_)));
            Some(LinkEvent::Removed { index, is_moved })
        }
        Netlink::NewQueueDiscipline(found)
        | Netlink::DelQueueDiscipline(found)
        | Netlink::NewTrafficFilter(found)
        | Netlink::DelTrafficFilter(found) => {
            Some(LinkEvent::Filters { index: u32::try_from(found.header.index).ok()? })
        }
        _ => None,
    }
}

fn present(link: LinkMessage) -> Option<LinkEvent> {
    let (index, is_up) = (link.header.index, link.header.flags.contains(LinkFlags::Up));
    let name = link.attributes.into_iter().find_map(|found| match found {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })?;
    Some(LinkEvent::Present { index, name, is_up })
}
