//! Finds routes by which packets of sessions leave, or can leave, without passing the hook. Reads the routing
//! tables of this thread's namespace.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Netlink;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rustix::io::Errno;

use super::links::{self, Link};
use crate::netlink;

/// A remote address or prefix of sessions.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The sessions: `session/NAME`.
    pub sessions: Vec<String>,
    /// The address, or the first address of the prefix.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub length: u8,
    /// The declared local address.
    pub local: Option<IpAddr>,
}

/// A path of a session's packets that does not pass the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// The session: `session/NAME`; `host` if the session is not known.
    pub session: String,
    /// Description for the operator.
    pub found: String,
    /// Packets take this path now; otherwise they can be made to take it.
    pub in_use: bool,
}

/// A unicast route.
struct Route {
    destination: IpAddr,
    /// Length of the prefix in bits.
    length: u8,
    table: u32,
    /// Numbers of the output interfaces.
    outputs: Vec<u32>,
}

/// `RT_TABLE_MAIN` (kernel `uapi/linux/rtnetlink.h`).
const MAIN: u32 = 254;
/// The number of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;

/// Finds every route to a remote that leaves by an interface that is not covered. A route that is not in use
/// counts too: a socket that is bound to the interface takes it, and every socket takes it when a better
/// route goes.
pub fn bypasses(remotes: &[Remote], covered: &[u32]) -> Result<Vec<Bypass>> {
    let links = links::all().context("listing the interfaces")?;
    let (routes, local_addresses) = list_routes().context("listing the routes")?;
    let is_uncovered = |output: &u32| !links::is_covered(&links, covered, *output);
    let mut found = BTreeMap::new();
    // Thousands of sessions may have a few addresses. Each address is asked for once.
    let mut asked = HashMap::new();
    for remote in remotes {
        let possible = routes.iter().filter(|route| route.overlaps(remote)).flat_map(|route| &route.outputs);
        let uncovered = possible.filter(|output| is_uncovered(output)).collect::<Vec<_>>();
        // Without an uncovered route in any table the kernel need not be asked.
        let is_local = local_addresses.contains(&remote.address) || remote.address.is_loopback();
        if uncovered.is_empty() && !is_local {
            continue;
        }
        let in_use = match asked.entry((remote.address, remote.length, remote.local)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let asking = || format!("asking for the route to {}", remote.address);
                new.insert(outputs_in_use(remote, &routes).with_context(asking)?)
            }
        };
        for output in in_use.iter().chain(uncovered).filter(|output| is_uncovered(output)) {
            for session in &remote.sessions {
                let text = describe(remote, name(&links, *output), in_use.contains(output));
                found.entry((session.clone(), *output)).or_insert((text, in_use.contains(output)));
            }
        }
    }
    Ok(found.into_iter().map(|((session, _), (found, in_use))| Bypass { session, found, in_use }).collect())
}

fn describe(remote: &Remote, interface: String, in_use: bool) -> String {
    let address = remote.address;
    if in_use {
        return format!("{address} is routed over {interface}, where there is no hook");
    }
    format!(
        "{address} can be reached over {interface} too, where there is no hook: by a socket that is bound to \
         it, or when the route in use goes"
    )
}

fn name(links: &[Link], index: u32) -> String {
    links
        .iter()
        .find(|link| link.index == index)
        .map_or_else(|| format!("interface {index}"), |link| link.name.clone())
}

