//! The new bytes of an outbound segment: sequencing, the walk, and the count of unread bytes.

use core::hint::cold_path;

use crate::abi::{Connection, Session, flag, kind, sync};
use crate::message::Class;
use crate::sequence::Arrival;

use super::env::Env;
use super::events::emit_rate_limited;
use super::segment::{SYN, Segment};
use super::verdict::Verdict;

/// Counts the messages in the new bytes of a segment.
///
/// `want` has the [`crate::message::want`] bits for all messages and for orders. Returns a verdict if the
/// segment is out of order.
#[inline(always)]
pub(super) fn read_new_bytes<E: Env>(
    env: &mut E,
    session: &Session,
    connection: &mut Connection,
    segment: &Segment,
    want: (u32, u32),
) -> Option<Verdict> {
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let opened = connection.opened == 1;
    let stream = &mut connection.stream;
    let withholds = stream.is_out_of_order(seq) && env.armed(session.scopes[0]);
    let from = match stream.advance(seq, segment.length, opened, withholds, env.counts()) {
        Arrival::New(from) => from,
        Arrival::Repeated => {
            let counts = env.counts();
            // Bytes in shared pages may have changed since they were first sent, so they count as unread. The
            // expression has no branch, because the verifier would follow the rest of the program for both
            // ways.
            counts.blind_bytes |= segment.length & (segment.shared_pages as u32).wrapping_neg();
            if counts.blind_bytes == 0 {
                return None;
            }
            segment.length
        }
        Arrival::Ahead => return Some(Verdict::Ahead),
        Arrival::Foreign => return Some(Verdict::Foreign),
    };
    if session.flags & flag::OPAQUE != 0 {
        let wire_segments = env.wire_segments(segment);
        let counts = env.counts();
        counts.messages[Class::Order as usize] = wire_segments;
        (counts.desyncs, counts.blind_bytes) = (0, 0);
        return None;
    }
    if segment.is_unreadable() {
        cold_path();
        stream.framing.mark_blind((from, segment.length), env.counts());
    } else if from < segment.length {
        env.walk(&mut stream.framing, (from, segment.length), session.longest, want);
    }
    let blind = stream.framing.sync != sync::IN_SYNC;
    if blind || env.counts().blind_bytes != 0 || connection.blind != 0 {
        cold_path();
        count_blind_bytes(env, session, connection, blind);
    }
    None
}

/// Counts the unread bytes of a segment. Emits an event if the stream becomes blind or is in sync again.
#[inline(always)]
fn count_blind_bytes<E: Env>(env: &mut E, session: &Session, connection: &mut Connection, blind: bool) {
    let counts = env.counts();
    counts.unread = (blind || counts.blind_bytes != 0) as u32;
    if session.flags & flag::BLIND_UNCOUNTED == 0 {
        let orders = counts.blind_orders();
        counts.messages[Class::Order as usize] = counts.messages[Class::Order as usize].wrapping_add(orders);
    } else {
        counts.recounted_orders = counts.blind_bytes;
    }
    if blind as u32 != connection.blind {
        connection.blind = blind as u32;
        emit_rate_limited(
            env,
            connection,
            if blind { kind::BLIND } else { kind::SIGHTED },
            session.scopes[0],
        );
    }
}
