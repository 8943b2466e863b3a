//! By which interfaces the packets of sessions leave, or can leave, without passing the hook: as the routing tables of this thread's
//! namespace have it.

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

/// Where sessions go.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The sessions, as scopes are named.
    pub sessions: Vec<String>,
    /// Its address, or the first one of its prefix.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub length: u8,
    /// The address that the sessions are to come from.
    pub local: Option<IpAddr>,
}

/// A way past the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// The session.
    pub session: String,
    /// What was found.
    pub found: String,
    /// It is the way that packets take now; otherwise one that they can be made to take.
    pub taken: bool,
}

/// A route of some table.
struct Route {
    to: IpAddr,
    length: u8,
    table: u32,
    by: Vec<u32>,
}

/// `RT_TABLE_MAIN` (kernel `uapi/linux/rtnetlink.h`).
const MAIN: u32 = 254;
/// The number of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;

/// Every way past those interfaces that a table has to a remote: the one that is taken, and those that a socket takes that is bound to an
/// interface, or all do when a route goes.
pub fn bypasses(remotes: &[Remote], covered: &[u32]) -> Result<Vec<Bypass>> {
    let links = links::all().context("listing the interfaces")?;
    let (routes, own) = all().context("listing the routes")?;
    let mut found = BTreeMap::new();
    // Thousands of sessions may go to a few addresses.
    let mut asked = HashMap::new();
    for remote in remotes {
        let possible = routes.iter().filter(|route| route.overlaps(remote)).flat_map(|route| &route.by);
        let past = possible.filter(|by| !links::is_covered(&links, covered, **by)).collect::<Vec<_>>();
        // Where no table has a way past the hook, none is taken: the kernel need not be asked.
        if past.is_empty() && !own.contains(&remote.address) && !remote.address.is_loopback() {
            continue;
        }
        let taken = match asked.entry((remote.address, remote.length, remote.local)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let asking = || format!("asking for the route to {}", remote.address);
                new.insert(taken(remote, &routes).with_context(asking)?)
            }
        };
        for by in taken.iter().chain(past).filter(|by| !links::is_covered(&links, covered, **by)) {
            for session in &remote.sessions {
                let told = told(remote, name(&links, *by), taken.contains(by));
                found.entry((session.clone(), *by)).or_insert((told, taken.contains(by)));
            }
        }
    }
    Ok(found.into_iter().map(|((session, _), (found, taken))| Bypass { session, found, taken }).collect())
}

fn told(remote: &Remote, interface: String, taken: bool) -> String {
    let address = remote.address;
    if taken {
        return format!("{address} is routed over {interface}, where there is no hook");
    }
    format!(
        "{address} can be reached over {interface} too, where there is no hook: by a socket that is bound to it, or when the route in use goes"
    )
}

fn name(links: &[Link], index: u32) -> String {
    links
        .iter()
        .find(|link| link.index == index)
        .map_or_else(|| format!("interface {index}"), |link| link.name.clone())
}

/// The interfaces that packets to a remote take now: as the kernel answers for one address, all of the main table for a prefix.
fn taken(remote: &Remote, routes: &[Route]) -> Result<Vec<u32>> {
    if remote.length != bits(remote.address) {
        let main = routes
            .iter()
            .filter(|route| route.table == MAIN && route.overlaps(remote) && route.length >= remote.length);
        return Ok(main.flat_map(|route| route.by.clone()).collect());
    }
    let mut message = RouteMessage::default();
    message.header.address_family = family(remote.address);
    message.header.destination_prefix_length = remote.length;
    message.attributes.push(RouteAttribute::Destination(remote.address.into()));
    if let Some(local) = remote.local {
        message.header.source_prefix_length = remote.length;
        message.attributes.push(RouteAttribute::Source(local.into()));
    }
    let answer = match netlink::ask(Netlink::GetRoute(message)) {
        // None; or the address that it is to come from is not this host's.
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
    let by = outputs(&answer);
    // Of several next hops the kernel names one, and the next connection may take another.
    let with =
        routes.iter().filter(|route| route.overlaps(remote) && by.iter().any(|one| route.by.contains(one)));
    Ok(with.filter(|route| route.by.len() > 1).flat_map(|route| route.by.clone()).chain(by.clone()).collect())
}

/// All unicast routes of all tables, and the addresses that are this host's own.
fn all() -> Result<(Vec<Route>, HashSet<IpAddr>)> {
    let (mut found, mut own) = (Vec::new(), HashSet::new());
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        for answer in netlink::list(Netlink::GetRoute(message))? {
            let Netlink::NewRoute(route) = answer else { continue };
            match route.header.kind {
                RouteType::Unicast => found.push(of(&route)),
                RouteType::Local => drop(own.insert(of(&route).to)),
                _ => {}
            }
        }
    }
    Ok((found, own))
}

fn of(route: &RouteMessage) -> Route {
    let any: IpAddr = match route.header.address_family {
        AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
        _ => IpAddr::from([0u8; 4]),
    };
    let mut made = Route {
        to: any,
        length: route.header.destination_prefix_length,
        table: route.header.table.into(),
        by: outputs(route),
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => made.to = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => made.to = (*address).into(),
            RouteAttribute::Table(table) => made.table = *table,
            _ => {}
        }
    }
    made
}

/// The interfaces of a route.
fn outputs(route: &RouteMessage) -> Vec<u32> {
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(of).collect()
}

impl Route {
    /// Whether it may be for an address of a remote.
    fn overlaps(&self, remote: &Remote) -> bool {
        let bits = bits(remote.address);
        let shorter = self.length.min(remote.length).min(bits);
        bits == self::bits(self.to) && head(self.to, shorter) == head(remote.address, shorter)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The first bits of an address.
fn head(address: IpAddr, length: u8) -> u128 {
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
    fn a_route_is_for_a_remote_where_one_contains_the_other() {
        for (to, length, address, of, expected) in [
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
            let route = Route { to: parsed(to), length, table: MAIN, by: vec![2] };
            let remote = Remote { sessions: Vec::new(), address: parsed(address), length: of, local: None };
            assert_eq!(route.overlaps(&remote), expected, "{to}/{length} for {address}/{of}");
        }
    }
}
