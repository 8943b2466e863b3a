//! Remote endpoints of a session: an address or a prefix, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use super::invalid::{Invalid, quoted};

/// An IPv4 or IPv6 prefix. No bit beyond its length is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The address, with the bits beyond the prefix zero.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Prefix length in bits: at most 32 for IPv4 and 128 for IPv6.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Returns true if it is a single address.
    pub fn is_host(self) -> bool {
        self.length == width(self.address)
    }

    /// Returns true if the prefix contains the address.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.length) == self.address
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A remote endpoint: `address:port`, `prefix/length:port`, `[v6]:port` or `[v6/length]:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    prefix: Prefix,
    port: NonZeroU16,
}

impl Endpoint {
    /// The addresses of the endpoint.
    pub fn prefix(self) -> Prefix {
        self.prefix
    }

    /// The TCP port, in host order.
    pub fn port(self) -> u16 {
        self.port.get()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.address {
            IpAddr::V4(_) => write!(f, "{}:{}", self.prefix, self.port),
            IpAddr::V6(_) => write!(f, "[{}]:{}", self.prefix, self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (prefix, port) = split_port(text)?;
        Ok(Self { prefix: parse_prefix(prefix, text.starts_with('['))?, port: parse_port(port)? })
    }
}

/// Parses an address without a port, as in `local`.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, Invalid> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(Invalid::new(
            format!("{} is not an IP address", quoted(text)),
            "write an address without port, prefix or brackets, like \"10.9.0.1\"",
        ));
    };
    if address.is_unspecified() {
        return Err(Invalid::new(
            format!("{address} is not the address of a host"),
            "remove the key to allow any address",
        ));
    }
    refuse_mapped(address).map(|()| address)
}

fn split_port(text: &str) -> Result<(&str, &str), Invalid> {
    let form = "write \"10.9.0.2:9001\", \"10.9.0.0/24:9001\" or \"[2001:db8::2]:9001\"";
    if let Some(rest) = text.strip_prefix('[') {
        return rest
            .split_once("]:")
            .ok_or_else(|| Invalid::new(format!("{} has no \"]:\" and port", quoted(text)), form));
    }
    let Some((prefix, port)) = text.rsplit_once(':') else {
        return Err(Invalid::new(format!("{} has no port", quoted(text)), form));
    };
    if prefix.contains(':') {
        let found = format!("{} looks like IPv6 without brackets", quoted(text));
        return Err(Invalid::new(found, "write \"[2001:db8::2]:9001\""));
    }
    Ok((prefix, port))
}

fn parse_prefix(text: &str, brackets: bool) -> Result<Prefix, Invalid> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let parsed = if brackets {
        address.parse::<Ipv6Addr>().map(IpAddr::V6)
    } else {
        address.parse::<Ipv4Addr>().map(IpAddr::V4)
    };
    let Ok(address) = parsed else {
        let family = if brackets { "IPv6" } else { "IPv4" };
        let found = format!("{} is not an {family} address", quoted(address));
        return Err(Invalid::new(found, "write it in numbers: names are not resolved, IPv6 needs brackets"));
    };
    refuse_mapped(address)?;
    let max = width(address);
    let length = match length {
        None if address.is_unspecified() => {
            let found = format!("{address} is not the address of a venue");
            let any =
                if brackets { "for any address write 2000::/3" } else { "for any address write 0.0.0.0/0" };
            return Err(Invalid::new(found, any));
        }
        None => max,
        Some(length) => digits(length).filter(|length| *length <= max).ok_or_else(|| {
            let found = format!("prefix length {} is out of range", quoted(length));
            Invalid::new(found, format!("write a number from 0 to {max}"))
        })?,
    };
    let network = masked(address, length);
    if network != address {
        let found = format!("{address}/{length} has bits set beyond its prefix");
        return Err(Invalid::new(
            found,
            format!("write {network}/{length}, or {address} for a single address"),
        ));
    }
    // The kernel program looks up IPv4 connections as IPv4-mapped IPv6 addresses.
    if address.is_ipv6() && masked(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), length) == address {
        let found = format!("{address}/{length} would include IPv4 too");
        return Err(Invalid::new(
            found,
            "write the venue's prefix, or 2000::/3 for all global IPv6 addresses",
        ));
    }
    Ok(Prefix { address, length })
}

fn parse_port(text: &str) -> Result<NonZeroU16, Invalid> {
    digits(text).ok_or_else(|| {
        Invalid::new(format!("port {} is out of range", quoted(text)), "write a number from 1 to 65535")
    })
}

/// Parses decimal digits. `FromStr` would accept a sign too.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn refuse_mapped(address: IpAddr) -> Result<(), Invalid> {
    let IpAddr::V6(v6) = address else { return Ok(()) };
    match v6.to_ipv4_mapped() {
        // The packets are IPv4: a session with the mapped form would match none.
        Some(v4) => Err(Invalid::new(format!("{v6} is an IPv4 address"), format!("write {v4}"))),
        None => Ok(()),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let beyond = u32::from(width(address).saturating_sub(length));
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(clear_low(v4.to_bits().into(), beyond) as u32).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(clear_low(v6.to_bits(), beyond)).into(),
    }
}

/// Clears the low bits. The shift operators panic on a shift by the whole width, which `/0` needs.
fn clear_low(bits: u128, count: u32) -> u128 {
    bits.checked_shr(count).and_then(|high| high.checked_shl(count)).unwrap_or(0)
}
