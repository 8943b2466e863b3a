//! A TCP in user space on a packet socket: an engine that bypasses its kernel.
//!
//! Its address is not one of the trading host's kernel, so that the kernel does not answer. It does the
//! handshake. After that it sends only what a test asks for: no retransmits, and no ACKs of its own accord.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use breaker_common::decide::{FIN, RST, SYN};
use breaker_user::testbed::TwoHosts;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};

use crate::frame::{ACK, Frame};
use crate::gateway::Gateway;
use crate::packet_socket::PacketSocket;

/// TCP flag: push.
const PSH: u8 = 8;
/// Timeout for an answer from the venue.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection of the engine to the venue, through a gateway.
pub struct UserTcp {
    /// Sequence number of the next byte to send.
    pub seq: u32,
    /// Sequence number of the next byte expected.
    pub ack: u32,
    /// Bytes of TCP options in each segment, a multiple of 4.
    pub options: usize,
    /// VLAN identifier of each frame.
    pub vlan: Option<u16>,
    from: SocketAddr,
    to: SocketAddr,
    hardware: [[u8; 6]; 2],
    socket: PacketSocket,
}

impl UserTcp {
    /// Sequence number of the SYN. The numbers wrap after a few orders.
    pub const ISN: u32 = u32::MAX - 500;

    /// A connection from `port` without a handshake.
    pub fn new(network: &Gateway, port: u16, to: SocketAddr) -> Self {
        let [v4, v6] = Gateway::ENGINE;
        let own = network.firm.hardware_address(TwoHosts::INTERFACE).expect("the hardware address");
        let next = network.gateway.hardware_address(Gateway::INSIDE).expect("the gateway's address");
        Self {
            seq: Self::ISN,
            ack: 0,
            options: 0,
            vlan: None,
            from: SocketAddr::new(if to.is_ipv4() { v4 } else { v6 }, port),
            to,
            hardware: [own, next],
            socket: PacketSocket::open(&network.firm, TwoHosts::INTERFACE),
        }
    }

    /// An established connection.
    pub fn connect(network: &Gateway, port: u16, to: SocketAddr) -> Self {
        let mut engine = Self::new(network, port, to);
        engine.open();
        let answer = engine.receive(PATIENCE).expect("an answer to the SYN");
        assert_eq!((answer.flags & (SYN | ACK | RST), answer.ack), (SYN | ACK, engine.seq), "{answer:?}");
        engine.acknowledge();
        engine
    }

    /// Sends the SYN.
    pub fn open(&mut self) {
        self.transmit(&[self.segment(self.seq, b"").with_flags(SYN)]);
        self.seq = self.seq.wrapping_add(1);
    }

    /// A segment of the connection, not sent.
    pub fn segment(&self, seq: u32, payload: &[u8]) -> Frame {
        let mut frame = Frame::new(self.from, self.to, seq, payload).with_flags(ACK | PSH);
        (frame.ack, frame.options, frame.vlan, frame.hardware) =
            (self.ack, self.options, self.vlan, self.hardware);
        frame
    }

    /// The next segments, one for each payload, not sent.
    pub fn next(&mut self, payloads: &[Vec<u8>]) -> Vec<Frame> {
        let next = |payload: &Vec<u8>| {
            let frame = self.segment(self.seq, payload);
            self.seq = self.seq.wrapping_add(payload.len() as u32);
            frame
        };
        payloads.iter().map(next).collect()
    }

    /// Sends a payload as the next segment. Returns the segment.
    pub fn send(&mut self, payload: &[u8]) -> Frame {
        let frame = self.next(&[payload.to_vec()]).remove(0);
        self.transmit(std::slice::from_ref(&frame));
        frame
    }

    /// Sends segments in this order.
    pub fn transmit(&self, frames: &[Frame]) {
        for frame in frames {
            self.socket.send(&frame.bytes());
        }
    }

    /// Sends frames in this order.
    pub fn transmit_bytes(&self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.socket.send(frame);
        }
    }

    /// Sends a pure ACK of all that was received.
    pub fn acknowledge(&self) {
        self.transmit(&[self.segment(self.seq, b"").with_flags(ACK)]);
    }

    /// Waits for the next segment from the venue, or in its name. A segment with a wrong checksum is ignored,
    /// as TCP does.
    pub fn receive(&mut self, patience: Duration) -> Option<Frame> {
        let ours = |bytes: &[u8]| {
            let (frame, right) = Frame::parse(bytes)?;
            (right && (frame.from, frame.to) == (self.to, self.from)).then_some(frame)
        };
        let heard = self.socket.wait(patience, ours)?;
        if heard.flags & SYN != 0 || heard.seq == self.ack {
            let space = heard.payload.len() as u32
                + u32::from(heard.flags & SYN != 0)
                + u32::from(heard.flags & FIN != 0);
            self.ack = heard.seq.wrapping_add(space);
        }
        Some(heard)
    }

    /// Waits for an RST that TCP must obey: its sequence number is exactly the expected one (RFC 5961,
    /// section 3.2).
    pub fn is_reset(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while let Some(heard) = self.receive(until.saturating_duration_since(Instant::now())) {
            if heard.flags & RST != 0 && heard.seq == self.ack {
                return true;
            }
        }
        false
    }

    /// Waits for payload, and acknowledges it.
    pub fn read(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + patience;
        while let Some(heard) = self.receive(until.saturating_duration_since(Instant::now())) {
            if !heard.payload.is_empty() {
                self.acknowledge();
                return Some(heard.payload);
            }
        }
        None
    }

    /// Returns true if the venue's address answers an ICMP echo request.
    pub fn ping(&self) -> bool {
        const ID: u16 = 0x62;
        let [own, next] = self.hardware;
        let ethernet = PacketBuilder::ethernet2(own, next);
        let mut frame = Vec::new();
        match (self.from, self.to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                let ip = ethernet.ipv4(from.ip().octets(), to.ip().octets(), 64);
                ip.icmpv4_echo_request(ID, 1).write(&mut frame, b"breaker")
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                let ip = ethernet.ipv6(from.ip().octets(), to.ip().octets(), 64);
                ip.icmpv6_echo_request(ID, 1).write(&mut frame, b"breaker")
            }
            _ => panic!("both ends are of one family"),
        }
        .expect("writing to memory");
        self.socket.send(&frame);
        let is_reply = |bytes: &[u8]| {
            let id = match SlicedPacket::from_ethernet(bytes).ok()?.transport? {
                TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
                    Icmpv4Type::EchoReply(echo) => echo.id,
                    _ => return None,
                },
                TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
                    Icmpv6Type::EchoReply(echo) => echo.id,
                    _ => return None,
                },
                _ => return None,
            };
            (id == ID).then_some(())
        };
        self.socket.wait(PATIENCE, is_reply).is_some()
    }
}
