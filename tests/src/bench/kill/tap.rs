//! A tap behind the hook: what leaves the trading host, and when, by the kernel's own stamps. The host's stack hands a packet to its taps
//! after every filter of the host has let it pass, in the sender's own turn.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};

use breaker_user::testbed::{Namespace, TwoHosts};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::timestamp;
use crate::bench::alternative::PORT;
use crate::bench::order::LENGTH;
use crate::packet_socket::PacketSocket;

/// Bytes of a segment before its payload: Ethernet, IPv4, TCP with time stamps.
const HEADERS: usize = 14 + 20 + 32;
/// Room for what passes in one kill, bytes.
const ROOM: usize = 1 << 30;

/// See the module.
pub struct Tap(PacketSocket);

/// A segment with payload: when it left, and how much it has.
pub type Segment = (u64, usize);

impl Tap {
    /// At the trading host's interface.
    pub fn at(firm: &Namespace) -> Self {
        let socket = PacketSocket::open(firm, TwoHosts::INTERFACE);
        timestamp::enable(socket.as_raw_fd());
        // SAFETY: the socket is open for as long as it is borrowed.
        let borrowed = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        set_socket_recv_buffer_size_force(borrowed, ROOM).expect("room");
        Self(socket)
    }

    /// The segments that have passed since it was last asked.
    pub fn passed(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut headers = [0; HEADERS];
        loop {
            // The length is that of the packet, of which the headers are more than enough.
            match timestamp::read(&self.0, &mut headers, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
                Ok((length, at)) if has_orders(&headers, length) => {
                    segments.push((at.expect("a stamp"), length - HEADERS));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Said once where the interface was set down.
                Err(error) if error.kind() == ErrorKind::NetworkDown => {}
                Err(error) => panic!("hearing packets: {error}"),
            }
        }
        assert_eq!(self.missed(), 0, "the tap has room for all");
        segments
    }

    /// Packets that it had no room for.
    fn missed(&self) -> u32 {
        let mut found = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&found) as libc::socklen_t;
        let (place, length) = ((&raw mut found).cast(), &raw mut length);
        // SAFETY: the kernel writes no more than the length that is said.
        let done = unsafe {
            libc::getsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, place, length)
        };
        assert_eq!(done, 0, "PACKET_STATISTICS: {}", io::Error::last_os_error());
        found.tp_drops
    }
}

/// Whether a packet brings orders to the venue: IPv4, TCP, its port, and longer than headers are, among which those of a SYN.
fn has_orders(headers: &[u8; HEADERS], length: usize) -> bool {
    let is_ours = headers[12..14] == [8, 0] && headers[23] == 6 && headers[36..38] == PORT.to_be_bytes();
    is_ours && length >= HEADERS + LENGTH
}
