//! A tap behind the hook, which shows when each segment leaves the trading host, by the kernel's time stamps.
//! The kernel gives a packet to its taps after every filter of the host has passed it, on the thread of the
//! sender.

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
/// Receive buffer for the segments of one trial, bytes.
const BUFFER: usize = 1 << 30;

/// The packet socket of the tap.
pub struct Tap(PacketSocket);

/// A segment with payload: its time, ns, and the bytes of its payload.
pub type Segment = (u64, usize);

impl Tap {
    /// A tap at the interface of the trading host.
    pub fn at(firm: &Namespace) -> Self {
        let socket = PacketSocket::open(firm, TwoHosts::INTERFACE);
        timestamp::enable(socket.as_raw_fd());
        // SAFETY: the socket is open for as long as it is borrowed.
        let borrowed = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        set_socket_recv_buffer_size_force(borrowed, BUFFER).expect("room");
        Self(socket)
    }

    /// The segments that have passed since the last call.
    pub fn take_segments(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut headers = [0; HEADERS];
        loop {
            // The length is that of the packet, longer than the buffer for its headers.
            match timestamp::read(&self.0, &mut headers, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
                Ok((length, at)) if has_orders(&headers, length) => {
                    segments.push((at.expect("a stamp"), length - HEADERS));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Reported once after the interface was set down.
                Err(error) if error.kind() == ErrorKind::NetworkDown => {}
                Err(error) => panic!("receiving packets: {error}"),
            }
        }
        assert_eq!(self.dropped_packets(), 0, "the tap has room for all");
        segments
    }

    /// Number of packets lost for want of buffer space.
    fn dropped_packets(&self) -> u32 {
        let mut found = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&found) as libc::socklen_t;
        let (setup, length) = ((&raw mut found).cast(), &raw mut length);
        // SAFETY: the kernel writes at most the given length.
        let done = unsafe {
            libc::getsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, setup, length)
        };
        assert_eq!(done, 0, "PACKET_STATISTICS: {}", io::Error::last_os_error());
        found.tp_drops
    }
}

/// Whether a packet carries orders to the venue: IPv4, TCP, its port, and longer than the headers of a SYN.
fn has_orders(headers: &[u8; HEADERS], length: usize) -> bool {
    let is_ours = headers[12..14] == [8, 0] && headers[23] == 6 && headers[36..38] == PORT.to_be_bytes();
    is_ours && length >= HEADERS + LENGTH
}
