//! Inbound segments: they are read and counted, never withheld.

use crate::abi::{Connection, Inbound, Session, cause, flag};
use crate::limits;
use crate::message::InboundClass;

use super::env::Env;
use super::segment::{ACK, SYN, Segment};

/// Counts the messages of an inbound segment of a session for the inbound limits.
///
/// A segment counts only if the connection's own socket would accept the segment. A blind attacker knows
/// neither the next sequence number nor the sent bytes.
#[inline(always)]
pub fn observe<E: Env>(
    env: &mut E,
    session: &Session,
    connection: &Connection,
    inbound: &mut Inbound,
    segment: &Segment,
) {
    if segment.length == 0 || session.flags & flag::OPAQUE != 0 || !is_acknowledging(connection, segment) {
        return;
    }
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let Some(new) = inbound.advance(seq, segment.length, env.counts()) else { return };
    let framing = if new.late { &mut inbound.gap.framing } else { &mut inbound.framing };
    if segment.is_unreadable() {
        framing.mark_blind((new.from, new.to), env.counts());
    } else {
        env.walk(framing, (new.from, new.to), u32::MAX, (0, 0));
    }
    let fills = env.counts().messages[InboundClass::Fill as usize] as u64;
    if fills != 0 {
        env.record_fills(session, fills);
    }
    limits::charge_inbound(session, env, |env, exceeded| env.trip(exceeded.scope, cause::RATE, exceeded));
}

/// Maximum number of bytes sent between the reads of `sent` and `next_seq`: more than a segment with SYN and
/// FIN.
const MAX_IN_FLIGHT: u32 = 1 << 20;

/// Returns true if the acknowledgement of a segment is acceptable (RFC 5961, section 5).
///
/// The segment must acknowledge neither unsent bytes nor bytes that were acknowledged long ago.
#[inline(always)]
fn is_acknowledging(connection: &Connection, segment: &Segment) -> bool {
    let stream = &connection.stream;
    let outstanding = stream.next_seq.wrapping_add(1).wrapping_sub(segment.ack);
    // The bytes sent before a connection was joined are unknown.
    let sent = if connection.opened == 0 { 1 << 30 } else { stream.sent };
    segment.flags & ACK != 0 && outstanding <= sent.wrapping_add(MAX_IN_FLIGHT)
}