/// Returns the output interfaces of packets to a remote now: the kernel's answer for an address, all routes
/// of the main table for a prefix.
fn outputs_in_use(remote: &Remote, routes: &[Route]) -> Result<Vec<u32>> {
    if remote.length != bits(remote.address) {
        let main = routes
            .iter()
            .filter(|route| route.table == MAIN && route.overlaps(remote) && route.length >= remote.length);
        return Ok(main.flat_map(|route| route.outputs.clone()).collect());
    }
    let mut message = RouteMessage::default();
    message.header.address_family = family(remote.address);
    message.header.destination_prefix_length = remote.length;
    message.attributes.push(RouteAttribute::Destination(remote.address.into()));
    if let Some(local) = remote.local {
        message.header.source_prefix_length = remote.length;
        message.attributes.push(RouteAttribute::Source(local.into()));
    }
    let answer = match netlink::get(Netlink::GetRoute(message)) {
        // There is no route, or the local address is not one of this host.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL)
            ) =>
        {
            return Ok(Vec::new());
        }
        answer => answer?,
    };
    let Netlink::NewRoute(answer) = answer else { return Ok(Vec::new()) };
    if answer.header.kind == RouteType::Local {
        return Ok(vec![LOOPBACK]);
    }
    let chosen = outputs(&answer);
    // The kernel names one of several next hops, and the next connection may take another.
    let multipath = routes.iter().filter(|route| {
        route.outputs.len() > 1
            && route.overlaps(remote)
            && chosen.iter().any(|one| route.outputs.contains(one))
    });
    Ok(multipath.flat_map(|route| route.outputs.clone()).chain(chosen.clone()).collect())
}

/// Lists the unicast routes of all tables, and the local addresses.
fn list_routes() -> Result<(Vec<Route>, HashSet<IpAddr>)> {
    let (mut found, mut local_addresses) = (Vec::new(), HashSet::new());
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        for answer in netlink::list(Netlink::GetRoute(message))? {
            let Netlink::NewRoute(route) = answer else { continue };
            match route.header.kind {
                RouteType::Unicast => found.push(read(&route)),
                RouteType::Local => drop(local_addresses.insert(read(&route).destination)),
                _ => {}
            }
        }
    }
    Ok((found, local_addresses))
}

fn read(route: &RouteMessage) -> Route {
    let any: IpAddr = match route.header.address_family {
        AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
        _ => IpAddr::from([0u8; 4]),
    };
    let mut made = Route {
        destination: any,
        length: route.header.destination_prefix_length,
        table: route.header.table.into(),
        outputs: outputs(route),
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => made.destination = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => made.destination = (*address).into(),
            RouteAttribute::Table(table) => made.table = *table,
            _ => {}
        }
    }
    made
}

/// Returns the output interfaces of a route.
fn outputs(route: &RouteMessage) -> Vec<u32> {
    let indices = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(indices).collect()
}

impl Route {
    /// Returns true if the route may apply to an address of a remote.
    fn overlaps(&self, remote: &Remote) -> bool {
        let bits = bits(remote.address);
        let shorter = self.length.min(remote.length).min(bits);
        bits == self::bits(self.destination)
            && prefix(self.destination, shorter) == prefix(remote.address, shorter)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Returns the first bits of an address.
fn prefix(address: IpAddr, length: u8) -> u128 {
    let (word, bits) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    word.checked_shr(u32::from(bits - length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_overlaps_a_remote_if_one_prefix_contains_the_other() {
        for (to, length, address, remote_length, expected) in [
            ("0.0.0.0", 0, "10.9.0.2", 32, true),
            ("10.9.0.0", 24, "10.9.0.2", 32, true),
            ("10.9.0.2", 32, "10.9.0.0", 24, true),
            ("10.9.1.0", 24, "10.9.0.2", 32, false),
            ("10.9.1.0", 24, "10.9.0.0", 16, true),
            ("::", 0, "10.9.0.2", 32, false),
            ("::", 0, "fd09::2", 128, true),
            ("fd09::", 64, "fd09::2", 128, true),
            ("fd08::", 64, "fd09::2", 128, false),
        ] {
            let parsed = |text: &str| text.parse::<IpAddr>().expect("an address");
            let route = Route { destination: parsed(to), length, table: MAIN, outputs: vec![2] };
            let address_text = address;
            let address = parsed(address);
            let remote = Remote { sessions: Vec::new(), address, length: remote_length, local: None };
            assert_eq!(route.overlaps(&remote), expected, "{to}/{length} for {address_text}/{remote_length}");
        }
    }
}
