//! Multipath TCP (RFC 8684).

use super::header::TCP;
use crate::context::Access;
use crate::packet::Packet;
use crate::scratch::non_null;

/// Returns true if the options of a SYN open a further path of a connection (MP_JOIN, RFC 8684, 3.2). A
/// global function.
#[inline(always)]
pub fn joins_multipath(context: impl Access, packet: *const Packet) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const MPTCP: u8 = 30;
    const MP_JOIN: u8 = 1;
    const JOIN_BYTES: u32 = 12;
    const MAX_OPTIONS: u32 = 40;
    let Some(packet) = non_null(packet.cast_mut()) else { return false };
    let mut offset = packet.tcp + TCP;
    let mut i = 0;
    while i < MAX_OPTIONS && offset + JOIN_BYTES <= packet.payload {
        let mut option = [0u8; 4];
        // SAFETY: the buffer has 4 bytes.
        if !unsafe { context.load(offset, option.as_mut_ptr(), 4) } || option[0] == END {
            return false;
        }
        if option[0] == MPTCP && option[2] >> 4 == MP_JOIN {
            return true;
        }
        offset += match option[0] {
            NOP => 1,
            _ if option[1] < 2 => return false,
            _ => option[1] as u32,
        };
        i += 1;
    }
    false
}
