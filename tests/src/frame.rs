//! Crafted frames and FIX messages, byte by byte.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, LinkSlice, NetSlice, PacketBuilder,
    SlicedPacket, TcpHeader, TransportSlice, VlanId,
};

/// A TCP segment to be framed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags, as in byte 13 of the header.
    pub flags: u8,
    /// Bytes of TCP options, a multiple of 4.
    pub options: usize,
    /// VLAN identifier of the tag in the packet.
    pub vlan: Option<u16>,
    /// Hardware addresses of the sender and of the next hop.
    pub hardware: [[u8; 6]; 2],
    /// Payload.
    pub payload: Vec<u8>,
}

/// TCP flag: the acknowledgement number is valid.
pub const ACK: u8 = 0x10;

impl Frame {
    /// A segment with the ACK flag and no options.
    pub fn new(from: SocketAddr, to: SocketAddr, seq: u32, payload: &[u8]) -> Self {
        let hardware = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
        Self {
            from,
            to,
            seq,
            ack: 1,
            flags: ACK,
            options: 0,
            vlan: None,
            hardware,
            payload: payload.to_vec(),
        }
    }

    /// The segment with these flags.
    pub fn with_flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let [from, to] = self.hardware;
        let ethernet = PacketBuilder::ethernet2(from, to);
        let mut tcp = TcpHeader::new(self.from.port(), self.to.port(), self.seq, 512);
        tcp.acknowledgment_number = self.ack;
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

    /// The segment as two IP fragments. The first holds `first` bytes behind its IP header, a multiple of 8.
    pub fn fragments(&self, first: usize) -> [Vec<u8>; 2] {
        let whole = self.bytes();
        let ip = if self.vlan.is_some() { 18 } else { 14 };
        let cut = |from: usize, to: usize, last: bool| {
            let offset = IpFragOffset::try_new((from / 8) as u16).expect("a legal offset");
            let mut bytes = whole[..ip].to_vec();
            if self.to.is_ipv4() {
                let (mut header, payload) = Ipv4Header::from_slice(&whole[ip..]).expect("an IPv4 header");
                let part = &payload[from..to.min(payload.len())];
                (header.dont_fragment, header.more_fragments, header.fragment_offset) =
                    (false, !last, offset);
                header.identification = self.seq as u16;
                header.set_payload_len(part.len()).expect("a legal length");
                header.header_checksum = header.calc_header_checksum();
                bytes.extend_from_slice(&header.to_bytes());
                bytes.extend_from_slice(part);
            } else {
                let (mut header, payload) = Ipv6Header::from_slice(&whole[ip..]).expect("an IPv6 header");
                let part = &payload[from..to.min(payload.len())];
                let fragment = Ipv6FragmentHeader::new(header.next_header, offset, !last, self.seq);
                header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                header.set_payload_length(part.len() + Ipv6FragmentHeader::LEN).expect("a legal length");
                bytes.extend_from_slice(&header.to_bytes());
                bytes.extend_from_slice(&fragment.to_bytes());
                bytes.extend_from_slice(part);
            }
            bytes
        };
        [cut(0, first, false), cut(first, usize::MAX, true)]
    }

    /// The TCP segment in a received frame, and whether its checksum is right; `None` if there is none.
    pub fn parse(bytes: &[u8]) -> Option<(Self, bool)> {
        let sliced = SlicedPacket::from_ethernet(bytes).ok()?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else { return None };
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return None };
        let (from, to, sum) = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                let (from, to) = (ip.header().source(), ip.header().destination());
                (IpAddr::from(from), IpAddr::from(to), tcp.calc_checksum_ipv4(from, to).ok()?)
            }
            Some(NetSlice::Ipv6(ip)) => {
                let (from, to) = (ip.header().source(), ip.header().destination());
                (IpAddr::from(from), IpAddr::from(to), tcp.calc_checksum_ipv6(from, to).ok()?)
            }
            _ => return None,
        };
        let frame = Self {
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            flags: tcp.slice()[13],
            options: tcp.options().len(),
            vlan: sliced.vlan_ids().first().map(|id| id.value()),
            hardware: [ethernet.source(), ethernet.destination()],
            payload: tcp.payload().to_vec(),
        };
        Some((frame, sum == tcp.checksum()))
    }
}

/// A well-formed FIX message of this type. `fields` follow the header.
pub fn message(begin: &str, msg_type: &str, fields: &[u8]) -> Vec<u8> {
    let header = format!("35={msg_type}\x0149=FIRM\x0156=VENUE\x0134=1\x0152=20261122-09:30:00.000\x01");
    framed(begin, &[header.as_bytes(), fields].concat())
}

/// A well-formed FIX message with this body, from MsgType(35) to the field before CheckSum(10). `|` stands
/// for SOH.
pub fn message_with_body(body: &str) -> Vec<u8> {
    framed("FIX.4.4", body.replace('|', "\x01").as_bytes())
}

/// A FIX message with BeginString(8), BodyLength(9) and CheckSum(10) around this body.
fn framed(begin: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!("8={begin}\x019={}\x01", body.len()).into_bytes();
    message.extend_from_slice(body);
    let sum = message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    message.extend_from_slice(format!("10={sum:03}\x01").as_bytes());
    message
}

/// An order of about 150 bytes, FIX 4.4.
pub fn order(id: u32) -> Vec<u8> {
    let fields = format!(
        "11=R-{id:06}\x0121=1\x0155=IBM\x0154=1\x0138=100\x0140=2\x01\
         44=101.25\x0159=0\x0160=20261122-09:30:00.000\x01"
    );
    message("FIX.4.4", "D", fields.as_bytes())
}
