//! breaker's kernel programs. They do I/O: find a packet's connection, let `breaker_common::decide` judge it, carry the verdict out.
//!
//! Nothing here waits for user space. Every way out names a counted reason, and what is not a session's payload always passes.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "AtomicU64 has no read-modify-write on this target; the intrinsics compile to BPF atomics"
)]

mod atomic;
mod connection;
mod context;
mod event;
mod forwarded;
mod packet;
mod pages;
mod payload;
mod reset;
mod scope;
mod scratch;

use core::hint::cold_path;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use breaker_common::abi::{Connection, flag, reason};
use breaker_common::decide::{self, FIN, RST, SYN};

use crate::context::{Context, Frame, Skb};
use crate::packet::FastHeaders;
use crate::payload::Beginning;
use crate::scratch::{PacketEnv, Scratch, non_null};

/// Verdict of the chain: let the next program decide. `TC_ACT_OK` would end the chain for those behind (kernel `tcx.h`).
const NEXT: i32 = -1;
/// Verdict of the chain: drop.
const SHOT: i32 = 2;

/// tc egress: each packet that the host sends, before segmentation.
#[classifier]
pub fn egress(ctx: TcContext) -> i32 {
    send(Skb(ctx.skb.skb), packet::ETHERNET)
}

/// The same on a device without a link header (tun, WireGuard, PPP, IP tunnels): its packets begin with IP.
#[classifier]
pub fn egress_ip(ctx: TcContext) -> i32 {
    send(Skb(ctx.skb.skb), 0)
}

/// The body of both, for a link header of so many bytes.
#[inline(always)]
fn send(context: Skb, link: u32) -> i32 {
    let exit = match judge(context, link) {
        Ok(()) => return NEXT,
        Err(exit) => exit,
    };
    scratch::count(exit.reason);
    match exit.end {
        End::Pass => NEXT,
        End::Drop => SHOT,
        End::Reset => match Scratch::this_cpu().map(|scratch| reset::both_ways(context, &scratch.packet)) {
            Some(Ok(())) => NEXT,
            Some(Err(_)) | None => SHOT,
        },
    }
}

/// XDP on the inside interface of a gateway: each frame that a trading host sends.
#[xdp]
pub fn inline(ctx: XdpContext) -> u32 {
    let context = Frame(ctx.ctx);
    let exit = match judge(context, packet::ETHERNET) {
        Ok(()) => return XDP_PASS,
        Err(exit) => exit,
    };
    scratch::count(exit.reason);
    match exit.end {
        End::Pass => XDP_PASS,
        End::Drop => XDP_DROP,
        // Frames that were merged before they came here could be cut, but go no further: the stack holds on to their segments. Their
        // retransmits come one by one.
        End::Reset if context.is_merged() => XDP_DROP,
        End::Reset => {
            let Some(scratch) = Scratch::this_cpu() else { return XDP_DROP };
            // A frame is one only: the first one tells the peer, any further one its sender.
            let (done, sent) = match connection::notify_peer(scratch) {
                Some(seq) => (reset::onward(context, &scratch.packet, seq), XDP_PASS),
                None => (reset::back(context, &scratch.packet), XDP_TX),
            };
            if done.is_ok() { sent } else { XDP_DROP }
        }
    }
}

/// tc ingress of a trading host, or tc egress of a gateway towards it: what comes in for its sessions. Everything passes.
#[classifier]
pub fn inbound(ctx: TcContext) -> i32 {
    // Inbound traffic is only counted: an early exit needs no reason.
    let _ = observe(Skb(ctx.skb.skb), packet::ETHERNET);
    NEXT
}

/// The same on a device without a link header.
#[classifier]
pub fn inbound_ip(ctx: TcContext) -> i32 {
    // As above.
    let _ = observe(Skb(ctx.skb.skb), 0);
    NEXT
}

/// CLOCK_MONOTONIC, ns.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// A way out other than "passed": why, and what becomes of the packet.
struct Exit {
    reason: u32,
    end: End,
}

/// What becomes of a packet.
enum End {
    /// It goes on untouched.
    Pass,
    /// It is dropped.
    Drop,
    /// It becomes a reset.
    Reset,
}

/// The packet goes on untouched, for this reason.
const fn pass(reason: u32) -> Exit {
    Exit { reason, end: End::Pass }
}

