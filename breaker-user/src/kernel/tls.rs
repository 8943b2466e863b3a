//! Recognizes TLS on connections by a look at their next segments.
//!
//! No map keeps the first bytes of a stream. A blind connection is therefore watched for a while with a
//! packet socket, see `packet(7)`. Each TLS record begins with a type and a version (RFC 8446, 5.1).

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, recv};

/// A connection of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port.
    pub remote: SocketAddr,
}

/// Watches connections in the network namespace of this thread, for at most `limit`. Returns those of which a
/// segment in either direction began with a TLS record.
///
/// # Errors
/// Without CAP_NET_RAW.
pub fn find(connections: &HashSet<Addresses>, limit: Duration) -> Result<HashSet<Addresses>> {
    let mut found = HashSet::new();
    if connections.is_empty() {
        return Ok(found);
    }
    let socket = open().context("opening a packet socket")?;
    let (deadline, mut packet) = (Instant::now() + limit, [0; 256]);
    while found.len() < connections.len() {
        let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        else {
            break;
        };
        set_socket_timeout(&socket, Timeout::Recv, Some(left)).context("setting a timeout")?;
        let length = match recv(&socket, &mut packet[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => break,
            Err(error) if io::Error::from(error).kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("reading a packet socket"),
        };
        let Some((source, destination, payload)) = segment(&packet[..length]) else { continue };
        let outbound = Addresses { local: source, remote: destination };
        let inbound = Addresses { local: destination, remote: source };
        let known = [outbound, inbound].into_iter().find(|addresses| connections.contains(addresses));
        found.extend(known.filter(|_| is_record(payload)));
    }
    Ok(found)
}

/// Opens a packet socket for the packets of all interfaces, which begin with IP.
fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    let protocol = libc::c_int::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: the call takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, protocol) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the new descriptor has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Returns source, destination and the first bytes of payload of a TCP segment over IPv4 or IPv6.
fn segment(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    const TCP: u8 = 6;
    let (source, destination, tcp): (IpAddr, IpAddr, _) = match packet.first()? >> 4 {
        4 if *packet.get(9)? == TCP => {
            let address = |from: usize| Some(<[u8; 4]>::try_from(packet.get(from..from + 4)?).ok()?.into());
            (address(12)?, address(16)?, packet.get(usize::from(packet[0] & 15) * 4..)?)
        }
        6 if *packet.get(6)? == TCP => {
            let address = |from: usize| Some(<[u8; 16]>::try_from(packet.get(from..from + 16)?).ok()?.into());
            (address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |from: usize| Some(u16::from_be_bytes(tcp.get(from..from + 2)?.try_into().ok()?));
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    Some((SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?), payload))
}

/// Returns true for the header of a TLS record: type, version 3.0 to 3.4, and a length of at most 2^14 + 2048
/// bytes (RFC 5246, 6.2.3; RFC 8446, 5.1).
fn is_record(payload: &[u8]) -> bool {
    const MAX_LENGTH: u16 = (1 << 14) + 2048;
    match payload {
        [20..=24, 3, 0..=4, high, low, ..] => u16::from_be_bytes([*high, *low]) <= MAX_LENGTH,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_record_is_known_by_its_header() {
        assert!(is_record(&[0x16, 3, 1, 0, 0xf4, 1]), "a ClientHello");
        assert!(is_record(&[0x17, 3, 3, 0x40, 0]), "application data");
        assert!(!is_record(&[0x17, 3, 3, 0x60, 0]), "too long");
        assert!(!is_record(b"8=FIX.4.2\x01"));
        assert!(!is_record(&[0x16, 3, 1]));
    }

    #[test]
    fn a_segment_is_found_behind_options() {
        let mut packet = vec![0x46; 1];
        packet.resize(24, 0);
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 9, 0, 1, 10, 9, 0, 2]);
        packet.extend([0xc0, 0, 0x23, 0x29, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
        packet.extend(b"data");
        let (source, destination, payload) = segment(&packet).expect("a segment");
        assert_eq!(source.to_string(), "10.9.0.1:49152");
        assert_eq!(destination.to_string(), "10.9.0.2:9001");
        assert_eq!(payload, b"data");
        for length in 0..packet.len() - 4 {
            assert!(segment(&packet[..length]).is_none_or(|(.., payload)| payload.is_empty()), "{length}");
        }
    }
}
