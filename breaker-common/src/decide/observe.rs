//! What comes in: read and counted, never withheld.

use crate::abi::{Connection, Inbound, Session, cause, flag};
use crate::limits;
use crate::message::InboundClass;

use super::env::Env;
use super::segment::{ACK, SYN, Segment};

/// Takes note of a segment that comes in for a session: what it reports counts for limits, and nothing of it is ever withheld.
///
/// It counts only where the connection's own socket would take it: a forger who does not see the connection knows neither what comes next
/// nor what was sent.
#[inline(always)]
pub fn observe<W: Env>(
    env: &mut W,
    session: &Session,
    connection: &Connection,
    inbound: &mut Inbound,
    segment: &Segment,
) {
    // A SYN that comes again late starts nothing anew: what came in on ports that are taken over goes with their connection.
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

/// Bytes that may be sent while `sent` and `next_seq` are read one after the other: more than any segment has, and its SYN and FIN.
const MAX_IN_FLIGHT: u32 = 1 << 20;

/// Whether a segment acknowledges what the connection has sent (RFC 5961, 5): not more, and not what is long acknowledged.
#[inline(always)]
fn is_acknowledging(connection: &Connection, segment: &Segment) -> bool {
    let stream = &connection.stream;
    let outstanding = stream.next_seq.wrapping_add(1).wrapping_sub(segment.ack);
    // Of a connection that was joined nobody knows how much it has sent before.
    let sent = if connection.opened == 0 { 1 << 30 } else { stream.sent };
    segment.flags & ACK != 0 && outstanding <= sent.wrapping_add(MAX_IN_FLIGHT)
}