#[inline(always)]
fn judge(context: impl Context, link: u32) -> Result<(), Exit> {
    let scratch = Scratch::this_cpu().ok_or(pass(reason::NOT_CONFIGURED))?;
    let (side, policy) = connection::in_force().ok_or(pass(reason::NOT_CONFIGURED))?;
    (scratch.side, scratch.packet.link) = (side, link);
    let fast = if link == packet::ETHERNET { FastHeaders::of(context, &mut scratch.packet)? } else { None };
    let port_watched = match fast {
        Some(fast) => {
            let port_watched = connection::is_port_watched(fast.remote_port());
            // Most of a host's traffic ends here, before its addresses are written down.
            if !port_watched
                && connection::beginning(context, policy.undeclared, &scratch.packet) == Beginning::Other
            {
                return Err(pass(reason::NOT_OURS));
            }
            fast.read(&mut scratch.packet);
            port_watched
        }
        None => {
            packet::parse(context, &mut scratch.packet)?;
            connection::is_port_watched(scratch.packet.key.remote_port)
        }
    };
    let connection = connection::find(context, scratch, port_watched)?;
    if context.is_lost(scratch, connection) {
        cold_path();
        return Err(Exit { reason: reason::UNDELIVERABLE, end: End::Drop });
    }
    let judged = context.judge_segment(scratch, connection);
    let ends = scratch.packet.segment.flags & (FIN | RST) != 0;
    if !ends && judged == reason::PASSED {
        return Ok(());
    }
    if ends || judged != reason::CONTROL {
        cold_path();
        connection::retire();
    }
    let reason = judged & !(DROP | RESET);
    if judged & RESET != 0 && !scratch.packet.encapsulated {
        return Err(Exit { reason, end: End::Reset });
    }
    match reason {
        reason::PASSED => Ok(()),
        reason => Err(Exit { reason, end: if judged & (DROP | RESET) != 0 { End::Drop } else { End::Pass } }),
    }
}

/// What [`judge_segment`] adds to the reason of a segment that is to be dropped,
const DROP: u32 = 1 << 31;
/// and of one that is to become a reset.
const RESET: u32 = 1 << 30;

/// Judges a segment of a connection: the reason, with [`DROP`] or [`RESET`] where it is withheld.
///
/// A global function, so that the verifier follows it once and not once a way by which a connection is found.
#[inline(always)]
fn judge_segment(context: impl Context, scratch: *mut Scratch, connection: *mut Connection) -> u32 {
    let (Some(scratch), Some(connection)) = (non_null(scratch), non_null(connection)) else {
        return reason::NOT_CONFIGURED;
    };
    scratch.clear(false);
    if context.is_paged(scratch.packet.payload + scratch.packet.segment.length) {
        cold_path();
        scratch.packet.segment.shared_pages = context.is_shared();
    }
    let segment = scratch.packet.segment;
    let mut env = PacketEnv { context, scratch };
    let verdict = decide::decide(&mut env, connection, &segment);
    let number = connection.session;
    scratch::count_segment(number, verdict, &env.scratch.counts);
    if !verdict.withheld() {
        return verdict.reason();
    }
    cold_path();
    let drops =
        connection::session(number, env.scratch.side).is_some_and(|session| session.flags & flag::DROP != 0);
    let withheld = if drops || verdict.spares_connection() { DROP } else { RESET };
    verdict.reason() | withheld
}

#[inline(always)]
fn observe(context: Skb, link: u32) -> Result<(), Exit> {
    let scratch = Scratch::this_cpu().ok_or(pass(reason::NOT_CONFIGURED))?;
    scratch.packet.link = link;
    let fast = if link == packet::ETHERNET { FastHeaders::of(context, &mut scratch.packet)? } else { None };
    match fast {
        Some(fast) => {
            fast.read(&mut scratch.packet);
            scratch.packet.segment.ack = fast.ack();
        }
        None => packet::parse(context, &mut scratch.packet)?,
    }
    // A SYN tells where the stream begins; nothing else without payload tells anything.
    if scratch.packet.segment.length == 0 && scratch.packet.segment.flags & SYN == 0 {
        return Err(pass(reason::CONTROL));
    }
    scratch.packet.swap_endpoints();
    (scratch.side, _) = connection::in_force().ok_or(pass(reason::NOT_CONFIGURED))?;
    let (number, connection, inbound) = connection::find_inbound(scratch).ok_or(pass(reason::NOT_OURS))?;
    let session = connection::session(number, scratch.side).ok_or(pass(reason::NOT_CONFIGURED))?;
    scratch.clear(true);
    scratch.set_session(number);
    let segment = scratch.packet.segment;
    let mut env = PacketEnv { context, scratch };
    decide::observe(&mut env, session, connection, inbound, &segment);
    scratch::count_inbound(number, &env.scratch.counts);
    Ok(())
}

/// The verifier proves that nothing panics: a path that reached this would be refused at load.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Helpers such as `bpf_clone_redirect` are for GPL programs; this crate is also under it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
