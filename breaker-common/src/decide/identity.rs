//! Whose a connection is, where several sessions go to one place: its first message tells.

use crate::abi::{Connection, Session, Target, flag, kind, undeclared};

use super::verdict::Verdict;
use super::world::{Switches, World};
use super::{HOST, is_before};

/// Whether the first message of a connection is awaited, to tell or to confirm whose it is.
#[inline(always)]
pub(super) fn is_asked(session: &Session, connection: &mut Connection) -> bool {
    if connection.pending == 0 || connection.pending == Connection::CANDIDATE {
        return false;
    }
    if connection.place == 0 && session.ids == [0; 4] {
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
    if desyncs != 0 {
        // Of a message that could not be read to its end nothing holds.
        connection.ids = [0; 4];
    }
    let mut i = 0;
    while i < shown.len() {
        // The first value of a field counts, as for every engine.
        if connection.ids[i] == 0 {
            connection.ids[i] = shown[i];
        }
        i += 1;
    }
    if identified == 0 {
        return false;
    }
    connection.pending = 0;
    if connection.place == 0 && differ(&session.ids, &connection.ids) {
        world.tell(kind::MISMATCHED, session.scopes[0], 0);
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
    let other_user = session.flags & flag::OF_USER != 0 && session.uid != connection.uid;
    if number == 0 || other_user {
        let session = world.session(0).ok_or(Verdict::Unconfigured)?;
        return stranger(world, connection).map_or(Ok((session, undeclared)), Err);
    }
    connection.session = number;
    // Its SYN was before it was known which trips concern it.
    let (past, switches) = (world.past(&session), world.switches(&session));
    let born = if connection.opened == 1 { connection.opened_ns } else { session.declared_ns };
    let young = is_before(past.raised_ns, born);
    connection.epoch = if young { switches.epoch } else { Connection::OLD };
    if young && switches.causes != 0 && world.isolated(session.scopes[0], past.resets) {
        return Err(Verdict::Tripped);
    }
    Ok((session, switches))
}

/// Orders that a connection may send unread, by the count of its bytes, before it has told whose it is: room for the line or the header
/// of a proxy (107 bytes and 232 at most, haproxy's proxy-protocol.txt) before the Logon.
const MOST_UNREAD: u32 = 4;

/// What becomes of a segment of a connection to a shared place that has not told whose it is, where something in it could not be read:
/// it may be anyone's there, so all sessions of the place must let it pass.
#[inline(always)]
pub(super) fn unidentified<W: World>(world: &mut W, connection: &mut Connection) -> Option<Verdict> {
    if world.tally().unread == 0 {
        return None;
    }
    let orders = world.tally().blind_orders();
    let at_place = world.at_place(connection.place);
    if at_place.causes != 0 {
        return Some(Verdict::Tripped);
    }
    if connection.opened != 1 {
        return None;
    }
    if !is_before(at_place.raised_ns, connection.opened_ns) {
        return Some(Verdict::Fenced);
    }
    connection.pending = connection.pending.saturating_add(orders);
    if connection.pending > 1 + MOST_UNREAD {
        world.tell(kind::UNDECLARED, HOST, 0);
        return Some(Verdict::Undeclared);
    }
    None
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
    world.tell(kind::UNDECLARED, HOST, 0);
    // Block, or a code that no version knows: closed.
    (policy != undeclared::WATCH).then_some(Verdict::Undeclared)
}
