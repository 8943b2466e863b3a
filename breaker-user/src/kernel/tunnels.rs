//! Finds the tunnels of this thread's namespace. The program does not read the packets inside them.

use std::io;

use breaker_common::abi::unseen;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_XFRM;

use super::links::Link;

/// Returns the interfaces or the protocol of this host that send packets of a kind ([`unseen`]).
pub fn sender(kind: u32, links: &[Link]) -> Option<String> {
    let kinds: &[&str] = match kind {
        unseen::VXLAN => &["vxlan"],
        unseen::GRE => &["gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan"],
        unseen::IP_IN_IP => &["ipip", "sit", "ip6tnl", "vti", "vti6"],
        unseen::ESP => return has_ipsec().unwrap_or(false).then(|| "IPsec".to_owned()),
        _ => &[],
    };
    let is_kind =
        |link: &&Link| link.kind.as_ref().is_some_and(|kind| kinds.contains(&kind.to_string().as_str()));
    // A module's default interfaces carry nothing until they have a peer and are up.
    let names: Vec<_> =
        links.iter().filter(is_kind).filter(|link| link.is_up).map(|link| link.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// `XFRM_MSG_NEWSA` and `XFRM_MSG_GETSA` (kernel `uapi/linux/xfrm.h`).
const NEW_SA: u16 = 0x10;
const GET_SA: u16 = 0x12;
/// A netlink header and a `struct xfrm_usersa_id` of zeros.
const REQUEST: usize = 16 + 24;

/// Returns true if there is an IPsec security association. netlink-packet-route has no xfrm messages, and
/// this request is only a header.
fn has_ipsec() -> io::Result<bool> {
    const REQUEST_ALL: u16 = 0x301;
    let mut request = [0u8; REQUEST];
    request[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&GET_SA.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_ALL.to_ne_bytes());
    let socket = Socket::new(NETLINK_XFRM)?;
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    Ok(answer.get(4..6).is_some_and(|kind| kind == NEW_SA.to_ne_bytes()))
}
