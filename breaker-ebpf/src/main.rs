//! breaker's kernel program. It does I/O: finds a packet's connection, lets `breaker_common::decide` judge it, carries the verdict out.
//!
//! Nothing here waits for user space. Every way out names a counted reason, and what is not a session's payload always passes.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "AtomicU64 has no read-modify-write on this target; the intrinsics compile to BPF atomics"
)]

mod atomic;
mod connection;
mod event;
mod packet;
mod payload;
mod reset;
mod scope;
mod work;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use breaker_common::abi::{Connection, flag, reason};
use breaker_common::decide::{self, Verdict};

use crate::work::{Run, Work, present};

/// Verdict of the chain: let the next program decide. `TC_ACT_OK` would end the chain for those behind (kernel `tcx.h`).
const NEXT: i32 = -1;
/// Verdict of the chain: drop.
const SHOT: i32 = 2;

/// tc egress: each packet that the host sends, before segmentation.
#[classifier]
pub fn egress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    match judge(skb) {
        Ok(()) => NEXT,
        Err(exit) => {
            work::count(exit.reason);
            if exit.shot { SHOT } else { NEXT }
        }
    }
}

/// A way out other than "passed": why, and whether the packet is dropped.
struct Exit {
    reason: u32,
    shot: bool,
}

/// The packet goes on untouched, for this reason.
const fn pass(reason: u32) -> Exit {
    Exit { reason, shot: false }
}

#[inline(always)]
fn judge(skb: *mut __sk_buff) -> Result<(), Exit> {
    let work = Work::of_this_cpu().ok_or(pass(reason::NOT_CONFIGURED))?;
    packet::parse(skb, &mut work.packet)?;
    let connection = connection::find(skb, work)?;
    let judged = judge_segment(skb, work, connection);
    let reason = judged & !(DROP | RESET);
    if judged & RESET != 0 {
        let shot = reset::both_ways(skb, &work.packet).is_err();
        return Err(Exit { reason, shot });
    }
    match reason {
        reason::PASSED => Ok(()),
        reason => Err(Exit { reason, shot: judged & DROP != 0 }),
    }
}

/// What [`judge_segment`] adds to the reason of a segment that is to be dropped,
const DROP: u32 = 1 << 31;
/// and of one that is to become a reset.
const RESET: u32 = 1 << 30;

/// Judges a segment of a connection: the reason, with [`DROP`] or [`RESET`] where it is withheld.
///
/// A global function, so that the verifier follows it once and not once a way by which a connection is found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_segment(skb: *mut __sk_buff, work: *mut Work, connection: *mut Connection) -> u32 {
    let (Some(work), Some(connection)) = (present(work), present(connection)) else { return reason::NOT_CONFIGURED };
    let number = connection.session;
    let Some(session) = connection::session(number) else { return reason::NOT_CONFIGURED };
    work.begin(number);
    let segment = work.packet.segment;
    let mut run = Run { skb, work };
    let verdict = decide::decide(&mut run, session, connection, &segment);
    work::account(number, verdict, &run.work.tally);
    let withheld = if session.flags & flag::DROP != 0 { DROP } else { RESET };
    verdict.reason()
        | match verdict {
            Verdict::Control | Verdict::Passed => 0,
            Verdict::Isolated => DROP,
            Verdict::Fenced | Verdict::Limit | Verdict::Tripped | Verdict::Desync => withheld,
        }
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
