//! What comes in: read and counted, never withheld.

use crate::abi::{Session, cause, flag};
use crate::class::Incoming;
use crate::limits;
use crate::stream::Stream;

use super::segment::{SYN, Segment};
use super::walk;
use super::world::World;

/// Takes note of a segment that comes in for a session: what it reports counts for limits, and nothing of it is ever withheld.
#[inline(always)]
pub fn observe<W: World>(world: &mut W, session: &Session, stream: &mut Stream, segment: &Segment) {
    // A SYN that comes again late starts nothing anew: what came in on ports that are taken over goes with their connection.
    if segment.length == 0 || session.flags & flag::OPAQUE != 0 {
        return;
    }
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let Some(fresh) = stream.advance(seq, segment.length, world.tally()) else { return };
    walk(world, stream, segment, &fresh, 0, 0);
    let fills = world.tally().messages[Incoming::Fill as usize] as u64;
    if fills != 0 {
        world.fill(session, fills);
    }
    limits::record(session, world, |world, passed| world.trip(passed.scope, cause::RATE, passed));
}
