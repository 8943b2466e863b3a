//! IP addresses in the maps.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use breaker_common::abi::{Address, ConnectionKey, mapped};

/// Returns an address as the maps store it. An IPv4 address becomes an IPv4-mapped IPv6 address (RFC 4291,
/// 2.5.5.2).
pub fn map_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => mapped(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
    }
}

/// Returns the address that `map_address` stored.
pub fn ip_address(address: Address) -> IpAddr {
    let bytes: [u8; 16] = bytemuck::cast(address);
    Ipv6Addr::from(bytes).to_canonical()
}

/// A connection as `local address > remote address`.
pub fn connection_text(key: &ConnectionKey) -> String {
    let end = |address, port: u16| SocketAddr::new(ip_address(address), u16::from_be(port));
    format!("{} > {}", end(key.local, key.local_port), end(key.remote, key.remote_port))
}
