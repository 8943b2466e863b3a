//! VLAN tags, PPPoE headers and MPLS labels between Ethernet and IP.

use core::hint::cold_path;

use breaker_common::abi::unseen;

use super::header::{ETH_P_IP, ETH_P_IPV6, ethertype_at, header};
use crate::context::Access;
use crate::exit::Exit;
use crate::packet::{ETHERNET, Network};

const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETH_P_QINQ1: u16 = 0x9100;
const ETH_P_QINQ2: u16 = 0x9200;
const ETH_P_QINQ3: u16 = 0x9300;
const ETH_P_MPLS_UC: u16 = 0x8847;
const ETH_P_MPLS_MC: u16 = 0x8848;
const ETH_P_PPP_SES: u16 = 0x8864;
const PPP_IP: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;

const VLAN: u32 = 4;
const MPLS: u32 = 4;
const PPPOE: u32 = 8;
/// Most VLAN tags, and most MPLS labels. A tag in the skb's metadata does not count.
const MAX_TAGS: u32 = 6;

/// Skips the tags of a packet. A global function.
#[inline(always)]
pub fn skip_tags(context: impl Access) -> Result<Network, Exit> {
    let mut offset = ETHERNET;
    let mut ethertype: &[u8; 2] = header(context, offset - 2)?;
    let mut tag = 0;
    while tag < MAX_TAGS {
        match u16::from_be_bytes(*ethertype) {
            ETH_P_8021Q | ETH_P_8021AD | ETH_P_QINQ1 | ETH_P_QINQ2 | ETH_P_QINQ3 => {
                offset += VLAN;
                ethertype = header(context, offset - 2)?;
            }
            ETH_P_PPP_SES => {
                cold_path();
                let protocol: &[u8; 2] = header(context, offset + PPPOE - 2)?;
                let ethertype = match u16::from_be_bytes(*protocol) {
                    PPP_IP => ETH_P_IP,
                    PPP_IPV6 => ETH_P_IPV6,
                    _ => return Err(Exit::unseen(unseen::PPPOE)),
                };
                return Ok(Network { ethertype, offset: offset + PPPOE, encapsulated: true });
            }
            ETH_P_MPLS_UC | ETH_P_MPLS_MC => {
                cold_path();
                return skip_labels(context, offset);
            }
            ethertype => return Ok(Network { ethertype, offset, encapsulated: false }),
        }
        tag += 1;
    }
    match u16::from_be_bytes(*ethertype) {
        ETH_P_8021Q | ETH_P_8021AD | ETH_P_QINQ1 | ETH_P_QINQ2 | ETH_P_QINQ3 => {
            Err(Exit::unseen(unseen::VLAN))
        }
        ethertype => Ok(Network { ethertype, offset, encapsulated: false }),
    }
}

/// Skips MPLS labels (RFC 3032, 2.1). No label names the protocol behind it.
#[inline(always)]
fn skip_labels(context: impl Access, offset: u32) -> Result<Network, Exit> {
    let mut offset = offset;
    let mut label = 0;
    while label < MAX_TAGS {
        let entry: &[u8; 4] = header(context, offset)?;
        let is_last = entry[2] & 1 != 0;
        offset += MPLS;
        if is_last {
            return Ok(Network { ethertype: ethertype_at(context, offset)?, offset, encapsulated: true });
        }
        label += 1;
    }
    Err(Exit::unseen(unseen::MPLS))
}
