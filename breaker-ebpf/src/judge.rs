//! A packet's way through the program: parse the headers, find the connection, decide on the segment.

use core::hint::cold_path;

use breaker_common::abi::{Connection, flag, reason};
use breaker_common::decide::{self, FIN, RST, SYN, Verdict};

use crate::context::Context;
use crate::env::PacketEnv;
use crate::exit::{End, Exit};
use crate::packet::ETHERNET;
use crate::parse::fast::FastHeaders;
use crate::parse::parse;
use crate::payload::Beginning;
use crate::scratch::{Scratch, non_null};
use crate::{clock, connection, counters, forwarded, policy};

const NS_PER_SECOND: u64 = 1_000_000_000;
const NOT_CONFIGURED: Exit = Exit::pass(reason::NOT_CONFIGURED);

/// Judges an outbound packet with a link header of `link` bytes. `Ok`: its payload passes.
#[inline(always)]
pub fn judge(context: impl Context, link: u32) -> Result<(), Exit> {
    let scratch = Scratch::this_cpu().ok_or(NOT_CONFIGURED)?;
    let (side, policy, hold) = policy::in_force().ok_or(NOT_CONFIGURED)?;
    (scratch.side, scratch.hold, scratch.packet.link) = (side, hold, link);
    let fast = if link == ETHERNET { FastHeaders::read(context, &mut scratch.packet)? } else { None };
    let port_watched = match fast {
        Some(fast) => {
            let port_watched = policy::is_port_watched(fast.remote_port());
            // Most other traffic of the host exits here, before the addresses are stored.
            if !port_watched && connection::beginning(context, policy.undeclared, scratch) == Beginning::Other
            {
                return Err(Exit::pass(reason::NOT_OURS));
            }
            fast.store(&mut scratch.packet);
            port_watched
        }
        None => {
            parse(context, &mut scratch.packet)?;
            policy::is_port_watched(scratch.packet.key.remote_port)
        }
    };
    require_not_held(scratch)?;
    let connection = connection::find(context, scratch, port_watched)?;
    if let Some(frame) = context.forwarded()
        && forwarded::is_undeliverable(frame, scratch, connection)
    {
        cold_path();
        return Err(Exit::drop(reason::UNDELIVERABLE));
    }
    let judged = context.judge_segment(scratch, connection);
    let ends = scratch.packet.segment.flags & (FIN | RST) != 0;
    if !ends && judged.is_ok() {
        return Ok(());
    }
    if ends || judged != Err(Exit::pass(reason::CONTROL)) {
        cold_path();
        connection::retire();
    }
    match judged {
        // The headers in front of IP hold the packet's length, which a reset would have to correct.
        Err(exit) if exit.end() == End::Reset && scratch.packet.encapsulated => {
            Err(Exit::drop(exit.reason()))
        }
        judged => judged,
    }
}

/// Drops a packet that would change the maps while an upgrade copies them: TCP sends the packet again.
#[inline(always)]
fn require_not_held(scratch: &Scratch) -> Result<(), Exit> {
    let hold = scratch.hold;
    if hold == 0 {
        return Ok(());
    }
    cold_path();
    let segment = &scratch.packet.segment;
    let is_stateful = segment.length != 0 || segment.flags & (SYN | FIN) != 0;
    if is_stateful && clock::now() < hold as u64 * NS_PER_SECOND {
        return Err(Exit::drop(reason::AHEAD));
    }
    Ok(())
}

/// Judges a segment of a connection. `Ok`: its payload passes.
///
/// A global function: the verifier follows one path to it, not one for each way to find a connection.
#[inline(always)]
pub fn judge_segment(
    context: impl Context,
    scratch: *mut Scratch,
    connection: *mut Connection,
) -> Result<(), Exit> {
    let (Some(scratch), Some(connection)) = (non_null(scratch), non_null(connection)) else {
        return Err(NOT_CONFIGURED);
    };
    scratch.clear(false);
    if context.is_paged(scratch.packet.payload + scratch.packet.segment.length) {
        cold_path();
        scratch.packet.segment.shared_pages = context.has_shared_pages();
    }
    let segment = scratch.packet.segment;
    let mut env = PacketEnv { context, scratch };
    let verdict = decide::decide(&mut env, connection, &segment);
    let number = connection.session;
    counters::count_segment(number, verdict, &env.scratch.counts);
    if verdict == Verdict::Passed {
        return Ok(());
    }
    if !verdict.withheld() {
        return Err(Exit::pass(verdict.reason()));
    }
    cold_path();
    let session = policy::session(number, env.scratch.side);
    let drops = session.is_some_and(|session| session.flags & flag::DROP != 0);
    Err(if drops || verdict.spares_connection() {
        Exit::drop(verdict.reason())
    } else {
        Exit::reset(verdict.reason())
    })
}

/// Counts the messages of an inbound packet with a link header of `link` bytes.
#[inline(always)]
pub fn observe(context: impl Context, link: u32) -> Result<(), Exit> {
    let scratch = Scratch::this_cpu().ok_or(NOT_CONFIGURED)?;
    scratch.packet.link = link;
    let fast = if link == ETHERNET { FastHeaders::read(context, &mut scratch.packet)? } else { None };
    match fast {
        Some(fast) => {
            fast.store(&mut scratch.packet);
            scratch.packet.segment.ack = fast.ack();
        }
        None => parse(context, &mut scratch.packet)?,
    }
    // Only a SYN matters without payload: it starts the stream.
    if scratch.packet.segment.length == 0 && scratch.packet.segment.flags & SYN == 0 {
        return Err(Exit::pass(reason::CONTROL));
    }
    scratch.packet.swap_endpoints();
    (scratch.side, _, scratch.hold) = policy::in_force().ok_or(NOT_CONFIGURED)?;
    let (number, connection, inbound) =
        connection::find_inbound(scratch).ok_or(Exit::pass(reason::NOT_OURS))?;
    require_not_held(scratch)?;
    let session = policy::session(number, scratch.side).ok_or(NOT_CONFIGURED)?;
    scratch.clear(true);
    scratch.session = number;
    let segment = scratch.packet.segment;
    let mut env = PacketEnv { context, scratch };
    decide::observe(&mut env, session, connection, inbound, &segment);
    counters::count_inbound(number, &env.scratch.counts);
    Ok(())
}
