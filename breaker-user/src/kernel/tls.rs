//! Recognizes TLS on connections by a look at their next segments.
//!
//! No map keeps the first bytes of a stream, so a blind connection is watched for a while. Each TLS record
//! begins with a type and a version (RFC 8446, 5.1).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::packets::{Addresses, Packets};

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
    let (mut packets, deadline) = (Packets::open()?, Instant::now() + limit);
    while found.len() < connections.len() {
        let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        else {
            break;
        };
        let Some(segment) = packets.next(left)? else { continue };
        let (source, destination) = (segment.source, segment.destination);
        let outbound = Addresses { local: source, remote: destination };
        let inbound = Addresses { local: destination, remote: source };
        let known = [outbound, inbound].into_iter().find(|addresses| connections.contains(addresses));
        found.extend(known.filter(|_| is_record(segment.payload)));
    }
    Ok(found)
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
}
