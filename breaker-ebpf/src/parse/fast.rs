//! The headers of most packets, read with one bounds check.

use breaker_common::abi::{mapped, reason};

use super::header::{ETH_P_IP, IPPROTO_TCP, IPPROTO_UDP, Ipv4, Packed, Tcp, VXLAN_PORT, end_of_ip, header};
use crate::context::Access;
use crate::exit::Exit;
use crate::packet::{ETHERNET, Packet};

/// Untagged Ethernet, unfragmented IPv4 without options, and TCP.
#[repr(C, packed)]
pub struct FastHeaders {
    hardware: [u8; 12],
    ethertype: u16,
    ip: Ipv4,
    tcp: Tcp,
}

// SAFETY: packed, and made of integers.
unsafe impl Packed for FastHeaders {}

impl FastHeaders {
    const IP: u32 = ETHERNET;
    const TCP: u32 = Self::IP + size_of::<Ipv4>() as u32;

    /// Returns the headers of a packet, and sets the payload's offset and length. `None`: the packet needs
    /// [`super::parse`].
    ///
    /// The two numbers go into `packet` because the stack has no room for them: "combined stack size of ...
    /// calls is ... Too large" (up to 6.1).
    ///
    /// # Errors
    /// The packet is UDP other than VXLAN.
    #[inline(always)]
    pub fn read(context: impl Access, packet: &mut Packet) -> Result<Option<&'static Self>, Exit> {
        let Ok(fast) = header::<Self>(context, 0) else { return Ok(None) };
        // The mask leaves out "don't fragment".
        let layout = (fast.ethertype, fast.ip.version_ihl, fast.ip.fragment & 0xbfff_u16.to_be());
        if layout != (ETH_P_IP.to_be(), 0x45, 0) {
            return Ok(None);
        }
        if fast.ip.protocol != IPPROTO_TCP {
            let may_be_tunnel = fast.ip.protocol != IPPROTO_UDP || fast.tcp.destination == VXLAN_PORT.to_be();
            return if may_be_tunnel { Ok(None) } else { Err(Exit::pass(reason::NOT_OURS)) };
        }
        let payload = Self::TCP + (fast.tcp.offset >> 4) as u32 * 4;
        let end = end_of_ip(context, Self::IP, u16::from_be(fast.ip.total_length) as u32);
        if fast.tcp.offset >> 4 < 5 || payload > end {
            return Ok(None);
        }
        (packet.payload, packet.segment.length) = (payload, end - payload);
        Ok(Some(fast))
    }

    /// Returns the destination port in network order.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        self.tcp.destination
    }

    /// Returns the acknowledgement number.
    #[inline(always)]
    pub fn ack(&self) -> u32 {
        u32::from_be(self.tcp.ack)
    }

    /// Writes all other fields of `packet`, except the acknowledgement number: only inbound packets need it.
    #[inline(always)]
    pub fn store(&self, packet: &mut Packet) {
        let key = &mut packet.key;
        key.local = mapped(self.ip.source);
        key.remote = mapped(self.ip.destination);
        key.local_port = self.tcp.source;
        key.remote_port = self.tcp.destination;
        let segment = &mut packet.segment;
        (segment.seq, segment.flags) = (u32::from_be(self.tcp.seq), self.tcp.flags);
        (segment.fragment, segment.shared_pages) = (false, false);
        (packet.ip, packet.tcp, packet.fragment, packet.v6) = (Self::IP, Self::TCP, 0, false);
        packet.encapsulated = false;
    }
}
