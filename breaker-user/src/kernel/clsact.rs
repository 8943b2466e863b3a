//! Filters of the clsact qdisc, which is how a program hangs on an interface where the kernel has no tcx, and sits behind tcx where it has.

use std::io;

use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::hook::Direction;
use crate::netlink;

/// Where a filter stands: the lower priority runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its priority.
    pub priority: u16,
    /// Its handle within that.
    pub handle: u32,
}

/// A filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Where it stands.
    pub place: Place,
    /// The number of its BPF program; `None` of any other kind of filter.
    pub program: Option<u32>,
}

/// The name of the qdisc.
pub const KIND: &str = "clsact";
/// `ETH_P_ALL` (kernel `if_ether.h`), in network order.
const ALL_PROTOCOLS: u16 = 3u16.to_be();

/// The qdisc's handle for a direction.
const fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::In => TcHandle::MIN_INGRESS,
        Direction::Out => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

/// The filters at an interface, in the order in which they run. None where there is no such interface.
pub fn filters(ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
    let found = netlink::list(Netlink::GetTrafficFilter(message(ifindex, parent(direction))))?;
    Ok(found.into_iter().filter_map(filter).collect())
}

/// Removes a filter from an interface.
pub fn remove(ifindex: u32, direction: Direction, place: Place) -> io::Result<()> {
    let mut message = message(ifindex, parent(direction));
    message.header.handle = place.handle.into();
    message.header.info = (place.priority as u32) << 16 | ALL_PROTOCOLS as u32;
    netlink::change(Netlink::DelTrafficFilter(message))
}

/// Adds the qdisc to an interface. False where it was there.
pub fn add_qdisc(ifindex: u32) -> io::Result<bool> {
    match netlink::create(Netlink::NewQueueDiscipline(qdisc(ifindex))) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true),
    }
}

/// The kind of the qdisc that is in the place of clsact: an `ingress` has the same one.
pub fn found(ifindex: u32) -> io::Result<Option<String>> {
    let all = Netlink::GetQueueDiscipline(TcMessage::with_index(ifindex as i32));
    let kind = |answer: Netlink| match answer {
        Netlink::NewQueueDiscipline(found)
            if found.header.index == ifindex as i32
                && found.header.handle.major == TcHandle::CLSACT.major =>
        {
            found.attributes.into_iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind),
                _ => None,
            })
        }
        _ => None,
    };
    Ok(netlink::list(all)?.into_iter().find_map(kind))
}

/// Removes the qdisc of an interface, if it is there and has no filters.
pub fn remove_qdisc(ifindex: u32) -> io::Result<()> {
    let idle = filters(ifindex, Direction::Out)?.is_empty() && filters(ifindex, Direction::In)?.is_empty();
    if !idle || found(ifindex)?.as_deref() != Some(KIND) {
        return Ok(());
    }
    netlink::change(Netlink::DelQueueDiscipline(qdisc(ifindex)))
}

fn qdisc(ifindex: u32) -> TcMessage {
    let mut message = message(ifindex, TcHandle::CLSACT);
    message.header.handle = TcHandle { minor: 0, ..TcHandle::CLSACT };
    message.attributes.push(TcAttribute::Kind(KIND.to_owned()));
    message
}

/// The filter in an answer. An answer without a handle stands for a whole priority, whose filters follow.
fn filter(answer: Netlink) -> Option<Filter> {
    let Netlink::NewTrafficFilter(TcMessage { header, attributes, .. }) = answer else { return None };
    let handle = u32::from(header.handle);
    let place = Place { priority: (header.info >> 16) as u16, handle };
    let program = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        }),
        _ => None,
    });
    (handle != 0).then_some(Filter { place, program })
}

fn message(ifindex: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = parent;
    message
}
