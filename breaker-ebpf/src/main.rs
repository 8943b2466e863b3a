//! breaker's kernel programs: find a packet's connection, let `breaker_common::decide` decide, carry out the
//! verdict.
//!
//! No program waits for user space. Each early exit has a counted reason. Traffic of other applications
//! passes.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "AtomicU64 cannot read-modify-write on this target; the intrinsics compile to BPF atomics"
)]

// Floors, from the bottom to the top: a module imports modules of its own floor and of lower floors only.
mod atomic;
mod checksum;
mod clock;
mod counters;
mod exit;
mod packet;
mod shared_pages;

mod boundary;
mod event;
mod scratch;

mod context;
mod policy;
mod scope;

mod probe;

mod parse;
mod payload;
mod switches;

mod charge;
mod connection;
mod forwarded;
mod reset;
mod search;
mod walk;

mod env;

mod judge;

mod verifier;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::context::{Frame, Skb};
use crate::exit::End;
use crate::judge::{judge, observe};
use crate::packet::ETHERNET;
use crate::scratch::Scratch;

/// tc verdict: continue with the next program (`TCX_NEXT`). `TC_ACT_OK` would skip the programs behind
/// (kernel `tcx.h`).
const NEXT: i32 = -1;
/// tc verdict: drop (`TC_ACT_SHOT`).
const DROP: i32 = 2;

/// tc egress: each packet that the host sends, before segmentation.
#[classifier]
pub fn egress(ctx: TcContext) -> i32 {
    enforce(Skb(ctx.skb.skb), ETHERNET)
}

/// tc egress of a device without a link header (tun, WireGuard, PPP, IP tunnels).
#[classifier]
pub fn egress_ip(ctx: TcContext) -> i32 {
    enforce(Skb(ctx.skb.skb), 0)
}

/// Judges a packet and carries out the verdict.
#[inline(always)]
fn enforce(context: Skb, link: u32) -> i32 {
    let Err(exit) = judge(context, link) else { return NEXT };
    counters::count(exit.reason());
    match exit.end() {
        End::Pass => NEXT,
        End::Drop => DROP,
        End::Reset => match Scratch::this_cpu().map(|scratch| reset::both_ways(context, &scratch.packet)) {
            Some(Ok(())) => NEXT,
            Some(Err(_)) | None => DROP,
        },
    }
}

/// XDP on the inside interface of a gateway: each frame that a trading host sends.
#[xdp]
pub fn inline(ctx: XdpContext) -> u32 {
    let context = Frame(ctx.ctx);
    let Err(exit) = judge(context, ETHERNET) else { return XDP_PASS };
    counters::count(exit.reason());
    match exit.end() {
        End::Pass => XDP_PASS,
        End::Drop => XDP_DROP,
        // The stack would not forward a shortened frame of several segments. Their retransmits come one by
        // one.
        End::Reset if context.is_merged() => XDP_DROP,
        End::Reset => {
            let Some(scratch) = Scratch::this_cpu() else { return XDP_DROP };
            // One frame becomes one reset: the first for the peer, all later ones for the sender.
            let (done, verdict) = match connection::notify_peer(scratch) {
                Some(seq) => (reset::onward(context, &scratch.packet, seq), XDP_PASS),
                None => (reset::back(context, &scratch.packet), XDP_TX),
            };
            if done.is_ok() { verdict } else { XDP_DROP }
        }
    }
}

/// tc ingress of a trading host, or tc egress of a gateway towards it: the inbound packets. All pass.
#[classifier]
pub fn inbound(ctx: TcContext) -> i32 {
    count_inbound(Skb(ctx.skb.skb), ETHERNET)
}

/// [`inbound`] on a device without a link header.
#[classifier]
pub fn inbound_ip(ctx: TcContext) -> i32 {
    count_inbound(Skb(ctx.skb.skb), 0)
}

/// Counts an inbound packet. It passes, unless an upgrade holds the program.
#[inline(always)]
fn count_inbound(context: Skb, link: u32) -> i32 {
    match observe(context, link) {
        Err(exit) if exit.end() == End::Drop => DROP,
        // Any other result is ignored: inbound traffic is only counted.
        _ => NEXT,
    }
}

/// Never runs: the verifier refuses a program with a path to it.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Only programs under the GPL may call helpers such as `bpf_clone_redirect`. This crate is also under the
/// GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
