//! A packet socket that sees the TCP segments of this host behind the hook, see `packet(7)`.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{RecvFlags, recv};
use rustix::time::{ClockId, clock_gettime};

use super::clock;

/// A connection of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port.
    pub remote: SocketAddr,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// Time at which the kernel sent or received the segment, CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// Flags (RFC 9293, 3.1).
    pub flags: u8,
    /// The first bytes of the payload.
    pub payload: &'a [u8],
}

/// RST (RFC 9293, 3.1).
const RST: u8 = 1 << 2;

impl Segment<'_> {
    /// Returns true for a reset.
    pub fn is_reset(&self) -> bool {
        self.flags & RST != 0
    }
}

/// A packet socket for the packets of all interfaces of a network namespace.
pub struct Packets {
    socket: OwnedFd,
    packet: [u8; 256],
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC at the opening, ns.
    clock_difference: i64,
}

/// Bytes that wait for this process: the segments of some seconds.
const BUFFER: usize = 16 << 20;

impl Packets {
    /// Opens a packet socket in the network namespace of this thread.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let protocol = libc::c_int::from((libc::ETH_P_ALL as u16).to_be());
        // SAFETY: the call takes no pointer.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, protocol) };
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("opening a packet socket");
        }
        // SAFETY: the new descriptor has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // The result is ignored: a smaller buffer suffices for a calm connection, and losses are counted.
        let _ = set_socket_recv_buffer_size_force(&socket, BUFFER);
        let real = clock_gettime(ClockId::Realtime);
        let clock_difference = nanoseconds(real.tv_sec, real.tv_nsec) - clock::now_ns() as i64;
        let packets = Self { socket, packet: [0; 256], clock_difference };
        // The first call turns timestamps on, and there is no packet yet.
        let _ = packets.timestamp_ns();
        Ok(packets)
    }

    /// Waits for a packet. Returns `None` after `limit`, and for a packet that is no TCP segment.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Segment<'_>>> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(limit)).context("setting a timeout")?;
        match recv(&self.socket, &mut self.packet[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                let at_ns = self.timestamp_ns().unwrap_or_else(clock::now_ns);
                Ok(parse(&self.packet[..length]).map(|segment| Segment { at_ns, ..segment }))
            }
            Err(error) => match io::Error::from(error).kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
                _ => Err(error).context("reading a packet socket"),
            },
        }
    }

    /// Returns the kernel's time of the packet that was read last, CLOCK_MONOTONIC, ns.
    fn timestamp_ns(&self) -> Option<u64> {
        /// Kernel `uapi/asm-generic/sockios.h`.
        const SIOCGSTAMPNS_OLD: libc::Ioctl = 0x8907;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes a `struct timespec`.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCGSTAMPNS_OLD, &raw mut time) };
        if done != 0 || time.tv_sec == 0 {
            return None;
        }
        u64::try_from(nanoseconds(time.tv_sec, time.tv_nsec) - self.clock_difference).ok()
    }

    /// Returns how many packets were lost because the buffer was full, since the last call.
    pub fn lost(&self) -> Result<u32> {
        /// `struct tpacket_stats` (kernel `uapi/linux/if_packet.h`).
        #[repr(C)]
        #[derive(Default)]
        struct Statistics {
            packets: u32,
            drops: u32,
        }
        let mut found = Statistics::default();
        let mut length = size_of::<Statistics>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to the structure.
        let done = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut found).cast(),
                &raw mut length,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error()).context("reading the losses of a packet socket");
        }
        Ok(found.drops)
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds * 1_000_000_000 + nanoseconds
}

/// Parses a TCP segment over IPv4 or IPv6, without its time.
fn parse(packet: &[u8]) -> Option<Segment<'_>> {
    const TCP: u8 = 6;
    let word = |from: usize| Some(u16::from_be_bytes(packet.get(from..from + 2)?.try_into().ok()?));
    // The length in the header excludes padding. A packet of more than 64 KB has the length 0.
    let within = |length: usize| if length == 0 { packet } else { &packet[..length.min(packet.len())] };
    let (source, destination, tcp): (IpAddr, IpAddr, _) = match packet.first()? >> 4 {
        4 if *packet.get(9)? == TCP => {
            let address = |from: usize| Some(<[u8; 4]>::try_from(packet.get(from..from + 4)?).ok()?.into());
            let whole = within(usize::from(word(2)?));
            (address(12)?, address(16)?, whole.get(usize::from(packet[0] & 15) * 4..)?)
        }
        6 if *packet.get(6)? == TCP => {
            let address = |from: usize| Some(<[u8; 16]>::try_from(packet.get(from..from + 16)?).ok()?.into());
            let length = usize::from(word(4)?);
            let whole = within(if length == 0 { 0 } else { 40 + length });
            (address(8)?, address(24)?, whole.get(40..)?)
        }
        _ => return None,
    };
    let port = |from: usize| Some(u16::from_be_bytes(tcp.get(from..from + 2)?.try_into().ok()?));
    Some(Segment {
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
        at_ns: 0,
        flags: *tcp.get(13)?,
        payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_found_behind_options_and_before_padding() {
        let mut packet = vec![0x46, 0, 0, 52];
        packet.resize(24, 0);
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 9, 0, 1, 10, 9, 0, 2]);
        packet.extend([0xc0, 0, 0x23, 0x29, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 4, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
        packet.extend(b"data and padding");
        let found = parse(&packet).expect("a segment");
        assert_eq!(found.source.to_string(), "10.9.0.1:49152");
        assert_eq!(found.destination.to_string(), "10.9.0.2:9001");
        assert_eq!(found.payload, b"data");
        assert!(found.is_reset());
        for length in 0..48 {
            assert!(parse(&packet[..length]).is_none_or(|found| found.payload.is_empty()), "{length}");
        }
    }
}
