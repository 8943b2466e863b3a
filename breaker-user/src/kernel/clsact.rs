//! The clsact qdisc and its filters (tc-bpf(8)). Programs are attached as filters on a kernel without tcx. On
//! a kernel with tcx, filters run after all tcx programs.

use std::io;

use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::direction::Direction;
use crate::netlink;

/// Position of a filter. The lowest priority runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Priority (`pref` of tc(8)).
    pub priority: u16,
    /// Handle within the priority.
    pub handle: u32,
}

/// A filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its position.
    pub position: Position,
    /// Id of its BPF program; `None` for another kind of filter.
    pub program: Option<u32>,
}

/// The kind of the qdisc.
pub const KIND: &str = "clsact";
/// `ETH_P_ALL` (kernel `if_ether.h`), in network order.
const ALL_PROTOCOLS: u16 = 3u16.to_be();

/// The parent handle of filters for a direction.
const fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

/// Lists the filters of an interface in the order in which they run. Returns an empty list if the interface
/// does not exist.
pub fn filters(ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
    let found = netlink::list(Netlink::GetTrafficFilter(message(ifindex, parent(direction))))?;
    Ok(found.into_iter().filter_map(filter).collect())
}

/// Removes a filter from an interface.
pub fn remove(ifindex: u32, direction: Direction, position: Position) -> io::Result<()> {
    let mut message = message(ifindex, parent(direction));
    message.header.handle = position.handle.into();
    message.header.info = (position.priority as u32) << 16 | ALL_PROTOCOLS as u32;
    netlink::change(Netlink::DelTrafficFilter(message))
}

/// Adds the qdisc to an interface. Returns false if the interface has it already.
pub fn add_qdisc(ifindex: u32) -> io::Result<bool> {
    match netlink::create(Netlink::NewQueueDiscipline(qdisc(ifindex))) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true),
    }
}

/// Returns the kind of the qdisc with the handle of clsact. The `ingress` qdisc has the same handle.
pub fn qdisc_kind(ifindex: u32) -> io::Result<Option<String>> {
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

/// Removes the qdisc of an interface, if it is clsact and has no filters.
pub fn remove_qdisc(ifindex: u32) -> io::Result<()> {
    let is_idle =
        filters(ifindex, Direction::Egress)?.is_empty() && filters(ifindex, Direction::Ingress)?.is_empty();
    if !is_idle || qdisc_kind(ifindex)?.as_deref() != Some(KIND) {
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

/// Reads the filter in an answer. An answer with handle 0 stands for a whole priority; the answers with its
/// filters follow.
fn filter(answer: Netlink) -> Option<Filter> {
    let Netlink::NewTrafficFilter(TcMessage { header, attributes, .. }) = answer else { return None };
    let handle = u32::from(header.handle);
    let position = Position { priority: (header.info >> 16) as u16, handle };
    let program = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        }),
        _ => None,
    });
    (handle != 0).then_some(Filter { position, program })
}

fn message(ifindex: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = parent;
    message
}
