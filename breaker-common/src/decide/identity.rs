//! Whose a connection is, where several sessions go to one place: its first message tells.

use crate::abi::{Connection, Session, Target, kind, undeclared};

use super::HOST;
use super::verdict::Verdict;
use super::world::{Switches, World};

/// Whether the first message of a connection is awaited, to tell or to confirm whose it is.
#[inline(always)]
pub(super) fn is_asked(session: &Session, connection: &mut Connection) -> bool {
    if connection.pending != 0 && connection.place == 0 && session.ids == [0; 4] {
        connection.pending = 0;
    }
    connection.pending != 0
}

/// Takes note of the CompIDs that a connection shows, and compares them where it is known whose it is. True once it must be found out.
#[inline(always)]
pub(super) fn introduce<W: World>(world: &mut W, session: &Session, connection: &mut Connection) -> bool {
    let (shown, identified, desyncs) = {
        let tally = world.tally();
        (tally.ids, tally.identified, tally.desyncs)
    };
    let mut i = 0;
    while i < shown.len() {
        if shown[i] != 0 {
            connection.ids[i] = shown[i];
        }
        i += 1;
    }
    if identified == 0 && desyncs == 0 {
        return false;
    }
    connection.pending = 0;
    if connection.place == 0 && identified != 0 && differ(&session.ids, &connection.ids) {
        world.tell(kind::MISMATCHED, session.scopes[0]);
    }
    connection.place != 0
}

/// The session that a connection to a shared place is, by the CompIDs that it has shown, and its switches; `undeclared` are those of
/// what nobody declared.
#[inline(always)]
pub(super) fn settle<W: World>(
    world: &mut W,
    connection: &mut Connection,
    undeclared: Switches,
) -> Result<(W::Session, Switches), Verdict> {
    let Target::Shared { place, mask } = Target::unpack(connection.place) else { return Err(Verdict::Unconfigured) };
    let mut ids = connection.ids;
    let mut i = 0;
    while i < ids.len() {
        if mask >> i & 1 == 0 {
            ids[i] = 0;
        }
        i += 1;
    }
    let number = world.session_at(place, ids);
    let session = world.session(number).ok_or(Verdict::Unconfigured)?;
    if number == 0 {
        return stranger(world, connection).map_or(Ok((session, undeclared)), Err);
    }
    connection.session = number;
    // Its SYN was before it was known which trips concern it.
    let (past, switches) = (world.past(&session), world.switches(&session));
    let young = connection.opened == 1 && past.raised_ns < connection.opened_ns;
    connection.epoch = if young { switches.epoch } else { 0 };
    if young && switches.causes != 0 && world.isolated(session.scopes[0], past.resets) {
        return Err(Verdict::Tripped);
    }
    Ok((session, switches))
}

/// True where a number that must be is not.
#[inline(always)]
fn differ(expected: &[u32; 4], shown: &[u32; 4]) -> bool {
    let mut i = 0;
    let mut differ = false;
    while i < 4 {
        differ |= expected[i] != 0 && expected[i] != shown[i];
        i += 1;
    }
    differ
}

/// What becomes of a connection whose first message is of no declared session; `None` where it counts as undeclared.
#[inline(always)]
fn stranger<W: World>(world: &mut W, connection: &mut Connection) -> Option<Verdict> {
    let policy = world.undeclared();
    if policy == undeclared::IGNORE {
        connection.session = Connection::IGNORED;
        return Some(Verdict::Ignored);
    }
    world.tell(kind::UNDECLARED, HOST);
    // Block, or a code that no version knows: closed.
    (policy != undeclared::WATCH).then_some(Verdict::Undeclared)
}
