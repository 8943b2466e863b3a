//! Crafted frames: what the hook sees, byte by byte.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader, VlanId};

/// A TCP segment to be framed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Flags as in byte 13 of the header.
    pub flags: u8,
    /// Bytes of TCP options, a multiple of 4.
    pub options: usize,
    /// VLAN tag in the packet.
    pub vlan: Option<u16>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// TCP flag: the acknowledgement number counts.
pub const ACK: u8 = 0x10;

impl Frame {
    /// A plain segment.
    pub fn new(from: SocketAddr, to: SocketAddr, seq: u32, payload: &[u8]) -> Self {
        Self { from, to, seq, flags: ACK, options: 0, vlan: None, payload: payload.to_vec() }
    }

    /// The same with these flags.
    pub fn with_flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut tcp = TcpHeader::new(self.from.port(), self.to.port(), self.seq, 512);
        tcp.acknowledgment_number = 1;
        (tcp.fin, tcp.syn, tcp.rst) = (self.flags & 1 != 0, self.flags & 2 != 0, self.flags & 4 != 0);
        (tcp.psh, tcp.ack, tcp.urg) = (self.flags & 8 != 0, self.flags & 0x10 != 0, self.flags & 0x20 != 0);
        tcp.set_options_raw(&vec![1; self.options]).expect("options of a legal length");
        let mut bytes = Vec::new();
        let vlan = self.vlan.map(|id| VlanId::try_new(id).expect("a legal tag"));
        let built = match (self.from.ip(), self.to.ip(), vlan) {
            (IpAddr::V4(from), IpAddr::V4(to), None) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V4(from), IpAddr::V4(to), Some(id)) => {
                ethernet.single_vlan(id).ipv4(from.octets(), to.octets(), 64)
            }
            (IpAddr::V6(from), IpAddr::V6(to), None) => ethernet.ipv6(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to), Some(id)) => {
                ethernet.single_vlan(id).ipv6(from.octets(), to.octets(), 64)
            }
            _ => panic!("both ends are of one family"),
        };
        built.tcp_header(tcp).write(&mut bytes, &self.payload).expect("writing to memory");
        bytes
    }
}

/// A FIX message with this type and these fields behind the header, well formed.
pub fn message(begin: &str, msg_type: &str, fields: &[u8]) -> Vec<u8> {
    let mut body = format!("35={msg_type}\x0149=FIRM\x0156=VENUE\x0134=1\x0152=20261122-09:30:00.000\x01").into_bytes();
    body.extend_from_slice(fields);
    let mut message = format!("8={begin}\x019={}\x01", body.len()).into_bytes();
    message.extend_from_slice(&body);
    let sum = message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    message.extend_from_slice(format!("10={sum:03}\x01").as_bytes());
    message
}

/// An order of about 150 bytes, FIX 4.4.
pub fn order(id: u32) -> Vec<u8> {
    let fields = format!(
        "11=R-{id:06}\x0121=1\x0155=IBM\x0154=1\x0138=100\x0140=2\x0144=101.25\x0159=0\x0160=20261122-09:30:00.000\x01"
    );
    message("FIX.4.4", "D", fields.as_bytes())
}
