//! IPv6 extension headers (RFC 8200, 4).

use breaker_common::abi::{reason, unseen};

use super::header::{IPPROTO_TCP, later_fragment, other_protocol};
use crate::context::Access;
use crate::exit::Exit;
use crate::packet::{MAX_OFFSET, Transport};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MAX_EXTENSIONS: u32 = 12;

/// The exit of a packet with more or longer extension headers than the program follows.
pub const TOO_LONG: Exit = Exit::unseen(unseen::EXTENSIONS);

/// Skips the extension headers at `offset`, of which the first is `protocol`. A global function.
#[inline(always)]
pub fn skip_extensions(context: impl Access, offset: u32, protocol: u32) -> Result<Transport, Exit> {
    let mut offset = offset;
    let mut protocol = protocol as u8;
    let mut fragment = 0;
    let mut i = 0;
    while i < MAX_EXTENSIONS {
        let mut bytes = [0u8; 4];
        if protocol == IPPROTO_TCP {
            return if offset <= MAX_OFFSET {
                Ok(Transport { tcp: offset, fragment })
            } else {
                Err(TOO_LONG)
            };
        }
        // SAFETY: the buffer has 4 bytes.
        if !unsafe { context.load(offset, bytes.as_mut_ptr(), 4) } {
            return Err(Exit::pass(reason::NOT_OURS));
        }
        let length = bytes[1] as u32;
        offset += match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => (length + 1) * 8,
            // The length is in units of 4 bytes, minus 2 (RFC 4302, 2.2).
            AUTHENTICATION => (length + 2) * 4,
            FRAGMENT if bytes[2] != 0 || bytes[3] & 0xf8 != 0 => {
                if bytes[0] != IPPROTO_TCP && !is_extension(bytes[0]) {
                    return Err(Exit::pass(reason::NOT_OURS));
                }
                return Err(later_fragment(u16::from_be_bytes([bytes[2], bytes[3]]) as u32 >> 3));
            }
            FRAGMENT => {
                // Offset and flags are the third and fourth byte (RFC 8200, 4.5).
                fragment = if bytes[3] & 1 != 0 { (offset + 2) & MAX_OFFSET } else { fragment };
                8
            }
            other => return Err(other_protocol(context, other, offset)),
        };
        protocol = bytes[0];
        i += 1;
    }
    Err(TOO_LONG)
}

/// Returns true if a protocol is an extension header that the program skips.
#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}
